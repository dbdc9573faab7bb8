//! The visitor sketch: the number of distinct readers, without a list of readers.
//!
//! A HyperLogLog sketch (Flajolet, Fusy, Gandouet, Meunier 2007) stores, for each of 16,384 registers, the largest *rank* seen there. A
//! reader touches one register with one rank, their [`Coordinate`], and only that pair leaves `ingest`. A [`VisitorSketch`] is the
//! register-wise maximum of coordinates, so merging is idempotent, commutative and associative: a record read twice, or hours folded in any
//! order, change nothing.
//!
//! # In memory
//! Up to 4 occupied registers are stored in the value itself (24 bytes, no heap): most pages of most sites have a reader or two an hour.
//! Up to [`SPARSE_LIMIT`] registers are stored in a sorted vector of packed coordinates, and more in one byte per register. The form is a
//! function of the register content, not of the order of insertions. So equal content means equal values and equal bytes.
//!
//! # As bytes
//! [`VisitorSketch::encode`] writes one byte with version and form (`0x11` sparse, `0x12` dense), then only registers and ranks;
//! `sketch/encoding.rs` describes every byte, and `fixtures/sketch` has bytes of every version.
//!
//! # Estimate
//! Linear counting (Whang, Vander-Zanden, Taylor 1990) up to [`LINEAR_COUNTING_LIMIT`], above it the bias-corrected HyperLogLog++ (Heule,
//! Nunkesser, Hall 2013) of the crate `hyperloglogplus`. The crate's own sparse form is neither stored nor used: it keeps 25 bits of every
//! reader's hash.

mod coordinate;
mod encoding;

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};

pub use coordinate::{Coordinate, InvalidCoordinate};
pub use encoding::SketchDecodeError;

/// Bits of the hash that choose a register.
pub const PRECISION: u32 = 14;

/// Registers in a sketch, 2^[`PRECISION`].
pub const REGISTERS: usize = 16_384;

/// Largest rank: all of the hash's other 50 bits are zero.
pub const MAX_RANK: u8 = 51;

/// One relative standard deviation of a large estimate: 1.04/√16384 (Flajolet et al. 2007), 0.8125 %.
pub const RELATIVE_ERROR: f64 = 1.04 / 128.0;

/// Occupied registers up to which a sketch is sparse. Encoded, that is about 4 KiB against 16 KiB dense.
pub const SPARSE_LIMIT: usize = 2048;

/// Visitors up to which linear counting is the better estimator at precision 14 (Heule et al. 2013, appendix).
pub const LINEAR_COUNTING_LIMIT: f64 = 11_500.0;

/// Occupied registers that fit in the value itself.
const FEW: usize = 4;

const RANK_BITS: u32 = 6;
const RANK_MASK: u32 = (1 << RANK_BITS) - 1;

/// The rank of every register; 0 without a reader.
type Ranks = [u8; REGISTERS];

/// The number of visitors in a sketch, and its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Visitors; not rounded, 0 for an empty sketch.
    pub value: f64,
    /// One standard deviation as a fraction of `value` (0.008 is 0.8 %). Linear counting:
    /// √(m(eᵗ − t − 1))/n with t = n/m (Whang et al. 1990). Above [`LINEAR_COUNTING_LIMIT`]: [`RELATIVE_ERROR`],
    /// more than the 0.6 to 0.75 % that `tests/sketch_accuracy.rs` measures up to 100,000 visitors.
    pub error: f64,
}

/// A set of coordinates, one per register: the largest rank seen there. See the module documentation.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct VisitorSketch {
    form: Form,
}

// Millions exist during a fold.
const _: () = assert!(size_of::<VisitorSketch>() <= 24);

/// Lists hold packed coordinates in ascending order, at most one per register.
#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// 0 to [`FEW`] occupied registers; the rest is filled with 0, to which no coordinate packs.
    Few([u32; FEW]),
    /// More, up to [`SPARSE_LIMIT`].
    Sparse(Vec<u32>),
    /// More than that.
    Dense(Box<Ranks>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Few([0; FEW])
    }
}

