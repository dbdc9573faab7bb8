//! `headcount import list` and `headcount import remove`.

use super::run::{id_of, lock, resume};
use crate::backup::control;
use crate::config::commands::ImportCommand;
use crate::config::store::StoreSettings;
use crate::{projects, say};
use aggregate::imports::{ImportState, Imports};
use anyhow::{Context, bail};
use schemas::{Day, StreamId};
use std::collections::BTreeSet;
use std::process::ExitCode;

/// Prints all imports.
///
/// # Errors
/// ClickHouse cannot be reached.
pub async fn list(store: &StoreSettings) -> anyhow::Result<ExitCode> {
    let imports = Imports::new(projects::connect(store).await?, store.database(), None);
    let rows = imports.all().await?;
    if rows.is_empty() {
        say!("no import");
    }
    for row in rows {
        let months = imports.months(StreamId(row.stream)).await?;
        let started = chrono::DateTime::from_timestamp(i64::from(row.started), 0).unwrap_or_default();
        say!("{}  {:<9}  {}  {} lines", id_of(&row), row.state, started.format("%Y-%m-%dT%H:%M:%SZ"), row.lines);
        for of in months {
            let month = Day(of.month).first_hour().month();
            let visitors = if of.has_visitors == 1 { "with visitors" } else { "views only" };
            say!("    {month}  {}: {} views of people, {} of robots, {visitors}", of.project, of.views, of.robots);
        }
        for (name, bytes) in row.file_names.iter().zip(&row.file_bytes) {
            say!("    {name}, {bytes} bytes of text");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes an import.
///
/// # Errors
/// There is no such import, its figures cannot be separated from others, or ClickHouse failed.
pub async fn remove(id: &str, settings: &ImportCommand) -> anyhow::Result<ExitCode> {
    let _lock = lock(settings)?;
    let client = projects::connect(&settings.store).await?;
    let imports = Imports::new(client.clone(), settings.store.database(), None);
    let found = imports.all().await?.into_iter().find(|row| id_of(row) == id);
    let Some(row) = found else { bail!("there is no import {id}; `headcount import list` shows those there are") };
    let (months, files) = (imports.months(StreamId(row.stream)).await?, row.file_names.len());
    if ImportState::of(&row) == Some(ImportState::Running) {
        imports.abandon(StreamId(row.stream)).await?;
        say!("import {id} had not ended, and nothing of it was counted; it is removed");
        return Ok(ExitCode::SUCCESS);
    }
    // An import that was stopped while it was published is whole before it is removed.
    let row = resume(&imports, &client, settings, row).await?;
    if let Some(row) = row {
        let _held = control::hold(settings.store.data()).await?;
        imports.remove(row).await.with_context(|| format!("cannot remove import {id}"))?;
    }
    let of_months: BTreeSet<u16> = months.iter().map(|of| of.month).collect();
    say!("import {id} is removed: {} months, {files} files; its files can be imported again", of_months.len());
    Ok(ExitCode::SUCCESS)
}
