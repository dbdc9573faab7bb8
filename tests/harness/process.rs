//! A program as a separate process: started, signalled, killed, waited for, and always ended with the test.

use crate::http;
use crate::service::{PATIENCE, eventually};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::process::{Child, ChildStdin, Command};

/// Range of the listen ports of tests.
const PORTS: Range<u16> = 20_000..32_000;

/// A port on loopback that was free a moment ago. The range is below the one from which Linux takes ports for outgoing connections, so none of those
/// takes it before its server does. No port is returned twice.
pub fn free_port() -> Result<u16> {
    static DRAWN: AtomicU16 = AtomicU16::new(0);
    // Two concurrent processes start at different ports.
    let first = u16::try_from(std::process::id() % 1000)? * 12;
    for _ in 0..PORTS.len() {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + first.wrapping_add(drawn) % u16::try_from(PORTS.len())?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

/// A loopback socket address with a port that was free a moment ago.
pub fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)))
}

/// A program with its arguments; a process while it runs.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    /// Stored apart from the child, whose `wait` would close it: some programs end with it.
    input: Option<ChildStdin>,
}

impl Process {
    /// `log` takes its standard error, and its standard output too.
    pub fn new(name: &str, program: &Path, arguments: Vec<String>, log: PathBuf) -> Self {
        Process {
            name: name.to_owned(),
            program: program.to_owned(),
            arguments,
            environment: Vec::new(),
            log,
            child: None,
            input: None,
        }
    }

    /// Sets a variable of its environment.
    pub fn variable(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it, with further arguments. Its standard input stays open until this value is dropped or the process is stopped.
    pub fn spawn(&mut self, more: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .args(more)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        self.input = child.stdin.take();
        self.child = Some(child);
        Ok(())
    }

    /// Its arguments.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `ready` is true, or it ends.
    pub async fn wait_until<F>(&mut self, what: &str, ready: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let log = self.log.clone();
        let name = self.name.clone();
        let child = self.child.as_mut().with_context(|| format!("{name} runs"))?;
        tokio::select! {
            ready = eventually(what, ready) => {
                ready.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
            }
            status = child.wait() => {
                self.child = None;
                bail!("{name} ended at its start: {}\n{}", status?, self.log())
            }
        }
    }

    /// Waits until `path` at `address` is answered with 200.
    pub async fn wait_ready(&mut self, address: SocketAddr, path: &str) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        self.wait_until(&what, async || {
            let answer = http::get(address, path).await?;
            ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            Ok(())
        })
        .await
    }

    /// Sends a signal, such as `TERM`, `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} runs", self.name))?;
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status()?;
        ensure!(sent.success(), "cannot send SIG{signal} to {}", self.name);
        Ok(())
    }

    /// SIGKILL, and nothing else.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().with_context(|| format!("{} runs", self.name))?;
        child.kill().await?;
        Ok(())
    }

    /// SIGTERM; it must end with success.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let status = self.ended().await?;
        ensure!(status.success(), "{} stopped with {status}\n{}", self.name, self.log());
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().with_context(|| format!("{} runs", self.name))?;
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        self.input = None;
        Ok(ended.with_context(|| format!("{} does not end\n{}", self.name, self.log()))??)
    }

    /// Its exit status if it has ended by itself.
    pub fn try_ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Whether it was started and not ended by the test.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }
}
