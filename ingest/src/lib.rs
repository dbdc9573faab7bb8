//! The beacon endpoint: the only code that sees a reader's IP address and user agent.
//!
//! The path of one beacon, in the order of [`http`]: opt-out → limits → [`schemas::Beacon`] → [`accept`] (named rejections, [`hygiene`]) → [`agents`]
//! → [`visitor`] coordinates under the period's [`keys`] → [`sink`]. It answers with 202 only after the sink has stored the record durably.

pub mod accept;
pub mod access_log;
pub mod agents;
pub mod aliases;
pub mod client;
pub mod country;
mod health;
pub mod http;
pub mod hygiene;
mod ids;
pub mod ignored;
pub mod journal;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod keys;
pub mod metrics;
pub mod path_rules;
pub mod per_network;
pub mod private_file;
pub mod projects;
mod recent_peers;
pub mod script;
pub mod sink;
pub mod tally;
mod trackers;
pub mod visitor;

pub use crate::http::{rate_limited, routes};
use crate::keys::KeyRing;
use crate::projects::Projects;
use crate::sink::Sink;
use crate::tally::{Tally, TallyMessage};
use ::http::HeaderMap;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use schemas::Hour;
use schemas::paths::EndpointPaths;
use schemas::rate_limit::{Rate, TokenBuckets};
use schemas::record::RecordFormat;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// The current time; an argument, so that a test can run in another month.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Bounds and trust of the endpoint.
#[derive(Clone, Debug)]
pub struct IngestConfig {
    /// Proxies whose headers about a client's IP address are trusted.
    pub trusted_proxies: client::TrustedProxies,
    /// Networks whose views no project counts.
    pub ignore_networks: ignored::IgnoredNetworks,
    /// Header in which a trusted proxy names the client's country (ISO 3166-1 alpha-2).
    pub country_header: Option<String>,
    /// Countries of IP addresses, for requests without one from a trusted proxy.
    pub countries: Option<country::Countries>,
    /// Longest body in bytes.
    pub body_bytes: usize,
    /// How long a body may take, in milliseconds.
    pub body_timeout_ms: u64,
    /// Beacons processed concurrently; further ones are refused before they are parsed.
    pub in_flight: usize,
    /// Limit for one client.
    pub client_rate: Rate,
    /// Limit for one project.
    pub project_rate: Rate,
    /// What one client network may add to a project in a day.
    pub per_network: per_network::Limits,
    /// The operator's rules on which agents are robots.
    pub own_rules: agents::OwnRules,
    /// Format of the records it writes.
    pub record_format: RecordFormat,
    /// Paths of the script and the endpoint, besides the old paths.
    pub paths: EndpointPaths,
    /// Further paths of the script, each with the beacons' path.
    pub more_script_paths: Vec<EndpointPaths>,
    /// Failpoint: a beacon with this path makes the endpoint panic over its user agent.
    pub panic_on_path: Option<String>,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig {
            trusted_proxies: client::TrustedProxies::default(),
            ignore_networks: ignored::IgnoredNetworks::default(),
            country_header: None,
            countries: None,
            body_bytes: 16 << 10,
            body_timeout_ms: 10_000,
            in_flight: 8192,
            client_rate: Rate { per_second: 100.0, burst: 1000.0 },
            project_rate: Rate { per_second: 500.0, burst: 5000.0 },
            per_network: per_network::Limits::default(),
            own_rules: agents::OwnRules::default(),
            record_format: RecordFormat::default(),
            paths: EndpointPaths::default(),
            more_script_paths: Vec::new(),
            panic_on_path: None,
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
    classifier: agents::Classifier,
    per_network: per_network::PerNetwork,
    /// Client networks are hashed under this secret of the process.
    client_secret: client::ClientSecret,
    client_buckets: TokenBuckets,
    project_buckets: TokenBuckets,
    in_flight: Semaphore,
    /// Endpoints that were seen with another visitor key.
    foreign_keys: AtomicU64,
    /// Beacons with `X-Forwarded-For` from a peer that is no trusted proxy.
    untrusted_forwarded: AtomicU64,
    recent_peers: recent_peers::RecentPeers,
    /// Beacons by outcome, and their latency.
    pub metrics: metrics::BeaconMetrics,
}

impl<S: Sink> Ingest<S> {
    /// An endpoint that appends to `sink`.
    pub fn new(config: IngestConfig, clock: Clock, keys: KeyRing, projects: Projects, sink: S) -> Self {
        Ingest {
            client_buckets: TokenBuckets::new(config.client_rate),
            project_buckets: TokenBuckets::new(config.project_rate),
            in_flight: Semaphore::new(config.in_flight),
            per_network: per_network::PerNetwork::new(config.per_network),
            classifier: agents::Classifier::new(config.own_rules.clone()),
            config,
            clock,
            keys,
            projects,
            sink,
            tally: Tally::default(),
            client_secret: client::ClientSecret::default(),
            foreign_keys: AtomicU64::new(0),
            untrusted_forwarded: AtomicU64::new(0),
            recent_peers: recent_peers::RecentPeers::default(),
            metrics: metrics::BeaconMetrics::default(),
        }
    }

