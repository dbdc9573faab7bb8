//! headcount: counts page views and visitors of documentation sites without being able to tell who the visitors are.
//!
//! `main` only dispatches: command line → role. Roles are implemented in the crates `ingest`, `aggregate` and `query`; [`serve`] and [`embedded`]
//! combine them on one machine.

// Code that only an absent role calls is not an error.
#![cfg_attr(not(all(feature = "kafka", feature = "mail")), allow(dead_code))]
// `say!` and `complain!` instead: a closed pipe is no reason to panic.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

#[cfg(test)]
#[allow(dead_code, reason = "the load tester uses the rest")]
#[path = "../loadtest/src/random.rs"]
mod random;

mod audit;
mod backup;
mod cli;
mod close;
mod config;
mod database;
mod embedded;
mod erased;
mod health;
mod http;
mod import;
mod journal;
#[cfg(feature = "kafka")]
mod kafka;
mod keys;
#[cfg(feature = "mail")]
mod mail;
mod metrics;
mod privacy;
mod projects;
mod registry;
mod report;
mod retention;
mod roles;
mod serve;
mod shell;
mod tokens;
#[cfg(feature = "kafka")]
mod topic;

use anyhow::Context;
use clap::{ArgMatches, FromArgMatches};
#[cfg(feature = "kafka")]
use config::commands::{AggregateCommand, IngestCommand, TopicCommand, TopicResetCommand};
use config::commands::{
    AllSettings, AuditCommand, CloseCommand, KeysCommand, ProjectCommand, QueryCommand, ReportCommand, RestoreCommand,
    ServeCommand, StoreCommand,
};
use config::store::LoggingSettings;
use config::{CommandLine, take};
use std::ffi::OsString;
use std::process::ExitCode;

/// A beacon makes some thirty small allocations; this allocator makes them cheaper than the system's, and returns memory after a burst.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A panic reports its location and only text that is part of the program: a formatted message may contain an IP address or a user agent (slicing a
/// string prints the string).
fn tell_no_values() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let said = panic.payload().downcast_ref::<&'static str>().copied();
        let said = said.unwrap_or("its message has values, and is not printed");
        // Logged, so that a panic that is caught repeatedly at one place (redb on a damaged file) is one line with a count.
        if tracing::dispatcher::has_been_set() {
            tracing::error!("headcount panicked at {place}: {said}");
        } else {
            complain!("headcount panicked at {place}: {said}");
        }
    }));
}

fn main() -> ExitCode {
    tell_no_values();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Before any runtime is started: the engine takes this thread and creates its runtime.
    if arguments.get(1).is_some_and(|command| command == "engine-child") {
        let matches = cli::command().get_matches_from(arguments);
        shell::keep_files_private();
        return match matches.subcommand().map(|(_, matches)| embedded::engine::ChildArgs::from_arg_matches(matches)) {
            Some(Ok(args)) => embedded::engine::child_main(&args),
            Some(Err(error)) => error.exit(),
            None => ExitCode::FAILURE,
        };
    }
    let is_audit = arguments.get(1).is_some_and(|command| command == "audit");
    let parsed = config::parse(cli::command(), arguments);
    match parsed.and_then(|line| run(&line)).and_then(|code| shell::output::finish().map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            // One line per cause: first the attempt, then why it failed.
            let causes = shell::causes(&error);
            complain!("headcount: {}", causes[0]);
            causes[1..].iter().for_each(|cause| complain!("  because: {cause}"));
            // An audit that failed differs from an audit that found differences.
            if is_audit { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(line: &CommandLine) -> anyhow::Result<ExitCode> {
    let (name, matches) = line.matches.subcommand().context("no command given")?;
    // Reports are written for other users to read; other output is not.
    if !matches!(name, "report" | "config") {
        shell::keep_files_private();
    }
    let leaf = config::last(matches);
    let action = matches.subcommand_name().unwrap_or_default();
    match name {
        "rebuild" | "audit" => return audited(name, line, leaf),
        "serve" | "ingest" | "aggregate" | "query" | "engine" => role(name, line, leaf)?,
        #[cfg(not(feature = "kafka"))]
        "topic" => return Err(config::features::missing(name, "kafka")),
        #[cfg(feature = "kafka")]
        "topic" if action == "reset" => block_on(topic::reset(leaf, &take::<TopicResetCommand>(leaf)?))?,
        #[cfg(feature = "kafka")]
        "topic" => block_on(topic::command(action, &take::<TopicCommand>(leaf)?))?,
        "backup" => {
            let settings: StoreCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            block_on(backup::command(leaf, &settings.store))?;
        }
        "restore" => {
            let settings: RestoreCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            block_on(backup::restore::command(leaf, &settings))?;
        }
        "close" => {
            let settings: CloseCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            block_on(close::command(leaf, &settings))?;
        }
        "import" => return import::command(action, leaf, |work| block_on(work)),
        "journal" => journal::command(leaf)?,
        "project" => block_on(projects::command(action, leaf, &take::<ProjectCommand>(leaf)?))?,
        "token" => block_on(tokens::command(action, leaf, &take::<StoreCommand>(leaf)?.store))?,
        "keys" => keys::command(action, leaf, &take::<KeysCommand>(leaf)?)?,
        "report" => block_on(report::command(leaf, &take::<ReportCommand>(leaf)?))?,
        "config" => {
            // Invalid combinations of settings are errors here, too.
            take::<AllSettings>(leaf)?.serve.check()?;
            shell::output::print(format_args!("{}", config::describe(line)));
        }
        other => anyhow::bail!("no such command: {other:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a role until it ends.
fn role(name: &str, line: &CommandLine, leaf: &ArgMatches) -> anyhow::Result<()> {
    match name {
        "serve" => {
            let settings: ServeCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            block_on(serve::serve(settings, leaf.get_flag("recover")))
        }
        "query" => {
            let settings: QueryCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            block_on(roles::query::run(settings))
        }
        "engine" => {
            let settings: StoreCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            let port = leaf.get_one::<u16>("engine-port").copied();
            block_on(roles::engine_child::run(&settings.store, port, leaf.get_flag("until-eof")))
        }
        #[cfg(feature = "kafka")]
        "ingest" => {
            let settings: IngestCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            block_on(roles::ingest::run(settings, leaf.get_flag("recover")))
        }
        #[cfg(feature = "kafka")]
        _ => {
            let settings: AggregateCommand = take(leaf)?;
            start_logging(&settings.logging, line)?;
            shell::priority::yield_to_others();
            block_on(roles::aggregate::run(settings, leaf.get_flag("recover")))
        }
        #[cfg(not(feature = "kafka"))]
        _ => Err(config::features::missing(name, "kafka")),
    }
}

/// Runs `headcount rebuild` or `headcount audit`, whose exit code shows whether there are differences.
fn audited(name: &str, line: &CommandLine, leaf: &ArgMatches) -> anyhow::Result<ExitCode> {
    let settings: AuditCommand = take(leaf)?;
    start_logging(&settings.logging, line)?;
    if name == "rebuild" {
        return block_on(audit::rebuild(leaf, &settings));
    }
    block_on(audit::audit(leaf, &settings))
}

fn start_logging(logging: &LoggingSettings, line: &CommandLine) -> anyhow::Result<()> {
    logging.start()?;
    config::warn_of_removed(&line.origins);
    Ok(())
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the async runtime")?.block_on(work)
}
