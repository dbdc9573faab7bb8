//! Designs of delivery.

/// A design of delivery. The wrong ones are made of the real loop by what its log and its sink do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// `aggregate::run` as it is.
    Real,
    /// The offset is committed before the rows are acknowledged, and a start trusts the commit.
    CommitBeforeRows,
    /// Each flush writes what was added since the last; queries add up. A process starts with the state at the commit.
    DeltaRows,
    /// The same, with a token for each insert that the store knows until it restarts.
    DeltaRowsWithTokens,
    /// A window ends by the clock of the process.
    WindowByWallClock,
    /// A process starts at the committed offset with an empty state, within the same window.
    ResumeAtCommitted,
    /// Each process applies its own window policy to the open window.
    OwnPolicyForOpenWindow,
    /// A process starts at the committed offset, with the state that a replica has, which may be stale.
    ReadBackStale,
    /// The row of a name has what its counter took over.
    InheritedCounts,
    /// No row of 0 is written of a name that lost its counter.
    NoZeroRows,
    /// A row of 0 is written only where the process wrote another one before.
    ZeroRowsOfOwnNames,
}

impl Variant {
    pub const WRONG: [Variant; 10] = [
        Variant::CommitBeforeRows,
        Variant::DeltaRows,
        Variant::DeltaRowsWithTokens,
        Variant::WindowByWallClock,
        Variant::ResumeAtCommitted,
        Variant::OwnPolicyForOpenWindow,
        Variant::ReadBackStale,
        Variant::InheritedCounts,
        Variant::NoZeroRows,
        Variant::ZeroRowsOfOwnNames,
    ];

    /// Those that are right as long as nothing fails.
    pub const RIGHT_WITHOUT_FAULTS: [Variant; 6] = [
        Variant::CommitBeforeRows,
        Variant::DeltaRows,
        Variant::DeltaRowsWithTokens,
        Variant::ResumeAtCommitted,
        Variant::OwnPolicyForOpenWindow,
        Variant::ReadBackStale,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Variant::Real => "the real loop",
            Variant::CommitBeforeRows => "commit before rows",
            Variant::DeltaRows => "delta rows",
            Variant::DeltaRowsWithTokens => "delta rows, deduplicated by tokens until a restart",
            Variant::WindowByWallClock => "windows end by wall clock",
            Variant::ResumeAtCommitted => "start at the committed offset, state empty",
            Variant::OwnPolicyForOpenWindow => "own window policy for the open window",
            Variant::ReadBackStale => "state read back from a stale replica",
            Variant::InheritedCounts => "a new name's row has the count of the name before it",
            Variant::NoZeroRows => "no row of 0 for a name that lost its counter",
            Variant::ZeroRowsOfOwnNames => "rows of 0 only for names that the process had written",
        }
    }

    /// Whether queries add up all rows of a key.
    pub fn sums(self) -> bool {
        matches!(self, Variant::DeltaRows | Variant::DeltaRowsWithTokens)
    }

    /// Whether a process does not fold the records of the open window below the commit again.
    pub fn skips_committed(self) -> bool {
        matches!(self, Variant::ResumeAtCommitted | Variant::ReadBackStale)
    }
}
