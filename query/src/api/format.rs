//! The form of a response: JSON or CSV, with a validator for conditional requests.

use crate::problem::Problem;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde::Serialize;

/// The format of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Csv,
}

impl Format {
    const ALL: [Format; 2] = [Format::Json, Format::Csv];

    const fn parts(self) -> (&'static str, &'static str) {
        match self {
            Format::Json => ("application", "json"),
            Format::Csv => ("text", "csv"),
        }
    }

    /// The format with the highest quality in `Accept`; JSON if both are equal.
    pub(crate) fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        let lines: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect();
        let ranges = lines.iter().flat_map(|line| line.split(',')).map(str::trim);
        let ranges: Vec<&str> = ranges.filter(|range| !range.is_empty()).collect();
        // No header, or an empty one, means `*/*`.
        if ranges.is_empty() {
            return Ok(Format::Json);
        }
        let (mut best, mut best_quality) = (None, 0.0);
        for format in Format::ALL {
            let quality = quality_of(format, &ranges);
            if quality > best_quality {
                (best, best_quality) = (Some(format), quality);
            }
        }
        best.ok_or_else(Problem::not_acceptable)
    }
}

/// The quality that the most specific range gives a format (RFC 9110, 12.5.1).
fn quality_of(format: Format, ranges: &[&str]) -> f32 {
    let (kind, subtype) = format.parts();
    let mut found = (0, 0.0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or("").to_ascii_lowercase();
        let specific = match media.split_once('/') {
            Some(("*", "*")) => 1,
            Some((a, "*")) if a == kind => 2,
            Some((a, b)) if a == kind && b == subtype => 3,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality = quality.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0).clamp(0.0, 1.0));
        if specific > found.0 {
            found = (specific, quality);
        }
    }
    found.1
}

/// The last segment of a path without `.csv`, and the format of the response.
pub(crate) fn format_of<'a>(segment: &'a str, headers: &HeaderMap) -> Result<(&'a str, Format), Problem> {
    match segment.strip_suffix(".csv") {
        Some(stem) => Ok((stem, Format::Csv)),
        None => Ok((segment, Format::accepted(headers)?)),
    }
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const CSV: &str = "text/csv; charset=utf-8; header=present";

/// The value as JSON.
pub(crate) fn json<T: Serialize>(value: &T, asked: &HeaderMap) -> Response {
    match json_bytes(value) {
        Ok(body) => validated(JSON, body, None, asked),
        Err(problem) => problem.into_response(),
    }
}

/// The bytes of the value as JSON.
pub(crate) fn json_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "a report could not be written");
        Problem::unreadable_figures()
    })
}

