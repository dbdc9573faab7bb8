//! Beacons of other counters' scripts: each is translated into a [`Beacon`] and then processed like all beacons ([`crate::http`]). A site that moves
//! here changes only the URL to which its script posts.
//!
//! There is one module for each script, with two pure functions: one from the request to a beacon, and one from the outcome to the response that the
//! script expects. In each dialect an unknown project and a foreign host get the same response.

mod goatcounter;
mod plausible;
mod readthedocs;
mod umami;

use crate::Ingest;
use crate::http::{
    Taken, answer, limited, preflight_allowing, read_body, set_retry_after, take, timed, with_credentials, wrong_method,
};
use crate::sink::Sink;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, FromRequestParts, Path, Request, State};
use axum::middleware;
use axum::response::Response;
use axum::routing::{MethodRouter, options};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use schemas::beacon::Beacon;
use schemas::paths::{OLD_BEACON, OLD_SCRIPT, PIXEL_SUFFIX};
use schemas::proto::Source;
use schemas::{Host, Rejection};
use std::net::SocketAddr;
use std::sync::Arc;
use url::Url;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const GIF: &str = "image/gif";

/// A script whose beacons are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracker {
    Plausible,
    Umami,
    GoatCounter,
    ReadTheDocs,
}

/// The parts of a script's request from which a beacon is built.
#[derive(Clone, Copy, Debug, Default)]
struct TrackerRequest<'a> {
    /// `Origin`, if it is an origin.
    origin: Option<&'a str>,
    /// `Referer`.
    referer: Option<&'a str>,
    /// Query of the request.
    query: &'a str,
    body: &'a [u8],
    /// Code of the project in the request's path.
    code: Option<&'a str>,
    /// Host of the project that the code names.
    host_of_code: Option<&'a Host>,
}

impl<'a> TrackerRequest<'a> {
    fn of(parts: &'a Parts, body: &'a [u8]) -> Self {
        let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        TrackerRequest {
            origin: header(header::ORIGIN).filter(|origin| *origin != "null"),
            referer: header(header::REFERER),
            query: parts.uri.query().unwrap_or(""),
            body,
            ..TrackerRequest::default()
        }
    }
}

impl Tracker {
    const ALL: [Tracker; 4] = [Tracker::Plausible, Tracker::Umami, Tracker::GoatCounter, Tracker::ReadTheDocs];

    /// The paths to which its script posts.
    fn paths(self) -> &'static [&'static str] {
        match self {
            Tracker::Plausible => &["/api/event"],
            Tracker::Umami => &["/api/send"],
            Tracker::GoatCounter => &["/count", "/count/{code}"],
            Tracker::ReadTheDocs => &["/_/api/v2/analytics/"],
        }
    }

    fn translate(self, sent: &TrackerRequest<'_>) -> Result<Beacon, Rejection> {
        match self {
            Tracker::Plausible => plausible::beacon(sent),
            Tracker::Umami => umami::beacon(sent),
            Tracker::GoatCounter => goatcounter::beacon(sent),
            Tracker::ReadTheDocs => readthedocs::beacon(sent),
        }
    }

    fn answer(self, outcome: &Result<Taken, Rejection>) -> Response {
        let mut response = match self {
            Tracker::Plausible => plausible::answer(outcome),
            Tracker::Umami => umami::answer(outcome),
            Tracker::GoatCounter => goatcounter::answer(outcome),
            Tracker::ReadTheDocs => readthedocs::answer(outcome),
        };
        let status = response.status();
        set_retry_after(status, response.headers_mut());
        response
    }
}

/// The routes of all scripts, except those on paths that the operator chose for headcount's script.
pub(crate) fn routes<S: Sink>(ingest: &Arc<Ingest<S>>) -> Router<Arc<Ingest<S>>> {
    let limit = middleware::from_fn_with_state(Arc::clone(ingest), limited::<S>);
    let own = &ingest.config.paths;
    let taken = [own.script(), own.beacon(), &own.pixel(), OLD_SCRIPT, OLD_BEACON].map(str::to_owned);
    let is_taken = |path: &str| taken.iter().any(|own| own == path) || path == format!("{OLD_BEACON}{PIXEL_SUFFIX}");
    let mut router = Router::new();
    for tracker in Tracker::ALL {
        let handler = async move |state: State<_>, peer: ConnectInfo<_>, request: Request| {
            receive::<S>(tracker, state, peer, request).await
        };
        let methods: MethodRouter<Arc<Ingest<S>>> = match tracker {
            Tracker::Plausible | Tracker::Umami => {
                let allowed =
                    if tracker == Tracker::Umami { umami::allowed_headers } else { |_: &HeaderMap| "content-type" };
                let preflight = async move |headers: HeaderMap| preflight_allowing(allowed(&headers));
                let others = options(preflight).fallback(post_only);
                others.layer(limit.clone()).post(handler)
            }
            Tracker::GoatCounter => {
                let others = options(async || preflight_allowing("content-type")).fallback(get_or_post_only);
                others.layer(limit.clone()).get(handler).post(handler)
            }
            Tracker::ReadTheDocs => MethodRouter::new().fallback(get_only).layer(limit.clone()).get(handler),
        };
        let methods = methods.layer(middleware::from_fn(with_credentials));
        for path in tracker.paths().iter().filter(|path| !is_taken(path)) {
            router = router.route(path, methods.clone());
        }
    }
    router
}

/// Whether a script posts to this path.
pub(crate) fn has_path(path: &str) -> bool {
    Tracker::ALL.iter().any(|tracker| tracker.paths().contains(&path))
}

async fn receive<S: Sink>(
    tracker: Tracker,
    State(ingest): State<Arc<Ingest<S>>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (mut parts, body) = request.into_parts();
    // Only GoatCounter has a path with a parameter.
    let code = Path::<String>::from_request_parts(&mut parts, &ingest).await.ok().map(|Path(code)| code);
    let host = code.as_deref().and_then(|code| ingest.projects.host_of_alias(Source::Goatcounter, code));
    let received = async || read_body(body, &ingest).await;
    let taken = take(&ingest, peer, &parts, received, |body| {
        let sent =
            TrackerRequest { code: code.as_deref(), host_of_code: host.as_ref(), ..TrackerRequest::of(&parts, &body) };
        tracker.translate(&sent)
    });
    tracker.answer(&timed(&ingest, taken).await)
}

async fn post_only() -> Response {
    wrong_method("POST, OPTIONS", "a beacon with POST")
}

async fn get_only() -> Response {
    wrong_method("GET, HEAD", "a beacon with GET")
}

async fn get_or_post_only() -> Response {
    wrong_method("GET, HEAD, POST, OPTIONS", "a beacon with POST or GET")
}

/// An answer with a body.
fn answer_with(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = answer(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    *response.body_mut() = body.into();
    response
}

fn set_header(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// The referrer if it is an http or https URL. Other text, such as a newsletter's name, is not a referrer.
fn web_referrer(text: &str) -> Option<&str> {
    let is_web = Url::parse(text.trim()).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    is_web.then_some(text)
}

/// Scheme and host of an http or https URL.
fn origin_of(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let host = Host::of(&url)?;
    Some(format!("{}://{host}", url.scheme()))
}
