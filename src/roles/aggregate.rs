//! `headcount aggregate`: a member of the group that folds the topic's partitions into ClickHouse. Run one or several; the
//! group shares the partitions among them.

use super::METRICS;
use super::figures::Figures;
use crate::config::Config;
use crate::config::kafka::GroupProtocol;
use crate::database::DamagedStore;
use crate::health::Readiness;
use crate::metrics::{self, MetricsListener};
use crate::shell::{harden, signal, until};
use crate::{close, database, mail, projects, report, topic};
use aggregate::kafka::{GroupConfig, GroupStatus, Streams, run_group};
use aggregate::store::SummaryStore;
use anyhow::Context;
use axum::Router;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Runs until SIGTERM or SIGINT, or until going on would give wrong figures. `recover`: go on where ClickHouse is older than the topic, which no
/// longer holds what it lacks.
pub async fn run(config: Config, recover: bool) -> anyhow::Result<()> {
    harden();
    let settings = config.kafka()?;
    let client = settings.client()?;
    let operator = operator(&config).await?;
    let metrics = operator.address();
    let status = Arc::new(GroupStatus::default());
    let (stop, stopped) = watch::channel(false);
    let routes = routes(Arc::clone(&status));
    let listener = tokio::spawn(operator.serve(routes, until(stopped.clone())));
    tracing::info!(metrics, topic = settings.topic, group = settings.group, "headcount folds page views");

    let work = async {
        let Some(clickhouse) = prepared(&config, &stopped).await? else { return Ok(()) };
        let mut told = false;
        while !topic::fit(&settings, config.topic_plan()?).await? {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!("Kafka does not answer; nothing is folded until it does");
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
                () = until(stopped.clone()) => return Ok(()),
            }
        }
        let mut keeping = tokio::task::JoinSet::new();
        let timeout = config.clickhouse_timeout()?;
        let streams = Streams::new(clickhouse.clone(), timeout);
        keeping.spawn(close::keep(
            clickhouse.clone(),
            close::Logs::Topic(Box::new((settings.clone(), streams.clone()))),
            config.clock()?,
            config.close_after()?,
            config.retention()?,
            config.finished_every()?,
        ));
        if let Some(mail) = config.mail()? {
            keeping.spawn(mail::keep(clickhouse.clone(), mail, report::reports(clickhouse.clone(), &config)?));
        }
        let aggregate = aggregate::AggregateConfig { recover, ..config.aggregate()? };
        let group = GroupConfig {
            client,
            topic: settings.topic.clone(),
            group: settings.group.clone(),
            broker_assigns: settings.protocol == GroupProtocol::Consumer,
            times: settings.times,
            store: SummaryStore::new(clickhouse, timeout).yielding().await.with_abort(aggregate.abort_at.clone()),
            aggregate,
            streams,
            status: Arc::clone(&status),
        };
        run_group(group, until(stopped.clone())).await.context("the aggregator stopped")
    };
    tokio::pin!(work);
    let verdict = tokio::select! {
        ended = &mut work => ended,
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

/// The only listener of this role. Before there was `metrics_listen` it was named by `listen`, which works on for this release.
async fn operator(config: &Config) -> anyhow::Result<MetricsListener> {
    let own = config.metrics_listen_or(METRICS[1])?;
    if !config.has_listen() || own != Some(METRICS[1]) {
        return MetricsListener::bind_to(config, own).await;
    }
    tracing::warn!(
        "setting `listen` of `headcount aggregate` is called `metrics_listen` now; the old name goes with the next release"
    );
    MetricsListener::bind_to(config, Some(config.listen()?)).await
}

/// A client of the prepared database, or none if a stop came first.
async fn prepared(config: &Config, stopped: &watch::Receiver<bool>) -> anyhow::Result<Option<clickhouse::Client>> {
    let server = config.clickhouse(&projects::clickhouse_url(config).await?);
    let timeout = config.clickhouse_timeout()?;
    let prepare = async || {
        let client = database::prepare(&server, config.database(), timeout).await?;
        database::check_store(&client, config.database(), timeout).await?;
        anyhow::Ok(client)
    };
    loop {
        match prepare().await {
            Ok(client) => return Ok(Some(client)),
            Err(error) if error.is::<DamagedStore>() => return Err(error),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "ClickHouse is not ready; nothing is folded until it is");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                    () = until(stopped.clone()) => return Ok(None),
                }
            }
        }
    }
}

fn routes(status: Arc<GroupStatus>) -> Router {
    let shown = Arc::clone(&status);
    metrics::routes(move || figures(&status), move || ready(&shown))
}

/// Ready: the group has taken this process in, and nothing it needs is failing.
fn ready(status: &GroupStatus) -> (Readiness, serde_json::Map<String, serde_json::Value>) {
    let partitions = status.partitions();
    let failing = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
    let store = partitions.values().any(|partition| failing(&partition.progress.store_fails));
    let source = partitions.values().any(|partition| failing(&partition.progress.source_fails));
    let found = if status.joined() && !store && !source { Readiness::Ready } else { Readiness::Unavailable };
    let shown: serde_json::Map<String, serde_json::Value> = partitions
        .iter()
        .map(|(number, partition)| {
            let progress = &partition.progress;
            let committed = progress.committed.load(Ordering::Relaxed);
            let (folded, again) =
                (progress.folded.load(Ordering::Relaxed), progress.counted_before.load(Ordering::Relaxed));
            let shown = json!({
                "stream": partition.stream.map(|stream| stream.to_string()),
                "counts_again_below": (folded < again).then_some(again),
                "folded": folded,
                "committed": committed,
                "end": partition.end,
                "lag": lag(partition),
            });
            (number.to_string(), shown)
        })
        .collect();
    let details = [
        ("group", json!(if status.joined() { "joined" } else { "not joined" })),
        ("clickhouse", json!(if store { "refuses rows" } else { "takes rows" })),
        ("log", json!(if source { "cannot be read" } else { "readable" })),
        ("partitions", json!(shown)),
    ];
    (found, details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Records that are not known to be in ClickHouse. The client hears of the log's end now and then; what was folded is there.
fn lag(partition: &aggregate::kafka::PartitionStatus) -> Option<u64> {
    let progress = &partition.progress;
    let end = partition.end?.max(progress.folded.load(Ordering::Relaxed));
    Some(end.saturating_sub(progress.committed.load(Ordering::Relaxed)))
}

fn figures(status: &GroupStatus) -> String {
    let partitions = status.partitions();
    let labels = |number: &i32| format!("{{partition=\"{number}\"}}");
    let lag: Vec<(String, u64)> =
        partitions.iter().filter_map(|(number, partition)| Some((labels(number), lag(partition)?))).collect();
    let progress: Vec<_> =
        partitions.iter().map(|(number, partition)| (labels(number), Arc::clone(&partition.progress))).collect();
    let mut figures = Figures::default();
    figures
        .one("group_joined", "gauge", "1 once the group has taken this process in.", u8::from(status.joined()))
        .one("rebalances_total", "counter", "How often partitions came or went.", status.rebalances())
        .family("lag_records", "gauge", "Records that are not known to be in ClickHouse.", lag)
        .partitions(&progress);
    figures.text()
}
