//! The system under test: `headcount aggregate` as processes of one group, from an empty group and an empty database.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::command::Setting;
use super::database::Database;
use crate::cpu::{cpu_seconds, peak_bytes};

/// How often an aggregator is asked whether the group has given it partitions: also the error of that moment.
const LOOK: Duration = Duration::from_millis(10);
/// How often the ledger is read: also the error of the end.
const LEDGER: Duration = Duration::from_millis(100);
/// How long a process may take to stop when asked to.
const STOP: Duration = Duration::from_secs(30);

/// What a run of aggregators saw.
#[derive(Debug, Clone, Copy)]
pub struct Aggregated {
    /// From the processes' start to the first one's first assignment.
    pub startup_seconds: f64,
    /// From the first assignment until the ledger had everything.
    pub seconds: f64,
    /// Of all processes, until the ledger had everything, their start included.
    pub cpu_seconds: f64,
    /// Peak resident memory of all processes together.
    pub peak_bytes: u64,
    /// Rows sent to ClickHouse, replaced ones included.
    pub rows_written: u64,
}

struct Aggregator {
    child: Child,
    pid: u32,
    port: u16,
}

impl Aggregator {
    fn start(setting: &Setting, binary: &Path, group: &str, database: &str) -> anyhow::Result<Self> {
        // Freed at once and taken again by the child; nobody else is likely to pick it in between.
        let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
        let port = listener.local_addr().context("looking for a free port")?.port();
        drop(listener);
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HEADCOUNT_") {
                command.env_remove(name);
            }
        }
        let child = command
            .args(["aggregate", "--listen", &format!("127.0.0.1:{port}"), "--log", "error"])
            .args(["--kafka-bootstrap", &setting.bootstrap, "--kafka-topic", &setting.topic, "--kafka-group", group])
            .args(["--clickhouse-database", database])
            // Not an argument: an embedded engine's URL is its password.
            .env("HEADCOUNT_CLICKHOUSE_URL", &setting.clickhouse_url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {} aggregate", binary.display()))?;
        let pid = child.id().context("the aggregator has already ended")?;
        Ok(Self { child, pid, port })
    }

    /// The body of an answer to GET.
    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    async fn has_joined(&self) -> bool {
        // Until it listens there is no answer.
        self.get("/readyz").await.is_ok_and(|body| body.contains(r#""group":"joined""#))
    }

    async fn rows(&self) -> anyhow::Result<u64> {
        let metrics = self.get("/metrics").await.context("asking an aggregator for its metrics")?;
        let rows = metrics.lines().filter(|line| line.starts_with("headcount_") && line.contains("rows_total"));
        Ok(rows.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("looking after an aggregator")? {
            Some(status) => bail!("an aggregator ended with {status}; its own words are above"),
            None => Ok(()),
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw).context("a process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("asking an aggregator to stop")?;
        let status =
            tokio::time::timeout(STOP, self.child.wait()).await.context("waiting for an aggregator to stop")??;
        ensure!(status.success(), "an aggregator ended with {status}");
        Ok(())
    }
}

/// Runs `count` aggregators until the ledger has counted `records`, and stops them.
///
/// # Errors
/// When one does not start, ends by itself, or the ledger is not complete in time.
pub async fn measure(
    setting: &Setting,
    count: u32,
    group: &str,
    database: &Database,
    records: u64,
) -> anyhow::Result<Aggregated> {
    let begun = Instant::now();
    let deadline = begun + setting.within;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Aggregator::start(setting, &setting.binary, group, &database.name)?);
    }
    let assigned = 'joined: loop {
        for aggregator in &mut all {
            aggregator.alive()?;
            if aggregator.has_joined().await {
                break 'joined Instant::now();
            }
        }
        ensure!(Instant::now() < deadline, "no aggregator joined its group within {} s", setting.within.as_secs());
        tokio::time::sleep(LOOK).await;
    };
    let counted = format!("SELECT sum(next_offset - window_start) FROM {}.ledger FINAL", database.name);
    let mut last = 0;
    while last < records {
        tokio::time::sleep(LEDGER).await;
        all.iter_mut().try_for_each(Aggregator::alive)?;
        last = database.number(&counted).await?;
        ensure!(
            Instant::now() < deadline,
            "after {} s the ledger has counted {last} of {records} records",
            setting.within.as_secs()
        );
    }
    let seconds = assigned.elapsed().as_secs_f64();
    ensure!(last == records, "the ledger has counted {last} records, the topic has {records}");
    let mut seen = Aggregated {
        startup_seconds: assigned.duration_since(begun).as_secs_f64(),
        seconds,
        cpu_seconds: 0.0,
        peak_bytes: 0,
        rows_written: 0,
    };
    for aggregator in &all {
        seen.cpu_seconds += cpu_seconds(aggregator.pid)?;
        seen.peak_bytes += peak_bytes(aggregator.pid)?;
    }
    for aggregator in &all {
        seen.rows_written += aggregator.rows().await?;
    }
    for aggregator in all {
        aggregator.stop().await?;
    }
    Ok(seen)
}
