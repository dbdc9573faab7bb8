//! `headcount aggregate`: a member of the group that folds the topic's partitions into ClickHouse. Run one or several; the
//! group shares the partitions among them.

use super::figures::{CONTENT_TYPE, Figures};
use super::loopback;
use crate::config::Config;
use crate::config::kafka::GroupProtocol;
use crate::shell::{harden, signal, until};
use crate::{close, database, http, mail, projects, report, topic};
use aggregate::kafka::{GroupConfig, GroupStatus, Streams, run_group};
use aggregate::store::SummaryStore;
use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Runs until SIGTERM or SIGINT, or until going on would give wrong figures.
pub async fn run(config: Config) -> anyhow::Result<()> {
    harden();
    let settings = config.kafka()?;
    let client = settings.client()?;
    let listener = http::bind(config.listen_or(loopback(8037))?).await?;
    let address = listener.local_addr().context("cannot read the listener's address")?;
    let status = Arc::new(GroupStatus::default());
    let (stop, stopped) = watch::channel(false);
    let routes = routes(Arc::clone(&status));
    let listener = tokio::spawn(http::serve(config.http()?, listener, routes, until(stopped.clone())));
    tracing::info!(%address, topic = settings.topic, group = settings.group, "headcount folds page views");

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
        keeping.spawn(close::keep(
            clickhouse.clone(),
            config.clock()?,
            config.close_after()?,
            config.retention()?,
            config.finished_every()?,
        ));
        if let Some(mail) = config.mail()? {
            keeping.spawn(mail::keep(clickhouse.clone(), mail, report::reports(clickhouse.clone(), &config)?));
        }
        let timeout = config.clickhouse_timeout()?;
        let aggregate = config.aggregate()?;
        let group = GroupConfig {
            client,
            topic: settings.topic.clone(),
            group: settings.group.clone(),
            broker_assigns: settings.protocol == GroupProtocol::Consumer,
            times: settings.times,
            store: SummaryStore::new(clickhouse.clone(), timeout)
                .yielding()
                .await
                .with_abort(aggregate.abort_at.clone()),
            aggregate,
            streams: Streams::new(clickhouse, timeout),
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

/// A client of the prepared database, or none if a stop came first.
async fn prepared(config: &Config, stopped: &watch::Receiver<bool>) -> anyhow::Result<Option<clickhouse::Client>> {
    let server = config.clickhouse(&projects::clickhouse_url(config).await?);
    let timeout = config.clickhouse_timeout()?;
    loop {
        match database::prepare(&server, config.database(), timeout).await {
            Ok(client) => return Ok(Some(client)),
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
    let ready = {
        let status = Arc::clone(&status);
        move || {
            let answer = readyz(&status);
            async move { answer }
        }
    };
    let metrics = move || {
        let text = metrics(&status);
        async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], text) }
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// Ready: the group has taken this process in, and nothing it needs is failing.
fn readyz(status: &GroupStatus) -> impl IntoResponse + use<> {
    let partitions = status.partitions();
    let failing = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
    let store = partitions.values().any(|partition| failing(&partition.progress.store_fails));
    let source = partitions.values().any(|partition| failing(&partition.progress.source_fails));
    let ready = status.joined() && !store && !source;
    let shown: serde_json::Map<String, serde_json::Value> = partitions
        .iter()
        .map(|(number, partition)| {
            let progress = &partition.progress;
            let committed = progress.committed.load(Ordering::Relaxed);
            let shown = json!({
                "stream": partition.stream.map(|stream| stream.to_string()),
                "folded": progress.folded.load(Ordering::Relaxed),
                "committed": committed,
                "end": partition.end,
                "lag": lag(partition),
            });
            (number.to_string(), shown)
        })
        .collect();
    let body = json!({
        "ready": ready,
        "group": if status.joined() { "joined" } else { "not joined" },
        "clickhouse": if store { "refuses rows" } else { "takes rows" },
        "log": if source { "cannot be read" } else { "readable" },
        "partitions": shown,
    });
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

/// Records that are not known to be in ClickHouse. The client hears of the log's end now and then; what was folded is there.
fn lag(partition: &aggregate::kafka::PartitionStatus) -> Option<u64> {
    let progress = &partition.progress;
    let end = partition.end?.max(progress.folded.load(Ordering::Relaxed));
    Some(end.saturating_sub(progress.committed.load(Ordering::Relaxed)))
}

fn metrics(status: &GroupStatus) -> String {
    let partitions = status.partitions();
    let of = |figure: fn(&aggregate::progress::Progress) -> u64| -> Vec<(String, u64)> {
        partitions
            .iter()
            .map(|(number, partition)| (format!("{{partition=\"{number}\"}}"), figure(&partition.progress)))
            .collect()
    };
    let lag: Vec<(String, u64)> = partitions
        .iter()
        .filter_map(|(number, partition)| Some((format!("{{partition=\"{number}\"}}"), lag(partition)?)))
        .collect();
    let mut figures = Figures::default();
    figures
        .one("group_joined", "gauge", "1 once the group has taken this process in.", u8::from(status.joined()))
        .one("rebalances_total", "counter", "How often partitions came or went.", status.rebalances())
        .family("lag_records", "gauge", "Records that are not known to be in ClickHouse.", lag)
        .family(
            "folded_offset",
            "gauge",
            "Offset after the last record folded.",
            of(|p| p.folded.load(Ordering::Relaxed)),
        )
        .family(
            "committed_offset",
            "gauge",
            "Offset below which all is in ClickHouse.",
            of(|p| p.committed.load(Ordering::Relaxed)),
        )
        .family("window_start", "gauge", "First offset of the open window.", of(|p| p.window.load(Ordering::Relaxed)))
        .family(
            "window_bytes",
            "gauge",
            "Bytes of records in the open window.",
            of(|p| p.window_bytes.load(Ordering::Relaxed)),
        )
        .family("window_cells", "gauge", "Accumulators of the open window.", of(|p| p.cells.load(Ordering::Relaxed)))
        .family(
            "window_undecodable",
            "gauge",
            "Records of the open window that do not decode.",
            of(|p| p.undecodable.load(Ordering::Relaxed)),
        )
        .family("rows_total", "counter", "Rows written.", of(|p| p.rows.load(Ordering::Relaxed)))
        .family(
            "failed_commits_total",
            "counter",
            "Commits that the brokers did not take.",
            of(|p| p.failed_commits.load(Ordering::Relaxed)),
        )
        .family(
            "store_failing",
            "gauge",
            "1 while ClickHouse does not take rows.",
            of(|p| u64::from(p.store_fails.load(Ordering::Relaxed))),
        );
    figures.text()
}