    /// The kind of period, its number, and the fingerprint of its key.
    ///
    /// # Errors
    /// The key could not be replaced at its period's end.
    pub fn key_in_use(&self) -> Result<(keys::VisitorPeriod, i64, keys::Fingerprint), keys::KeyError> {
        let key = self.keys.at((self.clock)())?;
        Ok((self.keys.period(), key.number(), key.fingerprint()))
    }

    /// The kind of period and the living key.
    ///
    /// # Errors
    /// The key could not be replaced at its period's end.
    pub fn key(&self) -> Result<(keys::VisitorPeriod, Arc<keys::PeriodKey>), keys::KeyError> {
        Ok((self.keys.period(), self.keys.at((self.clock)())?))
    }

    /// When this process last replaced and erased a key.
    pub fn key_destroyed(&self) -> Option<chrono::DateTime<chrono::Utc>> {
        self.keys.destroyed()
    }

    /// Sets how many other endpoints have another key. `/readyz` reports it if it is not zero.
    pub fn set_foreign_keys(&self, nodes: u64) {
        self.foreign_keys.store(nodes, Ordering::Relaxed);
    }

    /// As set last.
    pub fn foreign_keys(&self) -> u64 {
        self.foreign_keys.load(Ordering::Relaxed)
    }

    /// Beacons refused since the start, for whatever reason.
    pub fn refused_beacons(&self) -> u64 {
        self.tally.refused()
    }

    /// Beacons since the start that had an `X-Forwarded-For` header and came from a peer that is not a trusted proxy. If a proxy of this service sent
    /// them, all its readers count as one.
    pub fn untrusted_forwarded_beacons(&self) -> u64 {
        self.untrusted_forwarded.load(Ordering::Relaxed)
    }

    /// Whether at least half of the last 1,000 beacons came from one such peer.
    pub fn has_untrusted_proxy(&self) -> bool {
        self.recent_peers.has_untrusted_proxy()
    }

    /// Counts such a beacon. The first one is logged, without an IP address: the peer may be a reader.
    fn note_forwarded(&self, peer: IpAddr, headers: &HeaderMap) {
        let is_untrusted = self.config.trusted_proxies.is_unnamed_proxy(peer, headers);
        let hash = is_untrusted.then(|| client::ClientAddress::new(peer).hashed(&self.client_secret));
        self.recent_peers.note(hash);
        if !is_untrusted {
            return;
        }
        if self.untrusted_forwarded.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                "a beacon has an `X-Forwarded-For` header but its peer is no trusted proxy, so the header is ignored. If a proxy of \
                 this service sent it, name the proxy in `trusted_proxy`, or all its readers count as one"
            );
        }
    }

    /// Sends the tallies of refused beacons and dropped facts to the log. Returns how many records the log has. Records that are not known to be
    /// there are sent again the next time, under the same ids.
    ///
    /// Not cancel-safe: a dropped future loses the tallies that it took.
    pub async fn send_tallies(&self) -> usize {
        let tallies = self.tally.take(Hour::of((self.clock)()));
        let encoded = |tally: TallyMessage| Some((tally.clone(), tally.encode(self.config.record_format)?));
        let tallies: Vec<_> = tallies.into_iter().filter_map(encoded).collect();
        let mut sent = 0;
        for tallies in tallies.chunks(TALLIES_AT_ONCE) {
            let appended = tallies.iter().map(|(_, bytes)| self.sink.append(0, bytes.clone()));
            for ((tally, _), outcome) in tallies.iter().zip(join_all(appended).await) {
                match outcome {
                    Ok(()) => sent += 1,
                    Err(error) => {
                        tracing::debug!(%error, "a tally is sent again later");
                        self.tally.put_back(tally.clone());
                    }
                }
            }
        }
        sent
    }

    /// Advances the key and sends the tallies until `stop`: the key must step at a period's end even without beacons. Ends by itself, with no tally
    /// half-way; do not abort it. Tallies of the last moment need one more [`Ingest::send_tallies`].
    pub async fn keep(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        every_second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                _ = every_second.tick() => {}
            }
            if let Err(error) = self.keys.at((self.clock)()) {
                tracing::error!(%error, "the visitor key could not be replaced at its period's end");
            }
            self.send_tallies().await;
            if let Some(countries) = &self.config.countries {
                countries.refresh();
            }
        }
    }
}

