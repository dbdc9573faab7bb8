//! The projects that a caller may see.

use chrono::{DateTime, Utc};
use serde::Serialize;

/// One project in the list of projects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IndexEntry {
    /// Project slug.
    pub slug: String,
    /// Page views by people in the running month.
    pub views_this_month: u64,
    /// Page views by people in the month before.
    pub views_last_month: u64,
    /// Start of the hour of its latest view; null where there was none.
    pub last_seen: Option<DateTime<Utc>>,
}
