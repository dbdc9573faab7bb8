//! One run in numbers.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::drive::Observed;
use crate::table::{Measure, Run};

/// The answer that counts as success.
pub const ACCEPTED: u16 = 202;

/// The side of the reference that does nothing.
pub const NOOP: &str = "noop";
/// The side of the server under test.
pub const TARGET: &str = "target";

/// Latency of the answered requests of a run, whatever their status, in milliseconds; three significant digits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub struct LatencyMs {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Processor time a run took, in seconds per 1,000 answered requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CpuPer1000 {
    /// Of the server process without its children; `None` if its process id is not known.
    pub server: Option<f64>,
    /// Of the load test itself, which shares the machine; `None` where there is no `/proc`.
    pub client: Option<f64>,
}

/// One run in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Which server: [`NOOP`] or [`TARGET`].
    pub side: &'static str,
    /// Number of the pair, from 0.
    pub run: u32,
    /// Beacons that were due: shares are of these.
    pub due: u64,
    /// Of these, those that were never sent, since no connection was free in time.
    pub unsent: u64,
    /// Requests with an answer.
    pub answered: u64,
    /// Answered requests by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests lost to a broken connection or an answer that was not understood.
    pub transport_errors: u64,
    /// Requests without an answer when the run was given up.
    pub unanswered: u64,
    /// The first transport error.
    pub first_error: Option<String>,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Answered requests a second.
    pub requests_per_second: f64,
    /// `None` if nothing was answered.
    pub latency_ms: Option<LatencyMs>,
    /// Beacons of an open loop that went out late because every connection waited for an answer.
    pub queued: u64,
    /// By how much the others went out late: the client's own lag. `None` in a closed loop.
    pub client_lag_ms: Option<LatencyMs>,
    /// Processor time.
    pub cpu_seconds_per_1000: Option<CpuPer1000>,
    /// From the last answer until all that was accepted is in the report; none where that is not measured.
    pub counted_after_seconds: Option<f64>,
}

impl Figures {
    /// The figures of a run that observed `observed`, in which the server and the client used so many seconds of
    /// processor time.
    #[must_use]
    pub fn new(
        side: &'static str,
        run: u32,
        observed: &Observed,
        server_cpu: Option<f64>,
        client_cpu: Option<f64>,
    ) -> Self {
        let answered = observed.answers.len() as u64;
        let mut statuses = BTreeMap::new();
        for (_, status) in &observed.answers {
            *statuses.entry(*status).or_insert(0) += 1;
        }
        let seconds = observed.elapsed.as_secs_f64();
        let per_1000 = |cpu: f64| cpu * 1_000.0 / answered as f64;
        Self {
            side,
            run,
            due: observed.due,
            unsent: observed.unsent,
            answered,
            statuses,
            transport_errors: observed.transport_errors,
            unanswered: observed.unanswered,
            first_error: observed.first_error.clone(),
            seconds,
            requests_per_second: if answered == 0 { 0.0 } else { answered as f64 / seconds },
            latency_ms: milliseconds(observed.answers.iter().map(|(micros, _)| *micros)),
            queued: observed.queued,
            client_lag_ms: milliseconds(observed.lags.iter().copied()),
            cpu_seconds_per_1000: (answered > 0)
                .then(|| CpuPer1000 { server: server_cpu.map(per_1000), client: client_cpu.map(per_1000) }),
            counted_after_seconds: None,
        }
    }

    /// Beacons that were due and not answered 202.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.due.saturating_sub(self.accepted())
    }

    /// Beacons that were answered 202.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.statuses.get(&ACCEPTED).copied().unwrap_or(0)
    }

    /// Those, of all that were due.
    #[must_use]
    pub fn accepted_share(&self) -> f64 {
        self.accepted() as f64 / self.due.max(1) as f64
    }

    /// Processors that the client kept busy, of as many as it has threads; `None` where there is no `/proc`.
    #[must_use]
    pub fn client_processors(&self) -> Option<f64> {
        let per_1000 = self.cpu_seconds_per_1000?.client?;
        Some(per_1000 * self.answered as f64 / 1_000.0 / self.seconds)
    }

    /// What went how often, as in `202 × 49990, 429 × 10`.
    #[must_use]
    pub fn outcome(&self) -> String {
        let mut parts: Vec<String> = self.statuses.iter().map(|(status, n)| format!("{status} × {n}")).collect();
        if self.transport_errors > 0 {
            let first = self.first_error.as_deref().unwrap_or("unknown");
            parts.push(format!("connection errors × {} (first: {first})", self.transport_errors));
        }
        if self.unanswered > 0 {
            parts.push(format!("unanswered × {}", self.unanswered));
        }
        if self.unsent > 0 {
            parts.push(format!("due and unsent × {}", self.unsent));
        }
        if parts.is_empty() { "nothing was posted".to_owned() } else { parts.join(", ") }
    }
}

