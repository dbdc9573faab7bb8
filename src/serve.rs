//! `headcount serve`: all roles and a real ClickHouse, on one machine.
//!
//! Order of the start: data directory, ports, key, journal, engine, listener; of the end: listener, tallies, aggregator
//! (which reads the journal to its end), journal, engine. A beacon is never acknowledged before the journal has it, so any of this may be
//! killed. An engine that ends is started again (`embedded::supervisor`); the service goes on meanwhile.

use crate::config::Config;
use crate::embedded::engine::{Engine, EngineKind};
use crate::embedded::journal_source::JournalSource;
use crate::embedded::supervisor::Supervisor;
use crate::health::{Health, Readiness};
use crate::metrics::MetricsListener;
use crate::projects::Snapshot;
use crate::registry::{RegistryCheck, RegistryCopy, RegistryLost, refresh_registry};
use crate::roles::METRICS;
use crate::roles::figures::Figures;
use crate::shell::{harden, limits, open_data_directory, signal, until};
use crate::{close, database, embedded, health, http, keys, mail, metrics, privacy, report, retention};
use aggregate::progress::Progress;
use anyhow::Context;
use axum::Router;
use axum::routing::any;
use ingest::Ingest;
use ingest::journal::{Journal, PressureState};
use ingest::keys::KeyRing;
use ingest::projects::Projects;
use schemas::{Hour, ProjectSlug};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// How long a stop waits for a ClickHouse that is away. What is in the journal needs it at the next start only.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// Refuses a journal that ends before what ClickHouse has counted of it. The aggregator checks this too, but beacons that were accepted first would
/// move the end of an older journal to an offset that is counted already, and the check would pass.
///
/// # Errors
/// The journal is older than ClickHouse's data, or the ledger cannot be read.
async fn refuse_older_journal(client: clickhouse::Client, journal: &Journal, timeout: Duration) -> anyhow::Result<()> {
    let store = aggregate::store::SummaryStore::new(client, timeout);
    let ledger = store.ledger_end(journal.stream()).await.context("cannot read the ledger")?;
    let (counted, end) = (ledger.map_or(0, |ledger| ledger.next_offset), *journal.end().borrow());
    if counted > end {
        return Err(aggregate::AggregateError::Behind { counted, end }.into());
    }
    Ok(())
}

