//! Statements 2, 3, 9 and 10 for access logs: an import of lines with known IP addresses, agents, referrers and secrets in URLs. Then its output, every
//! file of the data directory and every table are searched for them: while it is staged, when it is complete, and after a refusal.

use crate::scan::Needles;
use anyhow::{Context, Result, ensure};
use chrono::{Datelike, Months, NaiveDate, Utc};
use harness::random::mix;
use harness::service::{PATIENCE, Service, binary};
use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use tokio::process::Command;

/// From the ranges for documentation (RFC 5737, RFC 3849).
const V4: &str = "203.0.113.";
const V6: &str = "2001:db8:5eed:cafe";
/// A path with secrets, and as it is stored.
const PAGES: [(&str, &str); 4] = [
    ("/guide?email=geheim-1%40example.org&token=geheim-2", "/guide"),
    ("/u/geheim-3%40example.org/", "/u/:email/"),
    ("/reset/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9geheim4A", "/reset/:token"),
    ("/from/192.0.2.77", "/from/:address"),
];
/// The minute and second of all lines: only the hour may be stored.
const MINUTE: &str = "37:41";

/// The first day of the month three months ago.
fn first_day() -> Result<NaiveDate> {
    let first = Utc::now().date_naive().with_day(1).and_then(|first| first.checked_sub_months(Months::new(3)));
    first.context("a month")
}

/// A log in the format combined, and one of Caddy's, with readers who opt out.
fn logs(day: NaiveDate, agent: &str, page: &str) -> Result<(String, String)> {
    let time = day.format("%d/%b/%Y");
    let unix = day.and_hms_opt(10, 37, 41).context("a time")?.and_utc().timestamp();
    let referrer = "https://www.search.example/geheim-8/?q=geheim-9";
    let (mut combined, mut caddy) = (String::new(), String::new());
    let paths = [page].into_iter().chain(PAGES.iter().map(|(sent, _)| *sent));
    for (number, path) in paths.cycle().take(60).enumerate() {
        let client = if number % 3 == 0 { format!("{V6}::{number:x}") } else { format!("{V4}{}", 1 + number % 20) };
        let line = format!(
            "{client} - geheim-user [{time}:10:{MINUTE} +0000] \"GET {path} HTTP/1.1\" 200 1 \"{referrer}\" \"{agent}\""
        );
        writeln!(combined, "{line}")?;
        if number % 7 == 6 {
            // A line that is not read.
            writeln!(combined, "geheim-5 {client} {agent}")?;
        }
        let quiet = ["Sec-Gpc", "Dnt"][number % 2];
        let request = format!(
            r#"{{"client_ip":"{client}","method":"GET","host":"docs.example","uri":"/geheim-opted-out","headers":{{"User-Agent":["{agent}"],"{quiet}":["1"]}}}}"#
        );
        writeln!(caddy, r#"{{"level":"info","ts":{unix}.5,"request":{request},"status":200}}"#)?;
    }
    Ok((combined, caddy))
}

/// What must be in no byte.
fn sought(agent: &str, day: NaiveDate) -> Result<Needles> {
    let unix = day.and_hms_opt(10, 37, 41).context("a time")?.and_utc().timestamp();
    let mut texts: Vec<(&str, String)> = vec![
        ("the agent", agent.split_whitespace().find(|word| word.starts_with("Kanarie")).context("a word")?.to_owned()),
        ("an IPv4 prefix", V4.to_owned()),
        ("an IPv6 prefix", V6.to_owned()),
        ("a secret", "geheim".to_owned()),
        ("the time of a line", format!(":10:{MINUTE}")),
        ("the time of a line as a number", unix.to_string()),
    ];
    let mut hashes = vec![
        ("a hash of the agent", blake3::hash(agent.as_bytes()).as_bytes()[..8].to_vec()),
        ("an IPv6 network", vec![0x20, 0x01, 0x0d, 0xb8, 0x5e, 0xed, 0xca, 0xfe]),
    ];
    for last in 1..=20_u8 {
        texts.push(("an IPv4 address in hexadecimal", format!("cb0071{last:02x}")));
        hashes.push(("a hash of an address", blake3::hash(format!("{V4}{last}").as_bytes()).as_bytes()[..8].to_vec()));
        hashes.push(("a hash of an address's bytes", blake3::hash(&[203, 0, 113, last]).as_bytes()[..8].to_vec()));
    }
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let hashes: Vec<(&str, &[u8])> = hashes.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    Needles::new(&texts, &hashes)
}

/// Runs an import: its exit code, and its output.
async fn import(service: &Service, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut process = Command::new(binary()?);
    process.args(["import", "--host", "docs.example", "--data"]).arg(service.data()).args(arguments);
    process.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, process.output()).await.context("the import does not end")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
}

