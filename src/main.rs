//! headcount: counts page views and visitors of documentation sites without being able to tell who the visitors are.
//!
//! `main` only dispatches: command line → role. Roles live in the crates `ingest`, `aggregate`, `query`;
//! what joins them on one machine in [`serve`] and [`embedded`].

// What only an absent role calls is no mistake.
#![cfg_attr(not(all(feature = "kafka", feature = "mail")), allow(dead_code))]
// `say!` and `complain!` instead: a reader of the output that went away is no reason to panic.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod audit;
mod backup;
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
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use config::Config;
use std::process::ExitCode;

/// A beacon makes some thirty small allocations; this allocator makes them cheaper than the system's, and returns what
/// a burst took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn command() -> Command {
    let slug = || Arg::new("slug").required(true).value_name("SLUG").help("The project's name, such as `sphinx`");
    Command::new("headcount")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Page views and visitors of documentation sites, without being able to tell who the visitors are")
        .after_help(
            "Start on one machine:\n  headcount serve --data ./data\n  \
             headcount project add docs --host docs.example.org --data ./data\n\n\
             Every setting is a flag, an environment variable HEADCOUNT_… and a key of a TOML file; \
             `headcount config` prints what is in force and why.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("serve")
                .about("Run everything on one machine: beacon endpoint, aggregator, reports and ClickHouse")
                .arg(switch("recover", RECOVER))
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("ingest")
                .about("Take beacons and write them to Kafka")
                .arg(switch("recover", RECOVER_REGISTRY))
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("aggregate")
                .about("Fold page views from Kafka into ClickHouse")
                .arg(switch("recover", RECOVER_LEDGER))
                .args(config::arguments()),
        )
        .subcommand(Command::new("query").about("Serve reports from ClickHouse").args(config::arguments()))
        .subcommand(
            Command::new("engine")
                .about("Run the embedded ClickHouse alone, for the other roles on this machine")
                .arg(
                    Arg::new("engine-port")
                        .long("engine-port")
                        .value_name("PORT")
                        .value_parser(clap::value_parser!(u16))
                        .help("Port on 127.0.0.1; with one, the URL is the same at every start [default: a free one]"),
                )
                .arg(
                    Arg::new("until-eof")
                        .long("until-eof")
                        .action(ArgAction::SetTrue)
                        .help("Stop when standard input ends: with the process that holds it, however that dies"),
                )
                .args(config::arguments()),
        )
        .subcommand(topic_command())
        .subcommand(
            Command::new("journal")
                .about("Save what can be read of a damaged journal")
                .subcommand_required(true)
                .subcommand(
                    Command::new("salvage")
                        .about("Write what can be read of a journal to a new file; lost records are marked as holes")
                        .arg(path_argument("source", "SOURCE", "The damaged file, such as DATA/journal.redb; it is not changed"))
                        .arg(path_argument("target", "TARGET", "The new file, which must not exist")),
                ),
        )
        .subcommand(
            Command::new("backup")
                .about("Back up figures and registry of a running service to a new directory; never the visitor key")
                .arg(path_argument("target", "TARGET", "The new directory, which must not exist"))
                .arg(switch("without-sketches", WITHOUT_SKETCHES))
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("restore")
                .about("Restore a backup into a data directory without figures, and close and remove what is past its time")
                .arg(path_argument("target", "TARGET", "The directory that `headcount backup` wrote"))
                .arg(switch("show", "Print what the backup contains and how old it is, and restore nothing"))
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("rebuild")
                .about("Recompute from the log what the figures must be, without the aggregator")
                .arg(
                    Arg::new("from-log")
                        .long("from-log")
                        .action(ArgAction::SetTrue)
                        .required(true)
                        .help("Read the topic, or the journal of a service, running or stopped; nothing is changed"),
                )
                .arg(format_flag())
                .arg(Arg::new("project").long("project").value_name("SLUG").help("Tell of this project only"))
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("audit")
                .about("Compare ClickHouse with the log, row by row, beside the running service or without it; ends with 1 where they differ")
                .arg(format_flag())
                .arg(
                    Arg::new("wait")
                        .long("wait")
                        .value_name("SECONDS")
                        .help("Wait so long at most until all that is in the log is folded"),
                )
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("keys")
                .about("Make, show or take over the visitor key of an endpoint")
                .subcommand_required(true)
                .subcommand(Command::new("init").about("Make a key where there is none").args(config::arguments()))
                .subcommand(
                    Command::new("show")
                        .about("Print the key's period and fingerprint, never the key")
                        .args(config::arguments()),
                )
                .subcommand(
                    Command::new("import")
                        .about("Take over another node's key, so that both count a visitor once")
                        .arg(Arg::new("file").required(true).value_name("FILE").help("A copy of the other node's key file"))
                        .args(config::arguments()),
                ),
        )
        .subcommand(
            Command::new("report")
                .about("Write a project's report, with the same figures as the page")
                .arg(slug())
                .arg(Arg::new("span").value_name("YYYY-MM[..YYYY-MM]").help("A month, or months from one to another [default: last month]"))
                .arg(
                    Arg::new("format")
                        .long("format")
                        .value_name("FORMAT")
                        .value_parser(report::FORMATS)
                        .default_value("md")
                        .help("Markdown, one HTML file, CSV (a row a figure) or JSON"),
                )
                .args(config::arguments()),
        )
        .subcommand(import::arguments().args(config::arguments()))
        .subcommand(
            Command::new("close")
                .about("Close months that are over: their figures stay as numbers, their sketches are removed")
                .long_about(
                    "Close months that are over: their figures stay as numbers, their sketches are removed.\n\n\
                     Aggregators do this by themselves, `close_after_hours` after a month's end and once they have counted all that \
                     was accepted until then. Before that, this command says what the close waits for. Safe to run at any time, twice, \
                     and on any machine.",
                )
                .arg(
                    Arg::new("force")
                        .long("force")
                        .action(ArgAction::SetTrue)
                        .help("Close months that are due without waiting for records that are accepted and not counted yet; their visitors are then missing for good"),
                )
                .arg(Arg::new("month").long("month").value_name("YYYY-MM").help("This month [default: all that are due]"))
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("project")
                .about("Register the projects whose pages are counted")
                .subcommand_required(true)
                .subcommand(
                    Command::new("add")
                        .about("Register a project, or add hosts to one")
                        .arg(slug())
                        .arg(
                            Arg::new("host")
                                .long("host")
                                .value_name("HOST")
                                .action(ArgAction::Append)
                                .required(true)
                                .help(
                                    "A host its pages are on, such as docs.example.org or localhost:8000; repeatable",
                                ),
                        )
                        .arg(switch("public", "Let anybody read its reports"))
                        .arg(many("ignore-network", "CIDR", "Do not count views from this network; repeatable"))
                        .args(config::arguments()),
                )
                .subcommand(
                    Command::new("list").about("List the projects with what is set of each").args(config::arguments()),
                )
                .subcommand(
                    Command::new("set")
                        .about("Say who may read a project's reports, its time zone, who gets them by mail, and whose views are not counted")
                        .arg(slug())
                        .arg(switch("public", "Let anybody read its reports"))
                        .arg(switch("private", "Let only those read them who have a token").conflicts_with("public"))
                        .arg(
                            Arg::new("time-zone").long("time-zone").value_name("TZ").help(
                                "Time zone of the hours of the week, such as Europe/Berlin; empty for UTC",
                            ),
                        )
                        .arg(many("mail", "ADDRESS", "Send its monthly report to this address; repeatable"))
                        .arg(many("no-mail", "ADDRESS", "Send it there no longer; repeatable"))
                        .arg(many("ignore-network", "CIDR", "Do not count views from this network; repeatable"))
                        .arg(many("no-ignore-network", "CIDR", "Count them again; repeatable"))
                        .args(config::arguments()),
                )
                .subcommand(
                    Command::new("alias")
                        .about("Say what other counters call a project, whose scripts then need no change; without a name, list them")
                        .arg(slug())
                        .arg(many("umami", "UUID", "Its website id in Umami; repeatable"))
                        .arg(many("plausible", "DOMAIN", "Its domain in Plausible; repeatable"))
                        .arg(many("goatcounter", "CODE", "Its code in GoatCounter, also the end of its path /count/CODE; repeatable"))
                        .arg(many("readthedocs", "SLUG", "Its slug in Read the Docs; repeatable"))
                        .arg(switch("list", "List its aliases").conflicts_with("remove"))
                        .arg(switch("remove", "Remove these aliases"))
                        .args(config::arguments()),
                )
                .subcommand(
                    Command::new("remove")
                        .about("Stop counting a project; its figures stay")
                        .arg(slug())
                        .args(config::arguments()),
                )
                .subcommand(
                    Command::new("rules")
                        .about("Print or change how a project's paths are stored; without options, print the rules")
                        .arg(slug())
                        .args(rules_arguments())
                        .args(config::arguments()),
                )
                .subcommand(
                    Command::new("erase")
                        .about("Stop counting a project, and remove all its figures; lists them first and asks for the slug again")
                        .arg(slug())
                        .arg(switch("yes", "Do not ask; for scripts"))
                        .args(config::arguments()),
                ),
        )
        .subcommand(token_command())
        .subcommand(
            Command::new("config")
                .about("Print the settings in force with their origin (no secrets)")
                .args(config::arguments()),
        )
        .subcommand(embedded::engine::ChildArgs::augment_args(Command::new("engine-child").hide(true)))
}