/// Runs until SIGTERM, SIGINT or SIGHUP, or until going on would give wrong figures. `recover`: after a loss of ClickHouse's data, restore the registry
/// from its copy and accept that the journal no longer holds all that is missing.
pub async fn serve(config: Config, recover: bool) -> anyhow::Result<()> {
    harden();
    limits::check_open_files(config.http()?.connections)?;
    if config.engine().clickhouse_url.is_none() {
        limits::check_address_space()?;
    }
    let data = config.data();
    let _lock = open_data_directory(&data)?;
    let listener = http::bind(config.listen()?).await?;
    let address = listener.local_addr().context("cannot read the listener's address")?;
    let operator = MetricsListener::bind(&config, METRICS[0]).await?;
    let clock = config.clock()?;
    let Endpoint { ingest, journal, registry, names } = Endpoint::open(&config, &data, &clock)?;
    let engine = Engine::start(&config.engine()).await?;
    let (kind, server) = (engine.kind().clone(), config.clickhouse(engine.url()));
    let supervisor = Supervisor::start(engine);
    let client = server.clone().with_database(config.database());
    let is_embedded = !matches!(kind, EngineKind::External);
    let check = registry.check(is_embedded, recover);
    if is_embedded {
        // The embedded one must answer; a server elsewhere may be away, and the journal keeps what arrives meanwhile.
        let client = database::prepare(&server, config.database(), config.clickhouse_timeout()?).await?;
        check.run(&client).await?;
        refuse_older_journal(client, &journal, config.clickhouse_timeout()?).await?;
    }
    let (stop, stopped) = watch::channel(false);
    let (drain, drained) = watch::channel(false);
    let parts = Parts {
        ingest: Arc::clone(&ingest),
        journal: journal.clone(),
        engine: supervisor.state(),
        progress: Arc::default(),
    };
    let mut aggregator = tokio::task::JoinSet::new();
    let source = JournalSource::new(journal.clone(), Arc::clone(&clock), config.log_retention_hours()?);
    let backend =
        Backend::new(&config, journal.clone(), server, Arc::clone(&clock), Arc::clone(&parts.progress), check.clone())?;
    aggregator.spawn(aggregate(backend, source, drained));
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(keys::compare(Arc::clone(&ingest), client.clone()));
    if let Some(settings) = config.mail()? {
        beside.spawn(mail::keep(client.clone(), settings, report::reports(client.clone(), &config)?));
    }
    beside.spawn(refresh_registry(Arc::clone(&ingest), client.clone(), registry, check, names));
    let keep = tokio::spawn({
        let (ingest, stopped) = (Arc::clone(&ingest), stopped.clone());
        async move { ingest.keep(until(stopped)).await }
    });

    let make_one = format!("headcount token create --admin --data {}", data.display());
    let access = query::access::Access::new(client.clone(), config.access(&make_one)?, Arc::clone(&clock));
    access.begin().await;
    beside.spawn(Arc::clone(&access).keep());
    let store = query::ReportStore::new(client).only_while(supervisor.answers());
    let cache = query::ReportCache::new(config.report_cache()?, &access);
    let reports = query::guarded_routes(store, config.query()?, Arc::clone(&clock), &access, cache.clone());
    let untrusted_proxy = query::UntrustedProxy(Arc::new({
        let ingest = Arc::clone(&ingest);
        move || ingest.has_untrusted_proxy()
    }));
    let reports = reports.layer(axum::Extension(untrusted_proxy));
    let health = Health::new(parts.readiness());
    let router = routes(&config, &ingest, &access)?.merge(reports).merge(health::routes(health.clone()));
    let listener = tokio::spawn(http::serve(config.http()?, listener, router, until(stopped.clone())));
    let metrics = operator.address();
    beside.spawn(parts.clone().show(operator, cache, stopped));
    beside.spawn(health.keep(move || parts.readiness()));
    tracing::info!(%address, metrics, data = %data.display(), engine = ?kind, "headcount serves beacons and reports");

    let verdict = verdict(&mut aggregator).await;
    if verdict.is_ok() {
        tracing::info!("stopping: finishing open requests, then writing what was counted");
    }
    // The listener first: no view may be acknowledged after the journal has closed.
    let _ = stop.send(true);
    match listener.await {
        Ok(outcome) => outcome?,
        Err(error) => tracing::error!(%error, "the listener failed"),
    }
    beside.shutdown().await;
    // It ends by itself: aborted, it might take tallies with it.
    let _ = keep.await;
    ingest.send_tallies().await;
    let _ = drain.send(true);
    // Reading on, the flush under way and the last one have their own bounds; this one is for all of them together.
    drain_aggregator(aggregator, &supervisor.state(), 3 * config.aggregate()?.stop_within).await;
    journal.close();
    supervisor.stop().await;
    verdict
}

/// What is served besides reports and health.
fn routes(
    config: &Config,
    ingest: &Arc<Ingest<Journal>>,
    access: &Arc<query::access::Access>,
) -> anyhow::Result<Router> {
    let privacy = query::privacy::routes(privacy::of_endpoint(config, Arc::clone(ingest))?);
    // Below /v1 what does not exist is answered as reports answer; elsewhere as the endpoint does.
    let nothing =
        Router::new().route("/v1/", any(query::no_such_route)).route("/v1/{*rest}", any(query::no_such_route));
    Ok(ingest::routes(Arc::clone(ingest)).merge(query::access::rate_limited(privacy.merge(nothing), access)))
}

/// The beacon endpoint's parts.
struct Endpoint {
    ingest: Arc<Ingest<Journal>>,
    journal: Journal,
    /// Copies on disk: of the registry, and of the names that host patterns admitted.
    registry: RegistryCopy,
    names: Snapshot,
}

