//! A documentation site with the beacon on its pages, for trying headcount; a simulated reader for it; and pictures of pages.
//!
//! ```text
//! demo-site --root /usr/share/doc/sphinx-doc/html --beacon http://127.0.0.1:8787/page.js --project sphinx \
//!     --listen 127.0.0.1:8788 --browse 20
//! demo-site --screenshot http://127.0.0.1:8787/… report.png 1280x800 --dark
//! ```

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use harness::{
    browser::{Browser, Page, View},
    docs_site::{DocsSite, RunningSite},
};
use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    path::PathBuf,
};
use tokio::signal::unix::{SignalKind, signal};

/// Serves a folder of built documentation with the beacon on every page, or takes a picture of a page.
#[derive(Debug, Parser)]
#[command(name = "demo-site")]
struct Options {
    /// The folder of built HTML.
    #[arg(long, required_unless_present = "screenshot")]
    root: Option<PathBuf>,

    /// Address of the beacon script: http://HOST/page.js
    #[arg(long, required_unless_present = "screenshot")]
    beacon: Option<String>,

    /// The project's slug.
    #[arg(long, required_unless_present = "screenshot")]
    project: Option<String>,

    /// More attributes for the script element, as in HTML: 'data-version="stable"'.
    #[arg(long, default_value = "")]
    attributes: String,

    /// Where to serve.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Read so many pages in a real browser, each once, following links from the index.
    #[arg(long, value_name = "N")]
    browse: Option<usize>,

    /// End after that instead of serving until SIGTERM or SIGINT.
    #[arg(long)]
    once: bool,

    /// Take a picture of a page (PNG) and end.
    #[arg(long, num_args = 3, value_names = ["URL", "FILE", "WIDTHxHEIGHT"])]
    screenshot: Vec<String>,

    /// The picture: the whole page, not only its first screen.
    #[arg(long)]
    full_page: bool,

    /// The picture: as a telephone shows it.
    #[arg(long)]
    mobile: bool,

    /// The picture: for a reader who prefers dark colours.
    #[arg(long)]
    dark: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let [url, file, size] = &options.screenshot[..] {
        return picture(&options, url, file, size).await;
    }
    let beacon = options.beacon.as_deref().context("--beacon is required")?;
    let root = options.root.clone().context("--root is required")?;
    ensure!(root.join("index.html").is_file(), "{} has no index.html", root.display());
    let mut site = DocsSite::new(beacon, options.project.as_deref().context("--project is required")?).root(root);
    site.attributes = options.attributes.clone();
    let endpoint = site.endpoint();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let site = site.start_on(options.listen).await?;
    println!("serving {}", site.url("/"));

    let reading = async {
        if let Some(pages) = options.browse {
            browse(&site, &endpoint, pages).await?;
        }
        if !options.once {
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    tokio::select! {
        result = reading => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Reads `count` pages, and is content with a page only when its beacon was accepted.
async fn browse(site: &RunningSite, endpoint: &str, count: usize) -> Result<()> {
    let browser = Browser::launch().await?;
    let page = browser.new_page().await?;
    let mut read = BTreeSet::new();
    let mut found = VecDeque::from([site.url("/index.html")]);
    while read.len() < count {
        let Some(next) = found.pop_front() else {
            bail!("only {} pages can be reached from the index, not {count}", read.len());
        };
        if !read.insert(next.clone()) {
            continue;
        }
        let before = page.mark();
        // If the current page has the link, it is clicked, so that the next page's referrer is real.
        let follow = format!("(a => a && (a.click(), true))({LINKS}.find(a => address(a) == {next:?})) || false");
        let clicked = read.len() > 1 && page.loads_if(page.evaluate(&in_page(&follow))).await?;
        if !clicked {
            page.navigate(&next).await?;
        }
        let status = answer(&page, before, endpoint).await.with_context(|| format!("the beacon of {next}"))?;
        ensure!(matches!(status, 200..300), "the beacon of {next} was refused with {status}");
        println!("{next}");
        let links: Vec<String> = page.evaluate(&in_page(&format!("{LINKS}.map(address)"))).await?;
        // Links of the newest page first: a reader continues from the current page.
        for link in links.into_iter().rev().filter(|link| !read.contains(link)) {
            found.push_front(link);
        }
    }
    println!("browsed {} pages", read.len());
    Ok(())
}

const LINKS: &str =
    "[...document.links].filter(a => a.origin == location.origin && a.pathname.endsWith('.html') && !a.target)";

fn in_page(expression: &str) -> String {
    format!("(() => {{ const address = a => a.origin + a.pathname; return {expression} }})()")
}

/// The status that the beacon got in the end: passing failures are followed by the script's own second attempt.
async fn answer(page: &Page, from: usize, endpoint: &str) -> Result<u16> {
    let mut failed: Option<String> = None;
    loop {
        let response = page
            .response(from, "the beacon to be answered", |response| {
                response.url == endpoint && failed.as_ref() != Some(&response.id)
            })
            .await
            .with_context(|| if failed.is_some() { "the second attempt" } else { "the first attempt" })?;
        let passing = response.status == 429 || response.status >= 500;
        if !passing || failed.is_some() {
            return Ok(response.status);
        }
        failed = Some(response.id);
    }
}

async fn picture(options: &Options, url: &str, file: &str, size: &str) -> Result<()> {
    let (width, height) = size.split_once('x').context("a size is WIDTHxHEIGHT, as in 1280x800")?;
    let view = View {
        width: width.parse().with_context(|| format!("the width in {size}"))?,
        height: height.parse().with_context(|| format!("the height in {size}"))?,
        mobile: options.mobile,
        dark: options.dark,
        full_page: options.full_page,
    };
    let browser = Browser::launch().await?;
    let page = browser.new_page().await?;
    // Before loading, since a page may choose its content by them.
    page.set_view(view).await?;
    page.navigate(url).await?;
    let png = page.screenshot(view).await?;
    std::fs::write(file, png).with_context(|| format!("write {file}"))?;
    println!("wrote {file}");
    Ok(())
}
