//! The endpoint's copy of the registry on disk: projects, their settings, and tokens. With it the endpoint starts without ClickHouse, and the
//! registry outlives ClickHouse's data.

use crate::projects::{self, Registry, Snapshot};
use crate::shell::chain;
use anyhow::{Context, bail};
use clickhouse::Client;
use ingest::Ingest;
use schemas::ProjectSlug;
use schemas::tables::{ProjectRow, TokenRow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storage::{Work, in_time};

/// Version of the copy's format. Version 1 had no number: it was a map from slugs to hosts, or to hosts and rules of paths.
const VERSION: u32 = 2;

/// Every row of the registry. It has the hashes of tokens, never a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    version: u32,
    /// All rows of the table `project`, those of removed and erased projects included.
    pub projects: Vec<ProjectRow>,
    /// All rows of the table `token`, those of revoked tokens included.
    pub tokens: Vec<TokenRow>,
}

/// The copy as it may be stored.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Rows(Contents),
    Version1(Registry),
}

/// The version number at the start of the copy. A project of version 1 may be called `version`, but is not a number.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// A newer version wrote the copy.
#[derive(Debug, thiserror::Error)]
#[error("its format is {0}, this program knows {VERSION}: it was written by a newer headcount")]
struct NewerCopy(u32);

impl Contents {
    /// Reads the registry from ClickHouse.
    ///
    /// # Errors
    /// ClickHouse refused, or is unavailable.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let tokens = client.query("SELECT ?fields FROM token FINAL ORDER BY id");
        let tokens = in_time(Work::Registry.timeout(), "reading the tokens", tokens.fetch_all::<TokenRow>()).await?;
        Ok(Contents { version: VERSION, projects: projects::read_rows(client).await?, tokens })
    }

    /// Decodes a copy.
    ///
    /// # Errors
    /// It is not a copy, or one of a newer format.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        // Checked first: a newer version's data may have any form.
        if let Ok(Versioned { version }) = serde_json::from_str(text)
            && version > VERSION
        {
            return Err(NewerCopy(version).into());
        }
        let contents = match serde_json::from_str(text).context("neither rows of the registry nor a map of projects")? {
            Stored::Rows(contents) => contents,
            Stored::Version1(registry) => {
                let projects = registry.iter().map(|(slug, project)| projects::row_of(slug, project)).collect();
                Contents { version: VERSION, projects, tokens: Vec::new() }
            }
        };
        if contents.version != VERSION {
            bail!("its format is {}, which no headcount has written", contents.version);
        }
        Ok(contents)
    }

    /// Whether there is no row: no project was ever registered, and no token created. Removed projects leave a row.
    pub fn is_empty(&self) -> bool {
        self.projects.is_empty() && self.tokens.is_empty()
    }

    /// Projects that are counted.
    pub fn counted(&self) -> usize {
        self.projects.iter().filter(|row| row.removed == 0).count()
    }

    /// Tokens that are not revoked.
    pub fn valid_tokens(&self) -> usize {
        self.tokens.iter().filter(|row| row.revoked == 0).count()
    }

    /// The rows that `store` lacks or has in an older revision.
    fn newer_than(&self, store: &Contents) -> Contents {
        let projects: BTreeMap<&str, u64> =
            store.projects.iter().map(|row| (row.slug.as_str(), row.revision)).collect();
        let tokens: BTreeMap<&str, u64> = store.tokens.iter().map(|row| (row.id.as_str(), row.revision)).collect();
        let is_newer = |known: Option<&u64>, revision: u64| known.is_none_or(|&known| known < revision);
        Contents {
            version: VERSION,
            projects: self
                .projects
                .iter()
                .filter(|row| is_newer(projects.get(row.slug.as_str()), row.revision))
                .cloned()
                .collect(),
            tokens: self
                .tokens
                .iter()
                .filter(|row| is_newer(tokens.get(row.id.as_str()), row.revision))
                .cloned()
                .collect(),
        }
    }

    /// Stores the rows in ClickHouse. Rows that have a newer revision there stay active.
    ///
    /// # Errors
    /// ClickHouse refused, or is unavailable.
    pub async fn restore(&self, client: &Client) -> anyhow::Result<()> {
        let stored = async {
            storage::insert(client, "project", &self.projects).await?;
            storage::insert(client, "token", &self.tokens).await
        };
        stored.await.context("cannot restore the registry from its copy")
    }
}

