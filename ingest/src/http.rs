//! Beacon routes. Each step of the way in is one line of `take`; each way out is a named status.

use crate::accept::{AcceptedPage, Refused, accept, concerned};
use crate::agents::switch::{Rule, is_on};
use crate::agents::{AUTOMATED_BROWSER, Classes, RULES_VERSION};
use crate::client::{ClientAddress, UserAgent};
use crate::country::country_code;
use crate::keys::PeriodKey;
use crate::per_network::Kind as Limited;
use crate::sink::{Sink, SinkError};
use crate::visitor::{coordinates, stored_id};
use crate::{Ingest, IngestConfig, ids, script, trackers};
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request, State};
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, options};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited as LimitedBody};
use schemas::beacon::{Beacon, Kind};
use schemas::classes::BotClass;
use schemas::paths::{EndpointPaths, OLD_BEACON, OLD_SCRIPT, PIXEL_SUFFIX};
use schemas::proto::Cause;
use schemas::rejection::NOT_COUNTED_HERE;
use schemas::{Hour, Rejection, RejectionReason, proto, record};
use serde_json::json;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transparent GIF of one pixel (GIF89a, 42 bytes).
const PIXEL: &[u8] = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;";

/// A browser takes every answer for what it says it is.
const NOSNIFF: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// What became of a beacon that was not refused.
pub(crate) enum Taken {
    /// The log has it.
    Accepted {
        /// Whether the reader is a robot: the view is counted apart from those of people.
        by_robot: bool,
    },
    /// It is no view that counts: tallied, and answered like an accepted one.
    NotCounted(RejectionReason),
    /// The reader wants not to be counted; nothing was read or written.
    OptedOut,
}

/// The routes of the endpoint.
pub fn routes<S: Sink>(ingest: Arc<Ingest<S>>) -> Router {
    // A beacon takes its place in the client's bucket in `take`; health checks take none; all else does so here.
    let limit = middleware::from_fn_with_state(Arc::clone(&ingest), limited::<S>);
    let no_beacon = options(preflight).fallback(post_only::<S>).layer(limit.clone());
    let no_pixel = MethodRouter::new().fallback(get_only::<S>).layer(limit.clone());
    let (beacons, pixels) =
        (no_beacon.post(pageview::<S>).layer(middleware::from_fn(with_credentials)), no_pixel.get(pixel::<S>));
    let script = |text: Bytes| get(async move || script_answer(text)).layer(limit.clone());
    let paths = &ingest.config.paths;
    let mut router = Router::new()
        .route(paths.beacon(), beacons.clone())
        .route(&paths.pixel(), pixels.clone())
        .route(paths.script(), script(script::for_paths(paths)));
    // Pages and proxies that name the old paths are served as before. The old script posts to the old path: a proxy may let
    // no other through.
    if paths.beacon() != OLD_BEACON {
        router = router.route(OLD_BEACON, beacons).route(&format!("{OLD_BEACON}{PIXEL_SUFFIX}"), pixels);
    }
    if paths.script() != OLD_SCRIPT {
        router = router.route(OLD_SCRIPT, script(Bytes::from_static(script::BEACON_JS.as_bytes())));
    }
    let mut more = paths_of_more_scripts(&ingest.config);
    more.sort_unstable_by(|left, right| left.script().cmp(right.script()));
    more.dedup_by(|left, right| left.script() == right.script());
    for paths in more {
        router = router.route(paths.script(), script(script::for_paths(paths)));
    }
    let router = router.merge(trackers::routes(&ingest));
    router.fallback(nothing_here::<S>.layer(limit)).with_state(ingest)
}

/// Further paths of the script that are no route yet.
fn paths_of_more_scripts(config: &IngestConfig) -> Vec<&EndpointPaths> {
    let is_route = |path: &str| path == config.paths.script() || path == OLD_SCRIPT || trackers::has_path(path);
    config.more_script_paths.iter().filter(|paths| !is_route(paths.script())).collect()
}

/// `router` behind the limit of each client: for further routes of the same listener.
pub fn rate_limited<S: Sink>(router: Router, ingest: &Arc<Ingest<S>>) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::clone(ingest), limited::<S>))
}

/// Requests that are no beacons are refused like beacons, but are not counted as refused ones.
pub(crate) async fn limited<S: Sink>(State(ingest): State<Arc<Ingest<S>>>, request: Request, next: Next) -> Response {
    if !has_room(&ingest, &request) {
        return refusal(&Rejection::new(RejectionReason::ClientRateLimited, "fewer requests from one client"));
    }
    next.run(request).await
}

