//! Requests reports while the month is counted: an open loop, of projects that are drawn by their traffic.
//!
//! Request k is due k / rate seconds after the start, whatever the outcome of earlier ones, and its duration counts from then. So a service that
//! stalls for ten seconds has ten seconds' worth of slow responses, and not one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use schemas::Month;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::beacons::page_host;
use super::plan::Plan;
use crate::figures::LatencyMs;
use crate::kafka::database::Database;
use crate::random::{SplitMix64, Zipf};
use crate::role::{self, Answer};

/// How long after its due time a request may be unanswered.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
/// Concurrent requests: as many as the service computes concurrently for one network. With more, a slow machine answers 429, which depends on the
/// probe and not on the service. Further requests wait here, and their wait is part of their duration.
const AT_ONCE: usize = 2;
/// Interval between two checks whether to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The observations of the report users.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Probed {
    /// Requests due each second.
    pub rate: u32,
    /// Requests that were due.
    pub asked: u64,
    /// Reports that were answered 200.
    pub reports: u64,
    /// Requests for projects of which nothing was counted yet, which are answered with 404.
    pub not_yet: u64,
    /// Requests that the service was too busy for and answered with 429: the effect of a rate on a slow machine.
    pub refused: u64,
    /// Requests that were answered with another status, or not within 120 s of their due time.
    pub failed: u64,
    /// The outcome of the first of these.
    pub first_failure: Option<String>,
    /// Of the reports, from their due time to the last byte.
    pub latency_ms: Option<LatencyMs>,
    /// Of the reports, those that the cache had, stale ones included.
    pub hits: u64,
    /// Reports that were computed for the request.
    pub misses: u64,
    /// The largest report in bytes.
    pub largest_bytes: u64,
}

/// Registers every project with a public report, so that requests need no token.
///
/// # Errors
/// ClickHouse refuses.
pub async fn register(plan: &Plan, database: &Database) -> anyhow::Result<()> {
    const AT_ONCE: u32 = 5_000;
    let name = &database.name;
    for first in (0..plan.size().projects).step_by(AT_ONCE as usize) {
        let last = (first + AT_ONCE).min(plan.size().projects);
        let row = |number| {
            let slug = plan.slug(number);
            format!("('{slug}',['{}'],0,1,1)", page_host(slug))
        };
        let rows: Vec<String> = (first..last).map(row).collect();
        let sql =
            format!("INSERT INTO {name}.project (slug, hosts, removed, revision, public) VALUES {}", rows.join(","));
        database.execute(&sql).await.context("registering the month's projects")?;
    }
    Ok(())
}

/// The requests and their target.
pub struct Readers {
    /// The service's port on this machine.
    pub port: u16,
    /// Requests a second.
    pub rate: u32,
    path: Box<dyn Fn(u64) -> String + Send + Sync>,
}

impl Readers {
    /// The path of request `k`.
    pub fn new(port: u16, rate: u32, path: impl Fn(u64) -> String + Send + Sync + 'static) -> Self {
        Self { port, rate, path: Box::new(path) }
    }

    /// Requests for the month's projects, drawn by their traffic.
    #[must_use]
    pub fn by_traffic(plan: Arc<Plan>, port: u16, rate: u32) -> Self {
        // Like the views: one over the rank.
        let (projects, seed) = (Zipf::new(plan.slugs.len(), 1.0), plan.seed ^ 0xa5c);
        let project = move |k| projects.sample(&mut SplitMix64::new(SplitMix64::nth(seed, k)));
        Self::new(port, rate, move |k| report_path(plan.slug(project(k) as u32), plan.month))
    }

