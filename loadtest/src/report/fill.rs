//! Rows of two months as an aggregator writes them, the first of which is closed; and the second month's views as raw events.

use std::time::Duration;

use aggregate::close::Closer;
use aggregate::fold::WindowState;
use aggregate::store::SummaryStore;
use aggregate::window::WindowStart;
use anyhow::Context as _;
use clickhouse::Client;
use schemas::StreamId;
use schemas::migrations::all_statements;

use crate::kafka::database::Database;
use crate::month::plan::Plan;
use crate::month::stream::Stretch;
use crate::month::view::{Encoder, Shares, Views};
use crate::random::mix;
use crate::raw::{RAW_TABLE, RawEvent, RawEvents};

/// How long one insert may take.
const INSERT_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes the tables.
///
/// # Errors
/// When ClickHouse refuses.
pub async fn prepare(database: &Database, client: &Client) -> anyhow::Result<()> {
    database.execute(&format!("CREATE DATABASE IF NOT EXISTS {}", database.name)).await?;
    for statement in all_statements() {
        client.query(&statement.replace('?', "??")).execute().await.context("making headcount's tables")?;
    }
    client.query(RAW_TABLE).execute().await.context("making the table of raw events")
}

/// Writes the month of `plan` and the one before it, and closes that one.
///
/// # Errors
/// When ClickHouse refuses.
pub async fn fill(client: &Client, plan: &Plan, streams: u64) -> anyhow::Result<()> {
    let store = SummaryStore::new(client.clone(), INSERT_TIMEOUT);
    let mut offsets = vec![0; streams as usize];
    let before = Plan::new(plan.seed(), plan.month().previous(), plan.size());
    month(&store, &before, &mut offsets, None).await?;
    let mut raw = RawEvents::new(client.clone());
    month(&store, plan, &mut offsets, Some(&mut raw)).await?;
    raw.write().await?;
    // Only now, when the first month's windows are over: what is in open windows stays out of a close.
    Closer::new(client.clone()).close(before.month()).await.context("closing the first month")?;
    Ok(())
}

/// Folds a month's views, window by window; each project's are in one stream, as with Kafka.
async fn month(
    store: &SummaryStore,
    plan: &Plan,
    offsets: &mut [u64],
    mut raw: Option<&mut RawEvents>,
) -> anyhow::Result<()> {
    let shares = Shares::default();
    let (views, mut stretch, mut encoder) = (Views::new(plan, &shares), Stretch::default(), Encoder::default());
    for from in (0..plan.hours()).step_by(crate::WINDOW_HOURS as usize) {
        let appended_hour = plan.month().first_hour().0 + from;
        let begin = |(stream, offset): (usize, &u64)| {
            WindowState::new(StreamId(stream as u64 + 1), WindowStart { offset: *offset, appended_hour })
        };
        let mut windows: Vec<WindowState> = offsets.iter().enumerate().map(begin).collect();
        for hour in from..(from + crate::WINDOW_HOURS).min(plan.hours()) {
            for part in 0..plan.parts(hour) {
                plan.fill(hour, part, &mut stretch);
                for place in stretch.views().iter().filter(|place| !place.repeat) {
                    let view = views.view(place, hour);
                    let stream = (view.key % offsets.len() as u64) as usize;
                    windows[stream].apply(offsets[stream], encoder.encode(plan, &view))?;
                    offsets[stream] += 1;
                    if let (Some(raw), Some(visitor)) = (raw.as_deref_mut(), view.visitor) {
                        raw.push(RawEvent {
                            project: plan.slug(view.project).to_owned(),
                            ts: view.hour.unix_seconds() + (view.id % 3_600) as u32,
                            path: view.page.path(),
                            status: view.page.status(),
                            visitor: mix(view.key ^ u64::from(visitor)),
                        });
                    }
                }
                if let Some(raw) = raw.as_deref_mut() {
                    raw.write_if_full().await?;
                }
            }
        }
        for window in &mut windows {
            store.write(&window.freeze()).await?;
        }
    }
    Ok(())
}

/// Name and views by people of each project, the largest first.
#[must_use]
pub fn projects(plan: &Plan) -> Vec<(String, u64)> {
    let (shares, mut stretch) = (Shares::default(), Stretch::default());
    let views = Views::new(plan, &shares);
    let mut counts = vec![0; plan.size().projects as usize];
    for hour in 0..plan.hours() {
        for part in 0..plan.parts(hour) {
            plan.fill(hour, part, &mut stretch);
            for place in stretch.views().iter().filter(|place| !place.repeat) {
                counts[place.project as usize] += u64::from(views.view(place, hour).visitor.is_some());
            }
        }
    }
    counts.into_iter().enumerate().map(|(number, views)| (plan.slug(number as u32).to_owned(), views)).collect()
}
