//! The released scripts of Plausible and GoatCounter, unmodified, in Chromium: only the host to which they post is headcount's. `scripts/trackers` fetches them.

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use harness::browser::{Browser, Page, USER_AGENT};
use harness::service::{Service, eventually};
use http::{HeaderMap, StatusCode, Uri, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";
/// The host to which the scripts post, on the default port of HTTP.
const ENDPOINT: &str = "http://stats.example";

/// A script, and what its site has in the head of each page.
struct Tracker {
    slug: &'static str,
    host: &'static str,
    head: &'static str,
    /// Sends an event of the site's own.
    event: &'static str,
    /// Reports the page as missing, if the script can.
    missing: Option<&'static str>,
    /// Events that are accepted and no views, at least: clicks on outbound links, own events, engagement.
    events: u64,
}

const TRACKERS: [Tracker; 3] = [
    Tracker {
        slug: "plausible",
        host: "docs-plausible.example",
        head: r#"<script type="module">
            import { init, track } from "/plausible/plausible.js";
            init({ domain: "docs-plausible.example", endpoint: "http://stats.example/api/event", outboundLinks: true });
            window.event = track;
        </script>"#,
        event: "event('Signup')",
        missing: Some("event('404')"),
        events: 3,
    },
    Tracker {
        slug: "plausible-tracker",
        host: "docs-plausible-tracker.example",
        head: r#"<script type="module">
            import Plausible from "/plausible-tracker/build/module/index.js";
            const plausible = Plausible({ domain: "docs-plausible-tracker.example", apiHost: "http://stats.example" });
            plausible.enableAutoPageviews();
            plausible.enableAutoOutboundTracking();
            window.event = plausible.trackEvent;
        </script>"#,
        event: "event('Signup')",
        missing: Some("event('404')"),
        events: 2,
    },
    Tracker {
        slug: "goatcounter",
        host: "docs-goatcounter.example",
        // A site counts the steps within its pages by itself.
        head: r#"<script data-goatcounter="http://stats.example/count" src="/goatcounter/count.js" defer></script>
        <script>
            const push = history.pushState;
            const step = () => goatcounter.count({ path: location.pathname });
            history.pushState = function () { push.apply(this, arguments); step(); };
            addEventListener("popstate", step);
            window.event = (name) => goatcounter.count({ path: name, event: true });
        </script>"#,
        event: "event('Signup')",
        missing: None,
        events: 1,
    },
];

/// A site for all hosts: the scripts' files, and pages with the script of their host.
async fn answer(State(folder): State<Arc<PathBuf>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    if path == "/favicon.ico" {
        return StatusCode::NO_CONTENT.into_response();
    }
    if ["/plausible/", "/plausible-tracker/", "/goatcounter/"].iter().any(|start| path.starts_with(start)) {
        // Modules import one another without the ending that a bundler adds.
        let file = format!("{}{path}", folder.display());
        let file = if file.ends_with(".js") { file } else { format!("{file}.js") };
        return match std::fs::read(&file) {
            Ok(text) => ([(header::CONTENT_TYPE, "text/javascript")], Bytes::from(text)).into_response(),
            Err(error) => (StatusCode::NOT_FOUND, format!("{file}: {error}")).into_response(),
        };
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let Some(tracker) = TRACKERS.iter().find(|tracker| tracker.host == host) else {
        let link = |tracker: &Tracker| {
            format!("<p><a id=\"{}\" href=\"http://{}/start-here\">docs</a></p>", tracker.slug, tracker.host)
        };
        return Html(format!(
            "<!doctype html><title>Elsewhere</title>{}",
            TRACKERS.iter().map(link).collect::<String>()
        ))
        .into_response();
    };
    let body = "<p><a id=\"inside\" href=\"/install-guide\">Guide</a></p><p><a id=\"outside\" href=\"http://out.example/\">Out</a></p>\
                <p style=\"height: 3000px\">Text</p>";
    let page =
        format!("<!doctype html><html><head><title>Docs</title>{}</head><body>{body}</body></html>", tracker.head);
    let status = if path == "/gone-page" { StatusCode::NOT_FOUND } else { StatusCode::OK };
    (status, Html(page)).into_response()
}

async fn site(folder: PathBuf) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(answer).with_state(Arc::new(folder));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Waits until the tab has sent this many views of the page to the endpoint. An older script's request ends with its page.
async fn viewed(page: &Page, segment: &str, times: usize) -> Result<()> {
    eventually(&format!("{times} views of {segment}"), async || {
        let is_view = |url: &str, body: &str| match url.contains("/count?") {
            true => url.contains(segment) && !url.contains("&e=true"),
            false => body.contains(segment) && body.contains(r#""n":"pageview""#),
        };
        let requests = page.requests();
        let views = requests.iter().filter(|request| {
            request.url.starts_with(ENDPOINT) && is_view(&request.url, request.body.as_deref().unwrap_or_default())
        });
        let responses = page.responses();
        let answered = |id: &str| responses.iter().any(|response| response.id == id && response.status < 300);
        let answered = views.filter(|request| answered(&request.id)).count();
        ensure!(answered >= times, "{answered} so far of {requests:?}");
        Ok(())
    })
    .await
}

/// A reader's way: from another site, two steps within the page and one back, a link, an event, another site, a missing page.
async fn read(browser: &Browser, tracker: &Tracker) -> Result<()> {
    let page = browser.new_page().await?;
    page.watch_console().await?;
    page.navigate("http://ref.example/").await?;
    page.loads(page.click(&format!("#{}", tracker.slug))).await?;
    viewed(&page, "start-here", 1).await?;
    for step in ["/step-one", "/step-two"] {
        page.evaluate::<Value>(&format!("void history.pushState(null, '', '{step}')")).await?;
        viewed(&page, &step[1..], 1).await?;
    }
    page.evaluate::<Value>("void history.back()").await?;
    viewed(&page, "step-one", 2).await?;
    page.loads(page.click("#inside")).await?;
    viewed(&page, "install-guide", 1).await?;
    page.evaluate::<Value>("void scrollTo(0, 2000)").await?;
    page.evaluate::<Value>(&format!("void {}", tracker.event)).await?;
    page.loads(page.click("#outside")).await?;
    page.navigate(&format!("http://{}/gone-page", tracker.host)).await?;
    viewed(&page, "gone-page", 1).await?;
    if let Some(missing) = tracker.missing {
        page.evaluate::<Value>(&format!("void {missing}")).await?;
    }
    page.navigate("http://out.example/").await?;
    // The status of the missing page itself is the site's.
    let mut complaints = page.complaints();
    complaints.retain(|event| !event["params"]["entry"]["url"].as_str().is_some_and(|url| url.ends_with("/gone-page")));
    ensure!(complaints.is_empty(), "{}: the console shows {complaints:?}", tracker.slug);
    page.close().await
}

fn check(report: &Value, tracker: &Tracker) -> Result<()> {
    let items = report["pages"]["items"].as_array().context("pages.items")?;
    let pages: BTreeMap<_, _> = items
        .iter()
        .map(|item| ((item["path"].as_str().unwrap_or_default(), item["status"].as_u64()), item["views"].as_u64()))
        .collect();
    let opened = [("/start-here", 1), ("/step-one", 2), ("/step-two", 1), ("/install-guide", 1), ("/gone-page", 1)];
    let opened: BTreeMap<_, _> = opened.map(|(path, views)| ((path, Some(200)), Some(views))).into();
    ensure!(pages == opened, "{pages:?}");
    // The steps repeat the first referrer.
    let totals = &report["totals"];
    ensure!(totals["visits"] == 4 && totals["visits_up_to"] == true, "{totals}");
    let referrers = &report["breakdowns"]["referrer"];
    ensure!(*referrers == json!([{"value": "ref.example", "views": 4}]), "{referrers}");
    let reported = if tracker.missing.is_some() { json!([{"path": "/gone-page", "reports": 1}]) } else { json!([]) };
    ensure!(report["reported_missing"] == reported, "{}", report["reported_missing"]);
    let events = totals["rejected"]["not_a_view"].as_u64().unwrap_or(0);
    ensure!(events >= tracker.events, "{events} events: {totals}");
    ensure!(totals["bots"].as_object().is_some_and(|bots| bots.values().all(|views| *views == 0)), "{totals}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn released_scripts_count_what_the_reader_opened() -> Result<()> {
    let folder = std::env::var("HEADCOUNT_TRACKERS").context("HEADCOUNT_TRACKERS: see scripts/trackers")?;
    let projects = TRACKERS.map(|tracker| (tracker.slug, tracker.host));
    let service = Service::started(&["--clock-start", CLOCK, "--small-cell-floor", "3"], &projects).await?;
    let site = site(PathBuf::from(folder)).await?;
    let hosts: Vec<String> = TRACKERS
        .iter()
        .map(|tracker| tracker.host)
        .chain(["ref.example", "out.example"])
        .map(|host| format!("MAP {host} {site}"))
        .collect();
    let rules = format!("--host-resolver-rules=MAP stats.example {},{}", service.address(), hosts.join(","));
    let browser = Browser::launch_with(USER_AGENT, &[&rules]).await?;
    for tracker in &TRACKERS {
        read(&browser, tracker).await.with_context(|| tracker.slug.to_owned())?;
    }
    for tracker in &TRACKERS {
        service.counted(tracker.slug, MONTH, 6).await?;
        eventually(&format!("the report of {}", tracker.slug), async || {
            check(&service.report(tracker.slug, MONTH).await?, tracker)
        })
        .await?;
    }
    Ok(())
}
