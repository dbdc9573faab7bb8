//! `headcount loadtest month`: the order of a run, and what is cleared away afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use schemas::Month;

use super::check::{Check, Checked};
use super::plan::{Plan, Preset, Size};
use super::probe::Probed;
use super::produce::{Job, Produced, Progress, produce};
use super::project::{Views, project};
use super::result::{Closed, Counted, MonthResult, Replayed, Setting};
use super::state::State;
use super::watch::{Servers, Watcher, tables};
use super::{html, probe, text};
use crate::cpu::{cpu_seconds, forget_peak, listener_pid};
use crate::kafka::command::{Setting as Kafka, unique};
use crate::kafka::database::{self, Database};
use crate::kafka::{aggregators, topic};
use crate::machine::Machine;
use crate::role::{self, Role};

/// Without a merge for this long, ClickHouse is at rest.
const QUIET: Duration = Duration::from_secs(3);
/// How long it is waited for, at most.
const REST: Duration = Duration::from_secs(60);
/// Windows of fewer records cost more time than their records.
const SMALL_WINDOW: u64 = 50_000;
/// How long an aggregator may take to be taken in by its group, or to fold its open windows again.
const PATIENCE: Duration = Duration::from_secs(120);

/// Arguments of `headcount loadtest month`.
#[derive(Debug, Clone, clap::Args)]
pub struct MonthArgs {
    /// Brokers on this machine, as in 127.0.0.1:9092
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka_bootstrap: String,
    /// ClickHouse on this machine, as in http://127.0.0.1:8123
    #[arg(long, value_name = "URL", env = "HEADCOUNT_CLICKHOUSE_URL", hide_env_values = true)]
    pub clickhouse_url: String,
    /// How large the month is
    #[arg(long, value_enum, default_value_t = Preset::Small)]
    pub preset: Preset,
    /// Page views instead of the preset's, as in 50M
    #[arg(long, value_name = "N")]
    pub views: Option<Views>,
    /// Projects instead of the preset's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub projects: Option<u32>,
    /// The month the views are of, as YYYY-MM: one that has ended [default: the last one]
    #[arg(long, value_name = "YYYY-MM")]
    pub month: Option<Month>,
    /// Drive only its first days; visitors cannot be compared then
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=31))]
    pub days: Option<u32>,
    /// Decides every record
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=64))]
    pub partitions: i32,
    /// Processes of `headcount aggregate` in one group
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub aggregators: u32,
    /// Records in a window of a partition [default: what six hours of such a month have, so that there are as many rows as there
    /// would be had the month taken a month]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4_194_304))]
    pub window_records: Option<u64>,
    /// Records that may wait for the aggregators: what bounds the backlog
    #[arg(long, value_name = "N", default_value_t = 8_000_000)]
    pub ahead: u64,
    /// Seconds the run may take
    #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Where a run that was interrupted left its names: with the same arguments it goes on
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Read so many reports a second meanwhile [5 if no number is given], of projects drawn by their traffic, and tell how long each
    /// took from when it was due
    #[arg(long, value_name = "RATE", num_args = 0..=1, require_equals = true, default_missing_value = "5",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub report_probe: Option<u32>,
    /// Token for these reports; the month's projects are registered as public
    #[arg(long, value_name = "TOKEN", env = "HEADCOUNT_LOADTEST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Leave the month open
    #[arg(long)]
    pub no_close: bool,
    /// Say what a month of so many page views would take, as in 10G; repeatable
    #[arg(long, value_name = "VIEWS", value_delimiter = ',')]
    pub project: Vec<Views>,
    /// Program whose roles are measured; this one if none is named
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Process id of ClickHouse; who listens on its port, if none is named
    #[arg(long, value_name = "PID")]
    pub clickhouse_pid: Option<u32>,
    /// Process id of the broker; who listens on its port, if none is named
    #[arg(long, value_name = "PID")]
    pub kafka_pid: Option<u32>,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with charts to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Leave topic and database behind, and say their names
    #[arg(long)]
    pub keep: bool,
}

/// The month before the one that it is now.
fn last_month() -> Month {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    schemas::Hour(u32::try_from(now.as_secs() / 3_600).unwrap_or(u32::MAX)).month().previous()
}

