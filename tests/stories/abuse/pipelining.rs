//! A thousand clients send pipelined requests and read no response. Memory stays bounded, and readers are not affected.

use super::honest::readers;
use super::{allow_files, client, connect, form, resident_mib};
use anyhow::{Context, Result, ensure};
use harness::service::{Service, eventually};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

const CLIENTS: u8 = 5;
/// Below the limit of one network.
const CONNECTIONS_OF_CLIENT: usize = 200;
/// Small, so that the kernel's buffers for a thousand clients do not matter.
const BUFFER_BYTES: u32 = 8 << 10;
const MOST_MIB: f64 = 64.0;

/// Requests with a long response, and with responses without a body.
fn requests() -> Vec<u8> {
    let openapi = "/v1/openapi.json HTTP/1.1\r\nhost: a\r\n";
    let one = [
        format!("GET {openapi}\r\n"),
        format!("HEAD {openapi}\r\n"),
        format!("GET {openapi}if-none-match: *\r\n\r\n"),
        "GET /v1/pageview.gif?project=docs HTTP/1.1\r\nhost: a\r\ndnt: 1\r\n\r\n".to_owned(),
        "POST /v1/pageview HTTP/1.1\r\nhost: a\r\ndnt: 1\r\ncontent-length: 1\r\n\r\nx".repeat(6),
    ];
    one.concat().repeat(40).into_bytes()
}

/// Sends repeatedly while the service accepts bytes; reads nothing.
async fn never_reads(client: IpAddr, service: SocketAddr, requests: Arc<Vec<u8>>, closed: Arc<AtomicU64>) {
    loop {
        if let Ok(mut stream) = connect(client, service, Some(BUFFER_BYTES)).await {
            while stream.write_all(&requests).await.is_ok() {}
            closed.fetch_add(1, Ordering::Relaxed);
        }
        // The kernel's buffers are full for some seconds; and after a stop of the service the loop must not spin.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_fill_no_memory() -> Result<()> {
    allow_files(8192)?;
    let service = Service::started(&[], &[("docs", "docs.example")]).await?;
    let pid = service.pid().context("it runs")?;
    // Memory that the first beacons and responses allocate does not count for the attack.
    readers(service.address(), Duration::from_secs(1)).await?.check("before")?;
    let before = resident_mib(pid)?;

    let (requests, closed) = (Arc::new(requests()), Arc::new(AtomicU64::new(0)));
    let mut attack = JoinSet::new();
    for y in 1..=CLIENTS {
        for _ in 0..CONNECTIONS_OF_CLIENT {
            attack.spawn(never_reads(client(1, y), service.address(), Arc::clone(&requests), Arc::clone(&closed)));
        }
    }
    let time = form(Duration::from_secs(12), Duration::from_secs(60));
    let most = tokio::spawn(async move {
        let (mut most, end) = (0.0_f64, Instant::now() + time);
        while Instant::now() < end {
            most = most.max(resident_mib(pid)?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(most)
    });
    let honest = readers(service.address(), time).await?;
    let most = most.await??;
    let connections = usize::from(CLIENTS) * CONNECTIONS_OF_CLIENT;
    let closed = closed.load(Ordering::Relaxed);
    println!(
        "{connections} connections that never read: {before:.0} MiB before, {most:.0} MiB at most; {closed} were closed"
    );
    ensure!(most - before <= MOST_MIB, "{before:.0} MiB, then {most:.0} MiB");
    ensure!(closed > 0, "clients that never read are closed");
    honest.check("connections that never read")?;

    attack.shutdown().await;
    let bound = before + ((most - before) * 0.75).max(8.0);
    let after = eventually("memory to fall", async || {
        // mimalloc returns memory when it is called.
        readers(service.address(), Duration::from_millis(200)).await?;
        let now = resident_mib(pid)?;
        ensure!(now <= bound, "{now:.0} MiB, expected {bound:.0}");
        Ok(now)
    })
    .await?;
    println!("{after:.0} MiB after the attack");
    Ok(())
}
