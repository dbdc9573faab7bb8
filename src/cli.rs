//! The command line: commands and their own arguments. [`crate::config`] adds the settings that a command uses.

use crate::config::commands::{
    AggregateCommand, AllSettings, AuditCommand, CloseCommand, IngestCommand, KeysCommand, ProjectCommand,
    QueryCommand, ReportCommand, RestoreCommand, ServeCommand, StoreCommand, TopicCommand, TopicResetCommand,
};
use crate::config::with;
use crate::{embedded, import, report};
use clap::{Arg, ArgAction, ArgGroup, Args, Command, value_parser};
use std::path::PathBuf;

const WITHOUT_SKETCHES: &str = "Leave out the visitor sketches: for backups that are kept longer than 72 hours after a month. Visitors of months that are not closed are then missing";
/// Help of `--recover`, which is given once, after ClickHouse's data were lost or replaced by an older copy.
const RECOVER: &str = "After a loss of ClickHouse's data: restore the registry, and go on although records are missing";
const RECOVER_REGISTRY: &str = "After a loss of ClickHouse's data: restore the registry from this endpoint's copy";
const RECOVER_LEDGER: &str = "After a loss of ClickHouse's data: go on although records are missing";

/// The whole command line.
pub fn command() -> Command {
    Command::new("headcount")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Page views and visitors of documentation sites, without being able to tell who the visitors are")
        .after_help(
            "Start on one machine:\n  headcount serve --data ./data\n  \
             headcount project add docs --host docs.example.org --data ./data\n\n\
             Every setting is a flag, an environment variable HEADCOUNT_… and a key of a TOML file; \
             `headcount config` prints the active values and their origins.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(roles())
        .subcommand(topic())
        .subcommand(journal())
        .subcommands(backups())
        .subcommands(audits())
        .subcommand(keys())
        .subcommands(figures())
        .subcommand(import::arguments())
        .subcommand(project())
        .subcommand(token())
        .subcommand(with::<AllSettings>(
            Command::new("config").about("Print the active settings with their origin (no secrets)"),
        ))
        .subcommand(embedded::engine::ChildArgs::augment_args(Command::new("engine-child").hide(true)))
}

fn roles() -> [Command; 5] {
    let serve = Command::new("serve")
        .about("Run everything on one machine: beacon endpoint, aggregator, reports and ClickHouse")
        .arg(switch("recover", RECOVER));
    let ingest =
        Command::new("ingest").about("Take beacons and write them to Kafka").arg(switch("recover", RECOVER_REGISTRY));
    let aggregate = Command::new("aggregate")
        .about("Fold page views from Kafka into ClickHouse")
        .arg(switch("recover", RECOVER_LEDGER));
    let port = Arg::new("engine-port")
        .long("engine-port")
        .value_name("PORT")
        .value_parser(value_parser!(u16))
        .help("Port on 127.0.0.1; with one, the URL is the same at every start [default: a free one]");
    let engine = Command::new("engine")
        .about("Run the embedded ClickHouse alone, for the other roles on this machine")
        .arg(port)
        .arg(switch("until-eof", "Stop when standard input ends: with the process that holds it, however that dies"));
    // Side by side on one machine.
    let listens =
        |command: Command, operator: &'static str| command.mut_arg("metrics_listen", |arg| arg.default_value(operator));
    [
        with::<ServeCommand>(serve),
        with::<IngestCommand>(ingest),
        listens(with::<AggregateCommand>(aggregate), "127.0.0.1:9018"),
        listens(with::<QueryCommand>(Command::new("query").about("Serve reports from ClickHouse")), "127.0.0.1:9019")
            .mut_arg("listen", |arg| arg.default_value("127.0.0.1:8027")),
        with::<StoreCommand>(engine),
    ]
}

fn topic() -> Command {
    let reset = Command::new("reset")
        .about("Write the group's commits again, with no aggregator running")
        .arg(switch("new-log", "The topic was recreated, or lost records are given up: count from its beginning"))
        .arg(switch("from-ledger", "The topic is whole, the group's offsets are lost: restore them"))
        .group(ArgGroup::new("how").args(["new-log", "from-ledger"]).required(true))
        .arg(Arg::new("partition").long("partition").value_name("N").help("Only this partition"));
    Command::new("topic")
        .about("Create, check and fix the topic of page views")
        .subcommand_required(true)
        .subcommand(with::<TopicCommand>(
            Command::new("ensure").about("Create the topic if there is none, and check its settings"),
        ))
        .subcommand(with::<TopicCommand>(Command::new("check").about("Check the topic's settings")))
        .subcommand(with::<TopicResetCommand>(reset))
}

fn journal() -> Command {
    let salvage = Command::new("salvage")
        .about("Write what can be read of a journal to a new file; lost records are marked as holes")
        .arg(path("source", "SOURCE", "The damaged file, such as DATA/journal.redb; it is not changed"))
        .arg(path("target", "TARGET", "The new file, which must not exist"));
    Command::new("journal")
        .about("Save what can be read of a damaged journal")
        .subcommand_required(true)
        .subcommand(salvage)
}

fn backups() -> [Command; 2] {
    let backup = Command::new("backup")
        .about("Back up figures and registry of a running service to a new directory; never the visitor key")
        .arg(path("target", "TARGET", "The new directory, which must not exist"))
        .arg(switch("without-sketches", WITHOUT_SKETCHES));
    let restore = Command::new("restore")
        .about("Restore a backup into a data directory without figures, and close and remove what is past its time")
        .arg(path("target", "TARGET", "The directory that `headcount backup` wrote"))
        .arg(switch("show", "Print what the backup contains and how old it is, and restore nothing"));
    [with::<StoreCommand>(backup), with::<RestoreCommand>(restore)]
}

fn audits() -> [Command; 2] {
    let format = || {
        Arg::new("format")
            .long("format")
            .value_name("FORMAT")
            .value_parser(["text", "json"])
            .help("text (default) or json")
    };
    let from_log =
        switch("from-log", "Read the topic, or the journal of a service, running or stopped; nothing is changed");
    let rebuild = Command::new("rebuild")
        .about("Recompute from the log what the figures must be, without the aggregator")
        .arg(from_log.required(true))
        .arg(format())
        .arg(Arg::new("project").long("project").value_name("SLUG").help("Report this project only"));
    let audit = Command::new("audit")
        .about("Compare ClickHouse with the log, row by row, beside the running service or without it; ends with 1 where they differ")
        .arg(format())
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("SECONDS")
                .help("Wait so long at most until all that is in the log is folded"),
        );
    [with::<AuditCommand>(rebuild), with::<AuditCommand>(audit)]
}

