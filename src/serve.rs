//! `headcount serve`: all roles and a real ClickHouse, on one machine.
//!
//! Order of the start: data directory, port, key, journal, engine, listener; of the end: listener, tallies, aggregator
//! (which reads the journal to its end), journal, engine. A beacon is never acknowledged before the journal has it, so any of this may be killed.

use crate::config::Config;
use crate::embedded::engine::{Engine, EngineKind};
use crate::embedded::journal_source::JournalSource;
use crate::projects::{self, Snapshot, refresh_registry};
use crate::shell::{harden, open_data_directory, signal, until};
use crate::{close, database, http, keys, mail, privacy, report, retention};
use anyhow::Context;
use axum::Router;
use axum::routing::any;
use ingest::Ingest;
use ingest::journal::Journal;
use ingest::keys::KeyRing;
use ingest::projects::Projects;
use schemas::{Hour, ProjectSlug};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Runs until SIGTERM or SIGINT.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    harden();
    let data = config.data();
    let _lock = open_data_directory(&data)?;
    let listener = http::bind(config.listen()?).await?;
    let address = listener.local_addr().context("cannot read the listener's address")?;
    let clock = config.clock()?;

    let ring = KeyRing::open(&config.key_file(), config.visitor_period()?, clock())?;
    let journal = {
        let clock = Arc::clone(&clock);
        Journal::open(&data.join("journal.redb"), config.journal()?, move || Hour::of(clock()))?
    };
    let snapshot = Snapshot::new(&data.join("projects.json"));
    let registry = Projects::new(config.host_patterns()?, config.new_names()?);
    registry.replace(projects::indexed(&snapshot.load()));
    let names = Snapshot::new(&data.join("admitted.json"));
    registry.admit_known(names.load::<Vec<ProjectSlug>>());
    let ingest = Arc::new(Ingest::new(config.ingest()?, Arc::clone(&clock), ring, registry, journal.clone()));

    let mut engine = Engine::start(&config.engine()).await?;
    let server = config.clickhouse(engine.url());
    let embedded = !matches!(engine.kind(), EngineKind::External);

    let client = server.clone().with_database(config.database());
    let (stop, stopped) = watch::channel(false);
    let (drain, drained) = watch::channel(false);
    let mut background = tokio::task::JoinSet::new();
    if embedded {
        // Ours must answer; a server elsewhere may be away, and the journal keeps what arrives meanwhile.
        database::prepare(&server, config.database(), config.clickhouse_timeout()?).await?;
    }
    background.spawn(aggregate(
        Backend {
            server,
            database: config.database().to_owned(),
            timeout: config.clickhouse_timeout()?,
            // The log is ours alone: nobody else goes on with it.
            config: aggregate::AggregateConfig { stop_at_end: true, ..config.aggregate_journal()? },
            clock: Arc::clone(&clock),
            close_after: config.close_after()?,
            finished_every: config.finished_every()?,
            retention: config.retention()?,
        },
        JournalSource::new(journal.clone(), Arc::clone(&clock), config.log_retention_hours()?),
        drained,
    ));
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(keys::compare(Arc::clone(&ingest), client.clone()));
    if let Some(settings) = config.mail()? {
        beside.spawn(mail::keep(client.clone(), settings, report::reports(client.clone(), &config)?));
    }
    let refresh = tokio::spawn(refresh_registry(Arc::clone(&ingest), client.clone(), snapshot, names));
    let keep = tokio::spawn({
        let (ingest, stopped) = (Arc::clone(&ingest), stopped.clone());
        async move { ingest.keep(until(stopped)).await }
    });

    let make_one = format!("headcount token create --admin --data {}", data.display());
    let access = query::access::Access::new(client.clone(), config.access(&make_one)?, Arc::clone(&clock));
    access.begin().await;
    let rights = tokio::spawn(Arc::clone(&access).keep());
    let reports = query::guarded_routes(query::ReportStore::new(client), config.query()?, Arc::clone(&clock), &access);
    let privacy = query::privacy::routes(privacy::of_endpoint(&config, Arc::clone(&ingest))?);
    // Below /v1 what is not there is told as reports tell it; elsewhere as the endpoint does.
    let nothing =
        Router::new().route("/v1/", any(query::no_such_route)).route("/v1/{*rest}", any(query::no_such_route));
    let router = ingest::routes(Arc::clone(&ingest)).merge(reports);
    let router = router.merge(query::access::rate_limited(privacy.merge(nothing), &access));
    let listener = tokio::spawn(http::serve(config.http()?, listener, router, until(stopped)));
    tracing::info!(%address, data = %data.display(), engine = ?engine.kind(), "headcount serves beacons and reports");

    // What ends the service: a signal, or a part without which it would lose or invent figures.
    let verdict = tokio::select! {
        signal = signal() => signal,
        status = engine.died() => Err(anyhow::anyhow!(
            "ClickHouse ended by itself ({status}); its last words: {}", engine.last_words())),
        Some(ended) = background.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("the aggregator ended by itself")),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(anyhow::anyhow!("the aggregator panicked: {panic}")),
        },
    };
    if verdict.is_ok() {
        tracing::info!("stopping: finishing open requests, then writing what was counted");
    }
    // The listener first: no view may be acknowledged after the journal has closed.
    let _ = stop.send(true);
    match listener.await {
        Ok(outcome) => outcome?,
        Err(error) => tracing::error!(%error, "the listener failed"),
    }
    refresh.abort();
    rights.abort();
    beside.abort_all();
    // It ends by itself: aborted, it might take tallies with it.
    let _ = keep.await;
    let _ = refresh.await;
    ingest.send_tallies().await;
    let _ = drain.send(true);
    // Reading on, the flush under way and the last one have their own bounds; this one is for all of them together.
    let enough = tokio::time::sleep(3 * config.aggregate()?.stop_within);
    tokio::pin!(enough);
    loop {
        let ended = tokio::select! {
            ended = background.join_next() => match ended {
                Some(ended) => ended,
                None => break,
            },
            () = &mut enough => {
                tracing::warn!("the aggregator did not end in time; what it has not written is folded at the next start");
                break;
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(error = format!("{error:#}"), "the aggregator failed while stopping"),
            Err(error) => tracing::error!(%error, "the aggregator failed while stopping"),
        }
    }
    journal.close();
    if let Err(error) = engine.stop().await {
        tracing::warn!(%error, "the embedded ClickHouse did not end as asked; what it acknowledged is on disk");
    }
    verdict
}

struct Backend {
    server: clickhouse::Client,
    database: String,
    timeout: Duration,
    config: aggregate::AggregateConfig,
    clock: ingest::Clock,
    close_after: Duration,
    finished_every: Duration,
    retention: retention::Retention,
}

async fn aggregate(backend: Backend, source: JournalSource, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let client = loop {
        match database::prepare(&backend.server, &backend.database, backend.timeout).await {
            Ok(client) => break client,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "ClickHouse is not ready; beacons stay in the journal");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                    () = until(stopped.clone()) => return Ok(()),
                }
            }
        }
    };
    let mut keeping = tokio::task::JoinSet::new();
    keeping.spawn(close::keep(
        client.clone(),
        backend.clock,
        backend.close_after,
        backend.retention,
        backend.finished_every,
    ));
    let store = aggregate::store::SummaryStore::new(client, backend.timeout).yielding().await;
    let store = store.with_abort(backend.config.abort_at.clone());
    let progress = Arc::default();
    aggregate::run(backend.config, source, store, progress, until(stopped)).await.context("the aggregator stopped")
}
