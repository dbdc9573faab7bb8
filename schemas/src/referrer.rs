//! What a row of `not_found_daily` says of where its readers came from, where it is not another site's host. No host begins
//! with a colon.

/// The reader came from a page of the same project.
pub const INTERNAL: &str = ":internal";

/// The overflow: referrers that are not among the [`NAMED`].
pub const MORE: &str = ":more";

/// So many referrers are named for a missing page of a project and day, in one window of the log: the most frequent ones, by Space-Saving
/// (see the fold). A client can forge any number of them. The same holds for hosts of refused beacons, by reason.
pub const NAMED: usize = 32;
