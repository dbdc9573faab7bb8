//! Settings of Kafka: who to ask, and what delivery needs whatever else is set.

use super::Config;
use aggregate::kafka::RecordTimes;
use anyhow::bail;
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

/// Parts of the names of librdkafka's settings whose values are nobody's to see.
const SECRET: [&str; 6] = ["password", "secret", "key.pem", "sasl.oauthbearer.config", "token", "jaas"];

/// How the aggregators of one group share the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupProtocol {
    /// The client-side protocol, with the cooperative-sticky assignor.
    Classic,
    /// The broker-side protocol of KIP-848.
    Consumer,
}

/// Where Kafka is, and what belongs to us there.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Brokers to ask first; none where Kafka is not used.
    pub bootstrap: Option<String>,
    /// The topic of page views.
    pub topic: String,
    /// The aggregators' consumer group.
    pub group: String,
    /// How the group shares partitions.
    pub protocol: GroupProtocol,
    /// Whose clock cuts windows.
    pub times: RecordTimes,
    /// Further settings of librdkafka, each (name, value).
    pub properties: Vec<(String, String)>,
}

impl KafkaSettings {
    /// A client's configuration with brokers and pass-through settings (TLS, SASL, …), and nothing that is a role's own.
    pub fn client(&self) -> anyhow::Result<ClientConfig> {
        let Some(bootstrap) = &self.bootstrap else {
            bail!(
                "no Kafka is named: set `kafka_bootstrap` (--kafka-bootstrap HOST:PORT, or KAFKA_BOOTSTRAP); on one machine \
                 without Kafka, run `headcount serve`"
            );
        };
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", bootstrap).set("client.id", "headcount");
        // A broker that was away for an hour is found within seconds.
        client.set("reconnect.backoff.max.ms", "2000");
        for (name, value) in &self.properties {
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

/// Bounds of what waits for Kafka.
#[derive(Clone, Copy, Debug)]
pub struct SpillSettings {
    /// Bytes in the producer's queue.
    pub queue_bytes: u64,
    /// Bytes of records in the spill.
    pub spill_bytes: u64,
    /// How long an acknowledgement may take.
    pub spill_after: Duration,
}

impl Config {
    /// Where Kafka is.
    pub fn kafka(&self) -> anyhow::Result<KafkaSettings> {
        let name = |setting: &str| -> anyhow::Result<String> {
            let text = self.text(setting).unwrap_or("");
            // Kafka's own rule for topics (org.apache.kafka.common.internals.Topic); groups may be freer, ours is not.
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if text.is_empty() || text.len() > 249 || !text.chars().all(legal) || matches!(text, "." | "..") {
                bail!(
                    "setting `{setting}` is {text:?} ({}): expected up to 249 letters, digits, dots, underscores and hyphens",
                    self.origin(setting)
                );
            }
            Ok(text.to_owned())
        };
        let protocol = match self.text("kafka_group_protocol") {
            Some("classic") => GroupProtocol::Classic,
            Some("consumer") => GroupProtocol::Consumer,
            other => bail!(
                "setting `kafka_group_protocol` is {other:?} ({}): expected classic or consumer",
                self.origin("kafka_group_protocol")
            ),
        };
        let times = match self.text("kafka_times") {
            Some("append") => RecordTimes::Append,
            Some("create") => RecordTimes::Create,
            other => {
                bail!("setting `kafka_times` is {other:?} ({}): expected append or create", self.origin("kafka_times"))
            }
        };
        let mut properties = Vec::new();
        for text in &self.values["kafka_property"].text {
            let origin = self.origin("kafka_property");
            let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
                bail!(
                    "setting `kafka_property` is {text:?} ({origin}): expected NAME=VALUE, such as security.protocol=SSL"
                );
            };
            let key = key.trim();
            if OURS.contains(&key) {
                bail!(
                    "setting `kafka_property` ({origin}): headcount sets `{key}` itself; without it figures would be wrong"
                );
            }
            properties.push((key.to_owned(), value.trim().to_owned()));
        }
        Ok(KafkaSettings {
            bootstrap: self.text("kafka_bootstrap").map(str::to_owned),
            topic: name("kafka_topic")?,
            group: name("kafka_group")?,
            protocol,
            times,
            properties,
        })
    }

    /// How a topic is made.
    pub fn topic_plan(&self) -> anyhow::Result<TopicPlan> {
        let count = |setting: &str, most: i32| -> anyhow::Result<i32> {
            let number: i32 = self.parse(setting, "a number")?;
            if !(1..=most).contains(&number) {
                bail!("setting `{setting}` is {number} ({}): expected 1 to {most}", self.origin(setting));
            }
            Ok(number)
        };
        Ok(TopicPlan {
            partitions: count("kafka_partitions", 10_000)?,
            replication: count("kafka_replication", 100)?,
            retention_hours: self.log_retention_hours()?,
            window_hours: self.aggregate()?.cut.window_hours,
        })
    }

    /// What may wait for Kafka.
    pub fn spill(&self) -> anyhow::Result<SpillSettings> {
        let queue_bytes: u64 = self.parse("kafka_queue_bytes", "bytes, from 1048576 on")?;
        // librdkafka counts in KiB, as a 31-bit number.
        if !(1 << 20..=1 << 40).contains(&queue_bytes) {
            bail!("setting `kafka_queue_bytes` ({}): expected 1048576 or more", self.origin("kafka_queue_bytes"));
        }
        let spill_after_ms: u64 = self.parse("spill_after_ms", "milliseconds, at least 100")?;
        if spill_after_ms < 100 {
            bail!("setting `spill_after_ms` ({}): expected at least 100", self.origin("spill_after_ms"));
        }
        Ok(SpillSettings {
            queue_bytes,
            spill_bytes: self.parse("spill_bytes", "bytes")?,
            spill_after: Duration::from_millis(spill_after_ms),
        })
    }
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
