//! What a visitor sketch promises: the laws of merging, one encoding per content, the crate's own estimate.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use headcount_schemas::sketch::{
    Coordinate, InvalidCoordinate, LINEAR_COUNTING_LIMIT, MAX_RANK, REGISTERS, RELATIVE_ERROR, SPARSE_LIMIT,
    SketchDecodeError, VisitorSketch,
};
use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use proptest::prelude::*;

#[allow(dead_code, reason = "the load tester uses the rest")]
#[path = "../../loadtest/src/random.rs"]
mod random;

/// A stream of well-mixed hashes.
fn hashes(seed: u64) -> impl Iterator<Item = u64> {
    let mut generator = random::SplitMix64::new(seed.wrapping_mul(0xD129_0D3C_B6F3_9A4D));
    std::iter::repeat_with(move || generator.next_u64())
}

fn readers(seed: u64, count: usize) -> impl Iterator<Item = Coordinate> {
    hashes(seed).map(Coordinate::from_hash).take(count)
}

fn at(register: usize, rank: u8) -> Coordinate {
    Coordinate::new(u16::try_from(register).unwrap(), rank).unwrap()
}

fn one_per_register(registers: std::ops::Range<usize>) -> VisitorSketch {
    registers.map(|register| at(register, 1)).collect()
}

/// The sketch as the textbook has it: the largest rank of each register.
fn by_the_book(coordinates: &[Coordinate]) -> Vec<Coordinate> {
    let mut ranks = BTreeMap::<u16, u8>::new();
    for coordinate in coordinates {
        let rank = ranks.entry(coordinate.register()).or_default();
        *rank = coordinate.rank().max(*rank);
    }
    ranks.into_iter().map(|(register, rank)| at(register.into(), rank)).collect()
}

/// Crowds of every form, on both sides of each change of form, and some crowded into few registers.
fn crowd() -> impl Strategy<Value = Vec<Coordinate>> {
    let size = prop_oneof![0..8usize, 0..200usize, 1500..2600usize, 0..6000usize];
    let narrow = prop::collection::vec((0..12usize, 1..=MAX_RANK), 0..30);
    prop_oneof![
        4 => (0..50u64, size).prop_map(|(seed, count)| readers(seed, count).collect()),
        1 => narrow.prop_map(|parts| {
            parts.into_iter().map(|(register, rank)| at(register, rank)).collect()
        }),
    ]
}

fn sketch(coordinates: &[Coordinate]) -> VisitorSketch {
    coordinates.iter().copied().collect()
}

