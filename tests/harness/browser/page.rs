//! One tab.

use super::{PATIENCE, cdp::Connection};
use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A tab, with a record of its requests since it was opened.
pub struct Page {
    connection: Arc<Connection>,
    target: String,
    session: String,
}

/// A request that the tab made.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    /// The protocol's id, the same in its [`Response`].
    pub id: String,
    /// `GET`, `POST`, …
    pub method: String,
    /// The requested URL.
    pub url: String,
    /// The headers that the page set; the browser adds more on the wire.
    pub headers: Value,
    /// The posted body.
    pub body: Option<String>,
}

/// A response that the tab got.
#[derive(Debug, Clone)]
pub struct Response {
    /// The id of its [`SeenRequest`].
    pub id: String,
    /// The requested URL.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: Value,
}

impl Response {
    fn of(event: &Value) -> Option<Response> {
        let params = &event["params"];
        let response = Response {
            id: params["requestId"].as_str()?.to_owned(),
            url: params["response"]["url"].as_str()?.to_owned(),
            status: params["response"]["status"].as_u64()?.try_into().ok()?,
            headers: params["response"]["headers"].clone(),
        };
        (event["method"] == "Network.responseReceived").then_some(response)
    }
}

/// Properties of a screen, for pictures.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// In CSS pixels.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// A telephone: touch, and the page's viewport setting applies, at twice the pixels.
    pub mobile: bool,
    /// The reader prefers dark colours.
    pub dark: bool,
    /// The whole page instead of its first screen.
    pub full_page: bool,
}

impl Page {
    pub(super) async fn attach(connection: Arc<Connection>, target: String) -> Result<Page> {
        let attached = json!({"targetId": target, "flatten": true});
        let attached = connection.call(None, "Target.attachToTarget", attached).await?;
        let session = attached["sessionId"].as_str().context("an attached target has a session")?.to_owned();
        let page = Page { connection, target, session };
        for method in ["Page.enable", "Network.enable", "Runtime.enable"] {
            page.call(method, json!({})).await?;
        }
        page.call("Page.setLifecycleEventsEnabled", json!({"enabled": true})).await?;
        Ok(page)
    }

