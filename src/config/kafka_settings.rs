//! Settings of Kafka: its brokers, and what delivery needs whatever else is set.

use super::aggregation::WindowSettings;
use super::privacy_settings::LogSettings;
use super::values::{Bytes, InvalidValue, Optional, Parsed, bytes, count, millis, text};
#[cfg(feature = "kafka")]
use rdkafka::ClientConfig;
use std::time::Duration;

/// What delivery rests on. Whoever set one of these would lose or double figures, so nobody may.
const OURS: [&str; 14] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "group.id",
    "group.protocol",
    "isolation.level",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
];

/// Parts of the names of librdkafka's settings whose values are secret.
const SECRET: [&str; 7] = ["password", "passphrase", "secret", "key.pem", "sasl.oauthbearer.config", "token", "jaas"];

/// How the aggregators of one group share the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The client-side protocol, with the cooperative-sticky assignor.
    Classic,
    /// The broker-side protocol of KIP-848.
    Consumer,
}

/// Whose clock a record's time is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordClock {
    /// The brokers'.
    Append,
    /// The sender's.
    Create,
}

/// Where Kafka is: brokers, topic, consumer group.
#[derive(Clone, clap::Args)]
pub struct KafkaSettings {
    /// First brokers, separated by commas
    #[arg(id = "kafka_bootstrap", long = "kafka-bootstrap", value_name = "HOST:PORT", default_value = "", value_parser = text)]
    bootstrap: Optional<String>,
    /// Topic of page views
    #[arg(id = "kafka_topic", long = "kafka-topic", value_name = "NAME", default_value = "headcount", value_parser = name)]
    pub topic: String,
    /// Consumer group of the aggregators
    #[arg(id = "kafka_group", long = "kafka-group", value_name = "NAME", default_value = "headcount", value_parser = name)]
    pub group: String,
    /// classic, or consumer (KIP-848; brokers from 4.0 on)
    #[arg(id = "kafka_group_protocol", long = "kafka-group-protocol", value_name = "PROTOCOL", default_value = "classic", value_parser = protocol)]
    pub protocol: GroupProtocol,
    /// Clock of windows: append (brokers') or create (sender's)
    #[arg(id = "kafka_times", long = "kafka-times", value_name = "CLOCK", default_value = "append", value_parser = record_clock)]
    times: RecordClock,
    /// Setting of librdkafka, such as security.protocol=SSL; repeatable
    #[arg(id = "kafka_property", long = "kafka-property", value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<Property>,
}

/// A setting of librdkafka: name, value.
#[derive(Clone)]
struct Property(String, String);

fn name(text: &str) -> Parsed<String> {
    // Kafka's own rule for topics (org.apache.kafka.common.internals.Topic); groups may be freer, ours is not.
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > 249 || !text.chars().all(legal) || matches!(text, "." | "..") {
        return Err(InvalidValue::expected("up to 249 letters, digits, dots, underscores and hyphens"));
    }
    Ok(text.to_owned())
}

fn protocol(text: &str) -> Parsed<GroupProtocol> {
    match text {
        "classic" => Ok(GroupProtocol::Classic),
        "consumer" => Ok(GroupProtocol::Consumer),
        _ => Err(InvalidValue::expected("classic or consumer")),
    }
}

fn record_clock(text: &str) -> Parsed<RecordClock> {
    match text {
        "append" => Ok(RecordClock::Append),
        "create" => Ok(RecordClock::Create),
        _ => Err(InvalidValue::expected("append or create")),
    }
}

fn property(text: &str) -> Parsed<Property> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
        return Err(InvalidValue::expected("NAME=VALUE, such as security.protocol=SSL"));
    };
    let key = key.trim();
    if OURS.contains(&key) {
        return Err(InvalidValue::because(format!("headcount sets `{key}` itself; without it figures would be wrong")));
    }
    Ok(Property(key.to_owned(), value.trim().to_owned()))
}

impl KafkaSettings {
    /// Whether brokers are named.
    pub fn names_brokers(&self) -> bool {
        self.bootstrap.0.is_some()
    }

