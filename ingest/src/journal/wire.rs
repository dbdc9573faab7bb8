//! The form in which one process sends batches to another on the same machine: with their records, without the store's header.

use super::{BatchKind, JournalBatch};
use schemas::Hour;

/// Offset, hour, count, length and kind in front of the records.
const HEAD_BYTES: usize = 8 + 4 + 4 + 4 + 1;

/// Appends batches to `bytes`.
pub fn encode(batches: &[JournalBatch], bytes: &mut Vec<u8>) {
    for batch in batches {
        bytes.extend_from_slice(&batch.first_offset.to_le_bytes());
        bytes.extend_from_slice(&batch.appended.0.to_le_bytes());
        bytes.extend_from_slice(&batch.count.to_le_bytes());
        bytes.extend_from_slice(&(batch.bytes.len() as u32).to_le_bytes());
        bytes.push(u8::from(batch.kind == BatchKind::Hole));
        bytes.extend_from_slice(&batch.bytes);
    }
}

/// The batches of [`encode`]; none if `bytes` end within one, or have something else.
pub fn decode(mut bytes: &[u8]) -> Option<Vec<JournalBatch>> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let number = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?)) };
        let (records, rest) = rest.split_at_checked(number(16)? as usize)?;
        let batch = JournalBatch {
            first_offset: u64::from_le_bytes(head[..8].try_into().ok()?),
            appended: Hour(number(8)?),
            kind: match head[20] {
                0 => BatchKind::Records,
                1 => BatchKind::Hole,
                _ => return None,
            },
            bytes: records.to_vec(),
            count: number(12)?,
        };
        if batch.kind == BatchKind::Records && batch.records().count() != batch.count as usize {
            return None;
        }
        batches.push(batch);
        bytes = rest;
    }
    Some(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_arrive_as_they_were_sent_and_no_part_of_them_passes_for_the_whole() {
        let records = [&[2, 0, 0, 0, 7, 8][..], &[1, 0, 0, 0, 9]].concat();
        let sent = [
            JournalBatch {
                first_offset: 1 << 40,
                appended: Hour(7),
                kind: BatchKind::Records,
                bytes: records,
                count: 2,
            },
            JournalBatch { first_offset: 2, appended: Hour(8), kind: BatchKind::Hole, bytes: Vec::new(), count: 5 },
        ];
        let mut bytes = Vec::new();
        encode(&sent, &mut bytes);
        assert_eq!(decode(&bytes).as_deref(), Some(&sent[..]));
        let ends = [0, HEAD_BYTES + sent[0].bytes.len(), bytes.len()];
        for length in 0..=bytes.len() {
            assert_eq!(decode(&bytes[..length]).is_some(), ends.contains(&length), "{length}");
        }
    }
}
