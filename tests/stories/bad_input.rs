//! Every fault of a beacon has one named reason, is reported to its sender, and is counted as refused. Nothing is dropped silently, no sent text is
//! repeated, and no faulty beacon becomes a view.

#[path = "bad_input/cases.rs"]
mod cases;
#[path = "bad_input/raw.rs"]
mod raw;

use anyhow::{Context, Result, ensure};
use cases::{CANARY, Case};
use harness::http::{Answer, Connection};
use harness::service::{Service, eventually};
use schemas::rejection::NOT_COUNTED_HERE;
use schemas::tables::{LedgerRow, RejectionDailyRow};
use serde_json::Value;
use std::collections::BTreeMap;

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";
const AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const VIEW: &str = r#"{"project":"docs","url":"https://docs.example/welcome.html"}"#;
const PROJECTS: [(&str, &str); 3] = [("docs", "docs.example"), ("one", "shared.example"), ("two", "shared.example")];

/// (project, reason) → refused beacons.
type Refusals = BTreeMap<(String, String), u64>;

/// The reason in the response: all reasons that depend on the registry have the same one.
fn answered(reason: &str) -> &str {
    match reason {
        "unknown_project" | "foreign_host" | "ambiguous_project" => NOT_COUNTED_HERE,
        other => other,
    }
}

/// Checks the common parts of refusals, and this one's text. A pixel request without a page is answered with the image.
fn check(name: &str, answer: &Answer, status: u16, reason: &str, field: Option<&str>) -> Result<()> {
    let shown = String::from_utf8_lossy(&answer.body);
    ensure!(answer.status == status, "{name}: {} instead of {status}: {shown}", answer.status);
    if status == 200 {
        ensure!(answer.body.starts_with(b"GIF89a"), "{name}: expected the image: {shown}");
    } else {
        let error = answer.json().with_context(|| name.to_owned())?["error"].take();
        let answered = answered(reason);
        ensure!(error["reason"] == answered, "{name}: expected {answered}: {shown}");
        ensure!(error["field"].as_str() == field, "{name}: expected the field {field:?}: {shown}");
        ensure!(error["expected"].as_str().is_some_and(|text| !text.is_empty()), "{name}: says what is right: {shown}");
    }
    check_headers(name, answer)?;
    ensure!(!shown.contains(CANARY), "{name}: repeats what was sent: {shown}");
    ensure!(!format!("{:?}", answer.headers).contains(CANARY), "{name}: repeats what was sent: {:?}", answer.headers);
    Ok(())
}

fn check_headers(name: &str, answer: &Answer) -> Result<()> {
    let header = |header: &str| answer.headers.get(header).and_then(|value| value.to_str().ok());
    ensure!(header("access-control-allow-origin") == Some("*"), "{name}: readable by the page: {:?}", answer.headers);
    ensure!(header("cache-control") == Some("no-store"), "{name}: never stored: {:?}", answer.headers);
    ensure!(header("x-content-type-options") == Some("nosniff"), "{name}: is what it says: {:?}", answer.headers);
    for absent in ["set-cookie", "etag", "last-modified"] {
        ensure!(header(absent).is_none(), "{name}: no {absent}: {:?}", answer.headers);
    }
    Ok(())
}

async fn refusals(service: &Service) -> Result<Refusals> {
    let rows =
        service.clickhouse()?.query("SELECT ?fields FROM rejection_daily FINAL").fetch_all::<RejectionDailyRow>();
    let mut refusals = Refusals::new();
    for row in rows.await? {
        *refusals.entry((row.project, row.reason)).or_default() += row.beacons;
    }
    Ok(refusals)
}

/// The ledger's sums; each row adds up.
async fn ledger(service: &Service) -> Result<LedgerRow> {
    let rows = service.clickhouse()?.query("SELECT ?fields FROM ledger FINAL").fetch_all::<LedgerRow>().await?;
    let mut rows = rows.into_iter();
    let mut sum = rows.next().context("the ledger has a window")?;
    for row in rows {
        sum.seen += row.seen;
        sum.accepted += row.accepted;
        sum.duplicate += row.duplicate;
        sum.tallies += row.tallies;
        sum.rejected_beacons += row.rejected_beacons;
        sum.undecodable += row.undecodable;
    }
    ensure!(sum.seen == sum.accepted + sum.duplicate + sum.tallies + sum.undecodable, "{sum:?}");
    Ok(sum)
}

/// The refusals in ClickHouse, once they are as many as were sent.
async fn until_refused(service: &Service, sent: &Refusals) -> Result<()> {
    let total: u64 = sent.values().sum();
    eventually(&format!("{total} refusals in ClickHouse"), async || {
        let found = refusals(service).await?;
        ensure!(found.values().sum::<u64>() >= total, "so far: {found:?}");
        Ok(())
    })
    .await?;
    let found = refusals(service).await?;
    ensure!(found == *sent, "refused: {found:?}\nsent: {sent:?}");
    Ok(())
}

