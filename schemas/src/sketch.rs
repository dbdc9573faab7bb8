//! The visitor sketch: how many different readers, without a list of readers.
//!
//! A HyperLogLog sketch (Flajolet, Fusy, Gandouet, Meunier 2007) keeps, for each of 16,384 registers, the
//! largest *rank* seen there. A reader touches one register with one rank, their [`Coordinate`], and that pair is
//! all that ever leaves `ingest`. A [`VisitorSketch`] is the register-wise maximum of coordinates, so merging is
//! idempotent, commutative and associative: a record read twice, or hours folded in any order, change nothing.
//!
//! # In memory
//! Up to 4 occupied registers lie inside the value itself (24 bytes, no heap: most pages of most sites have a
//! reader or two an hour), up to [`SPARSE_LIMIT`] in a sorted vector of packed coordinates, beyond that in one byte
//! a register. The form is a function of the register content, never of the way it was reached; so equal content
//! means equal values and equal bytes.
//!
//! # As bytes
//! The first byte names version (high four bits) and form (low four bits):
//!
//! | byte 0 | rest |
//! |---|---|
//! | `0x11` sparse, v1 | for each occupied register, ascending: LEB128 of `skipped << 6 \| rank`, where `skipped` counts the empty registers since the previous occupied one (or since register 0). 1 to 3 bytes each |
//! | `0x12` dense, v1 | 16,384 bytes, the rank of each register, 0 for an empty one |
//!
//! Sparse holds 0 to 2048 registers, dense 2049 to 16,384. [`VisitorSketch::decode`] accepts exactly the bytes
//! that [`VisitorSketch::encode`] writes: anything else could carry more about a reader than registers do.
//!
//! # Estimate
//! Linear counting (Whang, Vander-Zanden, Taylor 1990) up to [`LINEAR_COUNTING_LIMIT`], above it the bias-corrected
//! HyperLogLog++ (Heule, Nunkesser, Hall 2013) of the crate `hyperloglogplus`. The crate's own sparse form is neither
//! stored nor consulted: it keeps 25 bits of every reader's hash.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};

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
const TAG_SPARSE_V1: u8 = 0x11;
const TAG_DENSE_V1: u8 = 0x12;

/// The rank of every register; 0 where no reader has been.
type Ranks = [u8; REGISTERS];

/// Where one reader falls in a sketch: a register (14 bits) and a rank (1 to 51), about 16 bits of entropy.
///
/// Packed as `register << 6 | rank`, 20 bits; the order is by register, then rank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate(u32);

/// A register or rank no hash can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCoordinate {
    /// The register is 16,384 or more.
    #[error("register {0} is not below 16384")]
    Register(u32),
    /// The rank is 0, or more than [`MAX_RANK`].
    #[error("rank {0} is not within 1 to 51")]
    Rank(u8),
}

impl Coordinate {
    /// The coordinate of a uniformly distributed hash: its top 14 bits are the register, the rank is one more than the
    /// leading zeros of the other 50 bits. A rank of k has probability 2⁻ᵏ.
    #[inline]
    pub const fn from_hash(hash: u64) -> Self {
        let register = (hash >> (64 - PRECISION)) as u32;
        // The bit below the 50 ends the count when they are all zero.
        let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() + 1;
        Self((register << RANK_BITS) | rank)
    }

    /// A coordinate from its parts.
    pub fn new(register: u16, rank: u8) -> Result<Self, InvalidCoordinate> {
        Self::checked(u32::from(register), rank)
    }

    /// The inverse of [`Coordinate::packed`].
    pub fn from_packed(packed: u32) -> Result<Self, InvalidCoordinate> {
        Self::checked(packed >> RANK_BITS, (packed & RANK_MASK) as u8)
    }

    fn checked(register: u32, rank: u8) -> Result<Self, InvalidCoordinate> {
        if register >= REGISTERS as u32 {
            Err(InvalidCoordinate::Register(register))
        } else if rank == 0 || rank > MAX_RANK {
            Err(InvalidCoordinate::Rank(rank))
        } else {
            Ok(Self((register << RANK_BITS) | u32::from(rank)))
        }
    }

