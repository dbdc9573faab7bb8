//! Metrics that are read at each scrape, from state that the roles have anyway. Event counters are registered where the events happen
//! ([`ingest::metrics`], [`aggregate::metrics`], [`super::reports`], [`crate::mail`]).

use crate::health::Readiness;
use aggregate::progress::Progress;
use ingest::Ingest;
use ingest::sink::Sink;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Labels with their values.
pub type Labels = Vec<(&'static str, String)>;

/// One value.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A count, or bytes.
    Whole(u64),
    /// Seconds.
    Seconds(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Whole(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Whole(u64::from(value))
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Seconds(value)
    }
}

/// The writer of one scrape's metrics. Names are without the prefix `headcount_`, and those of counters without `_total`.
pub struct Scrape<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Scrape<'_> {
    /// A metric with a value for each set of labels.
    ///
    /// # Errors
    /// None if the output is a string.
    pub fn family<V: Into<Value>>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in values {
            let sample = metric.encode_family(&labels)?;
            match (kind, value.into()) {
                (MetricType::Counter, Value::Whole(value)) => ConstCounter::new(value).encode(sample)?,
                (MetricType::Counter, Value::Seconds(value)) => ConstCounter::new(value).encode(sample)?,
                (_, Value::Whole(value)) => ConstGauge::new(value).encode(sample)?,
                (_, Value::Seconds(value)) => ConstGauge::new(value).encode(sample)?,
            }
        }
        Ok(())
    }

    /// A gauge without labels.
    ///
    /// # Errors
    /// As for [`Scrape::family`].
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Value>) -> fmt::Result {
        self.family(MetricType::Gauge, name, help, [(Labels::new(), value)])
    }

    /// A counter without labels.
    ///
    /// # Errors
    /// As for [`Scrape::family`].
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(MetricType::Counter, name, help, [(Labels::new(), value)])
    }

    /// Whether the role is ready, as `/readyz` reports.
    ///
    /// # Errors
    /// As for [`Scrape::family`].
    pub fn readiness(&mut self, found: Readiness) -> fmt::Result {
        let states = Readiness::ALL.map(|state| (vec![("state", state.word().to_owned())], u64::from(state == found)));
        self.family(MetricType::Gauge, "readiness", "1 for the state that /readyz answers, 0 for the others.", states)
    }

    /// Metrics of every beacon endpoint.
    ///
    /// # Errors
    /// As for [`Scrape::family`].
    pub fn endpoint<S: Sink>(&mut self, ingest: &Ingest<S>) -> fmt::Result {
        self.counter("refused_beacons", "Beacons refused, for any reason.", ingest.refused_beacons())?;
        self.counter(
            "untrusted_forwarded_beacons",
            "Beacons with X-Forwarded-For from a peer that is not in trusted_proxy.",
            ingest.untrusted_forwarded_beacons(),
        )?;
        self.gauge(
            "nodes_with_another_key",
            "Endpoints that have another visitor key: visitors who meet both count twice.",
            ingest.foreign_keys(),
        )?;
        self.gauge(
            "robot_rules_version",
            "Version of the rules by which robots are found.",
            u64::from(ingest::agents::RULES_VERSION),
        )?;
        self.gauge("projects", "Active registered projects.", ingest.projects.len() as u64)
    }

    /// Metrics of the cache of reports.
    ///
    /// # Errors
    /// As for [`Scrape::family`].
    pub fn report_cache(&mut self, found: &query::CacheFigures) -> fmt::Result {
        let answers = [
            ("hit", found.hits),
            ("miss", found.misses),
            ("stale", found.stale - found.stale_if_error),
            ("stale_if_error", found.stale_if_error),
        ];
        let answers = answers.map(|(state, count)| (vec![("state", state.to_owned())], count));
        let help = "Reports answered with the cache, by state: hit, miss, stale, stale_if_error.";
        self.family(MetricType::Counter, "report_cache_answers", help, answers)?;
        let help = "Refreshes of cached reports in the background.";
        self.counter("report_cache_refreshes", help, found.refreshes)?;
        self.counter("report_computations", "Computations of reports, failed ones included.", found.computations)?;
        let help = "Time of these computations, their wait for a turn included.";
        let seconds = found.computing_us as f64 / 1e6;
        self.family(MetricType::Counter, "report_computing_seconds", help, [(Labels::new(), seconds)])?;
        self.gauge("report_cache_bytes", "Bytes of cached reports.", found.bytes)
    }

    /// Metrics of counting, for each of these parts of the log.
    ///
    /// # Errors
    /// As for [`Scrape::family`].
    pub fn parts(&mut self, parts: &[Part]) -> fmt::Result {
        let mut gauges = |name: &str, help: &str, value: &dyn Fn(&Part) -> Option<Value>| {
            let values = parts.iter().filter_map(|part| Some((part.labels.clone(), value(part)?)));
            self.family(MetricType::Gauge, name, help, values)
        };
        let of = |figure: fn(&Progress) -> &AtomicU64| {
            move |part: &Part| Some(figure(&part.progress).load(Ordering::Relaxed).into())
        };
        gauges("lag_records", "Records that are not known to be in ClickHouse.", &|part| {
            part.lag_records.map(Into::into)
        })?;
        gauges("lag_seconds", "For how long the oldest of these records has been waiting.", &|part| {
            Some(part.lag_seconds.into())
        })?;
        gauges(
            "counting_stalled",
            "1 while records wait and nothing has been written for stall_after_seconds.",
            &|part| Some(part.is_stalled.into()),
        )?;
        gauges("folded_offset", "Offset after the last record folded.", &of(|progress| &progress.folded))?;
        gauges("committed_offset", "Offset below which all is in ClickHouse.", &of(|progress| &progress.committed))?;
        gauges("window_start", "First offset of the open window.", &of(|progress| &progress.window))?;
        gauges("window_bytes", "Bytes of records in the open window.", &of(|progress| &progress.window_bytes))?;
        gauges("window_cells", "Accumulators of the open window.", &of(|progress| &progress.cells))?;
        let undecodable = "Records of the open window that do not decode.";
        gauges("window_undecodable", undecodable, &of(|progress| &progress.undecodable))?;
        gauges("store_failing", "1 while ClickHouse does not take rows.", &|part| {
            Some(part.progress.store_fails.load(Ordering::Relaxed).into())
        })?;
        let mut counters = |name: &str, help: &str, figure: fn(&Progress) -> &AtomicU64| {
            let values = parts.iter().map(|part| (part.labels.clone(), figure(&part.progress).load(Ordering::Relaxed)));
            self.family(MetricType::Counter, name, help, values)
        };
        counters("rows", "Rows written.", |progress| &progress.rows)?;
        let failed_writes = "Writes that ClickHouse did not acknowledge; they are sent again.";
        counters("failed_writes", failed_writes, |progress| &progress.failed_writes)?;
        counters("failed_commits", "Commits that the log did not take.", |progress| &progress.failed_commits)
    }
}

/// One part of the log that is counted separately: the journal, or a partition.
pub struct Part {
    /// Its labels: none for a journal.
    pub labels: Labels,
    /// The progress that the part's counting loop publishes.
    pub progress: Arc<Progress>,
    /// Records that are not known to be in ClickHouse, if the log's end is known.
    pub lag_records: Option<u64>,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Whether counting has stalled.
    pub is_stalled: bool,
}

/// A collector that calls a function.
pub(super) struct Scraped<F>(pub(super) F);

impl<F> fmt::Debug for Scraped<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scraped")
    }
}

impl<F: Fn(&mut Scrape<'_>) -> fmt::Result + Send + Sync + 'static> Collector for Scraped<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Scrape { encoder })
    }
}
