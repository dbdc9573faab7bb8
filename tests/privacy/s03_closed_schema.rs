//! Statement 3: a record of the log has the documented fields and no other, and time no finer than the hour.

use crate::records::view;
use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::roles::Deployment;
use harness::{clickhouse, kafka};
use prost::Message;
use schemas::RejectionReason;
use schemas::proto::{LogRecord, RejectionTally, log_record};
use schemas::record::{self, DecodeError};

/// `docs/privacy.md` has the same list.
const FIELDS: [(u32, &str); 22] = [
    (1, "project"),
    (2, "hour"),
    (3, "path"),
    (4, "status"),
    (5, "version"),
    (6, "language"),
    (7, "referrer_host"),
    (8, "country"),
    (9, "device"),
    (10, "browser"),
    (11, "system"),
    (12, "bot_class"),
    (13, "arrival"),
    (14, "site_coordinate"),
    (15, "page_coordinate"),
    (16, "event_id"),
    (17, "bot"),
    (18, "source"),
    (19, "rules"),
    (20, "title"),
    (21, "marks"),
    (22, "version_meant"),
];

/// Fields of a tally of refused beacons, from `docs/privacy.md`.
const OF_TALLIES: [(u32, &str); 6] = [(1, "project"), (2, "hour"), (3, "reason"), (4, "count"), (5, "id"), (6, "host")];

/// Fields of a tally of views counted without a fact.
const OF_DROPPED_FACTS: [(u32, &str); 6] =
    [(1, "project"), (2, "hour"), (3, "fact"), (4, "cause"), (5, "count"), (6, "id")];

/// Fields of a tally of pages reported missing.
const OF_REPORTED_MISSING: [(u32, &str); 5] = [(1, "project"), (2, "hour"), (3, "path"), (4, "count"), (5, "id")];

fn declares(message: &str, fields: &[(u32, &str)]) -> Result<()> {
    let proto = include_str!("../../schemas/proto/pageview.proto");
    let start = format!("message {message} {{");
    let message = proto.split(&start).nth(1).context("the message")?.split('}').next().context("its end")?;
    let mut declared: Vec<(u32, String)> = message
        .lines()
        .filter_map(|line| line.split("//").next()?.trim().strip_suffix(';')?.split_once('='))
        .filter_map(|(name, number)| Some((number.trim().parse().ok()?, name.split_whitespace().last()?.to_owned())))
        .collect();
    declared.sort_unstable();
    let expected: Vec<(u32, String)> = fields.iter().map(|&(number, name)| (number, name.to_owned())).collect();
    ensure!(declared == expected, "{declared:?}");
    Ok(())
}

#[test]
fn any_other_field_is_refused() -> Result<()> {
    declares("PageView", &FIELDS)?;
    declares("RejectionTally", &OF_TALLIES)?;
    declares("DroppedFacts", &OF_DROPPED_FACTS)?;
    declares("ReportedMissing", &OF_REPORTED_MISSING)?;
    let record = view(1, "docs", 490_000);
    ensure!(record::decode(&record).is_ok(), "a record as it is");
    let outer = LogRecord::decode(record.as_slice())?;
    let Some(log_record::Body::PageView(inner)) = outer.body else { anyhow::bail!("no page view") };
    for number in (23..40).chain([100, 1_000, 100_000]) {
        let mut bytes = inner.encode_to_vec();
        prost::encoding::string::encode(number, &"203.0.113.7".to_owned(), &mut bytes);
        // the format, and the page view as field 2 of the record
        let mut whole = vec![8, record::FORMAT as u8];
        prost::encoding::bytes::encode(2, &bytes, &mut whole);
        ensure!(record::decode(&whole) == Err(DecodeError::UnknownField(number)), "field {number} is taken");
    }
    Ok(())
}

/// The host of refused beacons is a site's name, of a known project, if it is the reason: no IP address gets in.
#[test]
fn a_tally_names_sites_only() -> Result<()> {
    let tally = |project: &str, reason: RejectionReason, host: &str| {
        let (project, host) = (project.to_owned(), host.to_owned());
        let tally = RejectionTally { project, hour: 490_000, reason: reason as u32, count: 1, id: 1, host };
        record::encode_rejections(tally, record::RecordFormat::V4)
    };
    let taken = |bytes: &Option<Vec<u8>>| bytes.as_deref().is_some_and(|bytes| record::decode(bytes).is_ok());
    ensure!(taken(&tally("docs", RejectionReason::ForeignHost, "docs.example:8000")), "a site's name");
    for host in [
        "203.0.113.7",
        "203.0.113.7:80",
        "[2001:db8::7]",
        "jane@docs.example",
        "docs.example/jane",
        "Mozilla/5.0 (X11)",
    ] {
        ensure!(!taken(&tally("docs", RejectionReason::ForeignHost, host)), "{host} is taken");
    }
    ensure!(!taken(&tally("", RejectionReason::ForeignHost, "docs.example")), "of no project");
    ensure!(!taken(&tally("docs", RejectionReason::ClientRateLimited, "docs.example")), "of another reason");
    Ok(())
}

/// Decodes the endpoint's records field by field; their hour is the current one.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_endpoint_writes_is_of_these_fields() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.prepare(1, 1, &[("docs", "docs.example")]).await?;
    let mut ingest = deployment.ingest("ingest", &[])?;
    ingest.start(&[]).await?;
    ingest.knows(1).await?;
    let before = schemas::Hour::of(chrono::Utc::now());
    let mut connection = Connection::open(ingest.address).await?;
    let body =
        r#"{"project":"docs","url":"https://docs.example/a?q=1#f","referrer":"https://search.example/?q=secret"}"#;
    for _ in 0..20 {
        let answer = connection
            .send(
                "POST",
                "/v1/pageview",
                &[("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")],
                body,
            )
            .await?;
        ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
    }
    let after = schemas::Hour::of(chrono::Utc::now());
    let records = kafka::read_all(&bootstrap, &deployment.topic, 0).await?;
    ensure!(records.len() == 20, "{} records", records.len());
    for stored in records {
        let Ok(record::Record::PageView(view)) = record::decode(&stored.payload) else { anyhow::bail!("no page view") };
        ensure!((before..=after).contains(&view.hour), "hour {}", view.hour.0);
        ensure!((view.path, view.referrer_host) == ("/a", "search.example"), "{} {}", view.path, view.referrer_host);
    }
    ingest.process.stop().await?;
    deployment.drop_database().await
}
