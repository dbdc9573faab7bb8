//! The generation of cached reports: it changes with the registry and with the closed months.

use super::clock;
use clickhouse::Row;
use serde::Deserialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::time::Instant;

/// Checksums of what reports depend on besides their rows. Equal checksums mean that nothing changed.
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
    /// When the last successful poll started.
    at: Instant,
}

/// The current generation; a clone shares it.
#[derive(Clone)]
pub(crate) struct Generation(Arc<Mutex<Polled>>);

impl Default for Generation {
    fn default() -> Self {
        Generation(Arc::new(Mutex::new(Polled { number: 0, fingerprint: None, at: clock::now() })))
    }
}

impl Generation {
    /// The start time of a poll.
    pub(crate) fn poll(&self) -> Instant {
        clock::now()
    }

    /// Records that a poll which started at `started` has read `fingerprint`.
    pub(crate) fn polled(&self, fingerprint: Fingerprint, started: Instant) {
        let mut polled = self.lock();
        if polled.fingerprint != Some(fingerprint) {
            polled.number += 1;
            polled.fingerprint = Some(fingerprint);
        }
        polled.at = started;
    }

    /// The number of the current generation.
    pub(crate) fn number(&self) -> u64 {
        self.lock().number
    }

    /// Whether `number` is the current generation, and a poll succeeded `within` this time.
    pub(crate) fn is_still(&self, number: u64, within: Duration) -> bool {
        let polled = self.lock();
        polled.number == number && clock::since(polled.at) < within
    }

    fn lock(&self) -> MutexGuard<'_, Polled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
