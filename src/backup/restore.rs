//! `headcount restore`: restores a backup into a data directory without figures. Months past their time are closed and expired figures removed before
//! anything serves them.
//!
//! The embedded ClickHouse is restored in `clickhouse.restoring`, which becomes `clickhouse` at the end: after a kill, the next restore starts from
//! nothing. A journal in the data directory remains. At the next start the aggregator compares it with the restored ledger (`aggregate::start`) and
//! counts again what ClickHouse lacks.

use super::manifest::{Archive, Manifest, age};
use super::{ARCHIVE, REGISTRY, checksum, remove_leftovers, sync};
use crate::config::commands::RestoreCommand;
use crate::database::Server;
use crate::embedded::engine::{Engine, EngineConfig};
use crate::erased::{Erased, ErasedEntry};
use crate::projects::Snapshot;
use crate::registry::{Contents, RegistryCopy};
use crate::{complain, database, projects, retention, say, shell, tokens};
use aggregate::close::{Closed, Closer};
use aggregate::due::{Decision, LogRange, listed};
use aggregate::finished::finish;
use anyhow::{Context, bail};
use chrono::Utc;
use clap::ArgMatches;
use clickhouse::Client;
use ingest::journal::Journal;
use schemas::migrations::SCHEMA_VERSION;
use schemas::{Hour, ProjectSlug};
use std::fs;
use std::path::{Path, PathBuf};

/// Runs `headcount restore TARGET [--show]`.
pub async fn command(matches: &ArgMatches, settings: &RestoreCommand) -> anyhow::Result<()> {
    let source = matches.get_one::<PathBuf>("target").context("no backup given")?;
    let manifest = Manifest::read(source)?;
    if matches.get_flag("show") {
        manifest.print(Utc::now());
        return Ok(());
    }
    if manifest.schema_version > SCHEMA_VERSION {
        bail!(
            "the backup has schema version {}, this program knows {SCHEMA_VERSION}: it was written by a newer headcount; run that version",
            manifest.schema_version
        );
    }
    let data = settings.store.data();
    refuse_filled(data)?;
    let _lock = shell::open_data_directory(data)?;
    let had_registry = data.join(REGISTRY).exists();
    let registry = registry_of(source)?;
    match (&manifest.archive, settings.store.engine().clickhouse_url) {
        (Archive::Here { bytes, blake3 }, None) => {
            let archive = source.join(ARCHIVE);
            if checksum(&archive)? != (*bytes, blake3.clone()) {
                bail!("{} is damaged: it is not as the backup wrote it", archive.display());
            }
            let mut engine = settings.store.engine();
            let place = std::mem::replace(&mut engine.data_dir, data.join(super::RESTORING));
            restore_embedded(&archive, &engine, &manifest, settings, &registry).await?;
            // An empty directory is allowed.
            let _ = fs::remove_dir(&place);
            fs::rename(&engine.data_dir, &place)
                .with_context(|| format!("cannot rename {} to {}", engine.data_dir.display(), place.display()))?;
        }
        (Archive::OnServer(name), Some(url)) => {
            let server = settings.store.server(&url);
            refuse_tables(&server.unchecked(), settings.store.database()).await?;
            bring_back(&server, name, &manifest, settings, &registry).await?;
        }
        (Archive::Here { .. }, Some(_)) => bail!(
            "this backup is of an embedded ClickHouse, and a server is named (`clickhouse_url`); leave the setting out, or copy {ARCHIVE} to the \
             server's backup directory and run there: RESTORE DATABASE {} FROM File('{ARCHIVE}')",
            manifest.database
        ),
        (Archive::OnServer(name), None) => bail!(
            "the figures of this backup are in {name} in the backup directory of a ClickHouse server; name the server with --clickhouse-url"
        ),
    }
    if !had_registry {
        Snapshot::new(&data.join(REGISTRY)).store(&registry)?;
    }
    sync(data)?;
    say!(
        "restored the backup of {}, which is {} old, into {}",
        manifest.created.format("%Y-%m-%d %H:%M:%S UTC"),
        age(Utc::now() - manifest.created),
        data.display()
    );
    if !settings.keys.file(&settings.store).exists() {
        say!(
            "note: there is no visitor key here, so the next start makes a new one: a visitor of this month who comes again counts once more"
        );
    }
    Ok(())
}