fn path_argument(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).value_name(value).value_parser(clap::value_parser!(std::path::PathBuf)).help(help)
}
const WITHOUT_SKETCHES: &str = "Leave out the visitor sketches: for backups that are kept longer than 72 hours after a month. Visitors of months that are not closed are then missing";
/// Help of `--recover`, which is given once, after ClickHouse's data were lost or replaced by an older copy.
const RECOVER: &str = "After a loss of ClickHouse's data: restore the registry from its copy, and go on although the journal no longer holds all that is missing";
const RECOVER_REGISTRY: &str = "After a loss of ClickHouse's data: restore the registry from this endpoint's copy";
const RECOVER_LEDGER: &str =
    "After a loss of ClickHouse's data: go on although the topic no longer holds all that is missing";

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn token_command() -> Command {
    Command::new("token")
        .about("Make, list and revoke the tokens that open reports")
        .subcommand_required(true)
        .subcommand(
            Command::new("create")
                .about("Make a token and print it, this once")
                .arg(
                    Arg::new("project")
                        .long("project")
                        .value_name("SLUG")
                        .help("It opens the reports of this project")
                        .conflicts_with("admin"),
                )
                .arg(switch("admin", "It opens the reports of all projects"))
                .group(clap::ArgGroup::new("opens").args(["project", "admin"]).required(true))
                .arg(
                    Arg::new("label")
                        .long("label")
                        .value_name("TEXT")
                        .help("What it is for, as `headcount token list` shows it"),
                )
                .args(config::arguments()),
        )
        .subcommand(
            Command::new("list").about("List the tokens by their ids, never the tokens").args(config::arguments()),
        )
        .subcommand(
            Command::new("revoke")
                .about("Make a token open nothing any more, and end its sessions")
                .arg(Arg::new("id").required(true).value_name("ID").help("Its id, as `headcount token list` shows it"))
                .args(config::arguments()),
        )
}