/// Tallies that are sent to the log concurrently: they share one wait for the disk, and leave space in the queue for views.
const TALLIES_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::SinkError;
    use schemas::{RejectionReason, record};
    use std::sync::Mutex;
    use tokio::sync::{Notify, oneshot};

    /// A sink that returns the given answers.
    #[derive(Default)]
    struct ScriptedSink {
        answers: Mutex<Vec<Result<(), SinkError>>>,
        records: Mutex<Vec<Vec<u8>>>,
        asked: std::sync::atomic::AtomicUsize,
        begun: Notify,
        go: Notify,
        waits: bool,
    }

    impl Sink for Arc<ScriptedSink> {
        async fn append(&self, _: u64, record: Vec<u8>) -> Result<(), SinkError> {
            self.records.lock().unwrap().push(record);
            self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            self.begun.notify_one();
            if self.waits {
                self.go.notified().await;
            }
            self.answers.lock().unwrap().pop().unwrap_or(Ok(()))
        }

        fn ready(&self) -> Result<(), SinkError> {
            Ok(())
        }
    }

    fn ingest(sink: &Arc<ScriptedSink>) -> (tempfile::TempDir, Arc<Ingest<Arc<ScriptedSink>>>) {
        let home = tempfile::tempdir().unwrap();
        let now: DateTime<Utc> = "2026-03-14T10:00:00Z".parse().unwrap();
        let keys = KeyRing::open(&home.path().join("visitor.key"), keys::VisitorPeriod::Month, now).unwrap();
        let clock: Clock = Arc::new(move || now);
        let projects = Projects::new(Vec::new(), projects::NewNames { per_hour: 0, per_network: 0 });
        (home, Arc::new(Ingest::new(IngestConfig::default(), clock, keys, projects, Arc::clone(sink))))
    }

    #[tokio::test]
    async fn a_tally_is_sent_until_the_log_has_it_and_stays_the_same() {
        let sink = Arc::new(ScriptedSink::default());
        let (_home, ingest) = ingest(&sink);
        ingest.tally.add(None, RejectionReason::MalformedJson, String::new(), 3);
        for answer in [SinkError::QueueFull, SinkError::Closed, SinkError::Unavailable("disk".to_owned())] {
            sink.answers.lock().unwrap().push(Err(answer));
            assert_eq!(ingest.send_tallies().await, 0);
            assert!(!ingest.tally.is_empty());
        }
        // Refusals during the send become a separate tally: the first may be in the log already.
        ingest.tally.add(None, RejectionReason::MalformedJson, String::new(), 2);
        assert_eq!(ingest.send_tallies().await, 2);
        assert!(ingest.tally.is_empty());
        let records = sink.records.lock().unwrap();
        let tally = |index: usize| match record::decode(&records[index]).unwrap() {
            record::Record::Rejections(tally) => (tally.id, tally.count),
            _ => panic!("a tally was sent"),
        };
        assert!((0..4).all(|index| tally(index) == tally(0)) && tally(0).1 == 3);
        assert!(tally(4).0 != tally(0).0 && tally(4).1 == 2);
    }

    #[tokio::test]
    async fn stopping_waits_for_the_tallies_under_way() {
        let sink = Arc::new(ScriptedSink { waits: true, ..ScriptedSink::default() });
        let (_home, ingest) = ingest(&sink);
        ingest.tally.add(None, RejectionReason::MalformedJson, String::new(), 1);
        ingest.tally.add(None, RejectionReason::NotUtf8, String::new(), 1);
        let (stop, stopped) = oneshot::channel::<()>();
        let keep = tokio::spawn({
            let ingest = Arc::clone(&ingest);
            async move { ingest.keep(async { drop(stopped.await) }).await }
        });
        sink.begun.notified().await;
        // Both are in progress although neither is durable.
        assert_eq!(sink.asked.load(std::sync::atomic::Ordering::SeqCst), 2);
        stop.send(()).unwrap();
        tokio::task::yield_now().await;
        assert!(!keep.is_finished());
        sink.go.notify_waiters();
        keep.await.unwrap();
        assert!(ingest.tally.is_empty());
    }
}
