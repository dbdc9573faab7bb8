//! Real Apache Kafka for stories: brokers as processes, through `scripts/kafka`, and requests of the tests to them.

use crate::process::{Process, free_port};
use crate::service::{PATIENCE, eventually};
use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, Timestamp};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Time limit of one request to a broker.
const ASK: Duration = Duration::from_secs(10);

/// The repository, which contains the scripts.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// A client that logs nothing.
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Quiet {}

/// One broker, its own controller unless it is one of a [`Cluster`].
pub struct Broker {
    process: Process,
    port: u16,
    /// The second listener's port, and the port that it advertises to clients.
    proxied: Option<(u16, u16)>,
    _directory: Option<TempDir>,
}

impl Broker {
    /// A started broker on free ports.
    pub async fn start() -> Result<Broker> {
        Broker::start_with(None, &[]).await
    }

    /// A started broker with a second listener that advertises the port `outer` of loopback, which belongs to a proxy.
    pub async fn start_behind(outer: u16) -> Result<Broker> {
        Broker::start_with(Some(outer), &[]).await
    }

    /// A started broker with a second listener that wants TLS, with the certificate and key in this PEM file, and a
    /// password (SASL PLAIN) of a user. [`Broker::behind`] is its port.
    pub async fn start_secured(identity: &Path, user: &str, password: &str) -> Result<Broker> {
        let port = free_port()?;
        let jaas =
            format!(r#"org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";"#);
        let properties = [
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:SASL_SSL".to_owned(),
            "listener.name.proxied.sasl.enabled.mechanisms=PLAIN".to_owned(),
            format!("listener.name.proxied.plain.sasl.jaas.config={jaas}"),
            "listener.name.proxied.ssl.keystore.type=PEM".to_owned(),
            format!("listener.name.proxied.ssl.keystore.location={}", identity.display()),
        ];
        Broker::start_with(Some(port), &properties).await
    }

    async fn start_with(outer: Option<u16>, properties: &[String]) -> Result<Broker> {
        let directory = TempDir::with_prefix("headcount-kafka-")?;
        let mut arguments = vec!["--controller-port".to_owned(), free_port()?.to_string()];
        for property in properties {
            arguments.extend(["--property".to_owned(), property.clone()]);
        }
        // A secured listener needs no proxy: it advertises its real port.
        let inner = |outer| if properties.is_empty() { free_port() } else { Ok(outer) };
        let proxied = outer.map(|outer| Ok::<_, anyhow::Error>((inner(outer)?, outer))).transpose()?;
        if let Some((inner, outer)) = proxied {
            arguments.extend(["--proxied".to_owned(), format!("{inner}:{outer}")]);
        }
        let mut broker = Broker::new(directory.path(), free_port()?, arguments)?;
        broker.proxied = proxied;
        broker._directory = Some(directory);
        broker.launch().await?;
        Ok(broker)
    }

    fn new(directory: &Path, port: u16, more: Vec<String>) -> Result<Broker> {
        let script = repository().join("scripts").join("kafka");
        let mut arguments: Vec<String> = ["start", "--until-eof", "--dir"].map(str::to_owned).into_iter().collect();
        arguments.push(directory.join("broker").display().to_string());
        arguments.extend(["--port".to_owned(), port.to_string()]);
        arguments.extend(more);
        let process = Process::new("the broker", &script, arguments, directory.join("broker.log"));
        Ok(Broker { process, port, proxied: None, _directory: None })
    }

    /// Starts the process again, with the data it has.
    pub async fn launch(&mut self) -> Result<()> {
        self.process.spawn(&[])?;
        let bootstrap = self.bootstrap();
        self.process.wait_until("the broker to answer", async || metadata(&bootstrap).await.map(drop)).await
    }

    /// The bootstrap server.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The directory of its data.
    pub fn data(&self) -> Result<PathBuf> {
        self.process_directory()
    }

    /// The port of the listener behind a proxy.
    pub fn behind(&self) -> Option<u16> {
        self.proxied.map(|(inner, _)| inner)
    }

    /// The broker's own process id: the script's child.
    pub fn pid(&self) -> Result<String> {
        let directory = self.process_directory()?;
        Ok(std::fs::read_to_string(directory.join("pid"))?.trim().to_owned())
    }

    fn process_directory(&self) -> Result<PathBuf> {
        let arguments = self.process.arguments();
        let at = arguments.iter().position(|argument| argument == "--dir").context("a broker has a directory")?;
        Ok(PathBuf::from(&arguments[at + 1]))
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &self.pid()?]).status()?;
        ensure!(sent.success(), "cannot send SIG{signal} to the broker");
        Ok(())
    }

    /// SIGKILL to the broker.
    pub async fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.process.ended().await?;
        Ok(())
    }

    /// SIGTERM, and waits.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        self.process.ended().await?;
        Ok(())
    }

    /// SIGSTOP.
    pub fn pause(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Its log output.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Three brokers.
pub struct Cluster {
    /// The brokers, in the order of their ids from 1 on.
    pub brokers: Vec<Broker>,
    _directories: Vec<TempDir>,
}

impl Cluster {
    /// Three started brokers.
    pub async fn start() -> Result<Cluster> {
        let controllers: Vec<u16> = (0..3).map(|_| free_port()).collect::<Result<_>>()?;
        let voters: Vec<String> =
            controllers.iter().enumerate().map(|(node, port)| format!("{}@127.0.0.1:{port}", node + 1)).collect();
        let (mut brokers, mut directories) = (Vec::new(), Vec::new());
        for (node, port) in controllers.iter().enumerate() {
            let directory = TempDir::with_prefix("headcount-kafka-")?;
            let arguments = ["--controller-port", &port.to_string(), "--node-id", &(node + 1).to_string(), "--voters"]
                .map(str::to_owned)
                .into_iter()
                .chain([voters.join(",")])
                .collect();
            let mut broker = Broker::new(directory.path(), free_port()?, arguments)?;
            // All concurrently: alone none of them answers.
            broker.process.spawn(&[])?;
            brokers.push(broker);
            directories.push(directory);
        }
        let mut cluster = Cluster { brokers, _directories: directories };
        let bootstrap = cluster.bootstrap();
        let logs = |cluster: &Cluster| cluster.brokers.iter().map(Broker::log).collect::<Vec<_>>().join("\n");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let known = metadata(&bootstrap).await;
            if matches!(known, Ok(3)) {
                break;
            }
            for broker in &mut cluster.brokers {
                if let Some(status) = broker.process.try_ended()? {
                    bail!("a broker of three ended at its start: {status}\n{}", broker.log());
                }
            }
            ensure!(Instant::now() < deadline, "three brokers do not answer: {known:?}\n{}", logs(&cluster));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(cluster)
    }

    /// The bootstrap servers.
    pub fn bootstrap(&self) -> String {
        self.brokers.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",")
    }

    /// The leader of a partition, as an index into [`Cluster::brokers`].
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<usize> {
        let (bootstrap, topic) = (self.bootstrap(), topic.to_owned());
        blocking(move || {
            let consumer = consumer(&bootstrap, None)?;
            let metadata = consumer.fetch_metadata(Some(&topic), ASK)?;
            let found = metadata.topics().iter().flat_map(|topic| topic.partitions()).find(|p| p.id() == partition);
            let leader = found.context("the partition is known")?.leader();
            ensure!(leader > 0, "the partition has no leader");
            Ok(usize::try_from(leader)? - 1)
        })
        .await
    }
}