fn many(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).action(ArgAction::Append).help(help)
}

fn rules_arguments() -> Vec<Arg> {
    let ending = |name, help| Arg::new(name).long(name).value_name("RULE").value_parser(["keep", "strip"]).help(help);
    vec![
        many("mask", "PATTERN", "Mask what * and ** match in these paths, such as /users/*/settings; repeatable"),
        many("remove-mask", "PATTERN", "Remove this mask; repeatable"),
        many(
            "keep",
            "PATTERN",
            "Keep these paths although they look like ids or tokens, such as /commit/*; repeatable",
        ),
        many("remove-keep", "PATTERN", "Keep them no longer; repeatable"),
        many(
            "query-parameter",
            "NAME",
            "A query parameter that tells pages apart (data-query in the script's tag sends them); repeatable",
        ),
        many("remove-query-parameter", "NAME", "Remove this parameter; repeatable"),
        ending("trailing-slash", "strip: store /page/ as /page; keep (default): as two pages"),
        ending("html", "strip: store /page.html as /page; keep (default): as two pages"),
        switch("clear", "Remove all rules first"),
    ]
}

fn format_flag() -> Arg {
    Arg::new("format").long("format").value_name("FORMAT").value_parser(["text", "json"]).help("text (default) or json")
}

fn topic_command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("topic")
        .about("Make, check and mend the topic of page views")
        .subcommand_required(true)
        .subcommand(
            Command::new("ensure")
                .about("Make the topic if there is none, and check its settings")
                .args(config::arguments()),
        )
        .subcommand(Command::new("check").about("Check the topic's settings").args(config::arguments()))
        .subcommand(
            Command::new("reset")
                .about("Write the group's commits anew, with no aggregator running")
                .arg(flag("new-log", "The topic was made anew, or what is gone is given up: count from its beginning"))
                .arg(flag("from-ledger", "The topic is whole, the group's offsets are lost: restore them"))
                .group(clap::ArgGroup::new("how").args(["new-log", "from-ledger"]).required(true))
                .arg(Arg::new("partition").long("partition").value_name("N").help("Only this partition"))
                .args(config::arguments()),
        )
}

