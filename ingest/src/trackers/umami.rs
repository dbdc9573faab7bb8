//! Umami: `POST /api/send`, JSON with a preflight.
//!
//! As observed with the scripts of 2.10.0 and 3.1.0. Since 2.16 `url` is absolute. Before, it is a path beside `hostname`, and in 2.10 it is
//! percent-encoded twice. The newer scripts omit the referrer of internal links.

use super::{JSON, TrackerRequest, answer_with, origin_of, web_referrer};
use crate::aliases::is_uuid;
use crate::http::Taken;
use axum::response::Response;
use http::{HeaderMap, header};
use schemas::beacon::{Arrivals, Beacon, Kind, json_object};
use schemas::proto::Source;
use schemas::{Rejection, RejectionReason};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use url::Url;

/// The same for all readers, so it identifies none. On one line, since the scripts up to 2.15 return all of it in a header.
const ACCEPTED: &str = r#"{"cache":"a.b.c","sessionId":"00000000-0000-4000-8000-000000000000","visitId":"00000000-0000-4000-8000-000000000000"}"#;

/// The answer to robots.
const ROBOT: &str = r#"{"beep":"boop"}"#;

pub(super) fn beacon(sent: &TrackerRequest<'_>) -> Result<Beacon, Rejection> {
    let object = json_object(sent.body)?;
    let invalid = |field, expected: &'static str| Rejection::field(RejectionReason::InvalidField, field, expected);
    let Some(payload) = object.get("payload").and_then(Value::as_object) else {
        return Err(invalid("payload", "an object"));
    };
    let text = |name: &str| payload.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let (website, is_website) = id(payload)?;
    let kind = match object.get("type").and_then(Value::as_str) {
        Some("event") if is_website && has_no_name(payload) => Kind::View,
        Some("event" | "identify" | "performance") => Kind::Event,
        _ => return Err(invalid("type", "event, identify or performance")),
    };
    let mut beacon = Beacon { source: Source::Umami, kind, aliases: vec![website.to_owned()], ..Beacon::default() };
    let url = text("url").map(Cow::Borrowed);
    // An event may lack a URL, and needs only the host.
    let url = if kind == Kind::View { url } else { url.or(Some(Cow::Borrowed("/"))) };
    let Some(url) = url else { return Ok(beacon) };
    let is_path = !is_absolute(&url);
    beacon.arrivals = if is_path { Arrivals::Exact } else { Arrivals::ForeignReferrer };
    if !is_path {
        beacon.set_text("url", &url);
    } else if let Some(origin) = sent.origin.and_then(origin_of).or_else(|| text("hostname").and_then(of_hostname)) {
        let url = decoded_once(&url);
        let slash = if url.starts_with('/') { "" } else { "/" };
        beacon.set_text("url", &format!("{origin}{slash}{url}"));
    }
    if let Some(referrer) = text("referrer") {
        let page = beacon.url.as_deref().and_then(|url| Url::parse(url).ok());
        match (web_referrer(referrer), page) {
            (Some(referrer), _) => beacon.set_text("referrer", referrer),
            // The page before, of the same host.
            (None, Some(page)) if referrer.starts_with('/') => {
                let here = origin_of(page.as_str()).unwrap_or_default();
                beacon.set_text("referrer", &format!("{here}/"));
            }
            _ => {}
        }
    }
    Ok(beacon)
}

/// The headers that a preflight allows. Scripts after 3.1.0 send website and host in headers, too, and request these.
pub(super) fn allowed_headers(preflight: &HeaderMap) -> &'static str {
    let asked =
        preflight.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|asked| asked.to_str().ok()).unwrap_or("");
    let names_website = asked.split(',').any(|name| {
        ["x-umami-website-id", "x-umami-hostname"].iter().any(|header| name.trim().eq_ignore_ascii_case(header))
    });
    if names_website {
        "content-type, x-umami-cache, x-umami-website-id, x-umami-hostname"
    } else {
        "content-type, x-umami-cache"
    }
}

/// Whether this is a view: an event has a name.
fn has_no_name(payload: &Map<String, Value>) -> bool {
    payload.get("name").is_none_or(|name| name.is_null() || name.as_str().is_some_and(|name| name.trim().is_empty()))
}

/// The one id that a payload has, and whether it is a website's: views are of websites only.
fn id(payload: &Map<String, Value>) -> Result<(&str, bool), Rejection> {
    let expected = || {
        let expected = "a UUID in exactly one of `website`, `link` and `pixel`";
        Rejection::field(RejectionReason::InvalidField, "website", expected)
    };
    let found = |name: &'static str| payload.get(name).filter(|value| !value.is_null()).map(|value| (name, value));
    let mut ids = ["website", "link", "pixel"].into_iter().filter_map(found);
    let (Some((name, id)), None) = (ids.next(), ids.next()) else { return Err(expected()) };
    let id = id.as_str().map(str::trim).filter(|id| is_uuid(id)).ok_or_else(expected)?;
    Ok((id, name == "website"))
}

fn is_absolute(url: &str) -> bool {
    // `//host/path` would be a host in a browser; here it is a path.
    Url::parse(url).is_ok()
}

