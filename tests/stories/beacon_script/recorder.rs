//! Replaces the service: serves the script, records requests, and fails on demand.

use anyhow::{Context as _, Result, bail};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// How the recorder fails.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// With this status.
    Status(u16),
    /// With 503 and `Retry-After` of this many seconds.
    Busy(u32),
    /// By closing the connection without a response.
    Reset,
}

/// One received request.
#[derive(Debug, Clone)]
pub struct Hit {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: String,
    pub at: Instant,
}

impl Hit {
    /// A header's value, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub struct Recorder {
    address: SocketAddr,
    record: Arc<Record>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Record {
    hits: watch::Sender<Vec<Hit>>,
    failures: Mutex<Vec<Failure>>,
}

impl Recorder {
    pub async fn start() -> Result<Recorder> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let record = Arc::new(Record::default());
        let shared = Arc::clone(&record);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let record = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&record), request));
                // One request a connection: Chromium itself retries a request that fails on a reused connection, and the stories are about the
                // script's retries.
                let connection =
                    http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Ok(Recorder { address, record, server })
    }

    pub fn url(&self, path: &str) -> String {
        // A host name, so that the browser treats it as another host than the site's.
        format!("http://localhost:{}{path}", self.address.port())
    }

    /// Makes the next beacons fail this way.
    pub fn fail_next(&self, count: usize, failure: Failure) {
        *self.record.failures.lock().unwrap() = vec![failure; count];
    }

    pub fn hits(&self) -> Vec<Hit> {
        self.record.hits.borrow().clone()
    }

    /// Waits until the received requests fit.
    pub async fn until(&self, what: &str, fits: impl Fn(&[Hit]) -> bool) -> Result<Vec<Hit>> {
        let patience = Duration::from_secs(30);
        let mut hits = self.record.hits.subscribe();
        match tokio::time::timeout(patience, hits.wait_for(|hits| fits(hits))).await {
            Ok(hits) => Ok(hits.context("the recorder is gone")?.clone()),
            Err(_) => bail!("waited {patience:?} for {what}; what came: {:#?}", self.hits()),
        }
    }

    /// Waits until the posted beacons fit, and returns them in order.
    pub async fn views_until(&self, what: &str, fits: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
        self.until(what, |hits| fits(&views(hits))).await.map(|hits| views(&hits))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn views(hits: &[Hit]) -> Vec<Value> {
    let posted = hits.iter().filter(|hit| hit.method == "POST");
    posted.map(|hit| serde_json::from_str(&hit.body).unwrap_or_else(|_| hit.body.clone().into())).collect()
}

async fn answer(record: Arc<Record>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let hit = Hit {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        at: Instant::now(),
    };
    let path = hit.path.clone();
    record.hits.send_modify(|hits| hits.push(hit));
    let mut retry_after = 0;
    let (status, kind, content) = match path.as_str() {
        "/beacon.js" => (200, ingest::script::CONTENT_TYPE, ingest::script::BEACON_JS),
        "/v1/pageview" => match record.failures.lock().unwrap().pop() {
            Some(Failure::Reset) => return Err(io::Error::other("told to fail")),
            Some(Failure::Status(status)) => (status, "text/plain", ""),
            Some(Failure::Busy(seconds)) => {
                retry_after = seconds;
                (503, "text/plain", "")
            }
            None => (202, "text/plain", ""),
        },
        "/v1/pageview.gif" => (200, "image/gif", "GIF89a"),
        _ => (404, "text/plain", ""),
    };
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .header("access-control-allow-origin", "*")
        // Without this a script of another origin cannot read it.
        .header("access-control-expose-headers", "retry-after")
        .header("retry-after", retry_after)
        .body(Full::new(Bytes::from_static(content.as_bytes())))
        .map_err(io::Error::other)
}
