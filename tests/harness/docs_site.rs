//! A documentation site: a folder of built HTML, served as a docs host serves it, with the beacon on every page.

use crate::browser::PATIENCE;
use anyhow::{Context as _, Result, bail};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{Html, IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tower::ServiceExt as _;
use tower_http::services::ServeDir;

/// What to serve, and which endpoint and project its pages report to.
#[derive(Debug, Clone)]
pub struct DocsSite {
    /// The folder of built HTML, if there is one.
    pub root: Option<PathBuf>,
    /// URL of the beacon script, `http://HOST/page.js`; the pixel's URL is derived from it.
    pub beacon: String,
    /// The project's slug.
    pub project: String,
    /// More attributes of the script element, in HTML syntax: `data-version="stable"`.
    pub attributes: String,
    /// Pages from memory, by path: they take precedence over the folder. They get the snippet too.
    pub pages: BTreeMap<String, String>,
}

/// A running site; dropping it ends the site.
pub struct RunningSite {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Dropping it ends the server.
    _stop: oneshot::Sender<()>,
}

struct Shared {
    site: DocsSite,
    // Requested paths, in order.
    asked: watch::Sender<Vec<String>>,
    // Pages that were added while the site was running.
    added: Mutex<BTreeMap<String, String>>,
}

impl DocsSite {
    /// A site without a folder, and nothing but the snippet's essentials.
    pub fn new(beacon: &str, project: &str) -> DocsSite {
        DocsSite {
            root: None,
            beacon: beacon.to_owned(),
            project: project.to_owned(),
            attributes: String::new(),
            pages: BTreeMap::new(),
        }
    }

    /// With this folder of built HTML.
    pub fn root(mut self, root: impl Into<PathBuf>) -> DocsSite {
        self.root = Some(root.into());
        self
    }

    /// With one more page from memory.
    pub fn page(mut self, path: &str, html: &str) -> DocsSite {
        self.pages.insert(path.to_owned(), html.to_owned());
        self
    }

    /// Serves on a free port of the loopback.
    pub async fn start(self) -> Result<RunningSite> {
        self.start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves on this socket address.
    pub async fn start_on(self, address: SocketAddr) -> Result<RunningSite> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::new(Shared { site: self, asked: watch::Sender::default(), added: Mutex::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move {
            tokio::select! {
                result = async { axum::serve(listener, router).await } => drop(result),
                _ = stopped => {}
            }
        });
        Ok(RunningSite { address, shared, _stop: stop })
    }

    /// The endpoint that the script posts to: derived from its URL, under the old name or the default one.
    pub fn endpoint(&self) -> String {
        match self.beacon.strip_suffix("beacon.js") {
            Some(folder) => format!("{folder}v1/pageview"),
            None => format!("{}v1/page", self.beacon.trim_end_matches("page.js")),
        }
    }

    fn head(&self) -> String {
        let DocsSite { beacon, project, attributes, .. } = self;
        format!("<script defer src=\"{beacon}\" data-project=\"{project}\" {attributes}></script>\n")
    }

    /// For readers without scripts. The policy allows the page's whole URL in `Referer`, which is the pixel's only information about the page;
    /// browsers would otherwise shorten it to the origin.
    fn foot(&self) -> String {
        let pixel = format!("{}.gif?project={}", self.endpoint(), self.project);
        format!("<noscript><img src=\"{pixel}\" referrerpolicy=\"no-referrer-when-downgrade\" alt=\"\"></noscript>\n")
    }

    fn with_snippet(&self, html: &str) -> String {
        let html = insert_before(html, "</head>", &self.head());
        insert_before(&html, "</body>", &self.foot())
    }

    fn not_found(&self) -> Response {
        let html = "<!doctype html>\n<html lang=\"en\">\n<head>\n<title>Not found</title>\n\
            <meta name=\"headcount:status\" content=\"404\">\n</head>\n<body>\n<h1>Not found</h1>\n</body>\n</html>\n";
        (StatusCode::NOT_FOUND, Html(self.with_snippet(html))).into_response()
    }
}

impl RunningSite {
    /// The URL of a path on the site: `site.url("/index.html")`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Adds a page to the running site.
    pub fn add_page(&self, path: &str, html: &str) {
        self.shared.added.lock().unwrap().insert(path.to_owned(), html.to_owned());
    }

    /// Waits until a path has been requested, whether or not it exists.
    pub async fn until_asked_for(&self, path: &str) -> Result<()> {
        let mut asked = self.shared.asked.subscribe();
        let waiting = asked.wait_for(|asked| asked.iter().any(|one| one == path));
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found.map(drop).context("the site is gone"),
            Err(_) => {
                bail!("waited {PATIENCE:?} for {path} to be asked for; what was: {:?}", *self.shared.asked.borrow())
            }
        }
    }

    /// Its listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn insert_before(html: &str, tag: &str, snippet: &str) -> String {
    match html.rfind(tag) {
        Some(at) => format!("{}{snippet}{}", &html[..at], &html[at..]),
        None => format!("{html}{snippet}"),
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let site = &shared.site;
    let path = request.uri().path();
    shared.asked.send_modify(|asked| asked.push(path.to_owned()));
    let added = shared.added.lock().unwrap().get(path).cloned();
    if let Some(html) = added.as_ref().or_else(|| site.pages.get(path)) {
        return Html(site.with_snippet(html)).into_response();
    }
    let Some(root) = &site.root else {
        return site.not_found();
    };
    let response = match ServeDir::new(root).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    };
    if response.status() == StatusCode::NOT_FOUND {
        return site.not_found();
    }
    let html = HeaderValue::from_static("text/html");
    if response.status() != StatusCode::OK || response.headers().get(header::CONTENT_TYPE) != Some(&html) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => {
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.remove(header::ACCEPT_RANGES);
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            Response::from_parts(parts, site.with_snippet(&String::from_utf8_lossy(&bytes)).into())
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("read the page: {error}")).into_response(),
    }
}