/// The copy as it was at the start, and its file.
pub struct RegistryCopy {
    file: Snapshot,
    found: Result<Contents, String>,
}

impl RegistryCopy {
    /// Opens the copy in a data directory. An unreadable copy is logged, and prevents the start only if ClickHouse has no registry either.
    ///
    /// # Errors
    /// A newer version wrote the copy, so this one would replace it with less data than it has.
    pub fn open(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("projects.json");
        let found = match std::fs::read_to_string(&path) {
            Ok(text) => match Contents::parse(&text) {
                Err(error) if error.is::<NewerCopy>() => bail!(
                    "the registry's copy {} cannot be used, and is not replaced: {error}. Run that version; or move the file away: this \
                     version then writes the copy from what ClickHouse has",
                    path.display()
                ),
                parsed => parsed.map_err(|error| chain(&error)),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Contents { version: VERSION, projects: Vec::new(), tokens: Vec::new() })
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &found {
            tracing::warn!(error, path = %path.display(), "the registry's copy cannot be read; starting without it");
        }
        Ok(RegistryCopy { file: Snapshot::new(&path), found })
    }

    /// The projects of the copy, indexed for the endpoint.
    pub fn index(&self) -> ingest::projects::ProjectSnapshot {
        let rows = self.found.as_ref().map_or(&[][..], |contents| &contents.projects);
        projects::indexed(&projects::registry_of(rows)).without(projects::removed_of(rows))
    }

    /// The comparison of ClickHouse with the copy, as of its opening.
    pub fn check(&self, is_of_this_store: bool, recover: bool) -> RegistryCheck {
        RegistryCheck { path: self.file.path().to_owned(), found: self.found.clone(), is_of_this_store, recover }
    }
}

/// ClickHouse has no registry although the copy has one. Other errors of the check may be temporary.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RegistryLost(String);

/// The comparison of ClickHouse's registry with the copy.
#[derive(Clone)]
pub struct RegistryCheck {
    path: PathBuf,
    found: Result<Contents, String>,
    /// Whether the copy and ClickHouse's data are stored in one data directory. If so, ClickHouse has lost each row that is newer in the copy.
    is_of_this_store: bool,
    /// Whether to restore the copy if ClickHouse has no registry.
    recover: bool,
}

/// The result of [`RegistryCheck::decide`].
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Nothing is to be done.
    GoOn,
    /// These rows are to be stored in ClickHouse.
    Restore(Contents),
    /// ClickHouse lost its registry.
    Stop(String),
}

impl RegistryCheck {
    /// Whether `--recover` is set.
    pub fn recovers(&self) -> bool {
        self.recover
    }

    /// Compares, and restores rows if it may.
    ///
    /// # Errors
    /// [`RegistryLost`] if ClickHouse has no registry although the copy has one, and `--recover` is not set; or ClickHouse failed.
    pub async fn run(&self, client: &Client) -> anyhow::Result<()> {
        let store = Contents::read(client).await?;
        match self.decide(&store) {
            Decision::GoOn => Ok(()),
            Decision::Stop(why) => Err(RegistryLost(why).into()),
            Decision::Restore(rows) => {
                rows.restore(client).await?;
                tracing::warn!(
                    projects = rows.projects.len(),
                    tokens = rows.tokens.len(),
                    copy = %self.path.display(),
                    "ClickHouse's registry is older than its copy, or empty; these rows were restored from the copy"
                );
                Ok(())
            }
        }
    }

    fn decide(&self, store: &Contents) -> Decision {
        let path = self.path.display();
        let copy = match &self.found {
            Ok(copy) => copy,
            Err(error) if store.is_empty() => {
                return Decision::Stop(format!(
                    "ClickHouse has no projects and no tokens, and their copy {path} cannot be read ({error}). Restore ClickHouse's data or the \
                     copy; or move the copy away to start with an empty registry"
                ));
            }
            Err(_) => return Decision::GoOn,
        };
        if store.is_empty() && !copy.is_empty() && !self.recover {
            let (projects, tokens) = (copy.counted(), copy.valid_tokens());
            return Decision::Stop(format!(
                "ClickHouse has no projects and no tokens, but their copy {path} has {projects} projects and {tokens} tokens: ClickHouse's data \
                 were removed or emptied. Restore the data; or start once with --recover: the registry is restored from the copy, and what the \
                 log still holds is counted again; or move the copy away to start with an empty registry"
            ));
        }
        let missing = copy.newer_than(store);
        if missing.is_empty() || !(self.is_of_this_store || store.is_empty()) {
            return Decision::GoOn;
        }
        Decision::Restore(missing)
    }
}

