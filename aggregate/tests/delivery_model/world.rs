//! The log, the store, the group, and a schedule of faults over real loops.

use crate::book::{Chance, LIMITS, Logged, rebuild, some_log};
use crate::design::Design;
use crate::model_store::{Insert, ModelStore, Row};
use crate::ports::{Life, ModelSink, ModelSource, Port};
use crate::variant::Variant;
use headcount_aggregate::commit::Commit;
use headcount_aggregate::progress::Progress;
use headcount_aggregate::window::WindowPolicy;
use headcount_aggregate::{AggregateConfig, AggregateError, run};
use schemas::StreamId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub const STREAM: StreamId = StreamId(1);

const WINDOW_HOURS: u32 = 6;
/// Steps with faults, before everything heals.
const STEPS: u64 = 120;
/// Longest time between two steps, in milliseconds.
const STEP: u64 = 120;
const FLUSH_EVERY: Duration = Duration::from_millis(60);
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// Longest time of healing. The clock is paused, so it costs nothing.
const HEAL_WITHIN: Duration = Duration::from_secs(3_600);

/// What the processes of a schedule share.
pub struct World {
    pub chance: Chance,
    variant: Variant,
    pub log: Vec<Logged>,
    /// Records appended so far.
    pub end: u64,
    pub store: ModelStore,
    /// A replica that lags.
    pub stale: ModelStore,
    pub late: Vec<Insert>,
    pub commit: Option<Commit>,
    /// Raised when the partition changes hands.
    pub generation: u64,
    pub faults: bool,
    seen: BTreeMap<String, u64>,
    failure: Option<String>,
    steps: Vec<String>,
}

impl World {
    /// The hour that a wall clock would show: roughly that of the last append.
    pub fn now(&self) -> u64 {
        let at = (self.end as usize).clamp(1, self.log.len()) - 1;
        u64::from(self.log[at].appended.0)
    }

    /// Applies an insert, and queries: no figure falls.
    pub fn apply(&mut self, insert: &Insert) {
        self.store.apply(self.variant, insert);
        if !insert.rows.iter().any(Row::is_of_hour) {
            return;
        }
        let views = self.store.views(self.variant);
        let fallen = self.seen.iter().find_map(|(key, &before)| {
            let now = views.get(key).copied().unwrap_or(0);
            (now < before).then(|| format!("{key} fell from {before} to {now}"))
        });
        if let Some(fallen) = fallen {
            self.fail(&fallen);
        }
        self.seen = views;
    }

    pub fn fail(&mut self, reason: &str) {
        let last = &self.steps[self.steps.len().saturating_sub(60)..];
        self.failure.get_or_insert_with(|| format!("{reason}\nthe last steps:\n{}", last.join("\n")));
    }

    pub fn log_step(&mut self, line: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.steps.push(line());
        }
    }

    fn deliver_late(&mut self) {
        if !self.late.is_empty() {
            let index = self.chance.below(self.late.len() as u64) as usize;
            let insert = self.late.swap_remove(index);
            self.log_step(|| format!("the late insert {:?} arrives", insert.token));
            self.apply(&insert);
        }
    }

    /// Compares the store with a rebuild of the log.
    fn compare(&mut self, policy: WindowPolicy) {
        let mut truth = rebuild(&self.log, WINDOW_HOURS, policy.max_records);
        let mut found = self.store.read(self.variant);
        // Queries drop rows of 0, which are of names that lost their counter.
        truth.retain(|_, cell| cell.counts.iter().any(|count| *count > 0));
        found.retain(|_, cell| cell.counts.iter().any(|count| *count > 0));
        if self.variant.sums() {
            // The sum of a ledger's offsets means nothing, and deltas have no sketches.
            truth.retain(|key, _| key.0 != "ledger");
            found.retain(|key, _| key.0 != "ledger");
            truth.values_mut().chain(found.values_mut()).for_each(|cell| cell.sketch = None);
        }
        if let Some((key, expected)) = truth.iter().find(|(key, cell)| found.get(*key) != Some(*cell)) {
            self.fail(&format!("{key:?} is {:?}, expected {expected:?}", found.get(key)));
        }
        if let Some(key) = found.keys().find(|key| !truth.contains_key(*key)) {
            self.fail(&format!("{key:?} is in no window of the log"));
        }
    }
}

