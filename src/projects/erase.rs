//! `headcount project erase`: lists what will be deleted and asks for confirmation before it deletes anything.

use super::{is_known, row, rules, settings};
use crate::config::commands::ProjectCommand;
use crate::erased::{self, ErasedEntry};
use crate::{complain, say, tokens};
use anyhow::{Context, bail};
use clap::ArgMatches;
use clickhouse::{Client, Row};
use schemas::ProjectSlug;
use serde::Deserialize;
use std::io::BufRead;

#[derive(Row, Deserialize)]
struct Figures {
    views: u64,
    months: u64,
    first: String,
    last: String,
}

/// Runs `headcount project erase SLUG [--yes]`.
pub async fn command(
    client: &Client,
    slug: &ProjectSlug,
    matches: &ArgMatches,
    settings: &ProjectCommand,
) -> anyhow::Result<()> {
    let known = is_known(client, slug).await?;
    // Erasing again is harmless: erased rows may have come back from the log.
    if !known && row(client, slug).await?.is_none() {
        bail!("there is no project {slug}; `headcount project list` shows those there are");
    }
    say!("erasing project {slug} deletes, for good:");
    for line in contents(client, slug).await? {
        say!("  {line}");
    }
    if !matches.get_flag("yes") {
        confirmed(slug).await?;
    }
    // Before anything is removed: a backup may restore the project after that.
    erased::note(settings.store.data(), ErasedEntry::Project(slug.to_string()))?;
    let tables = super::erase(client, slug).await?;
    say!(
        "project {slug} is erased: its rows are removed from {tables} tables. Page views of it that are in the log still \
         leave with the log's retention ({} hours); aggregators remove what comes of them",
        settings.log.log_retention_hours
    );
    Ok(())
}

/// The project's data, a line for each kind.
async fn contents(client: &Client, slug: &ProjectSlug) -> anyhow::Result<Vec<String>> {
    let sql = "SELECT sum(views) AS views, count() AS months, substring(toString(min(month)), 1, 7) AS first, \
               substring(toString(max(month)), 1, 7) AS last FROM monthly_traffic WHERE project = {project:String}";
    let figures = client.query(sql).param("project", slug.as_str()).fetch_one::<Figures>().await;
    let figures = figures.with_context(|| format!("cannot read what there is of {slug}"))?;
    let mut lines = vec![match figures.months {
        0 => "figures: none".to_owned(),
        1 => format!("figures: {} page views in 1 month, {}", figures.views, figures.first),
        months => {
            format!("figures: {} page views in {months} months, {} to {}", figures.views, figures.first, figures.last)
        }
    }];
    lines.push(format!("valid tokens: {}", tokens::of_project(client, slug).await?.len()));
    let sql = "SELECT uniqExact(month, recipient) FROM delivery WHERE project = {project:String}";
    let mails = client.query(sql).param("project", slug.as_str()).fetch_one::<u64>().await;
    lines.push(format!("notes of reports sent by mail: {}", mails.context("cannot read which reports were sent")?));
    if let Some(row) = row(client, slug).await? {
        let listed = |texts: &[String]| if texts.is_empty() { "none".to_owned() } else { texts.join(", ") };
        lines.push(format!("hosts: {}", listed(&row.hosts)));
        let set = rules::described(&row).into_iter().chain(settings::described(&row));
        lines.extend(set.filter(rules::Rule::is_set).map(|rule| rule.to_string()));
    }
    Ok(lines)
}

/// Asks for the slug again, on a terminal or by a pipe.
async fn confirmed(slug: &ProjectSlug) -> anyhow::Result<()> {
    complain!("type the project's slug to erase it:");
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = read.await?.context("cannot read the confirmation from standard input")?;
    match line.trim() {
        typed if typed == slug.as_str() => Ok(()),
        "" => bail!("nothing is erased: type the slug {slug} on standard input, or give --yes"),
        typed => bail!("nothing is erased: {typed:?} is not {slug}"),
    }
}
