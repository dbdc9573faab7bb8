//! The registry of projects: the commands that change it, and the endpoint's copy of it.

use crate::config::Config;
use crate::{database, embedded};
use anyhow::{Context, bail};
use clap::ArgMatches;
use clickhouse::Client;
use ingest::Ingest;
use ingest::projects::ProjectSnapshot;
use schemas::tables::ProjectRow;
use schemas::{Host, ProjectSlug};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What the registry holds.
pub type Registry = BTreeMap<ProjectSlug, Vec<Host>>;

/// How often the endpoint reads the registry.
pub const REFRESH: Duration = Duration::from_secs(2);

/// Runs `headcount project add|list|remove`.
pub async fn command(action: &str, matches: &ArgMatches, config: &Config) -> anyhow::Result<()> {
    // Checked before the service is looked for: a typo is a typo, running or not.
    let slug = match matches.try_get_one::<String>("slug").ok().flatten() {
        Some(text) => Some(text.parse::<ProjectSlug>().with_context(|| format!("{text:?} cannot be a project"))?),
        None => None,
    };
    let hosts: Vec<Host> = match matches.try_get_many::<String>("host").ok().flatten() {
        Some(texts) => texts
            .map(|text| text.parse().with_context(|| format!("{text:?} cannot be a host")))
            .collect::<anyhow::Result<_>>()?,
        None => Vec::new(),
    };
    let url = clickhouse_url(config).await?;
    let client = database::prepare(&config.clickhouse(&url), config.database(), config.clickhouse_timeout()?).await?;
    match (action, slug) {
        ("add", Some(slug)) => {
            let mut all = row(&client, &slug).await?.filter(|row| row.removed == 0).map_or(Vec::new(), |row| row.hosts);
            all.extend(hosts.iter().map(|host| host.as_str().to_owned()));
            all.sort_unstable();
            all.dedup();
            put(&client, &slug, all.clone(), false).await?;
            println!("project {slug}: {}", all.join(", "));
            for (other, shared) in read(&client).await?.iter().filter(|(other, _)| **other != slug) {
                for host in shared.iter().filter(|host| hosts.contains(host)) {
                    println!("note: {host} belongs to {other} too; pages there must name their project (data-project)");
                }
            }
            println!("beacons for it are accepted within {} seconds", REFRESH.as_secs() + 1);
        }
        ("remove", Some(slug)) => {
            let Some(row) = row(&client, &slug).await?.filter(|row| row.removed == 0) else {
                bail!("there is no project {slug}; `headcount project list` shows those there are");
            };
            put(&client, &slug, row.hosts, true).await?;
            println!("project {slug} is no longer counted; its figures stay");
        }
        _ => {
            let registry = read(&client).await?;
            if registry.is_empty() {
                println!("no projects yet; register one with `headcount project add SLUG --host HOST`");
            }
            for (slug, hosts) in registry {
                println!("{slug}: {}", hosts.iter().map(Host::as_str).collect::<Vec<_>>().join(", "));
            }
        }
    }
    Ok(())
}

/// The ClickHouse that the configuration names, or the embedded one that runs on the data directory.
pub async fn clickhouse_url(config: &Config) -> anyhow::Result<String> {
    let engine = config.engine();
    let told = std::fs::File::open(engine.data_dir.join("engine.json"));
    if told.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        bail!("{} belongs to another user; run this as the user that headcount runs as", config.data().display());
    }
    match &engine.clickhouse_url {
        Some(url) => Ok(url.clone()),
        None => embedded::engine::running(&engine.data_dir).await.map(|engine| engine.url).with_context(|| {
            format!(
                "no headcount runs on {}; start it with `headcount serve --data {}`, or name a ClickHouse with \
                 --clickhouse-url",
                config.data().display(),
                config.data().display()
            )
        }),
    }
}

async fn row(client: &Client, slug: &ProjectSlug) -> anyhow::Result<Option<ProjectRow>> {
    let query = client.query("SELECT ?fields FROM project FINAL WHERE slug = ?").bind(slug.as_str());
    query.fetch_optional::<ProjectRow>().await.context("cannot read the registry of projects")
}

