//! Projects a measured month to another size. This is arithmetic, not measurement; its assumptions are listed with the result.

use std::str::FromStr;

use serde::Serialize;

use super::result::{MonthResult, bytes};

/// Maximum load of a machine in the busiest hour.
const LOAD: f64 = 0.5;
/// Copies of each record in the topic.
const COPIES: f64 = 3.0;
/// Days for which the topic retains records.
const RETENTION_DAYS: f64 = 3.0;
/// Months whose figures are retained.
const MONTHS: f64 = 25.0;
/// Months that are open concurrently: the running one, and the previous one until 72 hours after its end.
const OPEN_MONTHS: f64 = 1.1;

/// A number of page views, as in 250M or 10G.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Views(pub u64);

impl FromStr for Views {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, factor) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 1_000),
            Some((at, 'M')) => (&text[..at], 1_000_000),
            Some((at, 'G')) => (&text[..at], 1_000_000_000),
            _ => (text, 1),
        };
        let number: u64 =
            digits.parse().map_err(|_| format!("expected page views such as 250M or 10G, not {text:?}"))?;
        number.checked_mul(factor).map(Views).ok_or_else(|| "that is too many".to_owned())
    }
}

/// The requirements of a month of another size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Projection {
    /// Page views in the month.
    pub views: u64,
    /// Page views a second in the busiest hour.
    pub peak_per_second: f64,
    /// Processors of aggregators, so that the busiest hour loads them by half.
    pub aggregate_processors: f64,
    /// Processors of ClickHouse, for the same load.
    pub clickhouse_processors: f64,
    /// Processors of brokers, for the same load and for all copies.
    pub kafka_processors: f64,
    /// Partitions: one is folded by one processor.
    pub partitions: u64,
    /// Disk of all brokers: 72 hours, three copies.
    pub kafka_bytes: u64,
    /// Disk of one ClickHouse: the open months and twenty-five closed ones.
    pub clickhouse_bytes: u64,
}

/// The assumptions.
pub const ASSUMPTIONS: [&str; 6] = [
    "processor seconds, rows and bytes grow as page views do, which the figures day by day show for the sizes measured",
    "projects grow as page views do: more views of the same pages cost less, more projects of the same size as much",
    "the busiest hour has the share of the month that the scenario's rhythm gives it, and is to load processors by half",
    "brokers keep three copies for 72 hours; each copy costs as much as the one that was measured",
    "ClickHouse keeps 1.1 open months and 25 closed ones, on one copy; a second replica doubles disk, not rows to write",
    "processors are as fast as this machine's",
];

/// Projects `result` to a month of `views` page views, in which the busiest hour has `peak` of them. None if an earlier run sent or counted
/// everything, or closed the month: the cost of that is unknown.
#[must_use]
pub fn project(result: &MonthResult, views: u64, peak: f64) -> Option<Projection> {
    let (counted, sent) = (result.counted_views(), result.sent_views());
    if counted < 1.0 || sent < 1.0 || result.open_tables.is_empty() {
        return None;
    }
    let peak_per_second = views as f64 * peak / 3_600.0;
    let processors = |cpu_seconds: f64| cpu_seconds / counted * peak_per_second / LOAD;
    let cpu = &result.counted.cpu;
    let aggregate = processors(cpu.aggregate);
    // All the month's page views come in as many days as a month has, however few of them were driven.
    let days = f64::from(result.setting.days_of_month).max(1.0);
    let topic = result.counted.topic_bytes as f64 / sent * views as f64;
    let open = result.each(bytes(&result.open_tables)) * views as f64;
    let closed = result.closed_tables.as_ref().map_or(open, |closed| result.each(bytes(&closed.tables)) * views as f64);
    Some(Projection {
        views,
        peak_per_second,
        aggregate_processors: aggregate,
        clickhouse_processors: processors(cpu.clickhouse.unwrap_or(0.0) + result.counted.rest_cpu),
        kafka_processors: processors(cpu.kafka.unwrap_or(0.0)) * COPIES,
        partitions: (aggregate.ceil() as u64).max(4).next_multiple_of(4),
        kafka_bytes: (topic / days * RETENTION_DAYS * COPIES) as u64,
        clickhouse_bytes: (open * OPEN_MONTHS + closed * MONTHS) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::month::watch::Held;

    /// A month of 30 days, a million page views and as many records.
    fn month() -> MonthResult {
        let mut result = MonthResult::default();
        (result.setting.days, result.setting.days_of_month) = (30, 30);
        result.truth.records = 1_000_000;
        (result.counted.records, result.counted.topic_bytes) = (1_000_000, 60_000_000);
        result.counted.cpu.aggregate = 36.0;
        result.counted.cpu.clickhouse = Some(72.0);
        result.open_tables.insert("site_hourly".to_owned(), Held { rows: 1, bytes: 10_000_000 });
        result
    }

    #[test]
    fn ten_times_the_views_are_ten_times_the_load() {
        // A thousandth of ten million in the busiest hour.
        let whole = project(&month(), 10_000_000, 0.001).unwrap();
        assert!((whole.peak_per_second - 10_000.0 / 3_600.0).abs() < 1e-9);
        assert!((whole.aggregate_processors - 36e-6 * whole.peak_per_second / 0.5).abs() < 1e-9);
        // 600 MB in 30 days; three days of it, three times.
        assert_eq!(whole.kafka_bytes, 180_000_000);
        assert_eq!(whole.clickhouse_bytes, 2_610_000_000);
    }

    #[test]
    fn what_a_few_days_or_the_rest_of_a_month_cost_projects_as_all_of_it() {
        let whole = project(&month(), 10_000_000, 0.001).unwrap();
        let scaled = |result: &mut MonthResult, share: f64| {
            let part = |of: u64| (of as f64 * share) as u64;
            result.counted.records = part(result.counted.records);
            result.counted.topic_bytes = part(result.counted.topic_bytes);
            result.counted.cpu.aggregate *= share;
            result.counted.cpu.clickhouse = result.counted.cpu.clickhouse.map(|cpu| cpu * share);
        };
        // Three days: a tenth of the views, of the bytes and of the time.
        let mut days = month();
        scaled(&mut days, 0.1);
        (days.setting.days, days.truth.records) = (3, 100_000);
        days.open_tables.insert("site_hourly".to_owned(), Held { rows: 1, bytes: 1_000_000 });
        assert_eq!(project(&days, 10_000_000, 0.001).unwrap(), whole);
        // The rest of a month that an earlier run had driven by four fifths.
        let mut rest = month();
        scaled(&mut rest, 0.2);
        rest.counted.before = 800_000;
        assert_eq!(project(&rest, 10_000_000, 0.001).unwrap(), whole);
        // Nothing was left to do: nothing is known.
        rest.counted.records = 0;
        assert!(project(&rest, 10_000_000, 0.001).is_none());
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!("250M".parse(), Ok(Views(250_000_000)));
        assert_eq!("10G".parse(), Ok(Views(10_000_000_000)));
        assert_eq!(("20k".parse(), "7".parse()), (Ok(Views(20_000)), Ok(Views(7))));
        for wrong in ["", "M", "1.5G", "-1", "99999999999G", "10T"] {
            assert!(wrong.parse::<Views>().is_err(), "{wrong}");
        }
    }
}