pub(crate) async fn run(args: MonthArgs) -> anyhow::Result<()> {
    let clickhouse_port = database::only_loopback(&args.clickhouse_url)?;
    tokio::task::block_in_place(|| topic::only_loopback(&args.kafka_bootstrap))?;
    let preset = args.preset.size();
    let size = Size {
        projects: args.projects.unwrap_or(preset.projects),
        views: args.views.map_or(preset.views, |views| views.0),
    };
    ensure!(size.views >= 1_000, "a month has at least a thousand page views here");
    let plan = Arc::new(Plan::new(args.seed, args.month.unwrap_or_else(last_month), size));
    let of_six_hours = u64::from(plan.hours()).div_ceil(6);
    let window_records =
        args.window_records.unwrap_or_else(|| (size.views / of_six_hours / args.partitions as u64).clamp(1, 4_194_304));
    let fresh = State {
        format: 1,
        month: plan.month().to_string(),
        seed: args.seed,
        size,
        partitions: args.partitions,
        window_records,
        name: format!("{:016x}", unique()),
    };
    let (state, resumed) = State::resume_or_begin(args.state.as_deref(), fresh)?;
    let kafka_port = args.kafka_bootstrap.split(',').next().and_then(|b| b.rsplit_once(':')?.1.trim().parse().ok());
    let servers = Servers {
        kafka: args.kafka_pid.or_else(|| listener_pid(kafka_port?)),
        clickhouse: args.clickhouse_pid.or_else(|| listener_pid(clickhouse_port)),
    };
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe().context("finding the running executable")?,
    };
    let run = Run {
        kafka: Kafka {
            bootstrap: args.kafka_bootstrap.clone(),
            topic: state.topic(),
            partitions: args.partitions,
            clickhouse_url: args.clickhouse_url.clone(),
            binary,
            within: Duration::from_secs(u64::from(args.seconds)),
        },
        database: Database::new(&args.clickhouse_url, state.database()),
        progress: Arc::new(Progress::default()),
        plan,
        args,
        state,
        resumed,
        servers,
    };
    let outcome = tokio::select! {
        outcome = run.all() => outcome,
        () = interrupted(&run.progress) => Err(anyhow::anyhow!("interrupted twice: not even a report")),
    };
    let unfinished = matches!(&outcome, Ok(false)) && run.args.state.is_some();
    if run.args.keep || unfinished {
        println!("topic {} and database {} are left behind", run.kafka.topic, run.database.name);
        if unfinished {
            println!("the same command goes on from here");
        }
    } else {
        run.database.remove().await;
        topic::remove(&run.kafka.bootstrap, &run.kafka.topic, &[run.state.group()]).await;
        if let Some(path) = &run.args.state {
            let _ = std::fs::remove_file(path);
        }
    }
    outcome.map(drop)
}

/// The first Ctrl-C asks for an early end with a report; this returns at the second.
async fn interrupted(progress: &Progress) {
    let _ = tokio::signal::ctrl_c().await;
    progress.stop.store(true, Ordering::Relaxed);
    eprintln!("stopping: what was sent is counted and reported (Ctrl-C again: at once)");
    let _ = tokio::signal::ctrl_c().await;
}

struct Run {
    args: MonthArgs,
    plan: Arc<Plan>,
    state: State,
    resumed: bool,
    kafka: Kafka,
    database: Database,
    servers: Servers,
    progress: Arc<Progress>,
}

