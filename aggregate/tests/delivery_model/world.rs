//! The log, the store, the group, and a scheduler that wishes them ill.

use crate::book::{Cell, Chance, Logged, Rows, rebuild, some_log};
use crate::process::{Insert, Process, Variant};
use headcount_aggregate::window::{Commit, Cut};
use std::collections::{BTreeMap, BTreeSet};

const WINDOW_HOURS: u32 = 6;
const SITE: &str = "site ";
const SITE_END: &str = "site!";
/// Steps in which something may go wrong, before everything heals.
const STEPS: u64 = 260;

/// ClickHouse: rows as they came, in no order that counts; readers choose.
#[derive(Clone, Default)]
struct Store {
    /// key → (version, row) of the newest, or all of them added up.
    newest: BTreeMap<(String, u64), (u64, Cell)>,
    sums: Rows,
    tokens: BTreeSet<(u64, u64, usize)>,
}

impl Store {
    fn apply(&mut self, variant: Variant, insert: &Insert) {
        if variant == Variant::DeltaRowsWithTokens && !self.tokens.insert(insert.token) {
            return;
        }
        for row in &insert.rows {
            if variant.sums() {
                let sum = self.sums.entry(row.key.clone()).or_default();
                sum.counts.resize(row.cell.counts.len(), 0);
                for (sum, count) in sum.counts.iter_mut().zip(&row.cell.counts) {
                    *sum = sum.wrapping_add(*count);
                }
                continue;
            }
            let newer = self.newest.get(&row.key).is_none_or(|(version, _)| row.next_offset >= *version);
            if newer {
                self.newest.insert(row.key.clone(), (row.next_offset, row.cell.clone()));
            }
        }
    }

    fn read(&self, variant: Variant) -> Rows {
        if variant.sums() {
            return self.sums.clone();
        }
        self.newest.iter().map(|(key, (_, cell))| (key.clone(), cell.clone())).collect()
    }

    /// Views by project and hour, over all windows.
    fn views(&self, variant: Variant) -> BTreeMap<String, u64> {
        let mut views: BTreeMap<String, u64> = BTreeMap::new();
        let mut add = |key: &str, cell: &Cell| match views.get_mut(key) {
            Some(sum) => *sum += cell.counts[0],
            None => drop(views.insert(key.to_owned(), cell.counts[0])),
        };
        // Keys are in order, and a reader's figures are in one stretch of them.
        let site = (SITE.to_owned(), 0)..(SITE_END.to_owned(), 0);
        if variant.sums() {
            self.sums.range(site).for_each(|((key, _), cell)| add(key, cell));
        } else {
            self.newest.range(site).for_each(|((key, _), (_, cell))| add(key, cell));
        }
        views
    }
}

/// One schedule.
pub struct World {
    chance: Chance,
    variant: Variant,
    log: Vec<Logged>,
    /// Records appended so far.
    end: u64,
    store: Store,
    /// What a replica that lags behind has.
    stale: Store,
    late: Vec<Insert>,
    commit: Option<Commit>,
    /// Raised when the partition changes hands.
    generation: u64,
    processes: Vec<Process>,
    cut: Cut,
    seen: BTreeMap<String, u64>,
    /// The store was written since a reader last looked.
    written: bool,
    story: Vec<String>,
}

impl World {
    pub fn new(seed: u64, variant: Variant) -> Self {
        let mut chance = Chance(seed);
        let log = some_log(&mut chance);
        let cut = Cut { window_hours: WINDOW_HOURS, max_records: 6 + chance.below(20), max_bytes: u64::MAX };
        World {
            chance,
            variant,
            log,
            end: 0,
            store: Store::default(),
            stale: Store::default(),
            late: Vec::new(),
            commit: None,
            generation: 0,
            processes: Vec::new(),
            cut,
            seen: BTreeMap::new(),
            written: false,
            story: Vec::new(),
        }
    }

    /// The hours that a clock on the wall would show: those of the append, roughly.
    fn now(&self) -> u64 {
        let at = (self.end as usize).clamp(1, self.log.len()) - 1;
        u64::from(self.log[at].appended.0)
    }

