//! The topic of page views: creates it with the settings that delivery depends on, checks them, and repairs its commits.

mod reset;

pub use reset::reset;

use crate::config::commands::TopicCommand;
use crate::config::kafka_settings::{KafkaSettings, TopicPlan};
use crate::kafka;
use crate::say;
use aggregate::due::LogRange;
use aggregate::kafka::RecordTimes;
use aggregate::kafka::{CommitText, Streams};
use anyhow::{Context, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::fmt;
use std::time::Duration;

/// Time limit of one request to the brokers.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Minimum for the topic's maximum message size: the longest record, with its frame.
const LARGEST_RECORD: u64 = 65_536;

/// A setting of the topic with a wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    setting: &'static str,
    found: String,
    expected: String,
    because: &'static str,
    /// Figures would be wrong or views lost; otherwise the operator should only know of it.
    fatal: bool,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wrong { setting, found, expected, because, .. } = self;
        write!(f, "{setting} is {found}, expected {expected}: {because}")
    }
}

/// A topic as the brokers describe it.
struct Described {
    replication: usize,
    settings: Vec<(String, String)>,
}

/// The result of a check of the topic.
pub enum TopicCheck {
    /// The brokers do not answer.
    Away(String),
    /// The topic does not exist.
    Missing,
    /// The topic exists; its faults.
    There(Vec<Wrong>),
}

fn consumer(settings: &KafkaSettings) -> anyhow::Result<BaseConsumer<kafka::Quiet>> {
    let mut client = settings.client()?;
    client.set("group.id", &settings.group).set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    kafka::consumer(&client)
}

/// Checks the topic and its settings.
pub async fn look(settings: &KafkaSettings, plan: TopicPlan) -> anyhow::Result<TopicCheck> {
    let described = match describe(settings).await {
        Ok(Some(described)) => described,
        Ok(None) => return Ok(TopicCheck::Missing),
        Err(error) => match error.downcast_ref::<KafkaError>() {
            Some(_) => return Ok(TopicCheck::Away(crate::shell::chain(&error))),
            None => return Err(error),
        },
    };
    Ok(TopicCheck::There(check(&described, settings.record_times(), plan)))
}

async fn describe(settings: &KafkaSettings) -> anyhow::Result<Option<Described>> {
    let asked = settings.clone();
    // As a consumer: a producer's metadata request may create the topic, with the brokers' defaults.
    let found = tokio::task::spawn_blocking(move || -> anyhow::Result<Option<(usize, usize)>> {
        let consumer = consumer(&asked)?;
        let metadata = kafka::metadata(&consumer, &asked.topic, BROKER_TIMEOUT)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == asked.topic) else { return Ok(None) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
            Some(code) => return Err(KafkaError::MetadataFetch(code)).context("the brokers do not tell of the topic"),
        }
        let replication = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        Ok(Some((topic.partitions().len(), replication)))
    })
    .await
    .context("asking the brokers failed")??;
    let Some((_, replication)) = found.filter(|&(partitions, _)| partitions > 0) else { return Ok(None) };
    let admin: AdminClient<DefaultClientContext> =
        settings.client()?.create().context("cannot make a Kafka client of these settings")?;
    let options = AdminOptions::new().request_timeout(Some(BROKER_TIMEOUT));
    let described = admin
        .describe_configs(&[ResourceSpecifier::Topic(&settings.topic)], &options)
        .await
        .context("the brokers do not tell the topic's settings")?;
    let described = described.into_iter().next().context("the brokers returned no settings of the topic")?;
    let described = match described {
        Ok(described) => described,
        Err(code) => {
            return Err(KafkaError::AdminOp(code)).context("the brokers do not tell the topic's settings");
        }
    };
    let settings = described.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect();
    Ok(Some(Described { replication, settings }))
}

