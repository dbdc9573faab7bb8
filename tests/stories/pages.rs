//! The pages as people see them: on a desk, on a telephone, in the dark, on paper, without scripts, with a screen reader's rules, on a project's
//! first day. A real service and a real browser; the traffic is invented.
//!
//! With `HEADCOUNT_PICTURES=DIR` the same pages are also photographed, for the documentation (`scripts/pictures`).

use anyhow::{Context as _, Result, ensure};
use harness::browser::{Browser, Page, View};
use harness::http::{self, Connection};
use harness::service::{Service, eventually};
use harness::traffic::{self, PAGES, Traffic};
use schemas::{Hour, Month};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Before all invented traffic, so that no month of it is closed while it is written.
const LONG_AGO: &str = "2025-09-01T00:00:00Z";

/// The first working day of a month: October has ended and is not closed yet.
const NOW: &str = "2026-11-02T09:20:00Z";

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// Maximum bytes of a first visit: HTML, style and script together, uncompressed.
const FIRST_VIEW: usize = 60_000;

/// A report page's width on the narrowest telephones.
const NARROW: View = View { width: 360, height: 740, mobile: true, dark: false, full_page: true };
const DESK: View = View { width: 1120, height: 1560, mobile: false, dark: false, full_page: false };

fn dark(view: View) -> View {
    View { dark: true, ..view }
}

fn axe() -> Result<String> {
    let named =
        std::env::var_os("HEADCOUNT_AXE").context("HEADCOUNT_AXE names no axe.min.js: scripts/axe fetches it")?;
    std::fs::read_to_string(&named).with_context(|| format!("read {}", Path::new(&named).display()))
}

/// A service with a project of fourteen months, some smaller ones, and one that waits for its first view.
async fn service() -> Result<Service> {
    let mut service = Service::new(&[])?;
    service.start(&["--clock-start", LONG_AGO]).await?;
    service
        .register(&[
            ("sphinx", "www.sphinx-doc.org"),
            ("alabaster", "alabaster.example.org"),
            ("furo", "furo.example.org"),
            ("fresh", "fresh.example.org"),
        ])
        .await?;
    let client = service.clickhouse()?;
    let (now, last) = (Hour::of(NOW.parse()?), "2026-11".parse::<Month>()?);
    let until = Hour(now.0 + 1);
    let sphinx = Traffic { project: "sphinx", visits: 170, growth: 3, pages: PAGES };
    sphinx.write(&client, last, 14, until).await?;
    Traffic { project: "alabaster", visits: 24, growth: 1, pages: &PAGES[..9] }.write(&client, last, 3, until).await?;
    Traffic { project: "furo", visits: 60, growth: 6, pages: &PAGES[..20] }.write(&client, last, 3, until).await?;
    let day = Hour::of("2026-10-14T00:00:00Z".parse()?).day();
    for (reason, host, beacons) in [
        ("foreign_host", "docs.example.org", 312),
        ("foreign_host", "sphinx-doc.github.io", 41),
        ("client_rate_limited", "", 17),
    ] {
        traffic::refused(&client, "sphinx", day, reason, host, beacons).await?;
    }
    service.stop().await?;
    service.start(&["--clock-start", NOW]).await?;
    Ok(service)
}

/// The violations that axe-core finds on the current page.
async fn violations(page: &Page, axe: &str) -> Result<Vec<String>> {
    page.evaluate::<Value>(&format!("(() => {{ {axe}; return null }})()")).await?;
    let found = "axe.run(document, { resultTypes: ['violations'] }).then(result => result.violations.map(violation => \
         `${violation.id}: ${violation.help}: ${violation.nodes.slice(0, 3).map(node => node.html.slice(0, 200) + ' ' + node.failureSummary).join(' | ')}`))";
    page.evaluate(found).await
}

/// Opens the page and checks it against all rules.
async fn visit(browser: &Browser, service: &Service, path: &str, view: View, axe: &str) -> Result<Page> {
    let page = browser.new_page().await?;
    page.watch_console().await?;
    page.set_view(view).await?;
    page.navigate(&service.url(path)).await?;
    let what = format!("{path} at {} pixels, dark: {}", view.width, view.dark);
    let needed: u32 = page.evaluate("document.documentElement.scrollWidth").await?;
    let inner: u32 = page.evaluate("innerWidth").await?;
    ensure!(needed <= view.width && needed <= inner, "{what}: needs {needed} pixels ({inner})");
    // Tables hidden behind a summary are checked as well.
    page.evaluate::<Value>("(document.querySelectorAll('details').forEach(part => { part.open = true }), null)")
        .await?;
    let wide: u32 = page.evaluate("document.documentElement.scrollWidth").await?;
    ensure!(wide <= view.width, "{what}: with its tables open it needs {wide} pixels");
    let violations = violations(&page, axe).await?;
    ensure!(violations.is_empty(), "{what}: {violations:#?}");
    page.evaluate::<Value>("(document.querySelectorAll('details').forEach(part => { part.open = false }), null)")
        .await?;
    for request in page.requests() {
        let own = request.url.starts_with(&service.url("/")) || request.url.starts_with("data:");
        ensure!(own, "{what}: a third host: {request:?}");
    }
    Ok(page)
}

