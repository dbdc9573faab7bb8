//! Read the Docs: `GET /_/api/v2/analytics/`, everything in the query.
//!
//! As observed with addons 0.49.0. The request comes through the proxy that serves the docs. It has no referrer: `Referer` is the page itself.

use super::{JSON, TrackerRequest, answer_with};
use crate::http::{Taken, answer as empty, query_pairs};
use axum::response::Response;
use http::StatusCode;
use schemas::beacon::{Arrivals, Beacon};
use schemas::proto::Source;
use schemas::rejection::NOT_COUNTED_HERE;
use schemas::{Rejection, RejectionReason};
use serde_json::json;

pub(super) fn beacon(sent: &TrackerRequest<'_>) -> Result<Beacon, Rejection> {
    let pairs = query_pairs(sent.query);
    // JavaScript writes these words for a missing value.
    let is_value = |text: &&str| !matches!(text.trim(), "" | "null" | "undefined");
    let value = |name: &str| {
        let found = pairs.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str());
        found.filter(is_value)
    };
    let Some(url) = value("absolute_uri") else {
        return Err(Rejection::field(RejectionReason::MissingField, "absolute_uri", "the page's URL"));
    };
    let mut beacon = Beacon {
        source: Source::Readthedocs,
        arrivals: Arrivals::Unknown,
        aliases: value("project").map(str::to_owned).into_iter().collect(),
        ..Beacon::default()
    };
    beacon.set_text("url", url);
    match value("status").map(str::trim) {
        None => {}
        Some(status @ ("200" | "404")) => beacon.set_text("status", status),
        Some(_) => return Err(Rejection::field(RejectionReason::InvalidField, "status", "200 or 404")),
    }
    if let Some(version) = value("version") {
        beacon.set_text("version", version);
    }
    Ok(beacon)
}

pub(super) fn answer(outcome: &Result<Taken, Rejection>) -> Response {
    match outcome {
        Ok(Taken::Accepted { .. } | Taken::NotCounted(_) | Taken::OptedOut) => empty(StatusCode::NO_CONTENT),
        Err(rejection) => {
            let error = match rejection.field {
                _ if rejection.reason.is_about_registry() => NOT_COUNTED_HERE.to_owned(),
                Some(field) => format!("{field}: expected {}", rejection.expected),
                None => rejection.expected.to_string(),
            };
            answer_with(rejection.reason.status(), JSON, json!({"error": error}).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Beacon, Rejection> {
        beacon(&TrackerRequest { query, referer: Some("https://a.example/b"), ..TrackerRequest::default() })
    }

    #[test]
    fn words_for_nothing_are_absent() {
        for (query, status, version) in [
            ("&version=stable&status=404", Some(404), Some("stable")),
            ("&version=null&status=undefined", None, None),
            ("&version=&status=", None, None),
            ("", None, None),
        ] {
            let read = read(&format!("project=docs&absolute_uri=https%3A%2F%2Fa.example%2Fb%3Fq%3D1{query}")).unwrap();
            assert_eq!((read.status, read.version.as_deref()), (status, version), "{query}");
            assert_eq!((read.url.as_deref(), read.referrer), (Some("https://a.example/b?q=1"), None));
            assert_eq!((read.source, read.arrivals), (Source::Readthedocs, Arrivals::Unknown));
        }
    }

    #[test]
    fn a_page_and_a_status_of_two_are_expected() {
        for query in ["project=docs", "absolute_uri=undefined", "absolute_uri=https%3A%2F%2Fa.example%2F&status=500"] {
            let answer = answer(&Err(read(query).unwrap_err()));
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["content-type"]),
                (400, &"application/json".parse().unwrap())
            );
        }
    }
}
