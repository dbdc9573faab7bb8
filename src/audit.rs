//! An audit: compares what the log says with what ClickHouse stores. It shares no folding code with the aggregator.
//!
//! [`record`] decodes a record, [`mod@rebuild`] adds records up window by window in ordered maps, [`log`] reads Kafka or the journal, and [`compare`]
//! compares the two results. The audit is simple rather than fast: one thread, one window in memory.

mod compare;
mod log;
mod rebuild;
mod record;
#[cfg(feature = "kafka")]
mod topic_log;
mod totals;

use crate::config::commands::AuditCommand;
use crate::embedded::engine::{Engine, EngineKind};
use crate::say;
use crate::{database, projects};
use anyhow::{Context, bail};
use clap::ArgMatches;
use compare::Report;
use log::{Log, Partition};
use rebuild::{Cut, RULES, Rebuild};
use schemas::StreamId;
use schemas::tables::LedgerRow;
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;
use totals::Totals;

/// Differences that are printed one by one.
const TOLD: usize = 100;
/// How often the comparison of a window is repeated because the window is written during it.
const TRIES: usize = 20;
/// Pause before that.
const PAUSE: Duration = Duration::from_millis(300);

fn cut_of(settings: &AuditCommand) -> Cut {
    let windows = &settings.windows;
    let cut = if settings.kafka.names_brokers() { windows.policy() } else { windows.journal_policy(&settings.journal) };
    Cut { window_hours: cut.window_hours, max_records: cut.max_records, max_bytes: cut.max_bytes }
}