/// Where these needles are: in the outputs, the service's log, the data directory and the tables.
async fn everywhere(needles: &Needles, service: &Service, outputs: &str) -> Result<Vec<String>> {
    let (mut found, bytes) = needles.found_below(&service.data())?;
    ensure!(bytes > 100_000, "{bytes} bytes of files are not the data directory");
    let (in_tables, tables) = needles.found_in_tables(&service.clickhouse()?).await?;
    ensure!(tables > 20, "{tables} tables are not all");
    found.extend(in_tables);
    for (name, text) in [("the output", outputs), ("the service's log", service.log().as_str())] {
        found.extend(needles.found_in(text.as_bytes()).into_iter().map(|needle| format!("{needle} in {name}")));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_line_but_coarse_facts_is_written() -> Result<()> {
    let mut service = Service::started(&["--log", "debug,hyper=info"], &[("docs", "docs.example")]).await?;
    let word = format!("{:016x}", mix(Utc::now().timestamp_micros() as u64));
    let agent = format!("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Kanarie{word}/7.3 Firefox/140.0");
    let page = format!("/canary-page-{}.html", &word[..6].replace(|c: char| c.is_ascii_digit(), "x"));
    let (day, home) = (first_day()?, tempfile::tempdir()?);
    let (combined, caddy) = logs(day, &agent, &page)?;
    let path = |name: &str| home.path().join(name).display().to_string();
    let files = [path("access.log"), path("caddy.log")];
    fs::write(&files[0], &combined)?;
    fs::write(&files[1], &caddy)?;
    let files = files.each_ref().map(String::as_str);
    let (sought, expected) = (sought(&agent, day)?, Needles::new(&[("the page", page.as_str())], &[])?);

    // Killed, with all its rows in its own database.
    let (code, mut outputs) = import(&service, &[&["--abort-at", "ledger:1"], files.as_slice()].concat()).await?;
    ensure!(code.is_none(), "{code:?}: {outputs}");
    let found = everywhere(&sought, &service, &outputs).await?;
    ensure!(found.is_empty(), "{found:#?}");
    let there = everywhere(&expected, &service, &outputs).await?;
    ensure!(there.iter().any(|place| place.contains("_import_")), "the page is not in the staged rows: {there:#?}");

    // Complete, and closed.
    let (code, said) = import(&service, &files).await?;
    ensure!(code == Some(0), "{code:?}: {said}");
    outputs += &said;
    let month = day.format("%Y-%m").to_string();
    // Those who opted out are not among them.
    let report = service.counted("docs", &month, 60).await?;
    let mut paths: Vec<&str> = PAGES.iter().map(|(_, stored)| *stored).chain([page.as_str()]).collect();
    paths.sort_unstable();
    let items = report["pages"]["items"].as_array().context("pages")?;
    let mut listed: Vec<&str> = items.iter().filter_map(|item| item["path"].as_str()).collect();
    listed.sort_unstable();
    ensure!(listed == paths, "{listed:?}");
    let referrers = report["breakdowns"]["referrer"].as_array().context("referrers")?;
    ensure!(referrers.len() == 1 && referrers[0]["value"] == "search.example", "{referrers:?}");

    // Refused: an overlap, a damaged file, and a format that is not read.
    for (name, text) in [
        ("grown.log", combined.clone().into_bytes().into_iter().chain(caddy.bytes()).collect()),
        ("damaged.gz", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], combined.as_bytes()].concat()),
        ("strange.log", format!("geheim-6 {V4}7 {agent}\n").repeat(200).into_bytes()),
    ] {
        fs::write(path(name), text)?;
        let (code, said) = import(&service, &[&path(name)]).await?;
        ensure!(code == Some(1) && said.contains("nothing was imported"), "{name}: {code:?}: {said}");
        outputs += &said;
    }
    outputs += &service.done(&["import", "list"]).await?;
    let found = everywhere(&sought, &service, &outputs).await?;
    ensure!(found.is_empty(), "{found:#?}");
    let there = everywhere(&expected, &service, &outputs).await?;
    ensure!(there.iter().any(|place| place.contains("month_closed_page")), "the page is in no figure: {there:#?}");
    println!("2, 3, 9, 10: {} forms of what is in the lines in none of files, tables and output", sought.len());
    // The search would find a line.
    fs::write(service.data().join("copy.log"), combined)?;
    ensure!(
        everywhere(&sought, &service, "").await?.iter().any(|place| place.contains("copy.log")),
        "it finds nothing"
    );
    service.stop().await
}