fn keys() -> Command {
    let import = Command::new("import")
        .about("Take over another node's key, so that both count a visitor once")
        .arg(Arg::new("file").required(true).value_name("FILE").help("A copy of the other node's key file"));
    Command::new("keys")
        .about("Make, show or take over the visitor key of an endpoint")
        .subcommand_required(true)
        .subcommand(with::<KeysCommand>(Command::new("init").about("Make a key where there is none")))
        .subcommand(with::<KeysCommand>(
            Command::new("show").about("Print the key's period and fingerprint, never the key"),
        ))
        .subcommand(with::<KeysCommand>(import))
}

/// Commands about the figures of months.
fn figures() -> [Command; 2] {
    let format = Arg::new("format")
        .long("format")
        .value_name("FORMAT")
        .value_parser(report::FORMATS)
        .default_value("md")
        .help("Markdown, one HTML file, CSV (a row a figure) or JSON");
    let report = Command::new("report")
        .about("Write a project's report, with the same figures as the page")
        .arg(slug())
        .arg(
            Arg::new("span")
                .value_name("YYYY-MM[..YYYY-MM]")
                .help("A month, or months from one to another [default: last month]"),
        )
        .arg(format);
    let force = "Close months that are due without waiting for records that are accepted and not counted yet; their visitors are then missing \
                 for good";
    let close = Command::new("close")
        .about("Close finished months now: their figures stay as numbers, their sketches are removed; aggregators do this by themselves")
        .arg(switch("force", force))
        .arg(Arg::new("month").long("month").value_name("YYYY-MM").help("This month [default: all that are due]"));
    [with::<ReportCommand>(report), with::<CloseCommand>(close)]
}

fn project() -> Command {
    let with = with::<ProjectCommand>;
    let host = "A host its pages are on, such as docs.example.org or localhost:8000; repeatable";
    let add = Command::new("add")
        .about("Register a project, or add hosts to one")
        .arg(slug())
        .arg(many("host", "HOST", host).required(true))
        .arg(switch("public", "Let any reader open its reports"))
        .arg(many("ignore-network", "CIDR", "Do not count views from this network; repeatable"));
    let remove = Command::new("remove").about("Stop counting a project; its figures stay").arg(slug());
    let rules = Command::new("rules")
        .about("Print or change how a project's paths are stored; without options, print the rules")
        .arg(slug())
        .args(rules());
    let erase = Command::new("erase")
        .about("Stop counting a project, and remove all its figures; lists them first and asks for the slug again")
        .arg(slug())
        .arg(switch("yes", "Do not ask; for scripts"));
    Command::new("project")
        .about("Register the projects whose pages are counted")
        .subcommand_required(true)
        .subcommand(with(add))
        .subcommand(with(Command::new("list").about("List the projects with what is set of each")))
        .subcommand(with(project_set()))
        .subcommand(with(project_alias()))
        .subcommand(with(remove))
        .subcommand(with(rules))
        .subcommand(with(erase))
}

fn project_set() -> Command {
    let time_zone = Arg::new("time-zone")
        .long("time-zone")
        .value_name("TZ")
        .help("Time zone of the hours of the week, such as Europe/Berlin; empty for UTC");
    Command::new("set")
        .about("Set a project's access, time zone, recipients of reports and ignored networks")
        .arg(slug())
        .arg(switch("public", "Let any reader open its reports"))
        .arg(switch("private", "Require a token for its reports").conflicts_with("public"))
        .arg(time_zone)
        .arg(many("mail", "ADDRESS", "Send its monthly report to this e-mail address; repeatable"))
        .arg(many("no-mail", "ADDRESS", "Send it there no longer; repeatable"))
        .arg(many("ignore-network", "CIDR", "Do not count views from this network; repeatable"))
        .arg(many("no-ignore-network", "CIDR", "Count them again; repeatable"))
}