/// The bootstrap server, and the broker if this process started it; or why there is none.
type Shared = std::result::Result<(String, Option<std::sync::Mutex<Broker>>), String>;

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// The broker of `$KAFKA_BOOTSTRAP`, or one for all stories of this process. No story may stop it. (Its standard input closes with this process,
/// which ends the broker.)
pub async fn shared() -> Result<String> {
    let made = SHARED
        .get_or_init(async || {
            if let Some(bootstrap) = std::env::var("KAFKA_BOOTSTRAP").ok().filter(|text| !text.is_empty()) {
                return Ok((bootstrap, None));
            }
            let broker = Broker::start().await.map_err(|error| format!("{error:#}"))?;
            Ok((broker.bootstrap(), Some(std::sync::Mutex::new(broker))))
        })
        .await;
    match made {
        Ok((bootstrap, _)) => Ok(bootstrap.clone()),
        Err(error) => bail!("no broker: {error}"),
    }
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call).await?
}

fn consumer(bootstrap: &str, group: Option<&str>) -> Result<BaseConsumer<Quiet>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    client.set("group.id", group.unwrap_or("headcount-story"));
    Ok(client.create_with_context(Quiet)?)
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    let mut client = ClientConfig::new();
    // Its messages about killed brokers are expected.
    client.set("bootstrap.servers", bootstrap).set("log_level", "0");
    Ok(client.create()?)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK)).operation_timeout(Some(ASK))
}

/// How many brokers there are.
async fn metadata(bootstrap: &str) -> Result<usize> {
    let bootstrap = bootstrap.to_owned();
    blocking(move || Ok(consumer(&bootstrap, None)?.fetch_metadata(None, Duration::from_secs(2))?.brokers().len()))
        .await
}

