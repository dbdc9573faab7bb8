//! Refused beacons never reach the log one by one: they are tallied per project and reason, and the tallies are sent as
//! records of their own, so that a flood of rubbish costs one record a second and a maintainer still sees it.
//!
//! Tallies reach the log at most once: what is certainly not there is sent again, what may be there is not.

use schemas::{Hour, ProjectSlug, RejectionReason, proto};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the last [`Tally::take`], and totals since the start for `/metrics` and `/readyz`.
#[derive(Default)]
pub struct Tally {
    pending: Mutex<HashMap<(Option<ProjectSlug>, RejectionReason), u64>>,
    refused: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    /// Counts `count` refusals. The project is one we know, so that the map stays as small as the registry.
    pub fn add(&self, project: Option<ProjectSlug>, reason: RejectionReason, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
        self.put(project, reason, count);
    }

    fn put(&self, project: Option<ProjectSlug>, reason: RejectionReason, count: u64) {
        let mut pending = self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *pending.entry((project, reason)).or_default() += count;
    }

    /// Refusals since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Tallies since the start of which nobody knows whether the log has them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Counts tallies that will not be sent again, though the log may not have them.
    pub fn lose(&self, tallies: u64) {
        self.lost.fetch_add(tallies, Ordering::Relaxed);
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner).is_empty()
    }

    /// Takes what is pending as messages for the log.
    pub fn take(&self, hour: Hour) -> Vec<proto::RejectionTally> {
        let mut pending = self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pending
            .drain()
            .map(|((project, reason), count)| proto::RejectionTally {
                project: project.map_or_else(String::new, |slug| slug.as_str().to_owned()),
                hour: hour.0,
                reason: reason as u32,
                count,
            })
            .collect()
    }

    /// Puts back what is certainly not in the log.
    pub fn put_back(&self, tally: &proto::RejectionTally) {
        if let Some(reason) = RejectionReason::from_number(tally.reason) {
            self.put(tally.project.parse().ok(), reason, tally.count);
        }
    }
}
