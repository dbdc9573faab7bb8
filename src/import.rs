//! `headcount import`: counts access logs of past months. `--dry-run` prints what it would count.

mod counting;
mod dry_run;
mod file_lines;
mod list;
mod run;
mod summary;

use crate::config::commands::{ImportCommand, StoreCommand};
use crate::config::take;
use crate::config::with;
use crate::shell::harden;
use anyhow::{Context, bail};
use chrono::Months;
use clap::{Arg, ArgAction, ArgMatches, Command};
use indicatif::{ProgressBar, ProgressStyle};
use ingest::access_log::Format;
use ingest::access_log::assets::{AssetRule, Assets};
use ingest::access_log::files;
use ingest::access_log::view::{NotCounted, Outcome, ViewRules};
use schemas::{Host, Hour, Month};
use std::path::PathBuf;
use std::process::ExitCode;

/// Lines between two updates of the progress.
const PROGRESS_LINES: u64 = 10_000;

/// The command line, with the settings.
pub fn arguments() -> Command {
    let list = Command::new("list").about("List the imports with their months and files");
    let remove = Command::new("remove")
        .about("Remove an import and all its figures")
        .arg(Arg::new("id").required(true).value_name("ID").help("Its id, as `headcount import list` prints it"));
    with::<ImportCommand>(import_arguments())
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .subcommand(with::<StoreCommand>(list))
        .subcommand(with::<ImportCommand>(remove))
}

fn import_arguments() -> Command {
    let many = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).action(ArgAction::Append).help(help)
    };
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("import")
        .about("Count access logs of past months; --trusted-proxy names the proxies in front of the server")
        .arg(
            Arg::new("files")
                .required(true)
                .num_args(1..)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Access logs, also compressed; a directory for its files; - for standard input"),
        )
        .arg(switch("dry-run", "Count nothing; print a summary by reason"))
        .arg(switch("unrecognised", "Import without the key that recognises earlier files"))
        .arg(Arg::new("host").long("host").value_name("HOST").help("The host of lines that name none"))
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .help("Name or log_format, see docs/logs.md [default: guessed]"),
        )
        .arg(
            Arg::new("utc-offset")
                .long("utc-offset")
                .value_name("+HH:MM")
                .allow_hyphen_values(true)
                .help("Time zone for times without one, such as +01:00"),
        )
        .arg(many("asset", "RULE", "No page either, such as .md, /img/, health; repeatable"))
        .arg(many("page", "RULE", "A page, such as .pdf; repeatable"))
}

/// Runs `headcount import FILE…`, `import list` or `import remove ID`. `block_on` runs what needs ClickHouse.
///
/// # Errors
/// An argument or a setting is wrong, or the import failed: nothing of it counts.
pub fn command(
    action: &str,
    matches: &ArgMatches,
    block_on: impl FnOnce(run::Work<'_>) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    match action {
        "list" => {
            let settings: StoreCommand = take(matches)?;
            block_on(Box::pin(async move { list::list(&settings.store).await }))
        }
        "remove" => {
            let settings: ImportCommand = take(matches)?;
            let id = matches.get_one::<String>("id").context("no id given")?;
            block_on(Box::pin(async move { list::remove(id, &settings).await }))
        }
        _ => {
            let settings: ImportCommand = take(matches)?;
            // Lines have IP addresses and user agents.
            harden();
            let plan = Plan::new(matches, &settings)?;
            if matches.get_flag("dry-run") {
                return dry_run::run(&plan, &settings);
            }
            let unrecognised = matches.get_flag("unrecognised");
            block_on(Box::pin(async move { run::run(plan, &settings, unrecognised).await }))
        }
    }
}

/// What is read, and how.
struct Plan {
    files: Vec<PathBuf>,
    format: Option<Format>,
    /// Seconds east of UTC of times without a zone.
    utc_offset: Option<i32>,
    rules: ViewRules,
}

impl Plan {
    fn new(matches: &ArgMatches, settings: &ImportCommand) -> anyhow::Result<Self> {
        let text = |name: &str| matches.get_one::<String>(name);
        let format = text("format").map(|text| text.parse::<Format>().context("--format")).transpose()?;
        let utc_offset = text("utc-offset").map(|text| offset_seconds(text)).transpose()?;
        let rules = rules(matches, settings, settings.clock.clock()())?;
        let paths: Vec<PathBuf> = matches.get_many("files").unwrap_or_default().cloned().collect();
        let files = files::files(&paths).context("cannot read a directory")?;
        if files.is_empty() {
            bail!("no file to read: the directory has none");
        }
        Ok(Plan { files, format, utc_offset, rules })
    }

    /// The outcome of a line for an import: the running month has another way.
    fn outcome(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::View(view) if view.hour >= self.rules.now.month().first_hour() => {
                Outcome::NotCounted(NotCounted::RunningMonth)
            }
            outcome => outcome,
        }
    }

    /// Bytes of all files, with rate and time left, on a terminal. Standard input has no length.
    fn progress_bar(&self) -> ProgressBar {
        let total: u64 = self.files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

fn rules(
    matches: &ArgMatches,
    settings: &ImportCommand,
    now: chrono::DateTime<chrono::Utc>,
) -> anyhow::Result<ViewRules> {
    let host = matches.get_one::<String>("host");
    let host = host.map(|text| text.parse::<Host>().with_context(|| format!("--host {text:?}"))).transpose()?;
    let asset_rules = |name: &str| -> anyhow::Result<Vec<AssetRule>> {
        let texts = matches.get_many::<String>(name).unwrap_or_default();
        texts.map(|text| text.parse().with_context(|| format!("--{name} {text:?}"))).collect()
    };
    let mut assets = Assets::default();
    asset_rules("asset")?.into_iter().for_each(|rule| assets.add(rule));
    asset_rules("page")?.iter().for_each(|rule| assets.remove(rule));
    let first = now.checked_sub_months(Months::new(settings.privacy.lifetimes.retention().months)).unwrap_or_default();
    let first: Month = Hour::of(first).month();
    let endpoint = settings.beacons.ingest(&settings.connections, &settings.admission, &settings.privacy)?;
    Ok(ViewRules {
        host,
        trusted_proxies: endpoint.trusted_proxies,
        ignore_networks: endpoint.ignore_networks,
        assets,
        own_rules: endpoint.own_rules,
        first_hour: first.first_hour(),
        now: Hour::of(now),
    })
}

/// Seconds of `+01:00`, `-0330` or `Z`.
fn offset_seconds(text: &str) -> anyhow::Result<i32> {
    let expected = || format!("--utc-offset is {text:?}: expected an offset such as +01:00");
    if text == "Z" {
        return Ok(0);
    }
    let digits: String = text.chars().skip(1).filter(|c| *c != ':').collect();
    let number: i32 = digits.parse().with_context(expected)?;
    let (hours, minutes) = (number / 100, number % 100);
    let is_offset = digits.len() == 4 && hours <= 14 && minutes < 60;
    match text.chars().next() {
        Some('+') if is_offset => Ok(hours * 3600 + minutes * 60),
        Some('-') if is_offset => Ok(-(hours * 3600 + minutes * 60)),
        _ => bail!(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::offset_seconds;

    #[test]
    fn offsets_are_seconds_east_of_utc() {
        for (text, expected) in [
            ("Z", Some(0)),
            ("+01:00", Some(3600)),
            ("-0330", Some(-12_600)),
            ("+1", None),
            ("01:00", None),
            ("+15:00", None),
            ("+01:60", None),
            ("Europe/Berlin", None),
            ("", None),
        ] {
            assert_eq!(offset_seconds(text).ok(), expected, "{text}");
        }
    }
}