/// Takes one from the bucket of the request's client.
fn has_room<S: Sink>(ingest: &Ingest<S>, request: &Request) -> bool {
    // Only requests of our own tests come without a connection.
    let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() else { return true };
    let address = ingest.config.trusted_proxies.client(peer.ip(), request.headers());
    let now_ms = (ingest.clock)().timestamp_millis();
    address.with_network_bytes(|bytes| ingest.client_buckets.take(bytes, now_ms).is_ok())
}

async fn pageview<S: Sink>(
    State(ingest): State<Arc<Ingest<S>>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let received = async || read_body(body, &ingest).await;
    let outcome = timed(&ingest, take(&ingest, peer, &parts, received, |body| Beacon::from_json(&body))).await;
    match outcome {
        Ok(Taken::Accepted { .. } | Taken::NotCounted(_)) => answer(StatusCode::ACCEPTED),
        Ok(Taken::OptedOut) => answer(StatusCode::NO_CONTENT),
        Err(rejection) => refusal(&rejection),
    }
}

async fn pixel<S: Sink>(
    State(ingest): State<Arc<Ingest<S>>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let taken = take(
        &ingest,
        peer,
        &parts,
        async || Ok(Bytes::new()),
        |_| {
            let pairs = query_pairs(parts.uri.query().unwrap_or(""));
            let mut beacon = Beacon::from_query(pairs.iter().map(|(name, value)| (&**name, &**value)));
            if beacon.url.is_none() && beacon.refusal.is_none() {
                // A page without scripts cannot name itself; the browser does, in the header.
                beacon.url = parts.headers.get(header::REFERER).and_then(|v| v.to_str().ok()).map(str::to_owned);
            }
            Ok(beacon)
        },
    );
    match timed(&ingest, taken).await {
        Ok(Taken::Accepted { .. } | Taken::NotCounted(_)) => pixel_image(),
        Ok(Taken::OptedOut) => answer(StatusCode::NO_CONTENT),
        // A browser that sends no `Referer` cannot do better, and a reader must not see a broken image.
        Err(rejection) if (rejection.reason, rejection.field) == (RejectionReason::MissingField, Some("url")) => {
            pixel_image()
        }
        Err(rejection) => refusal(&rejection),
    }
}

fn pixel_image() -> Response {
    let mut response = answer(StatusCode::OK);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    *response.body_mut() = Body::from(PIXEL);
    response
}

/// Counts what becomes of a beacon, and measures how long it takes.
pub(crate) async fn timed<S: Sink>(
    ingest: &Ingest<S>,
    taken: impl Future<Output = Result<Taken, Rejection>>,
) -> Result<Taken, Rejection> {
    let started = Instant::now();
    let outcome = taken.await;
    ingest.metrics.note(&outcome, started.elapsed());
    outcome
}

