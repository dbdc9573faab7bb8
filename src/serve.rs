//! `headcount serve`: all roles and a real ClickHouse, on one machine.
//!
//! Order of the start: data directory, port, key, journal, engine, listener; of the end: listener, tallies, aggregator
//! (which reads the journal to its end), journal, engine. A beacon is never acknowledged before the journal has it, so any of this may be killed.

use crate::config::Config;
use crate::embedded::engine::{Engine, EngineKind};
use crate::embedded::journal_source::JournalSource;
use crate::projects::{self, Snapshot};
use crate::{database, http};
use anyhow::{Context, bail};
use ingest::Ingest;
use ingest::journal::{Journal, JournalConfig};
use ingest::keys::KeyRing;
use ingest::projects::{ProjectSnapshot, Projects};
use schemas::{Hour, ProjectSlug};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Layout of the data directory; raised when an older program must not touch it.
const DATA_VERSION: &str = "1";

/// Runs until SIGTERM or SIGINT.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    harden();
    let data = config.data();
    let _lock = open_data_directory(&data)?;
    let listener = http::bind(config.listen()?).await?;
    let address = listener.local_addr().context("cannot read the listener's address")?;
    let clock = config.clock()?;

    let keys = KeyRing::open(&data.join("keys").join("visitor.key"), config.visitor_period()?, clock())?;
    let journal = {
        let clock = Arc::clone(&clock);
        Journal::open(&data.join("journal.redb"), JournalConfig::default(), move || Hour::of(clock()))?
    };
    let snapshot = Snapshot::new(&data.join("projects.json"));
    let registry = Projects::new(config.host_patterns()?, config.new_projects_per_hour()?);
    registry.replace(ProjectSnapshot::new(&snapshot.load::<projects::Registry>()));
    let names = Snapshot::new(&data.join("admitted.json"));
    registry.admit_known(names.load::<Vec<ProjectSlug>>());
    let ingest = Arc::new(Ingest::new(config.ingest()?, Arc::clone(&clock), keys, registry, journal.clone()));

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
            config: config.aggregate()?,
        },
        JournalSource::new(journal.clone(), Arc::clone(&clock), config.log_retention_hours()?),
        drained,
    ));
    let refresh = tokio::spawn(refresh_registry(Arc::clone(&ingest), client.clone(), snapshot, names));
    let keep = tokio::spawn({
        let (ingest, stopped) = (Arc::clone(&ingest), stopped.clone());
        async move { ingest.keep(until(stopped)).await }
    });

    let unit = match config.visitor_period()? {
        ingest::keys::VisitorPeriod::Month => query::VisitorUnit::Visitors,
        ingest::keys::VisitorPeriod::Day => query::VisitorUnit::VisitorDays,
    };
    let reports = query::routes(
        query::ReportStore::new(client),
        query::QueryConfig { visitor_unit: unit, ..query::QueryConfig::default() },
        Arc::clone(&clock),
    );
    let router = ingest::routes(Arc::clone(&ingest)).merge(reports);
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
    let store = aggregate::store::SummaryStore::new(client, backend.timeout);
    aggregate::run(backend.config, source, store, until(stopped)).await.context("the aggregator stopped")
}

async fn refresh_registry<S: ingest::sink::Sink>(
    ingest: Arc<Ingest<S>>,
    client: clickhouse::Client,
    snapshot: Snapshot,
    names: Snapshot,
) {
    let mut known = None;
    let mut failing = false;
    let mut seeded = false;
    let mut written = ingest.projects.admitted().len();
    loop {
        match projects::read(&client).await {
            Ok(registry) => {
                failing = false;
                if known.as_ref() != Some(&registry) {
                    // The copy first: whoever has been told of a project must be right after a crash too.
                    if let Err(error) = snapshot.store(&registry) {
                        tracing::warn!(error = format!("{error:#}"), "the registry's copy on disk is out of date");
                    }
                    ingest.projects.replace(ProjectSnapshot::new(&registry));
                    tracing::info!(projects = registry.len(), "the registry of projects was read");
                    known = Some(registry);
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the registry cannot be read; the last one stays in force"
                    );
                }
                failing = true;
            }
        }
        // Names that patterns admitted outlive a restart: in a file, and in what has been counted of them.
        if !seeded && let Ok(known) = projects::with_figures(&client).await {
            ingest.projects.admit_known(known);
            seeded = true;
        }
        let admitted = ingest.projects.admitted();
        if admitted.len() != written {
            match names.store(&admitted) {
                Ok(()) => written = admitted.len(),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "admitted names are not on disk yet"),
            }
        }
        tokio::time::sleep(projects::REFRESH).await;
    }
}

/// Resolves once `stopped` is true, or its sender is gone.
async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Creates the directory or checks its version, and takes its lock for as long as the file is held.
fn open_data_directory(data: &Path) -> anyhow::Result<File> {
    // Single views lie in the journal for days: nobody else's to read.
    let mut directory = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(directory.recursive(true), 0o700);
    directory.create(data).with_context(|| {
        format!("cannot create the data directory {}; choose one you may write to with --data", data.display())
    })?;
    let path = data.join("lock");
    let lock = File::create(&path).with_context(|| {
        format!("cannot write to the data directory {}; choose one you may write to with --data", data.display())
    })?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "another headcount runs on the data directory {}; stop it, or choose another with --data",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    let version = data.join("version");
    match fs::read_to_string(&version) {
        Ok(found) if found.trim() == DATA_VERSION => {}
        // Left by a disk that was full at the first start.
        Ok(found) if found.trim().is_empty() => write_version(&version)?,
        Ok(found) => bail!(
            "the data directory {} has version {:?}, this program knows {DATA_VERSION}: it was written by a newer \
             headcount; run that version, or choose another directory with --data",
            data.display(),
            found.trim()
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_version(&version)?;
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", version.display())),
    }
    Ok(lock)
}

fn write_version(path: &Path) -> anyhow::Result<()> {
    fs::write(path, format!("{DATA_VERSION}\n"))
        .with_context(|| format!("cannot write {}; is the disk full?", path.display()))
}

/// Addresses, agents and the key are in this process's memory: no core dump holds them, and no other process of this
/// user may read them through `ptrace` or `/proc` (prctl(2), `PR_SET_DUMPABLE`).
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process could not be made undumpable");
    }
}