fn of_project(sent: &Refusals, slug: &str) -> Value {
    sent.iter()
        .filter(|((project, _), _)| project == slug)
        .map(|((_, reason), n)| (reason.clone(), (*n).into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

async fn post(service: &Service, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    Connection::open(service.address()).await?.send("POST", "/v1/pageview", headers, body.to_owned()).await
}

/// A reader who opts out is neither counted nor refused.
async fn opted_out(service: &Service) -> Result<()> {
    for (wish, value) in [("sec-gpc", "1"), ("dnt", "1")] {
        for (method, path, body) in [
            ("POST", "/v1/pageview", VIEW),
            ("POST", "/v1/pageview", "not even a beacon"),
            ("GET", "/v1/pageview.gif?project=docs&url=https://docs.example/", ""),
        ] {
            let mut connection = Connection::open(service.address()).await?;
            let answer = connection.send(method, path, &[(wish, value), ("user-agent", AGENT)], body).await?;
            ensure!(answer.status == 204 && answer.body.is_empty(), "{wish}: {answer:?}");
            check_headers(wish, &answer)?;
        }
    }
    Ok(())
}

/// The report has every refusal, and the host of those whose pages moved. No row has a host otherwise.
async fn refused_hosts(service: &Service, sent: &Refusals) -> Result<()> {
    let report = service.report("docs", MONTH).await?;
    ensure!(report["totals"]["views"] == 0 && report["totals"]["visits"] == 0, "{}", report["totals"]);
    ensure!(report["totals"]["rejected"] == of_project(sent, "docs"), "{}, sent {sent:?}", report["totals"]);
    let hosts = report["rejected_hosts"].as_array().context("rejected_hosts")?;
    let moved = hosts.iter().find(|item| item["host"] == "moved.example:8443").context("the host is shown")?;
    ensure!(moved["reason"] == "foreign_host" && moved["beacons"] == 30, "{hosts:?}");
    let sql = "SELECT count() FROM rejection_daily WHERE host != '' AND (reason != 'foreign_host' OR project = '')";
    let others: u64 = service.clickhouse()?.query(sql).fetch_one().await?;
    ensure!(others == 0, "{others} rows of other reasons have a host");
    let sql =
        "SELECT countIf(host = ''), countIf(host LIKE '%192%') FROM rejection_daily WHERE reason = 'foreign_host'";
    let (nameless, addresses): (u64, u64) = service.clickhouse()?.query(sql).fetch_one().await?;
    ensure!(nameless > 0 && addresses == 0, "{nameless} rows without a host, {addresses} with an IP address");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_reason_and_is_counted() -> Result<()> {
    let arguments = ["--clock-start", CLOCK, "--body-timeout-ms", "500", "--header-timeout-ms", "500"];
    let service = Service::started(&arguments, &PROJECTS).await?;
    let mut sent = Refusals::new();
    let mut note = |project: &str, reason: &str| *sent.entry((project.to_owned(), reason.to_owned())).or_default() += 1;

    let cases = cases::all();
    for Case { name, method, path, headers, body, status, reason, field, tallied } in &cases {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut connection = Connection::open(service.address()).await?;
        let answer = connection.send(method, path, &headers, body.clone()).await.with_context(|| name.clone())?;
        check(name, &answer, *status, reason, *field)?;
        if *status == 405 {
            ensure!(answer.headers.contains_key("allow"), "{name}: says what is allowed: {:?}", answer.headers);
        }
        if let Some(project) = tallied {
            note(project, reason);
        }
    }

    let long = raw::chunked(service.address(), &vec![b' '; (16 << 10) + 1]).await?;
    check("a huge body in chunks", &long, 413, "body_too_large", None)?;
    note("", "body_too_large");
    let slow = raw::dribbled(service.address()).await?;
    check("a body in drops", &slow, 408, "body_timeout", None)?;
    note("", "body_timeout");
    for status in raw::malformed(service.address()).await? {
        match status {
            413 => note("", "body_too_large"),
            408 => note("", "body_timeout"),
            _ => note("", "malformed_json"),
        }
    }

    // Docs on two unregistered hosts. Both exceed the threshold, but the rarer one is suppressed to protect the others.
    for (host, times) in [("moved.example:8443", 30), ("old.example", 12)] {
        let beacon = format!(r#"{{"project":"docs","url":"https://{host}/welcome.html?q=1"}}"#);
        for _ in 0..times {
            let answer = post(&service, &[("user-agent", AGENT)], &beacon).await?;
            check("docs that moved", &answer, 404, "foreign_host", Some("url"))?;
            note("docs", "foreign_host");
        }
    }
    // An IP address is not a site's name: the refusal is counted without it.
    let bare = r#"{"project":"docs","url":"http://192.0.2.7/welcome.html"}"#;
    check("an address", &post(&service, &[("user-agent", AGENT)], bare).await?, 404, "foreign_host", Some("url"))?;
    note("docs", "foreign_host");

    until_refused(&service, &sent).await?;
    refused_hosts(&service, &sent).await?;
    let before = ledger(&service).await?;
    ensure!(before.rejected_beacons == sent.values().sum::<u64>() && before.accepted == 0, "{before:?}");

    // The later view proves that the earlier requests were finished.
    opted_out(&service).await?;
    let answer = post(&service, &[("user-agent", AGENT)], VIEW).await?;
    ensure!(answer.status == 202, "the view after them: {answer:?}");
    let report = service.counted("docs", MONTH, 1).await?;
    let after = ledger(&service).await?;
    ensure!((after.seen, after.accepted) == (before.seen + 1, 1), "one record more: {before:?}, then {after:?}");
    until_refused(&service, &sent).await?;

    // An IP address in an untrusted client's header does not add visitors.
    views_from_fifty(&service).await?;
    let crowd = service.counted("docs", MONTH, 51).await?;
    ensure!(crowd["totals"]["visitors"]["estimate"] == 1, "one reader: {}", crowd["totals"]);
    for (place, text) in [("the log", service.log()), ("the report", report.to_string() + &crowd.to_string())] {
        ensure!(!text.contains(CANARY), "{place} repeats what was sent:\n{text}");
    }
    println!("{} cases and 3 on the wire, refused: {sent:?}", cases.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_with_an_odd_optional_fact_is_counted_and_the_fact_is_in_the_report() -> Result<()> {
    let service = Service::started(&["--clock-start", CLOCK], &PROJECTS).await?;
    let facts = cases::odd_facts();
    let mut dropped = BTreeMap::<&str, u64>::new();
    for (field, value, fact) in &facts {
        let mut beacon = serde_json::json!({"project": "docs", "url": "https://docs.example/welcome.html"});
        beacon[*field] = value.clone();
        let answer = post(&service, &[("user-agent", AGENT)], &beacon.to_string()).await?;
        ensure!(answer.status == 202, "{field} {value}: {answer:?}");
        *dropped.entry(*fact).or_default() += 1;
    }
    let sent = facts.len() as u64;
    let report = eventually("the dropped facts in the report", async || {
        let report = service.counted("docs", MONTH, sent).await?;
        let shown = report["dropped_facts"].as_array().context("dropped_facts")?;
        let shown: BTreeMap<_, _> =
            shown.iter().filter_map(|item| Some((item["fact"].as_str()?, item["views"].as_u64()?))).collect();
        ensure!(shown == dropped, "shown: {shown:?}, sent: {dropped:?}");
        Ok(report)
    })
    .await?;
    ensure!(report["totals"]["views"] == sent && report["totals"]["rejected"] == serde_json::json!({}), "{report}");
    for (place, text) in [("the log", service.log()), ("the report", report.to_string())] {
        ensure!(!text.contains(CANARY), "{place} repeats what was sent:\n{text}");
    }
    println!("{sent} views with an odd fact, all counted, dropped: {dropped:?}");
    Ok(())
}

/// One view from each of 50 IP addresses, as a proxy would report them.
async fn views_from_fifty(service: &Service) -> Result<()> {
    for reader in 1..=50 {
        let from = format!("198.51.100.{reader}");
        let answer = post(service, &[("user-agent", AGENT), ("x-forwarded-for", &from)], VIEW).await?;
        ensure!(answer.status == 202, "{from}: {answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_reader_has_a_limit() -> Result<()> {
    // A burst of one, and the next after ten seconds.
    let arguments = ["--clock-start", CLOCK, "--trusted-proxy", "127.0.0.1", "--client-rate", "0.1"];
    let service = Service::started(&arguments, &PROJECTS).await?;
    views_from_fifty(&service).await?;
    let report = service.counted("docs", MONTH, 50).await?;
    let visitors = report["totals"]["visitors"]["estimate"].as_u64().context("an estimate")?;
    ensure!((47..=53).contains(&visitors), "fifty readers: {}", report["totals"]);

    let from = [("user-agent", AGENT), ("x-forwarded-for", "203.0.113.9")];
    let answer = post(&service, &from, VIEW).await?;
    ensure!(answer.status == 202, "the first: {answer:?}");
    let answer = post(&service, &from, VIEW).await?;
    check("the second at once", &answer, 429, "client_rate_limited", None)?;
    let wait = answer.headers.get("retry-after").and_then(|value| value.to_str().ok()).unwrap_or_default();
    ensure!(wait.parse::<u64>().is_ok_and(|seconds| seconds > 0), "says when to come back: {answer:?}");
    until_refused(&service, &Refusals::from([((String::new(), "client_rate_limited".to_owned()), 1)])).await?;
    service.counted("docs", MONTH, 51).await?;
    Ok(())
}