/// The way of one beacon, from the open request to the durable record.
pub(crate) async fn take<S: Sink>(
    ingest: &Ingest<S>,
    peer: SocketAddr,
    request: &Parts,
    receive: impl AsyncFnOnce() -> Result<Bytes, Rejection>,
    parse: impl FnOnce(Bytes) -> Result<Beacon, Rejection>,
) -> Result<Taken, Rejection> {
    let headers = &request.headers;
    if opted_out(headers) {
        return Ok(Taken::OptedOut);
    }
    let now = (ingest.clock)();
    ingest.note_forwarded(peer.ip(), headers);
    let address = ingest.config.trusted_proxies.client(peer.ip(), headers);
    let outcome = async {
        if address.with_network_bytes(|bytes| ingest.client_buckets.take(bytes, now.timestamp_millis())).is_err() {
            let rejection = Rejection::new(RejectionReason::ClientRateLimited, "fewer beacons from one client");
            return Err(rejection.into());
        }
        // Bounded by the connections and `body_bytes`. A body that never comes holds no permit of others.
        let body = receive().await?;
        let _permit = ingest.in_flight.try_acquire().map_err(|_| {
            Rejection::new(RejectionReason::Overloaded, "less load; send the same beacon again a little later")
        })?;
        let beacon = parse(body)?;
        let key = ingest.keys.at(now).map_err(|error| {
            tracing::error!(%error, "no visitor key; beacons are answered 503");
            let expected = "a working visitor key; try again later";
            let rejection = Rejection::new(RejectionReason::LogUnavailable, expected);
            Refused { project: concerned(&beacon, &ingest.projects), ..rejection.into() }
        })?;
        let hour = key.hour_of(now);
        let network = address.network_hashed(&ingest.client_secret);
        let mut page = accept(beacon, &ingest.projects, hour, network)?;
        let dropped = std::mem::take(&mut page.dropped);
        let project = page.project.clone();
        if let Some(reason) = no_view(ingest, request, &page, &address) {
            ingest.tally.add(Some(project), reason, String::new(), 1);
            return Ok(Taken::NotCounted(reason));
        }
        let told = |rejection: Rejection| Refused { project: Some(project.clone()), ..rejection.into() };
        if ingest.project_buckets.take(project.as_str(), now.timestamp_millis()).is_err() {
            return Err(told(Rejection::new(RejectionReason::ProjectRateLimited, "fewer beacons for one project")));
        }
        if page.kind == Kind::ReportedMissing {
            let network = address.network_hashed(&ingest.client_secret);
            note_missing(ingest, headers, page, (network, hour));
            return Ok(Taken::NotCounted(RejectionReason::NotAView));
        }
        let is_automated = page.is_automated && is_on(Rule::Webdriver) || names_headless_browser(headers);
        let country = country(ingest, peer, headers, &address);
        let reader = Reader { address, agent: UserAgent::of(headers), is_automated, country };
        let (view, over) = view_of(ingest, &key, hour, page, reader);
        let by_robot = view.bot_class() != BotClass::Person;
        let record = record::encode_page_view(view, ingest.config.record_format);
        let log_key = log_key(project.as_str());
        ingest.sink.append(log_key, record).await.map_err(|error| told(unavailable(&error)))?;
        for fact in dropped {
            ingest.tally.add_dropped(&project, fact, Cause::Unusable);
        }
        for kind in over {
            ingest.tally.add_dropped(&project, kind.fact(), Cause::Limit);
        }
        Ok(Taken::Accepted { by_robot })
    }
    .await;
    outcome.map_err(|refused: Refused| {
        ingest.tally.add(refused.project, refused.rejection.reason, refused.host, 1);
        refused.rejection
    })
}

/// Tallies a page that a script reports as missing. Robots report no page: what they find missing is not what readers miss.
fn note_missing<S: Sink>(
    ingest: &Ingest<S>,
    headers: &HeaderMap,
    mut page: AcceptedPage,
    (network, hour): (u64, Hour),
) {
    let is_robot = ingest.classifier.classify(UserAgent::of(headers)).bot_class != BotClass::Person
        || page.is_automated
        || names_headless_browser(headers);
    if is_robot {
        ingest.tally.add(Some(page.project), RejectionReason::NotAView, String::new(), 1);
        return;
    }
    drop(ingest.per_network.limit(network, hour.0 / 24, &mut page, None));
    ingest.tally.add_missing(&page.project, &page.path);
}

/// Why an acceptable beacon is not counted, if it is not.
fn no_view<S: Sink>(
    ingest: &Ingest<S>,
    request: &Parts,
    page: &AcceptedPage,
    address: &ClientAddress,
) -> Option<RejectionReason> {
    if request.method == Method::HEAD || page.kind == Kind::Event {
        return Some(RejectionReason::NotAView);
    }
    if is_on(Rule::Prefetch) && is_prefetch(&request.headers) {
        return Some(RejectionReason::Prefetch);
    }
    let is_ignored = ingest.config.ignore_networks.contains(address) || ingest.projects.ignores(&page.project, address);
    is_ignored.then_some(RejectionReason::IgnoredNetwork)
}

/// Whether a browser fetches the page before anybody opens it: `Sec-Purpose` (Fetch), `Purpose` (Chromium, Safari), `X-Moz` (Firefox) or
/// `X-Purpose` (Safari). `Sec-Purpose: prefetch;prerender` has parameters.
fn is_prefetch(headers: &HeaderMap) -> bool {
    let values = ["sec-purpose", "purpose", "x-moz", "x-purpose"].into_iter().flat_map(|name| headers.get_all(name));
    values.into_iter().any(|value| is_prefetch_purpose(value.as_bytes()))
}

/// Whether one of those headers has this value for a prefetch.
pub(crate) fn is_prefetch_purpose(value: &[u8]) -> bool {
    const PURPOSES: [&[u8]; 3] = [b"prefetch", b"prerender", b"preview"];
    let mut words = value.split(|byte| matches!(byte, b';' | b','));
    words.any(|word| PURPOSES.iter().any(|purpose| word.trim_ascii().eq_ignore_ascii_case(purpose)))
}