impl VisitorSketch {
    /// An empty sketch.
    pub const fn new() -> Self {
        Self { form: Form::Few([0; FEW]) }
    }

    /// Adds a reader. Returns true if that changed the sketch.
    #[inline]
    pub fn insert(&mut self, coordinate: Coordinate) -> bool {
        match &mut self.form {
            Form::Dense(ranks) => raise(ranks, coordinate),
            _ => self.insert_listed(coordinate),
        }
    }

    fn insert_listed(&mut self, coordinate: Coordinate) -> bool {
        let list = self.list();
        let at = match list.last() {
            // Merges and decoders insert in ascending order.
            Some(&last) if register_of(last) < register_of(coordinate.0) => list.len(),
            _ => list.partition_point(|&held| register_of(held) < register_of(coordinate.0)),
        };
        let held = list.len();
        match &mut self.form {
            Form::Few(few) => {
                if at < held && register_of(few[at]) == register_of(coordinate.0) {
                    return raise_packed(&mut few[at], coordinate.0);
                }
                if held < FEW {
                    few.copy_within(at..held, at + 1);
                    few[at] = coordinate.0;
                } else {
                    let mut list = Vec::with_capacity(2 * FEW);
                    list.extend_from_slice(few);
                    list.insert(at, coordinate.0);
                    self.form = Form::Sparse(list);
                }
            }
            Form::Sparse(list) => {
                if at < held && register_of(list[at]) == register_of(coordinate.0) {
                    return raise_packed(&mut list[at], coordinate.0);
                }
                if held < SPARSE_LIMIT {
                    list.insert(at, coordinate.0);
                } else {
                    raise(self.densify(), coordinate);
                }
            }
            Form::Dense(ranks) => return raise(ranks, coordinate),
        }
        true
    }

    /// Adds all readers of `other`: the register-wise maximum.
    pub fn merge(&mut self, other: &Self) {
        match &other.form {
            Form::Dense(theirs) => self.merge_dense(theirs),
            _ => {
                let theirs = other.list();
                self.merge_ascending(theirs.len(), theirs.iter().map(|&packed| Coordinate(packed)));
            }
        }
    }

    /// True if no reader was inserted.
    pub fn is_empty(&self) -> bool {
        matches!(&self.form, Form::Few([0, ..]))
    }

    /// Number of registers with a reader: 0 to 16,384.
    pub fn occupied(&self) -> usize {
        match &self.form {
            Form::Dense(ranks) => survey(ranks).occupied,
            _ => self.list().len(),
        }
    }

