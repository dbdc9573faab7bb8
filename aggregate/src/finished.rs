//! Visitors as plain numbers, for whoever asks with SQL: estimated from the sketches of days and months that are not closed, every
//! few minutes, where their rows have changed.
//!
//! Which have changed is told by a mark: what (hour, stream, window, source, version) of all rows of a project's day come to. The mark that is
//! written is the one that was asked for *before* the sketches were read. Rows that come in between are in the figure or not, and
//! either way the mark is not theirs, so the next look makes the figure anew. Of several figures the one whose reading began last counts,
//! whoever wrote last. So several nodes may do this at once, and any may
//! die at any moment: what is wrong afterwards has a mark that says so.

use crate::close::{CloseError, estimate, failed, merge};
use clickhouse::{Client, Row};
use schemas::tables::{FinishedDayRow, FinishedMonthRow};
use schemas::{Day, VisitorSketch};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Projects looked at together, so that the days of no more of them are in memory, and every row is read once.
const LOOKED_AT: usize = 2_000;
/// Projects whose sketches are read together.
const PROJECTS: usize = 200;

const LOOKING: &str = "looking for days whose visitors are to be estimated";

#[derive(Clone, Row, Deserialize)]
struct Changed {
    project: String,
    day: u16,
    mark: u64,
    /// When it was looked, by ClickHouse's clock.
    looked: i64,
}

#[derive(Row, Deserialize)]
struct HourSketch {
    project: String,
    day: u16,
    #[serde(with = "serde_bytes")]
    sketch: Vec<u8>,
}

/// Brings `finished_day` and `finished_month` up to date. Returns how many days of projects had changed.
///
/// # Errors
/// ClickHouse refused, or a stored sketch is none. What was written until then is right.
pub async fn finish(client: &Client) -> Result<u64, CloseError> {
    let sql = "SELECT project FROM site_hourly WHERE toStartOfMonth(hour) NOT IN (SELECT month FROM month_close) \
               GROUP BY project ORDER BY project";
    let projects = client.query(sql).fetch_all::<String>().await.map_err(failed(LOOKING))?;
    let mut days = 0;
    for range in projects.chunks(LOOKED_AT) {
        let [Some(first), Some(last)] = [range.first(), range.last()] else { continue };
        let changed = changed(client, first, last).await?;
        let Some(Changed { looked, .. }) = changed.first() else { continue };
        let looked = *looked;
        days += changed.len() as u64;
        let mut months: BTreeMap<u16, BTreeMap<String, BTreeMap<u16, u64>>> = BTreeMap::new();
        for Changed { project, day, mark, .. } in changed {
            let month = Day(day).first_hour().month().first_hour().day().0;
            months.entry(month).or_default().entry(project).or_default().insert(day, mark);
        }
        for (month, projects) in months {
            let names: Vec<&str> = projects.keys().map(String::as_str).collect();
            for names in names.chunks(PROJECTS) {
                estimates(client, (month, looked), names, &projects).await?;
            }
        }
    }
    Ok(days)
}

/// The days of these projects, from the first to the last by name, whose rows are not those that their figure was made of.
async fn changed(client: &Client, first: &str, last: &str) -> Result<Vec<Changed>, CloseError> {
    let sql = "SELECT project, day, found AS mark, toUnixTimestamp64Micro(now64(6, 'UTC')) AS looked FROM (\
               SELECT project, toDate(hour) AS day, \
               groupBitXor(sipHash64(hour, stream, window_start, source, next_offset)) AS found FROM site_hourly FINAL \
               WHERE project BETWEEN {first:String} AND {last:String} AND toStartOfMonth(hour) NOT IN (SELECT month FROM month_close) \
               GROUP BY project, day) AS present \
               LEFT JOIN (SELECT project, day, mark FROM finished_day FINAL WHERE project BETWEEN {first:String} AND {last:String}) AS made \
               USING (project, day) WHERE found != made.mark ORDER BY project, day";
    let query = client.query(sql).param("first", first).param("last", last);
    query.fetch_all().await.map_err(failed(LOOKING))
}

/// Reads the sketches of some projects' month, one after another, and writes the figures of its changed days and its own.
async fn estimates(
    client: &Client,
    (month, updated): (u16, i64),
    names: &[&str],
    changed: &BTreeMap<String, BTreeMap<u16, u64>>,
) -> Result<(), CloseError> {
    const READING: &str = "reading the sketches of a month's days";
    let sql = "SELECT project, toDate(hour) AS day, sketch FROM site_hourly FINAL \
               WHERE project IN {projects:Array(String)} AND toStartOfMonth(hour) = toDate({month:UInt16}) ORDER BY project, day";
    let mut rows = client
        .query(sql)
        .param("projects", names)
        .param("month", month)
        .fetch::<HourSketch>()
        .map_err(failed(READING))?;
    let (mut days, mut months) = (Vec::new(), Vec::new());
    let mut held: Option<(String, VisitorSketch, u16, VisitorSketch)> = None;
    loop {
        let row = rows.next().await.map_err(failed(READING))?;
        if let Some((project, of_month, day, of_day)) = &mut held {
            let same_project = row.as_ref().is_some_and(|row| row.project == *project);
            if !(same_project && row.as_ref().is_some_and(|row| row.day == *day)) {
                of_month.merge(of_day);
                if let Some(&mark) = changed.get(project).and_then(|days| days.get(day)) {
                    let (visitors, visitors_error) = estimate(of_day);
                    let (project, day) = (project.clone(), *day);
                    days.push(FinishedDayRow { project, day, visitors, visitors_error, mark, updated });
                }
                *of_day = VisitorSketch::new();
            }
            if !same_project {
                let (visitors, visitors_error) = estimate(of_month);
                months.push(FinishedMonthRow { project: project.clone(), month, visitors, visitors_error, updated });
                held = None;
            }
        }
        let Some(row) = row else { break };
        let (_, _, day, of_day) =
            held.get_or_insert_with(|| (row.project.clone(), VisitorSketch::new(), row.day, VisitorSketch::new()));
        *day = row.day;
        merge(of_day, &row.sketch, &row.project)?;
    }
    // The days' marks say that all is done, so they come last.
    let stored = async {
        storage::insert(client, "finished_month", &months).await?;
        storage::insert(client, "finished_day", &days).await
    };
    stored.await.map_err(failed("writing visitors of days and months"))
}