/// The faults of a topic. Settings that lose page views or give wrong figures are fatal.
fn check(topic: &Described, times: RecordTimes, plan: TopicPlan) -> Vec<Wrong> {
    let text = |name: &str| topic.settings.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let number = |name: &str| text(name).and_then(|value| value.parse::<i64>().ok());
    let is = |name: &str, value: &str| text(name) == Some(value);
    let (retention_is_right, retention, why_retention) = retention(number("retention.ms"), times, plan);
    let settings = [
        (
            is("message.timestamp.type", times.topic_setting()),
            "message.timestamp.type",
            times.topic_setting().to_owned(),
            match times {
                RecordTimes::Append => "windows follow the brokers' append times, and senders' clocks differ",
                RecordTimes::Create => "windows are to follow the sender's clock (`kafka_times`)",
            },
        ),
        (is("cleanup.policy", "delete"), "cleanup.policy", "delete".to_owned(), "compaction removes page views"),
        (
            !is("unclean.leader.election.enable", "true"),
            "unclean.leader.election.enable",
            "false".to_owned(),
            "a leader that lags behind loses acknowledged page views",
        ),
        (retention_is_right, "retention.ms", retention, why_retention),
        (
            number("retention.bytes").is_none_or(|bytes| bytes < 0),
            "retention.bytes",
            "-1".to_owned(),
            "a burst would push out records that are not counted yet",
        ),
        (
            number("max.message.bytes").is_none_or(|bytes| u64::try_from(bytes).is_ok_and(|b| b >= LARGEST_RECORD)),
            "max.message.bytes",
            format!("{LARGEST_RECORD} or more"),
            "long page views would be refused for ever",
        ),
    ];
    let found = |name: &str| text(name).unwrap_or("not reported").to_owned();
    let wrong = settings.into_iter().filter(|(right, ..)| !right);
    let wrong = wrong.map(|(_, setting, expected, because)| Wrong {
        setting,
        found: found(setting),
        expected,
        because,
        fatal: true,
    });
    wrong.chain(replicas(topic.replication, number("min.insync.replicas").unwrap_or(1))).collect()
}

/// Whether records are retained long enough, the expected time, and why.
fn retention(retention_ms: Option<i64>, times: RecordTimes, plan: TopicPlan) -> (bool, String, &'static str) {
    let needed_ms = i64::from(4 * plan.window_hours).max(24) * 3_600_000;
    match times {
        RecordTimes::Append => (
            retention_ms.is_some_and(|ms| ms < 0 || ms >= needed_ms),
            format!("{needed_ms} or more (four windows, and at least a day)"),
            "records must stay until their window is counted, with time to fix what has failed",
        ),
        RecordTimes::Create => (
            retention_ms.is_some_and(|ms| ms < 0),
            "-1".to_owned(),
            "by the sender's clock a record may be old when it comes, and brokers would delete it before it is counted",
        ),
    }
}

/// The faults in the number of replicas.
fn replicas(replication: usize, insync: i64) -> impl Iterator<Item = Wrong> {
    let wrong = |right: bool, setting, found: String, expected: &str, because, fatal| {
        (!right).then(|| Wrong { setting, found, expected: expected.to_owned(), because, fatal })
    };
    let few = "with fewer, one broker's disk may be all that has an acknowledged page view";
    let all = "with every copy needed, one broker away stops all writing";
    let one = "a broker's disk that is lost takes the page views that are not counted yet with it";
    let is_less = insync < i64::try_from(replication).unwrap_or(0) || replication == 1;
    [
        wrong(replication < 3 || insync >= 2, "min.insync.replicas", insync.to_string(), "2 or more", few, true),
        wrong(is_less, "min.insync.replicas", insync.to_string(), "fewer than the copies", all, false),
        wrong(replication >= 3, "replication", replication.to_string(), "3", one, false),
    ]
    .into_iter()
    .flatten()
}

/// The check at a role's start. Waits for the brokers if `wait`, and fails if the topic is not fit. Returns false if the brokers do not answer.
pub async fn fit(settings: &KafkaSettings, plan: TopicPlan) -> anyhow::Result<bool> {
    match look(settings, plan).await? {
        TopicCheck::Away(_) => Ok(false),
        TopicCheck::Missing => bail!(
            "there is no topic {}: make it with `headcount topic ensure` (with the same settings as this role)",
            settings.topic
        ),
        TopicCheck::There(wrong) => {
            for wrong in wrong.iter().filter(|wrong| !wrong.fatal) {
                tracing::warn!(topic = settings.topic, "{wrong}");
            }
            let fatal: Vec<String> =
                wrong.iter().filter(|wrong| wrong.fatal).map(|wrong| format!("\n  {wrong}")).collect();
            if !fatal.is_empty() {
                bail!(
                    "topic {} is not fit for page views:{}\nchange them with kafka-configs.sh (--alter --entity-type topics \
                     --entity-name {}), or name another topic",
                    settings.topic,
                    fatal.concat(),
                    settings.topic
                );
            }
            Ok(true)
        }
    }
}

