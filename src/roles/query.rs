//! `headcount query`: reports from ClickHouse.

use crate::config::commands::QueryCommand;
use crate::database::{self, WrongServer};
use crate::health::{Finding, Health, Readiness};
use crate::metrics::{self, MetricsListener};
use crate::serve::measured;
use crate::shell::{harden, limits, signal, until};
use crate::{health, http, privacy, projects};
use anyhow::Context;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long ClickHouse may take to answer a check.
const CLICKHOUSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval between two checks of ClickHouse.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: QueryCommand) -> anyhow::Result<()> {
    harden();
    limits::check_open_files(settings.connections.http().connections)?;
    let listener = http::bind(settings.listen.listen).await?;
    let address = listener.local_addr().context("cannot read the listen address")?;
    let operator = MetricsListener::bind(&settings.connections, &settings.operator).await?;
    let server = settings.store.server(&projects::clickhouse_url(&settings.store).await?);
    // An unavailable server may come up later.
    match tokio::time::timeout(CLICKHOUSE_TIMEOUT, server.bind()).await {
        Ok(Err(error)) if error.is::<WrongServer>() => return Err(error),
        _ => {}
    }
    let client = server.client();
    let version = tokio::time::timeout(CLICKHOUSE_TIMEOUT, database::read_version(&client)).await;
    if let Ok(Ok(found)) = version {
        database::check_not_newer(found, settings.store.database())?;
        if let Err(older) = database::check_not_older(found) {
            tracing::warn!("reports cannot be read yet: {older}");
        }
    }
    // The URL may contain a password, so it is not repeated.
    let make_one = "headcount token create --admin --clickhouse-url URL";
    let access = query::access::Access::new(
        client.clone(),
        settings.access.access(&settings.connections, make_one),
        settings.clock.clock(),
    );
    access.begin().await;
    let rights = tokio::spawn(Arc::clone(&access).keep());
    let store = query::ReportStore::new(client.clone());
    let cache = query::ReportCache::new(settings.cache.cache(), &access);
    let mut registry = metrics::registry();
    let reports =
        query::guarded_routes(store, settings.privacy.rules.query()?, settings.clock.clock(), &access, cache.clone());
    let reports = measured(reports, cache, &mut registry);
    let told = query::privacy::routes(privacy::of_reports(&settings.privacy)?);
    let (stop, stopped) = watch::channel(false);
    let state = ReportsState { health: Health::new(Readiness::Unavailable), clickhouse: Arc::default() };
    let open = query::access::rate_limited(told.fallback(query::no_such_route), &access);
    let router = reports.merge(health::routes(state.health.clone())).merge(open);
    let serving = http::serve(settings.connections.http(), listener, router, until(stopped.clone()));
    let metrics = operator.address();
    let mut beside = tokio::task::JoinSet::new();
    beside.spawn(state.clone().keep(client, access));
    beside.spawn(async move {
        if let Err(error) = operator.serve(state.routes(registry), until(stopped)).await {
            tracing::error!(error = crate::shell::chain(&error), "the listener of `metrics_listen` failed");
        }
    });
    tracing::info!(%address, metrics, "headcount serves reports");
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        // Open requests are not waited for: no further response may come from another server.
        wrong = server.watch() => return Err(wrong.into()),
        signal = signal() => signal?,
    }
    let _ = stop.send(true);
    rights.abort();
    serving.await
}

/// Whether reports can be read, and ClickHouse's last answer.
#[derive(Clone)]
struct ReportsState {
    health: Health,
    clickhouse: Arc<Mutex<String>>,
}

/// What follows from an answer of ClickHouse: the version of its schema.
fn of_version(version: u32, access: &query::access::Access) -> (Readiness, String) {
    match database::check_not_older(version) {
        Err(older) => (Readiness::Unavailable, older.to_string()),
        Ok(()) if !access.is_ready() => {
            (Readiness::Unavailable, "answers; the rights of tokens are not read yet".to_owned())
        }
        Ok(()) => (Readiness::Ready, "answers".to_owned()),
    }
}

impl ReportsState {
    /// Checks ClickHouse until dropped.
    async fn keep(self, client: clickhouse::Client, access: Arc<query::access::Access>) {
        loop {
            // The table, too: a server without headcount's schema has no reports.
            let version = database::read_version(&client);
            let (found, answer) = match tokio::time::timeout(CLICKHOUSE_TIMEOUT, version).await {
                Ok(Ok(version)) => of_version(version, &access),
                Ok(Err(error)) => (Readiness::Unavailable, error.to_string()),
                Err(_) => (Readiness::Unavailable, format!("gave no answer within {} s", CLICKHOUSE_TIMEOUT.as_secs())),
            };
            *self.clickhouse.lock().unwrap_or_else(PoisonError::into_inner) = answer;
            self.health.set(found);
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    fn finding(&self) -> Finding {
        let readiness = self.health.get();
        let is_ready = readiness == Readiness::Ready;
        let why = (!is_ready).then(|| format!("ClickHouse: {}", self.clickhouse()));
        Finding { readiness, reasons: why.into_iter().collect() }
    }

    fn clickhouse(&self) -> String {
        self.clickhouse.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn routes(self, mut registry: Registry) -> axum::Router {
        let health = self.health.clone();
        metrics::scraped(&mut registry, move |scrape| {
            let found = health.get();
            scrape.readiness(found)?;
            let is_ready = found == Readiness::Ready;
            scrape.gauge("clickhouse_answers", "1 while reports can be read from ClickHouse.", is_ready)
        });
        let ready = move || {
            let details = [("clickhouse".to_owned(), self.clickhouse().into())];
            (self.finding(), details.into_iter().collect())
        };
        metrics::routes(registry, ready)
    }
}
