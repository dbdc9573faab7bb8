//! `headcount import --dry-run`: what an import of access logs would count, and why it would not count the rest.

use crate::config::commands::ImportCommand;
use crate::registry::RegistryCopy;
use crate::{complain, projects, say};
use anyhow::{Context, bail};
use chrono::Months;
use clap::{Arg, ArgAction, ArgMatches, Command};
use indicatif::{ProgressBar, ProgressStyle};
use ingest::access_log::assets::{AssetRule, Assets};
use ingest::access_log::files::{self, BytesRead};
use ingest::access_log::lines::read_lines;
use ingest::access_log::summary::{Place, Summary};
use ingest::access_log::view::{ViewRules, Views};
use ingest::access_log::{Format, NotRead};
use ingest::projects::{ProjectSnapshot, Projects};
use schemas::classes::{BotClass, ClassName as _};
use schemas::{Host, Hour, Month, ProjectSlug};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The project of `--host` where none is registered.
const WITHOUT_REGISTRY: &str = "dry-run";

/// Lines between two updates of the progress.
const PROGRESS_LINES: u64 = 10_000;

/// The command's arguments, without the settings.
pub fn arguments() -> Command {
    let many = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).action(ArgAction::Append).help(help)
    };
    Command::new("import")
        .about("Read access logs and print what an import would count; --trusted-proxy names the proxies in front of the server")
        .arg(
            Arg::new("files")
                .required(true)
                .num_args(1..)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("Access logs, also gzip, bzip2 or zstd; a directory for its files, oldest first; - for standard input"),
        )
        .arg(
            Arg::new("dry-run")
                .long("dry-run")
                .action(ArgAction::SetTrue)
                .required(true)
                .help("Count nothing; print a summary by reason"),
        )
        .arg(Arg::new("host").long("host").value_name("HOST").help("The host of lines that name none"))
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .help(format!("{}, or a log_format such as '$remote_addr [$time_local] …' [default: guessed]", Format::NAMES.join(", "))),
        )
        .arg(
            Arg::new("utc-offset")
                .long("utc-offset")
                .value_name("+HH:MM")
                .allow_hyphen_values(true)
                .help("The zone of times that name none, such as +01:00"),
        )
        .arg(many("asset", "RULE", "Not a page either: an ending (.md), a folder (/img/) or a file (health); repeatable"))
        .arg(many("page", "RULE", "A page, although it is an asset by default, such as .pdf; repeatable"))
}

