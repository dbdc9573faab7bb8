//! Bytes of the journal: batches, and the state that describes them.
//!
//! A batch, stored under the offset of its first record (numbers are little-endian):
//!
//! | version 2 | bytes |
//! |---|---|
//! | version `2`, then `hcj` | 4 |
//! | kind: 0 records, 1 hole | 1 |
//! | generation | 4 |
//! | hour of the append | 4 |
//! | number of records | 4 |
//! | bytes after this header | 4 |
//! | offset of the first record | 8 |
//! | stream | 8 |
//! | CRC-32C of all that is above, then of what follows | 4 |
//! | for each record: its length (4), the record | |
//!
//! A hole has no bytes: its records are lost. Offset, length and stream are in the header so that a batch can be recognised and verified without the
//! store's pages. Version 1 is `1 | hour | count` and the records; it is read, and no longer written.
//!
//! The state is `1 hcs | length | CRC-32C | JSON` and is written in every transaction, so it always describes the batches beside it.

use schemas::{Hour, StreamId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION_1: u8 = 1;
const HEADER_1_BYTES: usize = 9;
/// The first bytes of a batch of version 2.
pub(super) const BATCH_MAGIC: [u8; 4] = *b"\x02hcj";
/// Bytes before the records of a batch.
pub(super) const HEADER_BYTES: usize = 41;
const CRC_AT: usize = HEADER_BYTES - 4;
/// The first bytes of a state.
pub(super) const STATE_MAGIC: [u8; 4] = *b"\x01hcs";
/// Bytes before a state's JSON.
pub(super) const STATE_HEADER_BYTES: usize = 12;

/// The kind of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Records.
    Records,
    /// Offsets whose records are lost.
    Hole,
}

/// The description of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: BatchKind,
    /// The number of the opening that appended it; none in version 1.
    pub(super) generation: Option<u32>,
    pub(super) appended: Hour,
    pub(super) count: u32,
    /// Bytes before the records.
    pub(super) header_bytes: usize,
    /// Bytes of the records.
    pub(super) length: usize,
    /// Offset and stream, in version 2.
    pub(super) place: Option<(u64, StreamId)>,
    crc: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The header of a stored batch, not verified.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    if *bytes.first()? == VERSION_1 {
        return Some(Header {
            kind: BatchKind::Records,
            generation: None,
            appended: Hour(u32_at(bytes, 1)?),
            count: u32_at(bytes, 5)?,
            header_bytes: HEADER_1_BYTES,
            length: bytes.len() - HEADER_1_BYTES,
            place: None,
            crc: 0,
        });
    }
    if !bytes.starts_with(&BATCH_MAGIC) {
        return None;
    }
    Some(Header {
        kind: match bytes.get(4)? {
            0 => BatchKind::Records,
            1 => BatchKind::Hole,
            _ => return None,
        },
        generation: Some(u32_at(bytes, 5)?),
        appended: Hour(u32_at(bytes, 9)?),
        count: u32_at(bytes, 13)?,
        header_bytes: HEADER_BYTES,
        length: u32_at(bytes, 17)? as usize,
        place: Some((u64_at(bytes, 21)?, StreamId(u64_at(bytes, 29)?))),
        crc: u32_at(bytes, CRC_AT)?,
    })
}

/// The header of a stored batch, if all of the batch is unchanged.
pub(super) fn verified(bytes: &[u8]) -> Option<Header> {
    let header = header(bytes)?;
    let records = bytes.get(header.header_bytes..)?;
    if header.place.is_some() {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), records);
        if crc != header.crc || records.len() != header.length {
            return None;
        }
    }
    let expected = if header.kind == BatchKind::Hole { 0 } else { header.count as usize };
    let (count, rest) = walk(records);
    (count == expected && rest.is_empty() && header.count > 0).then_some(header)
}

