//! The table of attacks in docs/operations.md contains only existing settings, with their actual defaults.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Every setting with its value, as `headcount config` prints them without a file, a flag or an environment.
fn defaults() -> Result<BTreeMap<String, String>> {
    let nowhere = tempfile::TempDir::with_prefix("headcount-story-")?;
    let mut command = Command::new(harness::service::binary()?);
    command.env_clear().current_dir(nowhere.path()).args(["config", "--data"]).arg(nowhere.path());
    let output = command.output().context("headcount config")?;
    ensure!(output.status.success(), "headcount config: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let settings = text.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" = ")?;
        let (value, _) = rest.rsplit_once(" # ")?;
        Some((name.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
    });
    Ok(settings.collect())
}

/// The settings in the table's last column: name, and default if there is one.
fn named(row: &str) -> Vec<(String, Option<String>)> {
    let column = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
    let parts: Vec<&str> = column.split('`').collect();
    // Names are between backticks, so at odd positions; the text after a name may start with its default.
    let pairs = parts.chunks_exact(2).zip(parts.iter().skip(2).step_by(2));
    let default = |after: &str| after.trim_start().strip_prefix('(')?.split(')').next().map(str::to_owned);
    pairs.map(|(pair, after)| (pair[1].to_owned(), default(after))).collect()
}

#[test]
fn settings_are_read_from_a_row() {
    let row = "| many | `readyz` is static | `connections` (4096), `trusted_proxy`, `client_rate` (100) |";
    let expected = [("connections", Some("4096")), ("trusted_proxy", None), ("client_rate", Some("100"))];
    let all = named(row);
    let read: Vec<(&str, Option<&str>)> = all.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(read, expected);
    assert!(named("| many | `readyz` is static | |").is_empty());
}

#[test]
fn the_table_of_attacks_names_settings_with_their_defaults() -> Result<()> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations.md");
    let text = std::fs::read_to_string(&document)?;
    let (_, section) = text.split_once("## Attacks, and what bounds them").context("the table of attacks")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    ensure!(rows.len() >= 12, "{} attacks", rows.len());
    let defaults = defaults()?;
    let named: Vec<_> = rows.iter().flat_map(|row| named(row)).collect();
    ensure!(named.len() >= 15, "{named:?}");
    let wrong = |(name, stated): &(String, Option<String>)| match (defaults.get(name), stated) {
        (None, _) => Some(format!("there is no setting `{name}`")),
        (Some(default), Some(stated)) if default != stated => Some(format!("`{name}` is {default}, not {stated}")),
        _ => None,
    };
    let wrong: Vec<String> = named.iter().filter_map(wrong).collect();
    ensure!(wrong.is_empty(), "docs/operations.md: {wrong:#?}");
    Ok(())
}
