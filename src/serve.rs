//! `headcount serve`: all roles and a real ClickHouse, on one machine.
//!
//! Order of the start: data directory, ports, key, journal, engine, listener; of the end: listener, tallies, aggregator
//! (which reads the journal to its end), journal, engine. A beacon is never acknowledged before the journal has it, so any of this may be
//! killed. An engine that ends is started again (`embedded::supervisor`); the service goes on meanwhile.

use crate::config::Config;
use crate::database::DamagedStore;
use crate::embedded::engine::{Engine, EngineKind};
use crate::embedded::journal_socket::JournalSocket;
use crate::embedded::journal_source::JournalSource;
use crate::embedded::supervisor::Supervisor;
use crate::health::lag::{Lag, Position};
use crate::health::{Finding, Health, Readiness};
use crate::metrics::MetricsListener;
use crate::metrics::reports::ReportMetrics;
use crate::metrics::scrape::{Part, Scrape};
use crate::projects::Snapshot;
use crate::registry::{RegistryCheck, RegistryCopy, RegistryLost, refresh_registry};
use crate::roles::METRICS;
use crate::shell::{harden, limits, open_data_directory, signal, until};
use crate::{backup, close, database, embedded, health, http, keys, metrics, privacy, retention};
use aggregate::metrics::FlushMetrics;
use aggregate::progress::Progress;
use aggregate::writes::Writes;
use anyhow::Context;
use axum::Router;
use axum::routing::any;
use ingest::Ingest;
use ingest::journal::{Journal, PressureState};
use ingest::keys::KeyRing;
use ingest::projects::Projects;
use prometheus_client::registry::Registry;
use schemas::{Hour, ProjectSlug};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a stop waits for a ClickHouse that is away. What is in the journal needs it at the next start only.
const AWAY_MAX: Duration = Duration::from_secs(2);

/// The text of the journal that has its end before beacons were accepted that no check of the ledger preceded; empty if there are none.
const UNCHECKED_END: &str = "unchecked_end";

/// The check that the journal does not end before what ClickHouse has counted of it. The aggregator checks this too, but beacons that were
/// accepted first would move the end of an older journal to an offset that is counted already, and its check would pass.
struct JournalCheck {
    journal: Journal,
    /// Offset after the last record that was there before.
    end: u64,
}

