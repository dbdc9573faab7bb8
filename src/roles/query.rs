//! `headcount query`: reports from ClickHouse.

use super::loopback;
use crate::config::Config;
use crate::shell::{harden, signal, until};
use crate::{http, privacy, projects};
use anyhow::Context;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long ClickHouse may take to say that it is there.
const ASK: Duration = Duration::from_secs(3);

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> anyhow::Result<()> {
    harden();
    let listener = http::bind(config.listen_or(loopback(8027))?).await?;
    let address = listener.local_addr().context("cannot read the listener's address")?;
    let client = config.clickhouse(&projects::clickhouse_url(&config).await?).with_database(config.database());
    // The URL may hold a password, so it is not repeated.
    let make_one = "headcount token create --admin --clickhouse-url URL";
    let access = query::access::Access::new(client.clone(), config.access(make_one)?, config.clock()?);
    access.begin().await;
    let rights = tokio::spawn(Arc::clone(&access).keep());
    let store = query::ReportStore::new(client.clone());
    let reports = query::guarded_routes(store, config.query()?, config.clock()?, &access);
    let told = query::privacy::routes(privacy::of_reports(&config)?);
    let (stop, stopped) = watch::channel(false);
    let open = query::access::rate_limited(told.fallback(query::no_such_route), &access);
    let router = reports.merge(health(client, access)).merge(open);
    let serving = http::serve(config.http()?, listener, router, until(stopped));
    tracing::info!(%address, "headcount serves reports");
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        signal = signal() => signal?,
    }
    let _ = stop.send(true);
    rights.abort();
    serving.await
}

fn health(client: clickhouse::Client, access: Arc<query::access::Access>) -> Router {
    let ready = move || {
        let (client, access) = (client.clone(), Arc::clone(&access));
        async move {
            // The table, too: a server without our schema has no reports.
            let asked = client.query("SELECT count() FROM schema_version").fetch_one::<u64>();
            let (ready, told) = match tokio::time::timeout(ASK, asked).await {
                Ok(Ok(_)) if !access.is_ready() => {
                    (false, "answers; who may read reports is read in a moment".to_owned())
                }
                Ok(Ok(_)) => (true, "answers".to_owned()),
                Ok(Err(error)) => (false, error.to_string()),
                Err(_) => (false, format!("gave no answer within {} s", ASK.as_secs())),
            };
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let body = json!({"ready": ready, "clickhouse": told});
            (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n"))
        }
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready))
}