fn of_hostname(name: &str) -> Option<String> {
    origin_of(&format!("https://{name}/"))
}

/// Reverts the second percent-encoding of 2.10 (`encodeURI`, which encodes `%` as `%25`). `%25` stays if no code follows it.
fn decoded_once(url: &str) -> Cow<'_, str> {
    let mut decoded = String::new();
    let mut copied = 0;
    for (at, found) in url.match_indices("%25") {
        let code = url.as_bytes().get(at + found.len()..at + found.len() + 2);
        if at >= copied && code.is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)) {
            decoded.push_str(&url[copied..=at]);
            copied = at + found.len();
        }
    }
    if copied == 0 {
        return Cow::Borrowed(url);
    }
    decoded.push_str(&url[copied..]);
    Cow::Owned(decoded)
}

pub(super) fn answer(outcome: &Result<Taken, Rejection>) -> Response {
    match outcome {
        Ok(Taken::Accepted { by_robot: true }) => answer_with(200, JSON, ROBOT),
        Ok(Taken::Accepted { .. } | Taken::NotCounted(_) | Taken::OptedOut) => answer_with(200, JSON, ACCEPTED),
        Err(rejection) => {
            let status = if rejection.reason.is_about_registry() { 400 } else { rejection.reason.status() };
            let message = match rejection.field {
                Some(field) if !rejection.reason.is_about_registry() => format!("{field}: {}", rejection.expected),
                _ => rejection.expected.to_string(),
            };
            let code = if status == 400 { "bad-request" } else { "refused" };
            let body = json!({"error": {"message": message, "code": code, "status": status}});
            answer_with(status, JSON, body.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBSITE: &str = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";

    fn read(origin: Option<&str>, kind: &str, payload: &Value) -> Result<Beacon, Rejection> {
        let mut payload = payload.clone();
        payload.as_object_mut().unwrap().entry("website").or_insert_with(|| json!(WEBSITE));
        let body = json!({"type": kind, "payload": payload}).to_string();
        beacon(&TrackerRequest { origin, body: body.as_bytes(), ..TrackerRequest::default() })
    }

    #[test]
    fn a_view_is_an_event_without_a_name() {
        for (kind, name, expected) in [
            ("event", json!(null), Kind::View),
            ("event", json!(""), Kind::View),
            ("event", json!("signup"), Kind::Event),
            ("identify", json!(null), Kind::Event),
            ("performance", json!(null), Kind::Event),
        ] {
            let read = read(None, kind, &json!({"url": "https://a.example/b", "name": name})).unwrap();
            assert_eq!((read.kind, read.source, read.aliases), (expected, Source::Umami, vec![WEBSITE.to_owned()]));
        }
    }

    #[test]
    fn the_host_is_of_the_url_else_of_the_origin_else_the_hostname() {
        let here = Some("https://a.example:8443");
        for (origin, url, expected, arrivals) in [
            (here, "https://b.example/x", "https://b.example/x", Arrivals::ForeignReferrer),
            (here, "/b%25C3%25BCcher/?q=1", "https://a.example:8443/b%C3%BCcher/?q=1", Arrivals::Exact),
            (here, "/b%C3%BCcher/", "https://a.example:8443/b%C3%BCcher/", Arrivals::Exact),
            (here, "/100%25/x%2525", "https://a.example:8443/100%25/x%25", Arrivals::Exact),
            (None, "/x", "https://c.example/x", Arrivals::Exact),
            (None, "//evil.example/x", "https://c.example//evil.example/x", Arrivals::Exact),
        ] {
            let read = read(origin, "event", &json!({"url": url, "hostname": "c.example"})).unwrap();
            assert_eq!((read.url.as_deref(), read.arrivals), (Some(expected), arrivals), "{url}");
        }
        assert_eq!(read(None, "event", &json!({"url": "/x"})).unwrap().url, None);
    }

    #[test]
    fn a_path_as_referrer_is_of_the_page_s_host() {
        for (referrer, expected) in [
            ("", None),
            ("/spa/one", Some("https://a.example/")),
            ("https://search.example/?q=1", Some("https://search.example/?q=1")),
            ("newsletter", None),
        ] {
            let read = read(Some("https://a.example"), "event", &json!({"url": "/x", "referrer": referrer})).unwrap();
            assert_eq!((read.referrer.as_deref(), read.dropped), (expected, vec![]), "{referrer}");
        }
    }

    #[test]
    fn a_payload_needs_one_uuid_and_a_known_type() {
        for (kind, payload) in [
            ("event", json!({"website": "docs"})),
            ("event", json!({"website": null})),
            ("event", json!({"website": 5})),
            ("event", json!({"link": WEBSITE})),
            ("pageview", json!({"url": "https://a.example/"})),
        ] {
            assert_eq!(read(None, kind, &payload).unwrap_err().reason.status(), 400, "{payload}");
        }
        let pixel = read(None, "event", &json!({"website": null, "pixel": WEBSITE, "hostname": "a.example"})).unwrap();
        assert_eq!((pixel.kind, pixel.url.as_deref()), (Kind::Event, Some("https://a.example/")));
        assert!(!ACCEPTED.contains('\n'));
    }
}