/// Number of whole records, and the bytes after them.
fn walk(mut rest: &[u8]) -> (usize, &[u8]) {
    let mut count = 0;
    while let Some((_, after)) = split_record(rest) {
        (count, rest) = (count + 1, after);
    }
    (count, rest)
}

/// The first record and the bytes after it.
pub(super) fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_first_chunk::<4>()?;
    after.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// The header fields of a new batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewBatch {
    pub(super) kind: BatchKind,
    pub(super) generation: u32,
    pub(super) appended: Hour,
    pub(super) count: u32,
    pub(super) first_offset: u64,
    pub(super) stream: StreamId,
}

impl NewBatch {
    /// Writes header and records into `bytes`, which has just their length.
    pub(super) fn encode(&self, records: &[u8], bytes: &mut [u8]) {
        bytes[..4].copy_from_slice(&BATCH_MAGIC);
        bytes[4] = u8::from(self.kind == BatchKind::Hole);
        bytes[5..9].copy_from_slice(&self.generation.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.appended.0.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.count.to_le_bytes());
        // The queue is bounded far below 4 GiB.
        bytes[17..21].copy_from_slice(&(records.len() as u32).to_le_bytes());
        bytes[21..29].copy_from_slice(&self.first_offset.to_le_bytes());
        bytes[29..CRC_AT].copy_from_slice(&self.stream.0.to_le_bytes());
        bytes[HEADER_BYTES..].copy_from_slice(records);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), records);
        bytes[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The journal's state, stored beside the batches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Grows with every transaction.
    pub(super) sequence: u64,
    pub(super) stream: u64,
    /// Offset of the oldest record that was not dropped.
    pub(super) trimmed_below: u64,
    /// Offset after the last record.
    pub(super) end: u64,
    /// Bytes of all batches.
    pub(super) stored_bytes: u64,
    /// Number of openings of the file that may have appended.
    pub(super) generation: u32,
    /// Generations and the first offset of each. A batch of another generation than its offset's was never committed.
    pub(super) generations: Vec<(u32, u64)>,
    /// Ranges of offsets whose records are lost: from, and up to (not included).
    #[serde(default)]
    pub(super) holes: Vec<(u64, u64)>,
    /// Texts by name: the aggregator's commit.
    #[serde(default)]
    pub(super) texts: BTreeMap<String, String>,
}

impl State {
    /// Starts the generation of an opening of the file.
    pub(super) fn start_generation(&mut self) {
        self.generation += 1;
        // A generation that appended nothing has no valid batch.
        self.generations.retain(|&(_, first)| first < self.end);
        self.generations.push((self.generation, self.end));
        // Dropped offsets need no generation; the last one that starts below still has records above.
        let below = self.generations.iter().filter(|&&(_, first)| first <= self.trimmed_below).count();
        self.generations.drain(..below.saturating_sub(1));
    }

    /// Whether a batch of `generation` at `offset` was committed, according to this state.
    pub(super) fn accepts(&self, generation: u32, offset: u64) -> bool {
        let active = self.generations.iter().rev().find(|&&(_, first)| first <= offset);
        active.is_none_or(|&(active, _)| generation == active) || generation > self.generation
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Numbers and texts always have a form in JSON.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = STATE_MAGIC.to_vec();
        bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &json);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&json);
        bytes
    }

    /// Length of a state that starts with these bytes.
    pub(super) fn length(bytes: &[u8]) -> Option<usize> {
        bytes.starts_with(&STATE_MAGIC).then_some(())?;
        Some(STATE_HEADER_BYTES + u32_at(bytes, 4)? as usize)
    }

    /// The state, if it is unchanged.
    pub(super) fn decode(bytes: &[u8]) -> Option<State> {
        let json = bytes.get(STATE_HEADER_BYTES..State::length(bytes)?)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), json);
        if u32_at(bytes, 8)? != crc || bytes.len() != STATE_HEADER_BYTES + json.len() {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

#[cfg(test)]
mod tests;
