//! Caps on what the log adds to the tables. Real sites do not reach them; forged beacons do. The fold applies them, so they depend on the
//! log alone.

/// Different pages (path and status) of a project and day, in one window of the log. The views of further pages are counted together,
/// under [`MORE_PATH`]. As many pages (path and group of robots) of robots have a row of their own.
pub const PAGES_PER_DAY: u32 = 200_000;

/// Different values of one dimension of a project and day, in one window of the log. Views with further values are counted with the
/// empty value.
pub const VALUES_PER_DAY: u32 = 10_000;

/// The overflow of paths. Like masks of path segments (`:id`), it begins with a colon.
pub const MORE_PATH: &str = "/:more";
