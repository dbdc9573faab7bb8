//! The content of `/readyz` and `/metrics` of `headcount serve`.

use crate::embedded;
use crate::health::lag::{Lag, LagPosition};
use crate::health::{Finding, Readiness};
use crate::metrics::scrape::{Part, Scrape};
use crate::metrics::{self, MetricsListener};
use crate::shell::until;
use aggregate::progress::Progress;
use ingest::Ingest;
use ingest::journal::{Journal, PressureState};
use prometheus_client::registry::Registry;
use schemas::Hour;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The view of the health check and of the operator's listener.
#[derive(Clone)]
pub struct Parts {
    /// The beacon endpoint.
    pub ingest: Arc<Ingest<Journal>>,
    /// The log.
    pub journal: Journal,
    /// The state of the embedded ClickHouse.
    pub engine: Arc<embedded::supervisor::State>,
    /// The aggregator's progress.
    pub progress: Arc<Progress>,
    /// How long records have waited.
    pub lag: Arc<Mutex<Lag>>,
    /// The service's clock.
    pub clock: ingest::Clock,
    /// Time without a written row until counting has stalled.
    pub stall_after: Duration,
}

impl Parts {
    /// Checks everything, and records the aggregator's progress.
    pub fn find(&self) -> Finding {
        let now = Instant::now();
        let is_failing = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
        let pressure = self.journal.pressure().state;
        let mut refusing: Vec<String> = self.ingest.refusal().into_iter().collect();
        if pressure == PressureState::Full {
            refusing.push("the journal is full of records that are not counted yet".to_owned());
        }
        let mut degrading = Vec::new();
        if pressure == PressureState::DropsEarly {
            degrading.push("the journal drops counted records early (`journal_bytes`)".to_owned());
        }
        if !self.engine.answers() {
            degrading.push("ClickHouse does not answer".to_owned());
        }
        if is_failing(&self.progress.store_fails) {
            degrading.push("ClickHouse does not take rows".to_owned());
        }
        if is_failing(&self.progress.source_fails) {
            degrading.push("the journal cannot be read".to_owned());
        }
        if let Some(still) = self.noted_lag(now).stalled(now, self.stall_after) {
            degrading.push(stalled(self.lag_records(), still));
        }
        if let nodes @ 1.. = self.ingest.foreign_keys() {
            degrading.push(format!("{nodes} endpoints have another visitor key"));
        }
        Finding::new(Readiness::Refusing, refusing, degrading)
    }

    /// The current lag.
    fn noted_lag(&self, now: Instant) -> std::sync::MutexGuard<'_, Lag> {
        let mut lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        let position = LagPosition {
            end: *self.journal.end().borrow(),
            committed: self.progress.committed.load(Ordering::Relaxed),
            rows: self.progress.rows.load(Ordering::Relaxed),
        };
        lag.note(now, position);
        lag
    }

    /// The aggregator knows the state of an operator's server.
    fn clickhouse_answers(&self) -> bool {
        self.engine.answers() && (self.engine.is_supervised() || !self.progress.store_fails.load(Ordering::Relaxed))
    }

    fn details(&self) -> serde_json::Map<String, serde_json::Value> {
        let figure = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let progress = &self.progress;
        let mut details = self.ingest.details();
        let clickhouse = json!({"answers": self.clickhouse_answers(), "restarts": self.engine.restarts()});
        details.insert("clickhouse".to_owned(), clickhouse);
        details.insert("journal".to_owned(), self.journal_details());
        let (folded, again) = (figure(&progress.folded), figure(&progress.counted_before));
        let aggregator = json!({
            "counts_again_below": (folded < again).then_some(again),
            "clickhouse": if progress.store_fails.load(Ordering::Relaxed) { "refuses rows" } else { "takes rows" },
            "log": if progress.source_fails.load(Ordering::Relaxed) { "cannot be read" } else { "readable" },
            "folded": folded,
            "committed": figure(&progress.committed),
            "lag": self.lag_records(),
        });
        details.insert("aggregator".to_owned(), aggregator);
        details
    }

    fn journal_details(&self) -> serde_json::Value {
        let pressure = self.journal.pressure();
        let state = match pressure.state {
            PressureState::Normal => "keeps records as long as set",
            PressureState::DropsEarly => "drops counted records early",
            PressureState::Full => "full of records that are not counted yet",
        };
        json!({
            "state": state,
            "stored_bytes": pressure.stored_bytes,
            "capacity_bytes": pressure.capacity_bytes,
            "dropped_early": pressure.dropped_early,
        })
    }

    /// Records that are not known to be in ClickHouse.
    fn lag_records(&self) -> u64 {
        self.journal.end().borrow().saturating_sub(self.progress.committed.load(Ordering::Relaxed))
    }

    /// Registers the metrics that are read at each scrape.
    pub fn register(&self, registry: &mut Registry) {
        self.ingest.metrics.register(registry);
        let parts = self.clone();
        metrics::scraped(registry, move |scrape| parts.scrape(scrape));
    }

    fn scrape(&self, scrape: &mut Scrape<'_>) -> std::fmt::Result {
        scrape.readiness(self.find().readiness)?;
        scrape.endpoint(&self.ingest)?;
        let ((records, bytes), pressure) = (self.journal.queue(), self.journal.pressure());
        scrape.gauge("queue_records", "Records that wait to be written to the journal.", u64::from(records))?;
        scrape.gauge("queue_bytes", "Bytes of these records.", bytes as u64)?;
        scrape.gauge("journal_bytes", "Bytes of records in the journal.", pressure.stored_bytes)?;
        if let Some(capacity) = pressure.capacity_bytes {
            scrape.gauge("journal_capacity_bytes", "Bytes of records that the journal may hold.", capacity)?;
        }
        // An unreadable journal has no age; another metric shows that it is unreadable.
        if let Ok(oldest) = self.journal.oldest_hour() {
            let now = Hour::of((self.clock)());
            let hours = oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
            let help = "Age of the oldest record in the journal, in whole hours.";
            scrape.gauge("journal_age_seconds", help, u64::from(hours) * 3600)?;
        }
        scrape.counter(
            "journal_dropped_early",
            "Counted records that left the journal before their time, because `journal_bytes` was reached.",
            pressure.dropped_early,
        )?;
        let (now, lag) = (Instant::now(), self.noted_lag(Instant::now()));
        let part = Part {
            labels: Vec::new(),
            progress: Arc::clone(&self.progress),
            lag_records: Some(self.lag_records()),
            lag_seconds: lag.age(now).as_secs_f64(),
            is_stalled: lag.stalled(now, self.stall_after).is_some(),
        };
        drop(lag);
        scrape.parts(&[part])?;
        scrape.gauge("clickhouse_answers", "1 while ClickHouse answers.", self.clickhouse_answers())?;
        scrape.counter("clickhouse_restarts", "Restarts of the embedded ClickHouse.", self.engine.restarts())
    }

    /// Serves the operator's listener until the service stops.
    pub async fn show(self, operator: MetricsListener, registry: Registry, stopped: watch::Receiver<bool>) {
        let routes = metrics::routes(registry, move || (self.find(), self.details()));
        if let Err(error) = operator.serve(routes, until(stopped)).await {
            tracing::error!(error = crate::shell::chain(&error), "the listener of `metrics_listen` failed");
        }
    }
}

/// Why stalled counting degrades the service.
pub fn stalled(records: u64, still: Duration) -> String {
    format!("{records} records wait, and nothing has been written to ClickHouse for {} s", still.as_secs())
}
