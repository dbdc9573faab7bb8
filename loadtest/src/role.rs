//! A role of headcount as a child process of the load test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Interval between two checks whether a process is ready.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a process may take to stop after a signal.
const STOP: Duration = Duration::from_secs(60);

/// A running role, which ends when this value is dropped.
#[derive(Debug)]
pub struct Role {
    name: &'static str,
    child: Child,
    /// Its process id.
    pub pid: u32,
    /// Its port on loopback.
    pub port: u16,
    /// Its port for the operator.
    metrics: u16,
}

/// A port that was free a moment ago: no other process is likely to take it before the child does.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("looking for a free port")?.port())
}

/// A command of `binary` without the settings in this process's environment. It is in a separate process group: Ctrl-C in a terminal reaches the load
/// test only, which decides what ends when. ClickHouse's URL is not an argument, because an embedded engine's URL is its password.
#[must_use]
pub fn command(binary: &Path, clickhouse_url: &str) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        // The path of the engine's library depends on the machine.
        if name.to_string_lossy().starts_with("HEADCOUNT_") && name != "HEADCOUNT_CLICKHOUSE_LIBRARY" {
            command.env_remove(name);
        }
    }
    // One project gets all the load; a flag overrides this.
    command.env("HEADCOUNT_PROJECT_RATE", "0");
    command.env("HEADCOUNT_CLICKHOUSE_URL", clickhouse_url).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    command
}

impl Role {
    /// Starts `binary NAME` with these arguments on a free port.
    ///
    /// # Errors
    /// When the process does not start.
    pub fn start(
        binary: &Path,
        name: &'static str,
        clickhouse_url: &str,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let (port, metrics) = (free_port()?, free_port()?);
        let (listen, operator) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{metrics}"));
        let child = command(binary, clickhouse_url)
            .args([name, "--listen", &listen, "--metrics-listen", &operator, "--log", "error"])
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {} {name}", binary.display()))?;
        let pid = child.id().with_context(|| format!("headcount {name} has already ended"))?;
        Ok(Self { name, child, pid, port, metrics })
    }

    /// The body of an answer to GET.
    ///
    /// # Errors
    /// When it does not listen (yet), or hangs up.
    pub async fn get(&self, path: &str) -> anyhow::Result<String> {
        get(self.port, path).await
    }

    /// Waits until it is ready and its details on the operator's listener contain `detail`.
    ///
    /// # Errors
    /// It ends, or is not ready within `patience`.
    pub async fn until_ready(&mut self, detail: &str, patience: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let ready = get(self.metrics, "/readyz").await;
            if ready.is_ok_and(|body| body.contains(r#""ready":true"#) && body.contains(detail)) {
                return Ok(());
            }
            self.alive()?;
            ensure!(
                begun.elapsed() < patience,
                "headcount {} was not ready within {} s, or did not say {detail}",
                self.name,
                patience.as_secs()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Whether an aggregator's group has admitted it. Before it listens there is no response.
    pub async fn has_joined(&self) -> bool {
        get(self.metrics, "/readyz").await.is_ok_and(|body| body.contains(r#""group":"joined""#))
    }

    /// A figure of `/metrics`: the sum over all metrics whose names end with `name`, and over their labels.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn figure(&self, name: &str) -> anyhow::Result<u64> {
        let metrics =
            get(self.metrics, "/metrics").await.with_context(|| format!("asking {} for its metrics", self.name))?;
        let of = metrics.lines().filter(|line| line.starts_with("headcount_") && line.contains(name));
        Ok(of.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Checks that it is running.
    ///
    /// # Errors
    /// It has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().with_context(|| format!("looking after headcount {}", self.name))? {
            Some(status) => bail!("headcount {} ended with {status}; its own words are above", self.name),
            None => Ok(()),
        }
    }

    /// Signals it to stop and waits until it has ended.
    ///
    /// # Errors
    /// It does not end within a minute, or ends with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let status = end(&mut self.child, self.name).await?;
        ensure!(status.success(), "headcount {} ended with {status}", self.name);
        Ok(())
    }
}

/// Signals a process to stop and waits until it has ended.
///
/// # Errors
/// It does not end within a minute.
pub async fn end(child: &mut Child, name: &str) -> anyhow::Result<ExitStatus> {
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let pid = pid.with_context(|| format!("{name} has already ended"))?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        .with_context(|| format!("asking {name} to stop"))?;
    let status = tokio::time::timeout(STOP, child.wait()).await;
    Ok(status.with_context(|| format!("waiting for {name} to stop"))??)
}

/// An answer to GET.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its HTTP status.
    pub status: u16,
    head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the service's cache had it (`Cache-Status`, RFC 9211).
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.head.lines().any(|line| line.starts_with("cache-status: headcount; hit"))
    }
}

/// The body of an answer on a port of this machine, whatever its status.
async fn get(port: u16, path: &str) -> anyhow::Result<String> {
    String::from_utf8(answer(port, path, "").await?.body).context("an answer is no text")
}

/// An answer on a port of this machine. `headers` are lines that end with CR LF.
///
/// # Errors
/// When nothing listens, the connection breaks, or the answer is no HTTP.
pub async fn answer(port: u16, path: &str, headers: &str) -> anyhow::Result<Answer> {
    answer_for("127.0.0.1", port, path, headers).await
}

/// The same, with another `Host`.
///
/// # Errors
/// As of [`answer`].
pub async fn answer_for(host: &str, port: u16, path: &str, headers: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("an answer is no HTTP")?;
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer has no status")?;
    Ok(Answer { status, head, body })
}
