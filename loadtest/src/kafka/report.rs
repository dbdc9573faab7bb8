//! The runs of all contenders in one table, and what the table does not say.

use std::fmt::Write as _;

use serde::Serialize;

use super::figures::{Figures, Who};
use super::records::Truth;
use crate::table::Spread;

/// What one contender did, over all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Who.
    pub who: Who,
    /// From the first assignment to the last record.
    pub records_per_second: Spread,
    /// Records a second divided by those of the drain of the same round.
    pub ratio: Option<Spread>,
    /// From the start to the first assignment.
    pub startup_seconds: Option<Spread>,
    /// Processor seconds of the reading processes for a million records.
    pub reader_cpu: Option<Spread>,
    /// The same of ClickHouse until all was counted.
    pub clickhouse_cpu: Option<Spread>,
    /// The same of ClickHouse until its merges had ended.
    pub clickhouse_cpu_at_rest: Option<Spread>,
    /// The same of the broker.
    pub kafka_cpu: Option<Spread>,
    /// Peak memory of the reading processes in MiB.
    pub reader_mib: Option<Spread>,
    /// Peak memory of ClickHouse in MiB.
    pub clickhouse_mib: Option<Spread>,
    /// Rows sent to ClickHouse.
    pub rows_written: Option<Spread>,
    /// Rows in ClickHouse.
    pub rows: Option<Spread>,
    /// MiB on disk.
    pub disk_mib: Option<Spread>,
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
    order.into_iter().filter_map(|who| line(who, runs)).collect()
}

fn line(who: Who, runs: &[Figures]) -> Option<Line> {
    let of = |value: &dyn Fn(&Figures) -> Option<f64>| {
        Spread::of(runs.iter().filter(|figures| figures.who == who).filter_map(value))
    };
    let drain = |run: u32| runs.iter().find(|figures| figures.who == Who::Drain && figures.run == run);
    let mib = |bytes: Option<u64>| Some(bytes? as f64 / f64::from(1 << 20));
    let number = |rows: Option<u64>| Some(rows? as f64);
    Some(Line {
        who,
        records_per_second: of(&|f| Some(f.records_per_second()))?,
        // Who sends is no reader.
        ratio: of(&|f| (f.who != Who::Producer).then_some(f.records_per_second() / drain(f.run)?.records_per_second())),
        startup_seconds: of(&|f| f.startup_seconds),
        reader_cpu: of(&|f| f.per_million(f.reader_cpu_seconds)),
        clickhouse_cpu: of(&|f| f.per_million(f.servers.clickhouse)),
        clickhouse_cpu_at_rest: of(&|f| f.per_million(f.servers.clickhouse_at_rest)),
        kafka_cpu: of(&|f| f.per_million(f.servers.kafka)),
        reader_mib: of(&|f| mib(f.reader_peak_bytes)),
        clickhouse_mib: of(&|f| mib(f.servers.clickhouse_peak_bytes)),
        rows_written: of(&|f| number(f.rows_written)),
        rows: of(&|f| number(f.rows)),
        disk_mib: of(&|f| mib(f.disk_bytes)),
    })
}

/// The table as text: a row a measure, a column a contender.
#[must_use]
pub fn render(lines: &[Line]) -> String {
    type Cell = fn(&Line) -> Option<Spread>;
    let measures: [(&str, usize, Cell); 12] = [
        ("records/s", 0, |l| Some(l.records_per_second)),
        ("ratio to the drain", 2, |l| l.ratio),
        ("s until assigned", 2, |l| l.startup_seconds),
        ("CPU s/1 M: client", 2, |l| l.reader_cpu),
        ("CPU s/1 M: ClickHouse", 2, |l| l.clickhouse_cpu),
        ("… and its merges", 2, |l| l.clickhouse_cpu_at_rest),
        ("CPU s/1 M: Kafka", 2, |l| l.kafka_cpu),
        ("peak MiB: client", 0, |l| l.reader_mib),
        ("peak MiB: ClickHouse", 0, |l| l.clickhouse_mib),
        ("rows written", 0, |l| l.rows_written),
        ("rows in ClickHouse", 0, |l| l.rows),
        ("MiB on disk", 1, |l| l.disk_mib),
    ];
    let mut text = format!("{:<22}", "median (range)");
    for line in lines {
        let _ = write!(text, " {:>27}", line.who.name());
    }
    for (measure, decimals, cell) in measures {
        let cells: Vec<Option<Spread>> = lines.iter().map(cell).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "\n{measure:<22}");
        for spread in cells {
            let shown = spread.map_or_else(|| "–".to_owned(), |spread| spread.show(decimals));
            let _ = write!(text, " {shown:>27}");
        }
    }
    text.push('\n');
    text
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
        assert_eq!(lines[1].ratio, Some(Spread { median: 0.5, low: 0.5, high: 0.5 }));
        assert_eq!(lines[0].ratio.map(|r| r.median), Some(1.0));
        assert_eq!(lines[1].reader_cpu.map(|s| s.median), Some(1.5));
    }

    #[test]
    fn who_sends_has_a_rate_and_no_ratio() {
        let runs = [figures(Who::Producer, 0, 0.5), figures(Who::Drain, 0, 1.0)];
        let lines = lines(&runs);
        assert_eq!((lines[0].records_per_second.median, lines[0].ratio), (2e6, None));
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
