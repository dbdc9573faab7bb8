//! Closing months: by command, and by the aggregator as time passes.

use crate::config::commands::CloseCommand;
use crate::say;
use crate::{projects, retention};
use aggregate::close::{Closed, Closer, is_due};
use aggregate::due::{Decision, LogRange, StreamRecords, listed};
use aggregate::finished::finish;
use aggregate::writes::Writes;
use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::ArgMatches;
use clickhouse::Client;
use ingest::journal::Journal;
use schemas::Month;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the aggregator checks whether it has to close, remove or erase anything.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// The same while a due month waits for uncounted records.
const WAITING_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The logs whose records a close waits for.
pub enum Logs {
    /// The journal of `serve`.
    Journal(Journal),
    /// The topic, and which streams its partitions are.
    #[cfg(feature = "kafka")]
    Topic(Box<(crate::config::kafka_settings::KafkaSettings, aggregate::kafka::Streams)>),
}

impl Logs {
    /// The ranges of all live streams.
    async fn ranges(&self) -> anyhow::Result<Vec<LogRange>> {
        match self {
            Logs::Journal(journal) => {
                let journal = journal.clone();
                let range = tokio::task::spawn_blocking(move || {
                    let end = *journal.end().borrow();
                    journal.begin().map(|start| LogRange { stream: journal.stream().0, start, end })
                });
                Ok(vec![range.await?.context("cannot find the journal's beginning")?])
            }
            #[cfg(feature = "kafka")]
            Logs::Topic(topic) => crate::topic::ranges(&topic.0, &topic.1).await,
        }
    }
}

/// Runs `headcount close [--month YYYY-MM] [--force]`.
pub async fn command(matches: &ArgMatches, settings: &CloseCommand) -> anyhow::Result<()> {
    let (now, after) = (settings.clock.clock()(), settings.close.close_after_hours);
    let month = match matches.get_one::<String>("month") {
        Some(text) => Some(text.parse::<Month>().with_context(|| format!("--month is {text:?}"))?),
        None => None,
    };
    if let Some(month) = month
        && !is_due(month, now, after)
    {
        let due = month.end_hour().start() + after;
        bail!(
            "{month} is due at {}: until then late page views are waited for (setting `close_after_hours`){}",
            due.to_rfc3339(),
            if matches.get_flag("force") { ". --force closes months that are due; it makes none due" } else { "" }
        );
    }
    let client = projects::connect(&settings.store).await?;
    let closer = Closer::new(client.clone());
    let months = match month {
        Some(month) => vec![month],
        None => closer.due(now, after).await.context("cannot find what is due")?,
    };
    if months.is_empty() {
        say!("no month is to be closed");
    }
    if !months.is_empty()
        && let Some(import) = closer.unfinished_imports().await?.first()
    {
        bail!(
            "no month is closed while import {import} is published or removed in part, since visitors would be lost. If none is running, the \
             next `headcount import` finishes it"
        );
    }
    let mut waits = Vec::new();
    for month in months {
        if !closer.is_closed(month).await?
            && let Some(reason) = reason_to_wait(&closer, month).await?
        {
            if !matches.get_flag("force") {
                waits.push(format!("{month} is not closed yet: {reason}"));
                continue;
            }
            say!("{month} is closed by --force although {reason}. Their views are added later, their visitors never");
        }
        let Closed { month, projects, views, by_this_run } =
            closer.close(month).await.with_context(|| format!("cannot close {month}"))?;
        let how = if by_this_run { "closed" } else { "was closed already" };
        say!("{month} {how}: {views} views of {projects} projects; its sketches are deleted");
    }
    finish(&client).await.context("cannot estimate visitors for SQL")?;
    if waits.is_empty() {
        return Ok(());
    }
    let text = format!(
        "{}. An aggregator closes a month by itself once it has counted them. --force closes now: visitors of records that are counted later \
         are then missing for good",
        waits.join("; ")
    );
    // Waiting is no failure, unless the caller wants this very month closed.
    if month.is_some() {
        bail!(text);
    }
    say!("{text}");
    Ok(())
}

/// Why a due month cannot be closed yet.
async fn reason_to_wait(closer: &Closer, month: Month) -> anyhow::Result<Option<String>> {
    let decision = closer.decide_by_recorded_ends(month).await.context("cannot find what the close waits for")?;
    Ok(match decision {
        None => Some(
            "no aggregator has noted yet where the logs ended when the month became due, so accepted records may be uncounted"
                .to_owned(),
        ),
        Some(Decision::Wait(streams)) => {
            Some(format!("these records were accepted before it was due and are not counted yet: {}", listed(&streams)))
        }
        Some(Decision::Close { .. }) => None,
    })
}

/// Closes months once they are due and counted, and removes expired data, until dropped. Failures are retried.
pub async fn keep(
    client: Client,
    logs: Logs,
    clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    after: Duration,
    retention: retention::Retention,
    finished_every: Duration,
    writes: Writes,
) {
    let closer = Closer::new(client.clone());
    let mut finished = None::<Instant>;
    let mut waiting = BTreeSet::new();
    loop {
        let permit = writes.permit().await;
        if let Err(error) = retention::keep(&client, retention).await {
            tracing::warn!(
                error = crate::shell::chain(&error),
                "what is past its time could not be removed; trying again"
            );
        }
        if let Err(error) = close_due(&closer, &logs, clock(), after, &mut waiting).await {
            tracing::warn!(error = crate::shell::chain(&error), "a month could not be closed; trying again");
        }
        if finished.is_none_or(|at| at.elapsed() >= finished_every) {
            match finish(&client).await {
                Ok(_) => finished = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "visitors could not be estimated for SQL; trying again"),
            }
        }
        drop(permit);
        tokio::time::sleep(if waiting.is_empty() { CHECK_INTERVAL } else { WAITING_CHECK_INTERVAL }).await;
    }
}

/// Closes the due months whose records are counted. `waiting` has the others, each of which is logged once.
async fn close_due(
    closer: &Closer,
    logs: &Logs,
    now: DateTime<Utc>,
    after: Duration,
    waiting: &mut BTreeSet<Month>,
) -> anyhow::Result<()> {
    let due = closer.due(now, after).await?;
    waiting.retain(|month| due.contains(month));
    if due.is_empty() {
        return Ok(());
    }
    // Read after `now`: records accepted before a month was due are below these ends.
    let ranges = logs.ranges().await.context("cannot find where the logs end")?;
    for month in due {
        if let Some(import) = closer.unfinished_imports().await?.first() {
            if waiting.insert(month) {
                tracing::info!(
                    %month,
                    %import,
                    "closes wait until the import is published or removed as a whole; the next `headcount import` finishes it if none is running"
                );
            }
            return Ok(());
        }
        let lost = match closer.decide(month, &ranges).await? {
            Decision::Wait(streams) => {
                if waiting.insert(month) {
                    tracing::info!(%month, uncounted = listed(&streams), "the close of the month waits until these records are counted");
                }
                continue;
            }
            Decision::Close { lost } => lost,
        };
        waiting.remove(&month);
        if !lost.is_empty() {
            let records = lost.iter().map(|StreamRecords { records, .. }| records).sum::<u64>();
            tracing::warn!(%month, records, lost = listed(&lost), "the month is closed without records that the log no longer holds");
        }
        let Closed { month, projects, views, .. } = closer.close(month).await?;
        tracing::info!(%month, projects, views, "the month is closed; its sketches are deleted");
    }
    Ok(())
}
