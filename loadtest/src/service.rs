//! `headcount serve` as a child process of the load test: everything on one machine, with an embedded ClickHouse, one project and a separate
//! directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::cpu::{cpu_seconds, peak_bytes};
use crate::kafka::database::Database;
use crate::role::{Role, command};
use crate::target::Target;

/// How long it may take to start, and to know its project.
const WAIT_TIMEOUT: Duration = Duration::from_secs(90);
/// Longer than the service takes to count the records on disk.
const STILL: Duration = Duration::from_secs(10);
/// How long work in the background is waited for.
const REST: Duration = Duration::from_secs(300);
/// Between two checks of that.
const REST_CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// Processors that a service at rest may use.
const BUSY_SHARE: f64 = 0.2;
/// Interval between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A directory that is removed when this value is dropped.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Creates one in the system's directory for temporary files, which `TMPDIR` sets: scripts/load sets a separate one.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn new() -> anyhow::Result<Self> {
        let path =
            std::env::temp_dir().join(format!("headcount-loadtest-{:016x}", crate::kafka::kafka_command::unique()));
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The data directory of a service.
    fn data(&self) -> String {
        self.0.join("data").display().to_string()
    }

    /// The log of a service that has stopped.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("data/journal.redb")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Processes that were just killed may still write a last file.
        for _ in 0..20 {
            if std::fs::remove_dir_all(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        eprintln!("{} is left behind", self.0.display());
    }
}

/// A running service. Dropping this ends its processes and removes its directory.
#[derive(Debug)]
pub struct Service {
    role: Role,
    slug: String,
    /// ClickHouse's process.
    pub engine: Option<u32>,
    directory: Directory,
}

impl Service {
    /// Starts `binary serve` with this project, whose reports are public, and further settings; waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, or not in time.
    pub async fn start(binary: &Path, slug: &str, page_host: &str, settings: &[&str]) -> anyhow::Result<Self> {
        let mut service = Self::open(binary, Directory::new()?, settings).await?;
        let registered = command(binary, "")
            .args(["project", "add", slug, "--host", page_host, "--public", "--data", &service.directory.data()])
            .output()
            .await
            .context("starting headcount project add")?;
        let said = String::from_utf8_lossy(&registered.stderr);
        ensure!(registered.status.success(), "headcount project add ended with {}: {said}", registered.status);
        slug.clone_into(&mut service.slug);
        service.knows(1).await?;
        Ok(service)
    }

    /// Starts `binary serve` with the data in `directory`, if any, and further settings; waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, or not in time.
    pub async fn open(binary: &Path, directory: Directory, settings: &[&str]) -> anyhow::Result<Self> {
        let own = ["--data", &directory.data(), "--trusted-proxy", "127.0.0.1"];
        let arguments: Vec<String> = own.iter().chain(settings).map(|&argument| argument.to_owned()).collect();
        let mut role = Role::start(binary, "serve", "", &arguments)?;
        role.until_ready("", WAIT_TIMEOUT).await?;
        let mut service = Self { role, slug: String::new(), engine: None, directory };
        service.engine = service.noted()?["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        Ok(service)
    }

    /// Waits until its endpoint knows this many projects.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn knows(&mut self, projects: u32) -> anyhow::Result<()> {
        self.role.until_ready(&format!(r#""projects":{projects}"#), WAIT_TIMEOUT).await
    }

    /// The service's `engine.json`.
    fn noted(&self) -> anyhow::Result<serde_json::Value> {
        let noted = std::fs::read_to_string(self.directory.path().join("data/clickhouse/engine.json"));
        Ok(serde_json::from_str(&noted.context("reading where its ClickHouse is")?)?)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.role.port
    }

    /// The target of posts.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::at(std::net::SocketAddr::from(([127, 0, 0, 1], self.role.port)))
    }

    /// Peak resident memory of the service and of ClickHouse.
    ///
    /// # Errors
    /// It has ended.
    pub fn peaks(&self) -> anyhow::Result<(u64, Option<u64>)> {
        Ok((peak_bytes(self.role.pid)?, self.engine.map(peak_bytes).transpose()?))
    }

    /// Processor seconds of both so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        Ok(cpu_seconds(self.role.pid)? + self.engine.map(cpu_seconds).transpose()?.unwrap_or(0.0))
    }

    /// Bytes of its directory: journal and ClickHouse.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(self.directory.path())
    }

    /// A database in its ClickHouse: `headcount` is its own. The URL of its ClickHouse is its password too.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn database(&self, name: &str) -> anyhow::Result<Database> {
        let noted = self.noted()?;
        Ok(Database::new(noted["url"].as_str().context("its ClickHouse has no URL")?, name.to_owned()))
    }

    /// Waits until it and its ClickHouse need next to no processor time, five minutes at most.
    ///
    /// # Errors
    /// It has ended.
    pub async fn at_rest(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut before = self.cpu()?;
        while begun.elapsed() < REST {
            tokio::time::sleep(REST_CHECK_INTERVAL).await;
            let now = self.cpu()?;
            if now - before < BUSY_SHARE * REST_CHECK_INTERVAL.as_secs_f64() {
                break;
            }
            before = now;
        }
        Ok(())
    }

    /// Bytes of its journal.
    #[must_use]
    pub fn journal_bytes(&self) -> u64 {
        disk_bytes(&self.directory.journal())
    }

    /// The report of the running month.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn report(&self) -> anyhow::Result<serde_json::Value> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let month = schemas::Hour(u32::try_from(now.as_secs() / 3_600).unwrap_or(u32::MAX)).month();
        let body = self.role.get(&format!("/v1/projects/{}/reports/{month}", self.slug)).await?;
        serde_json::from_str(&body).context("the report is not JSON")
    }

    /// Waits until the report has `views` views by people, and returns how long that took. More views are an error.
    ///
    /// # Errors
    /// The report has too few views in time, or too many.
    pub async fn counted(&self, views: u64) -> anyhow::Result<Duration> {
        let (counted, took) = self.settled(views, views).await;
        ensure!(counted == views, "the report has {counted} views, {views} were accepted");
        Ok(took)
    }

    /// The report's views by people, and the time until they were reached. Waits for `most`, or for at least `accepted` and no change for `STILL`, or
    /// for the time limit. Beacons that were sent and not answered may or may not be counted, so the two bounds differ.
    pub async fn settled(&self, accepted: u64, most: u64) -> (u64, Duration) {
        let begun = Instant::now();
        let (mut last, mut changed) = (0, begun);
        loop {
            let told = self.report().await.ok().and_then(|report| report["totals"]["views"].as_u64());
            if let Some(told) = told.filter(|told| *told != last) {
                (last, changed) = (told, Instant::now());
            }
            let settled = last >= most || (last >= accepted && changed.elapsed() >= STILL);
            if settled || begun.elapsed() >= WAIT_TIMEOUT {
                return (last, changed - begun);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops it; its data remain in the directory.
    ///
    /// # Errors
    /// It does not stop, or ends with an error.
    pub async fn stop(self) -> anyhow::Result<Directory> {
        self.role.stop().await?;
        Ok(self.directory)
    }
}

/// Bytes that a file, or all files below a directory, take on disk.
#[must_use]
pub fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.blocks() * 512;
    }
    std::fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| disk_bytes(&entry.path())).sum())
}
