//! Countries without a proxy that says them: from a database of IP addresses, which may be replaced while the service runs.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, eventually};
use serde_json::{Value, json};
use std::path::Path;

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
/// Networks of a university and of research, which have been in their countries for decades, and one of documentation (RFC 5737).
const GERMAN: &str = "141.20.1.1";
const FRENCH: &str = "2001:660::1";
const NOWHERE: &str = "192.0.2.1";

/// Views as a breakdown shows them.
const VIEWS: u64 = 5;

async fn views(service: &Service, headers: &[(&str, &str)]) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    let headers = [&[("user-agent", AGENT)], headers].concat();
    for _ in 0..VIEWS {
        let body = r#"{"url":"https://docs.example/"}"#;
        let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
        ensure!(answer.status == 202, "{} {:?}", answer.status, answer.body);
    }
    Ok(())
}

async fn countries(service: &Service, views: u64) -> Result<Value> {
    let report = service.counted("docs", MONTH, views).await?;
    let items = report["breakdowns"]["country"].as_array().context("countries")?;
    Ok(items.iter().map(|item| json!([item["value"], item["views"]])).collect())
}

/// Puts a file in place of another, as a download does.
fn replace(from: &[u8], to: &Path) -> Result<()> {
    let beside = to.with_extension("new");
    std::fs::write(&beside, from)?;
    Ok(std::fs::rename(beside, to)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn countries_come_from_the_header_of_a_trusted_proxy_or_from_the_database() -> Result<()> {
    let fetched = std::env::var("HEADCOUNT_COUNTRIES").context("HEADCOUNT_COUNTRIES: see scripts/countries")?;
    let database = std::fs::read(&fetched).with_context(|| fetched.clone())?;
    let home = tempfile::tempdir()?;
    let path = home.path().join("countries.mmdb");
    replace(&database, &path)?;
    let file = path.to_str().context("a path")?;
    let arguments = ["--clock-start", CLOCK, "--small-cell-floor", "3", "--trusted-proxy", "127.0.0.1"];
    let country = ["--country-header", "x-country", "--country-database", file];
    let service = Service::started(&[&arguments[..], &country].concat(), &[("docs", "docs.example")]).await?;

    for reader in [GERMAN, FRENCH, NOWHERE] {
        views(&service, &[("x-forwarded-for", reader)]).await?;
    }
    views(&service, &[("x-forwarded-for", GERMAN), ("x-country", "NL")]).await?;
    // Tor has no country, wherever its last node is.
    views(&service, &[("x-forwarded-for", GERMAN), ("x-country", "T1")]).await?;
    let mut expected = vec![json!(["", 2 * VIEWS]), json!(["DE", VIEWS]), json!(["FR", VIEWS]), json!(["NL", VIEWS])];
    let found = countries(&service, 5 * VIEWS).await?;
    ensure!(found == json!(expected), "{found}");

    replace(&database[..database.len() / 2], &path)?;
    eventually("an error about the file", async || {
        ensure!(service.log().contains("cannot be used; countries come from the previous version"), "no error");
        Ok(())
    })
    .await?;
    views(&service, &[("x-forwarded-for", FRENCH)]).await?;
    expected[2] = json!(["FR", 2 * VIEWS]);
    expected.swap(1, 2);
    let found = countries(&service, 6 * VIEWS).await?;
    ensure!(found == json!(expected), "{found}");

    replace(&database, &path)?;
    eventually("the file to be read again", async || {
        ensure!(service.log().contains("has changed and was read again"), "it is not");
        Ok(())
    })
    .await?;
    let log = service.log();
    ensure!([GERMAN, FRENCH, NOWHERE].iter().all(|reader| !log.contains(reader)), "the log names a reader");
    let mut connection = Connection::open(service.address()).await?;
    let privacy = connection.send("GET", "/privacy", &[("accept", "application/json")], "").await?.json()?;
    let words = "from the header x-country, if a trusted proxy sets it; else from a file on the server, by IP address";
    ensure!(privacy["country"] == words, "{privacy}");
    Ok(())
}
