//! `GET /privacy`: what this service does with the data of visitors, from its running configuration, so that anyone can verify it. HTML for
//! people; JSON for clients that accept `application/json`.

use crate::access::headers;
use crate::page;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::sync::Arc;

/// The key with which coordinates are computed.
#[derive(Clone, Debug, Serialize)]
pub struct KeyFacts {
    /// `month` or `day`: how long a key lives, and for how long a reader is the same visitor.
    pub lives_for: &'static str,
    /// The running period.
    pub period: String,
    /// When it started.
    pub began: DateTime<Utc>,
    /// When it ends: then the key is replaced and erased.
    pub ends: DateTime<Utc>,
    /// When this process last replaced and erased a key; null if no period has ended since the process started.
    pub last_destroyed: Option<DateTime<Utc>>,
}

/// The configuration of the service.
#[derive(Clone, Debug, Serialize)]
pub struct PrivacyFacts {
    /// The scopes of visitor counts: a whole project, and one path.
    pub scopes: [&'static str; 2],
    /// Registers of a sketch are 2 to the power of this.
    pub precision: u32,
    /// Most bits of entropy that are stored of a reader.
    pub coordinate_bits: u32,
    /// The key; null where this process has none (it serves reports only).
    pub key: Option<KeyFacts>,
    /// Values with fewer views are added up as "other", and a page's visitors below it are withheld. Counts views, not readers.
    pub small_cell_floor: u64,
    /// Figures without a threshold.
    pub without_threshold: &'static [&'static str],
    /// Hours after a month's end until its sketches are destroyed.
    pub close_after_hours: u64,
    /// Hours that single page views stay in the log.
    pub log_retention_hours: u32,
    /// Months after their month's end until figures are deleted.
    pub retention_months: u32,
    /// Which signals of a wish not to be counted are honoured.
    pub opt_out: [&'static str; 3],
    /// Whether a country is recorded, and its source.
    pub country: String,
    /// Version of the rules that detect robots; every record contains it.
    pub robot_rules: u32,
    /// All facts that are recorded of a page view.
    pub recorded: &'static [&'static str],
    /// Facts that are recorded nowhere.
    pub never_recorded: &'static [&'static str],
    /// What the service does not promise.
    pub not_promised: &'static [&'static str],
}

/// All fields of a page view, as the log has them.
pub const RECORDED: &[&str] = &[
    "project",
    "hour",
    "path (cleaned)",
    "HTTP status",
    "docs version",
    "docs language",
    "referrer's host",
    "country",
    "device class",
    "browser family",
    "system family",
    "kind and name of a robot",
    "version of the rules by which robots are found",
    "the tracker that sent the view",
    "whether the view came from elsewhere",
    "two coordinates of the visitor (about 16 bits each)",
    "an id of the view: a keyed hash of the id that the page sent, or a random id",
];

/// Facts that no record contains.
pub const NEVER_RECORDED: &[&str] = &[
    "IP address",
    "user agent",
    "any hash of either, except the two coordinates",
    "query string, except parameters that a project's rules keep",
    "fragment, except as the route of a single-page site",
    "minute and second",
];

/// Figures that reports show however small they are.
pub const WITHOUT_THRESHOLD: &[&str] = &[
    "page views by path",
    "views and visits by hour and by day",
    "totals of a month: views, visits, visitors, visits at missing pages, robots, refused beacons",
    "visitors of a day",
    "views by robots by kind, and views of a page by AI",
    "views by the tracker that sent them",
    "views of a missing page that came from the project's own pages, and reports that a page is missing",
];

/// The limits of the promises.
pub const NOT_PROMISED: &[&str] = &[
    "While a period lasts, the operator of the service, who has its key, can test whether a given IP address and user agent was there.",
    "In a small audience a coordinate is a pseudonym until its month is closed.",
    "The threshold counts views, not readers: one reader who opens enough pages reaches it alone.",
    "Figures without a threshold can reveal a suppressed value: views of /eo/index.html say that the docs are read in Esperanto.",
    "Padding: a sender of beacons can add views of a suppressed value until it is shown, and subtract them. The result is exact.",
    "Membership: a sender of beacons can test whether a visitor with the same IP address and the same browser was there before: the \
     estimate of visitors stays as it is, or grows by one.",
    "A report user who queries a running month repeatedly sees which views arrived in between.",
    "Working without cookies is not the same as needing no consent: that is for the site to judge.",
];

/// Returns the facts at the time of the request.
pub type FactsSource = Arc<dyn Fn() -> PrivacyFacts + Send + Sync>;

/// `GET /privacy`.
pub fn routes(facts: FactsSource) -> Router {
    Router::new().route(
        "/privacy",
        get(move |headers: HeaderMap| {
            let facts = facts();
            async move { answer(&facts, &headers) }
        }),
    )
}

fn answer(facts: &PrivacyFacts, asked: &HeaderMap) -> Response {
    let accept = asked.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    // Browsers accept text/html by name; programs that name no type get HTML as well.
    let program = accept.contains("application/json") && !accept.contains("text/html");
    let mut response = if program { Json(facts).into_response() } else { page::privacy(facts).into_response() };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers::protect(&mut response, headers::HeaderKind::default());
    response
}
