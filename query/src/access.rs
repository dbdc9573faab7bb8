//! Access control: which caller may read which report.
//!
//! The way of a request: `guard` finds the route in the table of [`crate::routes`] → the credentials in the request (`credentials`) → the identity that
//! they belong to (`snapshot`, `sessions`) → the rate limits → the decision (`decide`, pure) → the route, with a [`Caller`].
//!
//! The guard queries nothing about a project before the decision, and the decision reads the snapshot only. A caller without access gets
//! the same response, by the same steps, whether the project exists or not.

pub(crate) mod badge;
mod caller;
mod credentials;
pub(crate) mod headers;
mod refusals;
mod sessions;
pub(crate) mod sign_in;
mod snapshot;
pub mod token;
mod uses;

#[cfg(test)]
mod tests;

pub use caller::Caller;

use crate::Clock;
use crate::cache::Generation;
use crate::route::{Audience, Route, RouteTable, Rule};
use crate::turns::CallerKey;
use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{ConnectInfo, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::{self, Next};
use axum::response::Response;
use credentials::Credentials;
use headers::HeaderKind;
use refusals::Refusal;
use schemas::ProjectSlug;
use schemas::rate_limit::{Rate, TokenBuckets};
use sessions::Sessions;
use snapshot::{Rights, Snapshot};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use storage::{CallError, FailureKind};
use token::TokenId;
use uses::Uses;

/// Interval between two reads of the rights.
const RIGHTS_INTERVAL: Duration = Duration::from_secs(2);

/// Longest time for one read of them.
const RIGHTS_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for the first read, while beacons wait for the listener.
const FIRST_RIGHTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Failed attempts of one client: a burst of ten, then one every ten seconds. (No limit if `report_rate` is 0.)
const FAILED_ATTEMPTS: Rate = Rate { per_second: 0.1, burst: 10.0 };

/// A function of a connection's peer and of the headers of a request that came over it.
pub type ClientFact<T> = Arc<dyn Fn(IpAddr, &HeaderMap) -> T + Send + Sync>;

/// What is known about the client of a connection, also from headers that trusted proxies set. The client's IP address does not leave these
/// functions.
#[derive(Clone)]
pub struct Edge {
    /// A hash of the client's network under a secret that lives in memory only.
    pub client: ClientFact<u64>,
    /// Whether the client came over TLS.
    pub https: ClientFact<bool>,
}

/// Bounds and trust.
#[derive(Clone)]
pub struct AccessConfig {
    /// Requests per second of one token, or of one client without a token; bursts of ten times as many. 0: no limit, and none of failed
    /// attempts.
    pub report_rate: f64,
    /// How long a page's session lasts.
    pub session_seconds: u64,
    /// How the client of a request is identified.
    pub edge: Edge,
    /// Logged while there is no token: how to create one.
    pub no_token: String,
}

/// The rights of all callers, shared by all requests.
pub struct Access {
    /// None until the first successful read from ClickHouse.
    snapshot: ArcSwapOption<Snapshot>,
    /// Generation of the registry and the closed months: cached reports depend on it.
    generation: Generation,
    sessions: Sessions,
    requests: TokenBuckets,
    failures: TokenBuckets,
    uses: Uses,
    edge: Edge,
    clock: Clock,
    client: clickhouse::Client,
    session_seconds: u64,
    no_token: String,
}

impl Access {
    /// No rights are known before the first read, by [`Access::begin`] or [`Access::keep`].
    pub fn new(client: clickhouse::Client, config: AccessConfig, clock: Clock) -> Arc<Self> {
        Arc::new(Access {
            snapshot: ArcSwapOption::empty(),
            generation: Generation::default(),
            sessions: Sessions::new(i64::try_from(config.session_seconds.saturating_mul(1000)).unwrap_or(i64::MAX / 2)),
            requests: TokenBuckets::new(Rate { per_second: config.report_rate, burst: config.report_rate * 10.0 }),
            failures: TokenBuckets::new(if config.report_rate > 0.0 { FAILED_ATTEMPTS } else { Rate::OFF }),
            uses: Uses::default(),
            edge: config.edge,
            clock,
            client,
            session_seconds: config.session_seconds,
            no_token: config.no_token,
        })
    }

    /// Reads the rights once, so that the service knows them soon after it starts to listen. If ClickHouse is away, [`Access::keep`]
    /// retries.
    pub async fn begin(&self) {
        let _ = self.refresh(FIRST_RIGHTS_TIMEOUT).await;
    }

    /// The generation that its polls advance.
    pub(crate) fn generation(&self) -> Generation {
        self.generation.clone()
    }

    /// Whether the rights have been read.
    pub fn is_ready(&self) -> bool {
        self.snapshot.load().is_some()
    }

    /// Keeps the rights up to date until it is dropped. While ClickHouse is away, the rights of the last successful read stay active.
    pub async fn keep(self: Arc<Self>) {
        let (mut failing, mut is_logged) = (None, false);
        loop {
            match self.refresh(RIGHTS_TIMEOUT).await {
                Ok(has_no_tokens) => {
                    failing = None;
                    if has_no_tokens && !is_logged {
                        tracing::info!("{}", self.no_token);
                        is_logged = true;
                    }
                    // Best effort: what cannot be written now is written with the next refresh.
                    let _ = tokio::time::timeout(RIGHTS_TIMEOUT, self.uses.write(&self.client)).await;
                }
                Err(error) => {
                    // One line whenever the kind changes: a server that was away may refuse the statement after its start.
                    let kind = error.failure_kind();
                    if failing != Some(kind) && kind == FailureKind::Bug {
                        tracing::error!(%error, "the rights of tokens cannot be read: ClickHouse refuses the statement. Its schema, settings or rights do not fit this version");
                    } else if failing != Some(kind) {
                        tracing::warn!(%error, "the rights of tokens cannot be read; those read last stay active");
                    }
                    failing = Some(kind);
                }
            }
            tokio::time::sleep(RIGHTS_INTERVAL).await;
        }
    }

    /// Returns true if there is no token.
    async fn refresh(&self, within: Duration) -> Result<bool, CallError> {
        let action = "reading the rights of tokens";
        let poll = self.generation.poll();
        let (snapshot, fingerprint) = match tokio::time::timeout(within, Snapshot::read(&self.client)).await {
            Ok(read) => read.map_err(|cause| CallError::ClickHouse { action: action.into(), cause })?,
            Err(_) => return Err(CallError::Timeout { action: action.into(), timeout: within }),
        };
        self.sessions.sweep((self.clock)().timestamp_millis(), |token| snapshot.still(token).is_some());
        let has_no_tokens = snapshot.has_no_tokens();
        self.snapshot.store(Some(Arc::new(snapshot)));
        self.generation.polled(fingerprint, poll);
        Ok(has_no_tokens)
    }

    /// The token of an open session, if it is still active.
    fn session(&self, cookie: &str) -> Option<(TokenId, Rights)> {
        let token = self.sessions.token_of(cookie, (self.clock)().timestamp_millis())?;
        Some((token, self.snapshot.load().as_ref()?.still(token)?.clone()))
    }

    /// A hash of the client's network, and whether the request came over TLS.
    fn far_end(&self, request: &Request) -> (u64, bool) {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        // Only requests of unit tests come without a connection.
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        ((self.edge.client)(peer, request.headers()), (self.edge.https)(peer, request.headers()))
    }

    fn identity(&self, shown: &Credentials, snapshot: &Snapshot) -> Identity {
        match shown {
            Credentials::Nothing => Identity::Nobody,
            Credentials::NoToken => Identity::Wrong,
            Credentials::Token(token) => match snapshot.rights_of(token) {
                Some(rights) => Identity::Known(token.id(), rights.clone()),
                None => Identity::Wrong,
            },
            // An expired cookie does not count as a failed attempt.
            Credentials::Cookie(cookie) => {
                self.session(cookie).map_or(Identity::Nobody, |(token, rights)| Identity::Known(token, rights))
            }
        }
    }

    /// Counts a request against the rate of its caller.
    fn room(&self, identity: &Identity, client: u64) -> Result<(), Refusal> {
        match identity {
            Identity::Wrong => {
                let taken = self.failures.take(CallerKey::Network(client), (self.clock)().timestamp_millis());
                taken.map_err(|seconds| Refusal::TooMany { seconds })
            }
            known => self.room_of(known.key(client)),
        }
    }

    fn room_of(&self, caller: CallerKey) -> Result<(), Refusal> {
        let taken = self.requests.take(caller, (self.clock)().timestamp_millis());
        taken.map_err(|seconds| Refusal::TooMany { seconds })
    }

    /// The caller of an open route: the holder of a valid token or session, else the client's network.
    fn open_caller(&self, shown: &Credentials, client: u64) -> CallerKey {
        let snapshot = self.snapshot.load();
        let identity = snapshot.as_ref().map(|snapshot| self.identity(shown, snapshot));
        identity.map_or(CallerKey::Network(client), |identity| identity.key(client))
    }
}

/// The identity behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Identity {
    Nobody,
    /// The client sent a token without rights: a wrong, a revoked or a malformed one.
    Wrong,
    Known(TokenId, Rights),
}

