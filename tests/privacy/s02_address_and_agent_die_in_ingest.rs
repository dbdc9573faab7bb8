//! Statement 2: canaries. Readers of known IP address and agent use the whole pipeline, with every possible fault of a beacon. Then every byte that
//! was written anywhere is searched for them.

use crate::scan::Needles;
use anyhow::{Context, Result, ensure};
use harness::clickhouse::Engine;
use harness::http::{self, Connection};
use harness::kafka::{self, Broker};
use harness::random::mix;
use harness::roles::{Deployment, Role};
use harness::service::eventually;
use serde_json::Value;
use std::fmt::Write as _;

/// From the ranges for documentation (RFC 5737, RFC 3849), so that they are assigned to no one.
const V4: &str = "203.0.113.";
const V6: &str = "2001:db8:5eed:cafe";

/// What is searched for, and what must be found, which proves that the search covers the right places.
struct Canaries {
    agent: String,
    /// A page of the canaries, which is not secret.
    page: String,
    /// The id of a view as sent by a page: it might be a user's number.
    id: u64,
    sought: Needles,
    expected: Needles,
}

impl Canaries {
    fn new(key: &[u8]) -> Result<Self> {
        let word = format!("{:016x}", mix(chrono::Utc::now().timestamp_micros() as u64));
        let agent = format!("Mozilla/5.0 (X11; Linux x86_64) Kanarie{word}/7.3 Firefox/140.0");
        let canary = format!("Kanarie{word}");
        let page = format!("/canary-page-{}.html", &word[..6].replace(|c: char| c.is_ascii_digit(), "x"));
        let mut texts =
            vec![("the agent", canary.clone()), ("an IPv4 prefix", V4.to_owned()), ("an IPv6 prefix", V6.to_owned())];
        let mut hashes: Vec<(String, Vec<u8>)> = Vec::new();
        for last in 1..=20u8 {
            let address = format!("{V4}{last}");
            texts.push(("an IPv4 address in hexadecimal", format!("cb0071{last:02x}")));
            let octets = [203, 0, 113, last];
            let mut hash = |name: &str, hash: blake3::Hash| {
                let half = hash.as_bytes()[..8].to_vec();
                let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default());
                texts.push(("a hash as a number", number.to_string()));
                hashes.push((name.to_owned(), half));
            };
            hash("a hash of an address", blake3::hash(address.as_bytes()));
            hash("a hash of an address's bytes", blake3::hash(&octets));
            // The hash from which the coordinate is taken (`ingest/src/visitor.rs`).
            let mut input = vec![1];
            for part in [&b"docs"[..], &octets, agent.as_bytes()] {
                input.extend((part.len() as u32).to_le_bytes());
                input.extend(part);
            }
            let key: &[u8; 32] = key.try_into()?;
            hash("the keyed hash", blake3::keyed_hash(key, &input));
        }
        let id = mix(0x5eed_1d00 ^ chrono::Utc::now().timestamp_micros() as u64) | 1 << 63;
        texts.push(("the id of a view as a number", id.to_string()));
        hashes.push(("the id of a view".to_owned(), id.to_be_bytes().to_vec()));
        hashes.push(("the id of a view in a record".to_owned(), id.to_le_bytes().to_vec()));
        hashes.push(("a hash of the agent".to_owned(), blake3::hash(agent.as_bytes()).as_bytes()[..8].to_vec()));
        let v6: [u8; 8] = [0x20, 0x01, 0x0d, 0xb8, 0x5e, 0xed, 0xca, 0xfe];
        hashes.push(("an IPv6 network".to_owned(), v6.to_vec()));
        let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let bytes: Vec<(&str, &[u8])> = hashes.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let expected = Needles::new(&[("the page", page.as_str())], &[])?;
        Ok(Canaries { agent, page, id, sought: Needles::new(&texts, &bytes)?, expected })
    }

    fn reader(&self, number: u64) -> Vec<(&'static str, String)> {
        let address =
            if number.is_multiple_of(3) { format!("{V6}::{number:x}") } else { format!("{V4}{}", 1 + number % 20) };
        let forwarded = if number.is_multiple_of(2) {
            ("forwarded", format!("for=\"[{V6}::1]:4711\""))
        } else {
            ("x-real-ip", address.clone())
        };
        vec![("user-agent", self.agent.clone()), ("x-forwarded-for", address), forwarded]
    }
}

