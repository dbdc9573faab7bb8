//! The order of a run, and its cost. Each step stores its figures in the result as soon as it has them, so that the measurements remain whatever ends
//! the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::check::{Check, Checked};
use super::month_command::MonthArgs;
use super::plan::Plan;
use super::probe::{self, Probed};
use super::produce::{Job, Produced, Progress, produce};
use super::project::project;
use super::result::{Closed, Counted, MonthResult, Replayed, Setting};
use super::state::State;
use super::text;
use super::watch::{Watched, Watcher, tables};
use crate::cpu::{Each, Servers, cpu_seconds, forget_peak, peak_bytes};
use crate::kafka::database::Database;
use crate::kafka::kafka_command::Setting as Kafka;
use crate::kafka::{
    aggregators,
    topic::{self, Times},
};
use crate::machine::Machine;
use crate::role::{self, Role};

/// Windows of fewer records cost more time than their records.
const SMALL_WINDOW: u64 = 50_000;
/// How long an aggregator may take to join its group, or to fold its open windows again.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// One run.
pub struct Run {
    /// The arguments.
    pub args: MonthArgs,
    /// The month.
    pub plan: Arc<Plan>,
    /// Names of the run's resources.
    pub state: State,
    /// Whether an earlier run had started.
    pub resumed: bool,
    /// The topic, and the program under test.
    pub kafka: Kafka,
    /// The database that counts it.
    pub database: Database,
    /// The processes whose processor time is measured.
    pub servers: Servers,
    /// The progress of sending and counting.
    pub progress: Arc<Progress>,
    /// Whether an end was requested.
    pub interrupted: AtomicBool,
}

impl Run {
    /// Runs all steps. Returns whether nothing is left to do.
    ///
    /// # Errors
    /// The time was up, a process ended, or a query failed. The measurements until then are in `result`.
    pub async fn all(&self, result: &mut MonthResult) -> anyhow::Result<bool> {
        if !self.resumed {
            topic::make(&self.kafka.bootstrap, &self.kafka.topic, self.kafka.partitions, Times::OfMonth).await?;
        }
        for pid in [self.servers.kafka, self.servers.clickhouse].into_iter().flatten() {
            forget_peak(pid);
        }
        let (mut aggregators, startup_seconds) = self.start_aggregators().await?;
        let reading = self.start_reading().await?;
        let servers = Servers { query: reading.as_ref().map(|reading| reading.role.pid), ..self.servers };
        result.counted.startup_seconds = startup_seconds;
        let produced = self.drive(&mut aggregators, servers, result).await;
        if let Some(reading) = reading {
            self.end_reading(reading, result).await?;
        }
        let produced = produced?;
        for role in &aggregators {
            result.counted.rows_written += role.figure("rows_total").await?;
        }
        (result.counted.rest_seconds, result.counted.rest_cpu) = self.rest().await?;
        self.note_peaks(&aggregators, result)?;
        let name = &self.database.name;
        let windows = format!("SELECT count() FROM {name}.ledger FINAL");
        result.counted.windows = self.database.number(&windows).await?;
        result.sent = produced.complete;
        result.complete = produced.complete && self.hours() == self.plan.hours();
        // An earlier run may have got as far as the close: then the rows of the open month no longer exist.
        let closes = self.database.number(&format!("SELECT count() FROM {name}.month_close FINAL")).await?;
        if closes == 0 {
            result.open_tables = tables(&self.database).await?;
            let open = self.check(result).open().await.context("comparing the open month with the truth");
            result.open = compared(open, &mut result.wrong)?;
            if self.is_interrupted() {
                return Ok(false);
            }
            let records = result.records();
            let (again, replayed) = self.replay(aggregators, records).await?;
            aggregators = again;
            result.replayed = Some(replayed);
        }
        self.note_peaks(&aggregators, result)?;
        for role in aggregators {
            role.stop().await?;
        }
        if self.is_interrupted() {
            return Ok(false);
        }
        if result.complete && !self.args.no_close {
            if closes == 0 {
                result.closed_tables = Some(self.close().await?);
            }
            let closed = self.check(result).closed().await.context("comparing the closed month with the truth");
            result.closed = compared(closed, &mut result.wrong)?;
        }
        self.note_peaks(&[], result)?;
        ensure!(
            produced.complete || self.is_interrupted(),
            "the month was not sent within {} s; give it more --seconds",
            self.kafka.within.as_secs()
        );
        Ok(produced.complete)
    }

