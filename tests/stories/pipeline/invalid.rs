//! Beacons that must be refused, and how the month's report must show them.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::Service;
use schemas::rejection::NOT_COUNTED_HERE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// (project, reason) → beacons.
type Counts = BTreeMap<(String, String), u64>;

/// One of them.
pub struct Invalid {
    /// The project whose report shows the refusal; empty if unknown.
    project: &'static str,
    reason: &'static str,
    status: u16,
    body: String,
}

impl Invalid {
    /// The `number`th kind, for `project` if the kind names one.
    pub fn new(number: usize, project: &'static str) -> Self {
        let url = format!("https://{project}.docs.example/");
        let named = |url: &str| format!(r#"{{"project":"{project}","url":{url}}}"#);
        let (told, reason, status, body) = match number % 8 {
            0 => (project, "foreign_host", 404, named(r#""https://else.example/""#)),
            1 => (project, "invalid_field", 400, named(r#""no address""#)),
            2 => (project, "invalid_field", 400, named("7")),
            3 => (project, "control_characters", 400, named(r#""https://a\tb/""#)),
            4 => ("", "malformed_json", 400, format!(r#"{{"project":"{project}","url":"#)),
            5 => (project, "missing_field", 400, format!(r#"{{"project":"{project}"}}"#)),
            6 => (project, "unknown_project", 404, format!(r#"{{"project":"nobody","url":"{url}"}}"#)),
            _ => (project, "not_utf8", 400, named(r#""https://\ufffd/""#)),
        };
        Invalid { project: told, reason, status, body }
    }

    /// Sends it once. Whether it was answered; an answer must be its refusal.
    pub async fn send(&self, connection: &mut Option<Connection>, address: SocketAddr) -> Result<bool> {
        if connection.is_none() {
            *connection = Connection::open(address).await.ok();
        }
        let Some(open) = connection.as_mut() else { return Ok(false) };
        let Ok(answer) = open.send("POST", "/v1/pageview", &[], self.body.clone()).await else {
            *connection = None;
            return Ok(false);
        };
        ensure!(answer.status == self.status, "{}: answered {}", self.body, answer.status);
        let told = answer.json()?;
        let answered = match self.reason {
            "foreign_host" | "unknown_project" => NOT_COUNTED_HERE,
            other => other,
        };
        ensure!(told["error"]["reason"] == answered, "{}: answered {told}", self.body);
        Ok(true)
    }
}

/// Beacons of one month that were sent to be refused.
#[derive(Default)]
pub struct Refusals {
    all: Counts,
    /// Answered before the last kill, so certainly counted.
    certain: Counts,
}

impl Refusals {
    /// Notes one.
    pub fn sent(&mut self, invalid: &Invalid, certain: bool) {
        let key = (invalid.project.to_owned(), invalid.reason.to_owned());
        *self.all.entry(key.clone()).or_default() += 1;
        *self.certain.entry(key).or_default() += u64::from(certain);
    }

    /// The reports match the log. The log has every refusal that no kill can have lost, and nothing that was not sent. (Valid beacons that met a full
    /// log are refused as `log_unavailable`; they are not among these.)
    pub async fn check(&self, service: &Service, truth: &Value, month: &str) -> Result<()> {
        let mut logged = Counts::new();
        for (project, told) in truth["projects"].as_object().context("projects")? {
            for (reason, beacons) in told["rejected"][month].as_object().into_iter().flatten() {
                logged.insert((project.clone(), reason.clone()), beacons.as_u64().context("beacons")?);
            }
        }
        for (key, &sent) in &self.all {
            let (found, certain) = (logged.get(key).copied().unwrap_or(0), self.certain[key]);
            ensure!((certain..=sent).contains(&found), "{month} {key:?}: {found} logged of {sent}, {certain} certain");
        }
        let stray = logged.keys().find(|key| !self.all.contains_key(*key) && key.1 != "log_unavailable");
        ensure!(stray.is_none(), "{month}: nobody sent {stray:?}");
        for project in super::PROJECTS {
            let report = service.report(project, month).await?;
            let rejected: BTreeMap<String, u64> = serde_json::from_value(report["totals"]["rejected"].clone())
                .with_context(|| format!("totals.rejected of {project}"))?;
            let expected: BTreeMap<String, u64> = logged
                .iter()
                .filter(|((slug, _), _)| slug == project)
                .map(|((_, reason), &beacons)| (reason.clone(), beacons))
                .collect();
            ensure!(rejected == expected, "{month} {project}: rejected {rejected:?}, {expected:?} in the log");
        }
        let sum = |counts: &Counts| counts.values().sum::<u64>();
        println!("{month}: {} refused of {} sent, {} certain", sum(&logged), sum(&self.all), sum(&self.certain));
        Ok(())
    }
}
