//! Checks of every request's head, whatever its route, in addition to hyper's.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, StatusCode, Version, header};

/// Bytes of a request's head; a longer one is answered 431 by hyper. Reads are buffered up to as much.
pub(super) const MAX_HEAD_BYTES: usize = 32 << 10;
/// Maximum bytes of a request's URL. The longest valid one is a pixel's with `url` and `referrer` of 2,048 bytes each, all of them percent-encoded.
const MAX_URL_BYTES: usize = 16 << 10;

/// The response to a request that no route may receive, or none if its head is valid.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<Response<Body>> {
    if request.uri().path_and_query().is_some_and(|path| path.as_str().len() > MAX_URL_BYTES) {
        return Some(answer(StatusCode::URI_TOO_LONG, "expected a URL of at most 16,384 bytes\n"));
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let good = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host),
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    };
    let expected = "expected exactly one valid Host header (RFC 9112, section 3.2)\n";
    (!good).then(|| answer(StatusCode::BAD_REQUEST, expected))
}

/// Whether all characters may be in a host and its port (RFC 3986, section 3.2). It may be empty.
fn is_host(host: &HeaderValue) -> bool {
    host.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}

fn answer(status: StatusCode, expected: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from_static(expected.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A client whose heads are ambiguous gets no second request on this connection.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(version: Version, url: &str, hosts: &[&str]) -> Option<u16> {
        let mut request = Request::builder().version(version).uri(url);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        refusal(&request.body(()).unwrap()).map(|answer| answer.status().as_u16())
    }

    #[test]
    fn a_request_has_one_host_and_a_url_of_bounded_length() {
        let long = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        for (version, url, hosts, expected) in [
            (Version::HTTP_11, "/", &["docs.example"][..], None),
            (Version::HTTP_11, "/", &["[2001:db8::1]:8017"], None),
            (Version::HTTP_11, "/", &[""], None),
            (Version::HTTP_11, "/", &[], Some(400)),
            (Version::HTTP_11, "http://docs.example/", &[], Some(400)),
            (Version::HTTP_11, "/", &["docs.example", "docs.example"], Some(400)),
            (Version::HTTP_11, "/", &["docs.example, other.example"], Some(400)),
            (Version::HTTP_11, "/", &["docs.example/path"], Some(400)),
            (Version::HTTP_11, "/", &["user@docs.example"], Some(400)),
            (Version::HTTP_10, "/", &[], None),
            (Version::HTTP_10, "/", &["docs.example", "docs.example"], Some(400)),
            (Version::HTTP_11, &long(MAX_URL_BYTES), &["docs.example"], None),
            (Version::HTTP_11, &long(MAX_URL_BYTES + 1), &["docs.example"], Some(414)),
        ] {
            assert_eq!(status(version, url, hosts), expected, "{version:?} {hosts:?} {} bytes", url.len());
        }
    }
}