impl Identity {
    /// The key by which limits and turns distinguish callers; `client` is the hash of its network.
    fn key(&self, client: u64) -> CallerKey {
        match self {
            Identity::Known(token, _) => CallerKey::Token(*token),
            Identity::Nobody | Identity::Wrong => CallerKey::Network(client),
        }
    }
}

/// Decides whether `identity` may use a route of `rule` for `project`. `project` is none if the path has no valid slug.
fn decide(
    rule: Rule,
    project: Option<&ProjectSlug>,
    identity: &Identity,
    snapshot: &Snapshot,
) -> Result<Caller, Refusal> {
    let caller = match identity {
        Identity::Known(_, rights) => Caller::of(rights),
        Identity::Nobody | Identity::Wrong => Caller::Anonymous,
    };
    let public = project.is_some_and(|project| snapshot.is_public(project));
    let may = match rule {
        Rule::Open => true,
        Rule::SignedIn => caller.is_known(),
        Rule::OfProject => public || caller == Caller::Admin || project.is_some_and(|project| caller.lists(project)),
        Rule::Badge => public,
    };
    match may {
        true => Ok(caller),
        false if rule == Rule::Badge || caller.is_known() => Err(Refusal::NotYours),
        false => Err(Refusal::NotSignedIn),
    }
}

