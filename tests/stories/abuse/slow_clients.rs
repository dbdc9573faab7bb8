//! Thousands of requests that never end: half a head, or a head without its body.

use super::honest::readers;
use super::{allow_files, client, connect, form};
use anyhow::{Result, ensure};
use harness::service::Service;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

const HALF_A_HEAD: &str = "POST /v1/pageview HTTP/1.1\r\nhost: headcount.test\r\nuser-agent: ";
const NO_BODY: &str = "POST /v1/pageview HTTP/1.1\r\nhost: headcount.test\r\ncontent-length: 1000\r\n\r\n";

/// Observations on the slow connections.
#[derive(Debug, Default)]
struct Seen {
    opened: AtomicU64,
    told_408: AtomicU64,
    closed: AtomicU64,
}

/// Sends `start` from one IP address and waits; opens the next connection two seconds after the last one was closed.
async fn never_ends(service: SocketAddr, start: &'static str, seen: Arc<Seen>) {
    loop {
        if let Ok(mut stream) = connect(client(2, 1), service, None).await {
            seen.opened.fetch_add(1, Ordering::Relaxed);
            let _ = stream.write_all(start.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            let count = if answer.starts_with(b"HTTP/1.1 408 ") { &seen.told_408 } else { &seen.closed };
            count.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// `connections` slow clients, and readers at the same time, for `time`.
async fn attack(
    name: &str,
    service: &Service,
    start: &'static str,
    connections: usize,
    time: Duration,
) -> Result<Arc<Seen>> {
    let seen = Arc::new(Seen::default());
    let mut slow = JoinSet::new();
    for _ in 0..connections {
        slow.spawn(never_ends(service.address(), start, Arc::clone(&seen)));
    }
    let honest = readers(service.address(), time).await?;
    slow.shutdown().await;
    println!("{name}: {seen:?}");
    honest.check(name)?;
    ensure!(seen.opened.load(Ordering::Relaxed) >= connections as u64, "{name}: too few connections: {seen:?}");
    ensure!(seen.told_408.load(Ordering::Relaxed) > 0, "{name}: slow requests are answered 408: {seen:?}");
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_with_thousands_of_unfinished_requests_does_not_stop_others() -> Result<()> {
    allow_files(16_384)?;
    let service = Service::started(&[], &[("docs", "docs.example")]).await?;
    let time = form(Duration::from_secs(12), Duration::from_secs(60));
    let heads = attack("4,096 unfinished heads", &service, HALF_A_HEAD, 4096, time).await?;
    let bodies = attack("3,300 bodies that never come", &service, NO_BODY, 3300, time).await?;
    for seen in [heads, bodies] {
        ensure!(seen.closed.load(Ordering::Relaxed) > 0, "connections over the limit are closed: {seen:?}");
    }
    let warnings = service.log().matches("`connections_per_network`").count();
    ensure!((1..=4).contains(&warnings), "{warnings} warnings:\n{}", service.log());
    ensure!(!service.log().contains("127.0.2.1"), "no IP address is logged:\n{}", service.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_comes_holds_no_place_of_others() -> Result<()> {
    // Far more open bodies than beacons that may be in progress.
    let arguments = ["--connections-per-network", "0", "--in-flight", "64", "--body-timeout-ms", "3000"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    attack("500 bodies, 64 in flight", &service, NO_BODY, 500, Duration::from_secs(6)).await?;
    Ok(())
}
