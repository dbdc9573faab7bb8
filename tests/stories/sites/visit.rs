//! A reader's visit, step by step, in a real tab.

use anyhow::{Context as _, Result};
use harness::browser::{Browser, Page};
use harness::static_site::StaticSite;
use serde_json::{Value, json};

/// One site, by the name that `scripts/sites` has for it, and a visit of it.
pub struct Site {
    /// Also the project's slug.
    pub name: &'static str,
    /// What the reader does.
    pub steps: &'static [Step],
}

/// What a reader does.
#[derive(Debug)]
pub enum Action {
    /// Enters a URL of the site.
    Open(&'static str),
    /// Clicks on the first visible element that a selector finds.
    Click(&'static str),
    /// Clicks on a link to a part of the same page.
    Anchor(&'static str),
    /// Clicks into a field and types.
    Type(&'static str, &'static str),
    /// Presses the Enter key.
    Enter,
    /// The browser's buttons.
    Back,
    Forward,
    Reload,
}

/// An action, and the one view that it is: "PATH VERSION LANGUAGE STATUS" (`-`: not known), or nothing.
#[derive(Debug)]
pub struct Step(pub Action, pub &'static str);

/// A view, as the report has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub path: String,
    pub version: String,
    pub language: String,
    pub status: u64,
}

impl Site {
    /// The views that this visit is.
    pub fn views(&self) -> Vec<View> {
        self.steps.iter().filter_map(|step| View::parse(step.1)).collect()
    }
}

impl View {
    fn parse(text: &str) -> Option<View> {
        let mut words = text.split(' ').map(|word| if word == "-" { String::new() } else { word.to_owned() });
        let view = View {
            path: words.next()?,
            version: words.next()?,
            language: words.next()?,
            status: words.next()?.parse().ok()?,
        };
        Some(view)
    }

    /// The view that a beacon reports. A view without a status is of a page that exists; the service leaves an index file out of
    /// a path.
    fn of(body: &str) -> Option<View> {
        let beacon: Value = serde_json::from_str(body).ok()?;
        let text = |name: &str| beacon[name].as_str().unwrap_or_default().to_owned();
        let url = url::Url::parse(&text("url")).ok()?;
        let path = match url.fragment() {
            Some(route) => format!("{}#{route}", url.path()),
            None => url.path().strip_suffix("index.html").unwrap_or(url.path()).to_owned(),
        };
        let status = beacon["status"].as_u64().unwrap_or(200);
        Some(View { path, version: text("version"), language: text("language"), status })
    }
}

/// Whether a page has not changed for a while: a reader does not click while a theme is still exchanging the page's content.
const QUIET: &str = "new Promise(done => {
    const end = () => done(true);
    let timer = setTimeout(end, 200);
    const changed = () => { clearTimeout(timer); timer = setTimeout(end, 200) };
    const everything = { subtree: true, childList: true, attributes: true, characterData: true };
    new MutationObserver(changed).observe(document, everything);
})";

/// A tab on a site.
pub struct Tab<'a> {
    page: Page,
    server: &'a StaticSite,
    endpoint: String,
}

impl<'a> Tab<'a> {
    /// An empty tab, whose beacons go to the endpoint.
    pub async fn open(browser: &Browser, server: &'a StaticSite, endpoint: String) -> Result<Tab<'a>> {
        let page = browser.new_page().await?;
        // Wide enough for a theme to show its navigation.
        page.set_view(harness::browser::View {
            width: 1400,
            height: 900,
            mobile: false,
            dark: false,
            full_page: false,
        })
        .await?;
        Ok(Tab { page, server, endpoint })
    }

    /// What the tab's beacons have said so far.
    pub fn sent(&self) -> Vec<View> {
        let requests = self.page.requests();
        let posts = requests.iter().filter(|request| request.method == "POST" && request.url == self.endpoint);
        posts.filter_map(|request| View::of(request.body.as_deref()?)).collect()
    }

    /// Does it, and waits for the answer to its beacon if it is a view. A beacon that comes for a step without a view is found at
    /// the end of the visit.
    pub async fn take(&self, step: &Step) -> Result<()> {
        let mark = self.page.mark();
        self.act(&step.0).await?;
        if step.1.is_empty() {
            return self.page.until(QUIET).await;
        }
        let answer = self.page.response(mark, "the beacon's answer", |response| response.url == self.endpoint).await?;
        anyhow::ensure!(answer.status == 202, "the beacon was answered {answer:?}");
        let expected = View::parse(step.1).context("a view is PATH VERSION LANGUAGE STATUS")?;
        let sent = self.sent();
        anyhow::ensure!(sent.last() == Some(&expected), "the view is {:?}", sent.last());
        self.page.until(QUIET).await
    }

    async fn act(&self, action: &Action) -> Result<()> {
        match action {
            Action::Open(path) => self.page.navigate(&self.server.url(path)).await,
            Action::Click(selector) => self.page.click(selector).await,
            Action::Anchor(selector) => {
                self.page.evaluate::<Value>("(window.hashBefore = location.hash, null)").await?;
                self.page.click(selector).await?;
                self.page.until("location.hash != window.hashBefore").await
            }
            Action::Type(selector, text) => {
                self.page.click(selector).await?;
                let focused = "['INPUT', 'TEXTAREA'].includes(document.activeElement?.tagName)";
                self.page.until(focused).await.with_context(|| format!("focus {}", json!(selector)))?;
                self.page.type_text(text).await
            }
            Action::Enter => self.page.press_enter().await,
            Action::Back => self.page.back().await,
            Action::Forward => self.page.forward().await,
            Action::Reload => self.page.reload().await,
        }
    }
}