/// Refuses a data directory with figures, and names what it found. A journal, a key, settings, the registry's copy and `erased.json` are allowed.
fn refuse_filled(data: &Path) -> anyhow::Result<()> {
    let place = data.join("clickhouse");
    let found: Vec<String> = match fs::read_dir(&place) {
        Ok(entries) => entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", place.display())),
    };
    if found.is_empty() {
        return Ok(());
    }
    bail!(
        "the data directory {} is not empty: {} has {}. Restore into another directory (--data), or move {} away",
        data.display(),
        place.display(),
        found.join(", "),
        place.display()
    );
}

/// The same of a server's database.
async fn refuse_tables(server: &Client, database: &str) -> anyhow::Result<()> {
    let query = server
        .query("SELECT name FROM system.tables WHERE database = {database:String} ORDER BY name")
        .param("database", database);
    let found = query.fetch_all::<String>().await.context("cannot ask ClickHouse for its tables")?;
    if !found.is_empty() {
        bail!(
            "the database {database} is not empty: it has {}. Restore into another one (--clickhouse-database), or drop it",
            found.join(", ")
        );
    }
    Ok(())
}

fn registry_of(source: &Path) -> anyhow::Result<Contents> {
    let path = source.join(REGISTRY);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Contents::parse(&text).with_context(|| format!("{} cannot be understood", path.display()))
}

async fn restore_embedded(
    archive: &Path,
    config_of_engine: &EngineConfig,
    manifest: &Manifest,
    settings: &RestoreCommand,
    registry: &Contents,
) -> anyhow::Result<()> {
    remove_leftovers(config_of_engine)?;
    let engine = Engine::start(config_of_engine).await?;
    let place = config_of_engine.backups_dir();
    let result = async {
        fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
        let copy = place.join(ARCHIVE);
        // A hard link needs no space; across file systems the archive is copied.
        fs::hard_link(archive, &copy)
            .or_else(|_| fs::copy(archive, &copy).map(|_| ()))
            .with_context(|| format!("cannot copy {} to {}", archive.display(), copy.display()))?;
        bring_back(&settings.store.server(engine.url()), ARCHIVE, manifest, settings, registry).await?;
        fs::remove_file(&copy).with_context(|| format!("cannot remove {}", copy.display()))
    }
    .await;
    let stopped = engine.stop().await;
    result?;
    Ok(stopped?)
}

/// Restores the tables, then erases, revokes, removes and closes what must not be served.
async fn bring_back(
    server: &Server,
    name: &str,
    manifest: &Manifest,
    settings: &RestoreCommand,
    registry: &Contents,
) -> anyhow::Result<()> {
    let database = settings.store.database();
    // Invalid names are refused before they get into a statement.
    database::check_name(database)?;
    database::check_name(&manifest.database)?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) {
        bail!("the manifest names the file {name:?}: expected letters, digits, hyphens and points");
    }
    let sql = format!("RESTORE DATABASE {} AS {database} FROM File('{name}')", manifest.database);
    // The database does not exist yet, so its id cannot be checked.
    server.unchecked().query(&sql).execute().await.context("ClickHouse cannot restore the database")?;
    let client = database::prepare(server, database, settings.store.timeout()).await?;
    // Keys of nodes that ran at the backup.
    client.query("TRUNCATE TABLE key_in_use").execute().await.context("cannot empty the table `key_in_use`")?;
    let data = settings.store.data();
    registry.restore(&client).await?;
    RegistryCopy::open(data)?.check(true, true).run(&client).await?;
    erase_again(&client, data, manifest).await?;
    let now = settings.clock.clock()();
    retention::keep(&client, settings.lifetimes.retention()).await?;
    let removed = retention::remove_expired(&client, settings.lifetimes.retention(), now).await?;
    if removed > 0 {
        say!("retention: rows past their time are removed from {removed} tables");
    }
    close_due(&client, settings, manifest).await?;
    finish(&client).await.context("cannot estimate visitors for SQL")?;
    Ok(())
}