/// One request of a canary; the whole response is stored.
async fn send(
    address: std::net::SocketAddr,
    canaries: &Canaries,
    number: u64,
    (method, path): (&str, &str),
    more: &[(&str, &str)],
    body: Vec<u8>,
    answers: &mut Vec<u8>,
) -> Result<u16> {
    let reader = canaries.reader(number);
    let headers: Vec<(&str, &str)> =
        reader.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied()).collect();
    let mut connection = Connection::open(address).await?;
    // An endpoint that panics, or does not read the rest of a body, may close the connection.
    let Ok(answer) = connection.send(method, path, &headers, body).await else { return Ok(0) };
    answers.extend(format!("{:?}", answer.headers).into_bytes());
    answers.extend(&answer.body);
    Ok(answer.status.as_u16())
}

/// Every kind of beacon: counted, refused for each reason, incomplete, opted out, and one that makes the endpoint panic.
async fn all_kinds(ingest: &Role, canaries: &Canaries, answers: &mut Vec<u8>) -> Result<()> {
    let post = ("POST", "/v1/pageview");
    let page = |path: &str| format!(r#"{{"project":"docs","url":"https://docs.example{path}"}}"#).into_bytes();
    for number in 0..60 {
        let status = send(ingest.address, canaries, number, post, &[], page(&canaries.page), answers).await?;
        ensure!(status == 202, "{status}");
    }
    let with_id =
        format!(r#"{{"project":"docs","url":"https://docs.example{}","id":"{:016x}"}}"#, canaries.page, canaries.id);
    let status = send(ingest.address, canaries, 61, post, &[], with_id.into_bytes(), answers).await?;
    ensure!(status == 202, "{status}");
    let pixel = format!("/v1/pageview.gif?project=docs&url=https%3A%2F%2Fdocs.example{}", canaries.page);
    let bodies: [&[u8]; 8] = [
        b"{",
        b"[]",
        b"{\"url\":7}",
        b"\xff\xfe",
        br#"{"url":"nonsense"}"#,
        br#"{"project":"nobody","url":"https://docs.example/"}"#,
        br#"{"project":"docs","url":"https://elsewhere.example/"}"#,
        br#"{"project":"docs","url":"https://docs.example/","status":99999}"#,
    ];
    for (number, body) in bodies.into_iter().enumerate() {
        send(ingest.address, canaries, number as u64, post, &[], body.to_vec(), answers).await?;
    }
    for (request, headers) in [
        (("GET", pixel.as_str()), &[][..]),
        (("GET", "/v1/pageview.gif?project=nobody"), &[("referer", "https://docs.example/x")]),
        (("POST", "/v1/pageview"), &[("sec-gpc", "1")]),
        (("OPTIONS", "/v1/pageview"), &[("origin", "https://docs.example")]),
        (("DELETE", "/v1/pageview"), &[]),
        (("GET", "/nothing/here"), &[]),
        (("GET", "/readyz"), &[]),
    ] {
        send(ingest.address, canaries, 5, request, headers, page(&canaries.page), answers).await?;
    }
    for path in ["/readyz", "/metrics"] {
        send(ingest.metrics, canaries, 5, ("GET", path), &[], page(&canaries.page), answers).await?;
    }
    send(ingest.address, canaries, 5, post, &[], vec![b'x'; 100_000], answers).await?;
    send(ingest.address, canaries, 5, post, &[], page("/panic-here.html"), answers).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_them_is_written_anywhere() -> Result<()> {
    let (mut broker, mut engine) = (Broker::start().await?, Engine::start().await?);
    let bootstrap = broker.bootstrap();
    let mut deployment = Deployment::new(&bootstrap, &engine.url()?)?;
    deployment.settings.extend(["--flush-ms", "300", "--log", "trace,hyper=info,h2=info"].map(str::to_owned));
    deployment.prepare(2, 1, &[("docs", "docs.example")]).await?;
    let own = ["--trusted-proxy", "127.0.0.1", "--panic-on-path", "/panic-here.html", "--spill-after-ms", "300"];
    let mut ingest = deployment.ingest("ingest", &own)?;
    let mut aggregate = deployment.aggregate("aggregate", &[])?;
    let mut query = deployment.query("query", &[])?;
    ingest.start(&[]).await?;
    ingest.knows(1).await?;
    aggregate.start(&[]).await?;
    query.start(&[]).await?;
    let key: Value =
        serde_json::from_str(&std::fs::read_to_string(deployment.path().join("ingest/keys/visitor.key"))?)?;
    let canaries = Canaries::new(&data_encoding::HEXLOWER.decode(key["key"].as_str().context("a key")?.as_bytes())?)?;

    let mut answers = Vec::new();
    all_kinds(&ingest, &canaries, &mut answers).await?;
    // The same through the spill.
    broker.kill().await?;
    for number in 100..140 {
        let body = format!(r#"{{"project":"docs","url":"https://docs.example{}"}}"#, canaries.page);
        let request = ("POST", "/v1/pageview");
        let status = send(ingest.address, &canaries, number, request, &[], body.into_bytes(), &mut answers).await?;
        ensure!(status == 202, "{status}");
    }
    let spill = std::fs::read(deployment.path().join("ingest/spill.redb"))?;
    ensure!(!canaries.expected.found_in(&spill).is_empty(), "the views are in the spill");
    broker.launch().await?;
    eventually("the spill to be empty", async || {
        let left = ingest.figure("spill_records").await?;
        ensure!(left == 0.0, "{left} records");
        Ok(())
    })
    .await?;
    let audit = deployment.audit(60).await?;
    // An unusable status loses no view: one of the odd bodies is counted.
    ensure!(audit["difference_count"] == 0 && audit["accepted"] == 103, "{audit}");
    let month = chrono::Utc::now().format("%Y-%m");
    for path in [format!("/v1/projects/docs/reports/{month}"), format!("/projects/docs/{month}"), "/metrics".to_owned()]
    {
        answers.extend(&http::get(query.address, &path).await?.body);
    }
    ensure!(ingest.process.log().contains("panicked"), "the panic was one");

    // Everything that was written.
    let found = everything(&canaries.sought, &deployment, &bootstrap, &broker, &engine, &answers).await?;
    ensure!(found.is_empty(), "{found:#?}");
    let there = everything(&canaries.expected, &deployment, &bootstrap, &broker, &engine, &answers).await?;
    for place in ["a record", "page_daily", "spill.redb", "an answer"] {
        ensure!(there.iter().any(|found| found.contains(place)), "the page itself is not found in {place}: {there:#?}");
    }
    println!("2: {} forms of address, prefix, agent and hashes in none of them", canaries.sought.len());

    // The search would find a leak: an IP address in a line of a log, and a user agent in a row.
    let log = deployment.path().join("ingest.log");
    let mut text = std::fs::read_to_string(&log)?;
    writeln!(text, "a beacon came from {V4}7")?;
    std::fs::write(&log, text)?;
    let leak = "INSERT INTO breakdown_window (project, day, dimensions, values, views) SELECT 'docs', today(), ['country'], [base64Encode(?)], [1]";
    deployment.client().query(leak).bind(canaries.agent.as_str()).execute().await?;
    let found = everything(&canaries.sought, &deployment, &bootstrap, &broker, &engine, &answers).await?;
    for place in ["ingest.log", "breakdown_window"] {
        ensure!(found.iter().any(|found| found.contains(place)), "the leak in {place} is not found: {found:#?}");
    }
    println!("2: two planted leaks are found: {}", found.join("; "));
    for role in [&mut ingest, &mut aggregate, &mut query] {
        role.process.stop().await?;
    }
    engine.stop().await?;
    broker.stop().await
}

/// What is found in records as stored, in tables as ClickHouse decompresses them, in every file of all data directories and logs, and in all
/// responses.
async fn everything(
    needles: &Needles,
    deployment: &Deployment,
    bootstrap: &str,
    broker: &Broker,
    engine: &Engine,
    answers: &[u8],
) -> Result<Vec<String>> {
    let mut found: Vec<String> =
        needles.found_in(answers).into_iter().map(|name| format!("{name} in an answer")).collect();
    let mut records = 0;
    for partition in 0..2 {
        for record in kafka::read_all(bootstrap, &deployment.topic, partition).await? {
            records += 1;
            found.extend(needles.found_in(&record.payload).into_iter().map(|name| format!("{name} in a record")));
        }
    }
    let (in_tables, tables) = needles.found_in_tables(&deployment.client()).await?;
    found.extend(in_tables);
    let mut bytes = 0;
    for directory in [deployment.path(), &broker.data()?, engine.data()] {
        let (in_files, read) = needles.found_below(directory)?;
        found.extend(in_files);
        bytes += read;
    }
    println!(
        "2: searched {records} records, {tables} tables, {bytes} bytes of files, {} bytes of answers",
        answers.len()
    );
    Ok(found)
}