/// A panic tells where, and only what was written into the program: a formatted message may hold somebody's address or agent (slicing a
/// string prints the string).
fn tell_no_values() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let said = panic.payload().downcast_ref::<&'static str>().copied();
        let said = said.unwrap_or("its message has values, and is not printed");
        // Through the log, so that a place where a panic is caught again and again (redb on a damaged file) is one line with a count.
        if tracing::dispatcher::has_been_set() {
            tracing::error!("headcount panicked at {place}: {said}");
        } else {
            complain!("headcount panicked at {place}: {said}");
        }
    }));
}

fn main() -> ExitCode {
    tell_no_values();
    let matches = command().get_matches();
    // Reports are for others to read; what else is written is not.
    if !matches!(matches.subcommand_name(), Some("report" | "config")) {
        shell::keep_files_private();
    }
    // Before any runtime: the engine takes this thread and makes its own.
    if let Some(("engine-child", matches)) = matches.subcommand() {
        return match embedded::engine::ChildArgs::from_arg_matches(matches) {
            Ok(args) => embedded::engine::child_main(&args),
            Err(error) => error.exit(),
        };
    }
    match run(&matches).and_then(|code| shell::output::finish().map(|()| code)) {
        Ok(code) => code,
        Err(error) => {
            // One line per cause: what was attempted, then why it failed.
            let causes = shell::causes(&error);
            complain!("headcount: {}", causes[0]);
            causes[1..].iter().for_each(|cause| complain!("  because: {cause}"));
            // An audit that could not be made is no audit that found differences.
            if matches.subcommand_name() == Some("audit") { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Whoever reads a report, or sends a beacon, goes before who works off a backlog. Threads inherit it.
fn yield_to_others() {
    const NICENESS: i32 = 15;
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "cannot yield to others");
    }
    // Where the kernel shares out processors by sessions first (autogroup), that counts within a session only, and a service is one of
    // its own. A session of others is not ours to slow down.
    if !std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| leads_its_session(&stat)) {
        return;
    }
    // The kernel takes one such wish each tenth of a second, from all of the machine.
    let mut tries = 20;
    while let Err(error) = std::fs::write("/proc/self/autogroup", NICENESS.to_string()) {
        tries -= 1;
        if error.kind() == std::io::ErrorKind::WouldBlock && tries > 0 {
            std::thread::sleep(std::time::Duration::from_millis(u64::from(60 + std::process::id() % 80)));
            continue;
        }
        // A kernel without autogroups has none.
        if error.kind() != std::io::ErrorKind::NotFound {
            tracing::info!(%error, "cannot have the session yield to others");
        }
        break;
    }
}

/// By a process's `/proc/<pid>/stat`: its id is the 1st field, its session's the 4th after the name, see proc(5). In a container whose
/// session began outside of it the kernel calls the session 0, which the system call's wrapper in rustix 1.1 takes for impossible.
fn leads_its_session(stat: &str) -> bool {
    let id = stat.split_whitespace().next();
    // The name is in parentheses and may have any character.
    let session = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(3));
    id.is_some() && id == session
}

fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime");
    match matches.subcommand() {
        Some(("rebuild", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            return runtime()?.block_on(audit::rebuild(matches, &config));
        }
        Some(("audit", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            return runtime()?.block_on(audit::audit(matches, &config));
        }
        Some(("import", matches)) => return import::command(matches, &Config::load(matches)?),
        Some(("serve", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            runtime()?.block_on(serve::serve(config, matches.get_flag("recover")))
        }
        #[cfg(not(feature = "kafka"))]
        Some((command @ ("ingest" | "aggregate" | "topic"), _)) => Err(config::features::missing(command, "kafka")),
        #[cfg(feature = "kafka")]
        Some(("ingest", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            runtime()?.block_on(roles::ingest::run(config, matches.get_flag("recover")))
        }
        #[cfg(feature = "kafka")]
        Some(("aggregate", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            yield_to_others();
            runtime()?.block_on(roles::aggregate::run(config, matches.get_flag("recover")))
        }
        Some(("query", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            runtime()?.block_on(roles::query::run(config))
        }
        Some(("engine", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            let port = matches.get_one::<u16>("engine-port").copied();
            runtime()?.block_on(roles::engine::run(&config, port, matches.get_flag("until-eof")))
        }
        #[cfg(feature = "kafka")]
        Some(("topic", matches)) => {
            let (action, matches) = matches.subcommand().context("no topic command given")?;
            let config = Config::load(matches)?;
            runtime()?.block_on(topic::command(action, matches, &config))
        }
        Some(("backup", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            runtime()?.block_on(backup::command(matches, &config))
        }
        Some(("restore", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            runtime()?.block_on(backup::restore::command(matches, &config))
        }
        Some(("journal", matches)) => journal::command(matches),
        Some(("project", matches)) => {
            let (action, matches) = matches.subcommand().context("no project command given")?;
            let config = Config::load(matches)?;
            runtime()?.block_on(projects::command(action, matches, &config))
        }
        Some(("token", matches)) => {
            let (action, matches) = matches.subcommand().context("no token command given")?;
            let config = Config::load(matches)?;
            runtime()?.block_on(tokens::command(action, matches, &config))
        }
        Some(("keys", matches)) => {
            let (action, matches) = matches.subcommand().context("no keys command given")?;
            keys::command(action, matches, &Config::load(matches)?)
        }
        Some(("close", matches)) => {
            let config = Config::load(matches)?;
            config.start_logging()?;
            runtime()?.block_on(close::command(matches, &config))
        }
        Some(("report", matches)) => {
            let config = Config::load(matches)?;
            runtime()?.block_on(report::command(matches, &config))
        }
        Some(("config", matches)) => {
            shell::output::print(format_args!("{}", Config::load(matches)?.describe()));
            Ok(())
        }
        other => anyhow::bail!("no such command: {other:?}"),
    }?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::leads_its_session;

    #[test]
    fn a_session_is_led_by_whom_it_is_called_after() {
        let cases = [
            ("1503 (headcount) S 1 1503 1503 0 -1 4194560 89", true),
            ("1503 (head) 7 (count) S 1 1503 1503 0 -1", true),
            ("1503 (headcount) S 1502 1503 1502 34816 -1", false),
            // Of a container whose session began outside.
            ("1 (headcount) R 0 0 0 0 -1 4194560 89", false),
            ("1503 (headcount) S 1", false),
            ("", false),
        ];
        for (stat, expected) in cases {
            assert_eq!(leads_its_session(stat), expected, "{stat}");
        }
    }
}
