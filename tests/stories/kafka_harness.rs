//! Tests of the harness on which the fault experiments rely. Brokers that die restart with their data, a proxy loses acknowledgements, one of three
//! brokers may fail, and nothing is left behind.

use anyhow::{Context, Result, ensure};
use harness::kafka::{self, Broker, Cluster, Quiet};
use harness::process::free_port;
use harness::proxy::Proxy;
use harness::service::eventually;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

const TOPIC: &str = "views";
const SETTINGS: [(&str, &str); 1] = [("message.timestamp.type", "LogAppendTime")];

fn producer(bootstrap: &str) -> Result<FutureProducer<Quiet>> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("acks", "all").set("enable.idempotence", "true");
    // The client reconnects immediately after a cut; waiting is not part of this story.
    client.set("reconnect.backoff.max.ms", "200").set("linger.ms", "0");
    Ok(client.create_with_context(Quiet)?)
}

/// One broker behind a proxy: acknowledgements are lost on the way and no record is stored twice; it is killed, and still has every record.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_keeps_what_it_acknowledged() -> Result<()> {
    let outer = free_port()?;
    let mut broker = Broker::start_behind(outer).await?;
    let inner = broker.behind().context("a second listener")?;
    let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, inner)), Some(outer)).await?;
    let direct = broker.bootstrap();
    kafka::create_topic(&direct, TOPIC, 2, 1, &SETTINGS).await?;

    let producer = producer(&proxy.address().to_string())?;
    let mut sent = BTreeSet::new();
    for number in 0..200u32 {
        // The swallowed response is the one to this record, or to a heartbeat; the loop continues until enough were swallowed.
        if number % 20 == 10 {
            proxy.swallow(1);
        }
        let text = number.to_string();
        let record: FutureRecord<'_, (), String> =
            FutureRecord::to(TOPIC).payload(&text).partition(i32::from(number % 2 == 1));
        producer.send(record, harness::service::PATIENCE).await.map_err(|(error, _)| error)?;
        sent.insert(text.into_bytes());
    }
    let [_, _, swallowed, _] = proxy.counts();
    ensure!(swallowed >= 5, "{swallowed} answers were swallowed, that proves nothing");
    let before = everything(&direct).await?;
    ensure!(before.len() == sent.len(), "{} records of {} acknowledged", before.len(), sent.len());
    ensure!(before.iter().cloned().collect::<BTreeSet<_>>() == sent, "other records than were acknowledged");

    broker.kill().await?;
    broker.launch().await?;
    ensure!(everything(&direct).await? == before, "the broker's data survive its end");

    kafka::delete_records(&direct, TOPIC, 0, 40).await?;
    ensure!(kafka::watermarks(&direct, TOPIC).await? == [(40, 100), (0, 100)], "records below 40 are gone");
    kafka::delete_topic(&direct, TOPIC).await?;
    broker.stop().await
}

/// Payloads of both partitions; their append times are the broker's, which `read_all` insists on.
async fn everything(bootstrap: &str) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for partition in 0..2 {
        all.extend(kafka::read_all(bootstrap, TOPIC, partition).await?.into_iter().map(|stored| stored.payload));
    }
    Ok(all)
}

/// A killed test process runs no destructor. Its only hold on a broker is the broker's standard input.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_ends_with_its_starter() -> Result<()> {
    let broker = Broker::start().await?;
    let pid = broker.pid()?;
    let process = Path::new("/proc").join(&pid);
    ensure!(process.exists() || !Path::new("/proc/self").exists(), "the broker runs as {pid}");
    drop(broker);
    eventually("the broker to be gone", async || {
        let state = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // A zombie process counts as ended as well.
        ensure!(state.is_empty() || state.contains(") Z "), "{state}");
        Ok(())
    })
    .await
}

/// Three brokers: the leader is killed, another one becomes leader, and every acknowledged record is there.
#[tokio::test(flavor = "multi_thread")]
async fn another_leads_when_the_leader_is_killed() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let bootstrap = cluster.bootstrap();
    let settings = [SETTINGS[0], ("min.insync.replicas", "2")];
    kafka::create_topic(&bootstrap, TOPIC, 1, 3, &settings).await?;
    let leader = eventually("a leader", async || cluster.leader(TOPIC, 0).await).await?;
    kafka::produce(&bootstrap, TOPIC, 0, &[b"before".to_vec()]).await?;
    cluster.brokers[leader].kill().await?;
    let next = eventually("another leader", async || {
        let next = cluster.leader(TOPIC, 0).await?;
        ensure!(next != leader, "still the dead one");
        Ok(next)
    })
    .await?;
    kafka::produce(&bootstrap, TOPIC, 0, &[b"after".to_vec()]).await?;
    let payloads: Vec<_> = kafka::read_all(&bootstrap, TOPIC, 0).await?.into_iter().map(|s| s.payload).collect();
    ensure!(payloads == [b"before".to_vec(), b"after".to_vec()], "broker {next} has {payloads:?}");
    for (place, broker) in cluster.brokers.iter_mut().enumerate() {
        // Together they could end gracefully; the last two of a quorum of three wait for each other.
        if place != leader {
            broker.kill().await?;
        }
    }
    Ok(())
}