/// Updates the endpoint's copy of the registry, in memory and on disk, until `stop` resolves, and reads the registry a last time then. An empty
/// registry in ClickHouse never replaces a copy that has rows: that is a loss of data.
pub async fn refresh_registry<S: ingest::sink::Sink>(
    ingest: Arc<Ingest<S>>,
    client: Client,
    copy: RegistryCopy,
    check: RegistryCheck,
    names: Snapshot,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut is_last = false;
    let mut known: Option<Contents> = None;
    let (mut failing, mut lost, mut seeded) = (false, false, false);
    let mut written = ingest.projects.admitted().len();
    loop {
        match Contents::read(&client).await {
            Ok(contents) if is_lost(&contents, known.as_ref(), &copy) => {
                failing = false;
                let checked = check.run(&client).await;
                if !std::mem::replace(&mut lost, true) {
                    let error = checked.err().map(|error| crate::shell::chain(&error));
                    tracing::error!(
                        error,
                        "ClickHouse has no projects and no tokens any more; the last registry stays active"
                    );
                }
            }
            Ok(contents) => {
                (failing, lost) = (false, false);
                if known.as_ref() != Some(&contents) {
                    replace(&ingest, &copy, &contents);
                    known = Some(contents);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    let error = crate::shell::chain(&error);
                    tracing::warn!(error, "the registry cannot be read; the last one stays active");
                }
            }
        }
        // Names that patterns admitted survive a restart: in a file, and in the figures of their projects.
        if !seeded && let Ok(known) = projects::with_figures(&client).await {
            ingest.projects.admit_known(known);
            seeded = true;
        }
        let admitted: Vec<ProjectSlug> = ingest.projects.admitted();
        if admitted.len() != written {
            match names.store(&admitted) {
                Ok(()) => written = admitted.len(),
                Err(error) => tracing::warn!(error = crate::shell::chain(&error), "admitted names are not on disk yet"),
            }
        }
        if is_last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(projects::REFRESH) => {}
            // A change in the last seconds must be in the copy, too.
            () = &mut stop => is_last = true,
        }
    }
}

/// Whether ClickHouse lost its registry: it has no row, but the last registry read had some, or the copy has, or the copy is unreadable and may have.
fn is_lost(contents: &Contents, known: Option<&Contents>, copy: &RegistryCopy) -> bool {
    let had_rows = match (known, &copy.found) {
        (Some(known), _) => !known.is_empty(),
        (None, Ok(copy)) => !copy.is_empty(),
        (None, Err(_)) => true,
    };
    contents.is_empty() && had_rows
}

