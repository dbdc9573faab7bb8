//! The tables of open and closed months.

use schemas::Month;

/// Tables whose rows belong to windows.
pub(super) const TABLES: [&str; 9] = [
    "site_hourly",
    "page_daily",
    "breakdown_window",
    "not_found_daily",
    "rejection_daily",
    "robot_daily",
    "robot_page_daily",
    "rules_daily",
    "reported_missing_daily",
];
/// Tables with the figures of runs.
pub(crate) const FIGURES: [&str; 8] = [
    "month_closed",
    "month_closed_page",
    "month_closed_breakdown",
    "month_closed_not_found",
    "month_closed_robot",
    "month_closed_robot_page",
    "month_closed_rules",
    "month_closed_reported_missing",
];
/// Figures that ClickHouse adds up by itself: source (for `FROM`), target, and the columns of the key besides project and month, and the counter.
pub(super) const SUMS: [[&str; 4]; 6] = [
    [storage::BREAKDOWNS, "month_closed_breakdown", "dimension, value", "views"],
    ["not_found_daily FINAL", "month_closed_not_found", "path, referrer", "views"],
    ["robot_daily FINAL", "month_closed_robot", "kind, name", "views"],
    ["robot_page_daily FINAL", "month_closed_robot_page", "path, robot_group", "views"],
    ["rules_daily FINAL", "month_closed_rules", "day, rules", "views"],
    ["reported_missing_daily FINAL", "month_closed_reported_missing", "path", "reports"],
];
/// The tables of `TABLES` with sketches.
pub(super) const SKETCHED: [&str; 2] = ["site_hourly", "page_daily"];

pub(crate) fn first_day(month: Month) -> u16 {
    month.first_hour().day().0
}

/// The name of a month's partition in ClickHouse.
pub(super) fn partition(month: Month) -> u32 {
    u32::from(month.year()) * 100 + u32::from(month.number())
}

pub(super) fn month_of(partition: u32) -> Option<Month> {
    Month::new(u16::try_from(partition / 100).ok()?, u8::try_from(partition % 100).ok()?).ok()
}
