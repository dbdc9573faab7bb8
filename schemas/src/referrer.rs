//! Values of a referrer in `not_found_daily` that are not the host of another site. No host starts with a colon.

/// The reader came from a page of the same project.
pub const INTERNAL: &str = ":internal";

/// The overflow: referrers that are not among the [`NAMED`].
pub const MORE: &str = ":more";

/// Number of referrers with a name for a missing page of a project and day, in one window of the log: the most frequent ones, by
/// Space-Saving (see the fold). A client can forge any number of referrers. The same limit applies to hosts of refused beacons, by reason.
pub const NAMED: usize = 32;
