//! The set-up of the beacon script's stories.

use crate::recorder::Recorder;
use anyhow::{Result, ensure};
use harness::{
    browser::{Browser, Page},
    docs_site::{DocsSite, RunningSite},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A page with a link, whose URL has parts that must not be sent.
pub const PLAIN: &str = "<!doctype html><html lang=\"en\"><head><title>Plain</title></head><body><p>Text</p>\
    <a id=\"next\" href=\"/two.html?q=secret#part\">Two</a></body></html>";

/// A recorder, a site whose pages report to it, and a browser.
pub struct Stage {
    pub recorder: Recorder,
    pub site: RunningSite,
    pub browser: Browser,
}

impl Stage {
    pub async fn new() -> Result<Stage> {
        Stage::with(|site| site).await
    }

    pub async fn with(change: impl FnOnce(DocsSite) -> DocsSite) -> Result<Stage> {
        let recorder = Recorder::start().await?;
        let mut site = DocsSite::new(&recorder.url("/beacon.js"), "guide");
        for path in ["/one.html", "/two.html", "/three.html", "/end.html"] {
            site = site.page(path, PLAIN);
        }
        Stage::of(recorder, change(site)).await
    }

    pub async fn of(recorder: Recorder, site: DocsSite) -> Result<Stage> {
        Ok(Stage { site: site.start().await?, browser: Browser::launch().await?, recorder })
    }

    pub fn url(&self, path: &str) -> String {
        self.site.url(path)
    }

    /// Opens the last page and returns all views up to it, which proves that none is still to come.
    pub async fn views_until_the_end(&self, page: &Page) -> Result<Vec<Value>> {
        page.navigate(&self.url("/end.html")).await?;
        let end = self.url("/end.html");
        let mut views =
            self.recorder.views_until("the last page's view", |views| views.iter().any(|v| v["url"] == end)).await?;
        ensure!(views.pop().is_some_and(|view| view["url"] == end), "something came after the last page: {views:#?}");
        Ok(views)
    }

    pub async fn views(&self, count: usize) -> Result<Vec<Value>> {
        self.recorder.views_until(&format!("{count} views"), |views| views.len() >= count).await
    }
}

/// URL and referrer of views, without the site's origin.
pub fn journey(stage: &Stage, views: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("-").replace(&stage.url(""), "");
    views.iter().map(|view| (text(&view["url"]), text(&view["referrer"]))).collect()
}

pub fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(url, referrer)| (url.to_string(), referrer.to_string())).collect()
}

/// Built documentation of a real project.
pub fn sphinx() -> PathBuf {
    let installed = Path::new("/usr/share/doc/sphinx-doc/html").to_owned();
    std::env::var_os("HEADCOUNT_DOCS_HTML").map_or(installed, PathBuf::from)
}