/// CSV that a browser saves as `name`, streamed. It has no validator, since its content is not known when its headers are sent.
pub(crate) fn stream(body: Body, name: &str) -> Response {
    let mut response = ([(header::CONTENT_TYPE, CSV)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

/// CSV that a browser saves as `name`.
pub(crate) fn csv(text: String, name: &str, asked: &HeaderMap) -> Response {
    validated(CSV, text.into_bytes(), Some(name), asked)
}

/// The body with its validator, or 304 if the client has it already. Browsers store a validator and send it back, so it could identify a
/// visitor. It depends on the body only, is the same for all clients, and is never sent to visitors of docs.
pub(crate) fn validated(content_type: &'static str, body: Vec<u8>, name: Option<&str>, asked: &HeaderMap) -> Response {
    let tag = validator(&body);
    tagged(content_type, body.into(), &tag, name, asked)
}

/// The validator of a body.
pub(crate) fn validator(body: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(body).to_hex()[..32])
}

/// [`validated`], for a body with a known validator.
pub(crate) fn tagged(
    content_type: &'static str,
    body: Bytes,
    tag: &str,
    name: Option<&str>,
    asked: &HeaderMap,
) -> Response {
    let known = |line: &HeaderValue| {
        let of_ours = |text: &str| text == "*" || text.strip_prefix("W/").unwrap_or(text) == tag;
        line.to_str().is_ok_and(|line| line.split(',').map(str::trim).any(of_ours))
    };
    let unchanged = asked.get_all(header::IF_NONE_MATCH).iter().any(known);
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    let disposition = name.map(|name| HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")));
    if let Some(Ok(disposition)) = disposition.filter(|_| !unchanged) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

/// U+FEFF in UTF-8, by which spreadsheets recognise the encoding.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// `?bom=1` of a path that ends with `.csv`: the response starts with a byte order mark. Routes do not see the parameter.
pub(crate) async fn with_byte_order_mark(mut request: Request, next: Next) -> Response {
    let uri = request.uri();
    let is_bom = |pair: &&str| pair.split('=').next() == Some("bom");
    let pairs: Vec<&str> = uri.query().unwrap_or("").split('&').collect();
    let sent: Vec<&str> = pairs.iter().copied().filter(|pair| is_bom(pair)).collect();
    if sent.is_empty() || !uri.path().ends_with(".csv") {
        return next.run(request).await;
    }
    if sent != ["bom=1"] {
        return Problem::invalid_field("bom", "expected 1, once").into_response();
    }
    let others: Vec<&str> = pairs.into_iter().filter(|pair| !is_bom(pair)).collect();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{}?{}", uri.path(), others.join("&")).parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    // The byte order mark must precede an uncompressed body.
    request.headers_mut().remove(header::ACCEPT_ENCODING);
    let response = next.run(request).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let mark = futures_util::stream::once(async { Ok(Bytes::from_static(BYTE_ORDER_MARK)) });
    Response::from_parts(parts, Body::from_stream(mark.chain(body.into_data_stream())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_csv_has_a_byte_order_mark_if_asked() {
        let answered = async |path: &str| {
            let route = async |uri: Uri| format!("{:?}", uri.query().unwrap_or(""));
            let router = Router::new().fallback(route).layer(axum::middleware::from_fn(with_byte_order_mark));
            let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        for (path, status, expected) in [
            ("/a.csv?bom=1", 200, "\u{feff}\"\""),
            ("/a.csv?limit=1&bom=1&sort=path", 200, "\u{feff}\"limit=1&sort=path\""),
            ("/a.csv?limit=1", 200, "\"limit=1\""),
            ("/a?bom=1", 200, "\"bom=1\""),
        ] {
            assert_eq!(answered(path).await, (status, expected.to_owned()), "{path}");
        }
        for path in ["/a.csv?bom=0", "/a.csv?bom", "/a.csv?bom=1&bom=1"] {
            let (status, body) = answered(path).await;
            assert!(status == 400 && body.contains("expected 1, once"), "{path}: {status} {body}");
        }
    }

    #[test]
    fn the_format_is_what_is_accepted_most() {
        for (accept, format) in [
            (None, Some(Format::Json)),
            (Some("*/*"), Some(Format::Json)),
            (Some("text/csv"), Some(Format::Csv)),
            (Some("TEXT/CSV;charset=utf-8"), Some(Format::Csv)),
            (Some("text/*, application/json;q=0.5"), Some(Format::Csv)),
            (Some("text/csv;q=0.5, application/json"), Some(Format::Json)),
            (Some("text/csv, */*;q=0.1"), Some(Format::Csv)),
            (Some("application/json;q=0, */*"), Some(Format::Csv)),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Some(Format::Json)),
            (Some("text/html"), None),
            (Some("application/json;q=0"), None),
            (Some(""), Some(Format::Json)),
            (Some(" , "), Some(Format::Json)),
        ] {
            let headers = accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))).into_iter().collect();
            assert_eq!(Format::accepted(&headers).ok(), format, "{accept:?}");
        }
    }

    #[test]
    fn a_client_with_the_current_version_gets_304() {
        let asked = |tag: Option<&str>| {
            let tag = tag.map(|tag| (header::IF_NONE_MATCH, HeaderValue::from_str(tag).unwrap()));
            json(&1, &tag.into_iter().collect())
        };
        let tag = asked(None).headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(asked(None).status(), 200);
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let response = asked(Some(&known));
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
            assert_eq!(response.headers()[header::ETAG], tag);
        }
        assert_eq!(asked(Some("\"x\"")).status(), 200);
    }
}
