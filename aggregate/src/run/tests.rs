//! The loop with a paused clock, over a log and a sink in memory.

use super::*;
use crate::doubles::{Answer, Events, TestLog, TestSink};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const HOUR: u32 = 500_000;
const FLUSH_EVERY: Duration = Duration::from_secs(5);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A running loop.
struct RunningLoop {
    task: JoinHandle<Result<(), AggregateError>>,
    progress: Arc<Progress>,
    stop: Option<oneshot::Sender<()>>,
}

impl RunningLoop {
    fn start(config: AggregateConfig, log: &TestLog, sink: &TestSink) -> Self {
        let progress = Arc::new(Progress::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(run(config, log.clone(), sink.clone(), Arc::clone(&progress), shutdown));
        RunningLoop { task, progress, stop: Some(stop) }
    }

    fn folded(&self) -> u64 {
        self.progress.folded.load(Ordering::Relaxed)
    }

    /// Stops the loop gracefully.
    async fn stop(mut self) -> Result<(), AggregateError> {
        drop(self.stop.take());
        (&mut self.task).await.unwrap()
    }
}

fn config() -> AggregateConfig {
    AggregateConfig { flush_every: FLUSH_EVERY, stop_within: STOP_WITHIN, ..AggregateConfig::default() }
}

fn with_records(max_records: u64) -> AggregateConfig {
    let window_policy = WindowPolicy { max_records, ..WindowPolicy::default() };
    AggregateConfig { window_policy, ..config() }
}

fn setup() -> (Events, TestLog, TestSink) {
    let events = Events::new();
    (events.clone(), TestLog::new(&events), TestSink::new(&events))
}

fn pages(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| format!("/{number}"))
}

async fn at(events: &Events, seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds).saturating_sub(events.elapsed())).await;
}