/// Runs `headcount topic ensure|check`.
pub async fn command(action: &str, settings: &TopicCommand) -> anyhow::Result<()> {
    let plan = settings.topic.plan(&settings.log, &settings.windows);
    if action == "ensure" { ensure(&settings.kafka, plan).await } else { report(&settings.kafka, plan).await }
}

/// Prints the topic's state, and fails if it is not fit.
async fn report(settings: &KafkaSettings, plan: TopicPlan) -> anyhow::Result<()> {
    match look(settings, plan).await? {
        TopicCheck::Away(why) => bail!("cannot reach Kafka: {why}"),
        TopicCheck::Missing => bail!("there is no topic {}; `headcount topic ensure` makes it", settings.topic),
        TopicCheck::There(wrong) => {
            for wrong in &wrong {
                say!("{}: {wrong}", if wrong.fatal { "wrong" } else { "note" });
            }
            let fatal = wrong.iter().filter(|wrong| wrong.fatal).count();
            if fatal > 0 {
                bail!("topic {} is not fit for page views: {fatal} of its settings are wrong", settings.topic);
            }
            say!("topic {} is fit for page views", settings.topic);
            Ok(())
        }
    }
}

async fn ensure(settings: &KafkaSettings, plan: TopicPlan) -> anyhow::Result<()> {
    let found = look(settings, plan).await?;
    if let TopicCheck::Away(why) = found {
        bail!("cannot reach Kafka: {why}");
    }
    if let TopicCheck::Missing = found {
        let retention_ms = match settings.record_times() {
            RecordTimes::Append => i64::from(plan.retention_hours) * 3_600_000,
            RecordTimes::Create => -1,
        };
        let retention_ms = retention_ms.to_string();
        let insync = if plan.replication >= 3 { "2" } else { "1" };
        let topic = NewTopic::new(&settings.topic, plan.partitions, TopicReplication::Fixed(plan.replication))
            .set("message.timestamp.type", settings.record_times().topic_setting())
            .set("cleanup.policy", "delete")
            .set("retention.ms", &retention_ms)
            .set("retention.bytes", "-1")
            .set("min.insync.replicas", insync)
            .set("unclean.leader.election.enable", "false");
        let admin: AdminClient<DefaultClientContext> =
            settings.client()?.create().context("cannot make a Kafka client of these settings")?;
        let options = AdminOptions::new().operation_timeout(Some(BROKER_TIMEOUT)).request_timeout(Some(BROKER_TIMEOUT));
        let made = admin.create_topics([&topic], &options).await.context("cannot make the topic")?;
        for outcome in made {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) => bail!(
                    "the brokers cannot keep {} copies of a record: there are fewer of them. Start more, or say \
                     --kafka-replication 1 (a broker's disk that is lost then takes page views with it)",
                    plan.replication
                ),
                Err((topic, code)) => bail!("the brokers did not make topic {topic}: {code}"),
            }
        }
        say!("made topic {} with {} partitions, {} copies", settings.topic, plan.partitions, plan.replication);
        // Brokers learn of it one after another.
        let deadline = tokio::time::Instant::now() + BROKER_TIMEOUT;
        while matches!(look(settings, plan).await?, TopicCheck::Missing) {
            if tokio::time::Instant::now() > deadline {
                bail!("the brokers do not tell of the topic that was just made");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    report(settings, plan).await
}

type BrokersView = (String, Vec<(i32, u64, u64)>, Vec<i32>);

/// The cluster's id; each partition with its first and end offset; partitions with headcount's commits.
fn brokers_view(settings: &KafkaSettings) -> anyhow::Result<BrokersView> {
    let consumer = consumer(settings)?;
    let metadata = kafka::metadata(&consumer, &settings.topic, BROKER_TIMEOUT)?;
    let cluster =
        consumer.client().fetch_cluster_id(BROKER_TIMEOUT).context("the brokers do not tell their cluster's id")?;
    let topic = metadata.topics().iter().find(|topic| topic.error().is_none() && !topic.partitions().is_empty());
    let topic = topic.with_context(|| format!("there is no topic {}", settings.topic))?;
    let mut list = TopicPartitionList::new();
    let mut marks = Vec::new();
    for partition in topic.partitions() {
        let marked = consumer.fetch_watermarks(&settings.topic, partition.id(), BROKER_TIMEOUT);
        let (low, high) = marked.with_context(|| format!("cannot ask where partition {} begins", partition.id()))?;
        marks.push((partition.id(), u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)));
        list.add_partition(&settings.topic, partition.id());
    }
    marks.sort_unstable();
    let committed = consumer.committed_offsets(list, BROKER_TIMEOUT).context("cannot read the group's commits")?;
    let elements = committed.elements();
    let ours = elements.iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => CommitText::read(offset, element.metadata()).ok().map(|_| element.partition()),
        _ => None,
    });
    Ok((cluster, marks, ours.collect()))
}

