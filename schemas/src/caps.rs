//! Limits on what the log adds to the tables. Real sites do not reach them; forged beacons do. The fold applies them, so they depend on the
//! log alone.

/// Most pages (path and status) of a project and day, in one window of the log. Views of further pages are counted together under
/// [`MORE_PATH`]. The same number of robots' pages (path and group of robots) have their own row.
pub const PAGES_PER_DAY: u32 = 200_000;

/// Most values of one dimension of a project and day, in one window of the log. Views with further values are counted with the empty value.
pub const VALUES_PER_DAY: u32 = 10_000;

/// The overflow of paths. It starts with a colon, as masks of path segments (`:id`) do.
pub const MORE_PATH: &str = "/:more";
