//! The cache of reports, with the queries that reach ClickHouse counted: `docs/operations.md` has the same table.

use super::known::{self, CLOCK, MONTHS};
use anyhow::{Context, Result, ensure};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Router, http::HeaderMap};
use harness::http::Connection;
use harness::service::{Service, eventually};
use query::access::{Access, AccessConfig, Edge};
use query::{CacheConfig, QueryConfig, ReportCache, ReportStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tower::ServiceExt as _;

/// A gate between the reports and ClickHouse.
#[derive(Clone)]
struct Gate {
    upstream: SocketAddr,
    selects: Arc<AtomicU64>,
    /// Queries wait while it is held.
    held: watch::Sender<bool>,
    /// ClickHouse answers no query.
    stopped: watch::Sender<bool>,
}

impl Gate {
    /// A gate before the ClickHouse of `service`, and its URL.
    async fn before(service: &Service) -> Result<(Self, String)> {
        let url: url::Url = service.clickhouse_url()?.parse()?;
        let upstream = url.socket_addrs(|| None)?.first().copied().context("an address")?;
        let (held, stopped) = (watch::channel(false).0, watch::channel(false).0);
        let gate = Gate { upstream, selects: Arc::default(), held, stopped };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        // The embedded ClickHouse answers only under a secret path.
        let url = format!("http://{}{}", listener.local_addr()?, url.path());
        let router = Router::new().fallback(pass).with_state(gate.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((gate, url))
    }

    fn selects(&self) -> u64 {
        self.selects.swap(0, Ordering::Relaxed)
    }
}

/// Headers of one connection.
const HOP: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

async fn pass(State(gate): State<Gate>, request: Request) -> Response {
    if *gate.stopped.borrow() {
        return Response::builder().status(503).body(Body::from("stopped")).unwrap();
    }
    gate.selects.fetch_add(1, Ordering::Relaxed);
    let _ = gate.held.subscribe().wait_for(|held| !held).await;
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let forwarded = async {
        let body = to_bytes(body, 1 << 20).await?;
        let mut connection = Connection::open(gate.upstream).await?;
        let headers = parts.headers.iter().filter(|(name, _)| !HOP.contains(&name.as_str()));
        let headers: Vec<_> = headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        connection.send(parts.method.as_str(), path, &headers, body).await
    };
    match forwarded.await {
        Ok(answer) => {
            let mut response = Response::new(Body::from(answer.body));
            *response.status_mut() = answer.status;
            let headers = answer.headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
            response.headers_mut().extend(headers.filter(|(name, _)| !HOP.contains(&name.as_str())));
            response
        }
        Err(error) => Response::builder().status(502).body(Body::from(format!("{error:#}"))).unwrap(),
    }
}

/// Reports through a gate, with a separate cache.
#[derive(Clone)]
struct Bed {
    router: Router,
    cache: ReportCache,
}

struct Served {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    took: Duration,
}

impl Served {
    fn cache_status(&self) -> &str {
        self.headers.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl Bed {
    async fn new(service: &Service, url: &str, config: CacheConfig) -> Result<Self> {
        let now = chrono::DateTime::parse_from_rfc3339(CLOCK)?.to_utc();
        let clock: query::Clock = Arc::new(move || now);
        let of_header = |headers: &HeaderMap| headers.get("x-client").map_or(0, |value| value.len() as u64);
        let edge = Edge { client: Arc::new(move |_, headers| of_header(headers)), https: Arc::new(|_, _| false) };
        let config_of_access = AccessConfig { report_rate: 0.0, session_seconds: 60, edge, no_token: String::new() };
        let access = Access::new(service.clickhouse()?, config_of_access, Arc::clone(&clock));
        access.begin().await;
        tokio::spawn(Arc::clone(&access).keep());
        let store = ReportStore::new(clickhouse::Client::default().with_url(url).with_database("headcount"));
        let cache = ReportCache::new(config, &access);
        let router = query::guarded_routes(store, QueryConfig::default(), clock, &access, cache.clone());
        Ok(Bed { router, cache })
    }

    /// The response to a client; each number is a separate network.
    async fn get(&self, path: &str, client: usize) -> Result<Served> {
        let request = Request::get(path).header("x-client", "x".repeat(client)).body(Body::empty())?;
        let started = Instant::now();
        let response = self.router.clone().oneshot(request).await?;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 24).await?;
        Ok(Served { status: parts.status.as_u16(), headers: parts.headers, body, took: started.elapsed() })
    }

    async fn at_once(&self, path: &str, count: usize) -> Result<Vec<Served>> {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (bed, path) = (self.clone(), path.to_owned());
            tasks.spawn(async move { bed.get(&path, 1).await });
        }
        let answers: Vec<Served> = tasks.join_all().await.into_iter().collect::<Result<_>>()?;
        let first = answers.first().context("an answer")?;
        ensure!(answers.iter().all(|answer| answer.status == 200 && answer.body == first.body), "{path}: they differ");
        Ok(answers)
    }
}

fn slowest(answers: &[Served]) -> Duration {
    answers.iter().map(|answer| answer.took).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_report_costs_no_query() -> Result<()> {
    let service = Service::started(&["--clock-start", CLOCK], &[("docs", "docs.example")]).await?;
    known::write(&service.clickhouse()?).await?;
    let (gate, url) = Gate::before(&service).await?;
    // On a slow machine the story takes longer than the usual ten seconds.
    let config = CacheConfig { fresh: Duration::from_secs(3_600), ..CacheConfig::default() };
    let bed = Bed::new(&service, &url, config).await?;
    let report = |month: &str| format!("/v1/projects/docs/reports/{month}");
    // The first computation reads once what ClickHouse has.
    let first = bed.get(&report(MONTHS[0]), 1).await?;
    ensure!(first.status == 200, "the first report: {}", String::from_utf8_lossy(&first.body));

    gate.selects();
    let (path, other) = (report(MONTHS[2]), report(MONTHS[3]));
    let cold = bed.get(&path, 1).await?;
    let selects = gate.selects();
    println!("one cold report: {selects} SELECTs, {:?}", cold.took);
    ensure!(cold.status == 200 && cold.cache_status() == "headcount; fwd=miss", "{}", cold.cache_status());
    ensure!((1..=8).contains(&selects), "{selects} SELECTs");

    let again = bed.get(&path, 1).await?;
    println!("the same again: {} SELECTs, {:?}", gate.selects.load(Ordering::Relaxed), again.took);
    ensure!(again.cache_status() == "headcount; hit" && again.body == cold.body, "{}", again.cache_status());
    ensure!(gate.selects() == 0, "a cached report was queried");

    let answers = bed.at_once(&other, 16).await?;
    let selects = gate.selects();
    println!("16 at once, cold, the same: {selects} SELECTs, the slowest {:?}", slowest(&answers));
    let own = answers.iter().filter(|answer| answer.cache_status() == "headcount; fwd=miss").count();
    ensure!(own == 1 && (1..=8).contains(&selects), "{own} computed, {selects} SELECTs");

    let answers = bed.at_once(&other, 32).await?;
    println!(
        "32 at once, cached: {} SELECTs, the slowest {:?}",
        gate.selects.load(Ordering::Relaxed),
        slowest(&answers)
    );
    ensure!(answers.iter().all(|answer| answer.cache_status() == "headcount; hit"), "not all from the cache");
    ensure!(gate.selects() == 0, "a cached report was queried");

    // Eight networks request reports: four compute, and four wait for a turn.
    gate.held.send_replace(true);
    let mut strangers = tokio::task::JoinSet::new();
    for client in 2..10 {
        let (bed, path) = (bed.clone(), format!("{path}/pages?limit={client}"));
        strangers.spawn(async move { bed.get(&path, client).await });
    }
    eventually("the strangers to hold all turns of theirs", async || {
        ensure!(gate.selects.load(Ordering::Relaxed) >= 4, "{}", gate.selects.load(Ordering::Relaxed));
        Ok(())
    })
    .await?;
    let cached = bed.get(&path, 1).await?;
    println!("8 strangers compute, a cached one is requested: {:?}", cached.took);
    ensure!(cached.cache_status() == "headcount; hit" && !strangers.is_empty(), "{}", cached.cache_status());
    ensure!(strangers.try_join_next().is_none(), "no stranger has an answer yet");
    gate.held.send_replace(false);
    for answer in strangers.join_all().await {
        ensure!(answer?.status == 200, "a stranger has no report");
    }
    println!("{:?}", bed.cache.figures());
    a_change_to_the_registry_ends_what_is_cached(&service, &bed, &path).await
}

/// A project that was changed, made private or erased is served from the cache until the next poll of the registry and no longer. The printed times
/// include the command itself. (Unit tests control the time of the poll.)
async fn a_change_to_the_registry_ends_what_is_cached(service: &Service, bed: &Bed, path: &str) -> Result<()> {
    let is_cached = async || {
        eventually("the report to be cached", async || {
            let answer = bed.get(path, 1).await?;
            ensure!(answer.cache_status().starts_with("headcount; hit"), "{}", answer.cache_status());
            Ok(())
        })
        .await
    };
    let answers = async |change: &[&str], status: u16| {
        let started = Instant::now();
        service.done(change).await?;
        eventually(&format!("{status} after {change:?}"), async || {
            let answered = bed.get(path, 1).await?.status;
            ensure!(answered == status, "{answered}");
            Ok(())
        })
        .await?;
        println!("{change:?}: {status} after {:?}", started.elapsed());
        anyhow::Ok(())
    };
    is_cached().await?;
    service.done(&["project", "set", "docs", "--time-zone", "Europe/Berlin"]).await?;
    eventually("the change to be in the report", async || {
        let answer = bed.get(path, 1).await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(text.contains("Europe/Berlin"), "{}", answer.cache_status());
        Ok(())
    })
    .await?;
    is_cached().await?;
    answers(&["project", "set", "docs", "--private"], 401).await?;
    answers(&["project", "set", "docs", "--public"], 200).await?;
    is_cached().await?;
    answers(&["project", "erase", "docs", "--yes"], 401).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_clickhouse_a_cached_report_is_served_stale() -> Result<()> {
    let service = Service::started(&["--clock-start", CLOCK], &[("docs", "docs.example")]).await?;
    known::write(&service.clickhouse()?).await?;
    let (gate, url) = Gate::before(&service).await?;
    // Stale immediately, so that the story need not wait ten seconds.
    let config = CacheConfig { fresh: Duration::ZERO, ..CacheConfig::default() };
    let bed = Bed::new(&service, &url, config).await?;
    let page = format!("/projects/docs/{}", MONTHS[2]);
    let before = bed.get(&page, 1).await?;
    ensure!(before.status == 200 && before.headers.contains_key("etag"), "{}", before.status);
    gate.stopped.send_replace(true);
    let noticed = eventually("the page to say that it is stale", async || {
        let answer = bed.get(&page, 1).await?;
        ensure!(answer.status == 200, "{}", answer.status);
        ensure!(answer.cache_status() == "headcount; hit; detail=stale", "{}", answer.cache_status());
        ensure!(answer.headers.contains_key("age"), "{:?}", answer.headers);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(text.contains("ClickHouse does not answer. This report is"), "no line on the page");
        Ok(answer)
    })
    .await?;
    ensure!(noticed.headers["etag"] != before.headers["etag"], "another body has another validator");
    let never = bed.get(&format!("/projects/docs/{}", MONTHS[1]), 1).await?;
    ensure!(never.status == 503, "nothing was cached: {}", never.status);
    gate.stopped.send_replace(false);
    eventually("the page to be refreshed", async || {
        let text = String::from_utf8_lossy(&bed.get(&page, 1).await?.body).into_owned();
        ensure!(!text.contains("ClickHouse does not answer"), "it is stale still");
        Ok(())
    })
    .await
}
