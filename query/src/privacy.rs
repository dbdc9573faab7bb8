//! `GET /privacy`: what this very service does with what it sees, from its running configuration, so that anyone can hold it to its
//! word. A page for people; JSON for whoever asks for `application/json`.

use crate::access::headers;
use crate::page;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::sync::Arc;

/// The key that coordinates are made with.
#[derive(Clone, Debug, Serialize)]
pub struct KeyFacts {
    /// `month` or `day`: how long a key lives, and a reader is the same visitor.
    pub lives_for: &'static str,
    /// The running period.
    pub period: String,
    /// When it began.
    pub began: DateTime<Utc>,
    /// When it ends: then the key is replaced and erased.
    pub ends: DateTime<Utc>,
    /// When this process last replaced and erased a key; null where its period has not ended since the process began.
    pub last_destroyed: Option<DateTime<Utc>>,
}

/// What the service is set to.
#[derive(Clone, Debug, Serialize)]
pub struct PrivacyFacts {
    /// Who is counted: visitors of a whole project, and of one path.
    pub scopes: [&'static str; 2],
    /// Registers of a sketch are 2 to the power of this.
    pub precision: u32,
    /// Bits of entropy that are kept of a reader, at most.
    pub coordinate_bits: u32,
    /// The key; null where this process has none (it serves reports only).
    pub key: Option<KeyFacts>,
    /// Figures about fewer are folded or withheld.
    pub small_cell_floor: u64,
    /// Hours after a month's end until its sketches are destroyed.
    pub close_after_hours: u64,
    /// Hours that single page views stay in the log.
    pub log_retention_hours: u32,
    /// Months after their month's end until figures are deleted.
    pub retention_months: u32,
    /// Whose wish not to be counted is followed.
    pub opt_out: [&'static str; 3],
    /// Whether a country is recorded, and by whose word.
    pub country: String,
    /// All that is recorded of a page view.
    pub recorded: &'static [&'static str],
    /// What is not, anywhere.
    pub never_recorded: &'static [&'static str],
    /// What is not promised.
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
    "kind and name of a bot",
    "whether the view came from elsewhere",
    "two coordinates of the visitor (about 16 bits each)",
    "a random id of the view",
];

/// What no record has.
pub const NEVER_RECORDED: &[&str] = &[
    "address",
    "user agent",
    "any hash of either of 32 bits or more",
    "query string",
    "fragment",
    "minute and second",
];

/// Where the promises end.
pub const NOT_PROMISED: &[&str] = &[
    "While a period lasts, whoever runs the service and has its key can test whether a given address and agent was there.",
    "In a small audience a coordinate is a pseudonym until its month is closed.",
    "Who looks at a running month again and again sees when views come in.",
    "Working without cookies is not the same as needing no consent: that is for the site to judge.",
];

/// What is true at the moment of asking.
pub type Asked = Arc<dyn Fn() -> PrivacyFacts + Send + Sync>;

/// `GET /privacy`.
pub fn routes(facts: Asked) -> Router {
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
    // A browser names text/html; programs that name nothing get the page as well.
    let program = accept.contains("application/json") && !accept.contains("text/html");
    let mut response = if program { Json(facts).into_response() } else { page::privacy(facts).into_response() };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers::protect(&mut response, headers::Kind::default());
    response
}
