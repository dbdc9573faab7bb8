//! Rows of two months as an aggregator writes them, the first of which is closed; and the second month's views as raw events.

use std::time::Duration;

use aggregate::close::Closer;
use aggregate::fold::WindowState;
use aggregate::sink::RowSink as _;
use aggregate::store::SummaryStore;
use aggregate::window::WindowStart;
use anyhow::Context as _;
use clickhouse::Client;
use schemas::StreamId;
use serde::Serialize;

use super::raw::{RawEvent, RawEvents};
use crate::kafka::database::Database;
use crate::month::plan::Plan;
use crate::month::result::{bytes, rows};
use crate::month::watch::tables;
use crate::random::mix;

/// The stream of the log that the rows are of.
const STREAM: StreamId = StreamId(1);
/// How long one insert may take.
const INSERT_TIMEOUT: Duration = Duration::from_secs(120);

/// Writes the month of `plan` before its last `left` hours, and the month before it, and closes that one. Returns name and views by
/// people of each project, the largest first.
///
/// # Errors
/// When ClickHouse refuses.
pub async fn fill(client: Client, plan: &Plan, left: u32) -> anyhow::Result<Vec<(String, u64)>> {
    let store = SummaryStore::new(client.clone(), INSERT_TIMEOUT);
    let before = Plan::new(plan.seed(), plan.month().previous(), plan.size());
    let mut offset = 0;
    month(&store, &before, before.hours(), &mut offset, None).await?;
    let mut raw = RawEvents::create(client.clone()).await?;
    let views = month(&store, plan, plan.hours() - left, &mut offset, Some(&mut raw)).await?;
    raw.write().await?;
    // Only now, when the first month's windows are closed: a close ignores records of open windows.
    Closer::new(client).close(before.month()).await.context("closing the first month")?;
    Ok(views.into_iter().enumerate().map(|(number, views)| (plan.slug(number as u32).to_owned(), views)).collect())
}

/// The content of the tables.
#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    /// Rows of the summaries.
    pub summary_rows: u64,
    /// Their bytes on disk.
    pub summary_bytes: u64,
    /// Raw events.
    pub raw_rows: u64,
    /// Their bytes on disk.
    pub raw_bytes: u64,
}

/// The current content of the tables.
///
/// # Errors
/// ClickHouse refuses.
pub async fn stored(database: &Database) -> anyhow::Result<Stored> {
    let mut tables = tables(database).await?;
    let raw = tables.remove("raw_event").unwrap_or_default();
    Ok(Stored { summary_rows: rows(&tables), summary_bytes: bytes(&tables), raw_rows: raw.rows, raw_bytes: raw.bytes })
}

/// Folds the views of a month's first hours, window by window, and returns the views by people of each project.
async fn month(
    store: &SummaryStore,
    plan: &Plan,
    hours: u32,
    offset: &mut u64,
    mut raw: Option<&mut RawEvents>,
) -> anyhow::Result<Vec<u64>> {
    let mut counts = vec![0; plan.size().projects as usize];
    for from in (0..hours).step_by(crate::WINDOW_HOURS as usize) {
        let appended_hour = plan.month().first_hour().0 + from;
        let mut window = WindowState::new(STREAM, WindowStart { offset: *offset, appended_hour });
        let mut outcome = Ok(());
        plan.each(from..(from + crate::WINDOW_HOURS).min(hours), |place, view, _| {
            if place.repeat || outcome.is_err() {
                return;
            }
            outcome = window.apply(*offset, &view.record(plan));
            *offset += 1;
            let Some(visitor) = view.visitor else { return };
            counts[view.project as usize] += 1;
            if let Some(raw) = raw.as_deref_mut() {
                raw.push(RawEvent {
                    project: plan.slug(view.project).to_owned(),
                    ts: view.hour.unix_seconds() + (view.id % 3_600) as u32,
                    path: view.page.path(),
                    status: view.page.status(),
                    visitor: mix(view.key ^ u64::from(visitor)),
                });
            }
        });
        outcome?;
        store.insert(&window.freeze()).await?;
        if let Some(raw) = raw.as_deref_mut() {
            raw.write_if_full().await?;
        }
    }
    Ok(counts)
}