    /// Runs the schedule, heals, and compares.
    pub fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step();
            self.look()?;
        }
        self.heal()?;
        let (mut truth, mut found) =
            (rebuild(&self.log, WINDOW_HOURS, self.cut.max_records), self.store.read(self.variant));
        // Readers drop rows of 0, which are of names that left.
        truth.retain(|_, cell| cell.counts.iter().any(|count| *count > 0));
        found.retain(|_, cell| cell.counts.iter().any(|count| *count > 0));
        // Sums have no sketch to compare; their counters are enough to be wrong.
        let same = |found: &Cell, truth: &Cell| {
            found.counts == truth.counts && (self.variant.sums() || found.sketch == truth.sketch)
        };
        // A ledger of deltas adds up offsets as well.
        let compared = |key: &(String, u64)| !self.variant.sums() || !key.0.starts_with("ledger");
        for (key, truth) in truth.iter().filter(|(key, _)| compared(key)) {
            match found.get(key) {
                Some(found) if same(found, truth) => {}
                other => return Err(self.told(&format!("{key:?} is {other:?}, expected {truth:?}"))),
            }
        }
        match found.keys().find(|key| !truth.contains_key(*key)) {
            Some(key) => Err(self.told(&format!("{key:?} is in no window of the log"))),
            None => Ok(()),
        }
    }

    fn told(&self, what: &str) -> String {
        let last = &self.story[self.story.len().saturating_sub(60)..];
        format!("{what}\nthe last steps:\n{}", last.join("\n"))
    }

    /// A reader, at any time: no figure falls, none exceeds the log.
    fn look(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.written) {
            return Ok(());
        }
        let views = self.store.views(self.variant);
        for (key, &before) in &self.seen {
            let now = views.get(key).copied().unwrap_or(0);
            if now < before {
                return Err(self.told(&format!("{key} fell from {before} to {now}")));
            }
        }
        self.seen = views;
        Ok(())
    }

    fn owner(&self) -> Option<usize> {
        self.processes.iter().position(|process| process.generation == self.generation)
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..=17 => {
                let more = 1 + self.chance.below(6);
                self.end = (self.end + more).min(self.log.len() as u64);
            }
            18..=21 => self.crash(),
            22..=23 => self.stop(),
            24..=27 => self.pause(),
            28..=31 => self.take_over(),
            32..=35 => self.deliver_late(),
            36 => self.stale = self.store.clone(),
            // The store is restarted, and forgets what it remembered of inserts.
            37 => self.store.tokens.clear(),
            38..=39 => self.notice(),
            _ => {
                let running: Vec<usize> = (0..self.processes.len()).filter(|&i| !self.processes[i].paused).collect();
                if running.is_empty() {
                    self.take_over();
                } else {
                    let index = running[self.chance.below(running.len() as u64) as usize];
                    self.work(index, true);
                }
            }
        }
    }

    /// One small step of a process. With `faults` an insert may be lost on its way, or its acknowledgement.
    fn work(&mut self, index: usize, faults: bool) {
        let fate = self.chance.below(100);
        let now = self.now();
        let split = 1 + self.chance.below(6) as usize;
        let process = &mut self.processes[index];
        if let Some(flush) = &mut process.flush {
            if process.variant == Variant::CommitBeforeRows && process.generation == self.generation {
                self.commit = Some(flush.commit);
            }
            let Some(insert) = flush.inserts.front().cloned() else {
                let flush = process.flush.take().expect("just seen");
                self.story.push(format!("{index} commits {}", flush.commit.next_offset));
                // A commit may be lost, and a stale one may slip through before the group has noticed.
                let taken = process.generation == self.generation || (faults && fate < 3);
                if taken && !(faults && fate > 95) {
                    self.commit = Some(flush.commit);
                }
                return;
            };
            let (applied, acknowledged, later) = match fate {
                _ if !faults => (true, true, false),
                0..=69 => (true, true, false),
                70..=79 => (true, false, false),
                80..=89 => (false, false, true),
                _ => (false, false, false),
            };
            if applied {
                self.written = true;
                self.store.apply(self.variant, &insert);
            }
            if later {
                self.late.push(insert);
            }
            if acknowledged {
                flush.inserts.pop_front();
            }
            self.story.push(format!("{index} inserts: applied {applied}, acknowledged {acknowledged}, later {later}"));
            // Folding goes on while a flush is under way, but not past the end of a window.
            if flush.ends_window || fate.is_multiple_of(2) {
                return;
            }
        }
        let process = &mut self.processes[index];
        let wants_flush = fate.is_multiple_of(5) || process.position >= self.end;
        let dirty = process.open.as_ref().is_some_and(|open| open.state.is_dirty());
        if wants_flush && dirty && process.flush.is_none() {
            process.freeze(false, split);
            self.story.push(format!("{index} freezes at {}", process.position));
            return;
        }
        for _ in 0..=fate % 4 {
            let process = &mut self.processes[index];
            if process.position >= self.end {
                return;
            }
            let record = &self.log[process.position as usize];
            if process.ends_window(record.appended, now) {
                if process.flush.is_none() {
                    process.freeze(true, split);
                    self.story.push(format!("{index} ends a window at {}", process.position));
                }
                return;
            }
            process.fold(&record.bytes, record.appended, now);
        }
    }

    fn drop_process(&mut self, index: usize) {
        let process = self.processes.remove(index);
        // What it had sent may still arrive.
        if let Some(insert) = process.flush.and_then(|flush| flush.inserts.into_iter().next())
            && self.chance.percent(40)
        {
            self.late.push(insert);
        }
    }

    fn crash(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let index = self.chance.below(self.processes.len() as u64) as usize;
        self.story.push(format!("{index} crashes"));
        self.drop_process(index);
    }

    /// The owner stops gracefully: everything folded is written and committed.
    fn stop(&mut self) {
        let Some(index) = self.owner().filter(|&index| !self.processes[index].paused) else { return };
        self.finish(index);
        let process = self.processes.remove(index);
        self.story.push(format!("{index} stops"));
        if process.open.is_some()
            && let Some(commit) = &mut self.commit
        {
            commit.drained = true;
        }
        self.generation += 1;
    }

    /// Writes and commits what a process has folded.
    fn finish(&mut self, index: usize) {
        while self.processes[index].flush.is_some() {
            let position = self.processes[index].position;
            let end = std::mem::replace(&mut self.end, position);
            self.work(index, false);
            self.end = end;
        }
        let process = &mut self.processes[index];
        if process.open.as_ref().is_some_and(|open| open.state.is_dirty()) {
            process.freeze(false, 3);
            self.finish(index);
        }
    }

    fn pause(&mut self) {
        if self.processes.is_empty() {
            return;
        }
        let index = self.chance.below(self.processes.len() as u64) as usize;
        let process = &mut self.processes[index];
        process.paused = !process.paused;
        self.story.push(format!("{index} is {}", if process.paused { "stopped" } else { "resumed" }));
    }

    /// A process that no longer has the partition learns it, and drops its state.
    fn notice(&mut self) {
        let zombie = self.processes.iter().position(|process| process.generation != self.generation && !process.paused);
        if let Some(index) = zombie {
            self.story.push(format!("{index} notices that it lost the partition"));
            self.drop_process(index);
        }
    }

    /// The partition goes to a new process. The one that had it goes on until it notices.
    fn take_over(&mut self) {
        self.generation += 1;
        let own_cut = match self.variant {
            Variant::RecutOpenWindow => Cut { max_records: 6 + self.chance.below(20), ..self.cut },
            _ => self.cut,
        };
        let skew = self.chance.below(4);
        let mut process = Process {
            variant: self.variant,
            generation: self.generation,
            paused: false,
            position: 0,
            first_cut: None,
            own_cut,
            resumed: None,
            open: None,
            flush: None,
            skew,
        };
        match self.commit {
            None => self.commit = Some(process.commit(None, 0, own_cut)),
            Some(commit) => {
                process.position = commit.resume_at();
                process.first_cut = Some(commit.cut);
                if let (true, Some(window)) = (self.variant.resumes_at_committed(), commit.window) {
                    process.position = commit.next_offset;
                    let base = match self.variant {
                        Variant::ReadBackStale => {
                            let rows = self.stale.read(self.variant).into_iter();
                            rows.filter(|((key, at), _)| *at == window.offset && key != "ledger").collect()
                        }
                        _ => BTreeMap::new(),
                    };
                    process.resumed = Some((window, base));
                }
                self.commit = Some(Commit { drained: false, ..commit });
            }
        }
        self.story.push(format!("a new process begins at {}", process.position));
        self.processes.push(process);
    }

    fn deliver_late(&mut self) {
        if !self.late.is_empty() {
            let index = self.chance.below(self.late.len() as u64) as usize;
            let insert = self.late.swap_remove(index);
            self.story.push(format!("a late insert of {:?} arrives", insert.token));
            self.written = true;
            self.store.apply(self.variant, &insert);
        }
    }

    /// No more faults: late inserts arrive, zombies notice, one process goes to the log's end.
    fn heal(&mut self) -> Result<(), String> {
        self.end = self.log.len() as u64;
        while !self.processes.is_empty() {
            self.drop_process(0);
        }
        self.take_over();
        for _ in 0..20_000 {
            let process = &self.processes[0];
            let dirty = process.open.as_ref().is_some_and(|open| open.state.is_dirty());
            if process.position >= self.end && process.flush.is_none() && !dirty {
                break;
            }
            if self.chance.percent(20) {
                self.deliver_late();
            }
            self.work(0, false);
            self.look()?;
        }
        while !self.late.is_empty() {
            self.deliver_late();
            self.look()?;
        }
        match self.commit {
            Some(commit) if commit.next_offset == self.end => Ok(()),
            other => Err(self.told(&format!("the log ends at {}, the commit is {other:?}", self.end))),
        }
    }
}
