//! `headcount topic reset`: rewrites the group's commits.

use super::{brokers_view, consumer};
use crate::config::commands::TopicResetCommand;
use crate::config::kafka_settings::KafkaSettings;
use crate::{projects, say};
use aggregate::commit::Commit;
use aggregate::fold::FOLD_VERSION;
use aggregate::kafka::{CommitText, StreamRow, Streams};
use aggregate::window::{WindowPolicy, WindowStart};
use anyhow::{Context, bail};
use clap::ArgMatches;
use clickhouse::Client;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::{Hour, StreamId};

/// The inputs from which the commits are written.
struct Reset<'a> {
    settings: &'a KafkaSettings,
    client: Client,
    streams: Streams,
    cluster: String,
    window_policy: WindowPolicy,
}

/// Rewrites commits, for a recreated log or for lost offsets.
///
/// # Errors
/// `--partition` is wrong, the topic is another log, or Kafka or ClickHouse failed.
pub async fn reset(matches: &ArgMatches, settings: &TopicResetCommand) -> anyhow::Result<()> {
    let parse = |text: &String| {
        text.parse::<i32>().map_err(|_| anyhow::anyhow!("--partition is {text:?}: expected its number"))
    };
    let only = matches.get_one::<String>("partition").map(parse).transpose()?;
    let client = projects::connect(&settings.store).await?;
    let streams = Streams::new(client.clone(), settings.store.timeout());
    let kafka = settings.kafka.clone();
    let (cluster, marks, committed) = tokio::task::spawn_blocking(move || brokers_view(&kafka)).await??;
    if let Some(only) = only.filter(|only| !marks.iter().any(|(partition, ..)| partition == only)) {
        bail!("topic {} has no partition {only}; it has {}", settings.kafka.topic, marks.len());
    }
    let reset = Reset { settings: &settings.kafka, client, streams, cluster, window_policy: settings.windows.policy() };
    let mut commits = Vec::new();
    for &(partition, low, high) in marks.iter().filter(|(partition, ..)| only.is_none_or(|only| only == *partition)) {
        if matches.get_flag("new-log") {
            commits.push((partition, reset.new_log(partition, low).await?));
        } else if committed.contains(&partition) {
            say!("partition {partition}: has its commit, left as it is");
        } else if let Some(commit) = reset.commit_of_ledger(partition, low, high).await? {
            commits.push((partition, commit));
        }
    }
    let kafka = settings.kafka.clone();
    tokio::task::spawn_blocking(move || store_commits(&kafka, &commits)).await?
}

impl Reset<'_> {
    /// The commit of a new log, whose first record has the offset `low`.
    async fn new_log(&self, partition: i32, low: u64) -> anyhow::Result<Commit> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        let stream = StreamId(u64::from_le_bytes(bytes));
        let row = StreamRow {
            stream: stream.0,
            cluster: self.cluster.clone(),
            topic: self.settings.topic.clone(),
            partition,
            born: u32::try_from(chrono::Utc::now().timestamp()).unwrap_or(0),
        };
        self.streams.store(&row).await?;
        say!("partition {partition}: a new log, counted from offset {low}");
        let window_policy = self.window_policy;
        Ok(Commit { stream, window: None, next_offset: low, window_policy, fold_version: FOLD_VERSION, drained: true })
    }

    /// The commit from the ledger for a partition with the offsets `low` to `high`; none if nothing was counted of it.
    async fn commit_of_ledger(&self, partition: i32, low: u64, high: u64) -> anyhow::Result<Option<Commit>> {
        let known = self.streams.of(&self.cluster, &self.settings.topic, partition).await?;
        let Some(&(stream, counted)) = known.iter().find(|(_, counted)| *counted > 0) else {
            say!("partition {partition}: nothing was counted of it, so it needs no commit");
            return Ok(None);
        };
        let (window_start, next_offset, appended, fold_version): (u64, u64, u32, u32) = self
            .client
            .query(
                "SELECT window_start, next_offset, toUInt32(appended), fold_version FROM ledger FINAL WHERE stream = {stream:UInt64} ORDER BY \
                 window_start DESC LIMIT 1",
            )
            .param("stream", stream.0)
            .fetch_one()
            .await
            .context("cannot read the ledger")?;
        if low > window_start || high < next_offset {
            bail!(
                "partition {partition} has offsets {low} to {high}, but stream {stream} was counted from {window_start} to \
                 {counted} in its last window: this is another log. Use --new-log --partition {partition}"
            );
        }
        let window = WindowStart { offset: window_start, appended_hour: Hour(appended / 3600).0 };
        say!("partition {partition}: stream {stream} restored, counted up to offset {next_offset}");
        let window_policy = self.window_policy;
        Ok(Some(Commit { stream, window: Some(window), next_offset, window_policy, fold_version, drained: false }))
    }
}

fn store_commits(settings: &KafkaSettings, commits: &[(i32, Commit)]) -> anyhow::Result<()> {
    if commits.is_empty() {
        return Ok(());
    }
    let consumer = consumer(settings)?;
    let mut list = TopicPartitionList::new();
    for (partition, commit) in commits {
        let mut element = list.add_partition(&settings.topic, *partition);
        element.set_offset(Offset::Offset(i64::try_from(commit.next_offset)?))?;
        element.set_metadata(CommitText::write(commit));
    }
    consumer.commit(&list, CommitMode::Sync).with_context(|| {
        format!(
            "the brokers did not take the commits; stop every aggregator of group {} first, and wait until the group has \
             noticed (its session time-out, 45 seconds)",
            settings.group
        )
    })?;
    say!("group {} has its commits; start the aggregators", settings.group);
    Ok(())
}
