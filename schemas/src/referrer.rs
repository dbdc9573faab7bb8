//! What a row of `not_found_daily` says of where its readers came from, where it is not another site's host. No host begins
//! with a colon.

/// The reader came from a page of the same project.
pub const INTERNAL: &str = ":internal";

/// Of hosts that a path had beyond [`NAMED`].
pub const MORE: &str = ":more";

/// So many hosts are named for a project's path on one day, in one window of the log: those that came first. Whoever asks for
/// pages that are not there can invent referrers without end. The same holds for hosts of refused beacons, by reason.
pub const NAMED: usize = 32;
