//! One view for each page that a reader perceives: routers, frames, elements, canonical links.

use crate::{
    recorder::Recorder,
    stage::{PLAIN, Stage, journey, pairs},
};
use anyhow::Result;
use harness::docs_site::DocsSite;
use serde_json::{Value, json};

/// A browser without the Navigation API, such as Safari before 26.2.
const WITHOUT_NAVIGATION_API: &str = "Object.defineProperty(window, 'navigation', { value: undefined })";
/// The pending view has been sent by then; the wait is the page's own 500 ms limit, not the test's.
const SETTLED: &str = "new Promise(done => setTimeout(done, 700))";

/// Runs the steps on `/one.html`, and returns URL and referrer of the views.
async fn walk(stage: &Stage, before: &str, steps: &[&str]) -> Result<Vec<Value>> {
    let page = stage.browser.new_page().await?;
    page.on_new_document(before).await?;
    page.navigate(&stage.url("/one.html")).await?;
    for step in steps {
        page.evaluate::<Value>(&format!("Promise.resolve({step}).then(() => null)")).await?;
    }
    stage.views_until_the_end(&page).await
}

#[tokio::test]
async fn a_tidied_url_is_the_same_page() -> Result<()> {
    for before in ["", WITHOUT_NAVIGATION_API] {
        let stage = Stage::new().await?;
        let steps = [
            "history.replaceState(null, '', '/start')", // while it loads
            SETTLED,
            "history.replaceState(null, '', '/start/first-heading')",
            SETTLED,
            "history.pushState(null, '', '/next')",
            "history.replaceState(null, '', '/next/')",
            SETTLED,
            "(history.replaceState(null, '', '/other'), document.title = 'Other')", // a redirect of the router
            SETTLED,
        ];
        let views = walk(&stage, before, &steps).await?;
        assert_eq!(
            journey(&stage, &views),
            pairs(&[("/start", "-"), ("/next/", "/start/first-heading"), ("/other", "/next")]),
            "{before}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn metadata_is_read_after_the_theme_has_rendered() -> Result<()> {
    const THEME: &str = "(history.pushState(null, '', '/de/'), setTimeout(() => {
        document.title = 'Seite'; document.documentElement.lang = 'de';
        document.body.innerHTML = '<div class=NotFound></div>'
    }, 100))";
    for before in ["", WITHOUT_NAVIGATION_API] {
        let stage = Stage::with(|mut site| {
            site.attributes = "data-status=\"404\"".into();
            site
        })
        .await?;
        let early = "history.pushState(null, '', '/early')";
        let views = walk(&stage, before, &[SETTLED, THEME, SETTLED, early]).await?;
        let facts: Vec<_> = views.iter().map(|view| json!([view["language"], view["status"]])).collect();
        assert_eq!(facts, [json!(["en", 404]), json!(["de", 404]), json!(["de", 404])], "{before}");
    }
    let stage = Stage::with(|mut site| {
        site.attributes = "data-status=\"404\"".into();
        site
    })
    .await?;
    let views = walk(&stage, "", &["history.pushState(null, '', '/two')"]).await?;
    assert_eq!(views[1]["status"], Value::Null, "data-status is of the page that was loaded");
    Ok(())
}

#[tokio::test]
async fn a_router_of_any_kind_is_followed() -> Result<()> {
    let stage = Stage::new().await?;
    let steps = [
        "keptPushState.call(history, null, '', '/kept')",
        "navigation.navigate('/navigated').finished",
        "history.pushState(null, '', '/navigated#part')",
    ];
    let before = "window.keptPushState = history.pushState; navigation.addEventListener('navigate', event => \
        event.destination.url.endsWith('/navigated') && event.intercept({ handler: async () => {} }))";
    let views = walk(&stage, before, &steps).await?;
    let expected = pairs(&[("/one.html", "-"), ("/kept", "/one.html"), ("/navigated", "/kept")]);
    assert_eq!(journey(&stage, &views), expected);
    Ok(())
}

#[tokio::test]
async fn hash_routes_are_paths() -> Result<()> {
    for before in ["", WITHOUT_NAVIGATION_API] {
        let stage = Stage::with(|mut site| {
            site.attributes = "data-hash".into();
            site
        })
        .await?;
        let steps = [
            "location.hash = '/guide/use?id=part'",
            SETTLED,
            "location.hash = '/guide/use?id=other'",
            "location.hash = '!/last'",
        ];
        let views = walk(&stage, before, &steps).await?;
        let expected = pairs(&[("/one.html", "-"), ("/guide/use", "/one.html"), ("/last", "/guide/use")]);
        assert_eq!(journey(&stage, &views), expected, "{before}");
    }
    Ok(())
}

