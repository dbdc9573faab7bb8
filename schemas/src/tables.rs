//! Rows of the tables of ClickHouse. [`crate::migrations`] creates them; `sql/` describes the columns.
//!
//! Every row of a summary is absolute: the sum of the records of the window `window_start` of a stream below `next_offset`. Of two rows with one
//! key and window, the one with the larger `next_offset` counts; they are never added up. So the engine is
//! `ReplacingMergeTree(next_offset)`, and queries use `FINAL`.

use crate::classes::Dimension;
use crate::proto::Source;
use clickhouse::Row;
use serde::{Deserialize, Serialize};

/// `site_hourly`: one project's hour.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct SiteHourlyRow {
    /// Project slug.
    pub project: String,
    /// Start of the hour, Unix seconds.
    pub hour: u32,
    /// Page views by people.
    pub views: u64,
    /// Arrivals from outside the project; part of `views`.
    pub visits: u64,
    /// Encoded [`crate::sketch::VisitorSketch`] of the project's visitors.
    #[serde(with = "serde_bytes")]
    pub sketch: Vec<u8>,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
    /// The tracker that sent the views.
    #[serde(with = "source_number")]
    pub source: Source,
}

/// `page_daily`: one path's day, by status. Views by people only.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct PageDailyRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// Cleaned path.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// Page views.
    pub views: u64,
    /// Encoded sketch of the path's visitors.
    #[serde(with = "serde_bytes")]
    pub sketch: Vec<u8>,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
    /// The tracker that sent the views.
    #[serde(with = "source_number")]
    pub source: Source,
}

/// `breakdown_window`: all values of one day. The three lists have the same length: element `n` of each is one value of one dimension.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct BreakdownWindowRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// The dimension of each value.
    #[serde(with = "dimension_numbers")]
    pub dimensions: Vec<Dimension>,
    /// The values; empty if unknown, or for direct arrivals.
    pub values: Vec<String>,
    /// Views. For `referrer`, visits of pages that are not missing; for `bot`, which schema versions before 10 wrote, views by robots.
    pub views: Vec<u64>,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
    /// The tracker that sent the views.
    #[serde(with = "source_number")]
    pub source: Source,
}

impl BreakdownWindowRow {
    /// Each dimension and value with its views.
    pub fn counts(&self) -> impl Iterator<Item = (Dimension, &str, u64)> {
        let values = self.values.iter().map(String::as_str);
        self.dimensions
            .iter()
            .copied()
            .zip(values)
            .zip(&self.views)
            .map(|((dimension, value), views)| (dimension, value, *views))
    }
}

/// `robot_daily`: views by robots of one kind and name on one day.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct RobotDailyRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// [`crate::classes::BotClass`] by its name, such as `ai_training`.
    pub kind: String,
    /// Name of the robot; empty if it is unknown.
    pub name: String,
    /// Page views.
    pub views: u64,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
    /// The tracker that sent the views.
    #[serde(with = "source_number")]
    pub source: Source,
}

/// `robot_page_daily`: views of one path by one group of robots on one day.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct RobotPageDailyRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// Cleaned path.
    pub path: String,
    /// [`crate::classes::RobotGroup::name`].
    pub robot_group: String,
    /// Page views.
    pub views: u64,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
    /// The tracker that sent the views.
    #[serde(with = "source_number")]
    pub source: Source,
}

/// `not_found_daily`: the referrers of a missing page on one day.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct NotFoundDailyRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// Cleaned path, with status 404.
    pub path: String,
    /// Another site's host; `:internal`, `:more`, or empty if unknown: see [`crate::referrer`].
    pub referrer: String,
    /// Views by people; 0 for a referrer that has lost its row.
    pub views: u64,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
    /// The tracker that sent the views.
    #[serde(with = "source_number")]
    pub source: Source,
}

/// `rules_daily`: views of one day by the version of the rules for robots that classified them.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct RulesDailyRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// Version of the rules; 0 if the record names none.
    pub rules: u32,
    /// Page views by people and robots.
    pub views: u64,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
}

/// `reported_missing_daily`: reports of one day that a page is missing.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ReportedMissingDailyRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// Cleaned path.
    pub path: String,
    /// Reports. They are not views.
    pub reports: u64,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
}

/// `rejection_daily`: refused beacons of one project, day, reason and host; and views that were counted without a fact, under reasons of
/// [`crate::rejection::reason_of_dropped_fact`].
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct RejectionDailyRow {
    /// Project slug; empty if the beacon named no known project.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// [`crate::rejection::RejectionReason::name`], or the reason of a dropped fact.
    pub reason: String,
    /// The page's host, if it is the cause; empty for all other reasons, and for hosts beyond [`crate::referrer::NAMED`].
    pub host: String,
    /// Refused beacons, or views; 0 for a host that has lost its row.
    pub beacons: u64,
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
}

