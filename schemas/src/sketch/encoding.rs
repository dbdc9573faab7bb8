//! The encoding of a sketch as bytes.
//!
//! The first byte contains version (high four bits) and form (low four bits):
//!
//! | byte 0 | rest |
//! |---|---|
//! | `0x11` sparse, v1 | for each occupied register, ascending: LEB128 of `skipped << 6 \| rank`, where `skipped` counts the empty registers since the previous occupied one (or since register 0). 1 to 3 bytes each |
//! | `0x12` dense, v1 | 16,384 bytes, the rank of each register, 0 for an empty one |
//!
//! Sparse holds 0 to 2048 registers, dense 2049 to 16,384. [`VisitorSketch::decode`] accepts exactly the bytes that
//! [`VisitorSketch::encode`] writes: other bytes could contain more about a reader than registers do.

use super::coordinate::{Coordinate, InvalidCoordinate};
use super::{
    Form, MAX_RANK, RANK_BITS, RANK_MASK, REGISTERS, Ranks, SPARSE_LIMIT, Survey, VisitorSketch, register_of, survey,
};

const TAG_SPARSE_V1: u8 = 0x11;
const TAG_DENSE_V1: u8 = 0x12;

/// Most bytes of a short sparse sketch: most pages of most projects have one, in most windows.
const SHORT: usize = 64;

impl VisitorSketch {
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
            // `next` and the register are both shifted by the rank's bits, so the subtraction does not change the rank.
            let mut rest = packed - (next << RANK_BITS);
            next = register_of(packed) + 1;
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }

    /// Parses canonical bytes, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, SketchDecodeError> {
        let mut sketch = Self::new();
        sketch.merge_encoded(bytes)?;
        Ok(sketch)
    }

    /// Adds all readers of an encoded sketch without decoding it into a sketch. On an error `self` is unchanged.
    ///
    /// Allocates only if `self` has to grow: never once it is dense.
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Result<(), SketchDecodeError> {
        match bytes.split_first() {
            None => Err(SketchDecodeError::Empty),
            Some((&TAG_SPARSE_V1, body)) => {
                // All coordinates are read, once, before any is added. For a reader or two, clearing 8 KiB would be most of the work.
                if body.len() <= SHORT {
                    self.merge_sparse::<SHORT>(body)
                } else {
                    self.merge_sparse::<SPARSE_LIMIT>(body)
                }
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

    /// The same for a sparse sketch without its first byte. A body of `MOST` bytes has at most as many coordinates.
    fn merge_sparse<const MOST: usize>(&mut self, body: &[u8]) -> Result<(), SketchDecodeError> {
        let mut coordinates = [Coordinate(0); MOST];
        let occupied = read_sparse(body, &mut coordinates)?;
        let Some(coordinates) = coordinates.get(..occupied) else {
            return Err(SketchDecodeError::SparseOverLimit { occupied });
        };
        self.merge_ascending(occupied, coordinates.iter().copied());
        Ok(())
    }
}

/// Why bytes are not an encoded sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SketchDecodeError {
    /// No bytes; even an empty sketch has one.
    #[error("an encoded sketch has at least one byte")]
    Empty,
    /// A version or form that this code has never written.
    #[error("unknown version or form {tag:#04x} of an encoded sketch")]
    UnknownForm {
        /// The first byte.
        tag: u8,
    },
    /// The bytes end within a coordinate.
    #[error("the coordinate at byte {at} of a sparse sketch is truncated")]
    Truncated {
        /// Offset of the coordinate after the first byte.
        at: usize,
    },
    /// A coordinate has more bytes than it needs, or than any coordinate needs.
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
    /// A dense sketch that is truncated, or followed by other bytes.
    #[error("a dense sketch has 16384 registers, not {bytes}")]
    DenseLength {
        /// Bytes after the first.
        bytes: usize,
    },
}

/// Parses the coordinates of an encoded sparse sketch, and returns their number. Coordinates beyond the length of `coordinates` are only
/// counted.
///
/// Registers ascend by construction: the encoding can express neither a repeated nor a descending one.
fn read_sparse(body: &[u8], coordinates: &mut [Coordinate]) -> Result<usize, SketchDecodeError> {
    let (mut at, mut next_register, mut occupied) = (0, 0, 0);
    while let Some(rest) = body.get(at..).filter(|rest| !rest.is_empty()) {
        let (value, length) = read_varint(rest, at)?;
        at += length;
        let register = next_register + (value >> RANK_BITS);
        next_register = register + 1;
        let coordinate = Coordinate::checked(register, (value & RANK_MASK) as u8).map_err(|error| match error {
            InvalidCoordinate::Register(register) => SketchDecodeError::Register { register },
            InvalidCoordinate::Rank(rank) => SketchDecodeError::Rank { rank },
        })?;
        if let Some(place) = coordinates.get_mut(occupied) {
            *place = coordinate;
        }
        occupied += 1;
    }
    Ok(occupied)
}

/// The first LEB128 number of `bytes` and its length: at most 3 bytes, which 20 bits need, and not more than the number needs.
#[inline]
fn read_varint(bytes: &[u8], at: usize) -> Result<(u32, usize), SketchDecodeError> {
    // Two bytes in nearly every sketch with many registers: a skip of 2 to 255.
    if let &[low, high @ 1..0x80, ..] = bytes
        && low >= 0x80
    {
        return Ok((u32::from(low & 0x7f) | u32::from(high) << 7, 2));
    }
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(3).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return if byte == 0 && index > 0 {
                Err(SketchDecodeError::Overlong { at })
            } else {
                Ok((value, index + 1))
            };
        }
    }
    Err(if bytes.len() < 3 { SketchDecodeError::Truncated { at } } else { SketchDecodeError::Overlong { at } })
}
