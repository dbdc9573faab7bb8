//! The reference: a consumer that reads the whole topic and only counts, in a separate process.
//!
//! It has the settings of the aggregator's consumer, and no group. The ratio compares the aggregator's additional work with it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::drain_figures::{Figures, Who};
use crate::cpu::{cpu_seconds, peak_bytes};

/// The topic has ended too early if no record arrives for this long.
const SILENCE: Duration = Duration::from_secs(15);

/// Arguments of `headcount-loadtest drain`.
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    /// Brokers on this machine
    #[arg(long)]
    pub kafka_bootstrap: String,
    /// Topic to read
    #[arg(long)]
    pub topic: String,
    /// Its partitions
    #[arg(long)]
    pub partitions: i32,
    /// Records to read
    #[arg(long)]
    pub records: u64,
}

/// The settings with which the aggregator reads.
fn consumer(bootstrap: &str) -> anyhow::Result<BaseConsumer> {
    super::topic::client(bootstrap)
        .set("group.id", "headcount-loadtest-drain")
        .set("statistics.interval.ms", "2000")
        .set("queued.min.messages", "50000")
        .set("queued.max.messages.kbytes", "16384")
        .set("check.crcs", "true")
        .set("fetch.error.backoff.ms", "100")
        .set("fetch.queue.backoff.ms", "5")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .create()
        .context("making a consumer")
}

/// Reads the topic and prints one line of JSON.
///
/// # Errors
/// When reading fails, or the topic has fewer records.
pub fn drain(args: &DrainArgs) -> anyhow::Result<()> {
    super::topic::only_loopback(&args.kafka_bootstrap)?;
    let consumer = consumer(&args.kafka_bootstrap)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..args.partitions {
        list.add_partition_offset(&args.topic, partition, Offset::Offset(0)).context("naming an offset")?;
    }
    let begun = Instant::now();
    consumer.assign(&list).context("assigning the partitions")?;
    let (mut records, mut bytes) = (0, 0);
    while records < args.records {
        let Some(message) = consumer.poll(SILENCE) else {
            bail!("the topic gave {records} records of {} and then none for {} s", args.records, SILENCE.as_secs());
        };
        bytes += message.context("reading a record")?.payload_len() as u64;
        records += 1;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let pid = std::process::id();
    let drained = Figures {
        bytes: Some(bytes),
        client_cpu_seconds: Some(cpu_seconds(pid)?),
        client_peak_bytes: Some(peak_bytes(pid)?),
        ..Figures::new(Who::Drain, records, seconds)
    };
    println!("{}", serde_json::to_string(&drained)?);
    Ok(())
}

/// Runs `headcount-loadtest drain` of `binary` and waits for its figures, at most `within`.
///
/// # Errors
/// It fails, or takes longer.
pub async fn in_a_process(binary: &std::path::Path, args: &DrainArgs, within: Duration) -> anyhow::Result<Figures> {
    let child = tokio::process::Command::new(binary)
        .args(["drain", "--kafka-bootstrap", &args.kafka_bootstrap, "--topic", &args.topic])
        .args(["--partitions", &args.partitions.to_string(), "--records", &args.records.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .process_group(0)
        .output();
    let output = tokio::time::timeout(within, child)
        .await
        .with_context(|| format!("the drain took longer than {} s", within.as_secs()))?
        .with_context(|| format!("starting {}", binary.display()))?;
    ensure!(output.status.success(), "the drain ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("reading what the drain says")
}
