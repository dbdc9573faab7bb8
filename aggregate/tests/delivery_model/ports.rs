//! The log and the sink of one process: the ports through which the real loop sees the world. Here faults happen, and here a wrong design
//! differs from the real one.

use crate::design::Design;
use crate::model_store::Insert;
use crate::variant::Variant;
use crate::world::{STREAM, Shared, World};
use headcount_aggregate::commit::Commit;
use headcount_aggregate::fold::{FOLD_VERSION, Rows};
use headcount_aggregate::sink::{LedgerEnd, RowSink};
use headcount_aggregate::source::{RecordBatch, Source, SourceError};
use headcount_aggregate::window::{WindowPolicy, WindowStart};
use schemas::{Hour, StreamId};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::CallError;
use tokio::sync::watch;

/// Longest time of a call, in milliseconds.
const LATENCY: u64 = 12;

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Running,
    /// As by SIGSTOP: it continues later, and may then be a zombie.
    Paused,
    /// Killed.
    Dead,
    /// Its loop was dropped, as after a lost partition. The process lives, so a write left behind would go on.
    Dropped,
}

/// What one process shares between its log and its sink.
#[derive(Clone)]
pub struct Port {
    pub shared: Shared,
    pub variant: Variant,
    pub number: usize,
    /// The group's generation in which the process got the partition.
    pub generation: u64,
    pub life: watch::Receiver<Life>,
    /// Its own window policy.
    pub policy: WindowPolicy,
    /// Hours by which its clock is ahead.
    pub skew: u64,
    pub design: Arc<Mutex<Design>>,
}

impl Port {
    /// Waits for a while, and as long as the process is paused. A dead process waits forever.
    async fn turn(&self) {
        let latency = self.shared.with(|world| world.chance.below(LATENCY));
        tokio::time::sleep(Duration::from_millis(latency)).await;
        let mut life = self.life.clone();
        let life = life.wait_for(|&life| life != Life::Paused).await.map(|life| *life);
        match life {
            Ok(Life::Running | Life::Paused) => {}
            Ok(Life::Dropped) => self.shared.with(|world| world.fail("a dropped loop goes on")),
            Ok(Life::Dead) | Err(_) => std::future::pending().await,
        }
    }

    fn owns(&self, world: &World) -> bool {
        world.generation == self.generation
    }
}

/// The partition as one process reads it.
pub struct ModelSource {
    pub port: Port,
    pub end: watch::Receiver<u64>,
    seen_end: Option<u64>,
    /// The commit that the process started from, until its first record is read.
    first: Option<Commit>,
    /// Records below this offset are hidden from a design that does not fold them again.
    hidden_below: u64,
}

impl ModelSource {
    pub fn new(port: Port, end: watch::Receiver<u64>) -> Self {
        ModelSource { port, end, seen_end: None, first: None, hidden_below: 0 }
    }

    /// The next records of one append hour, a few at most.
    fn batch(&mut self, offset: u64) -> Option<RecordBatch> {
        let Port { shared, variant, skew, .. } = &self.port;
        let first = self.first.take().and_then(|commit| commit.window);
        shared.with(|world| {
            let most = offset + 1 + world.chance.below(5);
            let records = world.log.get(offset as usize..world.end.min(most) as usize)?;
            let appended = records.first()?.appended;
            let hour = match (variant, first) {
                (Variant::WindowByWallClock, Some(window)) => Hour(window.appended_hour),
                (Variant::WindowByWallClock, None) => Hour((world.now() + skew) as u32),
                _ => appended,
            };
            let mut batch = RecordBatch::new(offset, hour);
            for record in records.iter().take_while(|record| record.appended == appended) {
                let hidden = batch.next_offset() < self.hidden_below;
                batch.push(if hidden { b"" } else { &record.bytes });
            }
            Some(batch)
        })
    }
}

impl Source for ModelSource {
    fn stream(&self) -> StreamId {
        STREAM
    }

    async fn log_start(&mut self) -> Result<u64, SourceError> {
        Ok(0)
    }

    async fn log_end(&mut self) -> Result<u64, SourceError> {
        self.port.turn().await;
        Ok(*self.end.borrow())
    }

    fn seen_end(&self) -> Option<u64> {
        self.seen_end
    }

    async fn committed(&mut self) -> Result<Option<Commit>, SourceError> {
        self.port.turn().await;
        let Some(commit) = self.port.shared.with(|world| world.commit) else { return Ok(None) };
        self.first = Some(commit);
        self.port.shared.with(|world| self.port.design.lock().unwrap().start(world, &commit));
        if self.port.variant.skips_committed() {
            self.hidden_below = commit.next_offset;
        }
        let own = self.port.variant == Variant::OwnPolicyForOpenWindow;
        Ok(Some(Commit { window_policy: if own { self.port.policy } else { commit.window_policy }, ..commit }))
    }

    async fn rewind(&mut self, _: u64) -> Result<(), SourceError> {
        self.first = None;
        Ok(())
    }

