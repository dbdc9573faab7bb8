//! Where values come from. The first of flag, environment variable, file, common variable and default that has a value wins.
//!
//! The command line is parsed twice: as text, which finds the file and the origin of each value, then with the file's values as defaults, which
//! gives each setting its type.

use super::paths::PathSettings;
use super::{declared, features, names, variable};
use anyhow::{Context, anyhow, bail};
use clap::builder::{Resettable, ValueParser};
use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use schemas::paths::ServedPath;
use std::collections::BTreeMap;
use std::env::VarError;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables of other programs with the same meaning as a setting.
const COMMON_VARIABLES: [(&str, &str); 2] =
    [("clickhouse_url", "CLICKHOUSE_URL"), ("kafka_bootstrap", "KAFKA_BOOTSTRAP")];

/// Settings whose values no message repeats: a URL may have a password.
const WITHOUT_VALUE: [&str; 5] = ["clickhouse_url", "clickhouse_password", "smtp_url", "kafka_property", "public_url"];

/// A parsed command line whose settings are valid.
pub struct CommandLine {
    /// All of it. The last subcommand's matches have the settings.
    pub matches: ArgMatches,
    /// Where each value comes from.
    pub origins: Origins,
}

/// Where each setting's value comes from.
#[derive(Default)]
pub struct Origins {
    /// The last subcommand, as text.
    given: Option<ArgMatches>,
    path: Option<PathBuf>,
    file: BTreeMap<String, Vec<String>>,
}

/// Parses `arguments` with the settings of environment and file. Mistakes of usage end the process, as `clap` does.
///
/// # Errors
/// A setting is wrong, or the file cannot be read. The error names the setting and what is expected.
pub fn parse(command: Command, arguments: Vec<OsString>) -> anyhow::Result<CommandLine> {
    let names = names();
    let is_setting = |arg: &Arg| arg.get_id() == "config" || names.iter().any(|name| arg.get_id() == name.as_str());
    let as_text = |arg: Arg| if is_setting(&arg) { arg.value_parser(ValueParser::string()) } else { arg };
    let plain = map_arguments(command.clone(), &as_text);
    let given = last(&plain.try_get_matches_from(&arguments).unwrap_or_else(|error| error.exit())).clone();
    check_variables(&given, &names)?;
    let origins = Origins::find(given)?;
    let with_file = |arg: Arg| if is_setting(&arg) { origins.apply(arg) } else { arg };
    let typed = map_arguments(command, &with_file).try_get_matches_from(arguments);
    let matches = typed.or_else(|error| match origins.describe(&error, &names) {
        Some(described) => Err(described),
        None => error.exit(),
    })?;
    origins.check(last(&matches), &names)?;
    Ok(CommandLine { matches, origins })
}

/// The matches of the last subcommand.
pub fn last(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, matches)| last(matches))
}

/// Changes the arguments of all commands but hidden ones, which are no part of the interface.
fn map_arguments(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    if command.is_hide_set() {
        return command;
    }
    command.mut_args(change).mut_subcommands(|command| map_arguments(command, change))
}

fn set_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Refuses variables that are not UTF-8. They would count as unset otherwise.
fn check_variables(given: &ArgMatches, names: &[String]) -> anyhow::Result<()> {
    let own = names.iter().map(|name| (name.as_str(), variable(name)));
    let common = COMMON_VARIABLES.into_iter().map(|(setting, name)| (setting, name.to_owned()));
    for (setting, name) in own.chain(common).filter(|(setting, _)| given.try_contains_id(setting).is_ok()) {
        if matches!(std::env::var(&name), Err(VarError::NotUnicode(_))) {
            bail!("setting `{setting}` (environment {name}): expected text in UTF-8");
        }
    }
    Ok(())
}

impl Origins {
    fn find(given: ArgMatches) -> anyhow::Result<Self> {
        let text = |name: &str| given.try_get_one::<String>(name).ok().flatten();
        let Some(data) = text("data").filter(|_| given.try_contains_id("config").is_ok()) else {
            return Ok(Origins::default());
        };
        let path = match text("config") {
            Some(named) => Some(PathBuf::from(named)),
            None => Some(Path::new(data).join("headcount.toml")).filter(|path| path.exists()),
        };
        let file = path.as_deref().map_or_else(|| Ok(BTreeMap::new()), read_file)?;
        Ok(Origins { given: Some(given), path, file })
    }

    /// The values of the file, or of a variable that other programs have too.
    fn below_environment(&self, name: &str) -> Option<Vec<String>> {
        let common = || COMMON_VARIABLES.iter().find(|(setting, _)| *setting == name);
        self.file
            .get(name)
            .cloned()
            .or_else(|| common().and_then(|(_, name)| set_variable(name)).map(|text| vec![text]))
    }

