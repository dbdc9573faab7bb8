//! The registry of projects: the commands that change it, and the endpoint's copy of it.

use crate::config::commands::ProjectCommand;
use crate::config::store::StoreSettings;
use crate::{database, embedded, retention, say, tokens};
use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta};
use clap::ArgMatches;
use clickhouse::Client;
use ingest::aliases::Alias;
use ingest::ignored::{IgnoredNetworks, Network};
use ingest::path_rules::{PathPattern, PathRules};
use ingest::private_file;
use ingest::projects::ProjectSnapshot;
use schemas::tables::ProjectRow;
use schemas::{Host, ProjectSlug};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage::{Work, in_time};

mod aliases;
mod erase;
mod rules;
mod settings;

/// The registry's settings of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredProject")]
pub struct Registered {
    /// Hosts of its pages.
    pub hosts: Vec<Host>,
    /// Patterns of paths whose wildcards are masked.
    pub mask: Vec<String>,
    /// Patterns of paths that are stored unchanged.
    pub keep: Vec<String>,
    /// Query parameters that distinguish pages.
    pub query: Vec<String>,
    /// Whether paths are stored without a trailing slash.
    pub strip_trailing_slash: bool,
    /// Whether paths are stored without `.html` at their end.
    pub strip_html: bool,
    /// Networks whose views are not counted.
    pub ignore_networks: Vec<String>,
    /// The project's names in other counters.
    pub aliases: Vec<String>,
}

/// Copies on disk of versions before 3 of the schema have the hosts only.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredProject {
    Hosts(Vec<Host>),
    Whole {
        hosts: Vec<Host>,
        mask: Vec<String>,
        keep: Vec<String>,
        query: Vec<String>,
        // Copies of versions before 6 of the schema lack these.
        #[serde(default)]
        strip_trailing_slash: bool,
        #[serde(default)]
        strip_html: bool,
        // Copies of versions before 7 lack this.
        #[serde(default)]
        ignore_networks: Vec<String>,
    },
}

impl From<StoredProject> for Registered {
    fn from(stored: StoredProject) -> Self {
        match stored {
            StoredProject::Hosts(hosts) => Registered { hosts, ..Registered::default() },
            StoredProject::Whole { hosts, mask, keep, query, strip_trailing_slash, strip_html, ignore_networks } => {
                // Copies of this form are older than aliases.
                let aliases = Vec::new();
                Registered { hosts, mask, keep, query, strip_trailing_slash, strip_html, ignore_networks, aliases }
            }
        }
    }
}

/// All projects of the registry.
pub type Registry = BTreeMap<ProjectSlug, Registered>;

/// The registry, indexed for the endpoint's look-ups.
pub fn indexed(registry: &Registry) -> ProjectSnapshot {
    // A project without hosts is admitted by a host pattern and has only settings here: its hosts remain those of the pattern.
    let registered = registry.iter().filter(|(_, project)| !project.hosts.is_empty());
    let hosts = registered.map(|(slug, project)| (slug.clone(), project.hosts.clone())).collect();
    // Written by headcount; a pattern that no longer parses masks nothing, and is logged when the registry is read.
    let patterns = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
    let rules = registry.iter().map(|(slug, project)| {
        let rules = PathRules {
            mask: patterns(&project.mask),
            keep: patterns(&project.keep),
            query: project.query.clone(),
            strip_trailing_slash: project.strip_trailing_slash,
            strip_html: project.strip_html,
        };
        (slug.clone(), rules)
    });
    let ignored = registry.iter().map(|(slug, project)| {
        let networks = project.ignore_networks.iter().filter_map(|text| text.parse().ok());
        (slug.clone(), IgnoredNetworks::new(networks))
    });
    let aliases = registry.iter().map(|(slug, project)| {
        let aliases = project.aliases.iter().filter_map(|text| text.parse().ok()).collect();
        (slug.clone(), project.hosts.clone(), aliases)
    });
    ProjectSnapshot::new(&hosts).with_rules(rules).ignoring(ignored).with_aliases(aliases)
}

