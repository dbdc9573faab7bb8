//! Metrics of the beacon endpoint: outcomes of beacons, and durations. No label names a project, a host or a client.

use crate::http::Taken;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use schemas::{Rejection, RejectionReason};
use std::time::Duration;

/// Upper bounds of the latency's buckets, in seconds. The shortest is an answer without a wait for the disk.
const BUCKETS_SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// One label: `outcome`.
type OutcomeLabel = [(&'static str, &'static str); 1];

/// Counters of one endpoint since its start. A clone shares them.
#[derive(Clone, Debug)]
pub struct BeaconMetrics {
    beacons: Family<OutcomeLabel, Counter>,
    seconds: Histogram,
}

impl Default for BeaconMetrics {
    /// Every outcome starts at 0, so that the first one of its kind is an increase.
    fn default() -> Self {
        let metrics = BeaconMetrics { beacons: Family::default(), seconds: Histogram::new(BUCKETS_SECONDS) };
        for name in ["accepted", "opted_out"].into_iter().chain(RejectionReason::ALL.iter().map(|reason| reason.name()))
        {
            drop(metrics.beacons.get_or_create(&[("outcome", name)]));
        }
        metrics
    }
}

impl BeaconMetrics {
    /// Counts a beacon that was answered after `took`.
    pub(crate) fn note(&self, outcome: &Result<Taken, Rejection>, took: Duration) {
        let name = match outcome {
            Ok(Taken::Accepted { .. }) => "accepted",
            Ok(Taken::OptedOut) => "opted_out",
            Ok(Taken::NotCounted(reason)) => reason.name(),
            Err(rejection) => rejection.reason.name(),
        };
        self.beacons.get_or_create(&[("outcome", name)]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("beacons", "Beacons answered, by outcome", self.beacons.clone());
        registry.register(
            "beacon_seconds",
            "From the head of a beacon's request to its answer, in seconds",
            self.seconds.clone(),
        );
    }
}