impl Endpoint {
    fn open(config: &Config, data: &Path, clock: &ingest::Clock) -> anyhow::Result<Self> {
        let ring = KeyRing::open(&config.key_file(), config.visitor_period()?, clock())?;
        let journal = {
            let clock = Arc::clone(clock);
            Journal::open(&data.join("journal.redb"), config.journal()?, move || Hour::of(clock()))?
        };
        let registry = RegistryCopy::open(data);
        let projects = Projects::new(config.host_patterns()?, config.new_names()?);
        projects.replace(registry.index());
        let names = Snapshot::new(&data.join("admitted.json"));
        projects.admit_known(names.load::<Vec<ProjectSlug>>());
        let ingest = Ingest::new(config.ingest()?, Arc::clone(clock), ring, projects, journal.clone());
        Ok(Endpoint { ingest: Arc::new(ingest), journal, registry, names })
    }
}

/// What ends the service: a signal, or an aggregator that would give wrong figures. Not ClickHouse, which is started again.
async fn verdict(aggregator: &mut tokio::task::JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        signal = signal() => signal,
        Some(ended) = aggregator.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("the aggregator ended by itself")),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(anyhow::anyhow!("the aggregator panicked: {panic}")),
        },
    }
}

/// Waits until the aggregator has ended, `within` a time, and not for a ClickHouse that is away.
async fn drain_aggregator(
    mut aggregator: tokio::task::JoinSet<anyhow::Result<()>>,
    engine: &embedded::supervisor::State,
    within: Duration,
) {
    let end = async {
        while let Some(ended) = aggregator.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = format!("{error:#}"), "the aggregator failed while stopping"),
                Err(error) => tracing::error!(%error, "the aggregator failed while stopping"),
            }
        }
    };
    let why = tokio::select! {
        () = end => return,
        () = tokio::time::sleep(within) => "the aggregator did not end in time",
        () = engine.away_for(AWAY_MAX) => "ClickHouse is away",
    };
    tracing::warn!("{why}; what is in the journal and not in ClickHouse is folded at the next start");
    aggregator.shutdown().await;
}

/// What the health check and the operator's listener see.
#[derive(Clone)]
struct Parts {
    ingest: Arc<Ingest<Journal>>,
    journal: Journal,
    engine: Arc<embedded::supervisor::State>,
    progress: Arc<Progress>,
}

impl Parts {
    fn readiness(&self) -> Readiness {
        let fails =
            self.progress.store_fails.load(Ordering::Relaxed) || self.progress.source_fails.load(Ordering::Relaxed);
        let journal = self.journal.pressure().state;
        if journal == PressureState::Full || self.ingest.refuses_beacons() {
            Readiness::Refusing
        } else if journal == PressureState::DropsEarly
            || fails
            || !self.clickhouse_answers()
            || self.ingest.foreign_keys() > 0
        {
            Readiness::Degraded
        } else {
            Readiness::Ready
        }
    }

    /// Of a server of the operator's the aggregator knows.
    fn clickhouse_answers(&self) -> bool {
        self.engine.answers() && (self.engine.is_supervised() || !self.progress.store_fails.load(Ordering::Relaxed))
    }

    fn details(&self) -> serde_json::Map<String, serde_json::Value> {
        let figure = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let progress = &self.progress;
        let mut details = self.ingest.details();
        let clickhouse = json!({"answers": self.clickhouse_answers(), "restarts": self.engine.restarts()});
        details.insert("clickhouse".to_owned(), clickhouse);
        let pressure = self.journal.pressure();
        let state = match pressure.state {
            PressureState::Normal => "keeps records as long as set",
            PressureState::DropsEarly => "drops counted records early",
            PressureState::Full => "full of records that are not counted yet",
        };
        let journal = json!({
            "state": state,
            "stored_bytes": pressure.stored_bytes,
            "capacity_bytes": pressure.capacity_bytes,
            "dropped_early": pressure.dropped_early,
        });
        details.insert("journal".to_owned(), journal);
        let (folded, again) = (figure(&progress.folded), figure(&progress.counted_before));
        let aggregator = json!({
            "counts_again_below": (folded < again).then_some(again),
            "clickhouse": if progress.store_fails.load(Ordering::Relaxed) { "refuses rows" } else { "takes rows" },
            "log": if progress.source_fails.load(Ordering::Relaxed) { "cannot be read" } else { "readable" },
            "folded": folded,
            "committed": figure(&progress.committed),
            "lag": self.lag(),
        });
        details.insert("aggregator".to_owned(), aggregator);
        details
    }