async fn text(page: &Page, selector: &str) -> Result<String> {
    page.evaluate(&format!("document.querySelector({}).textContent.replace(/\\s+/g, ' ').trim()", json!(selector)))
        .await
}

fn pictures() -> Option<PathBuf> {
    std::env::var_os("HEADCOUNT_PICTURES").map(PathBuf::from)
}

async fn picture(page: &Page, view: View, name: &str) -> Result<()> {
    if let Some(folder) = pictures() {
        std::fs::write(folder.join(name), page.screenshot(view).await?)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_accessible_and_can_be_printed() -> Result<()> {
    let (service, axe) = (service().await?, axe()?);
    let browser = Browser::launch().await?;
    let october = "/projects/sphinx/2026-10";
    signs_in(&browser, &service, &axe).await?;
    let report = service.report("sphinx", "2026-10").await?;

    for (path, view) in [
        (october, DESK),
        (october, dark(DESK)),
        (october, NARROW),
        (october, dark(NARROW)),
        ("/projects/sphinx/2026-11", DESK),
        ("/projects/sphinx/2025-10", NARROW),
        ("/projects/sphinx/2025-12..2026-11", DESK),
        ("/projects/sphinx/2025-12..2026-11", NARROW),
        ("/projects/alabaster/2026-10?sort=path&prefix=%2Fen%2F", NARROW),
        ("/projects/fresh/2026-11", DESK),
        ("/projects/fresh/2026-11", dark(NARROW)),
        ("/", DESK),
        ("/?prefix=fu", dark(NARROW)),
        ("/privacy", DESK),
        ("/privacy", dark(NARROW)),
    ] {
        let page = visit(&browser, &service, path, view, &axe).await.with_context(|| path.to_owned())?;
        ensure!(page.complaints().is_empty(), "{path} at {}: {:#?}", view.width, page.complaints());
        let lines =
            "[...document.querySelectorAll('.row > .t')].every(line => line.offsetWidth > 0 && line.offsetHeight > 0)";
        ensure!(page.evaluate::<bool>(lines).await?, "{path} at {}: lines that cannot be seen", view.width);
        page.close().await?;
    }
    // The browser's console reports a missing page as an error, so the console is not checked.
    for path in ["/projects/nobody/2026-10", "/projects/sphinx/2026-12"] {
        visit(&browser, &service, path, dark(NARROW), &axe).await?.close().await?;
    }

    weighs_little(&service, october).await?;
    without_scripts(&browser, &service, october, &report).await?;
    photographs(&browser, &service).await?;
    on_paper(&browser, &service, october).await
}

/// A signed-out user is asked for a token; a wrong one is reported; a right one opens the requested page.
async fn signs_in(browser: &Browser, service: &Service, axe: &str) -> Result<()> {
    let token = service.token(None).await?;
    visit(browser, service, "/sign-in", dark(NARROW), axe).await?.close().await?;
    let page = visit(browser, service, "/", DESK, axe).await?;
    let path: String = page.evaluate("location.pathname").await?;
    ensure!(path == "/sign-in", "the index was shown to nobody in particular");
    let send = |token: &str| {
        format!("(document.getElementById('token').value = {}, document.forms[0].submit(), null)", json!(token))
    };
    page.loads(page.evaluate::<Value>(&send("hc_wrong"))).await?;
    ensure!(text(&page, "#why").await?.contains("opens nothing"), "a wrong token");
    let wrong = violations(&page, axe).await?;
    ensure!(wrong.is_empty(), "a wrong token: {wrong:#?}");
    // The service reads permissions every two seconds.
    eventually("the token to be in force", async || {
        page.navigate(&service.url("/sign-in")).await?;
        page.loads(page.evaluate::<Value>(&send(&token))).await?;
        let path: String = page.evaluate("location.pathname").await?;
        ensure!(path == "/", "{path}");
        Ok(())
    })
    .await?;
    page.close().await
}

async fn weighs_little(service: &Service, path: &str) -> Result<()> {
    let mut bytes = 0;
    for part in [path, "/assets/report.css", "/assets/report.js"] {
        let answer = http::get(service.address(), part).await?;
        ensure!(answer.status == 200, "{part}: {}", answer.status);
        bytes += answer.body.len();
    }
    ensure!(bytes < FIRST_VIEW, "the first view has {bytes} bytes");
    Ok(())
}

/// Everything is present and every list can be paged through.
async fn without_scripts(browser: &Browser, service: &Service, path: &str, report: &Value) -> Result<()> {
    let page = browser.new_page().await?;
    page.set_view(DESK).await?;
    page.disable_scripts().await?;
    page.navigate(&service.url(path)).await?;
    // No script can be evaluated here, so the protocol is queried for the browser's document.
    let root = page.call("DOM.getDocument", json!({"depth": 0})).await?["root"]["nodeId"].clone();
    let html = page.call("DOM.getOuterHTML", json!({"nodeId": root})).await?;
    let html = html["outerHTML"].as_str().context("a document")?;
    let views = report["totals"]["views"].as_u64().context("views")?;
    let grouped = format!("{},{:03}", views / 1000, views % 1000);
    for expected in [grouped.as_str(), "<svg", "October 2026", "/projects/sphinx/2026-09", "name=\"prefix\"", "after="]
    {
        ensure!(html.contains(expected), "without scripts there is no {expected}");
    }
    Ok(())
}

async fn on_paper(browser: &Browser, service: &Service, path: &str) -> Result<()> {
    let page = browser.open(&service.url(path)).await?;
    let pdf = page.pdf().await?;
    if let Some(folder) = pictures() {
        std::fs::write(folder.join("report-print.pdf"), &pdf)?;
    }
    let name = b"/Type /Page";
    let named = pdf.windows(name.len() + 1).filter(|part| part.starts_with(name) && part[name.len()] != b's').count();
    ensure!(named == 1, "printed, the report takes {named} pages");
    Ok(())
}

async fn photographs(browser: &Browser, service: &Service) -> Result<()> {
    if pictures().is_none() {
        return Ok(());
    }
    let phone = View { width: 390, height: 844, mobile: true, dark: false, full_page: false };
    for (path, view, name) in [
        ("/projects/sphinx/2026-10", DESK, "report-desktop.png"),
        ("/projects/sphinx/2026-10", View { full_page: true, ..DESK }, "report-whole.png"),
        ("/projects/sphinx/2026-10", dark(DESK), "report-dark.png"),
        ("/projects/sphinx/2026-10", phone, "report-phone.png"),
        ("/projects/sphinx/2026-10", View { full_page: true, ..phone }, "report-phone-whole.png"),
        ("/projects/sphinx/2025-12..2026-11", View { full_page: true, ..DESK }, "report-range.png"),
        ("/projects/sphinx/2026-11", View { full_page: true, ..DESK }, "report-running.png"),
        ("/projects/fresh/2026-11", View { height: 900, ..DESK }, "report-empty.png"),
        ("/", View { height: 620, ..DESK }, "index.png"),
        ("/", phone, "index-phone.png"),
        ("/privacy", View { full_page: true, ..DESK }, "privacy.png"),
        ("/projects/nobody/2026-11", phone, "problem.png"),
    ] {
        let page = browser.new_page().await?;
        page.set_view(view).await?;
        page.navigate(&service.url(path)).await?;
        picture(&page, view, name).await?;
        page.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_view_is_seen_to_arrive() -> Result<()> {
    let service = Service::started(&["--clock-start", NOW], &[("fresh", "fresh.example.org")]).await?;
    let browser = Browser::launch().await?;
    let page = browser.new_page().await?;
    page.watch_console().await?;
    page.navigate(&service.url("/projects/fresh/2026-11")).await?;
    page.until("document.getElementById('live').textContent.startsWith('Waiting for the first view')").await?;
    ensure!(text(&page, ".snippets").await?.contains("html_js_files"), "the lines to paste");

    let mut connection = Connection::open(service.address()).await?;
    let mut send = async |url: &str, status: u16| {
        let body = json!({"project": "fresh", "url": url}).to_string();
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
        ensure!(answer.status == status, "{url}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        anyhow::Ok(())
    };
    // From the wrong host first: the page reports it by itself.
    send("https://elsewhere.example.org/", 404).await?;
    eventually("the refusal to be told", async || {
        let live = http::get(service.address(), "/projects/fresh/live").await?.json()?;
        ensure!(live["refused_today"] == 1, "{live}");
        Ok(())
    })
    .await
    .with_context(|| service.log())?;
    page.until("document.querySelector('.waiting .refused') !== null").await?;
    send("https://fresh.example.org/index.html", 202).await?;
    let seen = page.until("document.querySelector('.figure')?.textContent.trim() === '1'");
    tokio::time::timeout(std::time::Duration::from_secs(40), seen).await.context("it is told as it was before")??;
    let live = eventually("the view to be live", async || {
        let live = http::get(service.address(), "/projects/fresh/live").await?.json()?;
        ensure!(live["last_hour"] == 1, "{live}");
        Ok(live)
    })
    .await?;
    ensure!(live["views_today"] == 1 && live["refused_today"] == 1, "{live}");
    ensure!(text(&page, ".waiting").await?.contains("Counting since 2 November"), "the first day's hints");
    ensure!(page.complaints().is_empty(), "{:#?}", page.complaints());
    Ok(())
}