    /// `register << 6 | rank`: below 2²⁰, never 0.
    #[inline]
    pub const fn packed(self) -> u32 {
        self.0
    }

    /// Which register, 0 to 16,383.
    #[inline]
    pub const fn register(self) -> u16 {
        (self.0 >> RANK_BITS) as u16
    }

    /// The rank, 1 to 51.
    #[inline]
    pub const fn rank(self) -> u8 {
        (self.0 & RANK_MASK) as u8
    }

    /// Some hash with this coordinate: the one whose undetermined bits are zero.
    fn representative_hash(self) -> u64 {
        let below_register = match self.rank() {
            MAX_RANK => 0,
            rank => 1 << (64 - PRECISION - u32::from(rank)),
        };
        (u64::from(self.register()) << (64 - PRECISION)) | below_register
    }
}

impl fmt::Debug for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Coordinate({}, rank {})", self.register(), self.rank())
    }
}

/// How many visitors a sketch saw, and how sure that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Visitors; not rounded, 0 for an empty sketch.
    pub value: f64,
    /// One standard deviation as a fraction of `value` (0.008 is 0.8 %). Linear counting:
    /// √(m(eᵗ − t − 1))/n with t = n/m (Whang et al. 1990). Above [`LINEAR_COUNTING_LIMIT`]: [`RELATIVE_ERROR`].
    pub error: f64,
}

/// A set of coordinates, one per register: the largest rank seen there. See the module documentation.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct VisitorSketch {
    form: Form,
}

// Millions are alive during a fold.
const _: () = assert!(size_of::<VisitorSketch>() <= 24);

/// Lists hold packed coordinates in ascending order, at most one a register.
#[derive(Clone, PartialEq, Eq)]
enum Form {
    /// 0 to [`FEW`] occupied registers; 0, which no coordinate packs to, fills the rest.
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
    /// A sketch of nobody.
    pub const fn new() -> Self {
        Self { form: Form::Few([0; FEW]) }
    }

    /// Adds a reader. True if that changed the sketch.
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
            // Merges and decoders arrive in ascending order.
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

    /// Adds everyone of `other`: the register-wise maximum.
    pub fn merge(&mut self, other: &Self) {
        match &other.form {
            Form::Dense(theirs) => self.merge_dense(theirs),
            _ => {
                let theirs = other.list();
                self.merge_ascending(theirs.len(), theirs.iter().map(|&packed| Coordinate(packed)));
            }
        }
    }

    /// True if nobody was inserted.
    pub fn is_empty(&self) -> bool {
        matches!(&self.form, Form::Few([0, ..]))
    }

    /// Registers somebody touched: 0 to 16,384.
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

    /// Bytes this sketch takes, on the heap and in itself.
    pub fn memory_bytes(&self) -> usize {
        let heap = match &self.form {
            Form::Few(_) => 0,
            Form::Sparse(list) => list.capacity() * size_of::<u32>(),
            Form::Dense(_) => REGISTERS,
        };
        size_of::<Self>() + heap
    }

    /// How many visitors there were, with the error of that statement.
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
    /// The crate starts in a sparse form of its own and would then answer from 25-bit indices, which synthetic hashes
    /// do not have. It leaves that form for good above 13,107 bytes. More than 11,500 visitors occupy at least 8264
    /// registers, whose synthetic hashes lie at least 2¹¹ apart in it and so take two bytes each: it always leaves,
    /// and holds exactly our registers then. `tests/sketch_laws.rs` compares it with the crate fed original hashes.
    fn bias_corrected(&self) -> f64 {
        let mut crate_sketch: HyperLogLogPlus<u64, PassThrough> =
            HyperLogLogPlus::new(PRECISION as u8, PassThrough).expect("the crate takes precisions 4 to 18");
        for coordinate in self.coordinates() {
            crate_sketch.insert(&coordinate.representative_hash());
        }
        crate_sketch.count()
    }

