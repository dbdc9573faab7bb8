//! `headcount aggregate`: a member of the group that folds the topic's partitions into ClickHouse. Run one or several; the
//! group shares the partitions among them.

use crate::config::commands::AggregateCommand;
use crate::config::kafka_settings::GroupProtocol;
use crate::database::{DamagedStore, NewerSchema, Server, WrongServer};
use crate::health::lag::{Lag, LagPosition};
use crate::health::{Finding, Readiness};
use crate::metrics::scrape::{Part, Scrape};
use crate::metrics::{self, MetricsListener};
use crate::serve::stalled;
use crate::shell::{harden, signal, until};
use crate::{close, database, projects, topic};
use aggregate::kafka::{GroupConfig, GroupStatus, PartitionStatus, Streams, run_group};
use aggregate::metrics::FlushMetrics;
use aggregate::store::SummaryStore;
use aggregate::writes::Writes;
use anyhow::Context;
use axum::Router;
use prometheus_client::registry::Registry;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Default of `metrics_listen` for this role.
pub const OPERATOR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9018);

/// Runs until SIGTERM or SIGINT, or until continuing would give wrong figures. `recover`: continue although ClickHouse is older than the topic, and
/// the topic no longer has the records that ClickHouse lacks.
pub async fn run(settings: AggregateCommand, recover: bool) -> anyhow::Result<()> {
    harden();
    let client = settings.kafka.client()?;
    #[cfg(feature = "mail")]
    let mail = crate::mail::configured(&settings.mail)?;
    let operator = operator(&settings).await?;
    let operator_address = operator.address();
    let (stop, stopped) = watch::channel(false);
    let flushes = FlushMetrics::default();
    let member = Member::new(Arc::default(), settings.aggregation.stall_after());
    let mut registry = metrics::registry();
    flushes.register(&mut registry);
    #[cfg(feature = "mail")]
    if let Some(mail) = &mail {
        mail.metrics.register(&mut registry);
    }
    let routes = member.routes(registry);
    let listener = tokio::spawn(operator.serve(routes, until(stopped.clone())));
    let mut checks = tokio::task::JoinSet::new();
    checks.spawn(member.clone().keep());
    let (topic, group) = (&settings.kafka.topic, &settings.kafka.group);
    tracing::info!(metrics = operator_address, topic, group, "headcount folds page views");

    let server = settings.store.server(&projects::clickhouse_url(&settings.store).await?);
    let work = async {
        let Some(clickhouse) = prepared(&settings, &server, &stopped).await? else { return Ok(()) };
        if !has_topic(&settings, &stopped).await? {
            return Ok(());
        }
        let streams = Streams::new(clickhouse.clone(), settings.store.timeout());
        let mut keeping = tokio::task::JoinSet::new();
        keeping.spawn(chores(&settings, &clickhouse, &streams));
        #[cfg(feature = "mail")]
        if let Some(mail) = mail {
            let reports = crate::report::reports(clickhouse.clone(), &settings.rules, &settings.clock)?;
            keeping.spawn(crate::mail::keep(clickhouse.clone(), mail, reports));
        }
        let store = SummaryStore::new(clickhouse, settings.store.timeout()).yielding().await;
        let aggregate = aggregate::AggregateConfig { recover, ..settings.aggregation.aggregate() };
        let group = GroupConfig {
            client,
            topic: topic.clone(),
            group: group.clone(),
            broker_assigns: settings.kafka.protocol == GroupProtocol::Consumer,
            times: settings.kafka.record_times(),
            store: store.with_failpoint(aggregate.failpoint.clone()).with_metrics(flushes),
            aggregate,
            streams,
            status: Arc::clone(&member.status),
        };
        run_group(group, until(stopped.clone())).await.context("the aggregator stopped")
    };
    tokio::pin!(work);
    let verdict = tokio::select! {
        ended = &mut work => ended,
        wrong = server.watch() => Err(wrong.into()),
        signal = signal() => {
            tracing::info!("stopping: writing and committing what is folded");
            let _ = stop.send(true);
            signal.and(work.await)
        }
    };
    let _ = stop.send(true);
    match listener.await {
        Ok(outcome) => outcome?,
        Err(error) => tracing::error!(%error, "the listener failed"),
    }
    verdict
}

