//! `/healthz` and `/readyz` of the public listener: a status and one word, both constants. The check runs in the background, so a request takes no
//! lock and sends no query. Details are on `metrics_listen` (see [`crate::metrics`]).

pub mod lag;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Whether a role can do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// It can, but another part is unavailable or fails.
    Degraded,
    /// An endpoint refuses beacons.
    Refusing,
    /// Another role cannot do its work.
    Unavailable,
}

impl Readiness {
    /// All states.
    pub const ALL: [Readiness; 4] =
        [Readiness::Ready, Readiness::Degraded, Readiness::Refusing, Readiness::Unavailable];

    /// The word in the response.
    pub fn word(self) -> &'static str {
        match self {
            Readiness::Ready => "ready",
            Readiness::Degraded => "degraded",
            Readiness::Refusing => "refusing",
            Readiness::Unavailable => "unavailable",
        }
    }

    /// 200, or 503 if the role cannot do its work.
    pub fn status(self) -> StatusCode {
        match self {
            Readiness::Ready | Readiness::Degraded => StatusCode::OK,
            Readiness::Refusing | Readiness::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn line(self) -> &'static str {
        match self {
            Readiness::Ready => "ready\n",
            Readiness::Degraded => "degraded\n",
            Readiness::Refusing => "refusing\n",
            Readiness::Unavailable => "unavailable\n",
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The state.
    pub readiness: Readiness,
    /// Why it is not [`Readiness::Ready`]; for the operator only.
    pub reasons: Vec<String>,
}

impl Finding {
    /// Ready if there are no reasons against it. Reasons to refuse beacons, or to be unavailable, take precedence.
    pub fn new(refusal: Readiness, refusing: Vec<String>, degrading: Vec<String>) -> Self {
        let readiness = match (refusing.is_empty(), degrading.is_empty()) {
            (false, _) => refusal,
            (true, false) => Readiness::Degraded,
            (true, true) => Readiness::Ready,
        };
        Finding { readiness, reasons: refusing.into_iter().chain(degrading).collect() }
    }
}

/// The result of the last check.
#[derive(Clone)]
pub struct Health {
    last: Arc<AtomicU8>,
}

impl Health {
    /// Starts with `first`.
    pub fn new(first: Readiness) -> Self {
        Health { last: Arc::new(AtomicU8::new(first as u8)) }
    }

    /// The last result.
    pub fn get(&self) -> Readiness {
        Readiness::ALL[usize::from(self.last.load(Ordering::Relaxed)).min(Readiness::ALL.len() - 1)]
    }

    /// Stores a result.
    pub fn set(&self, found: Readiness) {
        self.last.store(found as u8, Ordering::Relaxed);
    }

    /// Checks until dropped.
    pub async fn keep(self, check: impl Fn() -> Readiness) {
        loop {
            self.set(check());
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}

/// The two routes.
pub fn routes(health: Health) -> Router {
    let ready = move || {
        let found = health.get();
        async move { (found.status(), plain(), found.line()) }
    };
    Router::new().route("/healthz", get(async || (plain(), "ok\n"))).route("/readyz", get(ready))
}

fn plain() -> [(HeaderName, HeaderValue); 3] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    #[tokio::test]
    async fn the_answer_is_a_status_and_one_word() {
        for (found, status) in [
            (Readiness::Ready, 200),
            (Readiness::Degraded, 200),
            (Readiness::Refusing, 503),
            (Readiness::Unavailable, 503),
        ] {
            let health = Health::new(Readiness::Unavailable);
            health.set(found);
            let request = Request::get("/readyz").body(Body::empty()).unwrap();
            let answer = routes(health).oneshot(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status);
            let body = axum::body::to_bytes(answer.into_body(), 100).await.unwrap();
            assert_eq!(body, format!("{}\n", found.word()));
        }
    }
}