impl JournalCheck {
    /// To be called before beacons are accepted. The end is stored in the journal: a start that accepts beacons while ClickHouse is away may
    /// be followed by another one.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    fn open(journal: &Journal) -> anyhow::Result<Self> {
        let end = *journal.end().borrow();
        let earlier = journal.text(UNCHECKED_END).context("cannot read the journal")?;
        let end = earlier.and_then(|text| text.parse().ok()).map_or(end, |earlier: u64| earlier.min(end));
        journal.store_text(UNCHECKED_END, &end.to_string()).context("cannot write to the journal")?;
        Ok(JournalCheck { journal: journal.clone(), end })
    }

    /// # Errors
    /// [`aggregate::AggregateError::Behind`] if the journal is older than ClickHouse's data, or ClickHouse or the journal failed.
    async fn run(&self, client: clickhouse::Client, timeout: Duration) -> anyhow::Result<()> {
        let store = aggregate::store::SummaryStore::new(client, timeout);
        let ledger = store.ledger_end(self.journal.stream()).await.context("cannot read the ledger")?;
        let counted = ledger.map_or(0, |ledger| ledger.next_offset);
        if counted > self.end {
            return Err(aggregate::AggregateError::Behind { counted, end: self.end }.into());
        }
        self.journal.store_text(UNCHECKED_END, "").context("cannot write to the journal")
    }
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
    backup::refuse_unfinished_restore(&data)?;
    let Endpoint { ingest, journal, registry, names } = Endpoint::open(&config, &data, &clock)?;
    let engine = Engine::start(&config.engine()).await?;
    let (kind, server) = (engine.kind().clone(), config.clickhouse(engine.url())?);
    let supervisor = Supervisor::start(engine);
    let client = server.client();
    let is_embedded = !matches!(kind, EngineKind::External);
    let check = registry.check(is_embedded, recover);
    let journal_check = JournalCheck::open(&journal)?;
    if is_embedded {
        // The embedded one must answer; a server elsewhere may be away, and the journal keeps what arrives meanwhile.
        let client = database::prepare(&server, config.database(), config.clickhouse_timeout()?).await?;
        database::check_store(&client, config.database(), config.clickhouse_timeout()?).await?;
        database::verify_parts(&client, config.database(), config.clickhouse_timeout()?).await?;
        check.run(&client).await?;
        backup::remove_unfinished(&client, &config).await?;
        journal_check.run(client, config.clickhouse_timeout()?).await?;
    }
    let (stop, stopped) = watch::channel(false);
    let (drain, drained) = watch::channel(false);
    let parts = Parts {
        ingest: Arc::clone(&ingest),
        journal: journal.clone(),
        engine: supervisor.state(),
        progress: Arc::default(),
        lag: Arc::new(Mutex::new(Lag::new(Instant::now()))),
        clock: Arc::clone(&clock),
        stall_after: config.stall_after()?,
    };
    let mut metrics = metrics::registry();
    let mut aggregator = tokio::task::JoinSet::new();
    let writes = Writes::default();
    let source = JournalSource::new(journal.clone(), Arc::clone(&clock), config.log_retention_hours()?);
    let backend = Backend {
        writes: writes.clone(),
        ..Backend::new(
            &config,
            journal_check,
            server.clone(),
            Arc::clone(&clock),
            Arc::clone(&parts.progress),
            check.clone(),
        )?
    };
    backend.flushes.register(&mut metrics);
    aggregator.spawn(aggregate(backend, source, drained));
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(backup::control::serve(data.clone(), journal.clone(), writes));
    match JournalSocket::bind(&data) {
        Ok(socket) => drop(beside.spawn(socket.serve(journal.clone()))),
        Err(error) => tracing::warn!(
            error = crate::shell::chain(&error),
            "`headcount audit` cannot read the journal while this service runs; all else works"
        ),
    }
    beside.spawn(keys::compare(Arc::clone(&ingest), client.clone()));
    #[cfg(feature = "mail")]
    if let Some(settings) = config.mail()? {
        settings.metrics.register(&mut metrics);
        beside.spawn(crate::mail::keep(client.clone(), settings, crate::report::reports(client.clone(), &config)?));
    }
    let refresh = refresh_registry(Arc::clone(&ingest), client.clone(), registry, check, names, until(stopped.clone()));
    let refresh = tokio::spawn(refresh);
    beside.spawn(watch_file(journal.clone()));
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
    let reports = measured(reports, cache, &mut metrics).layer(axum::Extension(untrusted_proxy));
    parts.register(&mut metrics);
    let health = Health::new(parts.find().readiness);
    let router = routes(&config, &ingest, &access)?.merge(reports).merge(health::routes(health.clone()));
    let listener = tokio::spawn(http::serve(config.http()?, listener, router, until(stopped.clone())));
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
    match listener.await {
        Ok(outcome) => outcome?,
        Err(error) => tracing::error!(%error, "the listener failed"),
    }
    beside.shutdown().await;
    end_of(refresh).await;
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

/// Waits until the registry was read once more, and not for a ClickHouse that is away.
pub(crate) async fn end_of(mut refresh: tokio::task::JoinHandle<()>) {
    if tokio::time::timeout(AWAY_MAX, &mut refresh).await.is_err() {
        tracing::warn!("ClickHouse is away; what changed in the registry lately is not in its copy on disk");
        refresh.abort();
    }
}

/// Checks, as often as the registry is read, that the journal's file is still the one that is open.
async fn watch_file(journal: Journal) {
    loop {
        tokio::time::sleep(crate::projects::REFRESH).await;
        journal.check_file();
    }
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
        let registry = RegistryCopy::open(data)?;
        let projects = Projects::new(config.host_patterns()?, config.new_names()?);
        projects.replace(registry.index());
        let names = Snapshot::new(&data.join(crate::projects::ADMITTED));
        projects.admit_known(names.load::<Vec<ProjectSlug>>());
        let ingest = Ingest::new(config.ingest()?, Arc::clone(clock), ring, projects, journal.clone());
        Ok(Endpoint { ingest: Arc::new(ingest), journal, registry, names })
    }
}

