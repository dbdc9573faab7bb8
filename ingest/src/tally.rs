//! Refused beacons never reach the log one by one: they are tallied per project and reason, and the tallies are sent as
//! records of their own, so that a flood of rubbish costs one record a second and a maintainer still sees it.
//!
//! A tally has a random id. One whose fate is unknown is sent again as it was, and the fold drops the repeat (within one
//! window of the log).

use crate::ids;
use schemas::{Hour, ProjectSlug, RejectionReason, proto};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts since the last [`Tally::take`], and the total since the start for `/metrics` and `/readyz`.
#[derive(Default)]
pub struct Tally {
    pending: Mutex<HashMap<(Option<ProjectSlug>, RejectionReason), u64>>,
    /// Taken before, and not known to be in the log.
    unsent: Mutex<Vec<proto::RejectionTally>>,
    refused: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Counts `count` refusals. The project is one we know, so that the map stays as small as the registry.
    pub fn add(&self, project: Option<ProjectSlug>, reason: RejectionReason, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
        *locked(&self.pending).entry((project, reason)).or_default() += count;
    }

    /// Refusals since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        locked(&self.pending).is_empty() && locked(&self.unsent).is_empty()
    }

    /// Takes what is pending as messages for the log: those that were put back as they are, then new ones.
    pub fn take(&self, hour: Hour) -> Vec<proto::RejectionTally> {
        let mut tallies = std::mem::take(&mut *locked(&self.unsent));
        tallies.extend(locked(&self.pending).drain().map(|((project, reason), count)| proto::RejectionTally {
            project: project.map_or_else(String::new, |slug| slug.as_str().to_owned()),
            hour: hour.0,
            reason: reason as u32,
            count,
            id: ids::draw(),
        }));
        tallies
    }

    /// Puts back what is not known to be in the log. It keeps its id, and so must not grow.
    pub fn put_back(&self, tally: proto::RejectionTally) {
        locked(&self.unsent).push(tally);
    }
}