/// The world, shared by the tasks of one thread.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub fn with<T>(&self, call: impl FnOnce(&mut World) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A process that has the partition, or believes so.
struct Process {
    number: usize,
    generation: u64,
    life: watch::Sender<Life>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AggregateError>>,
}

impl Process {
    fn is_paused(&self) -> bool {
        *self.life.borrow() == Life::Paused
    }
}

/// Lets tasks end whose write was dropped. From then on, a write that was left behind is noticed.
async fn settle(process: &watch::Sender<Life>, life: Life) {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    process.send_replace(life);
}

/// One schedule.
pub struct Schedule {
    shared: Shared,
    variant: Variant,
    policy: WindowPolicy,
    end: watch::Sender<u64>,
    processes: Vec<Process>,
    started: usize,
}

impl Schedule {
    pub fn new(seed: u64, variant: Variant) -> Self {
        let mut chance = Chance(seed);
        let log = some_log(&mut chance);
        let policy =
            WindowPolicy { window_hours: WINDOW_HOURS, max_records: 6 + chance.below(20), max_bytes: u64::MAX };
        let world = World {
            chance,
            variant,
            log,
            end: 0,
            store: ModelStore::default(),
            stale: ModelStore::default(),
            late: Vec::new(),
            commit: None,
            generation: 0,
            faults: true,
            seen: BTreeMap::new(),
            failure: None,
            steps: Vec::new(),
        };
        let shared = Shared(Arc::new(Mutex::new(world)));
        Schedule { shared, variant, policy, end: watch::Sender::new(0), processes: Vec::new(), started: 0 }
    }

    /// A schedule without faults: one process, which is never disturbed.
    pub fn undisturbed(seed: u64, variant: Variant) -> Self {
        let schedule = Schedule::new(seed, variant);
        schedule.shared.with(|world| world.faults = false);
        schedule
    }

