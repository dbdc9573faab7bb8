//! The time of the cache. Unit tests have a paused clock, one in each thread. (tokio's paused clock would need a feature with which the
//! whole workspace is compiled twice, and the cache has no timers.)

use std::time::{Duration, Instant};

#[cfg(not(test))]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
thread_local! {
    static PAUSED: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
pub(super) fn now() -> Instant {
    let now = PAUSED.get().unwrap_or_else(Instant::now);
    PAUSED.set(Some(now));
    now
}

/// Advances the clock of this thread.
#[cfg(test)]
pub(super) fn advance(by: Duration) {
    PAUSED.set(Some(now() + by));
}

/// Time since `then`.
pub(super) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}
