//! A page with the Content-Security-Policy that the setup page shows, in a browser.

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::response::Html;
use axum::routing::get;
use harness::browser::{Browser, Page};
use harness::service::Service;
use schemas::Hour;
use std::net::Ipv4Addr;
use std::path::Path;
use tokio::net::TcpListener;

/// The service's URL in the README.
const EXAMPLE: &str = "https://stats.example.org";

/// The text of a box of the setup page.
async fn shown(page: &Page, label: &str) -> Result<String> {
    page.evaluate(&format!("document.querySelector('pre[aria-label=\"{label}\"]').innerText.trim()")).await
}

/// A docs host with a page of this line and policy, `/allowed.html`, and one without the service in its policy, `/blocked.html`.
fn site(line: &str, pixel: &str, policy: String) -> Router {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><title>Page</title>{line}</head><body><noscript><img src=\"{pixel}\" \
         referrerpolicy=\"no-referrer-when-downgrade\" alt=\"\"></noscript></body></html>"
    );
    let page = |policy: String| {
        let html = html.clone();
        get(async move || ([("content-security-policy", policy)], Html(html)))
    };
    let nothing = "script-src 'self'; connect-src 'self'; img-src 'self'".to_owned();
    Router::new().route("/allowed.html", page(policy)).route("/blocked.html", page(nothing))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_with_the_policy_of_the_setup_page_is_counted() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let host = listener.local_addr()?;
    let mut service = Service::started(&[], &[("guide", &host.to_string())]).await?;
    let month = Hour::of(chrono::Utc::now()).month().to_string();

    let browser = Browser::launch().await?;
    let page = browser.new_page().await?;
    page.navigate(&service.url(&format!("/projects/guide/{month}"))).await?;
    let (line, header) = (shown(&page, "The line for any site").await?, shown(&page, "The policy of a site").await?);
    let policy = header.strip_prefix("Content-Security-Policy: ").context("a header")?.to_owned();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"))?;
    let in_readme = header.replace(&service.url(""), EXAMPLE);
    ensure!(readme.contains(&in_readme), "the README has the same line: {in_readme}");

    let pixel = service.url("/v1/page.gif?project=guide");
    let router = site(&line, &pixel, policy);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (script, beacon) = (service.url("/page.js"), service.url("/v1/page"));

    // Blocked pages first: had one been counted, the count at the end would show it.
    let blocked = browser.new_page().await?;
    blocked.watch_console().await?;
    blocked.navigate(&format!("http://{host}/blocked.html")).await?;
    ensure!(blocked.responses().iter().all(|response| response.url != script), "the policy has an effect");
    let without_scripts = browser.new_page().await?;
    without_scripts.disable_scripts().await?;
    without_scripts.navigate(&format!("http://{host}/blocked.html")).await?;
    ensure!(without_scripts.responses().iter().all(|response| response.url != pixel), "the policy has an effect");

    // A separate tab, since a page is counted when it is in front.
    let page = browser.new_page().await?;
    page.watch_console().await?;
    let mark = page.mark();
    page.navigate(&format!("http://{host}/allowed.html")).await?;
    let answer = page.response(mark, "the beacon's answer", |response| response.url == beacon).await?;
    ensure!(answer.status == 202, "{answer:?}");
    // The browser itself requests the site's icon, not the page.
    let complaints = page.complaints();
    ensure!(complaints.iter().all(|complaint| complaint.to_string().contains("favicon")), "{complaints:#?}");
    let mark = without_scripts.mark();
    without_scripts.navigate(&format!("http://{host}/allowed.html")).await?;
    let answer = without_scripts.response(mark, "the pixel", |response| response.url == pixel).await?;
    ensure!(answer.status == 200, "{answer:?}");
    service.counted("guide", &month, 2).await?;
    println!("counted with the policy: {header}");
    service.stop().await
}
