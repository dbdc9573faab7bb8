//! Statement 14: no core dump, no access to the process's memory, and a panic message without a reader's data.

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::service::Service;

const CANARY: &str = "Kanarie-of-statement-fourteen";

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_prints_no_values_and_the_process_cannot_be_dumped() -> Result<()> {
    let service = Service::started(&["--panic-on-path", "/here"], &[("docs", "docs.example")]).await?;
    let pid = service.pid().context("a process")?;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("a limit")?;
    ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    // A process that is not dumpable belongs to root in /proc, whichever user runs it (proc(5)); only root may read its memory.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let as_root = status.lines().any(|line| line.starts_with("Uid:\t0"));
    let readable = std::fs::read(format!("/proc/{pid}/environ")).is_ok();
    ensure!(as_root || !readable, "another process of this user reads its memory");
    // The page of the key is locked: never in swap.
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).context("VmLck")?;
    ensure!(locked.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()) >= Some(4), "{locked}");

    let mut connection = Connection::open(service.address()).await?;
    let body = r#"{"project":"docs","url":"https://docs.example/here"}"#;
    let answer = connection.send("POST", "/v1/pageview", &[("user-agent", CANARY)], body).await;
    ensure!(
        answer.is_err() || answer.is_ok_and(|answer| answer.status.is_server_error()),
        "the beacon is not accepted"
    );
    let log = service.log();
    ensure!(log.contains("panicked at") && log.contains("has values"), "the panic is told: {log}");
    ensure!(!log.contains(CANARY), "with its values: {log}");
    ensure!(http::get(service.address(), "/readyz").await?.status == 200, "the others are served on");
    Ok(())
}