/// `router` behind the guard. A path without a row in `routes` is refused.
pub(crate) fn guarded(router: Router, access: &Arc<Access>, routes: RouteTable) -> Router {
    let guarded = Guarded { access: Arc::clone(access), routes: Arc::new(routes) };
    // After routing, so that the guard sees the path as the router parsed it.
    router.layer(middleware::from_fn_with_state(guarded, guard))
}

/// The guard's state.
#[derive(Clone)]
struct Guarded {
    access: Arc<Access>,
    routes: Arc<RouteTable>,
}

/// `router` behind the rate limit of each client's network. Its routes are open to all and need no guard: `/privacy`, and the response to
/// unknown paths.
pub fn rate_limited(router: Router, access: &Arc<Access>) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::clone(access), limit))
}

async fn limit(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let (client, https) = access.far_end(&request);
    match access.room_of(CallerKey::Network(client)) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let mut response = refusal.answer(Audience::Programs);
            headers::protect(&mut response, HeaderKind { private: true, elsewhere: false, https });
            response
        }
    }
}

async fn guard(
    State(Guarded { access, routes }): State<Guarded>,
    matched: Option<MatchedPath>,
    parameters: Result<RawPathParams, RawPathParamsRejection>,
    mut request: Request,
    next: Next,
) -> Response {
    let (client, https) = access.far_end(&request);
    let mut kind = HeaderKind { private: true, elsewhere: false, https };
    let route = matched.as_ref().and_then(|matched| routes.find(matched.as_str(), request.method()));
    let Some(route) = route else {
        let refusal = access.room_of(CallerKey::Network(client)).err().unwrap_or(Refusal::Nothing);
        let mut response = refusal.answer(Audience::Programs);
        headers::protect(&mut response, kind);
        return response;
    };
    kind.elsewhere = route.rule == Rule::Badge;
    let parameters = parameters.ok();
    let named = parameters.iter().flat_map(|parameters| parameters.iter()).find(|(name, _)| *name == "project");
    let project = named.and_then(|(_, text)| match route.rule {
        Rule::Badge => text.strip_suffix(badge::SUFFIX)?.parse::<ProjectSlug>().ok(),
        _ => text.parse().ok(),
    });
    let mut response = match admit(&access, route, project.as_ref(), &request, https, client) {
        Ok((caller, key)) => {
            // Responses of open routes need not be private; their own `Cache-Control` stays.
            kind.private = !matches!(route.rule, Rule::Open | Rule::Badge);
            request.extensions_mut().insert(caller.visible());
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(key);
            request.extensions_mut().insert(sign_in::Arrival { client, https });
            next.run(request).await
        }
        Err(response) => *response,
    };
    headers::protect(&mut response, kind);
    response
}

/// The caller, or the response to a request that is refused.
fn admit(
    access: &Access,
    route: &Route,
    project: Option<&ProjectSlug>,
    request: &Request,
    https: bool,
    client: u64,
) -> Result<(Caller, CallerKey), Box<Response>> {
    let shown = Credentials::by(request.headers(), https);
    if route.rule == Rule::Open {
        let key = access.open_caller(&shown, client);
        // `POST /sign-in` has limits of its own, by its token or by its failure. So one client cannot lock out others in its network.
        let is_sign_in = route.path == "/sign-in" && request.method() == Method::POST;
        let room = if is_sign_in { Ok(()) } else { access.room_of(key) };
        return room.map(|()| (Caller::Anonymous, key)).map_err(|refusal| Box::new(refusal.answer(route.audience)));
    }
    let decided = || {
        let snapshot = access.snapshot.load();
        let snapshot = snapshot.as_ref().ok_or(Refusal::RightsUnknown)?;
        let identity = access.identity(&shown, snapshot);
        access.room(&identity, client)?;
        let caller = decide(route.rule, project, &identity, snapshot)?;
        let key = identity.key(client);
        if let Identity::Known(token, _) = identity {
            access.uses.note(token, (access.clock)());
        }
        Ok((caller, key))
    };
    decided().map_err(|refusal| {
        Box::new(match refusal {
            Refusal::NotSignedIn => {
                refusals::not_signed_in(route, request.method(), request.uri(), request.headers(), &shown)
            }
            other => other.answer(route.audience),
        })
    })
}