    async fn read(&mut self, offset: u64, wait: Duration) -> Result<Vec<RecordBatch>, SourceError> {
        let _ = tokio::time::timeout(wait, self.end.wait_for(|&end| end > offset)).await;
        self.port.turn().await;
        let batches: Vec<RecordBatch> = self.batch(offset).into_iter().collect();
        self.seen_end = Some(*self.end.borrow());
        Ok(batches)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), SourceError> {
        self.port.turn().await;
        let error = || Err(SourceError { action: "commit", reason: "no answer".to_owned(), temporary: true });
        self.port.shared.with(|world| {
            let fate = if world.faults { world.chance.below(100) } else { 0 };
            let (stored, acknowledged) = match (self.port.owns(world), fate) {
                (true, 0..88) => (true, true),
                (true, 88..92) => (true, false),
                (true, 92..96) => (false, false),
                (true, _) => (false, true),
                // A commit of an earlier owner slips through.
                (false, 97..) => (true, false),
                (false, _) => (false, false),
            };
            if stored {
                world.commit = Some(*commit);
            }
            let (number, next) = (self.port.number, commit.next_offset);
            world.log_step(|| format!("{number} commits {next}: stored {stored}, acknowledged {acknowledged}"));
            if acknowledged { Ok(()) } else { error() }
        })
    }
}

/// ClickHouse as one process reaches it.
#[derive(Clone)]
pub struct ModelSink(pub Port);

/// An insert that was sent. If its process ends meanwhile, it may still arrive.
struct InFlight<'a> {
    port: &'a Port,
    insert: Option<Insert>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let Some(insert) = self.insert.take() else { return };
        self.port.shared.with(|world| {
            if world.faults && world.chance.percent(40) {
                world.late.push(insert);
            }
        });
    }
}

impl ModelSink {
    /// Sends rows once.
    async fn send(&self, insert: &Insert) -> Result<(), CallError> {
        let port = &self.0;
        let mut in_flight = InFlight { port, insert: Some(insert.clone()) };
        port.turn().await;
        in_flight.insert = None;
        let acknowledged = port.shared.with(|world| {
            let fate = if world.faults { world.chance.below(100) } else { 0 };
            let (applied, acknowledged, later) = match fate {
                0..90 => (true, true, false),
                90..93 => (true, false, false),
                93..97 => (false, false, true),
                _ => (false, false, false),
            };
            if applied {
                world.apply(insert);
            }
            if later {
                world.late.push(insert.clone());
            }
            let (number, token) = (port.number, insert.token);
            world.log_step(|| {
                format!("{number} inserts {token:?}: applied {applied}, acknowledged {acknowledged}, late {later}")
            });
            acknowledged
        });
        if acknowledged {
            return Ok(());
        }
        Err(CallError::Timeout { action: "inserting rows".into(), timeout: Duration::ZERO })
    }
}

impl RowSink for ModelSink {
    async fn insert(&self, rows: &Rows) -> Result<(), CallError> {
        let Some(ledger) = &rows.ledger else { return Ok(()) };
        let Port { shared, variant, policy, design, .. } = &self.0;
        let inserts = shared.with(|world| {
            if *variant == Variant::CommitBeforeRows && self.0.owns(world) {
                let window = WindowStart { offset: ledger.window_start, appended_hour: ledger.appended / 3600 };
                let next = world.log[..world.end as usize].get(ledger.next_offset as usize);
                let closes =
                    next.is_some_and(|next| policy.starts_new_window(window, 0, ledger.next_offset, next.appended));
                let window = Some(window).filter(|_| !closes);
                world.commit = Some(Commit::new(STREAM, window, ledger.next_offset, *policy));
            }
            design.lock().unwrap().inserts(world, rows, ledger.next_offset)
        });
        for insert in inserts {
            self.send(&insert).await?;
            design.lock().unwrap().acknowledged(ledger.next_offset);
        }
        Ok(())
    }

    async fn ledger_end(&self, _: StreamId) -> Result<Option<LedgerEnd>, CallError> {
        self.0.turn().await;
        self.0.shared.with(|world| match (self.0.variant, world.commit) {
            (Variant::CommitBeforeRows, Some(Commit { window, next_offset, .. })) => {
                let window = window.unwrap_or(WindowStart { offset: next_offset, appended_hour: 0 });
                Ok(Some(LedgerEnd { window, next_offset, fold_version: FOLD_VERSION }))
            }
            _ => Ok(world.store.ledger.values().next_back().copied()),
        })
    }

    async fn counted_in_window(&self, _: StreamId, window: u64) -> Result<u64, CallError> {
        self.0.turn().await;
        let counted = self.0.shared.with(|world| world.store.ledger.get(&window).map_or(0, |end| end.next_offset));
        Ok(if self.0.variant == Variant::OwnPolicyForOpenWindow { 0 } else { counted })
    }

    async fn record_loss(&self, _: StreamId, lost: Range<u64>, _: Hour) -> Result<(), CallError> {
        self.0.shared.with(|world| world.fail(&format!("{lost:?} were recorded as lost")));
        Ok(())
    }

    async fn remove_from(&self, _: StreamId, offset: u64) -> Result<(), CallError> {
        self.0.shared.with(|world| world.fail(&format!("rows from {offset} on were removed")));
        Ok(())
    }
}
