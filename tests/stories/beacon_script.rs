//! The beacon script in a real browser: a reader's actions, and the resulting requests.
//!
//! A recorder replaces the service: these stories are about the client alone. To show that something is *not* sent, a story goes on to another page,
//! whose beacon comes after (or, for readers who are not counted, whose loading).

#[path = "beacon_script/pages.rs"]
mod pages;
#[path = "beacon_script/recorder.rs"]
mod recorder;
#[path = "beacon_script/stage.rs"]
mod stage;

use anyhow::{Context as _, Result, ensure};
use harness::docs_site::DocsSite;
use recorder::{Failure, Recorder};
use serde_json::{Value, json};
use stage::{PLAIN, Stage, journey, pairs, sphinx};
use std::time::Duration;

#[tokio::test]
async fn a_reader_goes_through_real_documentation() -> Result<()> {
    ensure!(
        sphinx().is_dir(),
        "no documentation in {}: install sphinx-doc, or set HEADCOUNT_DOCS_HTML",
        sphinx().display()
    );
    let stage = Stage::with(|site| {
        let mut site = site.root(sphinx());
        site.attributes = "data-version=\"stable\"".into();
        site
    })
    .await?;
    let page = stage.browser.open(&stage.url("/index.html?highlight=secret#top")).await?;
    stage.views(1).await?;
    page.loads(
        page.evaluate::<Value>("document.querySelector('.body a.reference.internal, .toctree-wrapper a').click()"),
    )
    .await?;
    let second: String = page.evaluate("location.pathname").await?;
    stage.views(2).await?;
    page.navigate(&stage.url("/no/such/page.html")).await?;
    let views = stage.views(3).await?;

    assert_eq!(
        journey(&stage, &views)[..2],
        pairs(&[("/index.html", "-"), (&second, "/index.html")]),
        "the reader's query and fragment stay in the browser"
    );
    for view in &views {
        let mut names: Vec<_> = view.as_object().context("a beacon is an object")?.keys().map(String::as_str).collect();
        names.retain(|name| *name != "referrer");
        assert_eq!(names, ["id", "language", "project", "status", "url", "version"]);
        let id = view["id"].as_str().unwrap_or_default();
        assert!(id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "the id {id:?}");
        assert_eq!((&view["project"], &view["version"]), (&json!("guide"), &json!("stable")));
        assert_eq!(view["language"], "en");
    }
    let statuses: Vec<_> = views.iter().map(|view| &view["status"]).collect();
    assert_eq!(statuses, [200, 200, 404]);
    assert_ne!(views[0]["id"], views[1]["id"]);

    for hit in stage.recorder.hits() {
        if hit.method == "POST" {
            assert_eq!(hit.path, "/v1/pageview");
            assert_eq!(hit.header("content-type"), "text/plain;charset=UTF-8");
            assert_eq!((hit.header("referer"), hit.header("cookie")), ("", ""), "the body says all there is to say");
        }
        assert_ne!(hit.method, "OPTIONS", "a beacon needs no preflight");
    }
    let hosts = [stage.url("/"), stage.recorder.url("/")];
    for request in page.requests() {
        let own = hosts.iter().any(|host| request.url.starts_with(host)) || request.url.starts_with("data:");
        assert!(own, "a request to a third host: {}", request.url);
    }
    Ok(())
}

#[tokio::test]
async fn metadata_comes_from_the_element_then_from_the_page() -> Result<()> {
    const RTD: &str = "<!doctype html><html lang=\"en\"><head><meta name=\"readthedocs-project-slug\" content=\"pip\">\
        <meta name=\"readthedocs-version-slug\" content=\"latest\"><meta name=\"readthedocs-language-slug\" content=\"de\">\
        <meta name=\"readthedocs-http-status\" content=\"404\"></head><body></body></html>";
    let both = RTD.replace("</head>", "<meta name=\"headcount:version\" content=\"v2\"></head>");
    let stage = Stage::with(|site| {
        let mut site = site.page("/rtd.html", RTD).page("/both.html", &both);
        site.attributes = "data-language=\"fr\" data-query".into();
        site
    })
    .await?;
    let page = stage.browser.open(&stage.url("/rtd.html?page=2#x")).await?;
    stage.views(1).await?;
    page.navigate(&stage.url("/both.html")).await?;
    let views = stage.views(2).await?;
    assert_eq!(journey(&stage, &views)[0].0, "/rtd.html?page=2", "data-query keeps the query");
    let facts =
        |view: &Value| ["project", "version", "language", "status"].map(|name| view[name].to_string()).join(" ");
    assert_eq!(facts(&views[0]), "\"guide\" \"latest\" \"fr\" 404");
    assert_eq!(facts(&views[1]), "\"guide\" \"v2\" \"fr\" 404");
    Ok(())
}

