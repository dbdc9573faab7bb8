//! Responses as clients of every kind see them: lengths, redirects, forms, and notices that a maintainer needs.

use anyhow::{Context, Result, ensure};
use harness::http::{Answer, Connection};
use harness::service::Service;

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

async fn ask(service: &Service, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    Connection::open(service.address()).await?.send(method, path, headers, "").await
}

async fn view(service: &Service, path: &str, headers: &[(&str, &str)]) -> Result<()> {
    let body = format!(r#"{{"url":"https://docs.example{path}"}}"#);
    let headers = [&[("user-agent", AGENT)], headers].concat();
    let answer = Connection::open(service.address()).await?.send("POST", "/v1/pageview", &headers, body).await?;
    ensure!(answer.status == 202, "{path}: {answer:?}");
    Ok(())
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).and_then(|value| value.to_str().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_keep_what_http_promises() -> Result<()> {
    let service = Service::started(&["--clock-start", CLOCK], &[("docs", "docs.example")]).await?;
    for path in ["/a", "/a", "/b"] {
        view(&service, path, &[]).await?;
    }
    service.counted("docs", MONTH, 3).await?;

    let report = "/v1/projects/docs/reports/2026-03";
    for path in [
        "/beacon.js",
        "/assets/report.css",
        "/assets/report.js",
        "/v1/openapi.json",
        "/privacy",
        "/sign-in",
        "/projects/docs",
        "/projects/docs/",
        "/projects/docs/2026-03",
        "/projects/docs/2026-03/x",
        "/badge/docs.svg",
        "/readyz",
        report,
        &format!("{report}.csv"),
        &format!("{report}/pages.csv?bom=1"),
        &format!("{report}/days"),
    ] {
        let (get, head) = (ask(&service, "GET", path, &[]).await?, ask(&service, "HEAD", path, &[]).await?);
        ensure!(head.status == get.status && head.body.is_empty(), "{path}: {get:?} {head:?}");
        if let Some(length) = header(&head, "content-length") {
            ensure!(length == get.body.len().to_string(), "{path}: {length} and {}", get.body.len());
        }
    }

    let slash = ask(&service, "GET", "/projects/docs/", &[]).await?;
    ensure!((slash.status.as_u16(), header(&slash, "location")) == (308, Some("/projects/docs")), "{slash:?}");
    let future = ask(&service, "GET", "/v1/projects/docs/reports/9999-12", &[]).await?;
    ensure!(future.status == 404 && future.json()?["detail"] == "9999-12 has not started", "{future:?}");
    let empty = ask(&service, "GET", report, &[("accept", "")]).await?;
    ensure!(empty.status == 200 && header(&empty, "content-type") == Some("application/json"), "{empty:?}");

    for part in ["", "/pages", "/not-found", "/days", "/hours", "/breakdowns/browser"] {
        let plain = ask(&service, "GET", &format!("{report}{part}.csv"), &[]).await?;
        let marked = ask(&service, "GET", &format!("{report}{part}.csv?bom=1"), &[]).await?;
        ensure!(plain.status == 200 && !plain.body.starts_with(b"\xef\xbb\xbf"), "{part}: {plain:?}");
        ensure!(marked.body.strip_prefix(b"\xef\xbb\xbf") == Some(&plain.body[..]), "{part}: {marked:?}");
    }
    let page = ask(&service, "GET", "/projects/docs/2026-03", &[]).await?;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    ensure!(page.matches(".csv?bom=1\"").count() == page.matches(".csv").count(), "{page}");

    let part = ask(&service, "GET", &format!("{report}/pages?limit=1"), &[]).await?.json()?;
    ensure!(part["note"].as_str().is_some_and(|note| note.starts_with("the month is running")), "{part}");
    for complete in ["pages", "pages?limit=1&sort=path"] {
        let list = ask(&service, "GET", &format!("{report}/{complete}"), &[]).await?.json()?;
        ensure!(list["items"].is_array() && list["note"].is_null(), "{complete}: {list}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_which_pages_are_masked_together() -> Result<()> {
    let service = Service::started(&["--clock-start", CLOCK], &[("docs", "docs.example")]).await?;
    let masked = ["/user/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/user/3f2504e0-4f89-41d3-9a0c-0305e82c3302/x"];
    let plain = ["/a", "/id", "/a:id", "/token/b"];
    for path in masked.iter().chain(&masked[..1]).chain(&plain) {
        view(&service, path, &[]).await?;
    }
    let report = service.counted("docs", MONTH, 7).await?;
    let expected = serde_json::json!({"rows": 2, "views": 3});
    ensure!(report["masked_pages"] == expected, "{}", report["masked_pages"]);
    let page = ask(&service, "GET", "/projects/docs/2026-03", &[]).await?;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    let markdown = service.done(&["report", "docs", MONTH, "--format", "md", "--clock-start", CLOCK]).await?;
    for text in [page, markdown] {
        let text = text.replace(['\\', '\u{a0}'], " ");
        ensure!(
            text.contains("2 rows of the list of pages") && text.contains("headcount project rules docs --keep"),
            "{text}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setup_page_names_a_proxy_that_is_not_trusted() -> Result<()> {
    let projects = [("docs", "docs.example"), ("fresh", "fresh.example")];
    let service = Service::started(&["--clock-start", CLOCK, "--client-rate", "0"], &projects).await?;
    let notice = async || {
        let page = ask(&service, "GET", "/projects/fresh/2026-03", &[]).await?;
        ensure!(page.status == 200, "{page:?}");
        anyhow::Ok(String::from_utf8_lossy(&page.body).contains("<code>trusted_proxy</code>"))
    };
    let mut connection = Connection::open(service.address()).await?;
    let headers = [("user-agent", AGENT), ("x-forwarded-for", "198.51.100.1")];
    for beacon in 1..=500 {
        let body = r#"{"url":"https://docs.example/"}"#;
        let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
        ensure!(answer.status == 202, "{answer:?}");
        if beacon == 499 {
            ensure!(!notice().await?, "499 of the last 1,000");
        }
    }
    ensure!(notice().await?, "500 of the last 1,000");
    ensure!(!service.log().contains("198.51.100.1"), "the log names no IP address");
    service.counted("docs", MONTH, 500).await.context("they are counted all the same")?;
    Ok(())
}
