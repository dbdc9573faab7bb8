//! The generation of what is cached: it changes when the registry or the closed months do.

use super::clock;
use clickhouse::Row;
use serde::Deserialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::time::Instant;

/// Checksums of what reports depend on beside their rows. Equal ones mean that nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Deserialize)]
pub(crate) struct Fingerprint {
    /// Of the projects and the revision of each: a removal and an erasure are new revisions, too.
    pub(crate) registry: u64,
    /// Of the closed months.
    pub(crate) closes: u64,
}

impl Fingerprint {
    /// Reads it from ClickHouse.
    pub(crate) const SQL: &'static str = "SELECT \
        assumeNotNull((SELECT sum(cityHash64(slug, revision)) FROM project FINAL)) AS registry, \
        assumeNotNull((SELECT sum(cityHash64(month, run)) FROM month_close FINAL)) AS closes";
}

struct Polled {
    number: u64,
    fingerprint: Option<Fingerprint>,
    /// When the last poll that was answered started.
    at: Instant,
}

/// The present generation; a clone is the same.
#[derive(Clone)]
pub(crate) struct Generation(Arc<Mutex<Polled>>);

impl Default for Generation {
    fn default() -> Self {
        Generation(Arc::new(Mutex::new(Polled { number: 0, fingerprint: None, at: clock::now() })))
    }
}

impl Generation {
    /// When a poll starts.
    pub(crate) fn poll(&self) -> Instant {
        clock::now()
    }

    /// A poll that started at `started` has read `fingerprint`.
    pub(crate) fn polled(&self, fingerprint: Fingerprint, started: Instant) {
        let mut polled = self.lock();
        if polled.fingerprint != Some(fingerprint) {
            polled.number += 1;
            polled.fingerprint = Some(fingerprint);
        }
        polled.at = started;
    }

    /// The number of the present generation.
    pub(crate) fn number(&self) -> u64 {
        self.lock().number
    }

    /// Whether `number` is the present generation, and a poll was answered `within` this time.
    pub(crate) fn is_still(&self, number: u64, within: Duration) -> bool {
        let polled = self.lock();
        polled.number == number && clock::since(polled.at) < within
    }

    fn lock(&self) -> MutexGuard<'_, Polled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
