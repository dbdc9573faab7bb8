//! The runs of all contenders in one table, and what the table does not say.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Figures, Who};
use super::records::Truth;
use crate::table::{self, Spread};

/// What one contender did, over all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Who.
    pub who: Who,
    /// By the names of [`MEASURES`]; without those of which nothing is known.
    pub measures: BTreeMap<&'static str, Spread>,
}

/// Name with unit, decimals shown, and the figure of a run beside the drain's run of the same round.
type Measure = (&'static str, usize, fn(&Figures, Option<&Figures>) -> Option<f64>);

const MEASURES: [Measure; 12] = [
    ("records/s", 0, |f, _| Some(f.records_per_second())),
    // A producer reads nothing, so it has no ratio.
    ("ratio to the drain", 2, |f, drain| {
        (f.who != Who::Producer).then_some(f.records_per_second() / drain?.records_per_second())
    }),
    ("s until assigned", 2, |f, _| f.startup_seconds),
    ("CPU s/1 M: client", 2, |f, _| f.per_million(f.reader_cpu_seconds)),
    ("CPU s/1 M: ClickHouse", 2, |f, _| f.per_million(f.servers.clickhouse)),
    ("… and its merges", 2, |f, _| f.per_million(f.servers.clickhouse_at_rest)),
    ("CPU s/1 M: Kafka", 2, |f, _| f.per_million(f.servers.kafka)),
    ("peak MiB: client", 0, |f, _| mib(f.reader_peak_bytes)),
    ("peak MiB: ClickHouse", 0, |f, _| mib(f.servers.clickhouse_peak_bytes)),
    ("rows written", 0, |f, _| Some(f.rows_written? as f64)),
    ("rows in ClickHouse", 0, |f, _| Some(f.rows? as f64)),
    ("MiB on disk", 1, |f, _| mib(f.disk_bytes)),
];

fn mib(bytes: Option<u64>) -> Option<f64> {
    Some(bytes? as f64 / f64::from(1 << 20))
}

/// One line a contender, in order of appearance.
#[must_use]
pub fn lines(runs: &[Figures]) -> Vec<Line> {
    let mut order: Vec<Who> = Vec::new();
    for figures in runs {
        if !order.contains(&figures.who) {
            order.push(figures.who);
        }
    }
    let drain = |run: u32| runs.iter().find(|figures| figures.who == Who::Drain && figures.run == run);
    let line = |who: Who| {
        let of_who = || runs.iter().filter(move |figures| figures.who == who);
        let spread = |(name, _, of): &Measure| {
            Some((*name, Spread::of(of_who().filter_map(|figures| of(figures, drain(figures.run))))?))
        };
        Line { who, measures: MEASURES.iter().filter_map(spread).collect() }
    };
    order.into_iter().map(line).collect()
}

/// The table as text: a row a measure, a column a contender.
#[must_use]
pub fn render(lines: &[Line]) -> String {
    let names: Vec<String> = lines.iter().map(|line| line.who.name()).collect();
    let cells = |name: &str| lines.iter().map(|line| line.measures.get(name).copied()).collect();
    table::text(&names, MEASURES.iter().map(|(name, decimals, _)| (*name, *decimals, cells(name))))
}

/// Whether each contender counted right, and what a reader of the table should know.
#[must_use]
pub fn remarks(runs: &[Figures], truth: Truth) -> Vec<String> {
    let mut remarks = vec![
        "Records/s and ratio count from the first assignment, so joining a group is in \"s until assigned\" only; \
         processor seconds of readers are from their start. The ratio is of neighbours in time, run by run."
            .to_owned(),
        "ClickHouse's peak includes the pages of its program that were touched. The broker, the readers and ClickHouse \
         share this machine's processors."
            .to_owned(),
    ];
    if runs.iter().any(|figures| figures.who == Who::Producer) {
        remarks.push(
            "Bare produce sends the same records, made beforehand, to a topic of its own: acknowledged by all replicas in sync, \
             idempotent, lz4, one process. No endpoint can fill a topic faster."
                .to_owned(),
        );
    }
    let views = |who: fn(Who) -> bool| runs.iter().filter(move |f| who(f.who)).filter_map(|f| f.views);
    if views(|who| matches!(who, Who::Aggregators(_))).next().is_some() {
        remarks.push(format!(
            "headcount: {} views by people of {} records, {} repeated ids dropped; each run's tables say the same.",
            truth.views, truth.records, truth.repeats
        ));
    }
    if let Some(counted) = views(|who| who == Who::TableEngine).next() {
        remarks.push(format!(
            "ClickHouse's Kafka engine counts {counted} views by people where there are {}: it does not drop repeated ids. It \
             commits after it has stored, without a window or a version, so records that it reads again after a crash are \
             counted twice, and records that do not decode stop it. Its states hold hashes of what they count, whole for \
             small sets; there are no refusals and no ledger.",
            truth.views
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::figures::Servers;

    fn figures(who: Who, run: u32, seconds: f64) -> Figures {
        Figures {
            who,
            run,
            records: 1_000_000,
            startup_seconds: (who != Who::Drain).then_some(0.25),
            seconds,
            reader_cpu_seconds: (who != Who::TableEngine).then_some(1.5),
            reader_peak_bytes: Some(3 << 20),
            servers: Servers { clickhouse: Some(2.0), ..Servers::default() },
            rows_written: (who != Who::Drain).then_some(10),
            rows: None,
            disk_bytes: None,
            views: (who != Who::Drain).then_some(900_000),
        }
    }

    #[test]
    fn the_ratio_is_to_the_drain_of_the_same_round() {
        let one = Who::Aggregators(1);
        // The machine is half as fast in the second round.
        let runs =
            [figures(Who::Drain, 0, 1.0), figures(one, 0, 2.0), figures(Who::Drain, 1, 2.0), figures(one, 1, 4.0)];
        let lines = lines(&runs);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].measures["ratio to the drain"], Spread { median: 0.5, low: 0.5, high: 0.5 });
        assert_eq!(lines[0].measures["ratio to the drain"].median, 1.0);
        assert_eq!(lines[1].measures["CPU s/1 M: client"].median, 1.5);
    }

    #[test]
    fn who_sends_has_a_rate_and_no_ratio() {
        let runs = [figures(Who::Producer, 0, 0.5), figures(Who::Drain, 0, 1.0)];
        let lines = lines(&runs);
        assert_eq!(lines[0].measures["records/s"].median, 2e6);
        assert!(!lines[0].measures.contains_key("ratio to the drain"));
        assert!(remarks(&runs, Truth::default()).concat().contains("Bare produce sends the same records"));
    }

    #[test]
    fn the_table_has_a_dash_for_what_is_not_known_and_no_line_for_what_nobody_knows() {
        let runs = [figures(Who::Drain, 0, 1.0), figures(Who::TableEngine, 0, 2.0)];
        let text = render(&lines(&runs));
        let of = |measure: &str| text.lines().find(|line| line.starts_with(measure)).map(str::to_owned);
        assert!(of("s until assigned").unwrap().contains('–'), "{text}");
        assert!(of("records/s").unwrap().ends_with("500000 (500000–500000)"), "{text}");
        assert_eq!(of("rows in ClickHouse"), None);
    }

    #[test]
    fn remarks_are_of_who_took_part() {
        let truth = Truth { records: 1_000_000, views: 890_000, repeats: 5_000, ..Truth::default() };
        assert!(!remarks(&[figures(Who::Drain, 0, 1.0)], truth).concat().contains("headcount:"));
        let all = remarks(&[figures(Who::TableEngine, 0, 1.0), figures(Who::Aggregators(2), 0, 1.0)], truth).concat();
        assert!(all.contains("counts 900000 views by people where there are 890000"), "{all}");
        assert!(all.contains("890000 views by people of 1000000 records, 5000 repeated"), "{all}");
    }
}
