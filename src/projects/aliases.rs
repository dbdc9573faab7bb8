//! `headcount project alias`: a project's names in other counters.

use super::{COUNTED, REFRESH, put, read_rows, row};
use crate::say;
use anyhow::{Context, bail};
use clap::ArgMatches;
use clickhouse::Client;
use ingest::aliases::Alias;
use schemas::ProjectSlug;
use schemas::proto::Source;
use schemas::tables::ProjectRow;

/// Flags and the counters whose names they take.
const FLAGS: [(&str, Source); 4] = [
    ("umami", Source::Umami),
    ("plausible", Source::Plausible),
    ("goatcounter", Source::Goatcounter),
    ("readthedocs", Source::Readthedocs),
];

/// The aliases of a command, and whether to remove them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AliasChange {
    aliases: Vec<String>,
    remove: bool,
}

impl AliasChange {
    /// Reads and checks the flags; a command without them has no aliases.
    pub fn from_arguments(matches: &ArgMatches) -> anyhow::Result<Self> {
        let mut aliases = Vec::new();
        for (flag, source) in FLAGS {
            for text in matches.try_get_many::<String>(flag).ok().flatten().into_iter().flatten() {
                let alias = Alias::new(source, text).with_context(|| format!("--{flag} is {text:?}"))?;
                aliases.push(alias.to_string());
            }
        }
        let remove = matches.try_get_one::<bool>("remove").ok().flatten().copied().unwrap_or(false);
        if remove && aliases.is_empty() {
            bail!("--remove needs the alias to remove, such as --umami UUID");
        }
        Ok(AliasChange { aliases, remove })
    }
}

/// Adds, removes or lists aliases of a project.
///
/// # Errors
/// There is no such project, another project has one of the aliases, or ClickHouse failed.
pub async fn command(client: &Client, slug: &ProjectSlug, named: &AliasChange) -> anyhow::Result<()> {
    let Some(before) = row(client, slug).await?.filter(|row| row.removed == COUNTED) else {
        bail!("there is no project {slug}; register it with `headcount project add {slug} --host HOST`");
    };
    if named.aliases.is_empty() {
        list(slug, &before);
        return Ok(());
    }
    if named.remove {
        if let Some(alias) = named.aliases.iter().find(|alias| !before.aliases.contains(alias)) {
            bail!("{alias} is no alias of {slug}; `headcount project alias {slug} --list` shows those there are");
        }
        put(client, slug, |row| row.aliases.retain(|alias| !named.aliases.contains(alias))).await?;
    } else {
        for other in read_rows(client).await?.iter().filter(|row| row.removed == COUNTED && row.slug != slug.as_str()) {
            if let Some(alias) = named.aliases.iter().find(|alias| other.aliases.contains(alias)) {
                bail!("{alias} is an alias of the project {}; remove it there first", other.slug);
            }
        }
        put(client, slug, |row| {
            row.aliases.extend(named.aliases.iter().cloned());
            row.aliases.sort_unstable();
            row.aliases.dedup();
        })
        .await?;
    }
    if let Some(after) = row(client, slug).await? {
        list(slug, &after);
    }
    say!("active within {} seconds", REFRESH.as_secs() + 1);
    Ok(())
}

fn list(slug: &ProjectSlug, row: &ProjectRow) {
    if row.aliases.is_empty() {
        say!("project {slug}: no aliases");
    }
    row.aliases.iter().for_each(|alias| say!("project {slug}: {alias}"));
}
