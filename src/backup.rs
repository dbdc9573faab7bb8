//! `headcount backup`: figures and registry of a running service, in a directory that `headcount restore` reads.
//!
//! The directory has `clickhouse.tar` (written by ClickHouse's own `BACKUP`), `projects.json` (the registry as the endpoint's copy has it) and
//! `manifest.json`, which is written last. It never has the visitor key, page views of the log, or settings.
//!
//! A local `serve` holds its writes meanwhile ([`control`]), so all tables are of one moment. Otherwise a flush may be in the backup in part; the log
//! makes up for it, if the restored ClickHouse meets it again. In either case no month may be closed meanwhile: its rows move from one table to another.

pub mod control;
mod manifest;
pub mod restore;

use crate::config::store::StoreSettings;
use crate::embedded;
use crate::projects::{self, Snapshot};
use crate::registry::Contents;
use crate::say;
use anyhow::{Context, bail};
use chrono::Utc;
use clap::ArgMatches;
use clickhouse::Client;
use manifest::{Archive, Manifest};
use schemas::VisitorSketch;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// ClickHouse's file in a backup.
const ARCHIVE: &str = "clickhouse.tar";
/// The registry's.
const REGISTRY: &str = "projects.json";
/// Tables with visitor sketches.
const SKETCHED: [&str; 2] = ["site_hourly", "page_daily"];
/// ClickHouse's data in the data directory until a restore has ended.
const RESTORING: &str = "clickhouse.restoring";

/// Refuses a data directory in which a restore did not end: an empty ClickHouse would start in its place.
///
/// # Errors
/// There is one; the message names it.
pub fn refuse_unfinished_restore(data: &Path) -> anyhow::Result<()> {
    let place = data.join(RESTORING);
    if place.exists() {
        bail!(
            "a restore into {} did not end: run `headcount restore` again, or remove {} to start without it",
            data.display(),
            place.display()
        );
    }
    Ok(())
}

/// How often a backup is made again because a month was closed meanwhile.
const TRIES: usize = 3;

/// Runs `headcount backup TARGET [--without-sketches]`.
pub async fn command(matches: &ArgMatches, store: &StoreSettings) -> anyhow::Result<()> {
    let target = matches.get_one::<PathBuf>("target").context("no target given")?;
    let sketches = !matches.get_flag("without-sketches");
    let client = projects::connect(store).await?;
    fs::DirBuilder::new().mode(0o700).create(target).with_context(|| match target.exists() {
        true => format!("{} exists; name a new directory", target.display()),
        false => format!("cannot create {}", target.display()),
    })?;
    let manifest = match write(target, store, &client, sketches).await {
        Ok(manifest) => manifest,
        Err(error) => {
            // Without a manifest it is of no use, and it would be in the way of the next try.
            let _ = fs::remove_dir_all(target);
            return Err(error);
        }
    };
    say!("{}", target.display());
    manifest.print(Utc::now());
    Ok(())
}

async fn write(target: &Path, store: &StoreSettings, client: &Client, sketches: bool) -> anyhow::Result<Manifest> {
    let created = Utc::now();
    let held = control::hold(store.data()).await?;
    let embedded = store.engine().clickhouse_url.is_none().then(|| store.engine().backups_dir());
    let mut tries = TRIES;
    let (mut manifest, name) = loop {
        tries -= 1;
        let closed = finished_closes(client).await?;
        let manifest = Manifest::of(client, store.database(), created).await?;
        let name = format!("headcount-{}-{}.tar", created.format("%Y%m%dT%H%M%SZ"), random()?);
        back_up(client, store.database(), &name, sketches).await?;
        if finished_closes(client).await? == closed {
            break (manifest, name);
        }
        if let Some(directory) = &embedded {
            let _ = fs::remove_file(directory.join(&name));
        }
        if tries == 0 {
            bail!("months were closed while the backup was made; try again");
        }
    };
    let registry = Contents::read(client).await?;
    manifest.archive = match &embedded {
        Some(directory) => take(&directory.join(&name), &target.join(ARCHIVE))?,
        None => Archive::OnServer(name),
    };
    Snapshot::new(&target.join(REGISTRY)).store(&registry)?;
    (manifest.projects, manifest.tokens) = (registry.counted(), registry.valid_tokens());
    (manifest.sketches, manifest.one_moment) = (sketches, held.is_some());
    manifest.journal = held.as_ref().map(|held| held.position.clone());
    drop(held);
    manifest.write(target)?;
    sync(target)?;
    Ok(manifest)
}

/// Removes what a backup that was killed left: neither retention nor an erasure would reach it. To be called before backups can be made.
///
/// # Errors
/// ClickHouse refused, or a file cannot be removed.
pub async fn remove_unfinished(client: &Client, store: &StoreSettings) -> anyhow::Result<()> {
    let directory = store.engine().backups_dir();
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("headcount-") {
            let path = entry.path();
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            tracing::warn!(file = %path.display(), "removed what a backup left that did not end");
        }
    }
    let scratch = scratch_database(store.database());
    let dropped = client.query(&format!("DROP DATABASE IF EXISTS {scratch} SYNC")).execute().await;
    dropped.with_context(|| format!("cannot drop the database {scratch}"))
}