/// `ledger`: the outcome of every record of a window. `seen = accepted + duplicate + tallies + undecodable`, and
/// `seen + lost = next_offset − window_start`.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct LedgerRow {
    /// Stream of the log.
    pub stream: u64,
    /// First offset of the window.
    pub window_start: u64,
    /// Offset after the last record folded in.
    pub next_offset: u64,
    /// Hour in which the window's first record was appended, Unix seconds.
    pub appended: u32,
    /// Records read.
    pub seen: u64,
    /// Page views counted, including those by bots.
    pub accepted: u64,
    /// Page views and tallies with an id that is repeated in the window.
    pub duplicate: u64,
    /// Records that are tallies: of refused beacons, of dropped facts, of pages reported missing.
    pub tallies: u64,
    /// Refused beacons in these tallies.
    pub rejected_beacons: u64,
    /// Records that do not decode.
    pub undecodable: u64,
    /// Offsets whose records are lost: holes of a salvaged journal.
    pub lost: u64,
    /// Version of the fold's rules.
    pub fold_version: u32,
}

/// `project`: a registered project; the row with the largest `revision` counts.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ProjectRow {
    /// Project slug.
    pub slug: String,
    /// Hosts of its pages.
    pub hosts: Vec<String>,
    /// 1 if the project was removed, 2 if it was erased.
    pub removed: u8,
    /// Patterns of paths whose wildcards are masked.
    pub mask: Vec<String>,
    /// Patterns of paths that are not masked.
    pub keep: Vec<String>,
    /// Names of query parameters that distinguish pages.
    pub query: Vec<String>,
    /// IANA name of the time zone for the hours of the week; empty for UTC.
    pub time_zone: String,
    /// 1 if all callers may read the report.
    pub public: u8,
    /// E-mail addresses that get the report.
    pub recipients: Vec<String>,
    /// Milliseconds since the epoch at the change.
    pub revision: u64,
    /// 1 if paths are stored without a trailing slash.
    pub strip_trailing_slash: u8,
    /// 1 if paths are stored without `.html` at their end.
    pub strip_html: u8,
    /// Networks whose views are not counted, in CIDR notation.
    pub ignore_networks: Vec<String>,
    /// Names of the project in other trackers, such as `umami:UUID`. Copies of versions before 10 lack this.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// `token`: a token for reports; the row with the largest `revision` counts.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct TokenRow {
    /// Its public id: 16 hexadecimal digits.
    pub id: String,
    /// The project whose reports it gives access to; empty if it gives access to all.
    pub project: String,
    /// 1 if it gives access to the reports of all projects.
    pub admin: u8,
    /// Hash of the secret, hexadecimal.
    pub hash: String,
    /// Label, chosen when it was created.
    pub label: String,
    /// When it was created, Unix seconds.
    pub created: u32,
    /// 1 if it is revoked.
    pub revoked: u8,
    /// Milliseconds since the epoch at the change.
    pub revision: u64,
}

/// `token_use`: the last day on which a token was used.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct TokenUseRow {
    /// Id of the token.
    pub id: String,
    /// Start of the day, Unix seconds.
    pub used: u32,
}

/// `month_close`: the last row of a run that closes a month; of several runs, the one that finished first counts.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct MonthCloseRow {
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// Number of the run, drawn at random.
    pub run: u64,
    /// ClickHouse's clock when the run finished, microseconds since the epoch.
    pub finished: i64,
    /// Streams whose windows are in the figures.
    pub streams: Vec<u64>,
    /// For each of these streams, the first window that is not in the figures.
    pub windows: Vec<u64>,
    /// Projects with figures.
    pub projects: u64,
    /// Page views of these projects.
    pub views: u64,
}

/// `month_closed`: the figures of one project's month.
#[derive(Clone, Debug, Default, PartialEq, Row, Serialize, Deserialize)]
pub struct MonthClosedRow {
    /// Project slug; empty for refusals without a known project.
    pub project: String,
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// Number of the run.
    pub run: u64,
    /// Visitors of the month, estimated.
    pub visitors: u64,
    /// One standard deviation as a fraction of the estimate.
    pub visitors_error: f64,
    /// Page views by people in each hour of the month.
    pub hour_views: Vec<u64>,
    /// Arrivals from outside the project in each hour; part of `hour_views`.
    pub hour_visits: Vec<u64>,
    /// Visitors of each day, estimated.
    pub day_visitors: Vec<u64>,
    /// Their errors.
    pub day_errors: Vec<f64>,
    /// Views by bots on each day; empty in months that were closed before schema 5.
    pub day_bots: Vec<u64>,
    /// Reasons of refused beacons.
    pub rejected_reasons: Vec<String>,
    /// The page's host, for each of these reasons; empty if none is known.
    pub rejected_hosts: Vec<String>,
    /// Beacons refused, for each of these reasons and hosts.
    pub rejected_beacons: Vec<u64>,
    /// Views in windows that are not in these figures, at the close.
    pub open_views: u64,
    /// [`Source::name`] of the trackers that sent the views; empty in months that were closed before schema version 10.
    pub source_names: Vec<String>,
    /// Page views by people, for each of these.
    pub source_views: Vec<u64>,
}

