//! Closing months: by command, and by the aggregator as time passes.

use crate::config::Config;
use crate::{database, projects, retention};
use aggregate::close::{Closed, Closer, is_due};
use aggregate::finished::finish;
use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::ArgMatches;
use clickhouse::Client;
use schemas::Month;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the aggregator looks whether something is to be closed, removed or erased.
const EVERY: Duration = Duration::from_secs(30);

/// Runs `headcount close [--month YYYY-MM]`.
pub async fn command(matches: &ArgMatches, config: &Config) -> anyhow::Result<()> {
    let (now, after) = (config.clock()?(), config.close_after()?);
    let month = match matches.get_one::<String>("month") {
        Some(text) => Some(text.parse::<Month>().with_context(|| format!("--month is {text:?}"))?),
        None => None,
    };
    if let Some(month) = month
        && !is_due(month, now, after)
    {
        let due = month.end_hour().start() + after;
        bail!(
            "{month} may be closed from {} on: late page views are waited for (setting `close_after_hours`)",
            due.to_rfc3339()
        );
    }
    let server = config.clickhouse(&projects::clickhouse_url(config).await?);
    let client = database::prepare(&server, config.database(), config.clickhouse_timeout()?).await?;
    let closer = Closer::new(client.clone());
    let closed = match month {
        Some(month) => vec![closer.close(month).await.with_context(|| format!("cannot close {month}"))?],
        None => closer.close_due(now, after).await.context("cannot close what is due")?,
    };
    for Closed { month, projects, views, ours } in &closed {
        let how = if *ours { "closed" } else { "was closed already" };
        println!("{month} {how}: {views} views of {projects} projects; its sketches are gone");
    }
    if closed.is_empty() {
        println!("no month is to be closed");
    }
    finish(&client).await.context("cannot estimate visitors for SQL")?;
    Ok(())
}

/// Closes months when they are due, and removes what is past its time, until it is dropped. What fails is tried again.
pub async fn keep(
    client: Client,
    clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    after: Duration,
    retention: retention::Retention,
    finished_every: Duration,
) {
    let closer = Closer::new(client.clone());
    let mut finished = None::<Instant>;
    loop {
        if let Err(error) = retention::keep(&client, retention).await {
            tracing::warn!(error = format!("{error:#}"), "what is past its time could not be removed; trying again");
        }
        match closer.close_due(clock(), after).await {
            Ok(closed) => {
                for Closed { month, projects, views, .. } in closed {
                    tracing::info!(%month, projects, views, "the month is closed; its sketches are gone");
                }
            }
            Err(error) => tracing::warn!(%error, "a month could not be closed; trying again"),
        }
        if finished.is_none_or(|at| at.elapsed() >= finished_every) {
            match finish(&client).await {
                Ok(_) => finished = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "visitors could not be estimated for SQL; trying again"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
