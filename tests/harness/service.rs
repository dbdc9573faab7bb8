//! `headcount serve` as a separate process: started, queried, killed, stopped.

use crate::http;
use crate::process::{Process, free_address};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

/// Time limit of each step of a story. Generous: machines under test are busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until `ask` returns a value; a failure includes the last state.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("waited {} s for {what}", PATIENCE.as_secs())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The binary under test: `$HEADCOUNT_BIN`, else the one built beside this test.
pub fn binary() -> Result<PathBuf> {
    program("headcount")
}

/// The load test's binary, which is beside [`binary`].
pub fn loadtest() -> Result<PathBuf> {
    program("headcount-loadtest")
}

fn program(name: &str) -> Result<PathBuf> {
    let path = match std::env::var_os("HEADCOUNT_BIN") {
        Some(path) => PathBuf::from(path).with_file_name(name),
        None => {
            let test = std::env::current_exe()?;
            let profile = test.parent().and_then(Path::parent).context("a test lives in target/PROFILE/deps")?;
            profile.join(name)
        }
    };
    ensure!(path.exists(), "{} is missing; run `cargo build --workspace --bins`, or scripts/test", path.display());
    Ok(path)
}

/// A service with a separate data directory.
pub struct Service {
    directory: TempDir,
    address: SocketAddr,
    metrics: SocketAddr,
    process: Process,
    /// The token for reading reports, if a story's projects are not public.
    reader: OnceLock<String>,
}

impl Service {
    /// A service that is not started yet, on a free port, with further arguments for `serve`.
    pub fn new(arguments: &[&str]) -> Result<Self> {
        let (directory, address) = (TempDir::with_prefix("headcount-story-")?, free_address()?);
        let metrics = free_address()?;
        let (program, data) = (binary()?.display().to_string(), directory.path().join("data").display().to_string());
        // A story may limit the size of files; then a write has to fail, not the process.
        let own = ["--ignore-signal=XFSZ", &program, "serve", "--flush-ms", "300", "--data", &data, "--listen"];
        let own = own.into_iter().map(str::to_owned).chain([address.to_string()]);
        let all = own.chain(arguments.iter().map(|&argument| argument.to_owned())).collect();
        let mut process = Process::new("the service", Path::new("env"), all, directory.path().join("log"));
        // Stories repeat requests until something has happened; those about limits set a flag.
        process.variable("HEADCOUNT_REPORT_RATE", "0");
        // Stories send faster to one project than any site; those about limits set a flag.
        process.variable("HEADCOUNT_PROJECT_RATE", "0");
        process.variable("HEADCOUNT_METRICS_LISTEN", &metrics.to_string());
        Ok(Service { directory, address, metrics, process, reader: OnceLock::new() })
    }

    /// A started service with these projects, each (slug, host).
    pub async fn started(arguments: &[&str], projects: &[(&str, &str)]) -> Result<Self> {
        let mut service = Service::new(arguments)?;
        service.start(&[]).await?;
        service.register(projects).await?;
        Ok(service)
    }

    /// Its listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listen address for its operator.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// The content of `/readyz` of the operator's listener, whatever its status.
    pub async fn state(&self) -> Result<Value> {
        http::get(self.metrics, "/readyz").await?.json()
    }

