//! `headcount serve`: all roles and a real ClickHouse, on one machine.
//!
//! Start order: data directory, ports, key, journal, engine, listener; stop order: listener, tallies, aggregator (which reads the journal to its
//! end), journal, engine. A beacon is never acknowledged before the journal has it, so each of these may be killed. An engine that ends is restarted
//! (`embedded::supervisor`); the service continues in the meantime.

mod aggregator;
mod journal_check;
mod parts;

#[cfg(feature = "kafka")]
pub use parts::stalled;

use crate::config::commands::ServeCommand;
use crate::embedded::engine::{Engine, EngineKind};
use crate::embedded::journal_socket::JournalSocket;
use crate::embedded::journal_source::JournalSource;
use crate::embedded::supervisor::Supervisor;
use crate::health::Health;
use crate::health::lag::Lag;
use crate::metrics::MetricsListener;
use crate::metrics::reports::ReportMetrics;
use crate::projects::Snapshot;
use crate::registry::{RegistryCheck, RegistryCopy, refresh_registry};
use crate::shell::{harden, limits, open_data_directory, signal, until};
use crate::{backup, database, health, http, keys, metrics, privacy};
use aggregate::writes::Writes;
use aggregator::{Backend, drain_aggregator};
use anyhow::Context;
use axum::Router;
use axum::routing::any;
use ingest::Ingest;
use ingest::journal::Journal;
use ingest::keys::KeyRing;
use ingest::sink::Sink;
use journal_check::JournalCheck;
use parts::Parts;
use prometheus_client::registry::Registry;
use query::access::Access;
use schemas::{Hour, ProjectSlug};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long a stop waits for an unavailable ClickHouse. The journal's records need it at the next start only.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// Runs until SIGTERM, SIGINT or SIGHUP, or until continuing would give wrong figures. `recover`: after a loss of ClickHouse's data, restore the
/// registry from its copy and accept that the journal no longer has all of the missing records.
pub async fn serve(settings: ServeCommand, recover: bool) -> anyhow::Result<()> {
    harden();
    settings.check()?;
    check_limits(&settings)?;
    let data = settings.store.data();
    let _lock = open_data_directory(data)?;
    let listener = http::bind(settings.listen.listen).await?;
    let address = listener.local_addr().context("cannot read the listen address")?;
    let operator = MetricsListener::bind(&settings.connections, &settings.operator).await?;
    let clock = settings.clock.clock();
    backup::refuse_unfinished_restore(data)?;
    let endpoint = ServeEndpoint::open(&settings, &clock)?;
    let engine = Engine::start(&settings.store.engine()).await?;
    let (kind, server) = (engine.kind().clone(), settings.store.server(engine.url()));
    let supervisor = Supervisor::start(engine);
    let is_embedded = !matches!(kind, EngineKind::External);
    let checks = (endpoint.registry.check(is_embedded, recover), JournalCheck::open(&endpoint.journal)?);
    if is_embedded {
        // The embedded one must answer; an external server may be unavailable, since the journal stores what arrives in the meantime.
        check_embedded(&settings, &server, &checks).await?;
    }
    let (stop, stopped) = watch::channel(false);
    let (drain, drained) = watch::channel(false);
    let parts = parts(&settings, &endpoint, &supervisor, &clock);
    let mut metrics = metrics::registry();
    let check = checks.0.clone();
    let backend = Backend::new(&settings, server.clone(), checks, Arc::clone(&clock), Arc::clone(&parts.progress));
    backend.flushes.register(&mut metrics);
    let log_hours = settings.privacy.log.log_retention_hours;
    let source = JournalSource::new(endpoint.journal.clone(), Arc::clone(&clock), log_hours);
    let mut beside = beside(&settings, &endpoint, server.client(), backend.writes.clone(), &mut metrics)?;
    let mut aggregator = JoinSet::new();
    aggregator.spawn(backend.run(source, drained));
    let ServeEndpoint { ingest, journal, registry, names } = endpoint;
    let client = server.client();
    let refresh = refresh_registry(Arc::clone(&ingest), client, registry, check, names, until(stopped.clone()));
    let refresh = tokio::spawn(refresh);
    let keep = tokio::spawn({
        let (ingest, stopped) = (Arc::clone(&ingest), stopped.clone());
        async move { ingest.keep(until(stopped)).await }
    });

    let access = guard(&settings, server.client()).await;
    beside.spawn(Arc::clone(&access).keep());
    let store = query::ReportStore::new(server.client()).only_while(supervisor.answers());
    let reports = reports(&settings, store, &ingest, &access, &mut metrics)?;
    parts.register(&mut metrics);
    let health = Health::new(parts.find().readiness);
    let router = routes(&settings, &ingest, &access)?.merge(reports).merge(health::routes(health.clone()));
    let listener = tokio::spawn(http::serve(settings.connections.http(), listener, router, until(stopped.clone())));
    let operator_address = operator.address();
    beside.spawn(parts.clone().show(operator, metrics, stopped));
    beside.spawn(health.keep(move || parts.find().readiness));
    tracing::info!(%address, metrics = operator_address, data = %data.display(), engine = ?kind, "headcount serves beacons and reports");

    let verdict = verdict(&mut aggregator, &server).await;
    if verdict.is_ok() {
        tracing::info!("stopping: finishing open requests, then writing what was counted");
    }
    // The listener first: no view may be acknowledged after the journal has closed.
    let _ = stop.send(true);
    stop_endpoint(Stopping { listener, beside, refresh, keep }, &ingest).await?;
    let _ = drain.send(true);
    // Reading the rest, the current flush and the last one have separate limits; this one is for all of them together.
    drain_aggregator(aggregator, &supervisor.state(), 3 * settings.aggregation.aggregate().stop_within).await;
    journal.close();
    supervisor.stop().await;
    verdict
}