/// Values of a project's column `removed`.
const COUNTED: u8 = 0;
const REMOVED: u8 = 1;
/// Removed, and its figures must be erased.
const ERASED: u8 = 2;

/// A project with only its slug and the settings in a copy of an earlier version.
pub fn row_of(slug: &ProjectSlug, project: &Registered) -> ProjectRow {
    ProjectRow {
        hosts: project.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
        mask: project.mask.clone(),
        keep: project.keep.clone(),
        query: project.query.clone(),
        strip_trailing_slash: u8::from(project.strip_trailing_slash),
        strip_html: u8::from(project.strip_html),
        ..new_row(slug.as_str())
    }
}

/// How often the endpoint reads the registry.
pub const REFRESH: Duration = Duration::from_secs(2);

/// The line that a project's pages need, and where to paste it.
fn line_to_paste(settings: &ProjectCommand, slug: &ProjectSlug) -> anyhow::Result<String> {
    let (origin, whose) = match settings.public.url() {
        Some(url) => (url, ""),
        None => ("https://stats.example.org", ", with the host of this service"),
    };
    let line = query::script_line(&format!("{origin}{}", settings.paths.endpoint()?.script()), slug);
    Ok(format!("in the head of each page{whose}:\n  {line}"))
}

/// Runs `headcount project add|list|set|alias|remove|rules|erase`.
pub async fn command(action: &str, matches: &ArgMatches, settings: &ProjectCommand) -> anyhow::Result<()> {
    // Checked before the service is searched for, so that a typo is reported whether the service runs or not.
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
    let rules = rules::RuleChange::from_arguments(matches)?;
    let change = settings::SettingChange::from_arguments(matches)?;
    let aliases = aliases::AliasChange::from_arguments(matches)?;
    let client = connect(&settings.store).await?;
    match (action, slug) {
        ("add", Some(slug)) => add(&client, &slug, &hosts, &change, settings).await,
        ("remove", Some(slug)) => {
            let Some(found) = row(&client, &slug).await?.filter(|row| row.removed == COUNTED) else {
                bail!("there is no project {slug}; `headcount project list` shows those there are");
            };
            put(&client, &slug, |row| row.removed = REMOVED).await?;
            say!("project {slug}: counted → not counted (hosts: {}); its figures stay", found.hosts.join(", "));
            Ok(())
        }
        ("rules", Some(slug)) => {
            let Some(found) = row(&client, &slug).await?.filter(|row| row.removed == COUNTED) else {
                bail!("there is no project {slug}; register it with `headcount project add {slug} --host HOST`");
            };
            let before = rules::described(&found);
            if rules.is_nothing() {
                before.iter().for_each(|line| say!("{line}"));
                return Ok(());
            }
            put(&client, &slug, |row| rules.apply(row)).await?;
            let after = row(&client, &slug).await?.map_or_else(Vec::new, |row| rules::described(&row));
            rules::differences(&before, &after).iter().for_each(|line| say!("{line}"));
            say!("active within {} seconds, for page views from then on", REFRESH.as_secs() + 1);
            Ok(())
        }
        ("set", Some(slug)) => {
            if !is_known(&client, &slug).await? {
                bail!("there is no project {slug}; register it with `headcount project add {slug} --host HOST`");
            }
            if change.is_nothing() {
                bail!("nothing to set; `headcount project set --help` lists what there is");
            }
            let before = row(&client, &slug).await?.unwrap_or_else(|| new_row(slug.as_str()));
            put(&client, &slug, |row| change.apply(row)).await?;
            let after = row(&client, &slug).await?.unwrap_or_else(|| new_row(slug.as_str()));
            say!("project {slug}");
            let lines = rules::differences(&settings::described(&before), &settings::described(&after));
            lines.iter().for_each(|line| say!("  {line}"));
            say!("active within {} seconds", REFRESH.as_secs() + 1);
            Ok(())
        }
        ("alias", Some(slug)) => aliases::command(&client, &slug, &aliases).await,
        ("erase", Some(slug)) => erase::command(&client, &slug, matches, settings).await,
        _ => list(&client, settings.store.data()).await,
    }
}

