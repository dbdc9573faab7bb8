//! The runs of all contenders in one table, and the table's limitations.

use super::drain_figures::{Figures, Who};
use super::records::Truth;
use crate::table::{Measure, Table};

const MEASURES: [Measure<Figures>; 12] = [
    ("records/s", 0, |f, _| Some(f.records_per_second())),
    // A producer reads nothing, so it has no ratio.
    ("ratio to the drain", 2, |f, drain| {
        (f.who != Who::Producer).then_some(f.records_per_second() / drain?.records_per_second())
    }),
    ("s until assigned", 2, |f, _| f.startup_seconds),
    ("CPU s/1 M: client", 2, |f, _| f.per_million(f.client_cpu_seconds)),
    ("CPU s/1 M: ClickHouse", 2, |f, _| f.per_million(f.clickhouse_cpu_seconds)),
    ("… and its merges", 2, |f, _| f.per_million(f.clickhouse_cpu_seconds_at_rest)),
    ("CPU s/1 M: Kafka", 2, |f, _| f.per_million(f.kafka_cpu_seconds)),
    ("peak MiB: client", 0, |f, _| mib(f.client_peak_bytes)),
    ("peak MiB: ClickHouse", 0, |f, _| mib(f.clickhouse_peak_bytes)),
    ("rows written", 0, |f, _| Some(f.rows_written? as f64)),
    ("rows in ClickHouse", 0, |f, _| Some(f.rows? as f64)),
    ("MiB on disk", 1, |f, _| mib(f.disk_bytes)),
];

fn mib(bytes: Option<u64>) -> Option<f64> {
    Some(bytes? as f64 / f64::from(1 << 20))
}

/// The table of these runs.
#[must_use]
pub fn table(runs: &[Figures]) -> Table {
    Table::of(runs, &Who::Drain.name(), &MEASURES)
}

/// Whether each contender counted correctly, and remarks for understanding the table.
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

    fn figures(who: Who, run: u32, seconds: f64) -> Figures {
        let views = (who != Who::Drain).then_some(900_000);
        Figures { run, views, client_cpu_seconds: Some(1.5), ..Figures::new(who, 1_000_000, seconds) }
    }

    #[test]
    fn the_ratio_is_to_the_drain_of_the_same_round_and_senders_have_none() {
        let one = Who::Aggregators(1);
        // The machine is half as fast in the second round.
        let all = [(Who::Drain, 0, 1.0), (one, 0, 2.0), (Who::Producer, 0, 0.5), (Who::Drain, 1, 2.0), (one, 1, 4.0)];
        let table = table(&all.map(|(who, run, seconds)| figures(who, run, seconds)));
        assert_eq!(table.columns, ["bare drain", "headcount aggregate", "bare produce"]);
        let row = |name: &str| table.rows.iter().find(|row| row.measure == name).unwrap().cells.clone();
        let ratios = row("ratio to the drain").into_iter().map(|cell| cell.map(|spread| (spread.low, spread.high)));
        assert_eq!(ratios.collect::<Vec<_>>(), [Some((1.0, 1.0)), Some((0.5, 0.5)), None]);
        assert_eq!(row("CPU s/1 M: client")[1].unwrap().median, 1.5);
    }

    #[test]
    fn remarks_are_of_the_participants() {
        let truth = Truth { records: 1_000_000, views: 890_000, repeats: 5_000, ..Truth::default() };
        assert!(!remarks(&[figures(Who::Drain, 0, 1.0)], truth).concat().contains("headcount:"));
        let all = remarks(&[figures(Who::TableEngine, 0, 1.0), figures(Who::Aggregators(2), 0, 1.0)], truth).concat();
        assert!(all.contains("counts 900000 views by people where there are 890000"), "{all}");
        assert!(all.contains("890000 views by people of 1000000 records, 5000 repeated"), "{all}");
    }
}
