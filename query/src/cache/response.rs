//! How a cached answer is sent: in the form that the client accepts, with `Age` (RFC 9111) and `Cache-Status` (RFC 9211).

use super::entry::{Entry, Form};
use crate::api::format::tagged;
use crate::page;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use std::sync::Arc;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// From the cache, fresh.
    Hit,
    /// From the cache, stale; `storage_fails`: ClickHouse did not answer.
    Stale { storage_fails: bool },
    /// Computed; `collapsed`: by another request.
    Miss { collapsed: bool },
}

impl State {
    /// One state for each value of `Cache-Status`.
    pub(crate) const ALL: [State; 4] = [
        State::Hit,
        State::Stale { storage_fails: false },
        State::Miss { collapsed: false },
        State::Miss { collapsed: true },
    ];

    /// The value of `Cache-Status`.
    pub(crate) const fn header(self) -> &'static str {
        match self {
            State::Hit => "headcount; hit",
            State::Stale { .. } => "headcount; hit; detail=stale",
            State::Miss { collapsed: false } => "headcount; fwd=miss",
            State::Miss { collapsed: true } => "headcount; fwd=miss; collapsed",
        }
    }
}

/// An answer to one request.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) entry: Arc<Entry>,
    pub(crate) state: State,
}

impl Answer {
    pub(super) fn of(entry: &Arc<Entry>, state: State) -> Self {
        Answer { entry: Arc::clone(entry), state }
    }

    /// The response to a request with the headers `asked`. A stale page has a notice while ClickHouse does not answer.
    pub(crate) fn response(&self, asked: &HeaderMap) -> Response {
        let (entry, age) = (&self.entry, self.entry.age().as_secs());
        let is_notice = self.state == State::Stale { storage_fails: true };
        let noticed = is_notice.then(|| page::with_stale_notice(&entry.plain.body, age)).flatten();
        let noticed = noticed.map(|body| Form::plain(body.into()));
        let gzip = entry.gzip.as_ref().filter(|_| noticed.is_none() && accepts_gzip(asked));
        let form = noticed.as_ref().or(gzip).unwrap_or(&entry.plain);
        let name = entry.file_name.as_deref();
        let mut response = tagged(entry.content_type, form.body.clone(), &form.tag, name, asked);
        let is_body = response.status() != StatusCode::NOT_MODIFIED;
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
        if gzip.is_some() && is_body {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.extend(entry.headers.iter().cloned());
        headers.insert(CACHE_STATUS, HeaderValue::from_static(self.state.header()));
        if !matches!(self.state, State::Miss { .. }) {
            headers.insert(header::AGE, age.into());
        }
        response
    }
}

/// Whether the client accepts gzip by name. `*` alone is not enough: clients rarely send it to request gzip.
fn accepts_gzip(asked: &HeaderMap) -> bool {
    let lines = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let quality = parts.next().and_then(|text| text.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        is_gzip && quality.is_ok_and(|quality| quality > 0.0)
    })
}

/// Whether the client requests an answer that is not from the cache: `Cache-Control: no-cache`, as browsers send it for a forced reload.
pub(crate) fn is_no_cache(asked: &HeaderMap) -> bool {
    let lines = asked.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
}
