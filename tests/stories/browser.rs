//! A real browser on real documentation, and a real service: the report shows exactly what a reader did.

use anyhow::{Context, Result, ensure};
use harness::browser::{Browser, Page, View};
use harness::docs_site::{DocsSite, RunningSite};
use harness::service::Service;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";

const APP: &str = "<!doctype html><html lang=\"en\"><head><title>App</title></head><body><p>Text</p></body></html>";

/// (path, status) → views.
type Pages = BTreeMap<(String, u64), u64>;

/// Built documentation of a real project.
fn sphinx() -> PathBuf {
    let installed = Path::new("/usr/share/doc/sphinx-doc/html").to_owned();
    std::env::var_os("HEADCOUNT_DOCS_HTML").map_or(installed, PathBuf::from)
}

async fn site(service: &Service, slug: &str) -> Result<RunningSite> {
    ensure!(
        sphinx().is_dir(),
        "no documentation in {}: install sphinx-doc, or set HEADCOUNT_DOCS_HTML",
        sphinx().display()
    );
    let mut site = DocsSite::new(&service.url("/page.js"), slug).root(sphinx()).page("/app/start", APP);
    site.attributes = "data-version=\"stable\"".to_owned();
    site.start().await
}

/// A step that shows a page, up to the service's response to its beacon, which must have this status.
async fn step<T>(page: &Page, service: &Service, status: u16, doing: impl Future<Output = Result<T>>) -> Result<T> {
    let mark = page.mark();
    let done = doing.await?;
    let endpoint = service.url("/v1/page");
    let answer = page.response(mark, "the beacon's answer", |response| response.url.starts_with(&endpoint)).await?;
    ensure!(answer.status == status, "the beacon was answered {answer:?}");
    Ok(done)
}

fn pages(list: &Value) -> Result<Pages> {
    let items = list["items"].as_array().context("a list has items")?;
    let page = |item: &Value| {
        let key = (item["path"].as_str()?.to_owned(), item["status"].as_u64()?);
        Some((key, item["views"].as_u64()?))
    };
    items.iter().map(page).collect::<Option<_>>().with_context(|| format!("a list of pages: {list}"))
}

fn viewed(paths: &[&str]) -> Pages {
    let mut pages = Pages::new();
    for path in paths {
        // Stored without the index file.
        let stored = path.strip_suffix("index.html").unwrap_or(path);
        *pages.entry((stored.to_owned(), 200)).or_default() += 1;
    }
    pages
}

/// The one value of a breakdown, and its views.
fn only(report: &Value, dimension: &str) -> Result<(String, u64)> {
    let items = report["breakdowns"][dimension].as_array().with_context(|| format!("no {dimension}"))?;
    ensure!(items.len() == 1, "{dimension}: {items:?}");
    Ok((items[0]["value"].as_str().unwrap_or("?").to_owned(), items[0]["views"].as_u64().unwrap_or(0)))
}