    /// Runs the schedule, heals, and compares. Returns the number of processes.
    pub fn run(mut self) -> Result<usize, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime starts").block_on(async {
            let disturbed = self.shared.with(|world| world.faults);
            if !disturbed {
                self.take_over();
            }
            for _ in 0..STEPS {
                let pause = self.below(STEP);
                tokio::time::sleep(Duration::from_millis(pause)).await;
                if disturbed {
                    self.step().await;
                } else {
                    self.append(self.below(4));
                }
                self.check_tasks().await;
                self.failure()?;
            }
            self.heal().await?;
            self.shared.with(|world| world.compare(self.policy));
            self.failure()?;
            Ok(self.started)
        })
    }

    fn below(&self, bound: u64) -> u64 {
        self.shared.with(|world| world.chance.below(bound))
    }

    fn log_step(&self, line: String) {
        self.shared.with(|world| world.log_step(|| line));
    }

    fn failure(&self) -> Result<(), String> {
        self.shared.with(|world| world.failure.take()).map_or(Ok(()), Err)
    }

    fn append(&self, more: u64) {
        let end = self.shared.with(|world| {
            world.end = (world.end + more).min(world.log.len() as u64);
            world.end
        });
        self.end.send_replace(end);
    }

    async fn step(&mut self) {
        match self.below(100) {
            0..=39 => self.append(1 + self.below(6)),
            40..=47 => self.crash().await,
            48..=52 => self.stop().await,
            53..=62 => self.pause_or_resume(),
            63..=72 => self.take_over(),
            73..=82 => self.shared.with(World::deliver_late),
            83..=85 => self.shared.with(|world| world.stale = world.store.clone()),
            // The store restarts, and forgets the tokens of inserts.
            86..=88 => self.shared.with(|world| world.store.tokens.clear()),
            89..=93 => self.notice().await,
            _ if self.processes.iter().all(Process::is_paused) => self.take_over(),
            _ => {}
        }
    }

    /// No loop ends by itself.
    async fn check_tasks(&mut self) {
        let Some(index) = self.processes.iter().position(|process| process.task.is_finished()) else { return };
        let Process { number, task, .. } = self.processes.remove(index);
        let ended = task.await;
        self.shared.with(|world| world.fail(&format!("the loop of {number} ended: {ended:?}")));
    }

    async fn end_process(&mut self, index: usize, life: Life) {
        let process = self.processes.remove(index);
        process.task.abort();
        if life == Life::Dead {
            process.life.send_replace(life);
        }
        let _ = process.task.await;
        settle(&process.life, life).await;
    }

    async fn crash(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let index = self.below(self.processes.len() as u64) as usize;
        self.log_step(format!("{} crashes", self.processes[index].number));
        self.end_process(index, Life::Dead).await;
    }

    /// Stops a process gracefully: what it has folded is written and committed, within a time.
    async fn stop_gracefully(&mut self, index: usize) {
        let Process { number, life, stop, task, .. } = self.processes.remove(index);
        self.log_step(format!("{number} stops"));
        drop(stop);
        // The end of a window and the last flush may take that long each.
        let ended = tokio::time::timeout(3 * STOP_WITHIN, task).await;
        if !matches!(ended, Ok(Ok(Ok(())))) {
            self.shared.with(|world| world.fail(&format!("the stop of {number} ended with {ended:?}")));
        }
        settle(&life, Life::Dropped).await;
    }

    async fn stop(&mut self) {
        let generation = self.shared.with(|world| world.generation);
        let owner = self.processes.iter().position(|process| process.generation == generation && !process.is_paused());
        if let Some(owner) = owner {
            self.stop_gracefully(owner).await;
            self.shared.with(|world| world.generation += 1);
        }
    }

    fn pause_or_resume(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let process = &self.processes[self.below(self.processes.len() as u64) as usize];
        let life = if process.is_paused() { Life::Running } else { Life::Paused };
        process.life.send_replace(life);
        self.log_step(format!("{} is {life:?}", process.number));
    }

    /// A process notices that it has lost the partition: it drops its loop, or stops it.
    async fn notice(&mut self) {
        let generation = self.shared.with(|world| world.generation);
        let zombie = self.processes.iter().position(|process| process.generation != generation && !process.is_paused());
        let Some(zombie) = zombie else { return };
        if self.below(2) == 0 {
            self.stop_gracefully(zombie).await;
        } else {
            self.log_step(format!("{} drops its loop", self.processes[zombie].number));
            self.end_process(zombie, Life::Dropped).await;
        }
    }

    /// The partition goes to a new process. The one that had it goes on until it notices.
    fn take_over(&mut self) {
        let generation = self.shared.with(|world| {
            world.generation += 1;
            world.generation
        });
        let policy = match self.variant {
            Variant::OwnPolicyForOpenWindow if self.started > 0 => {
                WindowPolicy { max_records: 6 + self.below(20), ..self.policy }
            }
            _ => self.policy,
        };
        let (life, alive) = watch::channel(Life::Running);
        let (stop, stopped) = oneshot::channel::<()>();
        let number = self.started;
        self.started += 1;
        let port = Port {
            shared: self.shared.clone(),
            variant: self.variant,
            number,
            generation,
            life: alive,
            policy,
            skew: self.below(4),
            design: Arc::new(Mutex::new(Design::new(self.variant))),
        };
        let config = AggregateConfig {
            window_policy: policy,
            flush_every: FLUSH_EVERY,
            stop_within: STOP_WITHIN,
            limits: LIMITS,
            ..AggregateConfig::default()
        };
        self.log_step(format!("{number} starts"));
        let source = ModelSource::new(port.clone(), self.end.subscribe());
        let shutdown = async move { drop(stopped.await) };
        let task = tokio::spawn(run(config, source, ModelSink(port), Arc::new(Progress::default()), shutdown));
        self.processes.push(Process { number, generation, life, stop, task });
    }

    /// No more faults: every process ends, late inserts arrive, a new process counts the log to its end.
    async fn heal(&mut self) -> Result<(), String> {
        if self.shared.with(|world| std::mem::take(&mut world.faults)) {
            while !self.processes.is_empty() {
                self.end_process(0, Life::Dead).await;
            }
            self.take_over();
        }
        self.append(u64::MAX / 2);
        let start = tokio::time::Instant::now();
        let end = *self.end.borrow();
        let committed = |world: &mut World| world.commit.is_some_and(|commit| commit.next_offset == end);
        while !self.shared.with(committed) && start.elapsed() < HEAL_WITHIN {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if self.below(3) == 0 {
                self.shared.with(World::deliver_late);
            }
            self.check_tasks().await;
            self.failure()?;
        }
        self.stop_gracefully(0).await;
        while self.shared.with(|world| !world.late.is_empty()) {
            self.shared.with(World::deliver_late);
        }
        self.shared.with(|world| match world.commit {
            Some(commit) if commit.next_offset == end => {}
            other => world.fail(&format!("the log ends at {end}, the commit is {other:?}")),
        });
        self.failure()
    }
}