impl Run {
    /// The whole run. Says whether all of the month was driven.
    async fn all(&self) -> anyhow::Result<bool> {
        if !self.resumed {
            topic::make(&self.kafka.bootstrap, &self.kafka.topic, self.kafka.partitions).await?;
        }
        for pid in [self.servers.kafka, self.servers.clickhouse].into_iter().flatten() {
            forget_peak(pid);
        }
        let (mut aggregators, startup_seconds) = self.start_aggregators().await?;
        let reading = self.start_reading().await?;
        let (begun, before) = (Instant::now(), self.servers.cpu(&aggregators)?);
        let (produced, days) = self.drive(&mut aggregators, begun).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = self.servers.cpu(&aggregators)?.since(&before);
        let reports = match reading {
            Some(reading) => Some(reading.end().await?),
            None => None,
        };
        let mut rows_written = 0;
        for role in &aggregators {
            rows_written += role.figure("rows_total").await?;
        }
        let peaks = self.servers.peaks(&aggregators)?;
        let (rest_seconds, rest_cpu) = self.rest().await?;
        let ledger = format!("SELECT count() FROM {}.ledger FINAL", self.database.name);
        let counted = Counted {
            startup_seconds,
            seconds,
            producing_seconds: produced.seconds,
            waited_seconds: produced.waited_seconds,
            before: produced.before,
            cpu,
            peaks,
            rows_written,
            topic_bytes: produced.wire_bytes,
            windows: self.database.number(&ledger).await?,
            rest_seconds,
            rest_cpu,
        };
        let open_tables = tables(&self.database).await?;
        let check = Check {
            plan: &self.plan,
            truth: &produced.truth,
            database: &self.database,
            window_records: self.state.window_records,
        };
        // What is wrong is told beside all that was measured: a long run is not lost with it.
        let mut wrong = Vec::new();
        let open = check.open().await.context("comparing the open month with the truth");
        let open = open.unwrap_or_else(|error| {
            wrong.push(format!("{error:#}"));
            Checked::default()
        });
        if let Some(Probed { failed, asked, first_failure: Some(first), .. }) = &reports {
            wrong.push(format!("{failed} of {asked} reports were not answered; the first: {first}"));
        }
        let complete = produced.complete && self.hours() == self.plan.hours();
        let (aggregators, replayed) = self.replay(aggregators, produced.truth.records + produced.truth.tallies).await?;
        for role in aggregators {
            role.stop().await?;
        }
        let (mut closed_tables, mut closed) = (None, None);
        if complete && !self.args.no_close {
            closed_tables = Some(self.close().await?);
            match check.closed().await.context("comparing the closed month with the truth") {
                Ok(checked) => closed = Some(checked),
                Err(error) => wrong.push(format!("{error:#}")),
            }
        }
        let mut result = MonthResult {
            format: 1,
            machine: Machine::this(),
            setting: self.setting(),
            complete,
            counted,
            days,
            open_tables,
            open,
            replayed: Some(replayed),
            closed_tables,
            closed,
            reports,
            projections: Vec::new(),
            remarks: remarks(&produced, self.state.window_records),
            wrong,
            truth: produced.truth,
        };
        let peak = self.plan.rhythms[self.plan.rhythms.len() - 1].peak();
        result.projections = self.args.project.iter().map(|views| project(&result, views.0, peak)).collect();
        self.tell(&result)?;
        ensure!(result.wrong.is_empty(), "{} of the figures are wrong; see above", result.wrong.len());
        let strayed = [Some(&result.open), result.closed.as_ref()].into_iter().flatten();
        let strayed = strayed.flat_map(|checked| &checked.accuracy).filter(|class| !class.holds).count();
        ensure!(
            strayed == 0,
            "estimates of visitors stray further than theory allows in {strayed} classes of projects"
        );
        Ok(produced.complete)
    }

    fn hours(&self) -> u32 {
        self.args.days.map_or(self.plan.hours(), |days| (days * 24).min(self.plan.hours()))
    }

    fn setting(&self) -> Setting {
        let hours = self.progress.hours.load(Ordering::Relaxed);
        Setting {
            month: self.plan.month().to_string(),
            size: self.plan.size(),
            seed: self.args.seed,
            days: hours / 24,
            partitions: self.args.partitions,
            aggregators: self.args.aggregators,
            window_records: self.state.window_records,
            windows_of_six_hours: u64::from(hours).div_ceil(6) * self.args.partitions as u64,
            ahead: self.args.ahead,
        }
    }

