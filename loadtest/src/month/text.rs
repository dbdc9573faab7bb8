//! The result as text for a terminal.

use std::fmt::Write as _;

use super::accuracy::Accuracy;
use super::check::Checked;
use super::project::ASSUMPTIONS;
use super::result::{MonthResult, bytes, rows};
use super::watch::Tables;

const MIB: f64 = (1 << 20) as f64;

/// A number with its thousands apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The whole result.
#[must_use]
pub fn render(result: &MonthResult) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(out, "\n{}\n\n", result.machine.line());
    truth(&mut out, result);
    throughput(&mut out, result);
    days(&mut out, result);
    storage(&mut out, result);
    if let Some(open) = &result.open {
        checked(&mut out, "the open month", open);
    }
    if let Some(closed) = &result.closed {
        checked(&mut out, "the closed month", closed);
    }
    rest(&mut out, result);
    if let Some(why) = &result.ended {
        let _ = writeln!(out, "ENDED EARLY: {why}");
    }
    for wrong in &result.wrong {
        let _ = writeln!(out, "WRONG: {wrong}");
    }
    for remark in &result.remarks {
        let _ = writeln!(out, "- {remark}");
    }
    out
}

fn truth(out: &mut String, result: &MonthResult) {
    let (setting, truth) = (&result.setting, &result.truth);
    let _ = writeln!(
        out,
        "{} of {} projects, {} of its days: {} page views ({} by people, {} by bots, {} of a flood), {} visitors\n\
         {} repeats, {} late, {} refused beacons in {} tallies; {} partitions, {} aggregators, {} windows\n",
        setting.month,
        grouped(setting.size.projects.into()),
        setting.days,
        grouped(result.page_views()),
        grouped(truth.views - truth.flood),
        grouped(truth.bots),
        grouped(truth.flood),
        if truth.visitors > 0 { grouped(truth.visitors) } else { "uncounted".to_owned() },
        grouped(truth.repeats),
        grouped(truth.late),
        grouped(truth.refused),
        grouped(truth.tallies),
        setting.partitions,
        setting.aggregators,
        grouped(result.counted.windows)
    );
}

fn throughput(out: &mut String, result: &MonthResult) {
    let counted = &result.counted;
    let million = result.counted_views().max(1.0) / 1e6;
    let _ = writeln!(
        out,
        "from topic to rows   {:.1} s, {} page views a second ({:.1} s until assigned; sending took {:.1} s, of which {:.1} s \
         waiting for the ledger)",
        counted.seconds,
        grouped((result.counted_views() / counted.seconds.max(1e-9)) as u64),
        counted.startup_seconds,
        counted.producing_seconds,
        counted.waited_seconds
    );
    let of = |name: &str, cpu: Option<f64>, peak: Option<u64>| {
        let cpu = cpu.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.1} s, {:.2} s/M views", cpu / million));
        let peak = peak.map_or_else(|| "–".to_owned(), |peak| format!("{:.0} MiB", peak as f64 / MIB));
        format!("  {name:<18} CPU {cpu:<28} peak {peak}")
    };
    let (cpu, peaks) = (&counted.cpu, &counted.peaks);
    for line in [
        of("aggregate", Some(cpu.aggregate), Some(peaks.aggregate)),
        of("ClickHouse", cpu.clickhouse, peaks.clickhouse),
        of("Kafka", cpu.kafka, peaks.kafka),
        of("query", cpu.query, peaks.query),
        of("this load test", Some(cpu.client), Some(peaks.client)),
    ] {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(
        out,
        "  rows written {} in {} windows; merges went on for {:.1} s and {:.1} s of CPU\n",
        grouped(counted.rows_written),
        grouped(counted.windows),
        counted.rest_seconds,
        counted.rest_cpu
    );
}

fn days(out: &mut String, result: &MonthResult) {
    let _ = writeln!(
        out,
        "{:>4} {:>15} {:>9} {:>11} {:>13} {:>9} {:>9} {:>12} {:>7}",
        "day", "page views", "s", "s/M views", "CPU s/M: agg", "ClickH.", "Kafka", "MiB stored", "B/view"
    );
    for pair in result.days.windows(2) {
        let (before, day) = (&pair[0], &pair[1]);
        let million = day.views.saturating_sub(before.views).max(1) as f64 / 1e6;
        let cpu = day.cpu.with(&before.cpu, |now, before| now - before);
        let per = |cpu: Option<f64>| cpu.map_or_else(|| "–".to_owned(), |cpu| format!("{:.2}", cpu / million));
        let stored = bytes(&day.tables);
        let _ = writeln!(
            out,
            "{:>4} {:>15} {:>9.1} {:>11.2} {:>13} {:>9} {:>9} {:>12.1} {:>7.2}",
            day.day,
            grouped(day.views),
            day.seconds,
            (day.seconds - before.seconds) / million,
            per(Some(cpu.aggregate)),
            per(cpu.clickhouse),
            per(cpu.kafka),
            stored as f64 / MIB,
            stored as f64 / day.views.max(1) as f64
        );
    }
    out.push('\n');
}

