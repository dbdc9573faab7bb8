//! Recovers the readable part of a damaged journal without the store's pages, and writes it to a new file.
//!
//! Every batch of version 2 carries its offset, its stream and a checksum over all of it. So the file is searched for batches byte by byte, wherever
//! the store put them. The search also finds copies that the store has not overwritten yet. The newest readable state decides which of them count:
//! those of its stream, not dropped, and of the generation of their offset.
//!
//! Batches of version 1 have no checksum. They become holes: records that cannot be verified are not counted.

use super::format::{BATCH_MAGIC, BatchKind, HEADER_BYTES, NewBatch, STATE_MAGIC, State, header, verified};
use super::store::{self, change, guarded};
use super::{JournalError, place};
use schemas::{Hour, StreamId};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes per step of the search.
const CHUNK_BYTES: usize = 4 << 20;
/// No batch and no state is longer: the queue in front of the journal is bounded below this.
const LONGEST_BYTES: usize = 256 << 20;
/// Records of one hole's batch.
const HOLE_RECORDS: u64 = 1 << 30;

/// What was found in a damaged file, and what was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// First offset of the new file.
    pub begin: u64,
    /// Offset after its last record.
    pub end: u64,
    /// Records read.
    pub records: u64,
    /// Ranges of offsets whose records are lost: from, and up to (not included).
    pub holes: Vec<(u64, u64)>,
}

impl Salvaged {
    /// Records that are lost.
    pub fn lost(&self) -> u64 {
        self.holes.iter().map(|(from, to)| to - from).sum()
    }
}

/// A complete batch in the file.
#[derive(Clone, Copy, Debug)]
struct FoundBatch {
    position: u64,
    bytes: usize,
    count: u32,
    generation: u32,
    stream: StreamId,
    kind: BatchKind,
    appended: Hour,
    crc: u32,
}

/// Everything found in the file, useful or not.
#[derive(Default)]
struct Survey {
    state: Option<State>,
    /// By offset; several generations may have used the same one.
    batches: BTreeMap<u64, Vec<FoundBatch>>,
}

fn read_at(file: &File, position: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, position).ok().map(|()| bytes)
}

impl Survey {
    fn of(path: &Path) -> io::Result<Survey> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut survey = Survey::default();
        let (mut position, mut skip_to) = (0, 0);
        while position < length {
            let chunk = (length - position).min(CHUNK_BYTES as u64) as usize;
            let mut bytes = vec![0; chunk];
            if let Err(error) = file.read_exact_at(&mut bytes, position) {
                // An unreadable sector hides only its chunk.
                tracing::warn!(%error, position, "cannot read a part of the damaged journal");
                position += chunk as u64;
                continue;
            }
            for at in 0..chunk.saturating_sub(3) {
                let found_at = position + at as u64;
                let magic = &bytes[at..at + 4];
                if found_at >= skip_to && (magic == BATCH_MAGIC || magic == STATE_MAGIC) {
                    skip_to = skip_to.max(survey.take(&file, length, found_at));
                }
            }
            // A magic may span two chunks.
            position += if position + chunk as u64 == length { chunk as u64 } else { chunk as u64 - 3 };
        }
        Ok(survey)
    }

    /// Processes the batch or state that starts at `position`. Returns the position after it.
    fn take(&mut self, file: &File, length: u64, position: u64) -> u64 {
        let fits = |bytes: usize| bytes <= LONGEST_BYTES && bytes as u64 <= length - position;
        let Some(head) = read_at(file, position, (HEADER_BYTES as u64).min(length - position) as usize) else {
            return 0;
        };
        if let Some(bytes) = State::length(&head) {
            let state = Some(bytes).filter(|&bytes| fits(bytes)).and_then(|bytes| read_at(file, position, bytes));
            let Some(state) = state.and_then(|bytes| State::decode(&bytes)) else { return 0 };
            let newer = |known: &State| (state.generation, state.sequence) > (known.generation, known.sequence);
            if self.state.as_ref().is_none_or(newer) {
                self.state = Some(state);
            }
            return position + bytes as u64;
        }
        let bytes = header(&head).map(|header| HEADER_BYTES + header.length).filter(|&bytes| fits(bytes));
        let stored = bytes.and_then(|bytes| read_at(file, position, bytes));
        let Some(stored) = stored else { return 0 };
        let Some(header) = verified(&stored) else { return 0 };
        let (Some((first, stream)), Some(generation)) = (header.place, header.generation) else { return 0 };
        let found = FoundBatch {
            position,
            bytes: stored.len(),
            count: header.count,
            generation,
            stream,
            kind: header.kind,
            appended: header.appended,
            crc: crc32c::crc32c(&stored),
        };
        let others = self.batches.entry(first).or_default();
        if others.iter().all(|other| other.crc != found.crc) {
            others.push(found);
        }
        position + stored.len() as u64
    }

    /// The batches that count, in order and without overlaps.
    fn chosen(&self, state: &State) -> Vec<(u64, FoundBatch)> {
        let mut chosen: Vec<(u64, FoundBatch)> = Vec::new();
        let mut next = state.trimmed_below;
        for (&first, found) in &self.batches {
            let counts = |found: &&FoundBatch| found.stream.0 == state.stream && state.accepts(found.generation, first);
            let mut candidates = found.iter().filter(counts);
            let (Some(&batch), None) = (candidates.next(), candidates.next()) else { continue };
            if first >= next {
                next = first + u64::from(batch.count);
                chosen.push((first, batch));
            }
        }
        chosen
    }
}

