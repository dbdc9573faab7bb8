//! The other reference: a producer that sends the same records into a topic of its own, made beforehand, and does nothing else.

use std::time::Instant;

use super::command::Setting;
use super::records::Log;
use super::topic::Sender;
use crate::cpu::cpu_seconds;

/// Records that are held in memory for it, at most: half a gigabyte.
const MOST: usize = 5_000_000;

/// What a run of the producer saw.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Records sent.
    pub records: u64,
    /// From the first record to the last acknowledgement, which all replicas in sync stand for.
    pub seconds: f64,
    /// Of this process.
    pub cpu_seconds: f64,
}

/// Sends the first records of `log` to `topic`, which is there and empty. Blocks.
///
/// # Errors
/// When a record is refused or not acknowledged in time.
pub fn measure(setting: &Setting, topic: &str, log: &Log) -> anyhow::Result<Sent> {
    let records: Vec<_> = log.records().take(MOST).collect();
    let mut sent = Sent { records: records.len() as u64, seconds: 0.0, cpu_seconds: 0.0 };
    let mut sender = Sender::new(&setting.bootstrap, topic)?;
    let (begun, before) = (Instant::now(), cpu_seconds(std::process::id())?);
    for (key, record) in records {
        sender.send(key, None, None, &record)?;
    }
    sender.flush()?;
    (sent.seconds, sent.cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu_seconds(std::process::id())? - before);
    Ok(sent)
}
