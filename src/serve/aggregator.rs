//! The aggregator of `headcount serve`.

use super::AWAY_MAX;
use super::journal_check::JournalCheck;
use crate::config::commands::ServeCommand;
use crate::database::DamagedStore;
use crate::embedded::journal_source::JournalSource;
use crate::registry::{RegistryCheck, RegistryLost};
use crate::shell::until;
use crate::{close, database, embedded, retention};
use aggregate::metrics::FlushMetrics;
use aggregate::progress::Progress;
use aggregate::writes::Writes;
use anyhow::Context;
use ingest::journal::Journal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// The aggregator of `serve`, with the checks that precede it.
pub struct Backend {
    /// ClickHouse.
    pub server: database::Server,
    /// The database in ClickHouse.
    pub database: String,
    /// Bound of one call to ClickHouse.
    pub timeout: Duration,
    /// The aggregator's configuration.
    pub config: aggregate::AggregateConfig,
    /// Background tasks and their schedule.
    pub chores: Chores,
    /// Its progress.
    pub progress: Arc<Progress>,
    /// The check of the registry.
    pub registry: RegistryCheck,
    /// The check of the journal.
    pub journal: JournalCheck,
    /// Measures of flushes.
    pub flushes: FlushMetrics,
    /// Writes, which a backup can pause.
    pub writes: Writes,
}

/// Closing, estimating and removing, as time passes.
pub struct Chores {
    /// The service's clock.
    pub clock: ingest::Clock,
    /// Time from a month's end to its close.
    pub close_after: Duration,
    /// Time between visitor estimates for SQL.
    pub finished_every: Duration,
    /// How long figures are stored.
    pub retention: retention::Retention,
}

impl Backend {
    /// The aggregator with these settings. Only this process reads the log: no other aggregator continues it.
    pub fn new(
        settings: &ServeCommand,
        server: database::Server,
        (registry, journal): (RegistryCheck, JournalCheck),
        clock: ingest::Clock,
        progress: Arc<Progress>,
    ) -> Self {
        let aggregation = &settings.aggregation;
        Backend {
            server,
            database: settings.store.database().to_owned(),
            timeout: settings.store.timeout(),
            config: aggregate::AggregateConfig {
                stop_at_end: true,
                recover: registry.recovers(),
                window_policy: aggregation.windows.journal_policy(&settings.journal),
                ..aggregation.aggregate()
            },
            chores: Chores {
                clock,
                close_after: settings.privacy.lifetimes.close.close_after_hours,
                finished_every: aggregation.finished_every_minutes,
                retention: settings.privacy.lifetimes.retention(),
            },
            progress,
            registry,
            journal,
            flushes: FlushMetrics::default(),
            writes: Writes::default(),
        }
    }

    /// Checks ClickHouse and the journal, before anything is written.
    async fn prepare(&self) -> anyhow::Result<clickhouse::Client> {
        let client = database::prepare(&self.server, &self.database, self.timeout).await?;
        database::check_store(&client, &self.database, self.timeout).await?;
        self.registry.run(&client).await?;
        self.journal.run(client.clone(), self.timeout).await?;
        Ok(client)
    }

    /// A client of the checked ClickHouse, or none if a stop came first.
    async fn prepared(&self, stopped: &watch::Receiver<bool>) -> anyhow::Result<Option<clickhouse::Client>> {
        loop {
            match self.prepare().await {
                Ok(client) => {
                    self.progress.store_fails.store(false, Ordering::Relaxed);
                    return Ok(Some(client));
                }
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
                    self.progress.store_fails.store(true, Ordering::Relaxed);
                    tracing::warn!(
                        error = crate::shell::chain(&error),
                        "ClickHouse is not ready; beacons stay in the journal"
                    );
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_secs(2)) => {}
                        () = until(stopped.clone()) => return Ok(None),
                    }
                }
            }
        }
    }

    /// Folds `source` into ClickHouse until `stopped`.
    ///
    /// # Errors
    /// Continuing would give wrong figures.
    pub async fn run(self, source: JournalSource, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let Some(client) = self.prepared(&stopped).await? else { return Ok(()) };
        let journal = self.journal.journal;
        let mut keeping = tokio::task::JoinSet::new();
        keeping.spawn(close::keep(
            client.clone(),
            close::Logs::Journal(journal.clone()),
            self.chores.clock,
            self.chores.close_after,
            self.chores.retention,
            self.chores.finished_every,
            self.writes.clone(),
        ));
        let store = aggregate::store::SummaryStore::new(client, self.timeout).yielding().await;
        warn_of_new_log(&journal, &store).await;
        let store = store.with_failpoint(self.config.failpoint.clone()).with_metrics(self.flushes);
        let config = aggregate::AggregateConfig { writes: self.writes, ..self.config };
        let outcome = aggregate::run(config, source, store, self.progress, until(stopped)).await;
        outcome.context("the aggregator stopped")
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

/// Waits until the aggregator has finished, for `within` at most, and not for an unavailable ClickHouse.
pub async fn drain_aggregator(
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