    /// Makes the file's values the defaults.
    fn apply(&self, arg: Arg) -> Arg {
        let Some(mut values) = self.below_environment(arg.get_id().as_str()) else { return arg };
        if !takes_list(&arg) {
            values.truncate(1);
        }
        arg.default_values(values)
    }

    /// Where a setting's value comes from.
    pub fn of(&self, name: &str) -> String {
        let source = self.given.as_ref().and_then(|given| given.value_source(name));
        match source {
            Some(ValueSource::CommandLine) => format!("flag --{}", name.replace('_', "-")),
            Some(ValueSource::EnvVariable) => format!("environment {}", variable(name)),
            _ => self.below_flags(name),
        }
    }

    fn below_flags(&self, name: &str) -> String {
        if self.file.contains_key(name) {
            let path = self.path.as_ref().map_or_else(String::new, |path| path.display().to_string());
            return format!("file {path}");
        }
        let common = COMMON_VARIABLES.iter().find(|(setting, _)| *setting == name);
        match common.filter(|(_, variable)| set_variable(variable).is_some()) {
            Some((_, variable)) => format!("environment {variable}"),
            None => "default".to_owned(),
        }
    }

    /// A refused value with its setting, its origin and what is expected. None if it is no setting's.
    fn describe(&self, error: &clap::Error, names: &[String]) -> Option<anyhow::Error> {
        if error.kind() != ErrorKind::ValueValidation {
            return None;
        }
        let text = |kind| error.get(kind).map(ToString::to_string);
        let argument = text(ContextKind::InvalidArg)?;
        let name = argument.split([' ', '=']).next()?.trim_start_matches('-').replace('-', "_");
        let expected = std::error::Error::source(error)?;
        if !names.contains(&name) {
            return None;
        }
        let value = text(ContextKind::InvalidValue).unwrap_or_default();
        let is_shown = !WITHOUT_VALUE.contains(&name.as_str());
        let value = if is_shown { format!(" is {value:?}") } else { String::new() };
        Some(anyhow!("setting `{name}`{value} ({}): {expected}", self.of(&name)))
    }

    /// Checks what two settings decide together, and whether the program has the features that settings need.
    fn check(&self, matches: &ArgMatches, names: &[String]) -> anyhow::Result<()> {
        for name in names.iter().filter(|name| matches.try_contains_id(name).is_ok()) {
            if let Some(feature) = features::absent(name)
                && self.of(name) != "default"
            {
                bail!(
                    "setting `{name}` ({}) needs the feature `{feature}`, and this program was built without it",
                    self.of(name)
                );
            }
        }
        // Where the command does not use the setting, its value is a text.
        if let Ok(Some(_)) = matches.try_get_one::<ServedPath>("script_path") {
            PathSettings::from_arg_matches(matches)?.endpoint().map_err(|error| {
                let (script, beacon) = (self.of("script_path"), self.of("beacon_path"));
                anyhow!("settings `script_path` ({script}) and `beacon_path` ({beacon}): {error}")
            })?;
        }
        Ok(())
    }
}

fn takes_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// A setting's argument with its variable. An empty variable counts as unset, except where empty means off.
pub(super) fn with_variable(arg: Arg) -> Arg {
    let variable = variable(arg.get_id().as_str());
    let is_given = arg.get_id() == "metrics_listen" || set_variable(&variable).is_some();
    let hides_default = arg.get_default_values().first().is_none_or(|value| value.is_empty());
    let arg = arg.hide_env(true).hide_default_value(hides_default);
    if is_given { arg.env(variable) } else { arg.env(Resettable::Reset) }
}

fn read_file(path: &Path) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the settings in {}", path.display()))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // The error itself prints the line, which may have a password.
        let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        anyhow!("{} is not valid TOML: line {line}, column {column}", path.display())
    })?;
    let settings = declared();
    let value = |(name, value): (String, toml::Value)| {
        let Some(setting) = settings.iter().find(|arg| arg.get_id() == name.as_str()) else {
            bail!("{}: there is no setting `{name}`; `headcount config` lists them", path.display());
        };
        if value.is_array() && !takes_list(setting) {
            bail!("{}: setting `{name}`: expected one value, not a list", path.display());
        }
        let text = |value: &toml::Value| match value {
            toml::Value::String(text) => Ok(text.clone()),
            toml::Value::Integer(number) => Ok(number.to_string()),
            toml::Value::Float(number) => Ok(number.to_string()),
            toml::Value::Boolean(flag) => Ok(flag.to_string()),
            _ => bail!("{}: setting `{name}`: expected text or a number", path.display()),
        };
        let values = match &value {
            toml::Value::Array(items) => items.iter().map(text).collect::<anyhow::Result<Vec<_>>>()?,
            other => vec![text(other)?],
        };
        Ok((name, values))
    };
    table.into_iter().map(value).collect()
}