    fn note_peaks(&self, aggregators: &[Role], result: &mut MonthResult) -> anyhow::Result<()> {
        let now = self.servers.each(aggregators, peak_bytes)?;
        result.counted.peaks = result.counted.peaks.with(&now, u64::max);
        Ok(())
    }

    fn check<'a>(&'a self, result: &'a MonthResult) -> Check<'a> {
        let window_records = self.state.window_records;
        Check { plan: &self.plan, truth: &result.truth, database: &self.database, window_records }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn hours(&self) -> u32 {
        self.args.days.map_or(self.plan.hours(), |days| (days * 24).min(self.plan.hours()))
    }

    /// Adds remarks for understanding the figures.
    pub fn describe(&self, result: &mut MonthResult) {
        result.format = 1;
        result.machine = Machine::this();
        result.setting = self.setting();
        result.remarks = remarks(result);
        let peak = self.plan.rhythms[self.plan.rhythms.len() - 1].peak();
        result.projections = self.args.project.iter().filter_map(|views| project(result, views.0, peak)).collect();
    }

    fn setting(&self) -> Setting {
        let hours = self.progress.hours.load(Ordering::Relaxed);
        Setting {
            month: self.plan.month().to_string(),
            size: self.plan.size(),
            seed: self.args.seed,
            days: hours / 24,
            days_of_month: self.plan.hours() / 24,
            partitions: self.args.partitions,
            aggregators: self.args.aggregators,
            window_records: self.state.window_records,
            ahead: self.args.ahead,
        }
    }

    async fn start_aggregators(&self) -> anyhow::Result<(Vec<Role>, f64)> {
        let begun = Instant::now();
        // In the month's last hour, so that none of them closes it early.
        let clock = schemas::Hour(self.plan.month().end_hour().0 - 1).start().to_rfc3339();
        let window = self.state.window_records.to_string();
        let hours = crate::WINDOW_HOURS.to_string();
        let more =
            ["--clock-start", &clock, "--window-records", &window, "--window-hours", &hours, "--kafka-times", "create"];
        let mut all = Vec::new();
        for _ in 0..self.args.aggregators {
            all.push(aggregators::start(&self.kafka, &self.state.group(), &self.database.name, &more)?);
        }
        aggregators::joined(&mut all, WAIT_TIMEOUT).await?;
        Ok((all, begun.elapsed().as_secs_f64()))
    }

    async fn start_reading(&self) -> anyhow::Result<Option<Reading>> {
        let Some(rate) = self.args.report_probe else { return Ok(None) };
        probe::register(&self.plan, &self.database).await?;
        // The probe is one client above the usual rate limit. It requests the running month: on its last evening.
        let evening = schemas::Hour(self.plan.month().end_hour().0 - 4).start().to_rfc3339();
        let arguments = ["--clickhouse-database", &self.database.name, "--report-rate", "0", "--clock-start", &evening];
        let arguments = arguments.map(str::to_owned);
        let mut role = Role::start(&self.kafka.binary, "query", &self.kafka.clickhouse_url, &arguments)?;
        role.until_ready("", WAIT_TIMEOUT).await?;
        let readers = probe::Readers::by_traffic(Arc::clone(&self.plan), role.port, rate);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = tokio::spawn(async move { readers.ask(&stopped).await });
        Ok(Some(Reading { role, stop, asking }))
    }

    async fn end_reading(&self, reading: Reading, result: &mut MonthResult) -> anyhow::Result<()> {
        reading.stop.store(true, Ordering::Relaxed);
        let probed = reading.asking.await.context("reading reports")??;
        result.counted.peaks.query = Some(peak_bytes(reading.role.pid)?);
        if let Probed { failed, asked, first_failure: Some(first), .. } = &probed {
            result.wrong.push(format!("{failed} of {asked} reports were not answered; the first: {first}"));
        }
        result.reports = Some(probed);
        reading.role.stop().await
    }

    /// Sends the month and watches until all of it is counted.
    async fn drive(
        &self,
        aggregators: &mut [Role],
        servers: Servers,
        result: &mut MonthResult,
    ) -> anyhow::Result<Produced> {
        let (begun, before) = (Instant::now(), servers.each(aggregators, cpu_seconds)?);
        let (bootstrap, topic, partitions) =
            (self.kafka.bootstrap.clone(), self.kafka.topic.clone(), self.kafka.partitions);
        let there = tokio::task::block_in_place(|| topic::ends(&bootstrap, &topic, partitions))?;
        let job = Job { bootstrap, topic, there, hours: self.hours(), ahead: self.args.ahead };
        let (plan, progress) = (Arc::clone(&self.plan), Arc::clone(&self.progress));
        let producing = std::thread::spawn(move || produce(&plan, &job, &progress));
        let expected = self.plan.size().views * u64::from(self.hours()) / u64::from(self.plan.hours());
        let bar = bar(expected);
        let watcher = Watcher { database: &self.database, servers, before, begun, within: self.kafka.within };
        // The number sent is final once the sender has finished.
        let all = || producing.is_finished().then(|| self.progress.sent.load(Ordering::Relaxed));
        let mut watched = Watched::default();
        let outcome =
            watcher.watch(aggregators, &self.progress, all, |counted| bar.set_position(counted), &mut watched).await;
        let (seconds, cpu) = (begun.elapsed().as_secs_f64(), servers.each(aggregators, cpu_seconds));
        self.progress.stop.store(true, Ordering::Relaxed);
        bar.finish_and_clear();
        let produced = tokio::task::block_in_place(|| producing.join());
        let mut produced = produced.map_err(|_| anyhow::anyhow!("the sending thread panicked"))?;
        result.truth = std::mem::take(&mut produced.truth);
        result.days = watched.samples;
        result.counted = Counted {
            startup_seconds: result.counted.startup_seconds,
            seconds,
            producing_seconds: produced.seconds,
            waited_seconds: produced.waited_seconds,
            remade_seconds: produced.remade_seconds,
            before: produced.before,
            records: watched.counted - watched.before,
            cpu: cpu.map_or_else(|_| Each::default(), |cpu| cpu.with(&before, |now, before| now - before)),
            peaks: servers.each(aggregators, peak_bytes).unwrap_or_default(),
            topic_bytes: produced.wire_bytes,
            ..Counted::default()
        };
        match produced.failure.take() {
            Some(failure) => Err(failure.context("sending")),
            None => outcome.map(|()| produced),
        }
    }

    /// Waits until ClickHouse's merges have finished, and returns the time and the cost.
    async fn rest(&self) -> anyhow::Result<(f64, f64)> {
        let cpu = || self.servers.clickhouse.map(cpu_seconds).transpose();
        let before = cpu()?;
        let seconds = self.database.rest().await?.as_secs_f64();
        Ok((seconds, cpu()?.zip(before).map_or(0.0, |(now, then)| now - then)))
    }

    /// Stops the aggregators and starts others; measures how long these take to get to the same state.
    async fn replay(&self, stopped: Vec<Role>, records: u64) -> anyhow::Result<(Vec<Role>, Replayed)> {
        for role in stopped {
            role.stop().await?;
        }
        let begun = Instant::now();
        let (mut roles, startup_seconds) = self.start_aggregators().await?;
        let open = loop {
            let (mut folded, mut windows) = (0, 0);
            for role in &mut roles {
                role.alive()?;
                folded += role.figure("headcount_folded_offset{").await?;
                windows += role.figure("headcount_window_start{").await?;
            }
            if folded >= records {
                break folded - windows;
            }
            ensure!(
                begun.elapsed() < WAIT_TIMEOUT,
                "after {} s only {folded} records of {records} were folded",
                WAIT_TIMEOUT.as_secs()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        Ok((roles, Replayed { records: open, startup_seconds, seconds: begun.elapsed().as_secs_f64() }))
    }

    async fn close(&self) -> anyhow::Result<Closed> {
        // 72 hours after its end it is due.
        let clock = schemas::Hour(self.plan.month().end_hour().0 + 73).start().to_rfc3339();
        let month = self.plan.month().to_string();
        let cpu = || self.servers.clickhouse.map(cpu_seconds).transpose();
        let (begun, before) = (Instant::now(), cpu()?);
        let output = role::command(&self.kafka.binary, &self.kafka.clickhouse_url)
            // The aggregator's clock has not got there, so it has recorded no ends; all records are known to be counted.
            .args(["close", "--force", "--month", &month, "--clock-start", &clock, "--log", "error"])
            .args(["--clickhouse-timeout-ms", "600000", "--clickhouse-database", &self.database.name])
            .output()
            .await
            .context("starting headcount close")?;
        ensure!(
            output.status.success(),
            "headcount close ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let seconds = begun.elapsed().as_secs_f64();
        let clickhouse_cpu = cpu()?.zip(before).map(|(now, then)| now - then);
        self.rest().await?;
        Ok(Closed { seconds, clickhouse_cpu, tables: tables(&self.database).await? })
    }
}

/// Wrong figures are reported with all measurements, so that a long run is not lost. If ClickHouse did not answer, nothing is known, and the same
/// comparison can be repeated.
fn compared(outcome: anyhow::Result<Checked>, wrong: &mut Vec<String>) -> anyhow::Result<Option<Checked>> {
    match outcome {
        Ok(checked) => Ok(Some(checked)),
        Err(error) if error.chain().any(|cause| cause.is::<clickhouse::error::Error>()) => Err(error),
        Err(error) => {
            wrong.push(format!("{error:#}"));
            Ok(None)
        }
    }
}

/// A client of reports, and the service that answers.
struct Reading {
    role: Role,
    stop: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<anyhow::Result<Probed>>,
}

/// On a terminal only; elsewhere nothing is drawn.
fn bar(expected: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of about {human_len} records, {per_sec}, {eta} left");
    let bar = ProgressBar::new(expected);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

fn remarks(result: &MonthResult) -> Vec<String> {
    let counted = &result.counted;
    let mut remarks = vec![
        "All ran on one machine: sender, broker, aggregators and ClickHouse share its processors. Memory is the peak of what was \
         resident; of ClickHouse it includes the pages of its program that were touched."
            .to_owned(),
        "B/view day by day is with parts that are not merged yet; the tables below it are at rest.".to_owned(),
    ];
    let in_window = result.records() / counted.windows.max(1);
    if in_window < SMALL_WINDOW {
        remarks.push(format!(
            "There are as many windows as a month has, of {in_window} records each, in some minutes: most of the time goes into their \
             inserts, which a month has hours for."
        ));
    }
    if counted.records < result.records() {
        remarks.push(format!(
            "An earlier run had counted {} of these records and sent {}: seconds, processor time and rows written are of this run and the \
             {} that it counted; {:.1} s of it made again what the topic had.",
            text::grouped(result.records() - counted.records),
            text::grouped(counted.before),
            text::grouped(counted.records),
            counted.remade_seconds
        ));
    }
    if !result.sent {
        remarks.push("The run was ended early; what was sent until then was counted and compared.".to_owned());
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_figure_is_reported_and_an_unanswered_query_ends_the_run() {
        let mut wrong = Vec::new();
        let outcome = compared(Err(anyhow::anyhow!("7 are counted of 8").context("comparing")), &mut wrong);
        assert!(outcome.unwrap().is_none());
        assert_eq!(wrong, ["comparing: 7 are counted of 8"]);
        let unanswered = anyhow::Error::new(clickhouse::error::Error::TimedOut).context("asking").context("comparing");
        assert!(compared(Err(unanswered), &mut wrong).is_err());
        assert_eq!(wrong.len(), 1);
    }
}