/// Where tables are copied without their sketches.
fn scratch_database(database: &str) -> String {
    format!("{database}_without_sketches")
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).context("the operating system gave no random bytes")?;
    Ok(format!("{:08x}", u32::from_le_bytes(bytes)))
}

/// How many closes have finished. Rows leave the tables of open months only after one.
async fn finished_closes(client: &Client) -> anyhow::Result<u64> {
    client.query("SELECT count() FROM month_close FINAL").fetch_one().await.context("cannot ask for closed months")
}

/// Has ClickHouse write a backup of our database to a file in its directory for backups.
async fn back_up(client: &Client, database: &str, name: &str, sketches: bool) -> anyhow::Result<()> {
    const REFUSED: &str = "ClickHouse cannot back up the database; a ClickHouse server needs `backups.allowed_path` in its configuration, \
                           and a user with the right BACKUP";
    if sketches {
        let sql = format!("BACKUP DATABASE {database} TO File('{name}')");
        return client.query(&sql).execute().await.context(REFUSED);
    }
    // BACKUP copies whole tables, so those with sketches are copied without them first.
    let scratch = scratch_database(database);
    // An empty one, which reports of open months can read; closed months have none.
    let empty = VisitorSketch::new().encode().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let empty = format!("if(sketch = '', '', unhex('{empty}'))");
    let run = async |sql: String| client.query(&sql).execute().await;
    let copied = async {
        run(format!("DROP DATABASE IF EXISTS {scratch} SYNC")).await?;
        run(format!("CREATE DATABASE {scratch} ENGINE = Atomic")).await?;
        for table in SKETCHED {
            run(format!("CREATE TABLE {scratch}.{table} AS {database}.{table}")).await?;
            let insert =
                format!("INSERT INTO {scratch}.{table} SELECT * REPLACE ({empty} AS sketch) FROM {database}.{table}");
            run(format!("{insert} SETTINGS max_partitions_per_insert_block = 0")).await?;
        }
        let copies: Vec<String> =
            SKETCHED.iter().map(|table| format!("TABLE {scratch}.{table} AS {database}.{table}")).collect();
        let sql = format!(
            "BACKUP {}, DATABASE {database} EXCEPT TABLES {} TO File('{name}')",
            copies.join(", "),
            SKETCHED.join(", ")
        );
        run(sql).await
    };
    let copied = copied.await;
    let dropped = run(format!("DROP DATABASE IF EXISTS {scratch} SYNC")).await;
    copied.context(REFUSED)?;
    dropped.with_context(|| format!("cannot remove the database {scratch}"))
}

/// Moves ClickHouse's file into the backup, also to another file system.
fn take(from: &Path, to: &Path) -> anyhow::Result<Archive> {
    let moved = match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            fs::copy(from, to).and_then(|_| fs::remove_file(from))
        }
        outcome => outcome,
    };
    if moved.is_err() {
        // It is a copy of all figures, which neither retention nor an erasure would reach.
        let _ = fs::remove_file(from);
    }
    moved.with_context(|| format!("cannot move ClickHouse's backup {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o600))
        .and_then(|()| File::open(to)?.sync_all())
        .with_context(|| format!("cannot write {}", to.display()))?;
    let (bytes, blake3) = checksum(to)?;
    Ok(Archive::Here { bytes, blake3 })
}

/// Size and BLAKE3 of a file.
fn checksum(path: &Path) -> anyhow::Result<(u64, String)> {
    let attempt = || -> io::Result<(u64, String)> {
        let (mut file, mut hasher, mut bytes) = (File::open(path)?, blake3::Hasher::new(), 0);
        let mut block = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                return Ok((bytes, hasher.finalize().to_hex().to_string()));
            }
            hasher.update(&block[..read]);
            bytes += read as u64;
        }
    };
    attempt().with_context(|| format!("cannot read {}", path.display()))
}

/// Makes the names in a directory outlive power loss.
fn sync(directory: &Path) -> anyhow::Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("cannot write {}", directory.display()))
}

/// A leftover of a `headcount restore` or `backup` that was killed; the embedded engine's only.
fn remove_leftovers(engine: &embedded::engine::EngineConfig) -> anyhow::Result<()> {
    match fs::remove_dir_all(&engine.data_dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", engine.data_dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_restore_is_refused_by_name() {
        let data = tempfile::tempdir().unwrap();
        refuse_unfinished_restore(data.path()).unwrap();
        fs::create_dir(data.path().join(RESTORING)).unwrap();
        let error = refuse_unfinished_restore(data.path()).unwrap_err().to_string();
        assert!(error.contains(RESTORING) && error.contains("headcount restore"), "{error}");
    }
}