#[tokio::test]
async fn a_reader_without_scripts_is_counted_by_the_pixel() -> Result<()> {
    let stage = Stage::new().await?;
    let page = stage.browser.new_page().await?;
    page.disable_scripts().await?;
    page.navigate(&stage.url("/one.html")).await?;
    let hits = stage.recorder.until("the pixel", |hits| hits.iter().any(|hit| hit.path == "/v1/pageview.gif")).await?;
    let pixel = hits.iter().find(|hit| hit.path == "/v1/pageview.gif").context("the pixel")?;
    assert_eq!((pixel.method.as_str(), pixel.query.as_str()), ("GET", "project=guide"));
    assert_eq!(pixel.header("referer"), stage.url("/one.html"), "the whole address, which is all it has to say");
    assert!(hits.iter().all(|hit| hit.method != "POST"));
    Ok(())
}

#[tokio::test]
async fn a_reader_with_scripts_is_not_counted_by_the_pixel_too() -> Result<()> {
    let stage = Stage::new().await?;
    let page = stage.browser.open(&stage.url("/one.html")).await?;
    assert_eq!(stage.views_until_the_end(&page).await?.len(), 1);
    assert!(stage.recorder.hits().iter().all(|hit| hit.path != "/v1/pageview.gif"));
    Ok(())
}

#[tokio::test]
async fn in_a_single_page_site_paths_count_and_fragments_do_not() -> Result<()> {
    let stage = Stage::new().await?;
    let page = stage.browser.open(&stage.url("/one.html")).await?;
    for step in [
        "history.pushState(null, '', '/guide/install')",
        "history.replaceState(null, '', '/guide/install?tab=linux')", // the same page
        "history.pushState(null, '', '/guide/use#first')",
        "location.hash = 'second'",
        "history.replaceState(null, '', '/guide/usage')", // merges into the pending view
        "history.pushState(null, '', '/guide/usage#third')",
        "new Promise(done => { addEventListener('popstate', done, { once: true }); history.go(-3) })",
    ] {
        page.evaluate::<Value>(&format!("Promise.resolve({step}).then(() => null)")).await?;
    }
    let views = stage.views_until_the_end(&page).await?;
    assert_eq!(
        journey(&stage, &views),
        pairs(&[
            ("/one.html", "-"),
            ("/guide/install", "/one.html"),
            ("/guide/usage", "/guide/install"),
            ("/guide/install", "/guide/usage"),
        ])
    );
    let status: Vec<_> = views.iter().map(|view| view["status"].clone()).collect();
    assert_eq!(status, [json!(200), Value::Null, Value::Null, Value::Null], "only what was loaded has a status");
    Ok(())
}

#[tokio::test]
async fn going_back_and_reloading_are_views_but_no_arrivals() -> Result<()> {
    let stage = Stage::new().await?;
    let page = stage.browser.new_page().await?;
    page.navigate_from(&stage.url("/one.html"), Some("https://search.example/?q=secret")).await?;
    stage.views(1).await?;
    page.loads(page.evaluate::<Value>("document.getElementById('next').click()")).await?;
    stage.views(2).await?;
    page.back().await?;
    stage.views(3).await?;
    assert!(page.was_restored_from_memory(), "Chromium keeps such a page in memory; the beacon must not prevent it");
    page.reload().await?;
    stage.views(4).await?;
    let views = stage.views_until_the_end(&page).await?;
    let views = journey(&stage, &views);
    assert_eq!(views[0].0, "/one.html");
    assert_eq!(
        views[1..],
        pairs(&[("/two.html", "/one.html"), ("/one.html", "/one.html"), ("/one.html", "/one.html")])
    );
    Ok(())
}

#[tokio::test]
async fn a_tab_in_the_background_counts_when_it_is_looked_at() -> Result<()> {
    let stage = Stage::new().await?;
    let front = stage.browser.open(&stage.url("/one.html")).await?;
    stage.views(1).await?;
    let behind = stage.browser.new_page_behind().await?;
    front.bring_to_front().await?;
    behind.until("document.hidden").await?;
    behind.navigate(&stage.url("/two.html")).await?;
    let never = stage.browser.new_page_behind().await?;
    never.until("document.hidden").await?;
    never.navigate(&stage.url("/three.html")).await?;
    front.navigate(&stage.url("/end.html")).await?;
    let views = stage.views(2).await?;
    assert_eq!(journey(&stage, &views), pairs(&[("/one.html", "-"), ("/end.html", "-")]));
    behind.bring_to_front().await?;
    let views = stage.views(3).await?;
    assert_eq!(journey(&stage, &views)[2].0, "/two.html");
    Ok(())
}

