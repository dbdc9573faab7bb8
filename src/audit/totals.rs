//! Totals of a log, per project.

use super::rebuild::{Cell, Key, Window};
use schemas::rejection::is_of_dropped_fact;
use schemas::{Day, Hour, VisitorSketch};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Views, visits and visitors by month.
type Months = BTreeMap<String, (u64, u64, VisitorSketch)>;

/// Sums over windows and partitions.
#[derive(Default)]
pub struct Totals {
    /// (project, hour) → cell of `site_hourly`.
    hours: BTreeMap<(String, u32), Cell>,
    /// (project, dimension, value) → views.
    values: BTreeMap<(String, String, String), u64>,
    /// (project, day) → views by robots.
    robots: BTreeMap<(String, u16), u64>,
    /// (project, month, reason) → beacons.
    rejected: BTreeMap<(String, String, String), u64>,
}

impl Totals {
    /// Adds a window.
    pub fn add(&mut self, window: &Window) {
        for (key, cell) in &window.cells {
            match key {
                Key::Site(project, hour, _) => {
                    let sum = self.hours.entry((project.clone(), *hour)).or_default();
                    sum.counts.resize(cell.counts.len(), 0);
                    for (sum, count) in sum.counts.iter_mut().zip(&cell.counts) {
                        *sum += count;
                    }
                    for (&register, &rank) in &cell.registers {
                        let best = sum.registers.entry(register).or_default();
                        *best = (*best).max(rank);
                    }
                }
                Key::Breakdown(project, _, dimension, value, _) => {
                    *self.values.entry((project.clone(), dimension.clone(), value.clone())).or_default() +=
                        cell.counts[0];
                }
                Key::Rejection(project, day, reason, _) => {
                    let month = Hour(u32::from(*day) * 24).month().to_string();
                    *self.rejected.entry((project.clone(), month, reason.clone())).or_default() += cell.counts[0];
                }
                Key::Robot(project, day, ..) => {
                    *self.robots.entry((project.clone(), *day)).or_default() += cell.counts[0];
                }
                Key::Page(..) | Key::NotFound(..) | Key::RobotPage(..) | Key::Rules(..) | Key::Reported(..) => {}
            }
        }
    }

    /// By project: months with their views, visits and visitors, hours with their views, days with their views by robots, breakdowns, refusals by month.
    pub fn projects(&self, only: Option<&str>) -> anyhow::Result<Value> {
        let mut projects: BTreeMap<&str, (Months, serde_json::Map<String, Value>)> = BTreeMap::new();
        for ((project, hour), cell) in &self.hours {
            let (months, hours) = projects.entry(project).or_default();
            let (views, visits, visitors) = months.entry(Hour(*hour).month().to_string()).or_default();
            *views += cell.counts[0];
            *visits += cell.counts[1];
            visitors.merge(&VisitorSketch::decode(&cell.sketch()?)?);
            let at = Hour(*hour).start().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            hours.insert(at, json!({"views": cell.counts[0]}));
        }
        let mut told = serde_json::Map::new();
        for (project, (months, hours)) in projects {
            if only.is_some_and(|only| only != project) {
                continue;
            }
            let months: serde_json::Map<String, Value> = months
                .into_iter()
                .map(|(month, (views, visits, visitors))| {
                    (month, json!({"views": views, "visits": visits, "visitors": visitors.estimate().value.round()}))
                })
                .collect();
            let mut breakdowns: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
            for ((of, dimension, value), views) in &self.values {
                if of == project {
                    breakdowns.entry(dimension).or_default().insert(value, *views);
                }
            }
            told.insert(project.to_owned(), json!({"months": months, "hours": hours, "breakdowns": breakdowns}));
        }
        for ((project, day), views) in &self.robots {
            if let Some(of_project) = told.get_mut(project) {
                of_project["robots"][Day(*day).date().to_string()] = json!({"views": views});
            }
        }
        for ((project, month, reason), beacons) in &self.rejected {
            if only.is_some_and(|only| only != project) {
                continue;
            }
            let entry = told.entry(project.clone()).or_insert_with(|| json!({}));
            // Views that were counted without a fact are not refused beacons.
            let list = if is_of_dropped_fact(reason) { "dropped_facts" } else { "rejected" };
            entry[list][month.as_str()][reason.as_str()] = json!(beacons);
        }
        Ok(Value::Object(told))
    }
}

/// The same as text for people.
pub fn text(told: &Value) -> String {
    let mut out = String::new();
    for partition in told["partitions"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "partition {}: offsets {} to {}, stream {}",
            partition["partition"],
            partition["begin"],
            partition["end"],
            partition["stream"].as_str().unwrap_or("not counted yet")
        );
        if partition["skipped"] != 0 {
            let _ =
                writeln!(out, "  {} records before the first window that is sure are left out", partition["skipped"]);
        }
        for window in partition["windows"].as_array().into_iter().flatten() {
            let _ = writeln!(
                out,
                "  window {} to {}: {} views, {} repeats, {} tallies of {} refused beacons, {} do not decode, {} rows",
                window["start"],
                window["end"],
                window["accepted"],
                window["duplicate"],
                window["tallies"],
                window["rejected_beacons"],
                window["undecodable"],
                window["rows"]
            );
        }
    }
    for (project, told) in told["projects"].as_object().into_iter().flatten() {
        for (month, figures) in told["months"].as_object().into_iter().flatten() {
            let _ = writeln!(
                out,
                "{project} {month}: {} views, {} visits, about {} visitors",
                figures["views"], figures["visits"], figures["visitors"]
            );
        }
    }
    out
}
