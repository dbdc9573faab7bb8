//! The order of a close's steps, with a paused clock.

use super::close_store::Written;
use super::*;
use crate::due::{Decision, LogRange, StreamRecords, decide_for};
use schemas::close::Frontier;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// Time to write the figures of a run.
const WRITING: Duration = Duration::from_secs(60);
const PROJECTS_AND_VIEWS: Written = Written { projects: 2, views: 30 };

#[derive(Clone, Debug, PartialEq, Eq)]
enum CloseEvent {
    WindowsRead,
    Written(u64),
    Finished(u64),
    Swept { winner: u64 },
}
use CloseEvent::{Finished, Swept, WindowsRead, Written as FiguresWritten};

/// A store in memory.
#[derive(Clone)]
struct TestMonths {
    start: Instant,
    events: Arc<Mutex<Vec<(u64, CloseEvent)>>>,
    runs: Arc<Mutex<Vec<MonthCloseRow>>>,
    recorded: Arc<Mutex<Option<BTreeMap<u64, u64>>>>,
    counted: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl TestMonths {
    fn new() -> Self {
        TestMonths {
            start: Instant::now(),
            events: Arc::default(),
            runs: Arc::default(),
            recorded: Arc::default(),
            counted: Arc::default(),
        }
    }

    /// Records an event with the time in seconds.
    fn push(&self, event: CloseEvent) {
        self.events.lock().unwrap().push((self.start.elapsed().as_secs(), event));
    }

    fn events(&self) -> Vec<(u64, CloseEvent)> {
        self.events.lock().unwrap().clone()
    }
}

fn august() -> Month {
    Month::new(2026, 8).unwrap()
}

impl CloseStore for TestMonths {
    async fn months_with_parts(&self) -> Result<Vec<MonthParts>, CloseError> {
        let removed = MonthParts { month: august().previous().previous(), has_rows: false };
        let months = [august().previous(), august()].map(|month| MonthParts { month, has_rows: true });
        Ok([removed].into_iter().chain(months).collect())
    }

    async fn winner(&self, _: Month) -> Result<Option<MonthCloseRow>, CloseError> {
        Ok(self.runs.lock().unwrap().iter().min_by_key(|run| (run.finished, run.run)).cloned())
    }

    async fn now_micros(&self) -> Result<i64, CloseError> {
        Ok(self.start.elapsed().as_micros() as i64)
    }

    async fn open_windows(&self) -> Result<Frontier, CloseError> {
        self.push(WindowsRead);
        Ok(Frontier(BTreeMap::from([(1, 40)])))
    }

    async fn write_figures(&self, run: &Run) -> Result<Written, CloseError> {
        tokio::time::sleep(WRITING).await;
        self.push(FiguresWritten(run.number));
        Ok(PROJECTS_AND_VIEWS)
    }

    async fn finish(&self, run: &Run, Written { projects, views }: Written) -> Result<(), CloseError> {
        self.push(Finished(run.number));
        let finished = self.now_micros().await?;
        let (streams, windows) = run.frontier.0.iter().unzip();
        let row = MonthCloseRow { month: 0, run: run.number, finished, streams, windows, projects, views };
        self.runs.lock().unwrap().push(row);
        Ok(())
    }

    async fn sweep(&self, _: Month, winner: &MonthCloseRow) -> Result<(), CloseError> {
        assert_eq!((&winner.streams[..], &winner.windows[..]), (&[1][..], &[40][..]));
        self.push(Swept { winner: winner.run });
        Ok(())
    }

    async fn recorded_ends(&self, _: Month) -> Result<Option<BTreeMap<u64, u64>>, CloseError> {
        Ok(self.recorded.lock().unwrap().clone())
    }

    async fn record_ends(&self, _: Month, ends: &BTreeMap<u64, u64>) -> Result<(), CloseError> {
        *self.recorded.lock().unwrap() = Some(ends.clone());
        Ok(())
    }

    async fn counted(&self) -> Result<BTreeMap<u64, u64>, CloseError> {
        Ok(self.counted.lock().unwrap().clone())
    }
}

#[tokio::test(start_paused = true)]
async fn rows_are_removed_only_after_the_result_is_certain() {
    let months = TestMonths::new();
    let closed = close(&months, august(), 7).await.unwrap();
    assert_eq!(closed, Closed { month: august(), projects: 2, views: 30, by_this_run: true });
    let (written, settled) = (WRITING.as_secs(), (WRITING + SETTLE).as_secs());
    let order =
        [(0, WindowsRead), (written, FiguresWritten(7)), (written, Finished(7)), (settled, Swept { winner: 7 })];
    assert_eq!(months.events(), order);
}

#[tokio::test(start_paused = true)]
async fn of_concurrent_runs_the_first_to_finish_counts() {
    let months = TestMonths::new();
    let second = tokio::spawn({
        let months = months.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            close(&months, august(), 8).await.unwrap()
        }
    });
    assert!(close(&months, august(), 7).await.unwrap().by_this_run);
    assert!(!second.await.unwrap().by_this_run);
    let swept: Vec<_> = months.events().into_iter().filter(|(_, event)| matches!(event, Swept { .. })).collect();
    assert_eq!(swept, [(75, Swept { winner: 7 }), (80, Swept { winner: 7 })]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_dies_leaves_the_month_to_the_next_one() {
    let months = TestMonths::new();
    let dying = tokio::time::timeout(WRITING / 2, close(&months, august(), 7));
    assert!(dying.await.is_err());
    assert!(close(&months, august(), 8).await.unwrap().by_this_run);
    let finished: Vec<_> = months.events().into_iter().filter(|(_, event)| matches!(event, Finished(_))).collect();
    assert_eq!(finished, [(90, Finished(8))]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_month_is_only_swept_and_not_before_it_is_settled() {
    let months = TestMonths::new();
    let run = Run { month: august(), number: 7, frontier: months.open_windows().await.unwrap() };
    months.finish(&run, PROJECTS_AND_VIEWS).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!close(&months, august(), 8).await.unwrap().by_this_run);
    assert_eq!(months.events()[2..], [(SETTLE.as_secs(), Swept { winner: 7 })]);
}

#[tokio::test(start_paused = true)]
async fn a_month_is_due_some_time_after_its_end() {
    let months = TestMonths::new();
    let after = Duration::from_secs(72 * 3_600);
    let due_at = august().end_hour().start() + after;
    let before = due_at - Duration::from_secs(1);
    assert_eq!(due(&months, before, after).await.unwrap(), [august().previous()]);
    assert_eq!(due(&months, due_at, after).await.unwrap(), [august().previous(), august()]);
}

#[tokio::test(start_paused = true)]
async fn a_close_waits_for_the_flush_of_records_that_were_accepted_before_it_was_due() {
    let months = TestMonths::new();
    let log = |end| [LogRange { stream: 1, start: 0, end }];
    months.counted.lock().unwrap().insert(1, 90);
    let waits = Decision::Wait(vec![StreamRecords { stream: 1, records: 10 }]);
    assert_eq!(decide_for(&months, august(), &log(100)).await.unwrap(), waits);
    // Later records do not delay it further.
    assert_eq!(decide_for(&months, august(), &log(250)).await.unwrap(), waits);
    months.counted.lock().unwrap().insert(1, 100);
    assert_eq!(decide_for(&months, august(), &log(250)).await.unwrap(), Decision::Close { lost: Vec::new() });
}