    /// One coordinate per occupied register, ascending.
    pub fn coordinates(&self) -> impl Iterator<Item = Coordinate> + '_ {
        let ranks: &[u8] = match &self.form {
            Form::Dense(ranks) => &ranks[..],
            _ => &[],
        };
        let dense = ranks.iter().zip(0u32..).filter(|(rank, _)| **rank != 0);
        let dense = dense.map(|(&rank, register)| Coordinate((register << RANK_BITS) | u32::from(rank)));
        // One of the two is always empty.
        self.list().iter().map(|&packed| Coordinate(packed)).chain(dense)
    }

    /// Bytes of this sketch, on the heap and in the value itself.
    pub fn memory_bytes(&self) -> usize {
        let heap = match &self.form {
            Form::Few(_) => 0,
            Form::Sparse(list) => list.capacity() * size_of::<u32>(),
            Form::Dense(_) => REGISTERS,
        };
        size_of::<Self>() + heap
    }

    /// The number of visitors, with its error.
    ///
    /// Under 1 µs up to [`LINEAR_COUNTING_LIMIT`]; above it about 0.7 ms, most of which the crate spends in its own sparse form. So call it
    /// once per report, not once per record.
    pub fn estimate(&self) -> Estimate {
        const M: f64 = REGISTERS as f64;
        let occupied = self.occupied();
        if occupied == 0 {
            return Estimate { value: 0.0, error: 0.0 };
        }
        // Infinite when no register is empty.
        let linear = M * (M / (REGISTERS - occupied) as f64).ln();
        if linear > LINEAR_COUNTING_LIMIT {
            return Estimate { value: self.bias_corrected(), error: RELATIVE_ERROR };
        }
        let load = linear / M;
        Estimate { value: linear, error: (M * (load.exp_m1() - load)).sqrt() / linear }
    }

    /// The estimate of `hyperloglogplus`, given one synthetic hash per occupied register.
    ///
    /// The crate starts in its own sparse form, in which it would answer from 25-bit indices, which synthetic hashes do not have. It leaves
    /// that form permanently above 13,107 bytes. More than 11,500 visitors occupy at least 8264 registers. The sparse form codes ranks up
    /// to 11 and the others differently. Codes of one kind are at least 2¹¹ apart and so take two bytes, except for at most 256 pairs where
    /// the kinds interleave. So the crate always leaves the form, and then holds exactly the registers of this sketch.
    /// `tests/sketch_laws.rs` compares it with the crate fed original hashes.
    fn bias_corrected(&self) -> f64 {
        let mut crate_sketch: HyperLogLogPlus<u64, PassThrough> =
            HyperLogLogPlus::new(PRECISION as u8, PassThrough).expect("the crate takes precisions 4 to 18");
        for coordinate in self.coordinates() {
            crate_sketch.insert(&coordinate.representative_hash());
        }
        crate_sketch.count()
    }

    /// The coordinates of the two list forms; empty if dense.
    fn list(&self) -> &[u32] {
        match &self.form {
            Form::Few(few) => &few[..few.iter().position(|&packed| packed == 0).unwrap_or(FEW)],
            Form::Sparse(list) => list,
            Form::Dense(_) => &[],
        }
    }

    fn densify(&mut self) -> &mut Ranks {
        if !matches!(self.form, Form::Dense(_)) {
            let mut ranks = boxed(&[0; REGISTERS]);
            for &packed in self.list() {
                raise(&mut ranks, Coordinate(packed));
            }
            self.form = Form::Dense(ranks);
        }
        match &mut self.form {
            Form::Dense(ranks) => ranks,
            _ => unreachable!("made dense above"),
        }
    }

    fn merge_dense(&mut self, theirs: &Ranks) {
        if let Form::Dense(ours) = &mut self.form {
            // A plain loop over arrays of known length: LLVM compiles it to 16 or 32 registers per instruction.
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                *ours = (*ours).max(*theirs);
            }
            return;
        }
        let mut ranks = boxed(theirs);
        for &packed in self.list() {
            raise(&mut ranks, Coordinate(packed));
        }
        self.form = Form::Dense(ranks);
    }

    /// Merges `count` coordinates that ascend by register, each register at most once.
    fn merge_ascending(&mut self, count: usize, incoming: impl Iterator<Item = Coordinate> + Clone) {
        // One insertion in a long list costs a search and half a `memmove`, some 60 ns; one step of a merge some 2 ns.
        const INSERTION_IN_MERGE_STEPS: usize = 32;

        let held = self.list().len();
        let one_by_one = matches!(self.form, Form::Dense(_))
            || held + count <= FEW
            || count.saturating_mul(INSERTION_IN_MERGE_STEPS) < held;
        if !one_by_one {
            let total = held + self.not_listed(incoming.clone());
            if total > SPARSE_LIMIT {
                self.densify();
            } else if total > FEW {
                return self.merge_lists(total, incoming);
            }
        }
        if let Form::Dense(ranks) = &mut self.form {
            for coordinate in incoming {
                // Without a branch: whether a register grows cannot be predicted.
                let held = &mut ranks[usize::from(coordinate.register()) % REGISTERS];
                *held = coordinate.rank().max(*held);
            }
            return;
        }
        for coordinate in incoming {
            self.insert(coordinate);
        }
    }

    /// How many of `incoming` (ascending) are in registers that the list of this sketch lacks.
    fn not_listed(&self, incoming: impl Iterator<Item = Coordinate>) -> usize {
        let mut ours = self.list();
        let mut missing = 0;
        for coordinate in incoming {
            let register = register_of(coordinate.0);
            while let [first, rest @ ..] = ours
                && register_of(*first) < register
            {
                ours = rest;
            }
            missing += usize::from(ours.first().is_none_or(|&first| register_of(first) != register));
        }
        missing
    }

    /// Merges two ascending lists within the vector of this sketch; `total` is the length of the result, above [`FEW`].
    fn merge_lists(&mut self, total: usize, incoming: impl Iterator<Item = Coordinate>) {
        let mut list = match std::mem::take(&mut self.form) {
            Form::Sparse(list) => list,
            few => {
                let mut list = Vec::with_capacity(total);
                list.extend_from_slice(Self { form: few }.list());
                list
            }
        };
        // The existing coordinates move to the end, then the merge fills from the front. It never overwrites coordinates that it has not
        // read: the gap between the two is the number of new registers that are not merged yet.
        let held = list.len();
        list.resize(total, 0);
        list.copy_within(..held, total - held);
        let (mut read, mut write) = (total - held, 0);
        for coordinate in incoming {
            let register = register_of(coordinate.0);
            while read < total && register_of(list[read]) < register {
                list[write] = list[read];
                read += 1;
                write += 1;
            }
            if read < total && register_of(list[read]) == register {
                list[write] = list[read].max(coordinate.0);
                read += 1;
            } else {
                list[write] = coordinate.0;
            }
            write += 1;
        }
        debug_assert_eq!(read, write, "what remains of ours is in its place");
        self.form = Form::Sparse(list);
    }
}