    /// Records that are not known to be in ClickHouse.
    fn lag(&self) -> u64 {
        self.journal.end().borrow().saturating_sub(self.progress.committed.load(Ordering::Relaxed))
    }

    fn figures(&self, cache: &query::ReportCache) -> String {
        let mut figures = Figures::default();
        figures
            .endpoint(&self.ingest)
            .one("journal_bytes", "gauge", "Bytes of records in the journal.", self.journal.stored_bytes())
            .one(
                "journal_dropped_early_total",
                "counter",
                "Counted records that left the journal before their time, because `journal_bytes` was reached.",
                self.journal.pressure().dropped_early,
            )
            .one("lag_records", "gauge", "Records that are not known to be in ClickHouse.", self.lag())
            .partitions(&[(String::new(), Arc::clone(&self.progress))])
            .one("clickhouse_answers", "gauge", "1 while ClickHouse answers.", u8::from(self.clickhouse_answers()))
            .one("clickhouse_restarts_total", "counter", "Restarts of the embedded ClickHouse.", self.engine.restarts())
            .reports(cache);
        figures.text()
    }

    async fn show(self, operator: MetricsListener, cache: query::ReportCache, stopped: watch::Receiver<bool>) {
        let parts = self.clone();
        let routes = metrics::routes(move || self.figures(&cache), move || (parts.readiness(), parts.details()));
        if let Err(error) = operator.serve(routes, until(stopped)).await {
            tracing::error!(error = format!("{error:#}"), "the listener of `metrics_listen` failed");
        }
    }
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
    progress: Arc<Progress>,
    registry: RegistryCheck,
    journal: Journal,
}

impl Backend {
    fn new(
        config: &Config,
        journal: Journal,
        server: clickhouse::Client,
        clock: ingest::Clock,
        progress: Arc<Progress>,
        registry: RegistryCheck,
    ) -> anyhow::Result<Self> {
        Ok(Backend {
            server,
            database: config.database().to_owned(),
            timeout: config.clickhouse_timeout()?,
            // The log is this process's alone: no other aggregator goes on with it.
            config: aggregate::AggregateConfig {
                stop_at_end: true,
                recover: registry.recovers(),
                ..config.aggregate_journal()?
            },
            clock,
            close_after: config.close_after()?,
            finished_every: config.finished_every()?,
            retention: config.retention()?,
            progress,
            registry,
            journal,
        })
    }
}

async fn aggregate(backend: Backend, source: JournalSource, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    // The check comes before anything is written.
    let prepare = async || {
        let client = database::prepare(&backend.server, &backend.database, backend.timeout).await?;
        backend.registry.run(&client).await?;
        anyhow::Ok(client)
    };
    let client = loop {
        match prepare().await {
            Ok(client) => break client,
            Err(error) if error.is::<RegistryLost>() => return Err(error),
            Err(error) => {
                backend.progress.store_fails.store(true, Ordering::Relaxed);
                tracing::warn!(error = format!("{error:#}"), "ClickHouse is not ready; beacons stay in the journal");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                    () = until(stopped.clone()) => return Ok(()),
                }
            }
        }
    };
    backend.progress.store_fails.store(false, Ordering::Relaxed);
    let mut keeping = tokio::task::JoinSet::new();
    keeping.spawn(close::keep(
        client.clone(),
        close::Logs::Journal(backend.journal),
        backend.clock,
        backend.close_after,
        backend.retention,
        backend.finished_every,
    ));
    let store = aggregate::store::SummaryStore::new(client, backend.timeout).yielding().await;
    let store = store.with_abort(backend.config.abort_at.clone());
    aggregate::run(backend.config, source, store, backend.progress, until(stopped))
        .await
        .context("the aggregator stopped")
}