fn replace<S: ingest::sink::Sink>(ingest: &Ingest<S>, copy: &RegistryCopy, contents: &Contents) {
    // The copy first: after a crash, clients must get the same responses as from the new registry.
    if let Err(error) = copy.file.store(contents) {
        tracing::warn!(error = crate::shell::chain(&error), "the registry's copy on disk is out of date");
    }
    let registry = projects::registry_of(&contents.projects);
    ingest.projects.replace(projects::indexed(&registry).without(projects::removed_of(&contents.projects)));
    tracing::info!(projects = registry.len(), "the registry of projects was read");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(slug: &str, removed: u8, revision: u64) -> ProjectRow {
        let slug = slug.parse().expect("a slug");
        let project =
            projects::Registered { hosts: vec!["docs.example".parse().expect("a host")], ..Default::default() };
        ProjectRow { removed, revision, ..projects::row_of(&slug, &project) }
    }

    fn token(id: &str, revoked: u8, revision: u64) -> TokenRow {
        let (project, hash, label) = (String::new(), "00".to_owned(), String::new());
        TokenRow { id: id.to_owned(), project, admin: 1, hash, label, created: 1, revoked, revision }
    }

    fn contents(projects: &[ProjectRow], tokens: &[TokenRow]) -> Contents {
        Contents { version: VERSION, projects: projects.to_vec(), tokens: tokens.to_vec() }
    }

    fn check(found: Result<Contents, String>, is_of_this_store: bool, recover: bool) -> RegistryCheck {
        RegistryCheck { path: PathBuf::from("data/projects.json"), found, is_of_this_store, recover }
    }

    #[test]
    fn an_empty_clickhouse_beside_a_filled_copy_stops_or_is_restored() {
        let (copy, empty) =
            (contents(&[project("docs", 0, 5), project("gone", 2, 6)], &[token("a", 0, 7)]), contents(&[], &[]));
        for is_of_this_store in [true, false] {
            let Decision::Stop(why) = check(Ok(copy.clone()), is_of_this_store, false).decide(&empty) else {
                panic!("it goes on")
            };
            assert!(
                why.contains("data/projects.json has 1 projects and 1 tokens") && why.contains("--recover"),
                "{why}"
            );
            let decision = check(Ok(copy.clone()), is_of_this_store, true).decide(&empty);
            assert_eq!(decision, Decision::Restore(copy.clone()));
        }
        // Removed projects are rows, too: a copy with nothing else is not empty.
        let removed = contents(&[project("gone", 2, 6)], &[]);
        assert!(matches!(check(Ok(removed), true, false).decide(&empty), Decision::Stop(_)));
        assert!(matches!(check(Err("damaged".to_owned()), true, true).decide(&empty), Decision::Stop(_)));
        // A first start.
        assert_eq!(check(Ok(empty.clone()), true, false).decide(&empty), Decision::GoOn);
    }

    #[test]
    fn an_older_clickhouse_gets_the_newer_rows_of_its_own_copy() {
        let copy = contents(&[project("docs", 2, 9), project("late", 0, 8), project("old", 0, 1)], &[token("a", 1, 7)]);
        let store = contents(&[project("docs", 0, 5), project("old", 0, 2)], &[token("a", 0, 3), token("b", 0, 4)]);
        let newer = contents(&[project("docs", 2, 9), project("late", 0, 8)], &[token("a", 1, 7)]);
        assert_eq!(check(Ok(copy.clone()), true, false).decide(&store), Decision::Restore(newer));
        // The copy of an endpoint on another machine may belong to another ClickHouse.
        assert_eq!(check(Ok(copy), false, true).decide(&store), Decision::GoOn);
        assert_eq!(check(Ok(store.clone()), true, true).decide(&store), Decision::GoOn);
        assert_eq!(check(Err("damaged".to_owned()), true, false).decide(&store), Decision::GoOn);
    }

    #[test]
    fn copies_of_every_version_are_read() {
        let copy = contents(&[project("docs", 0, 5)], &[token("a", 0, 7)]);
        assert_eq!(Contents::parse(&serde_json::to_string(&copy).unwrap()).unwrap(), copy);
        // A project may have the name of a field.
        let hosts = Contents::parse(r#"{"version": ["docs.example"]}"#).unwrap();
        assert_eq!(hosts, contents(&[project("version", 0, 0)], &[]));
        let rules = r#"{"docs": {"hosts": ["docs.example"], "mask": ["/u/*"], "keep": [], "query": ["q"], "strip_html": true}}"#;
        let rules = Contents::parse(rules).unwrap();
        let row = ProjectRow {
            mask: vec!["/u/*".to_owned()],
            query: vec!["q".to_owned()],
            strip_html: 1,
            ..project("docs", 0, 0)
        };
        assert_eq!(rules, contents(&[row], &[]));
        assert!(Contents::parse("{}").unwrap().is_empty());
        let newer = r#"{"version": 3, "projects": [], "tokens": []}"#;
        assert!(Contents::parse(newer).unwrap_err().to_string().contains("written by a newer headcount"));
        let of_another_form = r#"{"version": 3, "rows": []}"#;
        assert!(Contents::parse(of_another_form).unwrap_err().to_string().contains("written by a newer headcount"));
        assert!(Contents::parse(r#"{"docs": {"hosts": ["docs.exa"#).is_err());
    }
}