/// What tables of runs show.
pub const MEASURES: [Measure<Figures>; 11] = [
    ("requests/s", 0, |f, _| Some(f.requests_per_second)),
    ("… of the no-op server's", 2, |f, noop| Some(f.requests_per_second / noop?.requests_per_second)),
    ("p50 ms", 2, |f, _| Some(f.latency_ms?.p50)),
    ("p90 ms", 2, |f, _| Some(f.latency_ms?.p90)),
    ("p99 ms", 2, |f, _| Some(f.latency_ms?.p99)),
    ("… of the no-op server's", 2, |f, noop| Some(f.latency_ms?.p99 / noop?.latency_ms?.p99)),
    ("p99.9 ms", 2, |f, _| Some(f.latency_ms?.p99_9)),
    ("max ms", 2, |f, _| Some(f.latency_ms?.max)),
    ("server CPU s/1,000", 4, |f, _| f.cpu_seconds_per_1000?.server),
    ("client CPU s/1,000", 4, |f, _| f.cpu_seconds_per_1000?.client),
    ("s from last answer to counted", 2, |f, _| f.counted_after_seconds),
];

impl Run for Figures {
    fn column(&self) -> String {
        self.side.to_owned()
    }

    fn round(&self) -> u32 {
        self.run
    }
}

fn milliseconds(micros: impl Iterator<Item = u32>) -> Option<LatencyMs> {
    // Filled after the run, from plain numbers: 256 histograms would push the server out of the cache.
    let mut histogram = Histogram::<u64>::new_with_max(u64::from(u32::MAX), 3).ok()?;
    micros.for_each(|micros| histogram.saturating_record(u64::from(micros).max(1)));
    LatencyMs::of(&histogram)
}

impl LatencyMs {
    /// Of a histogram of microseconds; none of an empty one.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let ms = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1_000.0;
        (!histogram.is_empty()).then(|| Self {
            p50: ms(0.5),
            p90: ms(0.9),
            p99: ms(0.99),
            p99_9: ms(0.999),
            max: ms(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_run_in_numbers() {
        let mut answers: Vec<(u32, u16)> = (1..=998).map(|n| (n * 1_000, 202)).collect();
        answers.extend([(1_000_000, 429), (999_000, 503)]);
        let observed = Observed {
            answers,
            due: 2_000,
            unsent: 996,
            queued: 700,
            lags: vec![500; 304],
            transport_errors: 3,
            unanswered: 1,
            elapsed: Duration::from_secs(4),
            ..Default::default()
        };
        let figures = Figures::new(TARGET, 0, &observed, Some(0.5), Some(0.25));
        assert_eq!(figures.requests_per_second, 250.0);
        assert_eq!((figures.errors(), figures.accepted_share()), (1_002, 0.499));
        assert_eq!(figures.cpu_seconds_per_1000, Some(CpuPer1000 { server: Some(0.5), client: Some(0.25) }));
        assert_eq!((figures.queued, figures.client_lag_ms.map(|lag| lag.p99)), (700, Some(0.5)));
        assert_eq!(figures.client_processors(), Some(0.0625));
        let latency = figures.latency_ms.unwrap();
        for (got, expected) in
            [(latency.p50, 500.0), (latency.p90, 900.0), (latency.p99, 990.0), (latency.max, 1_000.0)]
        {
            assert!((got - expected).abs() / expected < 0.001, "{got} instead of {expected}");
        }
        assert_eq!(
            figures.outcome(),
            "202 × 998, 429 × 1, 503 × 1, connection errors × 3 (first: unknown), unanswered × 1, due and unsent × 996"
        );
    }

    #[test]
    fn a_run_without_answers_has_no_latency_and_no_nan() {
        let figures = Figures::new(NOOP, 0, &Observed::default(), Some(0.0), None);
        assert_eq!((figures.requests_per_second, figures.latency_ms, figures.cpu_seconds_per_1000), (0.0, None, None));
        assert_eq!(figures.outcome(), "nothing was posted");
    }
}
