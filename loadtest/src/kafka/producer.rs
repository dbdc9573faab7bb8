//! The other reference: a producer that only sends the same records into a separate topic. The records are created beforehand.

use std::time::Instant;

use super::drain_figures::{Figures, Who};
use super::kafka_command::Setting;
use super::records::Log;
use super::topic::Sender;
use crate::cpu::cpu_seconds;

/// Maximum number of records that are held in memory for it: half a gigabyte.
const RECORDS_MAX: usize = 5_000_000;

/// Sends the first records of `log` to `topic`, which is there and empty. Blocks.
///
/// # Errors
/// When a record is refused or not acknowledged in time.
pub fn measure(setting: &Setting, topic: &str, log: &Log) -> anyhow::Result<Figures> {
    let mut records = Vec::new();
    log.each(|key, record| {
        if records.len() < RECORDS_MAX {
            records.push((key, record));
        }
        Ok(())
    })?;
    let count = records.len() as u64;
    let mut sender = Sender::new(&setting.bootstrap, topic)?;
    let (begun, before) = (Instant::now(), cpu_seconds(std::process::id())?);
    for (key, record) in records {
        sender.send(key, None, None, &record)?;
    }
    sender.flush()?;
    let seconds = begun.elapsed().as_secs_f64();
    let client_cpu_seconds = Some(cpu_seconds(std::process::id())? - before);
    Ok(Figures { client_cpu_seconds, ..Figures::new(Who::Producer, count, seconds) })
}
