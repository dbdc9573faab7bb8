//! The month goes into the topic: in the order of time, as fast as it goes, but never far ahead of who counts.
//!
//! Each partition has a prefix of its own records of the month: partitions are chosen here, a producer keeps the order of each,
//! and records are a function of the seed. So the topic itself says how far a run came, however it ended: where partition p
//! ends at n, its first n records are there. Going on means making the month again from its beginning and leaving those out.

use anyhow::Context;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use schemas::record::{RecordFormat, encode_rejections};

use super::plan::Plan;
use super::stream::Stretch;
use super::truth::{Sent, Truth};
use crate::kafka::topic::Sender;

const HOUR_MS: i64 = 3_600_000;

/// A day that is in the topic.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Day of the month, from 1.
    pub day: u32,
    /// Records until its end, tallies included.
    pub records: u64,
    /// Page views among them.
    pub views: u64,
}

/// How far all have come. Written by one, read by the others.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records that are in the topic, or soon will be.
    pub sent: AtomicU64,
    /// Records that the ledger has.
    pub counted: AtomicU64,
    /// Hours of the month that are in the topic.
    pub hours: AtomicU32,
    /// Whether to end early.
    pub stop: AtomicBool,
    /// Whether sending has failed.
    pub failed: AtomicBool,
    /// The days that are in the topic.
    pub marks: Mutex<Vec<Mark>>,
}

/// What is to be sent where.
#[derive(Debug, Clone)]
pub struct Job {
    /// Brokers.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// Of each of its partitions, how many records it has already.
    pub there: Vec<u64>,
    /// Hours of the month to send.
    pub hours: u32,
    /// How many records may wait for the ledger.
    pub ahead: u64,
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Produced {
    /// What all that is in the topic adds up to.
    pub truth: Truth,
    /// Records that were there before.
    pub before: u64,
    /// From the first record to the last acknowledgement.
    pub seconds: f64,
    /// Of these, making again what the topic had.
    pub remade_seconds: f64,
    /// Of these, waiting for who counts.
    pub waited_seconds: f64,
    /// Bytes sent to the brokers, compressed and framed.
    pub wire_bytes: u64,
    /// Whether every hour of the job is in the topic.
    pub complete: bool,
    /// Why it is not, unless a stop was asked for: a record was not acknowledged.
    pub failure: Option<anyhow::Error>,
}

/// Sends until all is acknowledged, a stop is asked for, or sending fails. Blocks.
#[must_use]
pub fn produce(plan: &Plan, job: &Job, progress: &Progress) -> Produced {
    let truth = Truth { partitions: vec![Sent::default(); job.there.len()], ..Truth::new(plan) };
    let mut produced = Produced { truth, before: job.there.iter().sum(), ..Produced::default() };
    if let Err(failure) = send(plan, job, progress, &mut produced) {
        produced.failure = Some(failure);
        progress.failed.store(true, Ordering::Relaxed);
    }
    produced
}

fn send(plan: &Plan, job: &Job, progress: &Progress, produced: &mut Produced) -> anyhow::Result<()> {
    // No part of what is measured, so it yields to readers, and so do the client's threads, which inherit it; but not to those who
    // count (15): were they faster than it, there would be no backlog to work off.
    let _ = rustix::process::nice(10);
    let mut stretch = Stretch::default();
    let truth = &mut produced.truth;
    let mut log = Log { sender: Sender::new(&job.bootstrap, &job.topic)?, there: job.there.clone(), time: 0 };
    let begun = Instant::now();
    let mut complete = true;
    'month: for hour in 0..job.hours {
        if (plan.month().first_hour().0 + hour).is_multiple_of(crate::WINDOW_HOURS) {
            truth.partitions.iter_mut().for_each(|sent| sent.spans.push(sent.records));
        }
        for part in 0..plan.parts(hour) {
            // What is in the topic belongs to what is compared, so it is made again whatever happens.
            if !log.is_new() {
                produced.remade_seconds = begun.elapsed().as_secs_f64();
            } else if progress.stop.load(Ordering::Relaxed) {
                complete = false;
                break 'month;
            }
            plan.fill(hour, part, &mut stretch);
            // As if it were sent then: that cuts windows.
            let start = i64::from(plan.month().first_hour().0 + hour) * HOUR_MS;
            log.time = start + i64::from(part) * HOUR_MS / i64::from(plan.parts(hour));
            for place in stretch.views() {
                let view = plan.view(place, hour);
                truth.count(plan, place, &view, hour);
                truth.view_in(log.partition(view.key), plan, place, &view);
                let record = view.record(plan);
                truth.bytes += record.len() as u64;
                log.send(view.key, &record)?;
            }
            let (key, tally) = plan.tally(hour, part);
            truth.tally(&tally);
            truth.partitions[log.partition(key)].records += 1;
            let record = encode_rejections(tally, RecordFormat::V4).context("a tally has no place in its format")?;
            truth.bytes += record.len() as u64;
            log.send(key, &record)?;
            let sent = truth.records + truth.tallies;
            progress.sent.store(sent, Ordering::Relaxed);
            produced.waited_seconds += wait(progress, sent, job.ahead);
        }
        progress.hours.store(hour + 1, Ordering::Relaxed);
        if (hour + 1) % 24 == 0 || hour + 1 == job.hours {
            let mark = Mark {
                day: hour / 24 + 1,
                records: truth.records + truth.tallies,
                views: truth.records - truth.repeats,
            };
            progress.marks.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
        }
    }
    log.sender.flush()?;
    produced.seconds = begun.elapsed().as_secs_f64();
    if complete && job.hours == plan.hours() {
        truth.visitors = (0..plan.size.projects).map(|project| u64::from(plan.visitors(project))).sum();
    }
    produced.complete = complete;
    produced.wire_bytes = log.sender.wire_bytes();
    Ok(())
}

/// The topic, with what it has already.
struct Log {
    sender: Sender,
    /// Of each partition, how many records are still to be left out.
    there: Vec<u64>,
    /// Of what is sent, in milliseconds since the epoch.
    time: i64,
}

impl Log {
    fn partition(&self, key: u64) -> usize {
        (key % self.there.len() as u64) as usize
    }

    fn send(&mut self, key: u64, record: &[u8]) -> anyhow::Result<()> {
        let partition = self.partition(key);
        if let Some(left) = self.there[partition].checked_sub(1) {
            self.there[partition] = left;
            return Ok(());
        }
        self.sender.send(key, i32::try_from(partition).ok(), Some(self.time), record)
    }

    /// Whether nothing is left out any more.
    fn is_new(&self) -> bool {
        self.there.iter().all(|left| *left == 0)
    }
}

/// Waits until at most `ahead` records wait for the ledger, and says how long that took.
fn wait(progress: &Progress, sent: u64, ahead: u64) -> f64 {
    let begun = Instant::now();
    let mut waited = false;
    while sent.saturating_sub(progress.counted.load(Ordering::Relaxed)) > ahead
        && !progress.stop.load(Ordering::Relaxed)
    {
        waited = true;
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    if waited { begun.elapsed().as_secs_f64() } else { 0.0 }
}
