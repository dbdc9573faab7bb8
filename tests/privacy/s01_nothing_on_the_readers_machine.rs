//! Statements 1 and 17: no response of headcount leaves anything on a reader's machine, or sends readers elsewhere. (A real browser shows the same in
//! `tests/stories/browser.rs`. `ingest/src/script.rs` shows that the script reads nothing by which it could recognise a browser.)

use anyhow::{Result, ensure};
use harness::http::Connection;
use harness::service::Service;

/// Names of response headers that a browser stores, sends back, or acts upon elsewhere.
const KEPT: [&str; 12] = [
    "set-cookie",
    "etag",
    "last-modified",
    "link",
    "refresh",
    "location",
    "report-to",
    "reporting-endpoints",
    "nel",
    "alt-svc",
    "accept-ch",
    "strict-transport-security",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_header_is_kept_and_nothing_leads_elsewhere() -> Result<()> {
    let service = Service::started(&["--clock-start", "2026-01-15T10:00:00Z"], &[("docs", "docs.example")]).await?;
    let mut connection = Connection::open(service.address()).await?;
    let beacon = r#"{"project":"docs","url":"https://docs.example/a"}"#;
    let requests = [
        ("GET", "/beacon.js", ""),
        ("POST", "/v1/pageview", beacon),
        ("POST", "/v1/pageview", "{"),
        ("OPTIONS", "/v1/pageview", ""),
        ("GET", "/v1/pageview.gif?project=docs&url=https%3A%2F%2Fdocs.example%2Fa", ""),
        ("GET", "/v1/pageview.gif", ""),
        ("GET", "/nowhere", ""),
    ];
    for (method, path, body) in requests {
        for headers in [
            &[("user-agent", "Mozilla/5.0"), ("origin", "https://docs.example")][..],
            &[("cookie", "a=b"), ("if-none-match", "\"x\"")],
        ] {
            let answer = connection.send(method, path, headers, body).await?;
            for name in KEPT {
                ensure!(!answer.headers.contains_key(name), "{method} {path}: {name}: {:?}", answer.headers);
            }
            ensure!(answer.status != 304, "{path}: something was revalidated");
            // Only the script may be cached, for a day, and as the same bytes for all readers.
            let kept = answer.headers.get("cache-control").and_then(|value| value.to_str().ok()).unwrap_or("");
            ensure!(path == "/beacon.js" || kept.contains("no-store"), "{method} {path}: cache-control: {kept}");
        }
    }
    // The script contains no host: it sends beacons to the host that served it.
    let script = connection.send("GET", "/beacon.js", &[], "").await?;
    let script = String::from_utf8_lossy(&script.body).into_owned();
    ensure!(!script.contains("//"), "{script}");
    // The report's page loads nothing from other hosts, and its policy forbids it.
    let page = connection.send("GET", "/projects/docs/2026-01", &[], "").await?;
    let policy =
        page.headers.get("content-security-policy").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    ensure!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
    Ok(())
}
