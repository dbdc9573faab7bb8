//! A dry run of an import: the summary says what would count and why the rest would not, with nothing of a line in it.

use anyhow::{Result, ensure};
use harness::service::{Service, binary};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";
const CANARY: &str = "198.51.100.77";

/// Runs `headcount import --dry-run`: its exit code, standard output and standard error.
async fn dry_run(arguments: &[&str], input: &str) -> Result<(Option<i32>, String, String)> {
    let mut process = Command::new(binary()?);
    process.args(["import", "--dry-run"]).args(arguments).kill_on_drop(true);
    let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads files only may be gone already.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = tokio::time::timeout(harness::service::PATIENCE, child.wait_with_output()).await??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

fn line(request: &str, status: u16, agent: &str) -> String {
    // The running month is not imported.
    let time = (chrono::Utc::now() - chrono::TimeDelta::days(40)).format("%d/%b/%Y:%H:%M:%S +0000");
    format!("{CANARY} - - [{time}] \"{request}\" {status} 12 \"-\" \"{agent}\"\n")
}

/// The number before a text of the summary.
fn counted(summary: &str, text: &str) -> Option<u64> {
    let row = summary
        .lines()
        .find(|row| row.trim_start().split_once(' ').is_some_and(|(_, rest)| rest.trim().starts_with(text)))?;
    row.trim_start().split_once(' ')?.0.parse().ok()
}

fn assert_private(texts: &[&str]) {
    for text in texts {
        assert!(!text.contains(CANARY) && !text.contains("Firefox") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_count() -> Result<()> {
    let home = tempfile::tempdir()?;
    let data = home.path().join("data").display().to_string();
    let logs = home.path().join("logs");
    fs::create_dir(&logs)?;
    let older = [line("GET /secret-a HTTP/1.1", 200, AGENT), line("GET /secret-b HTTP/1.1", 404, AGENT)].concat();
    let newer = [
        line("GET /secret-a HTTP/1.1", 304, AGENT),
        line("GET /secret-a HTTP/1.1", 200, "GPTBot/1.2"),
        line("GET /old HTTP/1.1", 301, AGENT),
        line("GET /_static/x.css HTTP/1.1", 200, AGENT),
        line("POST /a HTTP/1.1", 200, AGENT),
        line("GET http://elsewhere.example/ HTTP/1.1", 200, AGENT),
        line("\\x16\\x03\\x01", 400, "-"),
        "garbage secret 198.51.100.77\n".to_owned(),
    ]
    .concat();
    fs::write(logs.join("access.log.1"), older)?;
    fs::write(logs.join("access.log"), newer)?;
    let folder = logs.display().to_string();
    let (code, summary, errors) = dry_run(&["--data", &data, "--host", "docs.example.org", &folder], "").await?;
    ensure!(code == Some(0), "{code:?}: {summary}{errors}");
    assert_private(&[&summary, &errors]);
    for (text, count) in [
        ("lines", 10),
        ("views of people", 3),
        ("views of robots", 1),
        ("ai_training", 1),
        ("redirects", 1),
        ("assets", 1),
        ("other methods", 1),
        ("other hosts", 1),
        ("not read", 2),
        ("no request (first: line 7 of", 1),
        ("not a line of this format (first: line 8 of", 1),
    ] {
        ensure!(counted(&summary, text) == Some(count), "{text} is not {count}:\n{summary}");
    }
    ensure!(!Path::new(&data).exists(), "a dry run writes nothing");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_read_is_named_and_the_others_are_read() -> Result<()> {
    let home = tempfile::tempdir()?;
    let data = home.path().join("data").display().to_string();
    let haproxy = home.path().join("haproxy.log");
    let text = format!(
        "{CANARY}:1 [26/Nov/2026:10:00:00.655] in docs/s 1/0/3/6/9 200 12 - - ---- 1/1/1/1/0 0/0 \"GET / HTTP/1.1\"\n"
    );
    fs::write(&haproxy, text)?;
    let haproxy = haproxy.display().to_string();
    let input = line("GET /a HTTP/1.1", 200, AGENT);
    let arguments = ["--data", &data, "--host", "docs.example.org", &haproxy, "/nowhere/access.log", "-"];
    let (code, summary, errors) = dry_run(&arguments, &input).await?;
    ensure!(code == Some(1), "{code:?}: {summary}{errors}");
    assert_private(&[&summary, &errors]);
    ensure!(errors.contains("haproxy.log: the format is HAProxy, which is not read"), "{errors}");
    ensure!(errors.contains("/nowhere/access.log: "), "{errors}");
    ensure!(counted(&summary, "views of people") == Some(1), "{summary}");
    let (code, _, errors) = dry_run(&["--data", &data, "-"], &input).await?;
    ensure!(code == Some(1) && errors.contains("--host"), "without a registry the host is needed: {errors}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_of_lines_belong_to_registered_projects() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example.org")]).await?;
    let view = line("GET /a HTTP/1.1", 200, AGENT);
    let input = [
        format!("docs.example.org:443 {view}"),
        format!("docs.example.org:80 {view}"),
        format!("other.example.org:443 {view}"),
    ]
    .concat();
    let data = service.data().display().to_string();
    // The endpoint writes its copy of the registry after the project was registered.
    harness::service::eventually("the copy has the project", async || {
        let (code, summary, errors) = dry_run(&["--data", &data, "-"], &input).await?;
        ensure!(code == Some(0), "{summary}{errors}");
        let found = (counted(&summary, "views of people"), counted(&summary, "other hosts"));
        ensure!(found == (Some(2), Some(1)), "{summary}");
        Ok(())
    })
    .await?;
    service.stop().await
}
