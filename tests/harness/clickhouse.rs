//! A real ClickHouse for stories, as `headcount engine` runs it.

use crate::process::{Process, free_port};
use crate::service::binary;
use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::sync::Mutex;
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A separate engine: it may be killed, and restarts on the same URL.
pub struct Engine {
    process: Process,
    directory: TempDir,
    port: u16,
}

impl Engine {
    /// A started engine.
    pub async fn start() -> Result<Engine> {
        Self::start_with(None).await
    }

    /// A started engine with separate data, whose URL has the same path as another one's: a proxy may lead to either.
    pub async fn start_beside(other: &Engine) -> Result<Engine> {
        Self::start_with(Some(other.secret()?)).await
    }

    async fn start_with(secret: Option<String>) -> Result<Engine> {
        let directory = TempDir::with_prefix("headcount-engine-")?;
        let port = free_port()?;
        let data = directory.path().join("data");
        if let Some(secret) = secret {
            std::fs::create_dir_all(data.join("clickhouse"))?;
            std::fs::write(data.join("clickhouse/engine.secret"), secret)?;
        }
        let arguments = vec![
            "engine".to_owned(),
            "--data".to_owned(),
            data.display().to_string(),
            "--engine-port".to_owned(),
            port.to_string(),
            "--until-eof".to_owned(),
        ];
        let mut process = Process::new("the engine", &binary()?, arguments, directory.path().join("log"));
        // The stories use an engine from the library; a configured server must not be killed.
        process.variable("CLICKHOUSE_URL", "").variable("HEADCOUNT_CLICKHOUSE_URL", "");
        let mut engine = Engine { process, directory, port };
        engine.launch().await?;
        Ok(engine)
    }

    /// Starts the process again, with the data it has.
    pub async fn launch(&mut self) -> Result<()> {
        let noted = self.noted();
        let _ = std::fs::remove_file(&noted);
        self.process.spawn(&[])?;
        self.process
            .wait_until("the engine to answer", async || {
                ensure!(noted.exists(), "it has not said so yet");
                Ok(())
            })
            .await
    }

    fn noted(&self) -> PathBuf {
        self.directory.path().join("data").join("clickhouse").join("engine.json")
    }

    fn secret(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.directory.path().join("data/clickhouse/engine.secret"))?;
        Ok(text.trim().to_owned())
    }

    /// Its base URL, the same after each start.
    pub fn url(&self) -> Result<String> {
        self.url_at(self.port)
    }

    /// Its URL through a proxy on this port of loopback.
    pub fn url_at(&self, port: u16) -> Result<String> {
        Ok(format!("http://127.0.0.1:{port}/{}", self.secret()?))
    }

    /// The directory of its data.
    pub fn data(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The ClickHouse process itself.
    pub fn pid(&self) -> Result<u32> {
        let noted: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(self.noted())?)?;
        u32::try_from(noted["pid"].as_u64().context("engine.json has a pid")?).context("a pid")
    }

    /// Sends a signal to ClickHouse itself.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let sent =
            std::process::Command::new("kill").args([&format!("-{signal}"), &self.pid()?.to_string()]).status()?;
        ensure!(sent.success(), "cannot send SIG{signal} to ClickHouse");
        Ok(())
    }

    /// SIGKILL to ClickHouse; the process that holds it ends with it.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.process.ended().await?;
        Ok(())
    }

    /// Stops it gracefully.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }
}

/// Its URL, and the engine if this process started it; or why there is none.
type Shared = std::result::Result<(String, Option<Mutex<Engine>>), String>;

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// The server of `$CLICKHOUSE_URL`, or one engine for all stories of this process. No story may stop it. (ClickHouse ends with the standard input
/// that `headcount engine` holds, and `headcount engine` with that of this process.)
pub async fn shared() -> Result<String> {
    let made = SHARED
        .get_or_init(async || {
            if let Some(url) = std::env::var("CLICKHOUSE_URL").ok().filter(|text| !text.is_empty()) {
                return Ok((url, None));
            }
            let start = async {
                let engine = Engine::start().await?;
                Ok::<_, anyhow::Error>((engine.url()?, Some(Mutex::new(engine))))
            };
            start.await.map_err(|error| format!("{error:#}"))
        })
        .await;
    match made {
        Ok((url, _)) => Ok(url.clone()),
        Err(error) => bail!("no ClickHouse: {error}"),
    }
}
