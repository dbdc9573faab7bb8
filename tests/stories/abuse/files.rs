//! Another user of the machine can read nothing: files, directories and processes are accessible to the service's user only.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::process::Process;
use harness::service::{Service, binary};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// Files that group or others may read, write or enter below a directory.
fn open_below(path: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_symlink() && metadata.mode() & 0o077 != 0 {
        found.push(path.to_owned());
    }
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_below(&entry?.path(), found)?;
        }
    }
    Ok(())
}

fn open_files(service: &Service) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    open_below(&service.data(), &mut found)?;
    Ok(found)
}

/// A command that runs under another group than root's, so that the owner of a process shows. Only root needs it.
fn as_other_group(program: &Path) -> Result<(PathBuf, Vec<String>)> {
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok((program.to_owned(), Vec::new()));
    }
    let program = program.display().to_string();
    Ok(("setpriv".into(), ["--regid", "54321", "--clear-groups", &program].map(str::to_owned).to_vec()))
}

/// Whether `/proc` assigns a process to root. It does if the process is not dumpable (proc(5)), and then no other process of its user may read its
/// memory.
fn is_roots(pid: u64) -> Result<bool> {
    let environment = std::fs::metadata(format!("/proc/{pid}/environ"))?;
    Ok((environment.uid(), environment.gid()) == (0, 0))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_of_the_same_user_reads_the_engines_memory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (program, mut arguments) = as_other_group(Path::new("sleep"))?;
    arguments.push("60".to_owned());
    let mut control = Process::new("a usual process", &program, arguments, directory.path().join("control.log"));
    control.spawn(&[])?;
    let pid = control.pid().context("a pid")?;
    control
        .wait_until("it to be another group's", async || {
            ensure!(!is_roots(pid.into())?, "it is root's");
            Ok(())
        })
        .await?;

    let (program, mut arguments) = as_other_group(&binary()?)?;
    let data = directory.path().join("data");
    arguments.extend(["engine", "--until-eof", "--data", &data.display().to_string()].map(str::to_owned));
    let mut engine = Process::new("the engine", &program, arguments, directory.path().join("engine.log"));
    engine.spawn(&[])?;
    let noted = data.join("clickhouse/engine.json");
    engine
        .wait_until("the engine", async || {
            ensure!(noted.exists(), "it has not answered yet");
            Ok(())
        })
        .await?;
    ensure!(is_roots(pid_in(&noted)?)?, "the engine can be read by its user");
    engine.stop().await?;
    control.kill().await
}

fn pid_in(note: &Path) -> Result<u64> {
    serde_json::from_str::<serde_json::Value>(&std::fs::read_to_string(note)?)?["pid"].as_u64().context("a pid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_before_is_closed_and_nothing_is_open_afterwards() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example")]).await?;
    let mut connection = Connection::open(service.address()).await?;
    let body = r#"{"url":"https://docs.example/a.html"}"#;
    let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
    ensure!(answer.status == 202, "{}", answer.status);
    let month = schemas::Hour::of(chrono::Utc::now()).month().to_string();
    service.counted("docs", &month, 1).await?;
    ensure!(open_files(&service)?.is_empty(), "open while it runs: {:?}", open_files(&service)?);

    service.stop().await?;
    ensure!(open_files(&service)?.is_empty(), "open after the stop: {:?}", open_files(&service)?);

    // The permissions that earlier releases set.
    for (name, mode) in [("", 0o755), ("journal.redb", 0o644), ("projects.json", 0o644), ("clickhouse/store", 0o755)] {
        std::fs::set_permissions(service.data().join(name), std::fs::Permissions::from_mode(mode))?;
    }
    service.start(&[]).await?;
    service.counted("docs", &month, 1).await?;
    ensure!(open_files(&service)?.is_empty(), "open after the next start: {:?}", open_files(&service)?);
    ensure!(service.log().contains("other users could read the data directory"), "{}", service.log());
    service.stop().await
}
