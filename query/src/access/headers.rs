//! Security and caching headers of every response of this crate.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// Everything from this origin, nothing inline, nothing framed.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const PERMISSIONS: &str = "camera=(), geolocation=(), microphone=(), payment=(), usb=()";

/// One year; sent only if a trusted proxy reports that the request came over TLS.
const ONLY_TLS: &str = "max-age=31536000";

/// What determines the headers of a response.
#[derive(Clone, Copy, Default)]
pub(crate) struct HeaderKind {
    /// Only for this caller: shared caches must not store it.
    pub(crate) private: bool,
    /// Other sites may embed it: a badge.
    pub(crate) elsewhere: bool,
    /// The client is known to have come over TLS.
    pub(crate) https: bool,
}

/// Adds the headers.
pub(crate) fn protect(response: &mut Response, kind: HeaderKind) {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(HeaderName::from_static("permissions-policy"), PERMISSIONS);
    set(
        HeaderName::from_static("cross-origin-resource-policy"),
        if kind.elsewhere { "cross-origin" } else { "same-origin" },
    );
    if kind.https {
        set(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
    // The form at /sign-in sets its own policy.
    headers.entry(header::REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    let said = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kept_private = said.contains("private") || said.contains("no-store");
    if (kind.private && !kept_private) || said.is_empty() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}
