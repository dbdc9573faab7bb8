//! Real documentation sites, built by their generators (`scripts/sites`) and browsed in Chromium: every opened page is one
//! view in the report, under its own path and status, with the version and the language of the site.
//!
//! `HEADCOUNT_SITES` names the sites, or `all`; without it the story browses three.

#[path = "sites/visit.rs"]
mod visit;
#[path = "sites/visits.rs"]
mod visits;

use anyhow::{Context as _, Result, bail, ensure};
use harness::{browser::Browser, service::Service, static_site::StaticSite};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use visit::{Site, Tab, View};

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";

/// The path of the service's script, which replaces the one that the sites are built with.
const SCRIPT: &str = "/page.js";
const SHORT: [&str; 3] = ["furo", "material-instant", "rustdoc"];
/// The smallest count of views that a breakdown shows, set by `--small-cell-floor`.
const FLOOR: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn each_opened_page_of_a_real_site_is_one_view() -> Result<()> {
    let chosen = chosen()?;
    let service = Service::started(&["--clock-start", CLOCK, "--small-cell-floor", "3"], &[]).await?;
    let browser = Browser::launch().await?;
    let script = service.url(SCRIPT);
    let replaced = [("https://stats.example.org/beacon.js", script.as_str()), ("https://docs.example.org", "ORIGIN")];
    let mut failed = Vec::new();
    let mut servers = Vec::new();
    for site in &chosen {
        servers.push(StaticSite::start(built(site.name)?, &replaced).await?);
    }
    let hosts: Vec<String> = servers.iter().map(|server| server.address().to_string()).collect();
    let projects: Vec<(&str, &str)> =
        chosen.iter().map(|site| site.name).zip(hosts.iter().map(String::as_str)).collect();
    service.register(&projects).await?;
    for (site, server) in chosen.iter().zip(&servers) {
        let result = browsed(&service, &browser, server, site).await;
        println!("{:<20} {} views: {}", site.name, site.views().len(), if result.is_ok() { "ok" } else { "FAILED" });
        if let Err(error) = result {
            failed.push(format!("{}: {error:#}", site.name));
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

/// The sites to browse.
fn chosen() -> Result<Vec<&'static Site>> {
    let named = std::env::var("HEADCOUNT_SITES").unwrap_or_else(|_| SHORT.join(","));
    if named == "all" {
        return Ok(visits::SITES.iter().collect());
    }
    let find = |name: &str| {
        visits::SITES.iter().find(|site| site.name == name).with_context(|| format!("HEADCOUNT_SITES: no site {name}"))
    };
    named.split(',').map(find).collect()
}

/// The folder of a built site.
fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("a test lives in target/PROFILE/deps")?;
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let folders = [target, &beside].map(|target| target.join("sites").join(name).join("html"));
    match folders.into_iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder),
        None => bail!("the site {name} is not built: run scripts/sites {name}"),
    }
}

async fn browsed(service: &Service, browser: &Browser, server: &StaticSite, site: &Site) -> Result<()> {
    let tab = Tab::open(browser, server, service.url("/v1/page")).await?;
    for step in site.steps {
        tab.take(step).await.with_context(|| format!("{step:?}; sent so far: {:#?}", tab.sent()))?;
    }
    let expected = site.views();
    ensure!(tab.sent() == expected, "sent: {:#?}\nexpected: {expected:#?}", tab.sent());
    let report = service.counted(site.name, MONTH, expected.len() as u64).await?;
    the_report_shows(&report, &expected)
}

fn tally<'a, K: Ord>(views: &'a [View], key: impl Fn(&'a View) -> K) -> BTreeMap<K, u64> {
    let mut tally = BTreeMap::new();
    for view in views {
        *tally.entry(key(view)).or_default() += 1;
    }
    tally
}

/// Checks pages with their statuses, exactly; and versions and languages, of which a report shows those of at least [`FLOOR`] views.
fn the_report_shows(report: &Value, expected: &[View]) -> Result<()> {
    let items = report["pages"]["items"].as_array().context("pages.items")?;
    let row =
        |item: &Value| Some(((item["path"].as_str()?.to_owned(), item["status"].as_u64()?), item["views"].as_u64()?));
    let pages: BTreeMap<_, _> = items.iter().map(row).collect::<Option<_>>().context("a row of a page")?;
    let opened = tally(expected, |view| (view.path.clone(), view.status));
    ensure!(pages == opened, "pages of the report: {pages:#?}\nopened: {opened:#?}");
    ensure!(report["totals"]["rejected"] == serde_json::json!({}), "{}", report["totals"]);
    for (dimension, opened) in [
        ("version", tally(expected, |view| view.version.as_str())),
        ("language", tally(expected, |view| view.language.as_str())),
    ] {
        ensure!(opened.values().all(|&views| views >= FLOOR), "a visit has too few views of a {dimension}: {opened:?}");
        let items = report["breakdowns"][dimension].as_array().with_context(|| format!("no {dimension}"))?;
        let shown: BTreeMap<_, _> =
            items.iter().filter_map(|item| Some((item["value"].as_str()?, item["views"].as_u64()?))).collect();
        ensure!(shown == opened, "{dimension} of the report: {shown:?}\nopened: {opened:?}");
    }
    Ok(())
}