/// Runs `headcount project add`.
async fn add(
    client: &Client,
    slug: &ProjectSlug,
    hosts: &[Host],
    change: &settings::SettingChange,
    settings: &ProjectCommand,
) -> anyhow::Result<()> {
    let before = row(client, slug).await?;
    if let Some(row) = before.as_ref().filter(|row| row.removed == ERASED) {
        refuse_erased(row, settings)?;
    }
    let found = before.filter(|row| row.removed == COUNTED);
    let mut all = found.as_ref().map_or(Vec::new(), |row| row.hosts.clone());
    all.extend(hosts.iter().map(|host| host.as_str().to_owned()));
    all.sort_unstable();
    all.dedup();
    put(client, slug, |row| {
        (row.hosts, row.removed) = (all.clone(), COUNTED);
        change.apply(row);
    })
    .await?;
    match &found {
        Some(before) if before.hosts != all => say!("project {slug}: {} → {}", before.hosts.join(", "), all.join(", ")),
        _ => say!("project {slug}: {}", all.join(", ")),
    }
    if let Some(after) = row(client, slug).await?.filter(|_| !change.is_nothing()) {
        let before = found.unwrap_or_else(|| new_row(slug.as_str()));
        let lines = rules::differences(&settings::described(&before), &settings::described(&after));
        lines.iter().for_each(|line| say!("  {line}"));
    }
    for (other, shared) in read(client).await?.iter().filter(|(other, _)| *other != slug) {
        for host in shared.hosts.iter().filter(|host| hosts.contains(host)) {
            say!("note: {host} belongs to {other} too; pages there must name their project (data-project)");
        }
    }
    say!("beacons for it are accepted within {} seconds", REFRESH.as_secs() + 1);
    say!("{}", line_to_paste(settings, slug)?);
    Ok(())
}

/// Page views of an erased project are in the log for the log's retention, and would be counted again for a project of the same slug.
fn refuse_erased(row: &ProjectRow, settings: &ProjectCommand) -> anyhow::Result<()> {
    let erased = i64::try_from(row.revision).ok().and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    let gone = erased + TimeDelta::hours(i64::from(settings.log.log_retention_hours) + 1);
    if settings.clock.clock()() < gone {
        bail!(
            "the project {} was erased at {}; its page views are in the log until {}, and would be counted again. Register the slug after \
             that, or take another one",
            row.slug,
            erased.format("%Y-%m-%d %H:%M UTC"),
            gone.format("%Y-%m-%d %H:%M UTC")
        );
    }
    Ok(())
}

/// Runs `headcount project list`: registered projects, then those that only a host pattern admitted.
async fn list(client: &Client, data: &Path) -> anyhow::Result<()> {
    let rows = read_rows(client).await?;
    let registry = registry_of(&rows);
    let mut admitted = with_figures(client).await?;
    // Projects that this endpoint admitted may have no figures yet.
    admitted.extend(Snapshot::new(&data.join(ADMITTED)).load::<Vec<ProjectSlug>>());
    admitted.retain(|slug| rows.iter().all(|row| row.slug != slug.as_str()));
    admitted.sort_unstable();
    admitted.dedup();
    if registry.is_empty() && admitted.is_empty() {
        say!("no projects yet; register one with `headcount project add SLUG --host HOST`");
    }
    for (slug, project) in registry {
        let by_pattern = if project.hosts.is_empty() { "by a host pattern" } else { "" };
        say!("{slug}: {by_pattern}{}", project.hosts.iter().map(Host::as_str).collect::<Vec<_>>().join(", "));
        if let Some(row) = rows.iter().find(|row| row.slug == slug.as_str()) {
            rules::described(row).iter().filter(|rule| rule.is_set()).for_each(|rule| say!("  {rule}"));
            say!("  {}", settings::summary(row));
        }
    }
    for slug in admitted {
        say!("{slug}: by a host pattern");
        say!("  {}", settings::summary(&new_row(slug.as_str())));
    }
    Ok(())
}