    /// The canonical bytes; see the module documentation.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes);
        bytes
    }

    /// Appends the canonical bytes to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        if let Form::Dense(ranks) = &self.form {
            out.reserve(1 + REGISTERS);
            out.push(TAG_DENSE_V1);
            out.extend_from_slice(&ranks[..]);
            return;
        }
        let list = self.list();
        out.reserve(1 + 2 * list.len());
        out.push(TAG_SPARSE_V1);
        let mut next = 0;
        for &packed in list {
            // `next` and the register are both shifted by the rank's bits, so the rank stays as it is.
            let mut rest = packed - (next << RANK_BITS);
            next = register_of(packed) + 1;
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }

    /// Reads canonical bytes, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, SketchDecodeError> {
        let mut sketch = Self::new();
        sketch.merge_encoded(bytes)?;
        Ok(sketch)
    }

    /// Adds everyone of an encoded sketch, without making a sketch of it first. On an error `self` is unchanged.
    ///
    /// Allocates only if `self` has to grow: never once it is dense.
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Result<(), SketchDecodeError> {
        match bytes.split_first() {
            None => Err(SketchDecodeError::Empty),
            Some((&TAG_SPARSE_V1, body)) => {
                let coordinates = SparseReader { body, at: 0, next_register: 0 };
                let mut occupied = 0;
                for coordinate in coordinates.clone() {
                    coordinate?;
                    occupied += 1;
                }
                if occupied > SPARSE_LIMIT {
                    return Err(SketchDecodeError::SparseOverLimit { occupied });
                }
                self.merge_ascending(occupied, coordinates.map_while(Result::ok));
                Ok(())
            }
            Some((&TAG_DENSE_V1, body)) => {
                let ranks: &Ranks =
                    body.try_into().map_err(|_| SketchDecodeError::DenseLength { bytes: body.len() })?;
                let Survey { occupied, max_rank } = survey(ranks);
                if max_rank > MAX_RANK {
                    return Err(SketchDecodeError::Rank { rank: max_rank });
                }
                if occupied <= SPARSE_LIMIT {
                    return Err(SketchDecodeError::DenseUnderLimit { occupied });
                }
                self.merge_dense(ranks);
                Ok(())
            }
            Some((&tag, _)) => Err(SketchDecodeError::UnknownForm { tag }),
        }
    }

    /// The coordinates of the two listed forms; empty when dense.
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
            // A plain loop over arrays of known length: LLVM makes it 16 or 32 registers an instruction.
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
        for coordinate in incoming {
            self.insert(coordinate);
        }
    }

    /// How many of `incoming` (ascending) are in registers our list lacks.
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

    /// Merges two ascending lists within our own vector; `total` is the length of the result, above [`FEW`].
    fn merge_lists(&mut self, total: usize, incoming: impl Iterator<Item = Coordinate>) {
        let mut list = match std::mem::take(&mut self.form) {
            Form::Sparse(list) => list,
            few => {
                let mut list = Vec::with_capacity(total);
                list.extend_from_slice(Self { form: few }.list());
                list
            }
        };
        // Ours move to the end, then the merge fills from the front. It never overtakes what it has yet to read: the
        // gap between the two is the number of new registers still to come.
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
    /// Says how full the sketch is; coordinates are not for logs.
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

/// Why bytes are not an encoded sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SketchDecodeError {
    /// No bytes; even a sketch of nobody has one.
    #[error("an encoded sketch has at least one byte")]
    Empty,
    /// A version or form this code has never written.
    #[error("unknown version or form {tag:#04x} of an encoded sketch")]
    UnknownForm {
        /// The first byte.
        tag: u8,
    },
    /// The bytes end within a coordinate.
    #[error("the coordinate at byte {at} of a sparse sketch is cut off")]
    Truncated {
        /// Offset of the coordinate after the first byte.
        at: usize,
    },
    /// A coordinate has more bytes than it needs, or than any needs.
    #[error("the coordinate at byte {at} of a sparse sketch is too long")]
    Overlong {
        /// Offset of the coordinate after the first byte.
        at: usize,
    },
    /// A rank that no hash has.
    #[error("rank {rank} in an encoded sketch is not within 1 to 51")]
    Rank {
        /// The rank found.
        rank: u8,
    },
    /// A register past the last.
    #[error("register {register} in an encoded sketch is not below 16384")]
    Register {
        /// The register found.
        register: u32,
    },
    /// A sparse sketch that should have been dense.
    #[error("{occupied} registers are too many for a sparse sketch")]
    SparseOverLimit {
        /// Registers found.
        occupied: usize,
    },
    /// A dense sketch that should have been sparse.
    #[error("{occupied} registers are too few for a dense sketch")]
    DenseUnderLimit {
        /// Registers found.
        occupied: usize,
    },
    /// A dense sketch that is cut off, or followed by something.
    #[error("a dense sketch has 16384 registers, not {bytes}")]
    DenseLength {
        /// Bytes after the first.
        bytes: usize,
    },
}