#[tokio::test]
async fn a_prerendered_page_counts_when_it_is_shown() -> Result<()> {
    const AHEAD: &str = "<!doctype html><html lang=\"en\"><head><title>Ahead</title><script type=\"speculationrules\">\
        {\"prerender\": [{\"urls\": [\"/two.html\", \"/three.html\"], \"eagerness\": \"immediate\"}]}</script>\
        <script>(async function wait() { (await fetch('/go')).ok ? location.href = '/two.html' : setTimeout(wait, 50) })()\
        </script></head><body></body></html>";
    // The page reports that it is prerendering, which proves to the story that it was.
    let prepared = "<script>document.prerendering && fetch('/unseen' + location.pathname)</script></head>";
    let prepared = PLAIN.replace("</head>", prepared);
    let stage =
        Stage::with(|site| site.page("/ahead.html", AHEAD).page("/two.html", &prepared).page("/three.html", &prepared))
            .await?;
    // Chromium does not prerender for a tab with a protocol session; this one follows its link when it finds `/go`.
    stage.browser.open_unwatched(&stage.url("/ahead.html")).await?;
    for path in ["/unseen/two.html", "/unseen/three.html"] {
        stage.site.until_asked_for(path).await?;
    }
    stage.views(1).await?;
    stage.site.add_page("/go", "");
    stage.views(2).await?;
    let last = stage.browser.open(&stage.url("/end.html")).await?;
    let views = stage.views(3).await?;
    assert_eq!(
        journey(&stage, &views),
        pairs(&[("/ahead.html", "-"), ("/two.html", "/ahead.html"), ("/end.html", "-")]),
        "one view of the page that was shown, none of the one that never was"
    );
    last.close().await
}

#[tokio::test]
async fn readers_who_opt_out_are_not_counted() -> Result<()> {
    let stage = Stage::new().await?;
    for (wish, script) in [
        ("Global Privacy Control", "Object.defineProperty(navigator, 'globalPrivacyControl', { value: true })"),
        ("Do Not Track", "Object.defineProperty(navigator, 'doNotTrack', { value: '1' })"),
        ("the local flag", "localStorage.setItem('headcount-ignore', 'true')"),
    ] {
        let page = stage.browser.new_page().await?;
        page.on_new_document(&format!("location.protocol == 'http:' && {script}")).await?;
        page.navigate(&stage.url("/one.html")).await?;
        page.evaluate::<Value>("history.pushState(null, '', '/elsewhere')").await?;
        page.navigate(&stage.url("/two.html")).await?;
        let posts = page.requests().into_iter().filter(|request| request.method == "POST").count();
        assert_eq!(posts, 0, "in spite of {wish}");
        assert!(page.requests().iter().any(|request| request.url.ends_with("/beacon.js")), "the script was there");
        // Not while the view is pending: it would no longer find the flag.
        page.evaluate::<Value>("new Promise(done => setTimeout(done, 700, null))").await?;
        page.evaluate::<Value>("localStorage.clear()").await?;
        page.close().await?;
    }
    let page = stage.browser.open(&stage.url("/three.html")).await?;
    let views = stage.views_until_the_end(&page).await?;
    assert_eq!(journey(&stage, &views), pairs(&[("/three.html", "-")]), "one without a wish is counted");
    Ok(())
}

#[tokio::test]
async fn a_browser_that_a_program_drives_is_marked_by_one_bit() -> Result<()> {
    let stage = Stage::new().await?;
    let page = stage.browser.new_page().await?;
    page.navigate(&stage.url("/one.html")).await?;
    stage.views(1).await?;
    page.on_new_document("Object.defineProperty(navigator, 'webdriver', { value: true })").await?;
    page.navigate(&stage.url("/two.html")).await?;
    let views = stage.views(2).await?;
    assert_eq!(views[0]["webdriver"], Value::Null, "the browser of a reader sends nothing of it");
    assert_eq!(views[1]["webdriver"], json!(1));
    Ok(())
}