/// Removes a project's figures and settings, and revokes its tokens. Returns how many tables had rows of it.
///
/// # Errors
/// ClickHouse refused, or is unavailable.
pub async fn erase(client: &Client, slug: &ProjectSlug) -> anyhow::Result<usize> {
    // The registry first: from here on none of the project's beacons is accepted, and rows that come back are removed.
    put(client, slug, |row| {
        row.removed = ERASED;
        row.hosts = Vec::new();
        rules::clear(row);
        (row.time_zone, row.public, row.recipients, row.ignore_networks, row.aliases) = Default::default();
    })
    .await?;
    tokens::revoke_all_of(client, slug).await?;
    retention::remove(client, slug).await
}

/// Erases a project that was erased at `erased` (Unix time, ms) and that a backup restored. If it was registered again since, its settings and tokens
/// stay.
///
/// # Errors
/// ClickHouse refused, or is unavailable.
pub async fn erase_again(client: &Client, slug: &ProjectSlug, erased: u64) -> anyhow::Result<usize> {
    match row(client, slug).await? {
        Some(row) if row.removed != ERASED && row.revision > erased => retention::remove(client, slug).await,
        _ => erase(client, slug).await,
    }
}
/// The copy on disk of the names that host patterns admitted, in the data directory.
pub const ADMITTED: &str = "admitted.json";

/// Whether the project may have reports: it is registered, or was, or has figures.
pub async fn is_known(client: &Client, slug: &ProjectSlug) -> anyhow::Result<bool> {
    match row(client, slug).await? {
        Some(row) => Ok(row.removed != ERASED),
        None => Ok(with_figures(client).await?.contains(slug)),
    }
}

/// The URL of the configured ClickHouse, or of the embedded one that runs on the data directory.
///
/// # Errors
/// None is configured, and none runs on the data directory.
pub async fn clickhouse_url(store: &StoreSettings) -> anyhow::Result<String> {
    let engine = store.engine();
    let told = std::fs::File::open(engine.data_dir.join("engine.json"));
    if told.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        bail!("{} belongs to another user; run this as the user that headcount runs as", store.data().display());
    }
    match &engine.clickhouse_url {
        Some(url) => Ok(url.clone()),
        None => embedded::engine::running(&engine.data_dir).await.map(|engine| engine.url).with_context(|| {
            format!(
                "no headcount runs on {}, or its ClickHouse is just being started again; start it with `headcount serve --data {}`, \
                 or name a ClickHouse with --clickhouse-url",
                store.data().display(),
                store.data().display()
            )
        }),
    }
}

/// A client of the prepared database.
///
/// # Errors
/// As for [`clickhouse_url`] and [`database::prepare`].
pub async fn connect(store: &StoreSettings) -> anyhow::Result<Client> {
    let server = store.server(&clickhouse_url(store).await?);
    database::prepare(&server, store.database(), store.timeout()).await
}

async fn row(client: &Client, slug: &ProjectSlug) -> anyhow::Result<Option<ProjectRow>> {
    let query =
        client.query("SELECT ?fields FROM project FINAL WHERE slug = {slug:String}").param("slug", slug.as_str());
    query.fetch_optional::<ProjectRow>().await.context("cannot read the registry of projects")
}

/// A project with default settings.
fn new_row(slug: &str) -> ProjectRow {
    ProjectRow {
        slug: slug.to_owned(),
        hosts: Vec::new(),
        removed: COUNTED,
        mask: Vec::new(),
        keep: Vec::new(),
        query: Vec::new(),
        time_zone: String::new(),
        public: 0,
        recipients: Vec::new(),
        revision: 0,
        strip_trailing_slash: 0,
        strip_html: 0,
        ignore_networks: Vec::new(),
        aliases: Vec::new(),
    }
}