/// The parts that health and metrics show.
fn parts(settings: &ServeCommand, endpoint: &ServeEndpoint, supervisor: &Supervisor, clock: &ingest::Clock) -> Parts {
    Parts {
        ingest: Arc::clone(&endpoint.ingest),
        journal: endpoint.journal.clone(),
        engine: supervisor.state(),
        progress: Arc::default(),
        lag: Arc::new(Mutex::new(Lag::new(Instant::now()))),
        clock: Arc::clone(clock),
        stall_after: settings.aggregation.stall_after(),
    }
}

/// Checks that the process may open enough files, and has enough address space for the embedded ClickHouse.
fn check_limits(settings: &ServeCommand) -> anyhow::Result<()> {
    limits::check_open_files(settings.connections.http().connections)?;
    if settings.store.engine().clickhouse_url.is_none() {
        limits::check_address_space()?;
    }
    Ok(())
}

/// Checks of the embedded ClickHouse before beacons are accepted.
async fn check_embedded(
    settings: &ServeCommand,
    server: &database::Server,
    (registry, journal): &(RegistryCheck, JournalCheck),
) -> anyhow::Result<()> {
    let (database, timeout) = (settings.store.database(), settings.store.timeout());
    let client = database::prepare(server, database, timeout).await?;
    database::check_store(&client, database, timeout).await?;
    database::verify_parts(&client, database, timeout).await?;
    registry.run(&client).await?;
    backup::remove_unfinished(&client, &settings.store).await?;
    journal.run(client, timeout).await
}

/// Starts the background tasks that need no orderly stop.
fn beside(
    settings: &ServeCommand,
    endpoint: &ServeEndpoint,
    client: clickhouse::Client,
    writes: Writes,
    #[cfg_attr(not(feature = "mail"), expect(unused_variables))] metrics: &mut Registry,
) -> anyhow::Result<JoinSet<()>> {
    let (data, journal) = (settings.store.data(), &endpoint.journal);
    let mut beside = JoinSet::new();
    beside.spawn(backup::control::serve(data.to_owned(), journal.clone(), writes));
    match JournalSocket::bind(data) {
        Ok(socket) => drop(beside.spawn(socket.serve(journal.clone()))),
        Err(error) => tracing::warn!(
            error = crate::shell::chain(&error),
            "`headcount audit` cannot read the journal while this service runs; all else works"
        ),
    }
    beside.spawn(watch_file(journal.clone()));
    #[cfg(feature = "mail")]
    if let Some(mail) = crate::mail::configured(&settings.mail)? {
        mail.metrics.register(metrics);
        let reports = crate::report::reports(client.clone(), &settings.privacy.rules, &settings.clock)?;
        beside.spawn(crate::mail::keep(client.clone(), mail, reports));
    }
    beside.spawn(keys::compare(Arc::clone(&endpoint.ingest), client));
    Ok(beside)
}

/// The guard of reports, which has read its tokens if ClickHouse answers.
async fn guard(settings: &ServeCommand, client: clickhouse::Client) -> Arc<Access> {
    let make_one = format!("headcount token create --admin --data {}", settings.store.data().display());
    let config = settings.access.access(&settings.connections, &make_one);
    let access = Access::new(client, config, settings.clock.clock());
    access.begin().await;
    access
}

/// The routes of reports.
fn reports(
    settings: &ServeCommand,
    store: query::ReportStore,
    ingest: &Arc<Ingest<Journal>>,
    access: &Arc<Access>,
    metrics: &mut Registry,
) -> anyhow::Result<Router> {
    let cache = query::ReportCache::new(settings.cache.cache(), access);
    let config = settings.privacy.rules.query()?;
    let reports = query::guarded_routes(store, config, settings.clock.clock(), access, cache.clone());
    let untrusted_proxy = query::UntrustedProxy(Arc::new({
        let ingest = Arc::clone(ingest);
        move || ingest.has_untrusted_proxy()
    }));
    Ok(measured(reports, cache, metrics).layer(axum::Extension(untrusted_proxy)))
}