/// The error for a damaged file, with its readable part.
pub(super) fn explained(path: &Path, offset: Option<u64>, found: String) -> JournalError {
    let survey = Survey::of(path).ok();
    let known = survey.and_then(|survey| survey.state.as_ref().map(|state| outcome(state, &survey.chosen(state))));
    match known {
        None => JournalError::Unreadable { path: path.to_owned(), found },
        Some(known) => {
            let first = known.holes.first().map(|(from, _)| *from);
            let offset = offset.or(first).or(Some(known.end));
            let found = format!(
                "{found}; {} of {} records from offset {} to {} can be read",
                known.records,
                known.end - known.begin,
                known.begin,
                known.end
            );
            JournalError::Damaged { path: path.to_owned(), offset, found }
        }
    }
}

/// The content of a new file with these batches.
fn outcome(state: &State, chosen: &[(u64, FoundBatch)]) -> Salvaged {
    let mut salvaged = Salvaged { begin: state.trimmed_below, end: state.trimmed_below, ..Salvaged::default() };
    let mut hole = |from: u64, to: u64| match salvaged.holes.last_mut() {
        Some(last) if last.1 == from => last.1 = to,
        _ => salvaged.holes.push((from, to)),
    };
    for (first, batch) in chosen {
        let next = first + u64::from(batch.count);
        if *first > salvaged.end {
            hole(salvaged.end, *first);
        }
        match batch.kind {
            BatchKind::Records => salvaged.records += u64::from(batch.count),
            BatchKind::Hole => hole(*first, next),
        }
        salvaged.end = next;
    }
    if state.end > salvaged.end {
        hole(salvaged.end, state.end);
        salvaged.end = state.end;
    }
    salvaged
}

/// Writes the readable records of `source` to a new file `target`, with the same stream, offsets and commit. Unreadable records become batches of
/// kind hole. `source` is not changed.
///
/// # Errors
/// `target` exists, a running service has `source` open, `source` has no readable state (so its stream is unknown), or a file cannot be read or
/// written.
pub fn salvage(source: &Path, target: &Path) -> Result<Salvaged, JournalError> {
    let failed =
        |path: &Path, error: io::Error| JournalError::Open { path: path.to_owned(), cause: redb::Error::Io(error) };
    if target.exists() {
        return Err(failed(target, io::Error::new(io::ErrorKind::AlreadyExists, "the file exists; name a new one")));
    }
    let file = File::open(source).map_err(|error| failed(source, error))?;
    // The store locks its file while it is open.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(JournalError::InUse { path: source.to_owned() });
    }
    let survey = Survey::of(source).map_err(|error| failed(source, error))?;
    let Some(state) = &survey.state else {
        let found = "no copy of its state can be read, so nothing says which log it was".to_owned();
        return Err(JournalError::Unreadable { path: source.to_owned(), found });
    };
    let chosen = survey.chosen(state);
    let salvaged = outcome(state, &chosen);
    let begin = State { end: state.trimmed_below, stored_bytes: 0, holes: salvaged.holes.clone(), ..state.clone() };
    let database = store::create(target, &begin)?;
    let (generation, stream) = (state.generation, StreamId(state.stream));
    let mut copy = Copy { database: &database, target, generation, stream, pending: Vec::new(), pending_bytes: 0 };
    // The hour of lost records is unknown: they count as appended with those before them.
    let mut appended = chosen.first().map_or(Hour(0), |(_, batch)| batch.appended);
    let mut next = salvaged.begin;
    for (first, batch) in &chosen {
        copy.hole(next, *first, appended)?;
        appended = batch.appended;
        let bytes = read_at(&file, batch.position, batch.bytes).filter(|bytes| verified(bytes).is_some());
        let Some(bytes) = bytes else {
            return Err(JournalError::Damaged {
                path: source.to_owned(),
                offset: Some(*first),
                found: format!("the file changed while it was read{}", place(Some(*first))),
            });
        };
        next = first + u64::from(batch.count);
        copy.batch(*first, next, bytes)?;
    }
    copy.hole(next, salvaged.end, appended)?;
    copy.write()?;
    guarded(|| {
        drop(database);
        Ok(())
    })
    .map_err(|failure| failure.of(target))?;
    Ok(salvaged)
}

/// The new file while it is written.
struct Copy<'a> {
    database: &'a redb::Database,
    target: &'a Path,
    generation: u32,
    stream: StreamId,
    /// Batches for the next transaction: first offset, offset after the last record, bytes.
    pending: Vec<(u64, u64, Vec<u8>)>,
    pending_bytes: usize,
}

impl Copy<'_> {
    fn batch(&mut self, first: u64, next: u64, bytes: Vec<u8>) -> Result<(), JournalError> {
        self.pending_bytes += bytes.len();
        self.pending.push((first, next, bytes));
        if self.pending_bytes >= CHUNK_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), JournalError> {
        self.pending_bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        let write = || {
            change(self.database, |batches, state| {
                for (first, next, bytes) in &pending {
                    batches.insert(first, bytes.as_slice())?;
                    state.end = *next;
                    state.stored_bytes += bytes.len() as u64;
                }
                Ok(())
            })
        };
        guarded(write).map_err(|failure| failure.of(self.target))
    }

    /// Marks offsets as lost, in as many batches as it takes.
    fn hole(&mut self, mut from: u64, to: u64, appended: Hour) -> Result<(), JournalError> {
        while from < to {
            let count = (to - from).min(HOLE_RECORDS) as u32;
            let hole = NewBatch {
                kind: BatchKind::Hole,
                generation: self.generation,
                appended,
                count,
                first_offset: from,
                stream: self.stream,
            };
            let mut bytes = [0; HEADER_BYTES];
            hole.encode(&[], &mut bytes);
            self.batch(from, from + u64::from(count), bytes.to_vec())?;
            from += u64::from(count);
        }
        Ok(())
    }
}