fn storage(out: &mut String, result: &MonthResult) {
    let mut table = |title: &str, tables: &Tables| {
        let _ = writeln!(out, "{title:<26} {:>15} {:>12} {:>11} {:>11}", "rows", "MiB", "rows/view", "bytes/view");
        for (name, held) in tables {
            let _ = writeln!(
                out,
                "  {name:<24} {:>15} {:>12.2} {:>11.4} {:>11.3}",
                grouped(held.rows),
                held.bytes as f64 / MIB,
                result.each(held.rows),
                result.each(held.bytes)
            );
        }
        let _ = writeln!(
            out,
            "  {:<24} {:>15} {:>12.2} {:>11.4} {:>11.3}\n",
            "all",
            grouped(rows(tables)),
            bytes(tables) as f64 / MIB,
            result.each(rows(tables)),
            result.each(bytes(tables))
        );
    };
    if !result.open_tables.is_empty() {
        table("open month", &result.open_tables);
    }
    if let Some(closed) = &result.closed_tables {
        table("closed month", &closed.tables);
    }
    let _ = writeln!(
        out,
        "topic: {:.1} bytes a page view compressed, {:.1} before\n",
        result.counted.topic_bytes as f64 / result.sent_views().max(1.0),
        result.each(result.truth.bytes)
    );
}

fn checked(out: &mut String, what: &str, checked: &Checked) {
    let beyond = match checked.beyond_window {
        0 => String::new(),
        n => format!(", of which {} repeats a window after their view", grouped(n)),
    };
    let _ = writeln!(
        out,
        "{what}: {} views are counted, exactly as they should be{beyond}; compared: {} projects, {} pages",
        grouped(checked.views),
        grouped(checked.projects),
        grouped(checked.pages)
    );
    if checked.accuracy.is_empty() {
        out.push('\n');
        return;
    }
    let _ = writeln!(
        out,
        "  {:>20} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "true visitors", "projects", "p50 %", "p95 %", "max %", "rms %", "theory %"
    );
    for Accuracy { from, to, projects, p50, p95, max, rms, theory, holds } in &checked.accuracy {
        let range = format!("{}–{}", grouped(*from), grouped(*to));
        let [p50, p95, max, rms, theory] = [p50, p95, max, rms, theory].map(|share| share * 100.0);
        let _ = writeln!(
            out,
            "  {range:>20} {projects:>9} {p50:>8.3} {p95:>8.3} {max:>8.3} {rms:>8.3} {theory:>8.3} {}",
            if *holds { "" } else { "MORE THAN THEORY ALLOWS" }
        );
    }
    out.push('\n');
}

fn rest(out: &mut String, result: &MonthResult) {
    if let Some(replayed) = &result.replayed {
        let _ = writeln!(
            out,
            "stop and start: {} records of open windows were folded again {:.1} s after the start ({:.1} s until assigned)",
            grouped(replayed.records),
            replayed.seconds,
            replayed.startup_seconds
        );
    }
    if let Some(closed) = &result.closed_tables {
        let cpu = closed.clickhouse_cpu.map_or_else(String::new, |cpu| format!(", {cpu:.1} s of ClickHouse's CPU"));
        let _ = writeln!(out, "closing the month: {:.1} s{cpu}", closed.seconds);
    }
    if let Some(reports) = &result.reports {
        let latency = reports.latency_ms.map_or_else(String::new, |l| {
            format!(
                ": p50 {:.1} ms, p90 {:.1}, p99 {:.1}, max {:.1} from when they were due",
                l.p50, l.p90, l.p99, l.max
            )
        });
        let _ = writeln!(
            out,
            "{} reports read meanwhile, {} a second{latency}; the largest {} bytes; {} questions came before the first view, {} were refused for \
             want of time{}",
            grouped(reports.reports),
            reports.rate,
            grouped(reports.largest_bytes),
            grouped(reports.not_yet),
            grouped(reports.refused),
            match &reports.first_failure {
                Some(first) => format!(", {} FAILED: {first}", grouped(reports.failed)),
                None => String::new(),
            }
        );
    }
    for to in &result.projections {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let _ = writeln!(
            out,
            "\n{} page views a month, by arithmetic: {:.0} a second in the busiest hour; processors: {:.2} aggregators, {:.2} \
             ClickHouse, {:.2} brokers; {} partitions; disk: {:.1} GiB brokers, {:.1} GiB ClickHouse",
            grouped(to.views),
            to.peak_per_second,
            to.aggregate_processors,
            to.clickhouse_processors,
            to.kafka_processors,
            to.partitions,
            gib(to.kafka_bytes),
            gib(to.clickhouse_bytes)
        );
    }
    if !result.projections.is_empty() {
        let _ = writeln!(out, "  assuming that {}", ASSUMPTIONS.join(";\n  "));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