#[tokio::test]
async fn a_beacon_that_failed_is_sent_once_more_under_the_same_id() -> Result<()> {
    for failure in [Failure::Status(503), Failure::Status(429), Failure::Reset] {
        let stage = Stage::new().await?;
        stage.recorder.fail_next(1, failure);
        let page = stage.browser.open(&stage.url("/one.html")).await?;
        let views = stage.views(2).await?;
        assert_eq!(views[0], views[1], "after {failure:?}: the same beacon in every field");
        let views = stage.views_until_the_end(&page).await?;
        assert_eq!(views.len(), 2, "after {failure:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_busy_service_is_asked_again_when_it_said() -> Result<()> {
    let stage = Stage::new().await?;
    stage.recorder.fail_next(1, Failure::Busy(4));
    let _page = stage.browser.open(&stage.url("/one.html")).await?;
    stage.views(2).await?;
    let hits = stage.recorder.hits();
    let posts: Vec<_> = hits.iter().filter(|hit| hit.method == "POST").collect();
    let between = posts[1].at.duration_since(posts[0].at);
    assert!(between >= Duration::from_secs(5), "4 s, and at least one of jitter: {between:?}");
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_not_argued_with() -> Result<()> {
    let stage = Stage::new().await?;
    stage.recorder.fail_next(1, Failure::Status(403));
    let page = stage.browser.open(&stage.url("/one.html")).await?;
    stage.views(1).await?;
    // Longer than any retry would wait, on the page's clock: leaving earlier would prove nothing.
    page.evaluate::<Value>("new Promise(done => setTimeout(done, 3500, null))").await?;
    assert_eq!(stage.views_until_the_end(&page).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_strict_content_security_policy_names_one_host() -> Result<()> {
    let recorder = Recorder::start().await?;
    let host = recorder.url("");
    let policy = format!(
        "<head><meta http-equiv=\"content-security-policy\" \
         content=\"default-src 'none'; script-src {host}; connect-src {host}; img-src {host}\">"
    );
    let site = DocsSite::new(&recorder.url("/beacon.js"), "guide")
        .page("/one.html", &PLAIN.replace("<head>", &policy))
        .page("/end.html", PLAIN);
    let stage = Stage::of(recorder, site).await?;
    let page = stage.browser.open(&stage.url("/one.html")).await?;
    let views = stage.views_until_the_end(&page).await?;
    assert_eq!(journey(&stage, &views), pairs(&[("/one.html", "-")]));
    Ok(())
}

#[tokio::test]
async fn a_sandboxed_frame_where_storage_throws_is_counted() -> Result<()> {
    // The embedding page has another host name than the frame, so the frame is a separate view.
    let stage = Stage::new().await?;
    let framed = format!("<iframe sandbox=\"allow-scripts\" src=\"{}\"></iframe>", stage.url("/two.html"));
    stage.site.add_page("/framed.html", &PLAIN.replace("<p>", &framed));
    let page = stage.browser.open(&stage.url("/framed.html").replace("127.0.0.1", "localhost")).await?;
    let views = stage.views(2).await?;
    assert!(views.iter().any(|view| view["url"] == stage.url("/two.html")), "{views:#?}");
    page.close().await
}

#[tokio::test]
async fn a_script_named_twice_counts_once() -> Result<()> {
    let recorder = Recorder::start().await?;
    let script =
        format!("<script defer src=\"{}\" data-project=\"guide\"></script></head>", recorder.url("/beacon.js"));
    let site =
        DocsSite::new(&recorder.url("/beacon.js"), "guide").page("/one.html", &PLAIN.replace("</head>", &script));
    let stage = Stage::of(recorder, site.page("/end.html", PLAIN)).await?;
    let page = stage.browser.open(&stage.url("/one.html")).await?;
    page.evaluate::<Value>("history.pushState(null, '', '/two')").await?;
    let views = stage.views_until_the_end(&page).await?;
    assert_eq!(journey(&stage, &views), pairs(&[("/one.html", "-"), ("/two", "/one.html")]));
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_on_the_readers_machine() -> Result<()> {
    const LEFT: &str = "(async () => ({
        cookie: document.cookie,
        local: Object.keys(localStorage),
        session: Object.keys(sessionStorage),
        databases: await indexedDB.databases(),
        caches: globalThis.caches ? await caches.keys() : [],
        workers: navigator.serviceWorker ? (await navigator.serviceWorker.getRegistrations()).length : 0,
    }))()";
    let stage = Stage::new().await?;
    let names = "[...Object.getOwnPropertyNames(window), ...Object.getOwnPropertyNames(document)]";
    let page = stage.browser.new_page().await?;
    page.on_new_document(&format!("window.before = {names}.concat('before')")).await?;
    for path in ["/one.html", "/two.html", "/one.html"] {
        page.navigate(&stage.url(path)).await?;
    }
    stage.views(3).await?;
    let nothing = json!({"cookie": "", "local": [], "session": [], "databases": [], "caches": [], "workers": 0});
    assert_eq!(page.evaluate::<Value>(LEFT).await?, nothing);
    let new: Vec<String> = page.evaluate(&format!("{names}.filter(name => !before.includes(name))")).await?;
    assert_eq!(new, Vec::<String>::new(), "the script leaves no name behind");
    assert_eq!(stage.browser.cookies().await?, Vec::<Value>::new());
    Ok(())
}