    /// `http://ADDRESS` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(&mut self, more: &[&str]) -> Result<()> {
        self.process.spawn(more)?;
        self.process.wait_ready(self.address, "/readyz").await
    }

    /// Runs a headcount command beside the service, which must succeed, and returns its output.
    pub async fn done(&self, command: &[&str]) -> Result<String> {
        let mut process = Command::new(binary()?);
        process.args(command).arg("--data").arg(self.data()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, process.output()).await;
        let output = output.with_context(|| format!("{command:?} does not end"))??;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A new token, of a project or of an administrator.
    pub async fn token(&self, project: Option<&str>) -> Result<String> {
        let opens = project.map_or_else(|| vec!["--admin"], |project| vec!["--project", project]);
        Ok(self.done(&[&["token", "create"], opens.as_slice()].concat()).await?.trim().to_owned())
    }

    /// Grants this story access to all reports, by an administrator's token.
    pub async fn read_as_admin(&self) -> Result<()> {
        let token = self.token(None).await?;
        eventually("the token to be in force", async || {
            let answer = http::get_as(self.address, "/v1/projects/any/reports/none", &token).await?;
            ensure!(answer.status != 401, "{}", answer.status);
            Ok(())
        })
        .await?;
        let _ = self.reader.set(token);
        Ok(())
    }

    /// Registers projects with public reports, and waits until the endpoint knows all projects and the reports are accessible.
    pub async fn register(&self, projects: &[(&str, &str)]) -> Result<()> {
        for (slug, host) in projects {
            self.done(&["project", "add", slug, "--host", host, "--public"]).await?;
        }
        for (slug, _) in projects {
            self.opened(slug).await?;
        }
        let count = projects.len() as u64;
        eventually("the projects to be known", async || {
            let ready = self.state().await?;
            ensure!(ready["projects"].as_u64() >= Some(count), "{ready}");
            Ok(())
        })
        .await
    }

    /// Waits until a project's reports are public.
    pub async fn opened(&self, project: &str) -> Result<()> {
        crate::roles::opened(self.address, project).await
    }

    /// Limits the size of files that the running process may write, or lifts the limit: a disk that is full.
    pub async fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        let pid = self.pid().context("the service runs")?.to_string();
        let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={limit}:")]).status().await?;
        ensure!(set.success(), "prlimit failed");
        Ok(())
    }

    /// `kill -9`, and nothing else.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// SIGTERM; the service must end with success.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }

    /// Starts the process without waiting for it.
    pub fn spawn(&mut self, more: &[&str]) -> Result<()> {
        self.process.spawn(more)
    }

    /// Waits for the end of the running process, which must be an error that names the cause.
    pub async fn ended_with_an_error(&mut self, cause: &str) -> Result<()> {
        let status = self.process.ended().await?;
        let log = self.log();
        ensure!(!status.success() && log.contains(cause), "the service ended with {status}\n{log}");
        Ok(())
    }

    /// Starts the process, which must end by itself and with an error. Returns its output.
    pub async fn refused(&mut self, more: &[&str]) -> Result<String> {
        let before = self.log().len();
        self.process.spawn(more)?;
        let status = self.process.ended().await?;
        let log = self.log().split_off(before);
        ensure!(!status.success(), "the service ended with {status}\n{log}");
        Ok(log)
    }

    /// SIGHUP; the service must end with success.
    pub async fn hang_up(&mut self) -> Result<()> {
        self.process.signal("HUP")?;
        let status = self.process.ended().await?;
        ensure!(status.success(), "the service ended with {status}\n{}", self.log());
        Ok(())
    }

    /// The JSON output of a headcount command about this data directory, whether the service runs or not.
    pub async fn told(&self, command: &[&str]) -> Result<Value> {
        let mut process = Command::new(binary()?);
        process.args(command).args(["--format", "json", "--data"]).arg(self.data()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, process.output()).await;
        let output = output.with_context(|| format!("{command:?} does not end"))??;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// A month's current report with up to 1,000 pages: a story that counts must not get a cached one.
    pub async fn report(&self, project: &str, month: &str) -> Result<Value> {
        let path = format!("/v1/projects/{project}/reports/{month}?pages_limit=1000");
        let authorization = self.reader.get().map(|token| format!("Bearer {token}"));
        let mut headers = vec![("cache-control", "no-cache")];
        headers.extend(authorization.as_ref().map(|value| ("authorization", value.as_str())));
        let answer = http::Connection::open(self.address).await?.send("GET", &path, &headers, "").await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Waits until a project's month has exactly `views` views, in its total and in the sum of its pages. A report requested during a flush may have
    /// newer totals than pages; more than `views` is an error immediately.
    pub async fn counted(&self, project: &str, month: &str, views: u64) -> Result<Value> {
        let report = eventually(&format!("{views} views of {project} in {month}"), async || {
            let report = self.report(project, month).await?;
            let found = report["totals"]["views"].as_u64().context("totals.views")?;
            let pages = report["pages"]["items"].as_array().context("pages.items")?;
            let of_pages: u64 = pages.iter().filter_map(|page| page["views"].as_u64()).sum();
            ensure!(found >= views && of_pages >= views, "{found} views so far, {of_pages} of pages");
            Ok(report)
        })
        .await?;
        ensure!(report["totals"]["views"] == views, "counted too much: {}", report["totals"]);
        Ok(report)
    }

    /// The URL of the running ClickHouse.
    pub fn clickhouse_url(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.data().join("clickhouse").join("engine.json"))?;
        let engine: Value = serde_json::from_str(&text)?;
        Ok(engine["url"].as_str().context("engine.json has a url")?.to_owned())
    }

    /// A client of the running ClickHouse.
    pub fn clickhouse(&self) -> Result<clickhouse::Client> {
        Ok(clickhouse::Client::default().with_url(self.clickhouse_url()?).with_database("headcount"))
    }
}
