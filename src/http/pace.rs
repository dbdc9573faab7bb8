//! How fast a client must read: no pause of ten seconds, and 1 KiB a second over a minute. hyper has no such limit.

use std::time::Duration;
use tokio::time::Instant;

/// How long pending output may make no progress.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Span over which the rate of pending output is measured.
const WINDOW: Duration = Duration::from_secs(60);
/// Bytes that a client must take within [`WINDOW`]: 1 KiB a second.
const WINDOW_BYTES: u64 = 60 << 10;

/// Progress of one connection's pending output. It starts when the kernel accepts no more bytes, and ends when all are written.
#[derive(Debug)]
pub(super) struct Pace {
    progressed_at: Instant,
    window_start: Instant,
    window_bytes: u64,
}

impl Pace {
    /// Output that is pending since `now`.
    pub(super) fn new(now: Instant) -> Self {
        Pace { progressed_at: now, window_start: now, window_bytes: 0 }
    }

    /// The kernel took `bytes` more.
    pub(super) fn progress(&mut self, now: Instant, bytes: usize) {
        if bytes > 0 {
            self.progressed_at = now;
            self.window_bytes += bytes as u64;
        }
    }

    /// When to check again, or none if the client is too slow.
    pub(super) fn check(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.progressed_at + STALL_TIMEOUT {
            return None;
        }
        if now >= self.window_start + WINDOW {
            if self.window_bytes < WINDOW_BYTES {
                return None;
            }
            (self.window_start, self.window_bytes) = (now, 0);
        }
        Some((self.progressed_at + STALL_TIMEOUT).min(self.window_start + WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until a client is too slow that takes `bytes` every `every` seconds; none within an hour.
    fn too_slow_after(bytes: usize, every: u64) -> Option<u64> {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        (1..3600).find(|&second| {
            let now = start + Duration::from_secs(second);
            let verdict = pace.check(now);
            if second % every == 0 {
                pace.progress(now, bytes);
            }
            verdict.is_none()
        })
    }

    #[test]
    fn a_client_that_pauses_or_trickles_is_too_slow() {
        assert_eq!(too_slow_after(0, 1), Some(10), "no progress at all");
        assert_eq!(too_slow_after(1 << 20, 11), Some(10), "much, after a long pause");
        assert_eq!(too_slow_after(1000, 1), Some(60), "a little less than 1 KiB a second");
        assert_eq!(too_slow_after(1100, 1), None, "a little more");
        assert_eq!(too_slow_after(10 << 10, 9), None, "the same in pieces");
    }

    #[test]
    fn the_next_check_is_never_in_the_past() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.check(start), Some(start + STALL_TIMEOUT));
        for second in 1..180 {
            let now = start + Duration::from_secs(second);
            pace.progress(now, 2048);
            assert!(pace.check(now).is_some_and(|next| next > now && next <= now + STALL_TIMEOUT), "{second}");
        }
    }
}