/// Changes a project's row, or makes one.
async fn put(client: &Client, slug: &ProjectSlug, change: impl FnOnce(&mut ProjectRow)) -> anyhow::Result<()> {
    let mut row = row(client, slug).await?.unwrap_or_else(|| new_row(slug.as_str()));
    change(&mut row);
    let now = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
    // A clock that stepped back must not lose the change.
    row.revision = now.max(row.revision + 1);
    storage::insert(client, "project", &[row]).await.context("cannot store the project")
}

/// Reads the registry. Invalid rows (written by hand) are skipped and logged.
pub async fn read(client: &Client) -> anyhow::Result<Registry> {
    Ok(registry_of(&read_rows(client).await?))
}

/// All rows of the registry, those of removed and erased projects included.
pub async fn read_rows(client: &Client) -> anyhow::Result<Vec<ProjectRow>> {
    let query = client.query("SELECT ?fields FROM project FINAL ORDER BY slug");
    Ok(in_time(Work::Registry.timeout(), "reading the registry of projects", query.fetch_all::<ProjectRow>()).await?)
}

/// The projects that are counted. Invalid rows are skipped and logged.
pub fn registry_of(rows: &[ProjectRow]) -> Registry {
    let mut registry = Registry::new();
    for row in rows.iter().filter(|row| row.removed == COUNTED) {
        let hosts: Result<Vec<Host>, _> = row.hosts.iter().map(|host| host.parse()).collect();
        match (row.slug.parse::<ProjectSlug>(), hosts) {
            (Ok(slug), Ok(hosts)) => {
                for text in row.mask.iter().chain(&row.keep).filter(|text| text.parse::<PathPattern>().is_err()) {
                    tracing::warn!(%slug, text, "this is no pattern of paths; it is left out");
                }
                for text in row.ignore_networks.iter().filter(|text| text.parse::<Network>().is_err()) {
                    tracing::warn!(%slug, text, "this is no network; it is left out");
                }
                for text in row.aliases.iter().filter(|text| text.parse::<Alias>().is_err()) {
                    tracing::warn!(%slug, text, "this is no alias; it is left out");
                }
                let project = Registered {
                    hosts,
                    mask: row.mask.clone(),
                    keep: row.keep.clone(),
                    query: row.query.clone(),
                    strip_trailing_slash: row.strip_trailing_slash == 1,
                    strip_html: row.strip_html == 1,
                    ignore_networks: row.ignore_networks.clone(),
                    aliases: row.aliases.clone(),
                };
                registry.insert(slug, project);
            }
            _ => tracing::warn!(slug = row.slug, "a row of the table `project` is no valid project; it is left out"),
        }
    }
    registry
}

/// Projects that must not be counted, whatever the host patterns admit.
pub fn removed_of(rows: &[ProjectRow]) -> Vec<ProjectSlug> {
    rows.iter().filter(|row| row.removed > COUNTED).filter_map(|row| row.slug.parse().ok()).collect()
}

/// Names that host patterns once admitted: those with figures. They need not be admitted again after a restart.
pub async fn with_figures(client: &Client) -> anyhow::Result<Vec<ProjectSlug>> {
    let query = client
        .query("SELECT DISTINCT project FROM site_hourly UNION DISTINCT SELECT DISTINCT project FROM month_closed");
    let names =
        in_time(Work::Maintenance.timeout(), "reading which projects have figures", query.fetch_all::<String>())
            .await?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// A copy on disk of the data that the endpoint needs before it has queried ClickHouse.
pub struct Snapshot {
    path: PathBuf,
}

impl Snapshot {
    /// The copy at `path`.
    pub fn new(path: &Path) -> Self {
        Snapshot { path: path.to_owned() }
    }

    /// The last content; empty if nothing was written, or if it cannot be decoded.
    pub fn load<T: DeserializeOwned + Default>(&self) -> T {
        let Ok(text) = std::fs::read_to_string(&self.path) else { return T::default() };
        serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::warn!(%error, path = %self.path.display(), "this copy does not read back; starting without it");
            T::default()
        })
    }

    /// The copy's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store<T: Serialize>(&self, content: &T) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(content)?;
        private_file::replace(&self.path, &text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}
