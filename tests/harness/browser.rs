//! A real browser: headless Chromium, controlled through the Chrome DevTools Protocol.
//!
//! One [`Browser`] is one process with a separate profile, which is removed when the value is dropped. A [`Page`] is one tab. All protocol events of
//! a tab are stored in order, so a test queries them afterwards instead of racing to observe them.

mod cdp;
mod page;

pub use page::{Page, Response, SeenRequest, View};

use anyhow::{Context as _, Result, bail};
use cdp::Connection;
use serde_json::{Value, json};
use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};
use tokio::process::{Child, Command};

/// The agent of an ordinary desktop browser. Headless Chromium calls itself `HeadlessChrome`, which headcount rightly
/// counts as a bot.
pub const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";

/// How long the browser may take for anything. Generous, since it may share two cores with a ClickHouse.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running Chromium, killed when dropped.
pub struct Browser {
    process: Child,
    connection: Arc<Connection>,
    profile: PathBuf,
}

impl Browser {
    /// Starts Chromium (`$CHROMIUM`, or the first one on the usual paths) with an ordinary user agent.
    pub async fn launch() -> Result<Browser> {
        Browser::launch_as(USER_AGENT).await
    }

    /// Starts Chromium with this user agent.
    pub async fn launch_as(user_agent: &str) -> Result<Browser> {
        Browser::launch_with(user_agent, &[]).await
    }

    /// The same, with more command-line arguments.
    pub async fn launch_with(user_agent: &str, more: &[&str]) -> Result<Browser> {
        let program = chromium()?;
        let profile = tempfile::Builder::new().prefix("headcount-browser-").tempdir()?;
        let mut process = Command::new(&program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            // Like a reader's browser, which no program drives: `navigator.webdriver` is false.
            .arg("--disable-blink-features=AutomationControlled")
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--disable-default-apps", "--no-default-browser-check", "--mute-audio"])
            .arg(format!("--user-agent={user_agent}"))
            .args(more)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-port=0", "about:blank"])
            // Chromium creates a socket beside its profile, which would outlive the kill.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;

        // Chromium writes its port, and the path of its endpoint, into its profile.
        let announcement = profile.path().join("DevToolsActivePort");
        let started = tokio::time::Instant::now();
        let address = loop {
            let text = tokio::fs::read_to_string(&announcement).await.unwrap_or_default();
            if let Some((port, path)) = text.trim_end().split_once('\n') {
                break format!("ws://127.0.0.1:{port}{path}");
            }
            if let Some(status) = process.try_wait()? {
                bail!("{} ended with {status} before it could be reached", program.display());
            }
            if started.elapsed() > PATIENCE {
                bail!("{} did not announce its port within {PATIENCE:?}; it wrote {text:?}", program.display());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let connection = Connection::open(&address).await?;
        Ok(Browser { process, connection, profile: profile.keep() })
    }

    /// Opens an empty tab in front.
    pub async fn new_page(&self) -> Result<Page> {
        self.tab(json!({"url": "about:blank"})).await
    }

    /// Opens an empty tab behind the present one, as a click with the middle button does.
    pub async fn new_page_behind(&self) -> Result<Page> {
        self.tab(json!({"url": "about:blank", "background": true})).await
    }

    /// Opens a tab with this URL in front and waits until it has loaded.
    pub async fn open(&self, url: &str) -> Result<Page> {
        let page = self.new_page().await?;
        page.navigate(url).await?;
        Ok(page)
    }

    /// Opens a tab without a protocol session, which would disable some of the browser's features, such as prerendering. Such a tab has to act by
    /// itself.
    pub async fn open_unwatched(&self, url: &str) -> Result<()> {
        self.connection.call(None, "Target.createTarget", json!({"url": url})).await.map(drop)
    }

    /// All cookies of the profile, of every site.
    pub async fn cookies(&self) -> Result<Vec<Value>> {
        let answer = self.connection.call(None, "Storage.getCookies", json!({})).await?;
        Ok(answer["cookies"].as_array().cloned().unwrap_or_default())
    }

    async fn tab(&self, parameters: Value) -> Result<Page> {
        let target = self.connection.call(None, "Target.createTarget", parameters).await?;
        let target = target["targetId"].as_str().context("a new target has an id")?.to_owned();
        Page::attach(Arc::clone(&self.connection), target).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        // Its children end a moment later, and write into the profile until then. The wait is bounded: a drop must not hang.
        for _ in 0..200 {
            let ended = !matches!(self.process.try_wait(), Ok(None));
            if ended && (std::fs::remove_dir_all(&self.profile).is_ok() || !self.profile.exists()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The path of Chromium.
fn chromium() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        return Ok(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|folder| ["chromium", "chromium-browser", "google-chrome", "chrome"].map(|name| folder.join(name)))
        .find(|program| program.is_file())
        .context("no Chromium on PATH; install one, or name it in CHROMIUM")
}