fn project_alias() -> Command {
    Command::new("alias")
        .about("Set a project's names in other counters, whose scripts then need no change; without a name, list them")
        .arg(slug())
        .arg(many("umami", "UUID", "Its website id in Umami; repeatable"))
        .arg(many("plausible", "DOMAIN", "Its domain in Plausible; repeatable"))
        .arg(many("goatcounter", "CODE", "Its code in GoatCounter, also the end of its path /count/CODE; repeatable"))
        .arg(many("readthedocs", "SLUG", "Its slug in Read the Docs; repeatable"))
        .arg(switch("list", "List its aliases").conflicts_with("remove"))
        .arg(switch("remove", "Remove these aliases"))
}

fn rules() -> Vec<Arg> {
    let ending = |name, help| Arg::new(name).long(name).value_name("RULE").value_parser(["keep", "strip"]).help(help);
    let keep = "Keep these paths although they look like ids or tokens, such as /commit/*; repeatable";
    let query = "A query parameter that tells pages apart (data-query in the script's tag sends them); repeatable";
    vec![
        many("mask", "PATTERN", "Mask what * and ** match in these paths, such as /users/*/settings; repeatable"),
        many("remove-mask", "PATTERN", "Remove this mask; repeatable"),
        many("keep", "PATTERN", keep),
        many("remove-keep", "PATTERN", "Keep them no longer; repeatable"),
        many("query-parameter", "NAME", query),
        many("remove-query-parameter", "NAME", "Remove this parameter; repeatable"),
        ending("trailing-slash", "strip: store /page/ as /page; keep (default): as two pages"),
        ending("html", "strip: store /page.html as /page; keep (default): as two pages"),
        switch("clear", "Remove all rules first"),
    ]
}

fn token() -> Command {
    let project = Arg::new("project").long("project").value_name("SLUG").help("It opens the reports of this project");
    let label =
        Arg::new("label").long("label").value_name("TEXT").help("What it is for, as `headcount token list` shows it");
    let create = Command::new("create")
        .about("Make a token and print it, this once")
        .arg(project.conflicts_with("admin"))
        .arg(switch("admin", "It opens the reports of all projects"))
        .group(ArgGroup::new("opens").args(["project", "admin"]).required(true))
        .arg(label);
    let id = Arg::new("id").required(true).value_name("ID").help("Its id, as `headcount token list` shows it");
    let revoke = Command::new("revoke").about("Make a token invalid, and end its sessions").arg(id);
    Command::new("token")
        .about("Make, list and revoke the tokens that open reports")
        .subcommand_required(true)
        .subcommand(with::<StoreCommand>(create))
        .subcommand(with::<StoreCommand>(Command::new("list").about("List the tokens by their ids, never the tokens")))
        .subcommand(with::<StoreCommand>(revoke))
}

fn slug() -> Arg {
    Arg::new("slug").required(true).value_name("SLUG").help("The project's name, such as `sphinx`")
}

fn path(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).required(true).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn many(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).action(ArgAction::Append).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The help of each command, with its name.
    fn helps(command: &Command) -> Vec<(String, String)> {
        let name = command.get_name().to_owned();
        let children = command.get_subcommands().filter(|child| !child.is_hide_set());
        let mut helps: Vec<_> = children.flat_map(helps).collect();
        helps.iter_mut().for_each(|(child, _)| *child = format!("{name} {child}"));
        for flag in ["-h", "--help"] {
            let help = command.clone().term_width(100).try_get_matches_from([&name, flag]).expect_err("the help");
            helps.push((format!("{name} {flag}"), help.to_string()));
        }
        helps
    }

    #[test]
    fn every_help_fits_on_a_page() {
        let helps = helps(&command());
        assert!(helps.len() > 50);
        for (name, help) in helps {
            assert!(help.lines().count() <= 40, "{name}: {} lines\n{help}", help.lines().count());
        }
    }

    #[test]
    fn the_declarations_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_is_in_the_documentation_with_its_default() {
        let document = include_str!("../docs/configuration.md");
        let (_, table) = document.split_once("## All settings").expect("the table of settings");
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let command = <AllSettings as Args>::augment_args(Command::new("all"));
        let settings: Vec<&Arg> =
            command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "config").collect();
        for setting in &settings {
            let default = setting.get_default_values().first().map_or("", |value| value.to_str().expect("text"));
            let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
            let start = format!("| `{}` | {default} |", setting.get_id());
            assert!(rows.iter().any(|row| row.starts_with(&start)), "docs/configuration.md has no row {start}");
        }
        assert_eq!(rows.len(), settings.len(), "docs/configuration.md has rows of other settings");
    }
}
