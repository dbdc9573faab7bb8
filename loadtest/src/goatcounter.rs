//! GoatCounter, unmodified, on SQLite: as a child process of the load test, with one site.
//!
//! It acknowledges a beacon when the view is in its memory, and writes the views every ten seconds (`-store-every`). Acknowledged views that are not
//! written are lost with the process. It closes the connection after each beacon. By default it stores no row per view; `hit_counts` has the first
//! view of a page in each session, so that is what can be compared.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::role::{answer_for, end, free_port};
use crate::service::{Directory, disk_bytes};
use crate::target::Target;

/// The site's host. It is never resolved.
pub const HOST: &str = "stats.example.org";
/// Build instructions, if it is missing. It is built in a separate module, whose checksums are those of its release.
pub const HOW: &str = "Go 1.25 or newer builds it (package golang-go, or https://go.dev/dl):\n  \
    go mod download zgo.at/goatcounter/v2@v2.7.0\n  \
    cp -r --no-preserve=mode \"$(go env GOMODCACHE)/zgo.at/goatcounter/v2@v2.7.0\" target/goatcounter-src\n  \
    (cd target/goatcounter-src && go build -o ../goatcounter ./cmd/goatcounter)";
const WAIT_TIMEOUT: Duration = Duration::from_secs(90);

/// A running GoatCounter, which ends when this value is dropped.
#[derive(Debug)]
pub struct GoatCounter {
    child: Child,
    binary: PathBuf,
    database: String,
    token: String,
    /// Its process id.
    pub pid: u32,
    port: u16,
    directory: Directory,
}

impl GoatCounter {
    /// Starts it with a fresh database. Its flag raises its limits of four views a second from one reader, and of its API; everything else is at its
    /// default.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(binary: &Path) -> anyhow::Result<Self> {
        ensure!(binary.exists(), "there is no GoatCounter at {}. {HOW}", binary.display());
        let directory = Directory::new()?;
        let database = format!("sqlite+{}", directory.path().join("goatcounter.sqlite3").display());
        let once = async |arguments: &[&str]| {
            let command = Command::new(binary).args(arguments).args(["-db", &database]).stdin(Stdio::null()).output();
            let output = command.await.with_context(|| format!("starting {}", binary.display()))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "goatcounter {arguments:?} ended with {}: {said}", output.status);
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let site = ["-vhost", HOST, "-user.email", "load@example.org", "-user.password", "no secret at all"];
        once(&[&["db", "create", "site", "-createdb"][..], &site].concat()).await?;
        once(&["db", "create", "apitoken", "-name", "load", "-user", "1", "-perm", "site_read"]).await?;
        // Reading figures is the one permission that its command does not grant; its settings page would write the same.
        once(&["db", "query", "update api_tokens set permissions = permissions | 64"]).await?;
        let shown = once(&["db", "show", "apitoken", "-find", "1"]).await?;
        let token = shown.lines().find_map(|line| line.strip_prefix("token ")).context("goatcounter shows no token")?;
        let port = free_port()?;
        let child = Command::new(binary)
            .args(["serve", "-db", &database, "-listen", &format!("127.0.0.1:{port}"), "-tls", "http", "-automigrate"])
            .args(["-ratelimit", "count:1000000/1,api:1000000/1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let pid = child.id().context("goatcounter has already ended")?;
        let token = token.trim().to_owned();
        let running = Self { child, binary: binary.to_owned(), database, token, pid, port, directory };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            ensure!(begun.elapsed() < WAIT_TIMEOUT, "goatcounter did not listen within {} s", WAIT_TIMEOUT.as_secs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(running)
    }

    /// The target of requests.
    #[must_use]
    pub fn target(&self) -> Target {
        Target::at(std::net::SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    /// The count in its tables: first views of a page in a session.
    async fn first_views(&self) -> anyhow::Result<u64> {
        let sql = "select coalesce(sum(total), 0) as n from hit_counts";
        let output = Command::new(&self.binary)
            .args(["db", "query", "-db", &self.database, "-format", "json", sql])
            .stdin(Stdio::null())
            .output()
            .await
            .context("asking goatcounter's database")?;
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("goatcounter said {}", String::from_utf8_lossy(&output.stderr)))?;
        rows[0]["n"].as_u64().context("goatcounter's database gives no number")
    }

    /// Waits until its tables have counted `expected` first views, or have not changed for half a minute. Returns the final count and the time until
    /// it was reached.
    ///
    /// # Errors
    /// Its database does not answer.
    pub async fn counted(&self, expected: u64) -> anyhow::Result<(u64, Duration)> {
        const STILL: Duration = Duration::from_secs(30);
        let begun = Instant::now();
        let (mut last, mut changed) = (self.first_views().await?, begun);
        while last < expected && changed.elapsed() < STILL {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.first_views().await?;
            if now != last {
                (last, changed) = (now, Instant::now());
            }
        }
        Ok((last, changed.duration_since(begun)))
    }

    /// Requests the figures that make up a report of the running month: the total, pages, referrers, browsers, systems, countries.
    ///
    /// # Errors
    /// A request is not answered.
    pub async fn report(&self) -> anyhow::Result<()> {
        for part in ["total", "hits", "toprefs", "browsers", "systems", "locations"] {
            let token = &self.token;
            let headers = format!("content-type: application/json\r\nauthorization: Bearer {token}\r\n");
            let status = answer_for(HOST, self.port, &format!("/api/v0/stats/{part}"), &headers).await?.status;
            ensure!(status == 200, "goatcounter answered {part} with {status}");
        }
        Ok(())
    }

    /// Bytes of its database.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(self.directory.path())
    }

    /// Stops it.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        end(&mut self.child, "goatcounter").await.map(drop)
    }
}
