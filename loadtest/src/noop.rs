//! The reference: a server that reads the beacon, does nothing with it and answers with 202.
//!
//! It uses the same HTTP stack as `ingest` (axum on hyper on tokio, several threads) in a separate process. The remaining difference is the target's
//! work on a beacon.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// How long the reference may take to start, and to stop.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `headcount-loadtest noop-server`.
#[derive(Debug, Clone, clap::Args)]
pub struct NoopServerArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

/// Serves until stdin closes, which it does when the parent dies, however it dies. The first line on stdout is the
/// address.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(args: NoopServerArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listening on {}", args.listen))?;
    let address = listener.local_addr().context("reading the listen address")?;
    let (closed, stdin_closed) = tokio::sync::oneshot::channel::<()>();
    // A thread, because reading stdin cannot be cancelled and would hold up the end of the runtime.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(closed);
    });
    println!("{address}");
    let listener = listener.tap_io(|stream| {
        // Without it a response may wait for the client's acknowledgement. A closed connection fails later.
        let _ = stream.set_nodelay(true);
    });
    tokio::select! {
        result = async { axum::serve(listener, router()).await } => result.context("serving"),
        _ = stdin_closed => Ok(()),
    }
}

fn router() -> Router {
    Router::new().route("/v1/pageview", post(accept))
}

/// About as many headers as the target sends; hyper adds `content-length` and `date`.
async fn accept(body: Bytes) -> (StatusCode, [(HeaderName, &'static str); 2]) {
    drop(body);
    (StatusCode::ACCEPTED, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"), (header::CACHE_CONTROL, "no-store")])
}

/// A running reference server, which ends when this value is dropped.
#[derive(Debug)]
pub struct NoopProcess {
    child: Child,
    /// Its listen address.
    pub address: SocketAddr,
    /// Its process id.
    pub pid: u32,
}

impl NoopProcess {
    /// Starts `headcount-loadtest noop-server` of the running executable.
    ///
    /// # Errors
    /// It does not start, or does not print its listen address within 10 s.
    pub async fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding the running executable")?;
        let mut child = Command::new(&program)
            .args(["noop-server", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting the reference server {}", program.display()))?;
        let stdout = child.stdout.take().context("the reference server has no stdout")?;
        let mut line = String::new();
        tokio::time::timeout(WAIT_TIMEOUT, BufReader::new(stdout).read_line(&mut line))
            .await
            .context("waiting for the reference server to say where it listens")?
            .context("reading the reference server's listen address")?;
        let Ok(address) = line.trim().parse() else {
            bail!("the reference server printed {line:?} instead of its listen address");
        };
        let pid = child.id().context("the reference server has already ended")?;
        Ok(Self { child, address, pid })
    }

    /// Closes its stdin and waits until it has ended.
    ///
    /// # Errors
    /// It does not end within 10 s (it is killed then), or ends with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = tokio::time::timeout(WAIT_TIMEOUT, self.child.wait())
            .await
            .context("waiting for the reference server to end")?
            .context("waiting for the reference server to end")?;
        if status.success() { Ok(()) } else { bail!("the reference server ended with {status}") }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::drive::{self, Beacons, Limits};
    use crate::month::beacons::{Form, Readers};
    use crate::target::Target;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_reference_accepts_every_beacon() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::at(listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router()).await });
        let beacons: Arc<dyn Beacons> = Arc::new(Readers::of_one(1, Form::Headcount));
        let limits = Limits { count: 200, time: Duration::from_secs(20), connections: 8, threads: 1, rate: None };
        let seen = drive::observe(&beacons, &target, 0, limits).await.unwrap();
        assert_eq!(seen.answers.iter().filter(|a| a.1 == 202).count(), 200, "{:?}", seen.first_error);
    }
}
