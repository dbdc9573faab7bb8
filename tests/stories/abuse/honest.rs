//! Readers during an attack: beacons at a steady rate, each on a separate connection, as from different browsers.

use super::{client, connect, form};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

const BEACONS_PER_SECOND: u32 = 50;
const BODY: &str = r#"{"project":"docs","url":"https://docs.example/welcome.html"}"#;

/// The readers' observations.
#[derive(Debug)]
pub struct Honest {
    pub sent: usize,
    pub accepted: usize,
    pub p50: Duration,
    pub p99: Duration,
}

impl Honest {
    /// At least 99 % were accepted, each within [`beacon`]'s 10 s; in the long form (`scripts/test --abuse`, on a machine that
    /// does nothing else) 99 % of all within a second.
    pub fn check(&self, attack: &str) -> Result<()> {
        let Honest { sent, accepted, p50, p99 } = self;
        println!("{attack}: {accepted} of {sent} honest beacons accepted, {p50:.0?} at p50, {p99:.0?} at p99");
        ensure!(self.accepted * 100 >= self.sent * 99, "{attack}: {self:?}");
        let bound = form(Duration::from_secs(10), Duration::from_secs(1));
        ensure!(self.p99 <= bound, "{attack}: {self:?}");
        Ok(())
    }
}

/// Sends beacons for `time`, on a separate thread: readers do not share a computer with the attacker.
pub async fn readers(service: SocketAddr, time: Duration) -> Result<Honest> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let sent = tokio::task::spawn_blocking(move || runtime.block_on(send(service, time)));
    sent.await.context("the readers panicked")
}

/// A beacon that was not accepted counts as infinitely slow.
async fn send(service: SocketAddr, time: Duration) -> Honest {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / BEACONS_PER_SECOND);
    let mut beacons = JoinSet::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        ticks.tick().await;
        beacons.spawn(async move {
            let start = Instant::now();
            beacon(service).await.map(|()| start.elapsed())
        });
    }
    let outcomes = beacons.join_all().await;
    let mut latencies: Vec<Duration> = outcomes.iter().map(|o| *o.as_ref().unwrap_or(&Duration::MAX)).collect();
    latencies.sort_unstable();
    if let Some(Err(error)) = outcomes.iter().find(|outcome| outcome.is_err()) {
        println!("one of {} beacons that were not accepted: {error:#}", outcomes.iter().filter(|o| o.is_err()).count());
    }
    let at = |percent: usize| latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)];
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    Honest { sent: outcomes.len(), accepted, p50: at(50), p99: at(99) }
}

async fn beacon(service: SocketAddr) -> Result<()> {
    let mut stream = connect(client(9, 9), service, None).await?;
    let head = "POST /v1/pageview HTTP/1.1\r\nhost: headcount.test\r\nconnection: close\r\n";
    let agent = "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n";
    stream.write_all(format!("{head}{agent}content-length: {}\r\n\r\n{BODY}", BODY.len()).as_bytes()).await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.context("no answer within 10 s")??;
    ensure!(answer.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}