/// Runs `headcount import --dry-run FILE…`. The code is 1 if a file was not read, or not to its end.
///
/// # Errors
/// An argument or a setting is wrong, or no host is known.
pub fn command(matches: &ArgMatches, settings: &ImportCommand) -> anyhow::Result<ExitCode> {
    let text = |name: &str| matches.get_one::<String>(name);
    let format = text("format").map(|text| text.parse::<Format>().context("--format")).transpose()?;
    let utc_offset = text("utc-offset").map(|text| offset_seconds(text)).transpose()?;
    let now = settings.clock.clock()();
    let rules = rules(matches, settings, now)?;
    let projects = registered(settings, rules.host.as_ref())?;
    let views = Views::new(rules, &projects);
    let paths: Vec<PathBuf> = matches.get_many("files").unwrap_or_default().cloned().collect();
    let files = files::files(&paths).context("cannot read a directory")?;
    if files.is_empty() {
        bail!("no file to read: the directory has none");
    }
    let mut run =
        Run { summary: Summary::default(), bytes: BytesRead::default(), failed: 0, bar: progress_bar(&files) };
    let started = Instant::now();
    for (index, path) in files.iter().enumerate() {
        run.read(index, path, format.as_ref(), utc_offset, &views);
    }
    run.bar.finish_and_clear();
    print(&run.summary, &files, started.elapsed());
    Ok(if run.failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One run over all files.
struct Run {
    summary: Summary,
    bytes: BytesRead,
    /// Files that were not read, or not to their end.
    failed: usize,
    bar: ProgressBar,
}

impl Run {
    fn read(&mut self, file: usize, path: &Path, format: Option<&Format>, utc_offset: Option<i32>, views: &Views<'_>) {
        let name = path.display();
        let source = match files::open(path, &self.bytes) {
            Ok(source) => source,
            Err(error) => {
                self.bar.suspend(|| complain!("{name}: {error}"));
                self.failed += 1;
                return;
            }
        };
        let (summary, bar, bytes) = (&mut self.summary, &self.bar, &self.bytes);
        let read = read_lines(source, format, utc_offset, views, |line, outcome| {
            summary.add(&outcome, Place { file, line });
            if summary.lines.is_multiple_of(PROGRESS_LINES) {
                bar.set_position(bytes.get());
            }
        });
        match read {
            Ok(format) => self.bar.suspend(|| say!("{name}: {format}")),
            Err(error) => {
                self.bar.suspend(|| complain!("{name}: {error}"));
                self.failed += 1;
            }
        }
    }
}

/// Bytes of all files, with rate and time left, on a terminal. Standard input has no length.
fn progress_bar(files: &[PathBuf]) -> ProgressBar {
    let total: u64 = files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|file| file.len()).sum();
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
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

/// The registry as the endpoint on this data directory has it. Without one, `--host` is a project.
fn registered(settings: &ImportCommand, host: Option<&Host>) -> anyhow::Result<Projects> {
    let (projects, data) = (settings.admission.projects(), settings.data.path());
    let registry = RegistryCopy::open(data)?.index();
    if !registry.is_empty() || settings.admission.has_host_patterns() {
        projects.replace(registry);
        let names = projects::Snapshot::new(&data.join(projects::ADMITTED));
        projects.admit_known(names.load::<Vec<ProjectSlug>>());
        return Ok(projects);
    }
    let Some(host) = host else {
        bail!("{} has no project; name its data directory with --data, or a host with --host", data.display());
    };
    let project = WITHOUT_REGISTRY.parse().context("the name of the project")?;
    projects.replace(ProjectSnapshot::new(&BTreeMap::from([(project, vec![host.clone()])])));
    Ok(projects)
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

fn print(summary: &Summary, files: &[PathBuf], took: Duration) {
    let row = |count: u64, text: &str| say!("{count:>12}  {text}");
    say!("dry run: nothing was counted");
    row(summary.lines, "lines");
    if let Some((first, last)) = summary.hours {
        let hour = |hour: Hour| hour.start().format("%Y-%m-%dT%H:00Z").to_string();
        say!("views from the hour {} to the hour {}", hour(first), hour(last));
    }
    row(summary.views, "views of people");
    if summary.views_without_agent > 0 {
        row(
            summary.views_without_agent,
            "  of them without a user agent in the format: robots cannot be told from people",
        );
    }
    if summary.views_without_client > 0 {
        row(summary.views_without_client, "  of them without an IP address in the log: views without visitors");
    }
    row(summary.robot_views(), "views of robots");
    for (kind, count) in &summary.robots {
        let kind = BotClass::try_from(*kind).unwrap_or(BotClass::OtherBot);
        row(*count, &format!("  {}", kind.class_name()));
    }
    row(summary.not_counted.values().sum(), "not counted");
    for (reason, count) in &summary.not_counted {
        row(*count, &format!("  {reason}"));
    }
    row(summary.not_read.values().map(|lines| lines.count).sum(), "not read");
    for (reason, lines) in &summary.not_read {
        let (file, line) = (files[lines.first.file].display(), lines.first.line);
        let first =
            if *reason == NotRead::Directive { String::new() } else { format!(" (first: line {line} of {file})") };
        row(lines.count, &format!("  {reason}{first}"));
    }
    let seconds = took.as_secs_f64().max(0.001);
    say!("{:.1} s, {:.0} lines a second", took.as_secs_f64(), summary.lines as f64 / seconds);
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
