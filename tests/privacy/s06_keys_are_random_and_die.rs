//! Statement 6: a key is random, lives for its period, and then remains neither in memory nor on disk.

use crate::scan::Needles;
use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::roles::Deployment;
use harness::service::{Service, eventually};
use harness::{clickhouse, kafka};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// The month's last day, far from its end.
const BEFORE: &str = "2026-01-31T12:00:00Z";
/// The month's end.
const END: &str = "2026-02-01T00:00:00Z";

fn key_of(path: &Path) -> Result<(i64, Vec<u8>)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let file: Value = serde_json::from_str(&text)?;
    let hex = file["key"].as_str().context("a key")?;
    Ok((file["period"].as_i64().context("a period")?, data_encoding::HEXLOWER.decode(hex.as_bytes())?))
}

async fn read_pages(service: &Service, count: usize) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for number in 0..count {
        let body = format!(r#"{{"project":"docs","url":"https://docs.example/{}"}}"#, number % 20);
        let from = format!("198.51.100.{}", number % 250);
        let headers = [
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            ("x-forwarded-for", from.as_str()),
        ];
        let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
        ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_periods_end_the_old_key_is_gone_from_memory_and_disk() -> Result<()> {
    let began = std::time::Instant::now();
    let mut service = Service::new(&["--trusted-proxy", "127.0.0.1"])?;
    service.start(&["--clock-start", BEFORE]).await?;
    service.register(&[("docs", "docs.example")]).await?;
    let path = service.data().join("keys").join("visitor.key");
    let (january, old) = key_of(&path)?;
    read_pages(&service, 500).await?;
    let (now_in_use, key) = key_of(&path)?;
    ensure!(now_in_use == january && key == old, "views were counted with January's key");
    let old_needles = Needles::new(&[], &[("January's key", &old)])?;
    // The first run showed how long this takes on this machine; the same again must end before the month does.
    service.stop().await?;
    let margin = chrono::Duration::from_std(3 * began.elapsed())? + chrono::Duration::seconds(5);
    let before_end = (END.parse::<chrono::DateTime<chrono::Utc>>()? - margin).to_rfc3339();
    service.start(&["--clock-start", &before_end]).await?;
    read_pages(&service, 500).await?;
    let (now_in_use, key) = key_of(&path)?;
    ensure!(now_in_use == january && key == old, "views are counted with January's key until its end");
    let pid = service.pid().context("a process")?;
    let may_look = std::fs::File::open(format!("/proc/{pid}/mem")).is_ok();
    if may_look {
        ensure!(
            !old_needles.found_in_memory(pid)?.0.is_empty(),
            "the key in use is in memory, and the search finds it"
        );
    }
    ensure!(!old_needles.found_below(&service.data())?.0.is_empty(), "and on disk");

    let new = eventually("February's key", async || {
        let (period, key) = key_of(&path)?;
        ensure!(period == january + 1, "period {period}");
        Ok(key)
    })
    .await?;
    ensure!(new != old, "another key");
    read_pages(&service, 500).await?;
    let (on_disk, bytes) = old_needles.found_below(&service.data())?;
    ensure!(on_disk.is_empty(), "on disk: {on_disk:?}");
    println!("6: the old key is in none of {bytes} bytes below the data directory");
    // Another user's tools cannot read the memory at all: statement 14.
    if may_look {
        // The step may be in progress at this moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (in_memory, bytes) = old_needles.found_in_memory(pid)?;
        ensure!(in_memory.is_empty(), "in memory: {in_memory:?}");
        let new_needles = Needles::new(&[], &[("February's key", &new)])?;
        let (in_use, _) = new_needles.found_in_memory(pid)?;
        ensure!(!in_use.is_empty(), "the new one is there");
        println!("6: nor in {bytes} bytes of memory, in any form; February's key is found: {in_use:?}");
    } else {
        println!("6: this user may not look into the process's memory; root's run does");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_random_and_shared_only_by_import() -> Result<()> {
    let directory = tempfile::TempDir::with_prefix("headcount-story-")?;
    let mut keys = std::collections::BTreeSet::new();
    let run = async |arguments: &[&str], data: &str| {
        let data = directory.path().join(data).display().to_string();
        let mut command = tokio::process::Command::new(harness::service::binary()?);
        output_of(command.args(arguments).args(["--data", &data])).await
    };
    for node in 0..20 {
        let data = format!("node{node}");
        // The same configuration on the same day: only the system's randomness differs.
        let (ok, told) = run(&["keys", "init"], &data).await?;
        ensure!(ok, "{told}");
        let (_, key) = key_of(&directory.path().join(&data).join("keys/visitor.key"))?;
        ensure!(!told.contains(&data_encoding::HEXLOWER.encode(&key)), "the key is printed: {told}");
        ensure!(key.len() == 32 && keys.insert(key), "a key came twice");
    }
    let (ok, told) = run(&["keys", "init"], "node0").await?;
    ensure!(!ok && told.contains("already"), "{told}");
    let fingerprint = |told: &str| {
        told.lines().find(|line| line.starts_with("fingerprint")).map(str::to_owned).context("a fingerprint")
    };
    let shown = run(&["keys", "show"], "node0").await?.1;
    let copy = directory.path().join("node0/keys/visitor.key").display().to_string();
    let (ok, imported) = run(&["keys", "import", &copy], "fresh").await?;
    ensure!(ok && fingerprint(&imported)? == fingerprint(&shown)?, "{imported}{shown}");
    ensure!(
        fingerprint(&run(&["keys", "show"], "node1").await?.1)? != fingerprint(&shown)?,
        "other keys look different"
    );
    let (ok, told) = run(&["keys", "show"], "nowhere").await?;
    ensure!(!ok && told.contains("keys init"), "{told}");
    Ok(())
}

async fn output_of(command: &mut tokio::process::Command) -> Result<(bool, String)> {
    let output = command.output().await?;
    let told = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&told).into_owned()))
}

/// Two endpoints of one cluster with different keys would count a visitor twice. They report it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_key_is_noticed() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.prepare(1, 1, &[("docs", "docs.example")]).await?;
    let mut first = deployment.ingest("first", &[])?;
    let mut second = deployment.ingest("second", &[])?;
    first.start(&[]).await?;
    second.start(&[]).await?;
    eventually("both to notice", async || {
        for role in [&first, &second] {
            let state = role.state().await?;
            ensure!(state["key"]["nodes_with_another"] == 1, "{state}");
        }
        Ok(())
    })
    .await?;
    ensure!(
        first.process.log().contains("keys import") || second.process.log().contains("keys import"),
        "and say what to do"
    );
    let page = http::get(first.metrics, "/metrics").await?;
    ensure!(String::from_utf8_lossy(&page.body).contains("headcount_nodes_with_another_key 1"), "a metric says so");
    first.process.stop().await?;
    second.process.stop().await?;
    deployment.drop_database().await
}
