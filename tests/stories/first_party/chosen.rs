//! Paths that the operator chooses, and the old ones, which remain.

use anyhow::{Result, ensure};
use harness::browser::{Browser, Page};
use harness::docs_site::DocsSite;
use harness::http;
use harness::service::Service;
use schemas::Hour;
use std::process::Command;

/// Shows a page and waits for the answer to the beacon that it posts to this path of the service.
async fn counted_by(page: &Page, url: &str, beacon: &str) -> Result<()> {
    let mark = page.mark();
    page.navigate(url).await?;
    let answer = page.response(mark, "the beacon's answer", |response| response.url == beacon).await?;
    ensure!(answer.status == 202, "{beacon}: {answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_paths_count_and_the_old_ones_still_do() -> Result<()> {
    let chosen = ["--script-path", "/_static/extra/reader.js", "--beacon-path", "/_static/note"];
    let mut service = Service::started(&chosen, &[]).await?;
    let html = "<!doctype html><html lang=\"en\"><head><title>Page</title></head><body></body></html>";
    let mut sites = Vec::new();
    for (slug, script) in [("new", "/_static/extra/reader.js"), ("old", "/beacon.js")] {
        let site = DocsSite::new(&service.url(script), slug).page("/a.html", html).start().await?;
        service.register(&[(slug, &site.address().to_string())]).await?;
        sites.push(site);
    }
    let (month, browser) = (Hour::of(chrono::Utc::now()).month().to_string(), Browser::launch().await?);
    let page = browser.new_page().await?;
    page.navigate(&service.url(&format!("/projects/new/{month}"))).await?;
    let shown: String = page.evaluate("document.querySelector('.snippets').innerText").await?;
    for path in ["/_static/extra/reader.js", "/_static/note", "/_static/note.gif"] {
        ensure!(shown.contains(&service.url(path)), "{path}: {shown}");
    }
    counted_by(&page, &sites[0].url("/a.html"), &service.url("/_static/note")).await?;
    // A proxy that forwards only the old paths still works.
    counted_by(&page, &sites[1].url("/a.html"), &service.url("/v1/pageview")).await?;
    service.counted("new", &month, 1).await?;
    service.counted("old", &month, 1).await?;

    for (path, status) in [
        ("/_static/note.gif?url=http://nowhere.example/", 404),
        ("/v1/pageview.gif?url=http://nowhere.example/", 404),
        ("/_static/note", 405),
        ("/page.js", 404),
        ("/v1/page", 404),
    ] {
        let answer = http::get(service.address(), path).await?;
        ensure!(answer.status == status, "{path}: {answer:?}");
    }
    let printed = service.done(&["project", "add", "third", "--host", "third.example"]).await?;
    ensure!(printed.contains("<script defer src=\"https://stats.example.org/page.js\""), "{printed}");
    service.stop().await
}

#[test]
fn a_path_of_a_report_is_refused_at_the_start() -> Result<()> {
    for (flag, value, expected) in [
        ("--script-path", "/projects/a.js", "setting `script_path` is \"/projects/a.js\" (flag --script-path)"),
        ("--beacon-path", "page", "expected a path that begins with /"),
        ("--beacon-path", "/page.js", "the script and the beacons would share the path /page.js"),
    ] {
        let output = Command::new(harness::service::binary()?).args(["config", flag, value]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(expected), "{flag} {value}: {said}");
    }
    Ok(())
}
