//! The one registry of settings. Each is a flag `--name`, an environment variable `HEADCOUNT_NAME` and a TOML key
//! `name`, in that order of precedence, before its default.
//!
//! A concern is one struct, whose fields are named like the settings. A command takes the structs that it needs ([`commands`]).

mod aggregation;
mod beacons;
mod clickhouse;
pub mod commands;
pub mod features;
pub mod kafka_settings;
pub mod listen;
mod mail_settings;
mod paths;
pub mod privacy_settings;
mod report_settings;
mod source;
pub mod store;
mod values;

#[cfg(feature = "mail")]
pub use mail_settings::MailSettings;
pub use source::{CommandLine, Origins, last, parse};

use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use commands::AllSettings;
use std::fmt::Write;

/// Settings that the help of a command with many settings shows. docs/configuration.md has all.
const IN_HELP: [&str; 24] = [
    "data",
    "listen",
    "metrics_listen",
    "trusted_proxy",
    "country_header",
    "host_pattern",
    "ignore_networks",
    "script_path",
    "beacon_path",
    "public_url",
    "visitor_period",
    "small_cell_floor",
    "close_after_hours",
    "retention_months",
    "log_retention_hours",
    "journal_bytes",
    "kafka_bootstrap",
    "kafka_topic",
    "kafka_group",
    "clickhouse_url",
    "clickhouse_database",
    "smtp_url",
    "mail_from",
    "log",
];
/// Settings up to which the help of a command shows all.
const SHORT_HELP_MAX: usize = 14;

/// The static declarations of all settings, in the order in which `headcount config` prints them.
fn declared() -> Vec<Arg> {
    let command = AllSettings::augment_args(Command::new("all"));
    command.get_arguments().filter(|arg| arg.get_id() != "config").cloned().collect()
}

/// The names of all settings.
fn names() -> Vec<String> {
    declared().iter().map(|arg| arg.get_id().to_string()).collect()
}

fn variable(name: &str) -> String {
    format!("HEADCOUNT_{}", name.to_ascii_uppercase())
}

/// Adds the settings `T` to a command, with their variables. A flag of any other setting is accepted and has no effect, so that one set of flags
/// fits all commands.
pub fn with<T: Args>(command: Command) -> Command {
    let own: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    let about = command.get_about().cloned().unwrap_or_default();
    let command = T::augment_args(command).about(about).long_about(None);
    let is_setting = |arg: &Arg| !own.contains(&arg.get_id().to_string());
    let has_many = command.get_arguments().filter(|arg| is_setting(arg) && !arg.is_hide_set()).count() > SHORT_HELP_MAX;
    let shows = |arg: &Arg| arg.get_id() == "config" || IN_HELP.iter().any(|name| arg.get_id() == *name);
    let mut others = declared();
    others.retain(|other| command.get_arguments().all(|arg| arg.get_id() != other.get_id()));
    let command = command.mut_args(|arg| match () {
        () if !is_setting(&arg) => arg,
        () if has_many && !shows(&arg) => source::with_variable(arg).hide(true),
        () => source::with_variable(arg),
    });
    command.args(others.into_iter().map(unused)).after_help(
        "A setting is also a variable HEADCOUNT_NAME and a TOML key. docs/configuration.md explains all; `headcount config` prints them.",
    )
}

/// A setting that the command does not use.
fn unused(arg: Arg) -> Arg {
    let long = arg.get_id().to_string().replace('_', "-");
    Arg::new(arg.get_id().clone()).long(long).action(ArgAction::Append).hide(true)
}

/// One line a setting: `name = value  # origin`. Secrets and credentials within URLs are not shown.
pub fn describe(command_line: &CommandLine) -> String {
    let matches = last(&command_line.matches);
    let mut out = String::new();
    for setting in declared() {
        let name = setting.get_id().as_str();
        let origin = command_line.origins.of(name);
        if setting.is_hide_set() && origin == "default" {
            continue;
        }
        let raw = matches.get_raw(name).into_iter().flatten();
        let shown: Vec<String> = raw.map(|text| format!("{:?}", shown(&setting, &text.to_string_lossy()))).collect();
        let shown = match (setting.get_action(), shown.as_slice()) {
            (ArgAction::Append, values) => format!("[{}]", values.join(", ")),
            (_, [one]) => one.clone(),
            (_, _) => "\"\"".to_owned(),
        };
        let _ = writeln!(out, "{name:<24} = {shown:<24} # {origin}");
    }
    out
}

/// A value without secrets.
fn shown(setting: &Arg, text: &str) -> String {
    match text.split_once("://") {
        _ if text.is_empty() => String::new(),
        _ if setting.is_hide_env_values_set() => "(not shown)".to_owned(),
        _ if setting.get_id() == "kafka_property" => kafka_settings::redacted(text),
        Some(_) if text.contains('?') => format!("{}?(not shown)", text.split('?').next().unwrap_or("")),
        Some((scheme, rest)) if text.contains('@') => {
            format!("{scheme}://(not shown)@{}", rest.rsplit('@').next().unwrap_or(""))
        }
        _ => text.to_owned(),
    }
}

/// Logs a warning for each setting that the next release refuses.
pub fn warn_of_removed(origins: &Origins) {
    for (name, instead) in report_settings::REMOVED {
        let origin = origins.of(name);
        if origin != "default" {
            tracing::warn!("setting `{name}` ({origin}) is removed in the next release: {instead}");
        }
    }
}

/// The settings `T` of the parsed command.
///
/// # Errors
/// The command does not take them.
pub fn take<T: Args>(matches: &ArgMatches) -> anyhow::Result<T> {
    Ok(T::from_arg_matches(matches)?)
}

#[cfg(test)]
mod tests;
