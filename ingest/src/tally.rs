//! Refused beacons never reach the log one by one: they are tallied per project and reason, and the tallies are sent as
//! records of their own, so that a flood of rubbish costs one record a second and a maintainer still sees it.

use schemas::{Hour, ProjectSlug, RejectionReason, proto};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the last [`Tally::take`], and totals since the start for `/metrics` and `/readyz`.
#[derive(Default)]
pub struct Tally {
    pending: Mutex<HashMap<(Option<ProjectSlug>, RejectionReason), u64>>,
    refused: AtomicU64,
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

    /// Puts back what could not be sent.
    pub fn put_back(&self, tally: &proto::RejectionTally) {
        if let Some(reason) = RejectionReason::from_number(tally.reason) {
            self.put(tally.project.parse().ok(), reason, tally.count);
        }
    }
}
