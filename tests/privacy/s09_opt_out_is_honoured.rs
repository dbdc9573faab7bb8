//! Statement 9: readers who opt out are not counted, and nothing is written. (The browser's story, `tests/stories/browser.rs`, and
//! `tests/stories/beacon_script.rs` show that the script sends nothing.)

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_answers_204_and_writes_nothing() -> Result<()> {
    let service = Service::started(&["--clock-start", "2026-01-15T10:00:00Z"], &[("docs", "docs.example")]).await?;
    let mut connection = Connection::open(service.address()).await?;
    let body = r#"{"project":"docs","url":"https://docs.example/quiet.html"}"#;
    let end = async || -> Result<u64> {
        let state = service.state().await?;
        state["refused_beacons"].as_u64().context("refused_beacons")
    };
    let refused = end().await?;
    let journal = std::fs::read(service.data().join("journal.redb"))?;
    for (name, value) in [("sec-gpc", "1"), ("dnt", "1"), ("sec-gpc", " 1 "), ("Sec-GPC", "1")] {
        for (method, path, body) in [
            ("POST", "/v1/pageview", body),
            ("POST", "/v1/pageview", "rubbish"),
            ("GET", "/v1/pageview.gif?project=docs&url=https%3A%2F%2Fdocs.example%2Fquiet.html", ""),
        ] {
            let answer = connection.send(method, path, &[(name, value), ("user-agent", "Mozilla/5.0")], body).await?;
            ensure!(answer.status == 204 && answer.body.is_empty(), "{name}: {value}: {}", answer.status);
        }
    }
    ensure!(end().await? == refused, "an opt-out is counted as refused");
    // The tally of refusals is written every second.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    ensure!(std::fs::read(service.data().join("journal.redb"))? == journal, "the journal has changed");
    // The same beacon without the opt-out is counted.
    let headers = [("sec-gpc", "0"), ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")];
    ensure!(connection.send("POST", "/v1/pageview", &headers, body).await?.status == 202, "accepted");
    service.counted("docs", "2026-01", 1).await?;
    Ok(())
}
