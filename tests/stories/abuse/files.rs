//! Another user of the machine reads nothing: files, directories and processes are the service's own.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::Service;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// What group or others may read, write or enter below a directory.
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

/// Whether another process of this user can read a process's memory. Root without its capabilities is a user like any other.
fn can_read(pid: u64) -> Result<bool> {
    let as_root = std::fs::metadata("/proc/self")?.uid() == 0;
    let through = if as_root { &["setpriv", "--bounding-set=-all", "--inh-caps=-all", "cat"][..] } else { &["cat"] };
    let read = Command::new(through[0]).args(&through[1..]).arg(format!("/proc/{pid}/environ")).output()?;
    Ok(read.status.success())
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

    let engine = std::fs::read_to_string(service.data().join("clickhouse/engine.json"))?;
    let engine = serde_json::from_str::<serde_json::Value>(&engine)?["pid"].as_u64().context("a pid")?;
    let mut dumpable = Command::new("sleep").arg("60").spawn()?;
    let control = can_read(dumpable.id().into());
    dumpable.kill()?;
    dumpable.wait()?;
    ensure!(control?, "a usual process of this user can be read");
    ensure!(!can_read(engine)?, "the engine's memory can be read");
    ensure!(!can_read(service.pid().context("a pid")?.into())?, "the service's memory can be read");
    service.stop().await?;
    ensure!(open_files(&service)?.is_empty(), "open after the stop: {:?}", open_files(&service)?);

    // As releases before this one left it.
    for (name, mode) in [("", 0o755), ("journal.redb", 0o644), ("projects.json", 0o644), ("clickhouse/store", 0o755)] {
        std::fs::set_permissions(service.data().join(name), std::fs::Permissions::from_mode(mode))?;
    }
    service.start(&[]).await?;
    service.counted("docs", &month, 1).await?;
    ensure!(open_files(&service)?.is_empty(), "open after the next start: {:?}", open_files(&service)?);
    ensure!(service.log().contains("other users could read the data directory"), "{}", service.log());
    service.stop().await
}