/// The tasks of an endpoint that stops.
pub(crate) struct Stopping {
    pub listener: JoinHandle<anyhow::Result<()>>,
    pub beside: JoinSet<()>,
    pub refresh: JoinHandle<()>,
    pub keep: JoinHandle<()>,
}

/// Waits for open requests, and appends the last tallies to the log.
pub(crate) async fn stop_endpoint<S: Sink>(mut stopping: Stopping, ingest: &Ingest<S>) -> anyhow::Result<()> {
    match stopping.listener.await {
        Ok(outcome) => outcome?,
        Err(error) => tracing::error!(%error, "the listener failed"),
    }
    stopping.beside.shutdown().await;
    end_of(stopping.refresh).await;
    // It ends by itself: an abort might lose tallies.
    let _ = stopping.keep.await;
    ingest.send_tallies().await;
    Ok(())
}

/// Waits until the registry was read a last time, and not for an unavailable ClickHouse.
async fn end_of(mut refresh: tokio::task::JoinHandle<()>) {
    if tokio::time::timeout(AWAY_MAX, &mut refresh).await.is_err() {
        tracing::warn!("ClickHouse is away; what changed in the registry lately is not in its copy on disk");
        refresh.abort();
    }
}

/// Checks, as often as the registry is read, that the journal's path still leads to the open file.
async fn watch_file(journal: Journal) {
    loop {
        tokio::time::sleep(crate::projects::REFRESH).await;
        journal.check_file();
    }
}

/// The routes besides reports and health.
fn routes(settings: &ServeCommand, ingest: &Arc<Ingest<Journal>>, access: &Arc<Access>) -> anyhow::Result<Router> {
    let privacy = query::privacy::routes(privacy::of_endpoint(&settings.privacy, Arc::clone(ingest))?);
    // Below /v1, an unknown route is answered as by the report API; elsewhere as by the endpoint.
    let nothing =
        Router::new().route("/v1/", any(query::no_such_route)).route("/v1/{*rest}", any(query::no_such_route));
    Ok(ingest::routes(Arc::clone(ingest)).merge(query::access::rate_limited(privacy.merge(nothing), access)))
}

/// The beacon endpoint's parts.
struct ServeEndpoint {
    ingest: Arc<Ingest<Journal>>,
    journal: Journal,
    /// Copies on disk: of the registry, and of the names that host patterns admitted.
    registry: RegistryCopy,
    names: Snapshot,
}

impl ServeEndpoint {
    fn open(settings: &ServeCommand, clock: &ingest::Clock) -> anyhow::Result<Self> {
        let data = settings.store.data();
        let period = settings.privacy.rules.visitors.visitor_period;
        let ring = KeyRing::open(&settings.keys.file(&settings.store), period, clock())?;
        let journal = {
            let clock = Arc::clone(clock);
            Journal::open(&data.join("journal.redb"), settings.journal.journal(), move || Hour::of(clock()))?
        };
        let registry = RegistryCopy::open(data)?;
        let projects = settings.admission.projects();
        projects.replace(registry.index());
        let names = Snapshot::new(&data.join(crate::projects::ADMITTED));
        projects.admit_known(names.load::<Vec<ProjectSlug>>());
        let config = settings.beacons.ingest(&settings.connections, &settings.admission, &settings.privacy)?;
        let ingest = Ingest::new(config, Arc::clone(clock), ring, projects, journal.clone());
        Ok(ServeEndpoint { ingest: Arc::new(ingest), journal, registry, names })
    }
}

/// Resolves with the reason to end the service: a signal, or an aggregator or another ClickHouse that would give wrong figures. An embedded
/// ClickHouse that ended is no reason: it is restarted.
async fn verdict(aggregator: &mut JoinSet<anyhow::Result<()>>, server: &database::Server) -> anyhow::Result<()> {
    tokio::select! {
        signal = signal() => signal,
        wrong = server.watch() => Err(wrong.into()),
        Some(ended) = aggregator.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("the aggregator ended by itself")),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(anyhow::anyhow!("the aggregator panicked: {panic}")),
        },
    }
}

/// The routes of reports with their cache, measured.
pub(crate) fn measured(reports: Router, cache: query::ReportCache, registry: &mut Registry) -> Router {
    let reports_metrics = ReportMetrics::default();
    reports_metrics.register(registry);
    metrics::scraped(registry, |scrape| {
        let help =
            "Values that reports added up as \"other\", since each has too few views or gives one away that has.";
        scrape.counter("suppressed_cells", help, query::small_cells::suppressed_cells())
    });
    metrics::scraped(registry, move |scrape| scrape.report_cache(&cache.figures()));
    reports_metrics.layer(reports)
}
