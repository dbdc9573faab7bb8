//! A folder of built HTML, served as a static host serves it: index files, and the site's own `404.html` with status 404.

use anyhow::{Context as _, Result};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::{net::TcpListener, sync::oneshot};
use tower::ServiceExt as _;
use tower_http::services::{ServeDir, ServeFile};

/// A site that is up, until it is dropped.
pub struct StaticSite {
    address: SocketAddr,
    // Dropping it ends the server.
    _stop: oneshot::Sender<()>,
}

struct Shared {
    root: PathBuf,
    replaced: Vec<(String, String)>,
}

impl StaticSite {
    /// Serves the folder on a free port of the loopback. In text files each `(from, to)` is replaced, so that a site is built once and still contains
    /// the hosts of this run; `ORIGIN` in a `to` means the site's origin.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(root: PathBuf, replaced: &[(&str, &str)]) -> Result<StaticSite> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listen on the loopback")?;
        let address = listener.local_addr()?;
        let origin = format!("http://{address}");
        let replaced = replaced.iter().map(|(from, to)| ((*from).to_owned(), to.replace("ORIGIN", &origin))).collect();
        let router = Router::new().fallback(answer).with_state(Arc::new(Shared { root, replaced }));
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            tokio::select! {
                result = async { axum::serve(listener, router).await } => drop(result),
                _ = stopped => {}
            }
        });
        Ok(StaticSite { address, _stop: stop })
    }

    /// `http://HOST` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn answer(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    // A file is always sent whole: it may be changed on the way, and then its date is wrong.
    request.headers_mut().clear();
    let page = format!("{}.html", request.uri().path().trim_end_matches('/'));
    // Like GitHub Pages: `/guide` is `guide.html`. The path comes from a browser of this test.
    if let (true, Ok(uri)) = (shared.root.join(page.trim_start_matches('/')).is_file(), page.parse()) {
        *request.uri_mut() = uri;
    }
    let missing = ServeFile::new(shared.root.join("404.html"));
    let response = match ServeDir::new(&shared.root).not_found_service(missing).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    };
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !["text/", "application/json"].iter().any(|text| kind.starts_with(text)) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    for (from, to) in &shared.replaced {
        text = text.replace(from, to);
    }
    for name in [header::CONTENT_LENGTH, header::ACCEPT_RANGES, header::LAST_MODIFIED] {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, text.into())
}