/// Runs `headcount rebuild --from-log`.
pub async fn rebuild(matches: &ArgMatches, settings: &AuditCommand) -> anyhow::Result<ExitCode> {
    let log = Log::open(settings)?;
    let cut = cut_of(settings);
    let only = matches.get_one::<String>("project").cloned();
    let (log, told) = tokio::task::spawn_blocking(move || {
        let mut told = Vec::new();
        let mut totals = Totals::default();
        for partition in log.partitions()? {
            let mut windows = Vec::new();
            let mut rebuild = Rebuild::new(partition.cut.unwrap_or(cut), partition.begin == 0, RULES);
            log.read(&partition, partition.begin, partition.end, |entry| {
                if let Some(window) = rebuild.take(&entry) {
                    windows.push(window.summary());
                    totals.add(&window);
                }
                ControlFlow::Continue(())
            })?;
            let skipped = rebuild.skipped();
            if let Some(window) = rebuild.finish() {
                windows.push(window.summary());
                totals.add(&window);
            }
            told.push(json!({
                "partition": partition.number,
                "stream": partition.stream.map(|stream| stream.to_string()),
                "begin": partition.begin,
                "end": partition.end,
                "skipped": skipped,
                "windows": windows,
            }));
        }
        anyhow::Ok((log, json!({"partitions": told, "projects": totals.projects(only.as_deref())?})))
    })
    .await
    .context("the rebuild failed")??;
    log.close();
    if matches.get_one::<String>("format").is_some_and(|format| format == "json") {
        say!("{told}");
    } else {
        crate::shell::output::print(format_args!("{}", totals::text(&told)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `headcount audit`. 0: no difference, 1: differences, 2: could not be compared (by the caller).
pub async fn audit(matches: &ArgMatches, settings: &AuditCommand) -> anyhow::Result<ExitCode> {
    let wait = match matches.get_one::<String>("wait") {
        Some(text) => text.parse().with_context(|| format!("--wait is {text:?}: expected seconds"))?,
        None => 0,
    };
    let log = Log::open(settings)?;
    let mut engine = None;
    let url = match settings.store.engine().clickhouse_url {
        // While the service is stopped, its ClickHouse is stopped too.
        None if log.is_of_a_stopped_service() => {
            let started = Engine::start(&settings.store.engine()).await?;
            let url = started.url().to_owned();
            engine = Some(started);
            url
        }
        _ => projects::clickhouse_url(&settings.store).await?,
    };
    let client =
        database::prepare(&settings.store.server(&url), settings.store.database(), settings.store.timeout()).await?;
    let outcome = compared(settings, log, client, Duration::from_secs(wait)).await;
    if let Some(engine) = engine {
        debug_assert!(!matches!(engine.kind(), EngineKind::External));
        engine.stop().await?;
    }
    let report = outcome?;
    if matches.get_one::<String>("format").is_some_and(|format| format == "json") {
        say!("{}", report.json());
    } else {
        crate::shell::output::print(format_args!("{}", report.text()));
    }
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn compared(
    settings: &AuditCommand,
    log: Log,
    client: clickhouse::Client,
    wait: Duration,
) -> anyhow::Result<Report> {
    let cut = cut_of(settings);
    let log = std::sync::Arc::new(log);
    let partitions = settled(&log, &client, wait).await?;
    let mut report = Report::default();
    for partition in partitions {
        compare_partition(&log, &client, partition, cut, &mut report).await?;
    }
    if let Some(log) = std::sync::Arc::into_inner(log) {
        log.close();
    }
    Ok(report)
}

/// The partitions, once the ledger has reached the end of each or the wait has timed out.
async fn settled(
    log: &std::sync::Arc<Log>,
    client: &clickhouse::Client,
    wait: Duration,
) -> anyhow::Result<Vec<Partition>> {
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        let asked = std::sync::Arc::clone(log);
        let partitions =
            tokio::task::spawn_blocking(move || asked.partitions()).await.context("asking the log failed")??;
        let mut behind = false;
        for partition in &partitions {
            let counted = match partition.stream {
                Some(stream) => compare::ledger_end(client, stream).await?,
                None => 0,
            };
            behind |= counted < partition.end && partition.end > partition.begin;
        }
        if !behind || tokio::time::Instant::now() >= deadline {
            return Ok(partitions);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn compare_partition(
    log: &std::sync::Arc<Log>,
    client: &clickhouse::Client,
    partition: Partition,
    cut: Cut,
    report: &mut Report,
) -> anyhow::Result<()> {
    let Some(stream) = partition.stream else {
        if partition.end > partition.begin {
            report.not_folded += partition.end - partition.begin;
            report.notes.push(format!("partition {} has no commit: nothing is known to be counted", partition.number));
        }
        return Ok(());
    };
    let ledger = compare::ledger(client, stream).await?;
    let counted = ledger.values().map(|row| row.next_offset).max().unwrap_or(partition.begin);
    report.not_folded += partition.end.saturating_sub(counted);
    report.contiguous(stream, &ledger);
    let from = first_whole_window(&partition, &ledger, counted, report);
    let cut = partition.cut.unwrap_or(cut);
    let gone = compare::Gone::read(client).await?;
    let mut position = from;
    let mut starts = Vec::new();
    while position < counted {
        let (rules, end) = rules_at(&ledger, position, counted);
        let mut window = window_at(log, &partition, (cut, rules), position, end).await?;
        starts.push(window.start);
        let mut tries = TRIES;
        loop {
            // During a flush a row may be ahead of the ledger, and the ledger ahead of what was read here.
            let as_of = compare::ledger_row(client, stream, window.start).await?;
            if let Some(row) = &as_of
                && row.next_offset > window.end
            {
                window = window_at(log, &partition, (cut, row.fold_version), window.start, row.next_offset).await?;
            }
            // A window that was closed before its records were lost keeps its counts.
            if let Some(row) = as_of.as_ref().filter(|row| row.lost < window.lost) {
                report.notes.push(format!(
                    "partition {}: the window from {} to {} was counted before {} of its records were lost; it is not compared",
                    partition.number, window.start, row.next_offset, window.lost - row.lost
                ));
                window.end = row.next_offset;
                break;
            }
            let found = compare::cells(client, stream, window.start).await?;
            let again = compare::ledger_row(client, stream, window.start).await?;
            let differences = compare::differences(stream, &window, again.as_ref(), &found, &gone)?;
            let moved = as_of != again || found.newest > again.as_ref().map_or(0, |row| row.next_offset);
            if moved && !differences.is_empty() {
                tries -= 1;
                if tries > 0 {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                report.moving += 1;
                break;
            }
            report.add(&window, found.rows(), differences);
            break;
        }
        position = window.end.max(position + 1);
    }
    report.strays(client, stream, from, counted, &starts).await
}

/// If the stream starts earlier than the log, its windows are compared from the first whole one on.
fn first_whole_window(
    partition: &Partition,
    ledger: &BTreeMap<u64, LedgerRow>,
    counted: u64,
    report: &mut Report,
) -> u64 {
    let first = ledger.keys().next().copied().unwrap_or(partition.begin);
    if first >= partition.begin {
        return partition.begin;
    }
    let from = ledger.range(partition.begin..).next().map_or(counted, |(&start, _)| start);
    if from > partition.begin {
        report.notes.push(format!(
            "partition {}: offsets {} to {from} are of a window that began before the log does",
            partition.number, partition.begin
        ));
    }
    from
}

/// The rules of the window that starts at `start`, and its latest possible end. After an upgrade that changed the rules, the first window under the
/// new rules starts where the old version stopped.
fn rules_at(ledger: &BTreeMap<u64, LedgerRow>, start: u64, counted: u64) -> (u32, u64) {
    let rules = ledger.get(&start).map_or(RULES, |row| row.fold_version);
    let others = ledger.range(start + 1..).find(|(_, row)| row.fold_version != rules);
    (rules, others.map_or(counted, |(&begin, _)| begin.min(counted)))
}

/// The window that starts at `start`, as of `end` at most.
async fn window_at(
    log: &std::sync::Arc<Log>,
    partition: &Partition,
    (cut, rules): (Cut, u32),
    start: u64,
    end: u64,
) -> anyhow::Result<rebuild::Window> {
    let (log, partition) = (std::sync::Arc::clone(log), partition.clone());
    let built = tokio::task::spawn_blocking(move || {
        let mut rebuild = Rebuild::new(cut, true, rules);
        let mut ended = None;
        log.read(&partition, start, end, |entry| match rebuild.take(&entry) {
            Some(window) => {
                ended = Some(window);
                ControlFlow::Break(())
            }
            None => ControlFlow::Continue(()),
        })?;
        anyhow::Ok(ended.or_else(|| rebuild.finish()))
    })
    .await
    .context("reading the log failed")??;
    match built {
        Some(window) => Ok(window),
        None => bail!("the log has no record at offset {start}, though the ledger has counted it"),
    }
}

/// `stream` in its usual written form.
fn name_of(stream: StreamId) -> String {
    stream.to_string()
}
