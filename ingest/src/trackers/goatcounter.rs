//! GoatCounter: `POST` and `GET /count`, everything in the query.
//!
//! Seen from `count.js` 2.7.0. It names no host: `Origin` does, else `Referer`, else the project whose code is in the path
//! (`/count/CODE`). Every view of a visit repeats the first referrer.

use super::{GIF, TrackerRequest, answer_with, origin_of, web_referrer};
use crate::http::{Taken, query_pairs};
use axum::response::Response;
use schemas::beacon::{Arrivals, Beacon, Kind};
use schemas::proto::Source;
use schemas::rejection::NOT_COUNTED_HERE;
use schemas::{Rejection, RejectionReason};

/// A transparent GIF of one pixel, as the original answers (GIF89a, 43 bytes).
const PIXEL: &[u8; 43] = b"GIF89a\x01\x00\x01\x00\x80\x01\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x0a\x00\x01\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02L\x01\x00;";

/// Longest `p` in bytes.
const PATH_BYTES_MAX: usize = 2048;

/// From this value on `b` means that a program drives the browser; smaller values come from servers that classify agents.
const AUTOMATED_MIN: u32 = 150;

pub(super) fn beacon(sent: &TrackerRequest<'_>) -> Result<Beacon, Rejection> {
    let pairs = query_pairs(sent.query);
    let value = |name: &str| pairs.iter().find(|(sent, _)| sent == name).map_or("", |(_, value)| value.as_str());
    let invalid = |field, expected: &'static str| Rejection::field(RejectionReason::InvalidField, field, expected);
    let path = value("p");
    if path.trim().is_empty() {
        return Err(Rejection::field(RejectionReason::MissingField, "p", "a path"));
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(Rejection::field(RejectionReason::FieldTooLong, "p", "a path of at most 2048 bytes"));
    }
    let is_event = match value("e").to_ascii_lowercase().as_str() {
        "" | "false" | "0" | "off" | "f" | "no" => false,
        "true" | "1" | "on" | "t" | "yes" => true,
        _ => return Err(invalid("e", "true or false")),
    };
    let automated = match value("b").parse::<u32>() {
        Ok(0) => false,
        Ok(AUTOMATED_MIN..) => true,
        Err(_) if value("b").is_empty() => false,
        Ok(_) | Err(_) => return Err(invalid("b", "0, or 150 and more")),
    };
    let mut beacon = Beacon {
        source: Source::Goatcounter,
        kind: if is_event { Kind::Event } else { Kind::View },
        arrivals: Arrivals::ForeignReferrer,
        automated,
        aliases: sent.code.map(str::to_owned).into_iter().collect(),
        ..Beacon::default()
    };
    let of_code = || sent.host_of_code.map(|host| format!("https://{host}"));
    let Some(origin) = sent.origin.and_then(origin_of).or_else(|| sent.referer.and_then(origin_of)).or_else(of_code)
    else {
        return Err(Rejection::field(RejectionReason::UnknownProject, "p", NOT_COUNTED_HERE));
    };
    // An event's name is no path.
    let path = if is_event { "/" } else { path };
    let slash = if path.starts_with('/') { "" } else { "/" };
    beacon.set_text("url", &format!("{origin}{slash}{path}"));
    if let Some(referrer) = web_referrer(value("r")) {
        beacon.set_text("referrer", referrer);
    }
    Ok(beacon)
}