/// Closes months, updates estimates and removes expired data as time passes, until dropped.
fn chores(
    settings: &AggregateCommand,
    clickhouse: &clickhouse::Client,
    streams: &Streams,
) -> impl Future<Output = ()> + use<> {
    close::keep(
        clickhouse.clone(),
        close::Logs::Topic(Box::new((settings.kafka.clone(), streams.clone()))),
        settings.clock.clock(),
        settings.lifetimes.close.close_after_hours,
        settings.lifetimes.retention(),
        settings.aggregation.finished_every_minutes,
        // No backup can pause the writes of several processes.
        Writes::default(),
    )
}

/// Waits until Kafka has confirmed that the topic is fit. False if a stop came first.
async fn has_topic(settings: &AggregateCommand, stopped: &watch::Receiver<bool>) -> anyhow::Result<bool> {
    let plan = settings.topic.plan(&settings.log, &settings.aggregation.windows);
    let mut is_logged = false;
    while !topic::fit(&settings.kafka, plan).await? {
        if !std::mem::replace(&mut is_logged, true) {
            tracing::warn!("Kafka does not answer; nothing is folded until it does");
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            () = until(stopped.clone()) => return Ok(false),
        }
    }
    Ok(true)
}

/// The only listener of this role. Before `metrics_listen` existed, `listen` configured it; `listen` still works in this release.
async fn operator(settings: &AggregateCommand) -> anyhow::Result<MetricsListener> {
    let own = settings.operator.metrics_listen.0;
    let Some(old) = settings.old_listen.listen.0.filter(|_| own == Some(OPERATOR)) else {
        return MetricsListener::bind_to(&settings.connections, own).await;
    };
    tracing::warn!(
        "setting `listen` of `headcount aggregate` is called `metrics_listen` now; the old name goes with the next release"
    );
    MetricsListener::bind_to(&settings.connections, Some(old)).await
}

/// A client of the prepared database, or none if a stop came first.
async fn prepared(
    settings: &AggregateCommand,
    server: &Server,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Option<clickhouse::Client>> {
    let (database, timeout) = (settings.store.database(), settings.store.timeout());
    let prepare = async || {
        let client = database::prepare(server, database, timeout).await?;
        database::check_store(&client, database, timeout).await?;
        anyhow::Ok(client)
    };
    loop {
        match prepare().await {
            Ok(client) => return Ok(Some(client)),
            Err(error) if error.is::<WrongServer>() || error.is::<NewerSchema>() || error.is::<DamagedStore>() => {
                return Err(error);
            }
            Err(error) => {
                tracing::warn!(
                    error = crate::shell::chain(&error),
                    "ClickHouse is not ready; nothing is folded until it is"
                );
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                    () = until(stopped.clone()) => return Ok(None),
                }
            }
        }
    }
}

/// Interval between two records of each partition's progress.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The operator's view of this member of the group.
#[derive(Clone)]
struct Member {
    status: Arc<GroupStatus>,
    lags: Arc<Mutex<BTreeMap<i32, Lag>>>,
    stall_after: Duration,
}

impl Member {
    fn new(status: Arc<GroupStatus>, stall_after: Duration) -> Self {
        Member { status, lags: Arc::default(), stall_after }
    }

    /// The routes of the operator's listener, with the metrics of this member, of `flushes`, and of `mail` if it is configured.
    fn routes(&self, mut registry: Registry) -> Router {
        let (scraped, shown) = (self.clone(), self.clone());
        metrics::scraped(&mut registry, move |scrape| scraped.scrape(scrape));
        metrics::routes(registry, move || shown.ready())
    }

