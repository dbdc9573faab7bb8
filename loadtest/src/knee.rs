//! The knee: the highest rate that a server keeps up with. It keeps up while 99 of 100 beacons are answered within 50 ms of their due time, and every
//! one is accepted.

use serde::Serialize;

use crate::figures::Figures;

/// Latency that 99 of 100 beacons must have, in milliseconds.
pub const P99_MS: f64 = 50.0;
/// Highest rate that is tried.
const HIGHEST: f64 = 400_000.0;
/// The search ends once the highest sustained rate and the lowest unsustained one differ by at most this factor.
const NEAR: f64 = 1.06;
/// Maximum number of stages.
const STAGES: usize = 24;

/// One stage of the search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Due beacons a second.
    pub rate: f64,
    /// Whether the server kept up.
    pub kept: bool,
    /// The observed figures.
    pub figures: Figures,
}

/// Which side limited the rate when the server did not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// The client: its threads were busy, or it sent late although connections were free.
    Client,
    /// The server, or its share of the machine: the client was not busy all the time.
    Server,
}

/// A client whose threads are this busy has no time left.
const BUSY: f64 = 0.9;
/// A client that sends this late although it could is late by itself, in milliseconds.
const LATE_MS: f64 = 10.0;

impl Limit {
    /// Derived from the figures of a stage without keeping up, with a client of this many threads. If both share a saturated machine, neither may
    /// show it, so the knee of a server that does nothing is measured as well.
    #[must_use]
    pub fn of(figures: &Figures, threads: u32) -> Self {
        let busy = figures.client_processors().is_some_and(|busy| busy >= BUSY * f64::from(threads));
        let late = figures.client_lag_ms.is_some_and(|lag| lag.p99 >= LATE_MS);
        if busy || late { Self::Client } else { Self::Server }
    }
}

/// The result of the search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Knee {
    /// The highest sustained rate; none if not even the first was.
    pub rate: Option<f64>,
    /// What limited the lowest unsustained rate; none if all were sustained.
    pub limit: Option<Limit>,
    /// All stages, in their order.
    pub stages: Vec<Stage>,
}

/// Whether a server kept up with `rate`, by the figures of a stage.
#[must_use]
pub fn kept(figures: &Figures, rate: f64) -> bool {
    let brisk = figures.latency_ms.is_some_and(|latency| latency.p99 <= P99_MS);
    // A client that cannot send fast enough reveals nothing about the server.
    brisk && figures.errors() == 0 && figures.requests_per_second >= 0.97 * rate
}

/// Doubles the rate from `first` until the server does not keep up, or halves it until it does, and then bisects between the two. `stage` returns the
/// figures at a rate, with a client of this many threads.
///
/// # Errors
/// Those of `stage`.
pub fn find<E>(first: f64, threads: u32, mut stage: impl FnMut(f64) -> Result<Figures, E>) -> Result<Knee, E> {
    let (mut low, mut high): (Option<f64>, Option<f64>) = (None, None);
    let mut knee = Knee { rate: None, limit: None, stages: Vec::new() };
    while knee.stages.len() < STAGES {
        let rate = match (low, high) {
            (None, None) => first,
            (Some(low), None) if low >= HIGHEST => break,
            (Some(low), None) => (2.0 * low).min(HIGHEST),
            (None, Some(high)) if high < first / 64.0 => break,
            (None, Some(high)) => high / 2.0,
            (Some(low), Some(high)) if high / low <= NEAR => break,
            (Some(low), Some(high)) => (low * high).sqrt(),
        };
        let figures = stage(rate)?;
        let kept = kept(&figures, rate);
        if kept {
            low = Some(rate);
        } else {
            high = Some(rate);
            knee.limit = Some(Limit::of(&figures, threads));
        }
        knee.stages.push(Stage { rate, kept, figures });
    }
    knee.rate = low;
    Ok(knee)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;
    use crate::drive::Observed;
    use crate::figures::TARGET;

    /// A server that is quick up to `limit` and slow above.
    fn server(limit: f64) -> impl FnMut(f64) -> Result<Figures, Infallible> {
        move |rate| {
            let micros = if rate <= limit { 2_000 } else { 900_000 };
            let answers = vec![(micros, 202); 1_000];
            let elapsed = Duration::from_secs_f64(1_000.0 / rate);
            let observed = Observed { answers, due: 1_000, elapsed, ..Observed::default() };
            Ok(Figures::new(TARGET, 0, &observed, None, None))
        }
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for limit in [700.0, 1_000.0, 23_456.0] {
            let Ok(knee) = find(1_000.0, 1, server(limit));
            let rate = knee.rate.unwrap();
            assert!(rate <= limit && rate * NEAR > limit * 0.999, "{rate} of {limit}");
        }
        let Ok(knee) = find(1_000.0, 1, server(1e9));
        assert_eq!(knee.rate, Some(HIGHEST));
        let Ok(knee) = find(1_000.0, 1, server(0.1));
        assert_eq!(knee.rate, None);
    }

    #[test]
    fn the_limit_is_the_process_without_idle_time() {
        let of = |client_cpu: f64, lag_micros: u32| {
            let (answers, lags) = (vec![(900_000, 202); 1_000], vec![lag_micros; 1_000]);
            let observed =
                Observed { answers, lags, due: 1_000, elapsed: Duration::from_secs(1), ..Observed::default() };
            Figures::new(TARGET, 0, &observed, None, Some(client_cpu))
        };
        assert_eq!(Limit::of(&of(0.3, 900), 1), Limit::Server);
        assert_eq!(Limit::of(&of(0.95, 900), 1), Limit::Client);
        assert_eq!(Limit::of(&of(0.95, 900), 2), Limit::Server, "half of it was idle");
        assert_eq!(Limit::of(&of(0.3, 30_000), 1), Limit::Client);
        let Ok(knee) = find(1_000.0, 1, server(5_000.0));
        assert_eq!(knee.limit, Some(Limit::Server));
        let Ok(knee) = find(1_000.0, 1, server(1e9));
        assert_eq!(knee.limit, None);
    }

    #[test]
    fn a_server_that_sheds_or_lags_does_not_keep_up() {
        let of = |answers: Vec<(u32, u16)>, seconds: f64| {
            let (due, elapsed) = (100, Duration::from_secs_f64(seconds));
            Figures::new(TARGET, 0, &Observed { answers, due, elapsed, ..Observed::default() }, None, None)
        };
        assert!(kept(&of(vec![(1_000, 202); 100], 1.0), 100.0));
        assert!(!kept(&of(vec![(1_000, 202); 100], 1.5), 100.0), "the client did not get rid of them");
        assert!(!kept(&of([vec![(1_000, 202); 99], vec![(1_000, 503)]].concat(), 1.0), 100.0));
        assert!(!kept(&of(vec![(60_000, 202); 100], 1.0), 100.0));
        assert!(!kept(&of(vec![(1_000, 202); 99], 1.0), 100.0), "one was due and never sent");
    }
}