fn merged(one: &VisitorSketch, other: &VisitorSketch) -> VisitorSketch {
    let mut merged = one.clone();
    merged.merge(other);
    merged
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sketch_is_the_largest_rank_of_each_register(crowd in crowd()) {
        let sketch = sketch(&crowd);
        let expected = by_the_book(&crowd);
        prop_assert_eq!(sketch.occupied(), expected.len());
        prop_assert_eq!(sketch.is_empty(), expected.is_empty());
        prop_assert_eq!(sketch.coordinates().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn merging_is_the_union(a in crowd(), b in crowd()) {
        let union = sketch(&[a.as_slice(), &b].concat());
        let (a, b) = (sketch(&a), sketch(&b));
        prop_assert_eq!(&merged(&a, &b), &union);
        prop_assert_eq!(&merged(&b, &a), &union);
        prop_assert_eq!(&merged(&union, &a), &union);
        prop_assert_eq!(&merged(&a, &a), &a);
        prop_assert_eq!(&merged(&a, &VisitorSketch::new()), &a);
        prop_assert_eq!(&merged(&VisitorSketch::new(), &a), &a);
    }

    #[test]
    fn merging_is_associative(a in crowd(), b in crowd(), c in crowd()) {
        let (a, b, c) = (sketch(&a), sketch(&b), sketch(&c));
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn equal_crowds_have_equal_bytes(crowd in crowd(), cut in 0..1000usize) {
        let forwards = sketch(&crowd);
        let backwards: VisitorSketch = crowd.iter().rev().copied().collect();
        let (left, right) = crowd.split_at(cut.min(crowd.len()));
        let halves = merged(&sketch(right), &sketch(left));
        prop_assert_eq!(&forwards, &backwards);
        prop_assert_eq!(forwards.encode(), backwards.encode());
        prop_assert_eq!(forwards.encode(), halves.encode());
        prop_assert_eq!(forwards.estimate(), halves.estimate());
    }

    #[test]
    fn bytes_come_back_as_they_went(crowd in crowd()) {
        let sketch = sketch(&crowd);
        let bytes = sketch.encode();
        let decoded = VisitorSketch::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded, &sketch);
        prop_assert_eq!(decoded.encode(), bytes);
    }

    #[test]
    fn merging_bytes_is_merging_the_sketch(a in crowd(), b in crowd()) {
        let (a, b) = (sketch(&a), sketch(&b));
        let mut merged_bytes = a.clone();
        merged_bytes.merge_encoded(&b.encode()).unwrap();
        prop_assert_eq!(merged_bytes, merged(&a, &b));
    }

    #[test]
    fn whatever_decodes_is_canonical(
        tag in prop_oneof![Just(0x11), Just(0x12), any::<u8>()],
        body in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = [&[tag], body.as_slice()].concat();
        let mut bystander = one_per_register(3..9);
        let before = bystander.clone();
        match VisitorSketch::decode(&bytes) {
            Ok(sketch) => prop_assert_eq!(sketch.encode(), bytes),
            Err(error) => {
                prop_assert_eq!(bystander.merge_encoded(&bytes), Err(error));
                prop_assert_eq!(bystander, before);
            }
        }
    }

    #[test]
    fn a_flipped_byte_is_another_sketch_or_none(
        crowd in crowd(),
        place in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let sketch = sketch(&crowd);
        let mut bytes = sketch.encode();
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        if let Ok(other) = VisitorSketch::decode(&bytes) {
            prop_assert_ne!(&other, &sketch);
            prop_assert_eq!(other.encode(), bytes);
        }
    }
}

#[test]
fn a_coordinate_is_register_and_rank_of_the_hash() {
    let cases = [
        (u64::MAX, 16_383, 1),
        (0, 0, 51),
        (1, 0, 50),
        (1 << 49, 0, 1),
        (1 << 50, 1, 51),
        ((5 << 50) | (1 << 48), 5, 2),
    ];
    for (hash, register, rank) in cases {
        let coordinate = Coordinate::from_hash(hash);
        let parts = (coordinate.register(), coordinate.rank());
        assert_eq!(parts, (register, rank), "hash {hash:#x}");
        assert_eq!(coordinate.packed(), (u32::from(register) << 6) | u32::from(rank));
        assert_eq!(Coordinate::from_packed(coordinate.packed()), Ok(coordinate));
        assert_eq!(Coordinate::new(register, rank), Ok(coordinate));
    }
    let (register, rank) = (InvalidCoordinate::Register, InvalidCoordinate::Rank);
    assert_eq!(Coordinate::new(16_384, 1), Err(register(16_384)));
    assert_eq!(Coordinate::new(0, 0), Err(rank(0)));
    assert_eq!(Coordinate::new(0, 52), Err(rank(52)));
    assert_eq!(Coordinate::from_packed((1 << 20) | 1), Err(register(16_384)));
    assert_eq!(Coordinate::from_packed(u32::MAX), Err(register(u32::MAX >> 6)));
    assert_eq!(format!("{:?}", at(7, 3)), "Coordinate(7, rank 3)");
}

#[test]
fn inserting_says_whether_it_changed_anything() {
    for others in [0, 3, 4, 100, SPARSE_LIMIT - 1, SPARSE_LIMIT, 5000] {
        let mut sketch = one_per_register(100..100 + others);
        assert!(sketch.insert(at(9, 5)), "a new register beside {others}");
        assert!(!sketch.insert(at(9, 5)), "the same again beside {others}");
        assert!(!sketch.insert(at(9, 4)), "a lower rank beside {others}");
        assert!(sketch.insert(at(9, 6)), "a higher rank beside {others}");
        assert_eq!(sketch.occupied(), others + 1);
    }
}

#[test]
fn a_sketch_grows_with_its_crowd() {
    assert_eq!(size_of::<VisitorSketch>(), 24);
    assert_eq!(VisitorSketch::new().memory_bytes(), 24);
    assert_eq!(one_per_register(0..4).memory_bytes(), 24);
    assert!(one_per_register(0..5).memory_bytes() > 24);
    assert!(one_per_register(0..SPARSE_LIMIT).memory_bytes() <= 24 + 4 * SPARSE_LIMIT);
    let first_dense = one_per_register(0..SPARSE_LIMIT + 1);
    assert_eq!(first_dense.memory_bytes(), 24 + REGISTERS);

    assert_eq!(VisitorSketch::new().encode(), [0x11]);
    let spread = (0..SPARSE_LIMIT).map(|index| at(index * 8 + 7, 51));
    assert_eq!(spread.collect::<VisitorSketch>().encode().len(), 1 + 2 * SPARSE_LIMIT);
    assert_eq!(first_dense.encode().len(), 1 + REGISTERS);
}

#[test]
fn every_corruption_has_a_name() {
    use SketchDecodeError as E;
    let dense = |ranks: &[u8]| [&[0x12], ranks].concat();
    let mut rank_52 = vec![1; REGISTERS];
    rank_52[77] = 52;
    let mut few = vec![0; REGISTERS];
    few[..SPARSE_LIMIT].fill(1);
    let (short, long) = (REGISTERS - 1, REGISTERS + 1);
    let too_many = SPARSE_LIMIT + 1;
    let cases: [(&str, Vec<u8>, E); 18] = [
        ("nothing at all", vec![], E::Empty),
        ("a later version", vec![0x21, 1], E::UnknownForm { tag: 0x21 }),
        ("an unknown form", vec![0x13], E::UnknownForm { tag: 0x13 }),
        ("rank 0", vec![0x11, 0x00], E::Rank { rank: 0 }),
        ("rank 52", vec![0x11, 52], E::Rank { rank: 52 }),
        ("rank 63 later on", vec![0x11, 1, 63], E::Rank { rank: 63 }),
        ("cut after one byte", vec![0x11, 0x81], E::Truncated { at: 0 }),
        ("cut later on", vec![0x11, 1, 0x81, 0x81], E::Truncated { at: 1 }),
        ("two bytes for one", vec![0x11, 0x81, 0x00], E::Overlong { at: 0 }),
        ("three bytes for two", vec![0x11, 0x81, 0x81, 0x00], E::Overlong { at: 0 }),
        ("four bytes", vec![0x11, 0x81, 0x81, 0x81, 0x01], E::Overlong { at: 0 }),
        ("register 16384", vec![0x11, 0x81, 0x80, 0x40], E::Register { register: 16_384 }),
        ("one after the last", vec![0x11, 0xC1, 0xFF, 0x3F, 0x01], E::Register { register: 16_384 }),
        ("sparse, too many", [vec![0x11], vec![1; too_many]].concat(), E::SparseOverLimit { occupied: too_many }),
        ("dense, too few", dense(&few), E::DenseUnderLimit { occupied: SPARSE_LIMIT }),
        ("dense with rank 52", dense(&rank_52), E::Rank { rank: 52 }),
        ("dense, cut off", dense(&vec![1; short]), E::DenseLength { bytes: short }),
        ("dense, and more", dense(&vec![1; long]), E::DenseLength { bytes: long }),
    ];
    for (what, bytes, error) in cases {
        assert_eq!(VisitorSketch::decode(&bytes), Err(error), "{what}");
        for held in [0, 3, 100, 5000] {
            let mut bystander = one_per_register(0..held);
            assert_eq!(bystander.merge_encoded(&bytes), Err(error), "{what}");
            assert_eq!(bystander, one_per_register(0..held), "{what} left a trace");
        }
    }
}

fn fixtures() -> [(&'static str, &'static str, VisitorSketch); 5] {
    let corners = [at(0, 51), at(1, 1), at(3, 2), at(300, 7), at(16_383, 51)];
    [
        ("empty", include_str!("../fixtures/sketch/v1-empty.hex"), VisitorSketch::new()),
        ("corners", include_str!("../fixtures/sketch/v1-corners.hex"), sketch(&corners)),
        ("three", include_str!("../fixtures/sketch/v1-three.hex"), readers(1, 3).collect()),
        ("sparse", include_str!("../fixtures/sketch/v1-sparse.hex"), readers(2, 500).collect()),
        ("dense", include_str!("../fixtures/sketch/v1-dense.hex"), readers(3, 20_000).collect()),
    ]
}

/// Stored bytes outlive code: what version 1 wrote is read, and written again alike.
#[test]
fn fixtures_of_version_1_read_as_written() {
    for (name, hex, expected) in fixtures() {
        let digits: String = hex.split_whitespace().collect();
        let byte = |index: usize| u8::from_str_radix(&digits[2 * index..2 * index + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..digits.len() / 2).map(byte).collect();
        let stored = VisitorSketch::decode(&bytes).unwrap_or_else(|error| panic!("v1-{name}: {error}"));
        assert_eq!(stored, expected, "v1-{name}");
        assert!(expected.encode() == bytes, "v1-{name} would be written differently today");
    }
}

/// A fixture that changes is a format that changed: a new version gets new files instead.
#[test]
#[ignore = "writes fixtures/sketch; run by hand for a new version"]
fn write_fixtures() {
    for (name, _, sketch) in fixtures() {
        let bytes = sketch.encode();
        let hex = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let lines: Vec<String> = bytes.chunks(64).map(hex).collect();
        let path = format!("{}/fixtures/sketch/v1-{name}.hex", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, lines.join("\n") + "\n").unwrap();
    }
}

struct AsItIs;

struct AsItIsHasher(u64);

impl BuildHasher for AsItIs {
    type Hasher = AsItIsHasher;

    fn build_hasher(&self) -> AsItIsHasher {
        AsItIsHasher(0)
    }
}

impl Hasher for AsItIsHasher {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 is hashed here");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type CrateSketch = HyperLogLogPlus<u64, AsItIs>;

/// Synthetic hashes must be worth the original ones. The crate is fed the readers' own hashes; once it has left its
/// sparse form (13,107 bytes, about 6,500 readers) it must answer, to the last bit, what we answer from registers.
#[test]
fn estimates_are_those_of_the_crate_fed_the_original_hashes() {
    let check_at =
        [8000, 11_000, 11_400, 11_500, 11_600, 12_000, 13_000, 20_000, 40_000, 80_000, 81_000, 90_000, 200_000];
    for seed in 100..103 {
        let mut theirs: CrateSketch = HyperLogLogPlus::new(14, AsItIs).unwrap();
        let mut ours = VisitorSketch::new();
        let mut corrected = 0;
        for (count, hash) in (1..=200_000).zip(hashes(seed)) {
            theirs.insert(&hash);
            ours.insert(Coordinate::from_hash(hash));
            if check_at.contains(&count) {
                let (ours, theirs) = (ours.estimate().value, theirs.count());
                assert_eq!(ours.to_bits(), theirs.to_bits(), "{count}: {ours}, not {theirs}");
                corrected += usize::from(ours > LINEAR_COUNTING_LIMIT);
            }
        }
        assert!(corrected >= 8, "compared {corrected} corrected estimates only");
    }
}

/// The fewest registers that leave linear counting, in the ranks that the crate's sparse form packs differently. Were it
/// still in that form it would answer by linear counting of 2²⁴, which is the number of registers.
#[test]
fn the_crate_always_leaves_its_sparse_form() {
    let fewest = 8264;
    let below = one_per_register(0..fewest - 1).estimate();
    let above = one_per_register(0..fewest).estimate();
    assert!(below.value <= LINEAR_COUNTING_LIMIT, "{below:?}");
    assert_ne!(below.error, RELATIVE_ERROR);
    assert_eq!(above.error, RELATIVE_ERROR);
    for ranks in [[1, 1], [11, 11], [12, 12], [51, 51], [1, 51], [11, 12]] {
        for first in [0, REGISTERS - fewest] {
            let crowd = (first..first + fewest).map(|register| at(register, ranks[register % 2]));
            let estimate = crowd.collect::<VisitorSketch>().estimate().value;
            let sparse = fewest as f64;
            assert!((estimate / sparse - 1.0).abs() > 0.01, "{estimate} for ranks {ranks:?}");
        }
    }
}

#[test]
fn no_visitors_are_zero_and_a_full_sketch_is_finite() {
    let nobody = VisitorSketch::new().estimate();
    assert_eq!((nobody.value, nobody.error), (0.0, 0.0));
    let one = one_per_register(0..1).estimate();
    assert!((one.value - 1.0).abs() < 1e-4, "{one:?}");
    for rank in [1, MAX_RANK] {
        let full: VisitorSketch = (0..REGISTERS).map(|register| at(register, rank)).collect();
        let estimate = full.estimate();
        assert!(estimate.value.is_finite() && estimate.value > 10_000.0, "{estimate:?}");
        assert_eq!(estimate.error, RELATIVE_ERROR);
    }
}