    /// Records the lag of each partition until dropped.
    async fn keep(self) {
        loop {
            self.parts(&self.status.partitions());
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// The partitions with their current lag.
    fn parts(&self, partitions: &BTreeMap<i32, PartitionStatus>) -> Vec<Part> {
        let now = Instant::now();
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        lags.retain(|number, _| partitions.contains_key(number));
        let part = |(&number, partition): (&i32, &PartitionStatus)| {
            let progress = &partition.progress;
            let lag = lags.entry(number).or_insert_with(|| Lag::new(now));
            if let Some(end) = end(partition) {
                let (committed, rows) =
                    (progress.committed.load(Ordering::Relaxed), progress.rows.load(Ordering::Relaxed));
                lag.note(now, LagPosition { end, committed, rows });
            }
            Part {
                labels: vec![("partition", number.to_string())],
                progress: Arc::clone(progress),
                lag_records: lag_records(partition),
                lag_seconds: lag.age(now).as_secs_f64(),
                is_stalled: lag.stalled(now, self.stall_after).is_some(),
            }
        };
        partitions.iter().map(part).collect()
    }

    /// Ready: the group has admitted this process, none of its dependencies fails, and counting makes progress.
    fn find(&self, partitions: &BTreeMap<i32, PartitionStatus>) -> Finding {
        let mut unavailable = Vec::new();
        if !self.status.joined() {
            unavailable.push("the consumer group has not taken this process in".to_owned());
        }
        let mut degrading = Vec::new();
        if store_fails(partitions) {
            degrading.push("ClickHouse does not take rows".to_owned());
        }
        if source_fails(partitions) {
            degrading.push("the log cannot be read".to_owned());
        }
        let parts = self.parts(partitions);
        let stalled_records: Vec<u64> =
            parts.iter().filter(|part| part.is_stalled).map(|part| part.lag_records.unwrap_or(0)).collect();
        if !stalled_records.is_empty() {
            let why = stalled(stalled_records.iter().sum(), self.stall_after);
            degrading.push(format!("{why} or longer, in {} partitions", stalled_records.len()));
        }
        Finding::new(Readiness::Unavailable, unavailable, degrading)
    }

    fn ready(&self) -> (Finding, serde_json::Map<String, serde_json::Value>) {
        let partitions = self.status.partitions();
        let shown: serde_json::Map<String, serde_json::Value> =
            partitions.iter().map(|(number, partition)| (number.to_string(), shown(partition))).collect();
        let details = [
            ("group", json!(if self.status.joined() { "joined" } else { "not joined" })),
            ("clickhouse", json!(if store_fails(&partitions) { "refuses rows" } else { "takes rows" })),
            ("log", json!(if source_fails(&partitions) { "cannot be read" } else { "readable" })),
            ("partitions", json!(shown)),
        ];
        let details = details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        (self.find(&partitions), details)
    }

    fn scrape(&self, scrape: &mut Scrape<'_>) -> std::fmt::Result {
        let partitions = self.status.partitions();
        scrape.readiness(self.find(&partitions).readiness)?;
        let is_joined = self.status.joined();
        scrape.gauge("group_joined", "1 once the group has taken this process in.", is_joined)?;
        scrape.counter("rebalances", "How often partitions came or went.", self.status.rebalances())?;
        scrape.parts(&self.parts(&partitions))
    }
}

fn store_fails(partitions: &BTreeMap<i32, PartitionStatus>) -> bool {
    partitions.values().any(|partition| partition.progress.store_fails.load(Ordering::Relaxed))
}

fn source_fails(partitions: &BTreeMap<i32, PartitionStatus>) -> bool {
    partitions.values().any(|partition| partition.progress.source_fails.load(Ordering::Relaxed))
}

fn shown(partition: &PartitionStatus) -> serde_json::Value {
    let progress = &partition.progress;
    let (folded, again) = (progress.folded.load(Ordering::Relaxed), progress.counted_before.load(Ordering::Relaxed));
    json!({
        "stream": partition.stream.map(|stream| stream.to_string()),
        "counts_again_below": (folded < again).then_some(again),
        "folded": folded,
        "committed": progress.committed.load(Ordering::Relaxed),
        "end": partition.end,
        "lag": lag_records(partition),
    })
}

/// The log's end. The client learns of it only from time to time, but folded records are certainly in the log.
fn end(partition: &PartitionStatus) -> Option<u64> {
    Some(partition.end?.max(partition.progress.folded.load(Ordering::Relaxed)))
}

/// Records that are not known to be in ClickHouse.
fn lag_records(partition: &PartitionStatus) -> Option<u64> {
    Some(end(partition)?.saturating_sub(partition.progress.committed.load(Ordering::Relaxed)))
}