    /// Any method of the protocol, on this tab.
    pub async fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        self.connection.call(Some(&self.session), method, parameters).await
    }

    /// Navigates to a URL and waits until the page and its resources have loaded.
    pub async fn navigate(&self, url: &str) -> Result<()> {
        self.navigate_from(url, None).await
    }

    /// As [`Page::navigate`], as if a link on the page `referrer` had been followed.
    pub async fn navigate_from(&self, url: &str, referrer: Option<&str>) -> Result<()> {
        let mark = self.connection.mark(&self.session);
        let mut parameters = json!({"url": url});
        if let Some(referrer) = referrer {
            parameters["referrer"] = referrer.into();
            // The protocol's default policy would shorten it; the site's policy must decide.
            parameters["referrerPolicy"] = "unsafeUrl".into();
        }
        let answer = self.call("Page.navigate", parameters).await?;
        if let Some(error) = answer["errorText"].as_str() {
            bail!("go to {url}: {error}");
        }
        // A jump within the page loads nothing.
        let Some(loader) = answer["loaderId"].as_str() else {
            return Ok(());
        };
        let what = format!("{url} to load");
        self.connection
            .wait_for(&self.session, mark, &what, |event| {
                let params = &event["params"];
                (event["method"] == "Page.lifecycleEvent" && params["name"] == "load" && params["loaderId"] == loader)
                    .then_some(())
            })
            .await
    }

    /// Performs an action that loads a page in this tab (a click, a reload), and waits until it has loaded.
    pub async fn loads<T>(&self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        let mark = self.connection.mark(&self.session);
        let done = doing.await?;
        self.loaded_since(mark).await?;
        Ok(done)
    }

    /// Like [`Page::loads`], for an action that may load nothing and then returns `false`.
    pub async fn loads_if(&self, doing: impl Future<Output = Result<bool>>) -> Result<bool> {
        let mark = self.connection.mark(&self.session);
        let loads = doing.await?;
        if loads {
            self.loaded_since(mark).await?;
        }
        Ok(loads)
    }

    async fn loaded_since(&self, mark: usize) -> Result<()> {
        self.connection
            .wait_for(&self.session, mark, "a page to load", |event| {
                (event["method"] == "Page.loadEventFired").then_some(())
            })
            .await
    }

    /// Reloads the page.
    pub async fn reload(&self) -> Result<()> {
        self.loads(self.call("Page.reload", json!({}))).await?;
        Ok(())
    }

    /// One page back, like the browser's button. Returns once the tab is there, from memory or reloaded.
    pub async fn back(&self) -> Result<()> {
        self.travel(-1).await
    }

    /// One page forward, as the browser's button does it. Returns as [`Page::back`] does.
    pub async fn forward(&self) -> Result<()> {
        self.travel(1).await
    }

    async fn travel(&self, by: i64) -> Result<()> {
        let history = self.call("Page.getNavigationHistory", json!({})).await?;
        let at = history["currentIndex"].as_i64().context("the history has a present entry")? + by;
        let entry = usize::try_from(at).ok().and_then(|at| history["entries"].get(at));
        let entry = entry.with_context(|| format!("the history has no entry {at}"))?;
        self.call("Page.navigateToHistoryEntry", json!({"entryId": entry["id"]})).await?;
        let url = entry["url"].as_str().unwrap_or_default();
        self.until(&format!("location.href == {} && document.readyState == 'complete'", json!(url))).await
    }

    /// A click with the mouse on the first visible element that the selector finds. Waits until nothing covers it.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let place = format!(
            "(() => {{ for (const element of document.querySelectorAll({})) {{ \
             element.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const box = element.getClientRects()[0]; if (!box) continue; \
             const [x, y] = [box.x + box.width / 2, box.y + box.height / 2]; \
             if (element.contains(document.elementFromPoint(x, y))) return [x, y] }} return null }})()",
            json!(selector)
        );
        self.until(&format!("{place} != null")).await.with_context(|| format!("find {selector}"))?;
        let at: Option<(f64, f64)> = self.evaluate(&place).await?;
        let (x, y) = at.with_context(|| format!("{selector} went away"))?;
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await?;
        }
        Ok(())
    }

    /// Types text into the element that has the focus.
    pub async fn type_text(&self, text: &str) -> Result<()> {
        for letter in text.chars().map(String::from) {
            for event in
                [json!({"type": "keyDown", "text": letter, "key": letter}), json!({"type": "keyUp", "key": letter})]
            {
                self.call("Input.dispatchKeyEvent", event).await?;
            }
        }
        Ok(())
    }

    /// Presses the Enter key.
    pub async fn press_enter(&self) -> Result<()> {
        let key =
            json!({"type": "keyDown", "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"});
        self.call("Input.dispatchKeyEvent", key).await.map(drop)
    }

    /// Whether the last going back took the page out of the browser's memory. The event names the kind.
    pub fn was_restored_from_memory(&self) -> bool {
        self.connection
            .events(&self.session, 0)
            .iter()
            .rev()
            .find(|event| event["method"] == "Page.frameNavigated")
            .is_some_and(|event| event["params"]["type"] == "BackForwardCacheRestore")
    }

    /// The value of an expression; a promise is awaited.
    pub async fn evaluate<T: DeserializeOwned>(&self, expression: &str) -> Result<T> {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let answer = self.call("Runtime.evaluate", parameters).await?;
        if let Some(exception) = answer.get("exceptionDetails") {
            bail!("evaluate {expression}: {exception}");
        }
        let value = answer["result"].get("value").cloned().unwrap_or_default();
        serde_json::from_value(value).with_context(|| format!("evaluate {expression}"))
    }

    /// Waits until an expression is true. A page that is being replaced cannot answer, which is no failure.
    pub async fn until(&self, expression: &str) -> Result<()> {
        let started = tokio::time::Instant::now();
        loop {
            let answer = self.evaluate::<Value>(expression).await;
            if matches!(answer, Ok(Value::Bool(true))) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {expression}; it last gave {answer:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Headers to send with every request of this tab.
    pub async fn set_headers(&self, headers: &[(&str, &str)]) -> Result<()> {
        let headers: serde_json::Map<_, _> =
            headers.iter().map(|(name, value)| (name.to_string(), json!(value))).collect();
        self.call("Network.setExtraHTTPHeaders", json!({"headers": headers})).await.map(drop)
    }

    /// Another user agent, from the next page on.
    pub async fn set_user_agent(&self, user_agent: &str) -> Result<()> {
        self.call("Emulation.setUserAgentOverride", json!({"userAgent": user_agent})).await.map(drop)
    }

    /// A reader without scripts.
    pub async fn disable_scripts(&self) -> Result<()> {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": true})).await.map(drop)
    }

    /// Runs a script at the start of each page from now on, before the page's own.
    pub async fn on_new_document(&self, script: &str) -> Result<()> {
        self.call("Page.addScriptToEvaluateOnNewDocument", json!({"source": script})).await.map(drop)
    }

    /// Brings the tab to the front; the previous one is hidden.
    pub async fn bring_to_front(&self) -> Result<()> {
        self.call("Page.bringToFront", json!({})).await.map(drop)
    }

    /// Closes the tab.
    pub async fn close(self) -> Result<()> {
        self.connection.call(None, "Target.closeTarget", json!({"targetId": self.target})).await.map(drop)
    }

    /// Uses this screen for pages from now on.
    pub async fn set_view(&self, view: View) -> Result<()> {
        let scheme = if view.dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await?;
        let scale = if view.mobile { 2 } else { 1 };
        let metrics =
            json!({"width": view.width, "height": view.height, "deviceScaleFactor": scale, "mobile": view.mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        self.call("Emulation.setScrollbarsHidden", json!({"hidden": true})).await?;
        self.call("Emulation.setTouchEmulationEnabled", json!({"enabled": view.mobile})).await.map(drop)
    }

    /// A picture of the page (PNG).
    pub async fn screenshot(&self, view: View) -> Result<Vec<u8>> {
        self.set_view(view).await?;
        // Two frames: one for the layout in the new size, one for the painting.
        self.evaluate::<Value>(
            "document.fonts.ready.then(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done()))))",
        )
        .await?;
        let parameters = json!({"format": "png", "captureBeyondViewport": view.full_page});
        let answer = self.call("Page.captureScreenshot", parameters).await?;
        let data = answer["data"].as_str().context("a screenshot has data")?;
        data_encoding::BASE64.decode(data.as_bytes()).context("decode the screenshot")
    }

    /// The page as a printer gets it: a PDF.
    pub async fn pdf(&self) -> Result<Vec<u8>> {
        let answer = self.call("Page.printToPDF", json!({"preferCSSPageSize": true, "printBackground": true})).await?;
        let data = answer["data"].as_str().context("a PDF has data")?;
        data_encoding::BASE64.decode(data.as_bytes()).context("decode the PDF")
    }

    /// Shows pages as they would be printed from now on, or as on a screen again.
    pub async fn set_print(&self, print: bool) -> Result<()> {
        let media = if print { "print" } else { "" };
        self.call("Emulation.setEmulatedMedia", json!({"media": media})).await.map(drop)
    }

    /// All requests of the tab so far, in order.
    pub fn requests(&self) -> Vec<SeenRequest> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = self.connection.events(&self.session, 0);
        let sent = events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        sent.map(|event| {
            let request = &event["params"]["request"];
            SeenRequest {
                id: text(&event["params"]["requestId"]),
                method: text(&request["method"]),
                url: text(&request["url"]),
                headers: request["headers"].clone(),
                body: request["postData"].as_str().map(str::to_owned),
            }
        })
        .collect()
    }

    /// Waits until the response to a request after the `from`th event of the tab (see [`Page::mark`]) fits, and returns it.
    pub async fn response(&self, from: usize, what: &str, fits: impl Fn(&Response) -> bool) -> Result<Response> {
        self.connection
            .wait_for(&self.session, from, what, |event| Response::of(event).filter(|response| fits(response)))
            .await
    }

    /// All responses that the tab got so far, in order.
    pub fn responses(&self) -> Vec<Response> {
        self.connection.events(&self.session, 0).iter().filter_map(Response::of).collect()
    }

    /// Errors that a developer's console would show: exceptions, violated policies, failed loads. Includes only those after [`Page::watch_console`].
    pub fn complaints(&self) -> Vec<Value> {
        let mut events = self.connection.events(&self.session, 0);
        events.retain(|event| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] == "error",
            _ => false,
        });
        events
    }

    /// Makes the browser report its console messages.
    pub async fn watch_console(&self) -> Result<()> {
        self.call("Log.enable", json!({})).await.map(drop)
    }

    /// Number of events of the tab so far.
    pub fn mark(&self) -> usize {
        self.connection.mark(&self.session)
    }
}