/// The ranges of the streams in the topic's partitions.
///
/// # Errors
/// Kafka or ClickHouse does not answer, or a partition has records and no aggregator has read it yet.
pub async fn ranges(settings: &KafkaSettings, streams: &Streams) -> anyhow::Result<Vec<LogRange>> {
    let asked = settings.clone();
    let (cluster, marks, _) = tokio::task::spawn_blocking(move || brokers_view(&asked)).await??;
    let mut ranges = Vec::new();
    for (partition, begin, end) in marks {
        match streams.of(&cluster, &settings.topic, partition).await?.first() {
            Some(&(stream, _)) => ranges.push(LogRange { stream: stream.0, start: begin, end }),
            None if begin == end => {}
            None => bail!(
                "partition {partition} of topic {} has records, and no aggregator has read it yet",
                settings.topic
            ),
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(replication: usize, changed: &[(&str, &str)]) -> Described {
        let mut settings: Vec<(String, String)> = [
            ("message.timestamp.type", "LogAppendTime"),
            ("cleanup.policy", "delete"),
            ("unclean.leader.election.enable", "false"),
            ("retention.ms", "259200000"),
            ("retention.bytes", "-1"),
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "2"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, value) in changed {
            settings.retain(|(found, _)| found != name);
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        Described { replication, settings }
    }

    #[test]
    fn each_wrong_setting_is_named() {
        let plan = TopicPlan { partitions: 12, replication: 3, retention_hours: 72, window_hours: 12 };
        assert_eq!(check(&described(3, &[]), RecordTimes::Append, plan), []);
        for (name, value) in [
            ("message.timestamp.type", "CreateTime"),
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("unclean.leader.election.enable", "true"),
            ("retention.ms", "3600000"),
            ("retention.bytes", "1000000"),
            ("max.message.bytes", "1000"),
            ("min.insync.replicas", "1"),
        ] {
            let wrong = check(&described(3, &[(name, value)]), RecordTimes::Append, plan);
            assert_eq!(wrong.len(), 1, "{name}: {wrong:?}");
            assert!(wrong[0].fatal && wrong[0].to_string().starts_with(&format!("{name} is {value}, expected ")));
        }
        let created = |changed: &[(&str, &str)]| check(&described(3, changed), RecordTimes::Create, plan);
        let [of_sender, stays] = [("message.timestamp.type", "CreateTime"), ("retention.ms", "-1")];
        assert_eq!(created(&[of_sender, stays]), []);
        for (changed, said) in
            [(stays, "message.timestamp.type is LogAppendTime"), (of_sender, "retention.ms is 259200000")]
        {
            let wrong = created(&[changed]);
            assert!(wrong.len() == 1 && wrong[0].fatal && wrong[0].to_string().starts_with(said), "{wrong:?}");
        }
        let one = check(&described(1, &[("min.insync.replicas", "1")]), RecordTimes::Append, plan);
        assert!(one.len() == 1 && !one[0].fatal && one[0].setting == "replication", "{one:?}");
        assert!(
            check(&described(3, &[("min.insync.replicas", "3")]), RecordTimes::Append, plan)
                .iter()
                .all(|wrong| !wrong.fatal)
        );
    }
}
