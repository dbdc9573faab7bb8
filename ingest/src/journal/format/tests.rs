//! Stored formats do not change: fixtures of each version ever written.

use super::*;

fn fixture(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two records, as they are stored after a header.
const RECORDS: &[u8] = b"\x03\0\0\0one\x05\0\0\0three";

fn batch(kind: BatchKind, count: u32) -> NewBatch {
    NewBatch {
        kind,
        generation: 3,
        appended: Hour(490_000),
        count,
        first_offset: 7,
        stream: StreamId(0x0123_4567_89ab_cdef),
    }
}

fn encoded(kind: BatchKind, count: u32, records: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES + records.len()];
    batch(kind, count).encode(records, &mut bytes);
    bytes
}

#[test]
fn version_1_is_still_read() {
    let bytes = fixture(include_str!("../../../fixtures/journal/batch-1.hex"));
    let header = verified(&bytes).unwrap();
    assert_eq!(
        (header.appended, header.count, header.kind, header.place),
        (Hour(490_000), 2, BatchKind::Records, None)
    );
    assert_eq!(&bytes[header.header_bytes..], RECORDS);
}

#[test]
fn version_2_is_written_and_read_as_ever() {
    let cases = [
        (encoded(BatchKind::Records, 2, RECORDS), include_str!("../../../fixtures/journal/batch-2.hex")),
        (encoded(BatchKind::Hole, 40, &[]), include_str!("../../../fixtures/journal/hole-2.hex")),
    ];
    for (bytes, stored) in cases {
        assert_eq!(hex(&bytes), hex(&fixture(stored)));
        let header = verified(&bytes).unwrap();
        assert_eq!((header.appended, header.generation), (Hour(490_000), Some(3)));
        assert_eq!(header.place, Some((7, StreamId(0x0123_4567_89ab_cdef))));
    }
}

#[test]
fn a_state_is_written_and_read_as_ever() {
    let state = State {
        sequence: 9,
        stream: 0x0123_4567_89ab_cdef,
        trimmed_below: 7,
        end: 49,
        stored_bytes: 98,
        generation: 3,
        generations: vec![(2, 0), (3, 9)],
        holes: vec![(9, 49)],
        texts: BTreeMap::from([("aggregate".to_owned(), "{}".to_owned())]),
    };
    let stored = fixture(include_str!("../../../fixtures/journal/state-1.hex"));
    assert_eq!(hex(&state.encode()), hex(&stored));
    assert_eq!(State::decode(&stored), Some(state));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let state = fixture(include_str!("../../../fixtures/journal/state-1.hex"));
    let batch = encoded(BatchKind::Records, 2, RECORDS);
    for bit in 0..state.len() * 8 {
        let mut bytes = state.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(State::decode(&bytes), None, "bit {bit}");
    }
    for bit in 0..batch.len() * 8 {
        let mut bytes = batch.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A version byte of 1 would be a batch without a checksum; its length then does not fit.
        assert_eq!(verified(&bytes), None, "bit {bit}");
    }
}

#[test]
fn a_batch_counts_only_in_the_generation_of_its_offset() {
    let mut state = State::default();
    state.start_generation();
    state.end = 10;
    state.start_generation();
    state.start_generation();
    assert_eq!(state.generations, [(1, 0), (3, 10)]);
    assert!(state.accepts(1, 5) && state.accepts(3, 10) && state.accepts(4, 10));
    assert!(!state.accepts(2, 5) && !state.accepts(2, 10) && !state.accepts(1, 10));
    (state.trimmed_below, state.end) = (12, 20);
    state.start_generation();
    assert_eq!(state.generations, [(3, 10), (4, 20)]);
}