impl fmt::Debug for VisitorSketch {
    /// Shows how full the sketch is; coordinates must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VisitorSketch").field("occupied", &self.occupied()).finish_non_exhaustive()
    }
}

impl FromIterator<Coordinate> for VisitorSketch {
    fn from_iter<I: IntoIterator<Item = Coordinate>>(coordinates: I) -> Self {
        let mut sketch = Self::new();
        sketch.extend(coordinates);
        sketch
    }
}

impl Extend<Coordinate> for VisitorSketch {
    fn extend<I: IntoIterator<Item = Coordinate>>(&mut self, coordinates: I) {
        for coordinate in coordinates {
            self.insert(coordinate);
        }
    }
}

#[inline]
const fn register_of(packed: u32) -> u32 {
    packed >> RANK_BITS
}

/// Both are of the same register, so the larger one has the larger rank.
#[inline]
fn raise_packed(held: &mut u32, packed: u32) -> bool {
    let grows = packed > *held;
    *held = packed.max(*held);
    grows
}

#[inline]
fn raise(ranks: &mut Ranks, coordinate: Coordinate) -> bool {
    let held = &mut ranks[usize::from(coordinate.register())];
    let grows = coordinate.rank() > *held;
    if grows {
        *held = coordinate.rank();
    }
    grows
}

fn boxed(ranks: &Ranks) -> Box<Ranks> {
    // Through a slice, so that an unoptimised build does not copy 16 KiB on the stack.
    ranks.to_vec().into_boxed_slice().try_into().expect("a slice made of an array of this length")
}

struct Survey {
    occupied: usize,
    max_rank: u8,
}

/// Counts occupied registers and finds the largest rank, in lanes that LLVM keeps in vector registers. A lane counts at most 128 before it
/// is added up, so a byte is sufficient.
fn survey(ranks: &Ranks) -> Survey {
    const LANES: usize = 64;
    let mut occupied = 0;
    let mut max = [0u8; LANES];
    for part in ranks.as_chunks::<{ 128 * LANES }>().0 {
        let mut counts = [0u8; LANES];
        for block in part.as_chunks::<LANES>().0 {
            for lane in 0..LANES {
                counts[lane] += u8::from(block[lane] != 0);
                max[lane] = max[lane].max(block[lane]);
            }
        }
        occupied += counts.iter().map(|&count| usize::from(count)).sum::<usize>();
    }
    let max_rank = max.into_iter().max().unwrap_or(0);
    Survey { occupied, max_rank }
}

/// Uses a `u64` as its own hash.
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
        unreachable!("a u64 hashes itself through write_u64");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
