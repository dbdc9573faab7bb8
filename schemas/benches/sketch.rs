//! The sketch beside the crate it takes its estimate from: inserting, merging a month of hours, estimating, encoding.
//!
//! `cargo bench -p headcount-schemas --bench sketch`, about a minute.

use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use headcount_schemas::sketch::{Coordinate, VisitorSketch};
use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};

/// Hours of a month of 31 days: the site sketches behind one monthly report.
const HOURS: u64 = 744;
/// Readers an hour in the dense benchmarks; some 7,500 occupied registers.
const READERS_AN_HOUR: usize = 10_000;
const INSERTS: usize = 100_000;

#[allow(dead_code, reason = "the load tester uses the rest")]
#[path = "../../loadtest/src/random.rs"]
mod random;

fn hashes(seed: u64) -> impl Iterator<Item = u64> {
    let mut generator = random::SplitMix64::new(seed.wrapping_mul(0xD129_0D3C_B6F3_9A4D));
    std::iter::repeat_with(move || generator.next_u64())
}

fn sketch(seed: u64, readers: usize) -> VisitorSketch {
    hashes(seed).map(Coordinate::from_hash).take(readers).collect()
}

/// Neither side pays for hashing.
#[derive(Clone)]
struct PassThrough;

struct PassThroughHasher(u64);

impl BuildHasher for PassThrough {
    type Hasher = PassThroughHasher;

    fn build_hasher(&self) -> PassThroughHasher {
        PassThroughHasher(0)
    }
}

impl Hasher for PassThroughHasher {
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

type CrateSketch = HyperLogLogPlus<u64, PassThrough>;

fn crate_sketch(seed: u64, readers: usize) -> CrateSketch {
    let mut sketch = HyperLogLogPlus::new(14, PassThrough).expect("precision 14");
    for hash in hashes(seed).take(readers) {
        sketch.insert(&hash);
    }
    // Moves what waits in its temporary set to where it belongs.
    sketch.count();
    sketch
}

fn insert(c: &mut Criterion) {
    let mut group = c.benchmark_group("insert");
    let stream: Vec<u64> = hashes(1).take(INSERTS).collect();
    group.throughput(Throughput::Elements(INSERTS as u64));
    // Into a sketch that has seen as many others, then into an empty one.
    for before in [INSERTS, 0] {
        let ours = sketch(2, before);
        group.bench_function(format!("ours/100000 after {before}"), |b| {
            b.iter_batched_ref(
                || ours.clone(),
                |sketch| {
                    for &hash in &stream {
                        sketch.insert(Coordinate::from_hash(hash));
                    }
                },
                BatchSize::LargeInput,
            );
        });
        let theirs = crate_sketch(2, before);
        group.bench_function(format!("crate/100000 after {before}"), |b| {
            b.iter_batched_ref(
                || theirs.clone(),
                |sketch| stream.iter().for_each(|hash| sketch.insert(hash)),
                BatchSize::LargeInput,
            );
        });
    }
    // Most pages of most sites: three readers, a sketch of their own.
    group.throughput(Throughput::Elements(999));
    group.bench_function("ours/333 new sketches of 3", |b| {
        b.iter(|| {
            let sketch_of = |three: &[u64]| three.iter().copied().map(Coordinate::from_hash).collect();
            stream[..999].chunks(3).map(sketch_of).collect::<Vec<VisitorSketch>>()
        });
    });
    group.bench_function("ours/1000 into a sparse sketch", |b| {
        b.iter(|| stream[..999].iter().copied().map(Coordinate::from_hash).collect::<VisitorSketch>());
    });
    group.finish();
}

fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge 744");
    for readers in [READERS_AN_HOUR, 1000, 10] {
        let encoded: Vec<Vec<u8>> = (0..HOURS).map(|hour| sketch(hour, readers).encode()).collect();
        group.bench_function(format!("ours, encoded/of {readers}"), |b| {
            b.iter(|| {
                let mut month = VisitorSketch::new();
                for hour in &encoded {
                    month.merge_encoded(hour).expect("our own bytes");
                }
                month
            });
        });
    }
    let dense: Vec<VisitorSketch> = (0..HOURS).map(|hour| sketch(hour, READERS_AN_HOUR)).collect();
    group.bench_function("ours, decoded/of 10000", |b| {
        b.iter(|| {
            let mut month = VisitorSketch::new();
            dense.iter().for_each(|hour| month.merge(hour));
            month
        });
    });
    let theirs: Vec<CrateSketch> = (0..HOURS).map(|hour| crate_sketch(hour, READERS_AN_HOUR)).collect();
    group.bench_function("crate, decoded/of 10000", |b| {
        b.iter(|| {
            let mut month: CrateSketch = HyperLogLogPlus::new(14, PassThrough).expect("precision 14");
            for hour in &theirs {
                month.merge(hour).expect("equal precision");
            }
            month
        });
    });
    group.finish();
}

fn estimate(c: &mut Criterion) {
    let mut group = c.benchmark_group("estimate");
    for readers in [3, 1000, 10_000, 20_000, 1_000_000] {
        let ours = sketch(1, readers);
        group.bench_function(format!("ours/{readers}"), |b| {
            b.iter(|| black_box(&ours).estimate());
        });
        let mut theirs = crate_sketch(1, readers);
        group.bench_function(format!("crate/{readers}"), |b| {
            b.iter(|| black_box(&mut theirs).count());
        });
    }
    group.finish();
}

fn encoding(c: &mut Criterion) {
    for readers in [1, 100, 2000, READERS_AN_HOUR] {
        let sketch = sketch(1, readers);
        let bytes = sketch.encode();
        let mut group = c.benchmark_group(format!("encoding of {readers}, {} bytes", bytes.len()));
        let mut out = Vec::with_capacity(bytes.len());
        group.bench_function("encode_into", |b| {
            b.iter(|| {
                out.clear();
                black_box(&sketch).encode_into(&mut out);
                out.len()
            });
        });
        group.bench_function("decode", |b| {
            b.iter(|| VisitorSketch::decode(black_box(&bytes)));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = insert, merge, estimate, encoding
}
criterion_main!(benches);