/// What ends the service: a signal, or an aggregator or another ClickHouse that would give wrong figures. Not an embedded ClickHouse that ended:
/// it is started again.
async fn verdict(
    aggregator: &mut tokio::task::JoinSet<anyhow::Result<()>>,
    server: &database::Server,
) -> anyhow::Result<()> {
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
                Ok(Err(error)) => {
                    tracing::error!(error = crate::shell::chain(&error), "the aggregator failed while stopping");
                }
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
    lag: Arc<Mutex<Lag>>,
    clock: ingest::Clock,
    stall_after: Duration,
}

impl Parts {
    /// Checks everything, and notes how far the aggregator is.
    fn find(&self) -> Finding {
        let now = Instant::now();
        let is_failing = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Relaxed);
        let pressure = self.journal.pressure().state;
        let mut refusing: Vec<String> = self.ingest.refusal().into_iter().collect();
        if pressure == PressureState::Full {
            refusing.push("the journal is full of records that are not counted yet".to_owned());
        }
        let mut degrading = Vec::new();
        if pressure == PressureState::DropsEarly {
            degrading.push("the journal drops counted records early (`journal_bytes`)".to_owned());
        }
        if !self.engine.answers() {
            degrading.push("ClickHouse does not answer".to_owned());
        }
        if is_failing(&self.progress.store_fails) {
            degrading.push("ClickHouse does not take rows".to_owned());
        }
        if is_failing(&self.progress.source_fails) {
            degrading.push("the journal cannot be read".to_owned());
        }
        if let Some(still) = self.noted_lag(now).stalled(now, self.stall_after) {
            degrading.push(stalled(self.lag_records(), still));
        }
        if let nodes @ 1.. = self.ingest.foreign_keys() {
            degrading.push(format!("{nodes} endpoints have another visitor key"));
        }
        Finding::new(Readiness::Refusing, refusing, degrading)
    }

    /// The lag, as of now.
    fn noted_lag(&self, now: Instant) -> std::sync::MutexGuard<'_, Lag> {
        let mut lag = self.lag.lock().unwrap_or_else(PoisonError::into_inner);
        let position = Position {
            end: *self.journal.end().borrow(),
            committed: self.progress.committed.load(Ordering::Relaxed),
            rows: self.progress.rows.load(Ordering::Relaxed),
        };
        lag.note(now, position);
        lag
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
            "lag": self.lag_records(),
        });
        details.insert("aggregator".to_owned(), aggregator);
        details
    }

    /// Records that are not known to be in ClickHouse.
    fn lag_records(&self) -> u64 {
        self.journal.end().borrow().saturating_sub(self.progress.committed.load(Ordering::Relaxed))
    }

    /// Registers what is read at each scrape.
    fn register(&self, registry: &mut Registry) {
        self.ingest.metrics.register(registry);
        let parts = self.clone();
        metrics::scraped(registry, move |scrape| parts.scrape(scrape));
    }

    fn scrape(&self, scrape: &mut Scrape<'_>) -> std::fmt::Result {
        scrape.readiness(self.find().readiness)?;
        scrape.endpoint(&self.ingest)?;
        let ((records, bytes), pressure) = (self.journal.queue(), self.journal.pressure());
        scrape.gauge("queue_records", "Records that wait to be written to the journal.", u64::from(records))?;
        scrape.gauge("queue_bytes", "Bytes of these records.", bytes as u64)?;
        scrape.gauge("journal_bytes", "Bytes of records in the journal.", pressure.stored_bytes)?;
        if let Some(capacity) = pressure.capacity_bytes {
            scrape.gauge("journal_capacity_bytes", "Bytes of records that the journal may hold.", capacity)?;
        }
        // A journal that cannot be read has no age; that it cannot be read is another metric.
        if let Ok(oldest) = self.journal.oldest_hour() {
            let now = Hour::of((self.clock)());
            let hours = oldest.map_or(0, |oldest| now.0.saturating_sub(oldest.0));
            let help = "Age of the oldest record in the journal, in whole hours.";
            scrape.gauge("journal_age_seconds", help, u64::from(hours) * 3600)?;
        }
        scrape.counter(
            "journal_dropped_early",
            "Counted records that left the journal before their time, because `journal_bytes` was reached.",
            pressure.dropped_early,
        )?;
        let (now, lag) = (Instant::now(), self.noted_lag(Instant::now()));
        let part = Part {
            labels: Vec::new(),
            progress: Arc::clone(&self.progress),
            lag_records: Some(self.lag_records()),
            lag_seconds: lag.age(now).as_secs_f64(),
            is_stalled: lag.stalled(now, self.stall_after).is_some(),
        };
        drop(lag);
        scrape.parts(&[part])?;
        scrape.gauge("clickhouse_answers", "1 while ClickHouse answers.", self.clickhouse_answers())?;
        scrape.counter("clickhouse_restarts", "Restarts of the embedded ClickHouse.", self.engine.restarts())
    }

    async fn show(self, operator: MetricsListener, registry: Registry, stopped: watch::Receiver<bool>) {
        let routes = metrics::routes(registry, move || (self.find(), self.details()));
        if let Err(error) = operator.serve(routes, until(stopped)).await {
            tracing::error!(error = crate::shell::chain(&error), "the listener of `metrics_listen` failed");
        }
    }
}