/// Reads the coordinates of an encoded sparse sketch. Ends after the bytes or the first error.
///
/// Registers ascend by construction: the encoding can express neither a repeated nor a descending one.
#[derive(Clone)]
struct SparseReader<'a> {
    body: &'a [u8],
    at: usize,
    next_register: u32,
}

impl Iterator for SparseReader<'_> {
    type Item = Result<Coordinate, SketchDecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.body.get(self.at..).filter(|rest| !rest.is_empty())?;
        let read = read_varint(bytes, self.at).and_then(|(value, length)| {
            self.at += length;
            let register = self.next_register + (value >> RANK_BITS);
            self.next_register = register + 1;
            Coordinate::checked(register, (value & RANK_MASK) as u8).map_err(|error| match error {
                InvalidCoordinate::Register(register) => SketchDecodeError::Register { register },
                InvalidCoordinate::Rank(rank) => SketchDecodeError::Rank { rank },
            })
        });
        if read.is_err() {
            self.at = self.body.len();
        }
        Some(read)
    }
}

/// The first LEB128 number of `bytes` and its length: at most 3 bytes, as 20 bits need, and no more than it needs.
#[inline]
fn read_varint(bytes: &[u8], at: usize) -> Result<(u32, usize), SketchDecodeError> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(3).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return if byte == 0 && index > 0 { Err(SketchDecodeError::Overlong { at }) } else { Ok((value, index + 1)) };
        }
    }
    Err(if bytes.len() < 3 { SketchDecodeError::Truncated { at } } else { SketchDecodeError::Overlong { at } })
}

#[inline]
const fn register_of(packed: u32) -> u32 {
    packed >> RANK_BITS
}

/// Both are of the same register, so the larger is the one of larger rank.
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
    // Through a slice, so that an unoptimised build does not carry 16 KiB over the stack.
    ranks.to_vec().into_boxed_slice().try_into().expect("a slice made of an array of this length")
}

struct Survey {
    occupied: usize,
    max_rank: u8,
}

/// Counts occupied registers and finds the largest rank, in blocks whose count fits a byte so that LLVM vectorises it.
fn survey(ranks: &Ranks) -> Survey {
    const BLOCK: usize = 128;
    let mut survey = Survey { occupied: 0, max_rank: 0 };
    for block in ranks.as_chunks::<BLOCK>().0 {
        let (mut occupied, mut max_rank) = (0u8, 0u8);
        for &rank in block {
            occupied += u8::from(rank != 0);
            max_rank = max_rank.max(rank);
        }
        survey.occupied += usize::from(occupied);
        survey.max_rank = survey.max_rank.max(max_rank);
    }
    survey
}

/// Hands a `u64` on as its own hash.
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