/// Checks that apply to every tab of every story in the end.
async fn left_nothing(page: &Page, hosts: &[String]) -> Result<()> {
    for request in page.requests() {
        let own = hosts.iter().any(|host| request.url.starts_with(host.as_str()));
        ensure!(own || request.url.starts_with("data:") || request.url == "about:blank", "a third host: {request:?}");
    }
    for response in page.responses().iter().filter(|response| response.url.starts_with(&hosts[0])) {
        let headers = response.headers.as_object().context("headers")?;
        for name in headers.keys().map(|name| name.to_ascii_lowercase()) {
            ensure!(!["set-cookie", "etag", "last-modified"].contains(&name.as_str()), "{name}: {response:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_shows_what_readers_did() -> Result<()> {
    let service = Service::started(&["--clock-start", CLOCK], &[]).await?;
    let sites = [
        site(&service, "guide").await?,
        site(&service, "still").await?,
        site(&service, "spa").await?,
        site(&service, "quiet").await?,
    ];
    let [guide, still, spa, quiet] = &sites;
    let hosts: Vec<String> = sites.iter().map(|site| site.address().to_string()).collect();
    let slugs = ["guide", "still", "spa", "quiet"];
    let registered: Vec<(&str, &str)> = slugs.into_iter().zip(hosts.iter().map(String::as_str)).collect();
    service.register(&registered).await?;
    let browser = Browser::launch().await?;
    let allowed: Vec<String> =
        std::iter::once(service.url("/")).chain(sites.iter().map(|site| site.url("/"))).collect();

    let reader = with_scripts(&service, &browser, guide).await?;
    let without = without_scripts(&service, &browser, still).await?;
    let app = in_a_single_page_site(&service, &browser, spa).await?;
    let unseen = readers_who_opt_out_are_not_counted(&service, &browser, quiet).await?;

    for page in [&reader, &without, &app, &unseen] {
        left_nothing(page, &allowed).await?;
    }
    const LEFT: &str = "(async () => [document.cookie, Object.keys(localStorage), Object.keys(sessionStorage), \
        await indexedDB.databases()])()";
    for page in [&reader, &app] {
        ensure!(page.evaluate::<Value>(LEFT).await? == json!(["", [], [], []]), "something was stored");
    }
    ensure!(browser.cookies().await?.is_empty(), "cookies: {:?}", browser.cookies().await?);
    the_page_of_the_report(&service, &browser).await
}

/// Twelve pages, each reached by a link on the previous one; the last is reloaded; then one that does not exist.
async fn with_scripts(service: &Service, browser: &Browser, site: &RunningSite) -> Result<Page> {
    let page = browser.new_page().await?;
    step(&page, service, 202, page.navigate(&site.url("/index.html?q=secret#top"))).await?;
    let mut read = BTreeSet::from(["/index.html".to_owned()]);
    let mut way = vec!["/index.html".to_owned()];
    while read.len() < 12 {
        let follow = format!(
            "(read => {{ const next = [...document.links].find(a => a.origin == location.origin && !a.target \
             && a.pathname.endsWith('.html') && !read.includes(a.pathname)); next?.click(); return !!next }})({})",
            json!(read)
        );
        let followed = step(&page, service, 202, page.loads_if(page.evaluate(&follow))).await?;
        ensure!(followed, "no page is left to read after {way:?}");
        let path: String = page.evaluate("location.pathname").await?;
        ensure!(read.insert(path.clone()), "{path} twice: {way:?}");
        way.push(path);
    }
    step(&page, service, 202, page.reload()).await?;
    way.push(way[11].clone());
    step(&page, service, 202, page.navigate(&site.url("/no/such/page.html"))).await?;

    let report = service.counted("guide", MONTH, 14).await?;
    let paths: Vec<&str> = way.iter().map(String::as_str).collect();
    let mut expected = viewed(&paths);
    let missing = (("/no/such/page.html".to_owned(), 404), 1);
    expected.extend([missing.clone()]);
    ensure!(pages(&report["pages"])? == expected, "{}\nread: {way:?}", report["pages"]);
    ensure!(pages(&report["not_found"])? == Pages::from([missing]), "{}", report["not_found"]);
    // The index and the missing page were typed; all others were reached by links.
    ensure!(report["totals"]["visits"] == 2, "{}", report["totals"]);
    ensure!(report["totals"]["visitors"]["estimate"] == 1, "{}", report["totals"]);
    ensure!(report["totals"]["rejected"] == json!({}), "{}", report["totals"]);
    let expected =
        [("device", "Desktop"), ("browser", "Chrome"), ("os", "Linux"), ("version", "stable"), ("language", "en")];
    for (dimension, value) in expected {
        ensure!(only(&report, dimension)? == (value.to_owned(), 14), "{}", report["breakdowns"]);
    }
    // One direct arrival at a page that exists is suppressed; the other one was at a missing page.
    ensure!(only(&report, "referrer")? == ("other".to_owned(), 1), "{}", report["breakdowns"]);
    ensure!(report["totals"]["visits_at_missing_pages"] == 1, "{}", report["totals"]);
    Ok(page)
}

async fn without_scripts(service: &Service, browser: &Browser, site: &RunningSite) -> Result<Page> {
    let page = browser.new_page().await?;
    page.disable_scripts().await?;
    let opened = ["/index.html", "/usage/quickstart.html", "/usage/installation.html"];
    for path in opened {
        step(&page, service, 200, page.navigate(&site.url(path))).await?;
    }
    let report = service.counted("still", MONTH, 3).await?;
    ensure!(pages(&report["pages"])? == viewed(&opened), "{}", report["pages"]);
    ensure!(page.requests().iter().all(|request| request.method == "GET"), "the pixel alone counted");
    Ok(page)
}

async fn in_a_single_page_site(service: &Service, browser: &Browser, site: &RunningSite) -> Result<Page> {
    let page = browser.new_page().await?;
    step(&page, service, 202, page.navigate(&site.url("/app/start"))).await?;
    for path in ["/app/install", "/app/use", "/app/install"] {
        let push = format!("history.pushState(null, '', {})", json!(path));
        step(&page, service, 202, page.evaluate::<Value>(&push)).await?;
    }
    page.evaluate::<Value>("(location.hash = 'part', history.replaceState(null, '', '?tab=2'), null)").await?;
    step(&page, service, 202, page.evaluate::<Value>("history.pushState(null, '', '/app/end')")).await?;
    let report = service.counted("spa", MONTH, 5).await?;
    let way = ["/app/start", "/app/install", "/app/use", "/app/install", "/app/end"];
    ensure!(pages(&report["pages"])? == viewed(&way), "{}", report["pages"]);
    ensure!(report["totals"]["visits"] == 1, "one arrival: {}", report["totals"]);
    Ok(page)
}

/// Global Privacy Control, as browsers implement it: a header and a property.
async fn readers_who_opt_out_are_not_counted(service: &Service, browser: &Browser, site: &RunningSite) -> Result<Page> {
    let page = browser.new_page().await?;
    page.set_headers(&[("Sec-GPC", "1")]).await?;
    page.on_new_document("Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })").await?;
    for path in ["/index.html", "/usage/quickstart.html"] {
        page.navigate(&site.url(path)).await?;
    }
    ensure!(page.requests().iter().any(|request| request.url == service.url("/page.js")), "the script was there");
    ensure!(page.requests().iter().all(|request| request.method != "POST"), "{:?}", page.requests());
    page.disable_scripts().await?;
    step(&page, service, 204, page.navigate(&site.url("/usage/installation.html"))).await?;
    // A reader who is counted comes last: had an earlier one been counted, it would show.
    let sentinel = browser.new_page().await?;
    step(&sentinel, service, 202, sentinel.navigate(&site.url("/index.html"))).await?;
    let report = service.counted("quiet", MONTH, 1).await?;
    ensure!(pages(&report["pages"])? == viewed(&["/index.html"]), "{}", report["pages"]);
    ensure!(report["totals"]["rejected"] == json!({}), "neither counted nor refused: {}", report["totals"]);
    Ok(page)
}

async fn the_page_of_the_report(service: &Service, browser: &Browser) -> Result<()> {
    let views = service.report("guide", MONTH).await?["totals"]["views"].to_string();
    for (width, height, mobile) in [(1280, 800, false), (390, 844, true)] {
        let page = browser.new_page().await?;
        page.watch_console().await?;
        page.set_view(View { width, height, mobile, dark: false, full_page: false }).await?;
        page.navigate(&service.url(&format!("/projects/guide/{MONTH}"))).await?;
        let shown: String = page.evaluate("document.querySelector('p.figure').textContent.trim()").await?;
        ensure!(shown == views, "the page shows {shown:?} views, JSON {views}");
        // Not innerWidth alone: a telephone zooms out until wide content fits.
        let needed: u32 = page.evaluate("document.documentElement.scrollWidth").await?;
        let inner: u32 = page.evaluate("innerWidth").await?;
        ensure!(needed <= width && needed <= inner, "{needed} pixels on a screen of {width} ({inner})");
        ensure!(page.complaints().is_empty(), "at {width}: {:#?}", page.complaints());
        for request in page.requests() {
            ensure!(request.url.starts_with(&service.url("/")), "a third host: {request:?}");
        }
    }
    Ok(())
}