/// Why counting that stands still degrades the service.
pub(crate) fn stalled(records: u64, still: Duration) -> String {
    format!("{records} records wait, and nothing has been written to ClickHouse for {} s", still.as_secs())
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

struct Backend {
    server: database::Server,
    database: String,
    timeout: Duration,
    config: aggregate::AggregateConfig,
    clock: ingest::Clock,
    close_after: Duration,
    finished_every: Duration,
    retention: retention::Retention,
    progress: Arc<Progress>,
    registry: RegistryCheck,
    journal: JournalCheck,
    flushes: FlushMetrics,
    writes: Writes,
}

impl Backend {
    fn new(
        config: &Config,
        journal: JournalCheck,
        server: database::Server,
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
            flushes: FlushMetrics::default(),
            writes: Writes::default(),
        })
    }
}

/// Warns of a new journal beside a ClickHouse that has counted other logs. A new log has no commit yet.
async fn warn_of_new_log(journal: &Journal, store: &aggregate::store::SummaryStore) {
    let is_new = matches!(journal.text(JournalSource::COMMIT), Ok(None));
    if !is_new {
        return;
    }
    match store.other_streams(journal.stream()).await {
        Ok(0) => {}
        Ok(others) => tracing::warn!(
            stream = %journal.stream(),
            others,
            "the journal is new, but ClickHouse has counted other logs. If the data directory had a journal before, it was removed: its \
             records that were not counted yet are lost, and the figures so far stay. Put journal.redb back before the next start if it still \
             exists. Nothing is wrong if this is a further service of that ClickHouse, or Kafka was used before"
        ),
        Err(error) => tracing::warn!(%error, "cannot check whether ClickHouse has counted other logs"),
    }
}

async fn aggregate(backend: Backend, source: JournalSource, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    // The check comes before anything is written.
    let prepare = async || {
        let client = database::prepare(&backend.server, &backend.database, backend.timeout).await?;
        database::check_store(&client, &backend.database, backend.timeout).await?;
        backend.registry.run(&client).await?;
        backend.journal.run(client.clone(), backend.timeout).await?;
        anyhow::Ok(client)
    };
    let client = loop {
        match prepare().await {
            Ok(client) => break client,
            Err(error)
                if error.is::<RegistryLost>()
                    || error.is::<database::WrongServer>()
                    || error.is::<database::NewerSchema>()
                    || error.is::<DamagedStore>() =>
            {
                return Err(error);
            }
            Err(error) if error.is::<aggregate::AggregateError>() => {
                return Err(error.context("the aggregator stopped"));
            }
            Err(error) => {
                backend.progress.store_fails.store(true, Ordering::Relaxed);
                tracing::warn!(
                    error = crate::shell::chain(&error),
                    "ClickHouse is not ready; beacons stay in the journal"
                );
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
        close::Logs::Journal(backend.journal.journal.clone()),
        backend.clock,
        backend.close_after,
        backend.retention,
        backend.finished_every,
        backend.writes.clone(),
    ));
    let store = aggregate::store::SummaryStore::new(client, backend.timeout).yielding().await;
    warn_of_new_log(&backend.journal.journal, &store).await;
    let store = store.with_abort(backend.config.abort_at.clone()).with_metrics(backend.flushes);
    let store = store.held_by(backend.writes);
    aggregate::run(backend.config, source, store, backend.progress, until(stopped))
        .await
        .context("the aggregator stopped")
}