/// Erases projects and revokes tokens that were erased and revoked since the backup.
async fn erase_again(client: &Client, data: &Path, manifest: &Manifest) -> anyhow::Result<()> {
    let Some(erased) = Erased::load(data)? else {
        if !data.join(REGISTRY).exists() {
            complain!(
                "warning: there is no erased.json in {}: projects that were erased and tokens that were revoked between {} and {} are back; \
                 erase and revoke them again",
                data.display(),
                manifest.created.format("%Y-%m-%d %H:%M:%S UTC"),
                Utc::now().format("%Y-%m-%d %H:%M:%S UTC")
            );
        }
        return Ok(());
    };
    for noted in erased.entries.iter().filter(|noted| noted.at >= manifest.created) {
        match &noted.entry {
            ErasedEntry::Project(slug) => {
                let slug: ProjectSlug =
                    slug.parse().with_context(|| format!("{slug:?} in erased.json is no project"))?;
                let erased_ms = u64::try_from(noted.at.timestamp_millis()).unwrap_or(0);
                let tables = projects::erase_again(client, &slug, erased_ms).await?;
                say!("project {slug} was erased on {} and is erased again: {tables} tables", noted.at.date_naive());
            }
            ErasedEntry::Token(id) => {
                let id = id.parse().with_context(|| format!("{id:?} in erased.json is no token's id"))?;
                if tokens::revoke(client, id).await? {
                    say!("token {id} was revoked on {} and is revoked again", noted.at.date_naive());
                }
            }
        }
    }
    Ok(())
}

/// Closes the due months. If the journal has uncounted records of a month, `serve` counts them first and closes it.
async fn close_due(client: &Client, settings: &RestoreCommand, manifest: &Manifest) -> anyhow::Result<()> {
    let closer = Closer::new(client.clone());
    let due = closer
        .due(settings.clock.clock()(), settings.lifetimes.close.close_after_hours)
        .await
        .context("cannot find what is due")?;
    let open = manifest.open_months();
    if !manifest.sketches && !open.is_empty() {
        complain!("warning: this backup has no visitor sketches: reports of {} show too few visitors", open.join(", "));
    }
    if due.is_empty() {
        return Ok(());
    }
    let journal = journal_range(settings)?;
    for month in due {
        if let Some(range) = journal
            && let Decision::Wait(streams) = closer.decide(month, &[range]).await?
        {
            say!("{month} is closed by `headcount serve` once these records are counted: {}", listed(&streams));
            continue;
        }
        let Closed { month, projects, views, .. } =
            closer.close(month).await.with_context(|| format!("cannot close {month}"))?;
        say!("{month} is closed: {views} views of {projects} projects; its sketches are deleted");
    }
    Ok(())
}

/// The range of the journal in the data directory, if there is one.
fn journal_range(settings: &RestoreCommand) -> anyhow::Result<Option<LogRange>> {
    let path = settings.store.data().join("journal.redb");
    if !path.exists() {
        return Ok(None);
    }
    let clock = settings.clock.clock();
    let journal = Journal::open(&path, settings.journal.journal(), move || Hour::of(clock()))?;
    let end = *journal.end().borrow();
    let range = LogRange { stream: journal.stream().0, start: journal.begin()?, end };
    journal.close();
    Ok(Some(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_data_directory_is_refused_by_what_it_has() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("journal.redb"), "").unwrap();
        fs::create_dir(data.path().join("clickhouse")).unwrap();
        refuse_filled(data.path()).unwrap();
        fs::create_dir(data.path().join("clickhouse/store")).unwrap();
        let error = refuse_filled(data.path()).unwrap_err().to_string();
        assert!(error.contains("is not empty") && error.contains("store") && error.contains("--data"), "{error}");
        refuse_filled(&data.path().join("none")).unwrap();
    }
}