    /// What the times of the topic's records are.
    #[cfg(feature = "kafka")]
    pub fn record_times(&self) -> aggregate::kafka::RecordTimes {
        match self.times {
            RecordClock::Append => aggregate::kafka::RecordTimes::Append,
            RecordClock::Create => aggregate::kafka::RecordTimes::Create,
        }
    }

    /// A client's configuration with brokers and pass-through settings (TLS, SASL, …), without those of a role.
    ///
    /// # Errors
    /// No brokers are named.
    #[cfg(feature = "kafka")]
    pub fn client(&self) -> anyhow::Result<ClientConfig> {
        let Some(bootstrap) = self.bootstrap.text() else {
            anyhow::bail!(
                "no Kafka is named: set `kafka_bootstrap` (--kafka-bootstrap HOST:PORT, or KAFKA_BOOTSTRAP); on one machine \
                 without Kafka, run `headcount serve`"
            );
        };
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", bootstrap).set("client.id", "headcount");
        // A broker that was away for an hour is found within seconds.
        client.set("reconnect.backoff.max.ms", "2000");
        for Property(name, value) in &self.properties {
            client.set(name, value);
        }
        Ok(client)
    }
}

/// A topic as it is made when there is none.
#[derive(Clone, Copy, Debug)]
pub struct TopicPlan {
    /// Partitions.
    pub partitions: i32,
    /// Copies of each record.
    pub replication: i32,
    /// How long records stay.
    pub retention_hours: u32,
    /// Length of the aggregators' windows, which the retention must exceed by far.
    pub window_hours: u32,
}

/// The topic that headcount creates.
#[derive(clap::Args)]
pub struct TopicSettings {
    /// Partitions of a topic that headcount creates
    #[arg(long, value_name = "N", default_value = "12", value_parser = count::<i32, 1, 10_000>)]
    kafka_partitions: i32,
    /// Replicas of a topic that headcount creates
    #[arg(long, value_name = "N", default_value = "3", value_parser = count::<i32, 1, 100>)]
    kafka_replication: i32,
}

impl TopicSettings {
    /// How a topic is created.
    pub fn plan(&self, log: &LogSettings, windows: &WindowSettings) -> TopicPlan {
        TopicPlan {
            partitions: self.kafka_partitions,
            replication: self.kafka_replication,
            retention_hours: log.log_retention_hours,
            window_hours: windows.policy().window_hours,
        }
    }
}

/// Bounds of what waits for Kafka.
#[derive(clap::Args)]
pub struct SpillSettings {
    /// Bytes of records that may wait for Kafka's acknowledgement
    // librdkafka counts in KiB, as a 31-bit number.
    #[arg(long, value_name = "BYTES", default_value = "67108864", value_parser = bytes::<1_048_576, 1_099_511_627_776>)]
    pub kafka_queue_bytes: Bytes,
    /// Wait for an acknowledgement, in ms; then records are spilled
    #[arg(long, value_name = "MS", default_value = "3000", value_parser = millis::<100, { u64::MAX }>)]
    pub spill_after_ms: Duration,
    /// Bytes of records in the spill; with it full, beacons get 503
    #[arg(long, value_name = "BYTES", default_value = "4294967296", value_parser = bytes::<0, { u64::MAX }>)]
    pub spill_bytes: Bytes,
}

/// `NAME=VALUE` without a value that is a secret.
pub(super) fn redacted(text: &str) -> String {
    match text.split_once('=') {
        Some((key, _)) if SECRET.iter().any(|part| key.contains(part)) => format!("{key}=(not shown)"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn secrets_among_properties_are_not_shown() {
        assert_eq!(redacted("sasl.password=hunter2"), "sasl.password=(not shown)");
        assert_eq!(redacted("ssl.key.pem=-----BEGIN"), "ssl.key.pem=(not shown)");
        assert_eq!(redacted("sasl.oauthbearer.client.secret=x"), "sasl.oauthbearer.client.secret=(not shown)");
        assert_eq!(redacted("security.protocol=SSL"), "security.protocol=SSL");
    }
}
