//! Reports that the cache does not have, in an open loop, while beacons come: with an aggregator that is up to date, and with one
//! that has a backlog to fold.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ingest::journal::{Journal, JournalConfig};
use ingest::sink::Sink as _;
use schemas::Hour;
use serde::Serialize;
use tokio::task::JoinSet;

use super::ReportArgs;
use crate::drive::{self, Beacons, Limits, Observed};
use crate::figures::{self, TARGET};
use crate::kafka::database::Database;
use crate::month::beacons::Readers;
use crate::month::plan::Plan;
use crate::month::probe::{self, Probed, report_path};
use crate::random::{SplitMix64, Zipf};
use crate::service::Service;

/// Beacons are posted for so long before it is checked whether the phase is over.
const SLICE: Duration = Duration::from_secs(2);
/// Connections that post beacons.
const CONNECTIONS: u32 = 64;
/// Number of the first run of beacons in the catch-up; and of the backlog, which is no beacons.
const CATCH_UP_RUN: u32 = 1 << 16;
const BACKLOG_RUN: u32 = 1 << 17;
/// Records of the backlog that are appended together.
const BATCH: u32 = 50_000;
/// Bytes that may wait for the log's disk: more than a batch has.
const QUEUE_BYTES: usize = 64 << 20;

/// Reports under load.
#[derive(Debug, Serialize)]
pub struct UnderLoad {
    /// How long it was.
    pub seconds: f64,
    /// Beacons.
    pub posted: figures::Figures,
    /// Reports.
    pub reports: Probed,
    /// Records in the ledger before it.
    pub before: u64,
    /// Records that were folded and written meanwhile.
    pub counted: u64,
}

/// What both phases have in common.
pub struct Load<'a> {
    /// What was asked for.
    pub args: &'a ReportArgs,
    /// The projects.
    pub plan: &'a Arc<Plan>,
    /// Who posts beacons.
    pub readers: &'a Arc<Readers>,
}

impl Load<'_> {
    /// Reports while beacons come, for as long as the arguments say.
    ///
    /// # Errors
    /// When a report or a beacon fails, or the service ends.
    pub async fn steady(&self, service: &Service) -> anyhow::Result<UnderLoad> {
        let until = Duration::from_secs(self.args.load_seconds.into());
        self.phase(service, 0, |elapsed, _| elapsed >= until).await
    }

    /// Reports while beacons come, until the backlog is counted, which was appended after `steady`.
    ///
    /// # Errors
    /// When a report or a beacon fails, or the service ends.
    pub async fn catch_up(&self, service: &Service, steady: &UnderLoad) -> anyhow::Result<UnderLoad> {
        let all = steady.before + steady.posted.accepted() + u64::from(self.args.backlog);
        self.phase(service, CATCH_UP_RUN, |_, counted| counted >= all).await
    }

    async fn phase(
        &self,
        service: &Service,
        first_run: u32,
        is_over: impl Fn(Duration, u64) -> bool,
    ) -> anyhow::Result<UnderLoad> {
        let database = service.database("headcount")?;
        let (begun, before) = (Instant::now(), counted(&database).await?);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, questions) = (Arc::clone(&stop), self.questions(service.port()));
        let asking = tokio::spawn(async move { questions.ask(&stopped).await });
        let beacons: Arc<dyn Beacons> = Arc::clone(self.readers) as Arc<dyn Beacons>;
        let limits = Limits {
            count: self.args.beacons * SLICE.as_secs() as u32,
            time: SLICE,
            connections: CONNECTIONS,
            threads: 1,
            rate: Some(self.args.beacons.into()),
        };
        let (mut observed, mut now) = (Observed::default(), before);
        for run in first_run.. {
            observed.add(drive::observe(&beacons, &service.target(), run, limits).await?);
            now = counted(&database).await?;
            if is_over(begun.elapsed(), now) {
                break;
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        let reports = asking.await.context("the task that requests reports panicked")??;
        let posted = figures::Figures::new(TARGET, 0, &observed, None, None);
        ensure!(posted.errors() == 0, "beacons were not accepted: {}", posted.outcome());
        ensure!(reports.failed == 0, "reports failed, the first: {:?}", reports.first_failure);
        Ok(UnderLoad { seconds, posted, reports, before, counted: now - before })
    }

    /// Questions for the report of each project once, so that the cache has none of them: in an order that is drawn by traffic.
    fn questions(&self, port: u16) -> probe::Readers {
        let (plan, order) = (Arc::clone(self.plan), once_by_traffic(self.args.projects as usize, self.args.seed));
        probe::Readers::new(port, self.args.report_rate, move |k| {
            report_path(plan.slug(order[k as usize % order.len()]), plan.month())
        })
    }
}

/// Each project once, those with more traffic more likely earlier. After so many draws without a new project, the order is by rank.
fn once_by_traffic(projects: usize, seed: u64) -> Vec<u32> {
    let (zipf, mut random, mut is_in) =
        (Zipf::new(projects, 1.0), SplitMix64::new(seed ^ 0x07ce), vec![false; projects]);
    let drawn = (0..4 * projects).map(|_| zipf.sample(&mut random));
    let order = drawn.chain(0..projects).filter(|&rank| !std::mem::replace(&mut is_in[rank], true));
    order.map(|rank| rank as u32).collect()
}

/// Records in the ledger.
async fn counted(database: &Database) -> anyhow::Result<u64> {
    database.number("SELECT sum(next_offset - window_start) FROM headcount.ledger FINAL").await
}

/// Appends so many views to the log of a service that has stopped, as if it had accepted them in `hour` and not counted them.
///
/// # Errors
/// When the log cannot be written.
pub async fn append_backlog(journal: &Path, readers: &Readers, count: u32, hour: Hour) -> anyhow::Result<()> {
    let config = JournalConfig { queue_bytes: QUEUE_BYTES, ..JournalConfig::default() };
    let journal = Journal::open(journal, config, move || hour).context("opening the log")?;
    for from in (0..count).step_by(BATCH as usize) {
        let mut appends = JoinSet::new();
        for k in from..(from + BATCH).min(count) {
            let ((key, record), journal) = (readers.record(BACKLOG_RUN, k, hour), journal.clone());
            appends.spawn(async move { journal.append(key, record).await });
        }
        while let Some(appended) = appends.join_next().await {
            appended?.context("appending to the log")?;
        }
    }
    journal.close();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_project_is_asked_for_once_and_large_ones_early() {
        let order = once_by_traffic(5_000, 1);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..5_000));
        let place = |rank: u32| order.iter().position(|&found| found == rank).unwrap();
        assert!((0..5).all(|rank| place(rank) < 200), "{:?}", &order[..20]);
    }
}