    async fn start_aggregators(&self) -> anyhow::Result<(Vec<Role>, f64)> {
        let begun = Instant::now();
        // In the month's last hour, so that none of them closes it before its time.
        let clock = schemas::Hour(self.plan.month().end_hour().0 - 1).start().to_rfc3339();
        let window = self.state.window_records.to_string();
        let more = ["--clock-start", &clock, "--window-records", &window];
        let mut all = Vec::new();
        for _ in 0..self.args.aggregators {
            all.push(aggregators::start(&self.kafka, &self.state.group(), &self.database.name, &more)?);
        }
        loop {
            for role in &mut all {
                role.alive()?;
                if role.has_joined().await {
                    return Ok((all, begun.elapsed().as_secs_f64()));
                }
            }
            ensure!(begun.elapsed() < PATIENCE, "no aggregator joined its group within {} s", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn start_reading(&self) -> anyhow::Result<Option<Reading>> {
        let Some(rate) = self.args.report_probe else { return Ok(None) };
        probe::register(&self.plan, &self.database).await?;
        // The probe is one client that asks for more than one may.
        let arguments = ["--clickhouse-database", &self.database.name, "--report-rate", "0"].map(str::to_owned);
        let mut role = Role::start(&self.kafka.binary, "query", &self.kafka.clickhouse_url, &arguments)?;
        let begun = Instant::now();
        while !role.get("/readyz").await.is_ok_and(|body| body.contains(r#""ready":true"#)) {
            role.alive()?;
            ensure!(begun.elapsed() < PATIENCE, "the query service was not ready within {} s", PATIENCE.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let readers = probe::Readers::new(&self.plan, role.port, rate, self.args.token.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = tokio::spawn(async move { readers.ask(&stopped).await });
        Ok(Some(Reading { role, stop, asking }))
    }

    /// Sends the month and looks until all of it is counted.
    async fn drive(
        &self,
        aggregators: &mut [Role],
        begun: Instant,
    ) -> anyhow::Result<(Produced, Vec<super::watch::Sample>)> {
        let before = self.servers.cpu(aggregators)?;
        let (bootstrap, topic, partitions) =
            (self.kafka.bootstrap.clone(), self.kafka.topic.clone(), self.kafka.partitions);
        let there = tokio::task::block_in_place(|| topic::ends(&bootstrap, &topic, partitions))?;
        let job = Job { bootstrap, topic, there, hours: self.hours(), ahead: self.args.ahead };
        let (plan, progress) = (Arc::clone(&self.plan), Arc::clone(&self.progress));
        let producing = std::thread::spawn(move || {
            let outcome = produce(&plan, &job, &progress);
            if outcome.is_err() {
                progress.stop.store(true, Ordering::Relaxed);
            }
            outcome
        });
        let expected = self.plan.size().views * u64::from(self.hours()) / u64::from(self.plan.hours());
        let bar = bar(expected);
        let watcher =
            Watcher { database: &self.database, servers: self.servers, before, begun, within: self.kafka.within };
        // What was sent is all once the sender has ended.
        let all = || producing.is_finished().then(|| self.progress.sent.load(Ordering::Relaxed));
        let watched = watcher.watch(aggregators, &self.progress, all, |counted| bar.set_position(counted)).await;
        self.progress.stop.store(true, Ordering::Relaxed);
        bar.finish_and_clear();
        let produced = tokio::task::block_in_place(|| producing.join());
        let produced = produced.map_err(|_| anyhow::anyhow!("the sending thread panicked"))?.context("sending")?;
        Ok((produced, watched?))
    }

    /// Waits until ClickHouse's merges have ended, and says how long that was and what it cost.
    async fn rest(&self) -> anyhow::Result<(f64, f64)> {
        let cpu = || self.servers.clickhouse.map(cpu_seconds).transpose();
        let (begun, before) = (Instant::now(), cpu()?);
        let mut busy = begun;
        while busy.elapsed() < QUIET && begun.elapsed() < REST {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.database.merges().await? > 0 {
                busy = Instant::now();
            }
        }
        let spent = cpu()?.zip(before).map_or(0.0, |(now, then)| now - then);
        Ok((busy.duration_since(begun).as_secs_f64(), spent))
    }

    /// Stops the aggregators and starts others: how long until they are where these were.
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
                begun.elapsed() < PATIENCE,
                "after {} s only {folded} records of {records} were folded",
                PATIENCE.as_secs()
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
            .args(["close", "--month", &month, "--clock-start", &clock, "--log", "error"])
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

    fn tell(&self, result: &MonthResult) -> anyhow::Result<()> {
        print!("{}", text::render(result));
        if let Some(path) = &self.args.json {
            let text = serde_json::to_string_pretty(result)? + "\n";
            std::fs::write(path, text).with_context(|| format!("writing the figures to {}", path.display()))?;
        }
        if let Some(path) = &self.args.html {
            std::fs::write(path, html::render(result))
                .with_context(|| format!("writing the page to {}", path.display()))?;
        }
        Ok(())
    }
}

/// A reader of reports, and the service that answers.
struct Reading {
    role: Role,
    stop: Arc<AtomicBool>,
    asking: tokio::task::JoinHandle<anyhow::Result<probe::Probed>>,
}

impl Reading {
    async fn end(self) -> anyhow::Result<probe::Probed> {
        self.stop.store(true, Ordering::Relaxed);
        let probed = self.asking.await.context("reading reports")??;
        self.role.stop().await?;
        Ok(probed)
    }
}

/// On a terminal only; elsewhere nothing is drawn.
fn bar(expected: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of about {human_len} records, {per_sec}, {eta} left");
    let bar = ProgressBar::new(expected);
    if let Ok(style) = style { bar.with_style(style) } else { bar }
}

fn remarks(produced: &Produced, window_records: u64) -> Vec<String> {
    let mut remarks = vec![
        "All ran on one machine: sender, broker, aggregators and ClickHouse share its processors. Memory is the peak of what was \
         resident; of ClickHouse it includes the pages of its program that were touched."
            .to_owned(),
        "B/view day by day is with parts that are not merged yet; the tables below it are at rest.".to_owned(),
    ];
    if window_records < SMALL_WINDOW {
        remarks.push(format!(
            "Windows of {window_records} records are as many as a month has, in some minutes: most of the time goes into their inserts, \
             which a month has hours for. For the rate of a backlog give --window-records."
        ));
    }
    if produced.before > 0 {
        remarks.push(format!(
            "An earlier run had sent {} records: seconds, processor time and rows written are of this run only, so figures for each \
             view are too low.",
            text::grouped(produced.before)
        ));
    }
    if !produced.complete {
        remarks.push("The run was ended early; what was sent until then was counted and compared.".to_owned());
    }
    remarks
}
