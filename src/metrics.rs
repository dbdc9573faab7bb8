//! The listener of `metrics_listen`, for the operator: `/metrics` for Prometheus, and `/readyz` with all details. It is a separate listener, so no
//! request to the public one reaches it, with any proxy and any peer.

pub mod reports;
pub mod scrape;

use crate::config::listen::{ConnectionSettings, OperatorSettings};
use crate::health::Finding;
use crate::http::{self, HttpConfig};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::registry::Registry;
use scrape::{Scrape, Scraped};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Concurrent connections: a scraper, and an operator or two.
const CONNECTIONS: usize = 64;

/// The bound listener, or none if it is switched off.
pub struct MetricsListener {
    listener: Option<TcpListener>,
    http: HttpConfig,
}

impl MetricsListener {
    /// Binds the listen address of the setting.
    ///
    /// # Errors
    /// As for [`MetricsListener::bind_to`].
    pub async fn bind(connections: &ConnectionSettings, operator: &OperatorSettings) -> anyhow::Result<Self> {
        Self::bind_to(connections, operator.metrics_listen.0).await
    }

    /// Binds the listen address `address`, if there is one.
    ///
    /// # Errors
    /// It cannot be bound.
    pub async fn bind_to(connections: &ConnectionSettings, address: Option<SocketAddr>) -> anyhow::Result<Self> {
        let http = HttpConfig { connections: CONNECTIONS, ..connections.http() };
        let Some(address) = address else { return Ok(MetricsListener { listener: None, http }) };
        let listener = TcpListener::bind(address).await.map_err(|error| {
            anyhow::anyhow!(
                "setting `metrics_listen`: cannot listen on {address}: {error}; expected a free listen address \
                 (--metrics-listen 127.0.0.1:0 takes any free port), or nothing to switch it off (--metrics-listen '')"
            )
        })?;
        Ok(MetricsListener { listener: Some(listener), http })
    }

    /// The listen address, for the log.
    pub fn address(&self) -> String {
        let address = self.listener.as_ref().and_then(|listener| listener.local_addr().ok());
        address.map_or_else(|| "off".to_owned(), |address| address.to_string())
    }

    /// Serves until `shutdown` resolves; without a listener it only waits for that.
    ///
    /// # Errors
    /// As for [`http::serve`].
    pub async fn serve(self, routes: Router, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        match self.listener {
            Some(listener) => http::serve(self.http, listener, routes, shutdown).await,
            None => {
                shutdown.await;
                Ok(())
            }
        }
    }
}

/// The registry of a role. All names start with `headcount_`.
pub fn registry() -> Registry {
    Registry::with_prefix("headcount")
}

/// Adds metrics that are read at each scrape.
pub fn scraped(registry: &mut Registry, metrics: impl Fn(&mut Scrape<'_>) -> fmt::Result + Send + Sync + 'static) {
    registry.register_collector(Box::new(Scraped(metrics)));
}

/// `/metrics` of `registry`, and `/readyz` with the result of `ready` as JSON: its details, and the members `ready`, `state` (the word) and
/// `reasons`.
pub fn routes(
    registry: Registry,
    ready: impl Fn() -> (Finding, serde_json::Map<String, serde_json::Value>) + Clone + Send + Sync + 'static,
) -> Router {
    let registry = Arc::new(registry);
    let metrics = move || {
        let registry = Arc::clone(&registry);
        // Some metrics are read from the disk.
        let text = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            encode(&mut text, &registry).map(|()| text)
        });
        async move {
            match text.await {
                Ok(Ok(text)) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
                _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    let ready = move || {
        let (Finding { readiness, reasons }, mut details) = ready();
        details.insert("ready".to_owned(), readiness.status().is_success().into());
        details.insert("state".to_owned(), readiness.word().into());
        details.insert("reasons".to_owned(), reasons.into());
        let text = format!("{}\n", serde_json::Value::Object(details));
        async move { (readiness.status(), [(header::CONTENT_TYPE, "application/json")], text) }
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).route("/metrics", get(metrics))
}