    /// Sends requests until stopped, then waits for the responses to all that were due.
    ///
    /// # Errors
    /// The histogram cannot be created. A failed request is a figure.
    pub async fn ask(self, stop: &AtomicBool) -> anyhow::Result<Probed> {
        let (readers, slots) = (Arc::new(self), Arc::new(Semaphore::new(AT_ONCE)));
        let mut histogram = Histogram::<u64>::new_with_max(u64::from(u32::MAX), 3)?;
        let mut probed = Probed { rate: readers.rate, ..Probed::default() };
        let (begun, mut questions) = (Instant::now(), tokio::task::JoinSet::new());
        loop {
            let due = begun + Duration::from_secs_f64(probed.asked as f64 / f64::from(readers.rate));
            while Instant::now() < due && !stop.load(Ordering::Relaxed) {
                tokio::time::sleep_until(due.min(Instant::now() + POLL_INTERVAL)).await;
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let (readers, slots, k) = (Arc::clone(&readers), Arc::clone(&slots), probed.asked);
            probed.asked += 1;
            questions.spawn(async move { readers.one(k, due, &slots).await });
            // So that responses are not stored for an hour.
            while let Some(answer) = questions.try_join_next() {
                probed.note(answer?, &mut histogram);
            }
        }
        while let Some(answer) = questions.join_next().await {
            probed.note(answer?, &mut histogram);
        }
        probed.latency_ms = LatencyMs::of(&histogram);
        Ok(probed)
    }

    async fn one(&self, k: u64, due: Instant, slots: &Semaphore) -> anyhow::Result<(Answer, Duration)> {
        let path = (self.path)(k);
        let question = async {
            let _slot = slots.acquire().await?;
            role::answer(self.port, &path, "").await.context("asking the query service")
        };
        let answer = tokio::time::timeout_at(due + WAIT_TIMEOUT, question).await;
        let answer = answer.with_context(|| format!("{path} was not answered in time"))??;
        let status = answer.status;
        ensure!(matches!(status, 200 | 404 | 429), "{path} was answered {status}");
        Ok((answer, due.elapsed()))
    }
}

/// The path of a month's report.
#[must_use]
pub fn report_path(slug: &str, month: Month) -> String {
    format!("/v1/projects/{slug}/reports/{month}")
}

impl Probed {
    fn note(&mut self, answer: anyhow::Result<(Answer, Duration)>, histogram: &mut Histogram<u64>) {
        match answer {
            Ok((answer, took)) if answer.status == 200 => {
                histogram.saturating_record((took.as_micros() as u64).max(1));
                self.reports += 1;
                self.hits += u64::from(answer.is_hit());
                self.misses += u64::from(!answer.is_hit());
                self.largest_bytes = self.largest_bytes.max(answer.body.len() as u64);
            }
            Ok((Answer { status: 429, .. }, _)) => self.refused += 1,
            Ok(_) => self.not_yet += 1,
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::month::plan::Size;

    fn readers(projects: u32, port: u16, rate: u32) -> Readers {
        let plan = Plan::new(5, "2026-02".parse().unwrap(), Size { projects, views: 10_000 });
        Readers::by_traffic(Arc::new(plan), port, rate)
    }

    /// A service that answers nothing for `stalled` from the first request on, and then with `status`. Sends requests until thirty are answered.
    async fn asked(stalled: Duration, status: u16) -> Probed {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut until = None;
        let (answered, mut count) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let until = *until.get_or_insert_with(|| Instant::now() + stalled);
                let answered = answered.clone();
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    tokio::time::sleep_until(until).await;
                    let _ = stream.write_all(format!("HTTP/1.1 {status} x\r\n\r\n{{}}").as_bytes()).await;
                    answered.send_modify(|answered| *answered += 1);
                });
            }
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = tokio::spawn(async move { readers(30, port, 50).ask(&stopped).await });
        count.wait_for(|answered| *answered >= 30).await.unwrap();
        stop.store(true, Ordering::Relaxed);
        asking.await.unwrap().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_stalls_is_asked_on_and_every_question_waited() {
        let probed = asked(Duration::from_millis(400), 200).await;
        assert!(probed.asked >= 30 && probed.reports == probed.asked, "{probed:?}");
        // Twenty were due in the stall. A closed loop would have sent one request in it.
        let latency = probed.latency_ms.unwrap();
        assert!(latency.max >= 350.0 && latency.p90 >= 40.0, "{latency:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn answers_that_are_no_reports_are_figures() {
        let probed = asked(Duration::ZERO, 503).await;
        assert_eq!((probed.failed, probed.reports, probed.latency_ms), (probed.asked, 0, None));
        assert!(probed.first_failure.unwrap().ends_with("was answered 503"));
        let probed = asked(Duration::ZERO, 404).await;
        assert_eq!((probed.not_yet, probed.failed), (probed.asked, 0));
        let probed = asked(Duration::ZERO, 429).await;
        assert_eq!((probed.refused, probed.failed), (probed.asked, 0));
    }

    #[test]
    fn projects_are_asked_for_as_they_are_read() {
        let (readers, mut asked) = (readers(50_000, 1, 1), HashMap::new());
        (0..100_000).for_each(|k| *asked.entry((readers.path)(k)).or_insert(0_u32) += 1);
        let harmonic: f64 = (1..=50_000).map(|rank| 1.0 / f64::from(rank)).sum();
        let plan = Plan::new(5, "2026-02".parse().unwrap(), Size { projects: 50_000, views: 10_000 });
        let path = |rank| report_path(plan.slug(rank), plan.month);
        for rank in 0..5 {
            let expected = 100_000.0 / harmonic / f64::from(rank + 1);
            // Five standard deviations of a count.
            assert!((f64::from(asked[&path(rank)]) - expected).abs() < 5.0 * expected.sqrt(), "{rank}");
        }
        assert!((10_000..50_000).any(|rank| asked.contains_key(&path(rank))), "small ones are read too");
    }
}