/// Creates a topic with these settings.
pub async fn create_topic(
    bootstrap: &str,
    topic: &str,
    partitions: i32,
    replication: i32,
    settings: &[(&str, &str)],
) -> Result<()> {
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    // librdkafka drops its handle of a bootstrap server once it knows the brokers, and with it a request that was not sent yet.
    let unsent = KafkaError::AdminOp(RDKafkaErrorCode::DestroyBroker);
    let answers = loop {
        match admin(bootstrap)?.create_topics([&new], &options()).await {
            Err(error) if error == unsent => {}
            answers => break answers?,
        }
    };
    for made in answers {
        made.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Deletes a topic.
pub async fn delete_topic(bootstrap: &str, topic: &str) -> Result<()> {
    for gone in admin(bootstrap)?.delete_topics(&[topic], &options()).await? {
        gone.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
    }
    eventually("the topic to be gone", async || {
        let (bootstrap, name) = (bootstrap.to_owned(), topic.to_owned());
        blocking(move || {
            let consumer = consumer(&bootstrap, None)?;
            let metadata = consumer.fetch_metadata(Some(&name), ASK)?;
            let code = metadata.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
            ensure!(code == Some(RDKafkaErrorCode::UnknownTopicOrPartition), "{code:?}");
            Ok(())
        })
        .await
    })
    .await
}

/// Deletes a group with all its offsets. It must have no member.
pub async fn delete_group(bootstrap: &str, group: &str) -> Result<()> {
    for gone in admin(bootstrap)?.delete_groups(&[group], &options()).await? {
        gone.map_err(|(group, code)| anyhow::anyhow!("group {group}: {code}"))?;
    }
    Ok(())
}

/// Deletes a partition's records below an offset, as retention does.
pub async fn delete_records(bootstrap: &str, topic: &str, partition: i32, below: u64) -> Result<()> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(i64::try_from(below)?))?;
    admin(bootstrap)?.delete_records(&list, &options()).await?;
    Ok(())
}

/// Appends records unchanged.
pub async fn produce(bootstrap: &str, topic: &str, partition: i32, records: &[Vec<u8>]) -> Result<()> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("acks", "all").set("enable.idempotence", "true");
    client.set("linger.ms", "2").set("queue.buffering.max.messages", "1000000");
    let producer: FutureProducer = client.create()?;
    let mut waiting = Vec::with_capacity(records.len());
    for record in records {
        let message: FutureRecord<'_, (), Vec<u8>> = FutureRecord::to(topic).payload(record).partition(partition);
        waiting.push(producer.send_result(message).map_err(|(error, _)| error)?);
    }
    for delivery in waiting {
        delivery.await?.map_err(|(error, _)| error)?;
    }
    Ok(())
}

/// First offset and end of each partition.
pub async fn watermarks(bootstrap: &str, topic: &str) -> Result<Vec<(u64, u64)>> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&bootstrap, None)?;
        let metadata = consumer.fetch_metadata(Some(&topic), ASK)?;
        let partitions = metadata.topics().first().context("the topic is known")?.partitions().len();
        (0..i32::try_from(partitions)?)
            .map(|partition| {
                let (low, high) = consumer.fetch_watermarks(&topic, partition, ASK)?;
                Ok((u64::try_from(low)?, u64::try_from(high)?))
            })
            .collect()
    })
    .await
}

/// A group's committed offset and metadata, by partition.
pub async fn committed(bootstrap: &str, group: &str, topic: &str) -> Result<Vec<Option<(u64, String)>>> {
    let partitions = watermarks(bootstrap, topic).await?.len();
    let (bootstrap, group, topic) = (bootstrap.to_owned(), group.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&bootstrap, Some(&group))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, i32::try_from(partitions)? - 1);
        let found = consumer.committed_offsets(list, ASK)?;
        let mut elements: Vec<_> = found
            .elements()
            .iter()
            .map(|element| {
                let offset = match element.offset() {
                    Offset::Offset(offset) => u64::try_from(offset).ok(),
                    _ => None,
                };
                (element.partition(), offset.map(|offset| (offset, element.metadata().to_owned())))
            })
            .collect();
        elements.sort_by_key(|(partition, _)| *partition);
        Ok(elements.into_iter().map(|(_, committed)| committed).collect())
    })
    .await
}

/// A record as stored in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its offset.
    pub offset: u64,
    /// When the broker appended it, in milliseconds since the epoch.
    pub appended_ms: i64,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Every record of a partition.
pub async fn read_all(bootstrap: &str, topic: &str, partition: i32) -> Result<Vec<Stored>> {
    let (bootstrap, topic) = (bootstrap.to_owned(), topic.to_owned());
    blocking(move || {
        let consumer = consumer(&bootstrap, None)?;
        let (low, high) = consumer.fetch_watermarks(&topic, partition, ASK)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, partition, Offset::Offset(low))?;
        consumer.assign(&list)?;
        let mut records = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut next = low;
        while next < high {
            ensure!(Instant::now() < deadline, "partition {partition} ends at {high}, read up to {next}");
            let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
            let message = match message {
                // A dead broker is still among the bootstrap servers; the others answer.
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure)) => continue,
                message => message?,
            };
            next = message.offset() + 1;
            let Timestamp::LogAppendTime(appended_ms) = message.timestamp() else { bail!("no append time") };
            let payload = message.payload().unwrap_or_default().to_vec();
            records.push(Stored { offset: u64::try_from(message.offset())?, appended_ms, payload });
        }
        Ok(records)
    })
    .await
}
