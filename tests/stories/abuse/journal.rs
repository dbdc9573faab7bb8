//! One client at full rate fills the journal many times over. Counted records are dropped early, and no other client is refused.

use super::forged::{AGENT, CLOCK, Forged, send_all};
use super::form;
use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, eventually};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Minimum bytes of a forged beacon's record: a path of 1,000 and a version.
const RECORD_BYTES: u64 = 1_000;
/// Interval between an honest reader's beacons.
const HONEST_EVERY: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn one_client_does_not_fill_the_journal_for_others() -> Result<()> {
    let (journal_bytes, times): (u64, u64) = form((4 << 20, 10), (1 << 30, 10));
    let count = usize::try_from(times * journal_bytes / RECORD_BYTES)?;
    let bytes = journal_bytes.to_string();
    let arguments = ["--clock-start", CLOCK, "--trusted-proxy", "127.0.0.1", "--journal-bytes", &bytes];
    let mut service = Service::new(&[&arguments[..], &["--client-rate", "0"]].concat())?;
    service.start(&[]).await?;
    service.register(&[("docs", "docs.example"), ("other", "other.example")]).await?;
    let path = service.data().join("journal.redb");
    let fresh = std::fs::metadata(&path)?.blocks() * 512;
    ensure!(fresh < 1 << 20, "a fresh journal has {fresh} bytes");

    let attack_over = Arc::new(AtomicBool::new(false));
    let honest = tokio::spawn(honest(service.address(), Arc::clone(&attack_over)));
    let begun = std::time::Instant::now();
    let attack = fill(&service, count, usize::try_from(journal_bytes / 8 / RECORD_BYTES)?).await;
    let seconds = begun.elapsed().as_secs_f64();
    attack_over.store(true, Ordering::SeqCst);
    let (attack, accepted) = (attack?, honest.await??);
    let on_disk = std::fs::metadata(&path)?.blocks() * 512;
    println!(
        "{count} beacons of {RECORD_BYTES} bytes in {seconds:.1} s: {attack:?}; {accepted} honest ones beside them, none refused; \
         journal_bytes {journal_bytes}, on disk {on_disk}, fresh {fresh}"
    );
    ensure!(on_disk <= 2 * journal_bytes + (4 << 20), "the journal has {on_disk} bytes on disk");
    let log = service.log();
    ensure!(log.matches("the journal has reached its bound").count() == 1, "one warning:\n{log}");

    // Accepted beacons are counted, though most of their records are dropped.
    let expected = (attack.get(&202).copied().unwrap_or(0), accepted);
    let database = service.clickhouse()?;
    eventually("all that was accepted to be counted", async || {
        let views = "SELECT sumIf(views, project = 'docs'), sumIf(views, project = 'other') FROM site_hourly FINAL";
        let found: (u64, u64) = database.query(views).fetch_one().await?;
        ensure!(found == expected, "{found:?} of {expected:?}");
        Ok(())
    })
    .await?;
    service.stop().await?;
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    Ok(())
}

/// Sends `count` forged beacons, as fast as ClickHouse takes their rows: at most two `parts` of them are uncounted. Uncounted records must not be
/// dropped, so a journal full of them refuses beacons by design; here it is full of counted ones.
async fn fill(service: &Service, count: usize, part: usize) -> Result<BTreeMap<u16, u64>> {
    let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
    for first in (0..count).step_by(part) {
        let sent = send_all(service.address(), part.min(count - first), move |number| Forged {
            from: "198.51.100.7".to_owned(),
            agent: AGENT.to_owned(),
            body: format!(r#"{{"url":"https://docs.example/{}/{}"}}"#, "long-path/".repeat(98), (first + number) % 100),
        });
        for (status, count) in sent.await? {
            *statuses.entry(status).or_default() += count;
        }
        eventually("ClickHouse to have taken nearly all", async || {
            let state = service.state().await?;
            let lag = state["aggregator"]["lag"].as_u64().context("aggregator.lag")?;
            ensure!(lag <= part as u64, "{state}");
            Ok(())
        })
        .await?;
    }
    Ok(statuses)
}

/// Sends honest beacons at intervals, each of which must be accepted. Returns their number.
async fn honest(address: std::net::SocketAddr, over: Arc<AtomicBool>) -> Result<u64> {
    let mut connection = Connection::open(address).await?;
    let mut every = tokio::time::interval(HONEST_EVERY);
    let mut sent = 0;
    while !over.load(Ordering::SeqCst) {
        every.tick().await;
        let headers = [("user-agent", AGENT), ("x-forwarded-for", "203.0.113.9")];
        let body = r#"{"url":"https://other.example/page"}"#;
        let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
        ensure!(answer.status == 202, "honest beacon {sent}: {answer:?}");
        sent += 1;
    }
    Ok(sent)
}