/// Whether the client hints of Chromium (`Sec-CH-UA`) name the headless one, whose user agent may be another.
fn names_headless_browser(headers: &HeaderMap) -> bool {
    let brands = headers.get("sec-ch-ua").filter(|_| is_on(Rule::HeadlessBrand));
    brands.is_some_and(|brands| is_headless_brand(brands.as_bytes()))
}

/// Whether the brands of `Sec-CH-UA` name the headless Chromium.
pub(crate) fn is_headless_brand(brands: &[u8]) -> bool {
    const HEADLESS: &[u8] = b"HeadlessChrome";
    brands.windows(HEADLESS.len()).any(|window| window == HEADLESS)
}

/// Who sent the beacon, for the length of the request.
struct Reader<'a> {
    address: ClientAddress,
    agent: UserAgent<'a>,
    /// Whether the browser says that a program drives it.
    is_automated: bool,
    country: String,
}

/// The page view as it is logged, and the kinds of facts that are left out since the reader's network has sent too many.
fn view_of<S: Sink>(
    ingest: &Ingest<S>,
    key: &PeriodKey,
    hour: Hour,
    mut page: AcceptedPage,
    reader: Reader<'_>,
) -> (proto::PageView, Vec<Limited>) {
    let Reader { address, agent, is_automated, country } = reader;
    if ingest.config.panic_on_path.as_deref() == Some(page.path.as_str()) {
        // What the standard library says of such a slice is the string itself.
        std::hint::black_box(&agent.text()[agent.text().len() + 1..]);
    }
    let mut classes = ingest.classifier.classify(agent);
    if is_automated && classes.bot_class == BotClass::Person {
        classes = Classes::robot(AUTOMATED_BROWSER);
    }
    let person = classes.bot_class == BotClass::Person;
    let network = address.network_hashed(&ingest.client_secret);
    let over = ingest.per_network.limit(network, hour.0 / 24, &mut page, person.then_some((&address, agent)));
    let agent = (!over.contains(&Limited::Reader)).then_some(agent);
    let project = page.project.as_str();
    let visitor = person.then(|| coordinates(key, project, &page.path, &address, agent));
    let view = proto::PageView {
        project: project.to_owned(),
        hour: hour.0,
        status: u32::from(page.status),
        country,
        device: classes.device as i32,
        browser: classes.browser as i32,
        system: classes.system as i32,
        bot_class: classes.bot_class as i32,
        arrival: page.arrival,
        site_coordinate: visitor.map_or(0, |visitor| visitor.site.packed()),
        page_coordinate: visitor.map_or(0, |visitor| visitor.page.packed()),
        // A random one where none was sent: the log may take a record twice (from the spill, and from a slow broker).
        event_id: match page.event_id {
            0 => ids::draw(),
            sent => stored_id(key, project, sent),
        },
        bot: classes.bot.to_owned(),
        rules: RULES_VERSION,
        path: page.path,
        version: page.version,
        language: page.language,
        referrer_host: page.referrer_host,
        source: page.source as i32,
        ..proto::PageView::default()
    };
    (view, over)
}

fn unavailable(error: &SinkError) -> Rejection {
    let expected = match error {
        SinkError::QueueFull => "room in the log's queue; send the same beacon again a little later",
        SinkError::Unavailable(_) | SinkError::Closed => "a writable log; send the same beacon again a little later",
    };
    Rejection::new(RejectionReason::LogUnavailable, expected)
}

/// `Sec-GPC` (Global Privacy Control, W3C) or `DNT` (Tracking Preference Expression, W3C) set to 1.
fn opted_out(headers: &HeaderMap) -> bool {
    const SEC_GPC: HeaderName = HeaderName::from_static("sec-gpc");
    const DNT: HeaderName = HeaderName::from_static("dnt");
    [SEC_GPC, DNT].iter().any(|name| headers.get(name).is_some_and(|value| is_opt_out(value.as_bytes())))
}

/// Whether one of those headers has this value for an opt-out.
pub(crate) fn is_opt_out(value: &[u8]) -> bool {
    value.trim_ascii() == b"1"
}

/// The reader's country from a trusted proxy's header, else from the database of countries, or nothing. A proxy that does not know the country
/// has the last word: a reader behind Tor is not where the database says.
fn country<S: Sink>(ingest: &Ingest<S>, peer: SocketAddr, headers: &HeaderMap, address: &ClientAddress) -> String {
    let config = &ingest.config;
    let name = config.country_header.as_ref().filter(|_| config.trusted_proxies.contains(peer.ip()));
    let country = match name.and_then(|name| headers.get(name)) {
        Some(code) => country_code(code.as_bytes()),
        None => config.countries.as_ref().and_then(|countries| countries.find(address)),
    };
    country.unwrap_or_default()
}