#[tokio::test(start_paused = true)]
async fn rows_wait_for_the_flush_interval() {
    let (events, log, sink) = setup();
    let running = RunningLoop::start(config(), &log, &sink);
    log.append(HOUR, pages(0..3));
    at(&events, 4.9).await;
    assert_eq!((running.folded(), events.attempts()), (3, vec![]));
    log.append(HOUR, pages(3..4));
    at(&events, 9.9).await;
    assert_eq!(events.stored(), [(FLUSH_EVERY, (0, 4))]);
    let [(committed_at, commit)] = events.commits()[..] else { panic!("{:?}", events.all()) };
    assert_eq!((committed_at, commit.next_offset, commit.drained), (FLUSH_EVERY, 4, false));
    assert_eq!(commit.window, Some(WindowStart { offset: 0, appended_hour: HOUR }));
    // Nothing changed, so nothing is written.
    at(&events, 60.0).await;
    assert_eq!(events.attempts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_changed_cells_are_flushed_before_the_interval() {
    let (events, log, sink) = setup();
    let _running = RunningLoop::start(AggregateConfig { flush_cells: 10, ..config() }, &log, &sink);
    log.append(HOUR, pages(0..20));
    at(&events, 1.0).await;
    assert_eq!(events.stored().iter().map(|stored| stored.1).collect::<Vec<_>>(), [(0, 20)]);
}

#[tokio::test(start_paused = true)]
async fn a_full_window_is_written_and_committed_before_the_next_one_starts() {
    let record = crate::doubles::view("/0").len() as u64;
    let by_bytes = WindowPolicy { max_bytes: 3 * record, ..WindowPolicy::default() };
    for config in [with_records(3), AggregateConfig { window_policy: by_bytes, ..config() }] {
        let (events, log, sink) = setup();
        let _running = RunningLoop::start(config, &log, &sink);
        log.append(HOUR, pages(0..4));
        at(&events, 1.0).await;
        assert_eq!(events.stored().iter().map(|stored| stored.1).collect::<Vec<_>>(), [(0, 3)]);
        let commit = events.commits()[0].1;
        assert_eq!((commit.window, commit.next_offset), (None, 3));
        at(&events, 6.0).await;
        assert_eq!(events.stored()[1], (FLUSH_EVERY, (3, 4)));
        assert_eq!(sink.views(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_the_sink_and_folding_does_not() {
    let (events, log, sink) = setup();
    sink.answer.send_replace(Answer::After(Duration::from_secs(20)));
    let running = RunningLoop::start(config(), &log, &sink);
    log.append(HOUR, pages(0..3));
    at(&events, 24.9).await;
    log.append(HOUR, pages(3..5));
    at(&events, 24.99).await;
    assert_eq!((running.folded(), events.commits()), (5, vec![]));
    // One flush at a time: the next one is overdue, and starts when this one has ended.
    assert_eq!(events.attempts(), [(FLUSH_EVERY, 3)]);
    at(&events, 25.01).await;
    let commits: Vec<_> = events.commits().iter().map(|(at, commit)| (*at, commit.next_offset)).collect();
    assert_eq!(commits, [(Duration::from_secs(25), 3)]);
    assert_eq!(events.attempts()[1], (Duration::from_secs(25), 5));
}

#[tokio::test(start_paused = true)]
async fn refused_rows_are_sent_again_with_growing_pauses_and_nothing_is_committed() {
    let (events, log, sink) = setup();
    sink.answer.send_replace(Answer::Refuse);
    let running = RunningLoop::start(config(), &log, &sink);
    log.append(HOUR, pages(0..3));
    at(&events, 30.0).await;
    log.append(HOUR, pages(3..4));
    at(&events, 60.0).await;
    let attempts = events.attempts();
    assert!(attempts.iter().all(|&(_, next_offset)| next_offset == 3), "the same rows: {attempts:?}");
    let pauses: Vec<_> = attempts.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect();
    assert_eq!(pauses[..7], [100, 200, 400, 800, 1_600, 3_200, 5_000]);
    assert!(pauses[7..].iter().all(|&pause| pause == 5_000), "{pauses:?}");
    assert_eq!((events.commits(), running.folded()), (vec![], 4));
    let failed = running.progress.failed_writes.load(Ordering::Relaxed);
    assert_eq!(failed, attempts.len() as u64);
    assert!(running.progress.store_fails.load(Ordering::Relaxed));
    sink.answer.send_replace(Answer::After(Duration::ZERO));
    at(&events, 66.0).await;
    let commits: Vec<_> = events.commits().iter().map(|(_, commit)| commit.next_offset).collect();
    assert_eq!((commits, sink.views()), (vec![3, 4], 4));
    assert!(!running.progress.store_fails.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_stop_flushes_and_commits_what_is_folded() {
    for stop_at_end in [false, true] {
        let (events, log, sink) = setup();
        let running = RunningLoop::start(AggregateConfig { stop_at_end, ..config() }, &log, &sink);
        log.append(HOUR, pages(0..3));
        at(&events, 1.0).await;
        // Not read yet when the stop comes.
        log.append(HOUR, pages(3..5));
        running.stop().await.unwrap();
        let counted = if stop_at_end { 5 } else { 3 };
        assert_eq!(events.stored(), [(Duration::from_secs(1), (0, counted))]);
        let commits: Vec<_> = events.commits().iter().map(|(_, c)| (c.next_offset, c.drained)).collect();
        assert_eq!(commits, [(counted, false), (counted, true)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_a_flush_that_has_started() {
    let (events, log, sink) = setup();
    sink.answer.send_replace(Answer::After(Duration::from_secs(3)));
    let running = RunningLoop::start(config(), &log, &sink);
    log.append(HOUR, pages(0..3));
    at(&events, 5.5).await;
    log.append(HOUR, pages(3..4));
    at(&events, 6.0).await;
    running.stop().await.unwrap();
    let stored: Vec<_> = events.stored().into_iter().map(|(at, (_, next))| (at.as_secs(), next)).collect();
    assert_eq!(stored, [(8, 3), (11, 4)]);
    assert_eq!(events.commits().last().map(|(_, commit)| (commit.next_offset, commit.drained)), Some((4, true)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_bounded_if_the_sink_does_not_answer() {
    // In the second case the last rows of a full window are waiting.
    for config in [config(), with_records(3)] {
        let (events, log, sink) = setup();
        sink.answer.send_replace(Answer::Hang);
        let running = RunningLoop::start(config, &log, &sink);
        log.append(HOUR, pages(0..4));
        at(&events, 1.0).await;
        running.stop().await.unwrap();
        assert_eq!(events.elapsed(), Duration::from_secs(1) + STOP_WITHIN);
        sink.answer.send_replace(Answer::After(Duration::ZERO));
        at(&events, 60.0).await;
        assert_eq!((events.stored(), events.commits()), (vec![], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_partition_writes_nothing_after_its_loop_is_dropped() {
    // In the second case the last rows of a full window are waiting.
    for config in [config(), with_records(3)] {
        let (events, log, sink) = setup();
        sink.answer.send_replace(Answer::Hang);
        let running = RunningLoop::start(config, &log, &sink);
        log.append(HOUR, pages(0..4));
        at(&events, 6.0).await;
        assert_eq!(events.attempts().len(), 1);
        running.task.abort();
        assert!(running.task.await.unwrap_err().is_cancelled());
        sink.answer.send_replace(Answer::After(Duration::ZERO));
        at(&events, 60.0).await;
        assert_eq!((events.stored(), events.commits()), (vec![], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_rows_of_a_zombie_are_superseded_and_its_commits_refused() {
    let (events, log, sink) = setup();
    let zombie_sink = sink.other_connection();
    zombie_sink.answer.send_replace(Answer::Hang);
    log.append(HOUR, pages(0..3));
    let zombie = RunningLoop::start(config(), &log, &zombie_sink);
    at(&events, 6.0).await;
    let successor = RunningLoop::start(config(), &log.successor(), &sink);
    log.append(HOUR, pages(0..2));
    at(&events, 12.0).await;
    assert_eq!((events.stored().last().unwrap().1, sink.views()), ((0, 5), 5));
    // The zombie awakes: its older rows arrive, and then the same ones as the successor's.
    zombie_sink.answer.send_replace(Answer::After(Duration::ZERO));
    at(&events, 12.1).await;
    assert_eq!(events.stored().iter().map(|stored| stored.1).collect::<Vec<_>>(), [(0, 5), (0, 3), (0, 5)]);
    assert_eq!(sink.views(), 5);
    at(&events, 30.0).await;
    assert_eq!(sink.views(), 5);
    assert_eq!(log.commit.lock().unwrap().unwrap().next_offset, 5);
    assert!(zombie.progress.failed_commits.load(Ordering::Relaxed) > 0);
    successor.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_restart_folds_the_open_window_again() {
    let (events, log, sink) = setup();
    let first = RunningLoop::start(with_records(4), &log, &sink);
    log.append(HOUR, pages(0..6));
    at(&events, 6.0).await;
    // Killed: what is folded after the last flush is not written.
    log.append(HOUR, pages(6..7));
    at(&events, 7.0).await;
    first.task.abort();
    assert_eq!(sink.views(), 6);
    let second = RunningLoop::start(with_records(4), &log.successor(), &sink);
    at(&events, 13.0).await;
    assert_eq!((events.stored().last().unwrap().1, sink.views(), second.folded()), ((4, 7), 7, 7));
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_a_backup() {
    let (events, log, sink) = setup();
    let config = config();
    let hold = config.writes.hold().await;
    let _running = RunningLoop::start(config.clone(), &log, &sink);
    log.append(HOUR, pages(0..3));
    at(&events, 30.0).await;
    assert_eq!(events.attempts(), []);
    drop(hold);
    at(&events, 30.1).await;
    assert_eq!(events.stored(), [(Duration::from_secs(30), (0, 3))]);
    // A backup that comes during a flush waits for all of its attempts.
    sink.answer.send_replace(Answer::Refuse);
    log.append(HOUR, pages(0..1));
    at(&events, 40.0).await;
    let held = tokio::spawn(async move { drop(config.writes.hold().await) });
    at(&events, 50.0).await;
    assert!(!held.is_finished());
    sink.answer.send_replace(Answer::After(Duration::ZERO));
    held.await.unwrap();
    assert_eq!(sink.views(), 4);
}

#[tokio::test(start_paused = true)]
async fn temporary_errors_of_the_log_are_retried_and_others_end_the_loop() {
    let (events, log, sink) = setup();
    let error = |temporary| SourceError { action: "read", reason: "disk".to_owned(), temporary };
    *log.failures.lock().unwrap() = vec![error(true), error(true)];
    let running = RunningLoop::start(config(), &log, &sink);
    log.append(HOUR, pages(0..3));
    at(&events, 1.0).await;
    assert_eq!(running.folded(), 3);
    log.failures.lock().unwrap().push(error(false));
    let ended = running.task.await.unwrap();
    assert!(matches!(ended, Err(AggregateError::Source(SourceError { temporary: false, .. }))), "{ended:?}");
    assert_eq!((events.stored(), events.commits()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_log_with_another_first_record_is_refused() {
    let (events, log, sink) = setup();
    let window = Some(WindowStart { offset: 0, appended_hour: HOUR });
    *log.commit.lock().unwrap() = Some(Commit::new(TestLog::STREAM, window, 0, WindowPolicy::default()));
    log.append(HOUR + 1, pages(0..3));
    let ended = RunningLoop::start(config(), &log, &sink).task.await.unwrap();
    assert!(matches!(ended, Err(AggregateError::Replaced { offset: 0, expected: HOUR, found: 500_001 })), "{ended:?}");
    assert_eq!((events.attempts(), sink.views()), (vec![], 0));
}

#[tokio::test(start_paused = true)]
async fn a_hole_at_the_start_of_a_window_is_no_other_record() {
    let (events, log, sink) = setup();
    let window = Some(WindowStart { offset: 0, appended_hour: HOUR });
    *log.commit.lock().unwrap() = Some(Commit::new(TestLog::STREAM, window, 0, WindowPolicy::default()));
    log.append_hole(2);
    let running = RunningLoop::start(config(), &log, &sink);
    at(&events, 1.0).await;
    // Read after the hole, and of another hour than the window's first record.
    log.append(HOUR + 1, pages(0..3));
    at(&events, 6.0).await;
    assert_eq!((running.folded(), sink.views()), (5, 3));
    running.stop().await.unwrap();
}
