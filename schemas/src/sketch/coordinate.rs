//! The position of one reader in a sketch.

use std::fmt;

use super::{MAX_RANK, PRECISION, RANK_BITS, RANK_MASK, REGISTERS};

/// The position of one reader: a register (14 bits) and a rank (1 to 51), about 16 bits of entropy.
///
/// Packed as `register << 6 | rank`, 20 bits; the order is by register, then rank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate(pub(super) u32);

/// A register or rank that no hash can have.
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
        // The bit below the 50 ends the count if they are all zero.
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

    pub(super) const fn checked(register: u32, rank: u8) -> Result<Self, InvalidCoordinate> {
        if register >= REGISTERS as u32 {
            Err(InvalidCoordinate::Register(register))
        } else if rank == 0 || rank > MAX_RANK {
            Err(InvalidCoordinate::Rank(rank))
        } else {
            Ok(Self((register << RANK_BITS) | rank as u32))
        }
    }

    /// `register << 6 | rank`: below 2²⁰, never 0.
    #[inline]
    pub const fn packed(self) -> u32 {
        self.0
    }

    /// The register, 0 to 16,383.
    #[inline]
    pub const fn register(self) -> u16 {
        (self.0 >> RANK_BITS) as u16
    }

    /// The rank, 1 to 51.
    #[inline]
    pub const fn rank(self) -> u8 {
        (self.0 & RANK_MASK) as u8
    }

    /// A hash with this coordinate: the one whose undetermined bits are zero.
    pub(super) fn representative_hash(self) -> u64 {
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
