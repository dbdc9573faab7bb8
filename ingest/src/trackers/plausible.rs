//! Plausible: `POST /api/event`, JSON as `text/plain` or `application/json`.
//!
//! Seen from npm `@plausible-analytics/tracker` 0.4.6, `plausible-tracker` 0.3.9 and the `script.js` of 2024. Each page sends a
//! `pageview`, `engagement` events and events with other names. Every view of a visit repeats the first referrer.

use super::{TEXT, TrackerRequest, answer_with, web_referrer};
use crate::http::Taken;
use axum::response::Response;
use schemas::beacon::{Arrivals, Beacon, Kind, json_object};
use schemas::proto::Source;
use schemas::{Rejection, RejectionReason};
use serde_json::{Map, Value, json};
use url::Url;

/// Name of the event of a page's view.
const VIEW: &str = "pageview";

/// Name of the event by which a page reports that it is missing.
const MISSING: &str = "404";

pub(super) fn beacon(sent: &TrackerRequest<'_>) -> Result<Beacon, Rejection> {
    let object = json_object(sent.body)?;
    let name = either(&object, "n", "name").and_then(Value::as_str).filter(|name| !name.trim().is_empty());
    let name = name.ok_or_else(|| Rejection::field(RejectionReason::MissingField, "event_name", "can't be blank"))?;
    let mut beacon = Beacon {
        source: Source::Plausible,
        kind: match name {
            VIEW => Kind::View,
            MISSING => Kind::ReportedMissing,
            _ => Kind::Event,
        },
        arrivals: Arrivals::ForeignReferrer,
        aliases: either(&object, "d", "domain").and_then(Value::as_str).map(domains).unwrap_or_default(),
        ..Beacon::default()
    };
    if let Some(url) = either(&object, "u", "url") {
        match url.as_str().filter(|_| is_hash_mode(&object)).and_then(with_fragment) {
            Some(joined) => beacon.set_text("url", &joined),
            None => beacon.set_json("url", url),
        }
    }
    if let Some(referrer) = either(&object, "r", "referrer").and_then(Value::as_str).and_then(web_referrer) {
        beacon.set_text("referrer", referrer);
    }
    Ok(beacon)
}

fn either<'a>(object: &'a Map<String, Value>, short: &str, long: &str) -> Option<&'a Value> {
    object.get(short).or_else(|| object.get(long))
}

/// Several domains are separated by commas.
fn domains(text: &str) -> Vec<String> {
    text.split(',').map(|domain| domain.trim().to_owned()).filter(|domain| !domain.is_empty()).collect()
}

fn is_hash_mode(object: &Map<String, Value>) -> bool {
    either(object, "h", "hashMode").is_some_and(|value| match value {
        Value::Bool(is_set) => *is_set,
        Value::Number(number) => number.as_f64() == Some(1.0),
        Value::String(text) => matches!(text.as_str(), "1" | "true"),
        _ => false,
    })
}

/// The URL with the fragment appended to its path, as headcount's script names such a page: `/docs/#/guide` is `/docs/guide`.
fn with_fragment(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok()?;
    let fragment = url.fragment()?.trim_start_matches('!').trim_start_matches('/');
    let route = fragment.split(['?', '#']).next().filter(|route| !route.is_empty())?;
    let folder = &url[..url::Position::AfterPath];
    let folder = folder.rsplit_once('/').map_or(folder, |(folder, _)| folder);
    Some(format!("{folder}/{route}"))
}

pub(super) fn answer(outcome: &Result<Taken, Rejection>) -> Response {
    let (status, is_dropped) = match outcome {
        Ok(Taken::Accepted { by_robot }) => (202, *by_robot),
        Ok(Taken::NotCounted(reason)) => (202, *reason != RejectionReason::NotAView),
        Ok(Taken::OptedOut) => (202, true),
        Err(rejection) if rejection.reason.is_about_registry() => (202, true),
        Err(rejection) => {
            let mut errors = Map::new();
            errors.insert(rejection.field.unwrap_or("request").to_owned(), json!([rejection.expected]));
            let body = json!({"errors": errors}).to_string();
            return answer_with(rejection.reason.status(), super::JSON, body);
        }
    };
    let mut response = answer_with(status, TEXT, "ok");
    if is_dropped {
        super::set_header(response.headers_mut(), "x-plausible-dropped", "1");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> Beacon {
        beacon(&TrackerRequest { body: body.to_string().as_bytes(), ..TrackerRequest::default() }).unwrap()
    }

    #[test]
    fn only_a_pageview_is_a_view() {
        for (name, kind) in [
            ("pageview", Kind::View),
            ("404", Kind::ReportedMissing),
            ("engagement", Kind::Event),
            ("Outbound Link: Click", Kind::Event),
            ("File Download", Kind::Event),
            ("Form: Submission", Kind::Event),
            ("signup", Kind::Event),
            ("Pageview", Kind::Event),
        ] {
            for body in [
                json!({"n": name, "u": "https://a.example/b", "d": "a.example"}),
                json!({"name": name, "url": "https://a.example/b", "domain": "a.example"}),
            ] {
                let read = read(&body);
                assert_eq!(
                    (read.kind, read.source, read.url.as_deref()),
                    (kind, Source::Plausible, Some("https://a.example/b"))
                );
                assert_eq!((read.aliases, read.arrivals), (vec!["a.example".to_owned()], Arrivals::ForeignReferrer));
            }
        }
    }

    #[test]
    fn the_fragment_is_part_of_the_path_in_hash_mode_only() {
        for (mode, url, expected) in [
            (json!(1), "https://a.example/#/guide", "https://a.example/guide"),
            (json!(1), "https://a.example/docs/#!/guide/x?id=1", "https://a.example/docs/guide/x"),
            (json!(true), "https://a.example/docs/index.html?q=1#/guide", "https://a.example/docs/guide"),
            (json!(1), "https://a.example/docs/", "https://a.example/docs/"),
            (json!(1), "https://a.example/docs/#/", "https://a.example/docs/#/"),
            (json!(0), "https://a.example/#/guide", "https://a.example/#/guide"),
            (json!(null), "https://a.example/#/guide", "https://a.example/#/guide"),
        ] {
            let read = read(&json!({"n": "pageview", "u": url, "h": mode}));
            assert_eq!(read.url.as_deref(), Some(expected), "{mode} {url}");
        }
    }

    #[test]
    fn what_is_no_url_is_no_referrer_and_what_is_not_needed_is_not_read() {
        for (referrer, expected) in [
            (json!("https://search.example/"), Some("https://search.example/")),
            (json!("newsletter"), None),
            (json!("android-app://com.example"), None),
            (json!(null), None),
            (json!(5), None),
        ] {
            let props = json!({"ip": "192.0.2.1"});
            let read =
                read(&json!({"n": "pageview", "u": "https://a.example/", "r": referrer, "p": props, "w": {}, "v": []}));
            assert_eq!((read.referrer.as_deref(), read.dropped), (expected, vec![]));
        }
    }

    #[test]
    fn a_body_without_a_name_is_refused_by_field() {
        for (body, field) in
            [("{", None), ("[]", None), ("{}", Some("event_name")), (r#"{"n":""}"#, Some("event_name"))]
        {
            let refused = beacon(&TrackerRequest { body: body.as_bytes(), ..TrackerRequest::default() }).unwrap_err();
            assert_eq!((refused.field, refused.reason.status()), (field, 400), "{body}");
        }
        assert_eq!(read(&json!({"n": "pageview", "d": "a, b ,"})).aliases, ["a", "b"]);
    }
}