pub(super) fn answer(outcome: &Result<Taken, Rejection>) -> Response {
    let (status, reason) = match outcome {
        Ok(Taken::NotCounted(RejectionReason::IgnoredNetwork)) => (202, Some("the IP address is ignored".to_owned())),
        Ok(Taken::Accepted { .. } | Taken::NotCounted(_) | Taken::OptedOut) => (200, None),
        Err(rejection) => match (rejection.reason, rejection.field) {
            (reason, _) if reason.is_about_registry() => (400, Some(NOT_COUNTED_HERE.to_owned())),
            (RejectionReason::FieldTooLong, _) => (414, Some(format!("p: expected {}", rejection.expected))),
            (reason, Some(field)) => (reason.status(), Some(format!("{field}: expected {}", rejection.expected))),
            (reason, None) => (reason.status(), Some(rejection.expected.to_string())),
        },
    };
    let mut response = answer_with(status, GIF, &PIXEL[..]);
    if let Some(reason) = reason {
        super::set_header(response.headers_mut(), "x-goatcounter", &reason);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::Host;

    fn read(query: &str) -> Result<Beacon, Rejection> {
        beacon(&TrackerRequest { query, origin: Some("http://a.example:8000"), ..TrackerRequest::default() })
    }

    #[test]
    fn a_path_is_a_view_and_an_event_is_none() {
        for (query, kind, url) in [
            ("p=%2Fb%25C3%25BCcher%2F%3Fq%3D1&q=%3Fq%3D1&t=T&s=1280&b=0&rnd=x", Kind::View, "/b%C3%BCcher/?q=1"),
            ("p=guide&e=false", Kind::View, "/guide"),
            ("p=%2F%2Fevil.example%2F", Kind::View, "//evil.example/"),
            ("p=signup&e=true", Kind::Event, "/"),
            ("p=signup&e=1", Kind::Event, "/"),
            ("p=signup&e=on", Kind::Event, "/"),
        ] {
            let read = read(query).unwrap();
            assert_eq!((read.kind, read.url), (kind, Some(format!("http://a.example:8000{url}"))), "{query}");
            assert_eq!(
                (read.source, read.arrivals, read.automated),
                (Source::Goatcounter, Arrivals::ForeignReferrer, false)
            );
        }
    }

    #[test]
    fn the_host_is_of_the_origin_else_of_the_referer_else_of_the_code() {
        let host: Host = "c.example".parse().unwrap();
        let all = TrackerRequest {
            query: "p=/x",
            origin: Some("https://a.example"),
            referer: Some("https://b.example/y"),
            code: Some("docs"),
            host_of_code: Some(&host),
            ..TrackerRequest::default()
        };
        let url = |sent: TrackerRequest<'_>| beacon(&sent).map(|beacon| beacon.url.unwrap());
        assert_eq!(url(all).unwrap(), "https://a.example/x");
        assert_eq!(url(TrackerRequest { origin: None, ..all }).unwrap(), "https://b.example/x");
        assert_eq!(url(TrackerRequest { origin: None, referer: None, ..all }).unwrap(), "https://c.example/x");
        let nowhere = url(TrackerRequest { origin: None, referer: None, host_of_code: None, ..all }).unwrap_err();
        assert_eq!(nowhere.reason, RejectionReason::UnknownProject);
    }

    #[test]
    fn bad_values_are_refused_with_the_pixel() {
        let long = format!("p=/{}", "x".repeat(2048));
        for (query, status, reason) in [
            ("", 400, "p: expected a path"),
            ("p=/x&b=7", 400, "b: expected 0, or 150 and more"),
            ("p=/x&b=x", 400, "b: expected 0, or 150 and more"),
            ("p=/x&e=maybe", 400, "e: expected true or false"),
            (&long, 414, "p: expected a path of at most 2048 bytes"),
        ] {
            let answer = answer(&Err(read(query).unwrap_err()));
            assert_eq!(
                (answer.status().as_u16(), answer.headers()["x-goatcounter"].to_str().unwrap()),
                (status, reason)
            );
            assert_eq!(answer.headers()["content-type"], "image/gif");
        }
        assert!((150..=153).all(|b| read(&format!("p=/x&b={b}")).unwrap().automated));
    }

    #[test]
    fn what_is_no_url_is_no_referrer() {
        assert_eq!(read("p=/x&r=https%3A%2F%2Fs.example%2F").unwrap().referrer.as_deref(), Some("https://s.example/"));
        let junk = read("p=/x&r=newsletter").unwrap();
        assert_eq!((junk.referrer, junk.dropped), (None, vec![]));
    }
}
