//! The beacon endpoint: the only place where a reader's address and user agent exist.
//!
//! The way of one beacon, in the order of [`http`]: opt-out → limits → [`schemas::Beacon`] → [`accept`] (named
//! rejections, [`hygiene`]) → [`classify`] → [`visitor`] coordinates under the period's [`keys`] → [`sink`]. It
//! answers 202 only after the sink has the record durably.

pub mod accept;
pub mod classify;
pub mod client;
pub mod http;
pub mod hygiene;
pub mod journal;
pub mod keys;
pub mod limits;
pub mod projects;
pub mod script;
pub mod sink;
pub mod tally;
pub mod visitor;

pub use crate::http::routes;
use crate::keys::KeyRing;
use crate::limits::{Buckets, Rate};
use crate::projects::Projects;
use crate::sink::Sink;
use crate::tally::Tally;
use chrono::{DateTime, Utc};
use schemas::{Hour, record};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What time it is; an argument, so that a test can be in another month.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Bounds and trust of the endpoint.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// Proxies whose word about a client's address is taken.
    pub trusted_proxies: client::TrustedProxies,
    /// Header in which a trusted proxy names the client's country (ISO 3166-1 alpha-2).
    pub country_header: Option<String>,
    /// Longest body in bytes.
    pub body_bytes: usize,
    /// How long a body may take, in milliseconds.
    pub body_timeout_ms: u64,
    /// Beacons under way at once; more are refused before they are parsed.
    pub in_flight: usize,
    /// Limit for one client.
    pub client_rate: Rate,
    /// Limit for one project.
    pub project_rate: Rate,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig {
            trusted_proxies: client::TrustedProxies::default(),
            country_header: None,
            body_bytes: 16 << 10,
            body_timeout_ms: 10_000,
            in_flight: 8192,
            client_rate: Rate { per_second: 100.0, burst: 1000.0 },
            project_rate: Rate { per_second: 0.0, burst: 0.0 },
        }
    }
}

/// The endpoint's state, shared by all requests.
pub struct Ingest<S> {
    config: IngestConfig,
    clock: Clock,
    keys: KeyRing,
    /// The registry; replaced from outside when it changes.
    pub projects: Projects,
    sink: S,
    tally: Tally,
    classifier: classify::Classifier,
    client_buckets: Buckets,
    project_buckets: Buckets,
    in_flight: Semaphore,
}

impl<S: Sink> Ingest<S> {
    /// An endpoint that appends to `sink`.
    pub fn new(config: IngestConfig, clock: Clock, keys: KeyRing, projects: Projects, sink: S) -> Self {
        Ingest {
            client_buckets: Buckets::new(config.client_rate),
            project_buckets: Buckets::new(config.project_rate),
            in_flight: Semaphore::new(config.in_flight),
            config,
            clock,
            keys,
            projects,
            sink,
            tally: Tally::default(),
            classifier: classify::Classifier::default(),
        }
    }

    /// Sends what has been tallied of refused beacons to the log. Returns how many records were sent; what could not
    /// be sent stays for the next time.
    pub async fn send_tallies(&self) -> usize {
        let mut sent = 0;
        for tally in self.tally.take(Hour::of((self.clock)())) {
            match self.sink.append(0, record::encode_rejections(tally.clone())).await {
                Ok(()) => sent += 1,
                Err(_) => self.tally.put_back(&tally),
            }
        }
        sent
    }

    /// Keeps the calendar and the tallies until dropped: the key must step at a period's end even when nobody reads.
    pub async fn keep(&self) {
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        every_second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every_second.tick().await;
            if let Err(error) = self.keys.at((self.clock)()) {
                tracing::error!(%error, "the visitor key could not be replaced at its period's end");
            }
            self.send_tallies().await;
        }
    }
}
