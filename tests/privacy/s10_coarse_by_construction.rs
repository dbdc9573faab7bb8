//! Statement 10: the stored facts of a page view are coarse. The input is URLs, agents and referrers with every kind of identifying text; the output
//! is listed here, and there is nothing else.

use crate::scan::Needles;
use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::Service;

const AGENT: &str = "Mozilla/5.0 (Linux; Android 14; Pixel 8a Build/UD1A.230805.019) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/131.7.6778.135 Mobile Safari/537.36";

/// (path and query as sent, path as stored)
const PAGES: [(&str, &str); 13] = [
    ("/guide?utm_id=geheim-1&email=geheim-2%40example.org#geheim-3", "/guide"),
    ("/u/geheim-4%40example.org/", "/u/:email/"),
    ("/reset/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9geheim5A", "/reset/:token"),
    ("/orders/123456789012", "/orders/:id"),
    ("/c/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/c/:id"),
    ("/from/192.0.2.77", "/from/:address"),
    ("/page;jsessionid=GEHEIM6A1B2C3D4E", "/:token"),
    ("/token=geheim-7", "/:token"),
    ("/u/geheim-11%252540example.org", "/u/:email"),
    ("/u/invite-geheim-3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/u/:id"),
    ("/en/1.2.3.4/classEigen_1_1SparseMatrix.html", "/en/1.2.3.4/classEigen_1_1SparseMatrix.html"),
    ("/en//stable/index.html", "/en/stable/"),
    ("/en/stable/", "/en/stable/"),
];

#[tokio::test(flavor = "multi_thread")]
async fn personal_data_is_removed_and_masked() -> Result<()> {
    let arguments =
        ["--clock-start", "2026-01-15T10:00:00Z", "--trusted-proxy", "127.0.0.1", "--country-header", "x-country"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    let mut connection = Connection::open(service.address()).await?;
    let headers = [("user-agent", AGENT), ("x-country", "NL"), ("x-forwarded-for", "203.0.113.9")];
    // Twelve times each: values that are counted less often are below the threshold, and suppressed anyway.
    for _ in 0..12 {
        for (page, _) in PAGES {
            let body = serde_json::json!({
                "project": "docs",
                "url": format!("https://docs.example{page}"),
                "referrer": "https://www.search.example/geheim-8/?q=geheim-9#geheim-10",
                "version": "stable",
                "language": "en",
            });
            let answer = connection.send("POST", "/v1/pageview", &headers, body.to_string()).await?;
            ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
        }
    }
    let report = service.counted("docs", "2026-01", 12 * PAGES.len() as u64).await?;
    let mut paths: Vec<&str> =
        report["pages"]["items"].as_array().context("pages")?.iter().filter_map(|page| page["path"].as_str()).collect();
    paths.sort_unstable();
    let mut expected: Vec<&str> = PAGES.iter().map(|(_, stored)| *stored).collect();
    expected.sort_unstable();
    expected.dedup();
    ensure!(paths == expected, "{paths:?}");
    for (dimension, value) in [
        ("browser", "Chrome"),
        ("os", "Android"),
        ("device", "Mobile"),
        ("country", "NL"),
        ("referrer", "search.example"),
    ] {
        let items = report["breakdowns"][dimension].as_array().context("a breakdown")?;
        ensure!(items.len() == 1 && items[0]["value"] == value, "{dimension}: {items:?}");
    }
    // The removed parts are not on disk either: not in the journal, not in ClickHouse's files or tables.
    let sought = Needles::new(
        &[("a secret", "geheim"), ("a version", "131.7.6778"), ("a device", "Pixel 8a"), ("an id", "3f2504e0")],
        &[],
    )?;
    let (tables, _) = sought.found_in_tables(&service.clickhouse()?).await?;
    let (files, bytes) = sought.found_below(&service.data())?;
    ensure!(tables.is_empty() && files.is_empty(), "{tables:?} {files:?}");
    println!("10: {} paths as documented; nothing that was cut in {bytes} bytes", paths.len());
    Ok(())
}

/// A project's path rules: it masks more, stores segments that only look like an id, and distinguishes pages by a parameter.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_has_rules_of_its_own() -> Result<()> {
    let service = Service::started(&["--clock-start", "2026-01-15T10:00:00Z"], &[("docs", "docs.example")]).await?;
    let rules = async |arguments: &[&str]| -> Result<(bool, String)> {
        let mut command = tokio::process::Command::new(harness::service::binary()?);
        command.args(["project", "rules", "docs", "--data"]).arg(service.data()).args(arguments);
        let output = command.output().await?;
        let told = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&told).into_owned()))
    };
    for (wrong, expected) in [(["--mask", "users/*"], "no pattern"), (["--query-parameter", "a=b"], "no name")] {
        let (ok, told) = rules(&wrong).await?;
        ensure!(!ok && told.contains(expected), "{told}");
    }
    let (ok, told) = rules(&["--mask", "/users/*", "--keep", "/c/*", "--query-parameter", "page"]).await?;
    ensure!(ok && told.contains("mask: nothing → /users/*"), "{told}");
    let (ok, told) = rules(&["--mask", "/orders/*", "--html", "strip"]).await?;
    ensure!(ok && told.contains("mask: /users/* → /users/*, /orders/*"), "{told}");
    let (ok, told) = rules(&["--remove-mask", "/orders/*"]).await?;
    ensure!(ok && told.contains("mask: /users/*, /orders/* → /users/*"), "{told}");
    // Without options the rules are printed, and do not change.
    for _ in 0..2 {
        let (ok, told) = rules(&[]).await?;
        let expected = "mask: /users/*\nkeep: /c/*\nquery-parameter: page\ntrailing-slash: keep\nhtml: strip\n";
        ensure!(ok && told == expected, "{told}");
    }

    let mut connection = Connection::open(service.address()).await?;
    let mut send = async |path: &str| -> Result<()> {
        let body = serde_json::json!({"project": "docs", "url": format!("https://docs.example{path}")});
        let agent = [("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")];
        let answer = connection.send("POST", "/v1/pageview", &agent, body.to_string()).await?;
        ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
        Ok(())
    };
    let paths = async || -> Result<Vec<String>> {
        let report = service.report("docs", "2026-01").await?;
        let pages = report["pages"]["items"].as_array().context("pages")?;
        Ok(pages.iter().filter_map(|page| Some(page["path"].as_str()?.to_owned())).collect())
    };
    // The endpoint reads the registry every two seconds.
    let deadline = std::time::Instant::now() + harness::service::PATIENCE;
    while !paths().await?.contains(&"/users/:masked".to_owned()) {
        ensure!(std::time::Instant::now() < deadline, "the rules do not come into force: {:?}", paths().await?);
        send("/users/early").await?;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let hash = "0123456789abcdef0123456789abcdef01234567";
    for path in [
        "/users/geheim-jane".to_owned(),
        format!("/c/{hash}"),
        format!("/d/{hash}"),
        "/list?page=2&q=geheim".to_owned(),
        "/a.html".to_owned(),
    ] {
        send(&path).await?;
    }
    let expected = ["/users/:masked", &format!("/c/{hash}"), "/d/:id", "/list?page=2", "/a"].map(str::to_owned);
    harness::service::eventually("the pages", async || {
        let paths = paths().await?;
        ensure!(expected.iter().all(|path| paths.contains(path)), "{paths:?}");
        ensure!(!paths.iter().any(|path| path.contains("geheim")), "{paths:?}");
        Ok(())
    })
    .await
}
