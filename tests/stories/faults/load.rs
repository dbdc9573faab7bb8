//! Readers: beacons with known ids, each sent until it is acknowledged, as the script does.

use anyhow::{Result, ensure};
use harness::http::Connection;
use harness::random::mix;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The projects, each with the host `NAME.docs.example`: each of two, four or six partitions has one.
pub const PROJECTS: [&str; 8] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "xi", "aleph"];
const AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const BOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
/// One view may take so long to be acknowledged: Kafka is away for ten minutes in one experiment.
const PATIENCE: Duration = Duration::from_secs(900);
/// Pause between two views of one reader: the point is faults, not load.
const PACE: Duration = Duration::from_millis(3);

#[derive(Default)]
struct Told {
    /// id → project, of what was acknowledged.
    acknowledged: Mutex<BTreeMap<u64, &'static str>>,
    next: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
    slowest_ms: AtomicU64,
    stop: AtomicBool,
}

/// Readers at work.
pub struct Load {
    told: Arc<Told>,
    readers: Vec<JoinHandle<Result<()>>>,
}

/// What they did.
pub struct Driven {
    /// id → project, of what was acknowledged.
    pub acknowledged: BTreeMap<u64, &'static str>,
    /// Attempts after the first.
    pub retried: u64,
    /// Answers 503.
    pub refused: u64,
    /// The longest that an answer took.
    pub slowest_ms: u64,
}

impl Load {
    /// `readers` connections to the endpoint.
    pub fn start(address: SocketAddr, seed: u64, readers: u64) -> Load {
        let told = Arc::new(Told::default());
        let readers = (0..readers).map(|_| tokio::spawn(read(address, seed, Arc::clone(&told)))).collect();
        Load { told, readers }
    }

    /// Acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.told.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until so many are acknowledged.
    pub async fn reach(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged() < count {
            ensure!(Instant::now() < deadline, "{} of {count} acknowledged", self.acknowledged());
            ensure!(!self.readers.iter().any(JoinHandle::is_finished), "a reader gave up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Lets every reader finish its view.
    pub async fn finish(self) -> Result<Driven> {
        self.told.stop.store(true, Ordering::SeqCst);
        for reader in self.readers {
            reader.await??;
        }
        let acknowledged = std::mem::take(&mut *self.told.acknowledged.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Driven {
            acknowledged,
            retried: self.told.retried.load(Ordering::SeqCst),
            refused: self.told.refused.load(Ordering::SeqCst),
            slowest_ms: self.told.slowest_ms.load(Ordering::SeqCst),
        })
    }
}

/// A view's id, project, body and agent.
fn view(seed: u64, index: u64) -> (u64, &'static str, String, &'static str) {
    let chance = mix(seed ^ mix(index));
    let project = PROJECTS[(chance % PROJECTS.len() as u64) as usize];
    let id = mix(chance) | 1;
    let page = (chance >> 8) % 50;
    let status = if page < 5 { 404 } else { 200 };
    let from =
        if (chance >> 16).is_multiple_of(4) { format!("{project}.docs.example") } else { "search.example".to_owned() };
    let body = format!(
        r#"{{"project":"{project}","url":"https://{project}.docs.example/en/stable/page-{page}.html","referrer":"https://{from}/","status":{status},"version":"stable","language":"en","id":"{id:016x}"}}"#
    );
    (id, project, body, if index % 20 == 7 { BOT } else { AGENT })
}

async fn read(address: SocketAddr, seed: u64, told: Arc<Told>) -> Result<()> {
    let mut connection: Option<Connection> = None;
    while !told.stop.load(Ordering::SeqCst) {
        let index = told.next.fetch_add(1, Ordering::SeqCst);
        let (id, project, body, agent) = view(seed, index);
        let from = format!("198.51.{}.{}", index / 250 % 250, index % 250);
        let headers = [("user-agent", agent), ("x-forwarded-for", from.as_str())];
        let deadline = Instant::now() + PATIENCE;
        let mut attempts = 0;
        loop {
            if attempts > 0 {
                told.retried.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            attempts += 1;
            ensure!(Instant::now() < deadline, "a beacon was never acknowledged");
            if connection.is_none() {
                connection = Connection::open(address).await.ok();
            }
            let Some(open) = connection.as_mut() else { continue };
            let asked = Instant::now();
            let answer = open.send("POST", "/v1/pageview", &headers, body.clone());
            let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(20), answer).await else {
                connection = None;
                continue;
            };
            let took = u64::try_from(asked.elapsed().as_millis())?;
            told.slowest_ms.fetch_max(took, Ordering::SeqCst);
            if answer.status == 202 {
                break;
            }
            ensure!(answer.status == 503, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            told.refused.fetch_add(1, Ordering::SeqCst);
        }
        told.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(id, project);
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}