async fn put(client: &Client, slug: &ProjectSlug, hosts: Vec<String>, removed: bool) -> anyhow::Result<()> {
    let before = row(client, slug).await?.map_or(0, |row| row.revision);
    let now = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
    let row = ProjectRow {
        slug: slug.as_str().to_owned(),
        hosts,
        removed: u8::from(removed),
        // A clock that stepped back must not lose the change.
        revision: now.max(before + 1),
    };
    let store = async {
        let client = client.clone().with_setting("async_insert", "0");
        let mut insert = client.insert::<ProjectRow>("project").await?;
        insert.write(&row).await?;
        insert.end().await
    };
    store.await.context("cannot store the project")
}

/// Reads the registry. Rows that are no valid projects (written by hand) are left out and logged.
pub async fn read(client: &Client) -> anyhow::Result<Registry> {
    let query = client.query("SELECT ?fields FROM project FINAL WHERE removed = 0 ORDER BY slug");
    let rows = tokio::time::timeout(Duration::from_secs(10), query.fetch_all::<ProjectRow>())
        .await
        .context("ClickHouse did not answer in time")?
        .context("cannot read the registry of projects")?;
    let mut registry = Registry::new();
    for row in rows {
        let hosts: Result<Vec<Host>, _> = row.hosts.iter().map(|host| host.parse()).collect();
        match (row.slug.parse::<ProjectSlug>(), hosts) {
            (Ok(slug), Ok(hosts)) => {
                registry.insert(slug, hosts);
            }
            _ => tracing::warn!(slug = row.slug, "a row of the table `project` is no valid project; it is left out"),
        }
    }
    Ok(registry)
}

/// Names that host patterns admitted once: those that have figures. They need not be admitted again after a restart.
pub async fn with_figures(client: &Client) -> anyhow::Result<Vec<ProjectSlug>> {
    let query = client.query("SELECT DISTINCT project FROM site_hourly");
    let names = tokio::time::timeout(Duration::from_secs(30), query.fetch_all::<String>())
        .await
        .context("ClickHouse did not answer in time")?
        .context("cannot read which projects have figures")?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// A copy on disk of what the endpoint must know before ClickHouse has been asked.
pub struct Snapshot {
    path: PathBuf,
}

impl Snapshot {
    /// The copy at `path`.
    pub fn new(path: &Path) -> Self {
        Snapshot { path: path.to_owned() }
    }

    /// What was written last; empty where nothing was, or it does not read back.
    pub fn load<T: DeserializeOwned + Default>(&self) -> T {
        let Ok(text) = std::fs::read_to_string(&self.path) else { return T::default() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, path = %self.path.display(), "this copy does not read back; starting without it");
            T::default()
        })
    }

    /// Writes beside and renames.
    pub fn store<T: Serialize>(&self, content: &T) -> anyhow::Result<()> {
        let fresh = self.path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(content)?)
            .and_then(|()| std::fs::rename(&fresh, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Keeps the endpoint's copy of the registry up to date, in memory and on disk, until it is dropped.
pub async fn refresh_registry<S: ingest::sink::Sink>(
    ingest: Arc<Ingest<S>>,
    client: clickhouse::Client,
    snapshot: Snapshot,
    names: Snapshot,
) {
    let mut known = None;
    let mut failing = false;
    let mut seeded = false;
    let mut written = ingest.projects.admitted().len();
    loop {
        match read(&client).await {
            Ok(registry) => {
                failing = false;
                if known.as_ref() != Some(&registry) {
                    // The copy first: whoever has been told of a project must be right after a crash too.
                    if let Err(error) = snapshot.store(&registry) {
                        tracing::warn!(error = format!("{error:#}"), "the registry's copy on disk is out of date");
                    }
                    ingest.projects.replace(ProjectSnapshot::new(&registry));
                    tracing::info!(projects = registry.len(), "the registry of projects was read");
                    known = Some(registry);
                }
            }
            Err(error) => {
                if !failing {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the registry cannot be read; the last one stays in force"
                    );
                }
                failing = true;
            }
        }
        // Names that patterns admitted outlive a restart: in a file, and in what has been counted of them.
        if !seeded && let Ok(known) = with_figures(&client).await {
            ingest.projects.admit_known(known);
            seeded = true;
        }
        let admitted = ingest.projects.admitted();
        if admitted.len() != written {
            match names.store(&admitted) {
                Ok(()) => written = admitted.len(),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "admitted names are not on disk yet"),
            }
        }
        tokio::time::sleep(REFRESH).await;
    }
}