#[tokio::test]
async fn elements_of_one_script_count_once() -> Result<()> {
    for (element, kind) in [("", "defer"), ("data-project=\"other\"", "defer"), ("", "type=\"module\"")] {
        let recorder = Recorder::start().await?;
        let script = format!("<head><script {kind} src=\"{}\" {element}></script>", recorder.url("/beacon.js"));
        let site = DocsSite::new(&recorder.url("/beacon.js"), "guide").page("/end.html", PLAIN);
        let site = site.page("/one.html", &PLAIN.replace("<head>", &script));
        let stage = Stage::of(recorder, site).await?;
        let views = walk(&stage, "", &[]).await?;
        assert_eq!(journey(&stage, &views), pairs(&[("/one.html", "-")]), "{kind} {element}");
        assert!(views[0]["project"].is_string(), "{kind} {element}: the element that names the project");
    }
    // A module alone: it has no `currentScript`.
    let recorder = Recorder::start().await?;
    let site = DocsSite::new(&recorder.url("/beacon.js\" type=\"module"), "guide");
    let stage = Stage::of(recorder, site.page("/one.html", PLAIN).page("/end.html", PLAIN)).await?;
    assert_eq!(walk(&stage, "", &[]).await?[0]["project"], "guide");
    Ok(())
}

#[tokio::test]
async fn frames_of_the_same_site_and_hidden_frames_count_nothing() -> Result<()> {
    let stage = Stage::new().await?;
    let frame =
        |style: &str, url: &str| PLAIN.replace("<p>", &format!("<iframe style=\"{style}\" src=\"{url}\"></iframe><p>"));
    stage.site.add_page("/same.html", &frame("", "/two.html"));
    stage.site.add_page("/none.html", &frame("display:none", &stage.url("/two.html")));
    stage.site.add_page("/dot.html", &frame("width:1px;height:1px", &stage.url("/two.html")));
    stage.site.add_page("/shown.html", &frame("", &stage.url("/three.html")));
    let page = stage.browser.open(&stage.url("/same.html")).await?;
    page.evaluate::<Value>(&format!("{SETTLED}.then(() => null)")).await?;
    let foreign = |path: &str| stage.url(path).replace("127.0.0.1", "localhost");
    for path in ["/none.html", "/dot.html", "/shown.html"] {
        page.navigate(&foreign(path)).await?;
        page.evaluate::<Value>(&format!("{SETTLED}.then(() => null)")).await?;
    }
    let three = stage.url("/three.html");
    let views =
        stage.recorder.views_until("the shown frame", |views| views.iter().any(|view| view["url"] == three)).await?;
    assert!(views.iter().all(|view| view["url"] != stage.url("/two.html")), "{views:#?}");
    assert_eq!(views.len(), 5, "four pages and the frame that is shown: {views:#?}");
    Ok(())
}

#[tokio::test]
async fn a_canonical_link_counts_only_if_it_names_this_page() -> Result<()> {
    let stage = Stage::new().await?;
    for (page, canonical, counted) in [
        ("/a/index.html", "/a/", "/a/"),
        ("/b.html", "/b", "/b"),
        ("/c/%7Ed", "/c/~d/", "/c/~d/"),
        ("/en/latest/e.html", "/en/stable/e.html", "/en/latest/e.html"), // Read the Docs
        ("/0.9/f/", "/latest/f/", "/0.9/f/"),                            // mike
        ("/3.12/library/g.html", "/3/library/g.html", "/3.12/library/g.html"), // python.org
        ("/h.html", "https://other.example/h", "/h.html"),
        ("/i.html", "http://[", "/i.html"),
    ] {
        let href = if canonical.starts_with('/') { stage.url(canonical) } else { canonical.to_owned() };
        let link = format!("<link rel=\"canonical\" href=\"{href}\"></head>");
        stage.site.add_page(page, &PLAIN.replace("</head>", &link));
        let seen = stage.recorder.hits().iter().filter(|hit| hit.method == "POST").count();
        let tab = stage.browser.open(&stage.url(page)).await?;
        let views = stage.views(seen + 1).await?;
        assert_eq!(journey(&stage, &views)[seen].0, counted, "{page} with {canonical}");
        tab.close().await?;
    }
    Ok(())
}