/// The key that chooses a record's partition: a repeat meets its twin there. A project's records are all in one, since each
/// partition's window writes rows of its own: spread over twelve, a project's hour would be up to twelve rows.
pub(crate) fn log_key(project: &str) -> u64 {
    // Fixed seed: every node must choose alike.
    foldhash::quality::FixedState::with_seed(0).hash_one(project)
}

pub(crate) async fn read_body<S: Sink>(body: Body, ingest: &Ingest<S>) -> Result<Bytes, Rejection> {
    let limit = ingest.config.body_bytes;
    let too_large = || Rejection::new(RejectionReason::BodyTooLarge, format!("a body of at most {limit} bytes"));
    // Before a client that expects `100 Continue` sends it.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(
        Duration::from_millis(ingest.config.body_timeout_ms),
        LimitedBody::new(body, limit).collect(),
    );
    match collected.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Rejection::new(RejectionReason::MalformedJson, "a complete body")),
        Err(_) => Err(Rejection::new(RejectionReason::BodyTimeout, "the whole body within the time limit")),
    }
}

/// Decoded names and values. What is not UTF-8 has U+FFFD in its place, by which [`Beacon`] knows it.
pub(crate) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Every answer to a page on another host: readable by it, never stored, without ETag or cookie.
pub(crate) fn answer(status: StatusCode) -> Response {
    let mut response = status.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    // A refused script waits as long as it is told; without this header its browser would not show it the time.
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
    let (name, value) = NOSNIFF;
    headers.insert(name, value);
    response
}

pub(crate) fn refusal(rejection: &Rejection) -> Response {
    let status = StatusCode::from_u16(rejection.reason.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = answer(status);
    let reason = if rejection.reason.is_about_registry() { NOT_COUNTED_HERE } else { rejection.reason.name() };
    tell(&mut response, reason, rejection.field, &rejection.expected);
    set_retry_after(status, response.headers_mut());
    response
}

/// Says when to send a beacon again that was refused only for now.
pub(crate) fn set_retry_after(status: StatusCode, headers: &mut HeaderMap) {
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        // Jitter, or all who were refused together come back together.
        let seconds = 1 + u64::from(random_byte()) % 10;
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

fn random_byte() -> u8 {
    let mut byte = [0u8];
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

/// The one form of an error's body.
fn tell(response: &mut Response, reason: &str, field: Option<&str>, expected: &str) {
    let body = json!({"error": {"reason": reason, "field": field, "expected": expected}});
    *response.body_mut() = Body::from(format!("{body}\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
}

pub(crate) fn wrong_method(allowed: &'static str, expected: &str) -> Response {
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED);
    tell(&mut response, "method_not_allowed", None, expected);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

async fn post_only<S: Sink>(State(ingest): State<Arc<Ingest<S>>>) -> Response {
    let pixel = ingest.config.paths.pixel();
    wrong_method("POST, OPTIONS", &format!("a beacon with POST; for a pixel use GET {pixel}"))
}

async fn get_only<S: Sink>(State(ingest): State<Arc<Ingest<S>>>) -> Response {
    let beacon = ingest.config.paths.beacon();
    wrong_method("GET, HEAD", &format!("a pixel with GET; for a beacon use POST {beacon}"))
}

async fn nothing_here<S: Sink>(State(ingest): State<Arc<Ingest<S>>>) -> Response {
    let mut response = answer(StatusCode::NOT_FOUND);
    let beacon = ingest.config.paths.beacon();
    tell(&mut response, "not_found", None, &format!("a path of this service, such as POST {beacon}"));
    response
}

/// Lets `navigator.sendBeacon` send JSON from a page on another host. It always sends with credentials, for which a browser demands the page's
/// origin by name and this permission (Fetch, CORS check). No beacon route reads a cookie, and the answers are the same for everyone.
pub(crate) async fn with_credentials(request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = next.run(request).await;
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

/// Only for senders that choose `application/json`; the script sends text/plain and needs no preflight.
async fn preflight() -> Response {
    preflight_allowing("content-type")
}

/// The answer to a preflight for a POST with these request headers.
pub(crate) fn preflight_allowing(request_headers: &'static str) -> Response {
    let mut response = answer(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(request_headers));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

fn script_answer(text: Bytes) -> Response {
    let mut response = answer(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(script::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(script::CACHE_CONTROL));
    // Of a HEAD request too: axum leaves the body out and keeps its length.
    *response.body_mut() = Body::from(text);
    response
}

#[cfg(test)]
mod tests;