/// `month_closed_page`: one path's month, by status.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct MonthClosedPageRow {
    /// Project slug.
    pub project: String,
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// Number of the run.
    pub run: u64,
    /// Cleaned path.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// Page views.
    pub views: u64,
    /// Visitors of the path, estimated.
    pub visitors: u64,
    /// One standard deviation as a fraction of the estimate.
    pub visitors_error: f64,
    /// Views of each day of the month; empty in months that were closed before schema version 10.
    pub day_views: Vec<u64>,
}

/// `finished_day`: visitor estimate of a day that is not closed, for SQL.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct FinishedDayRow {
    /// Project slug.
    pub project: String,
    /// Days since the epoch.
    pub day: u16,
    /// Visitors of the day, estimated.
    pub visitors: u64,
    /// One standard deviation as a fraction of the estimate.
    pub visitors_error: f64,
    /// Checksum of the rows of this estimate.
    pub mark: u64,
    /// ClickHouse's clock before the rows were read, microseconds since the epoch: the row with the latest read counts.
    pub updated: i64,
}

/// `delivery`: a report that a mail server accepted.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// Project slug.
    pub project: String,
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// E-mail address of the recipient.
    pub recipient: String,
    /// When it was sent, Unix seconds.
    pub sent: u32,
}

/// `finished_month`: visitor estimate of a month that is not closed, for SQL.
#[derive(Clone, Debug, PartialEq, Row, Serialize, Deserialize)]
pub struct FinishedMonthRow {
    /// Project slug.
    pub project: String,
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// Visitors of the month, estimated.
    pub visitors: u64,
    /// One standard deviation as a fraction of the estimate.
    pub visitors_error: f64,
    /// ClickHouse's clock before the rows were read, microseconds since the epoch: the row with the latest read counts.
    pub updated: i64,
}

/// `import`: an import of access logs; the row with the largest `revision` counts.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ImportRow {
    /// Its stream, which is its id.
    pub stream: u64,
    /// Position of the state in the order of states.
    pub revision: u8,
    /// Name of the state.
    pub state: String,
    /// When it started, Unix seconds.
    pub started: u32,
    /// When all of it was read, Unix seconds; when it started, before that.
    pub finished: u32,
    /// Fingerprint of the key of `file_blocks`.
    pub file_key: u64,
    /// Lines of all files.
    pub lines: u64,
    /// Lines that were read and are no views that count.
    pub not_counted: u64,
    /// Lines that were not read.
    pub not_read: u64,
    /// Names of the files, without their directories.
    pub file_names: Vec<String>,
    /// Bytes of the text of each file.
    pub file_bytes: Vec<u64>,
    /// Keyed hashes of the blocks of each file.
    pub file_blocks: Vec<Vec<u64>>,
}

/// `import_month`: what an import has of a project's month.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ImportMonthRow {
    /// Stream of the import.
    pub stream: u64,
    /// Project slug.
    pub project: String,
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// Page views of people.
    pub views: u64,
    /// Page views of robots.
    pub robots: u64,
    /// 1 if the import has the month's first figures, and thus visitors.
    pub has_visitors: u8,
}

/// A source as its number, which the column's `Enum8` contains, too.
mod source_number {
    use crate::proto::Source;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(source: &Source, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i8(*source as i8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Source, D::Error> {
        let number = i8::deserialize(deserializer)?;
        Source::try_from(i32::from(number)).map_err(|_| Error::custom(format!("{number} is the number of no source")))
    }
}

/// Dimensions as their numbers, which the column's `Enum8` contains, too.
mod dimension_numbers {
    use crate::classes::Dimension;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(dimensions: &[Dimension], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(dimensions.iter().map(|dimension| *dimension as i8))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Dimension>, D::Error> {
        let numbers = Vec::<i8>::deserialize(deserializer)?;
        let dimension = |number: i8| {
            let found = usize::try_from(number).ok().and_then(|number| Dimension::ALL.get(number));
            found.copied().ok_or_else(|| Error::custom(format!("{number} is the number of no dimension")))
        };
        numbers.into_iter().map(dimension).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrations::{FILES, FROM_BEFORE};

    /// The columns are an `Enum8` of the record's numbers and the report's names.
    #[test]
    fn columns_have_the_names_and_numbers_of_sources() {
        let values: Vec<String> =
            Source::ALL.iter().map(|source| format!("'{}' = {}", source.name(), *source as i32)).collect();
        let column = format!("source Enum8({})", values.join(", "));
        // The first file creates the table of robots' pages in old databases, too.
        for ((name, sql), tables) in [(FILES[0], 6), (FILES[1], 1), (FROM_BEFORE, 5)] {
            let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(sql.matches(&column).count(), tables, "{column} in {name}");
        }
    }

    /// The column is an `Enum8` of the positions in [`Dimension::ALL`], which are the numbers of the dimensions.
    #[test]
    fn the_column_has_the_names_and_numbers_of_dimensions() {
        let value = |(number, dimension): (usize, &Dimension)| {
            assert_eq!(*dimension as usize, number, "{dimension:?}");
            format!("'{}' = {number}", dimension.name())
        };
        let values: Vec<String> = Dimension::ALL.iter().enumerate().map(value).collect();
        let column = format!("dimensions Array(Enum8({}))", values.join(", "));
        let sql = FILES[1].1.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(sql.matches(&column).count(), 1, "{column}");
    }
}
