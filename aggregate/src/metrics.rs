//! Metrics of flushes, over all partitions.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// Upper bounds of the buckets of a flush's time, in seconds. If ClickHouse does not answer, the flush is given up after
/// `clickhouse_timeout_ms`, 30 s by default.
const BUCKETS_SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How long flushes took, and how many failed. A clone shares them.
#[derive(Clone, Debug)]
pub struct FlushMetrics {
    seconds: Histogram,
    failures: Counter,
}

impl Default for FlushMetrics {
    fn default() -> Self {
        FlushMetrics { seconds: Histogram::new(BUCKETS_SECONDS), failures: Counter::default() }
    }
}

impl FlushMetrics {
    /// Records an attempt to insert a flush's rows. A failed attempt is repeated, and each attempt counts.
    pub(crate) fn observe(&self, is_written: bool, took: Duration) {
        if is_written {
            self.seconds.observe(took.as_secs_f64());
        } else {
            self.failures.inc();
        }
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "flush_seconds",
            "Inserting the rows of one flush into ClickHouse until all are acknowledged, in seconds",
            self.seconds.clone(),
        );
        registry.register("flush_failures", "Attempts to insert a flush that failed", self.failures.clone());
    }
}
