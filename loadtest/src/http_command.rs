//! `headcount-loadtest http`: runs, their order, and the report.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::json;

use crate::cpu::{cpu_seconds, listener_pid};
use crate::drive::{self, Beacons, Limits};
use crate::figures::{Figures, MEASURES, NOOP, TARGET};
use crate::knee::{self, Knee, Limit};
use crate::machine::Machine;
use crate::month::beacons::{Form, Readers};
use crate::noop::NoopProcess;
use crate::shared_args::JsonArg;
use crate::table::Table;
use crate::target::Target;

/// A target this near to a server that does nothing shows nothing of its own.
const NEAR_NOOP: f64 = 0.9;

/// Arguments of `headcount-loadtest http`.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct HttpArgs {
    /// Server to load, as in http://127.0.0.1:8080; it must trust this machine's X-Forwarded-For
    #[arg(long, value_name = "URL")]
    pub target: String,
    /// Project the beacons name
    #[arg(long, value_name = "SLUG")]
    pub project: String,
    /// Host of the project's pages
    #[arg(long, value_name = "HOST")]
    pub page_host: String,
    /// Beacons a run or a stage posts, at most [default: 50000; with --find-knee, as many as --seconds have]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub count: Option<u32>,
    /// Seconds a run posts beacons, at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// Keep-alive connections; each has one request in flight
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Runs against the target, and as many against the reference
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// Decides every beacon, its id included: with a seed used before, a target that knows ids sees duplicates
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Threads of the client, which take processor time from a server on the same machine
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub client_threads: u32,
    /// Beacons a second in an open loop: each is due at its time, whatever became of those before it [default: a closed loop]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=400_000))]
    pub rate: Option<u32>,
    /// Search for the highest rate at which 99 of 100 beacons are answered within 50 ms and none is refused, in stages of --seconds,
    /// beginning at --rate (1,000 if none is given); --count bounds a stage
    #[arg(long)]
    pub find_knee: bool,
    /// Alternate with runs against a server on the same HTTP shell that answers 202 and does nothing, and report the ratio
    #[arg(long)]
    pub noop: bool,
    #[command(flatten)]
    pub json: JsonArg,
}

pub(crate) async fn run(args: HttpArgs) -> anyhow::Result<()> {
    let target = Target::parse(&args.target)?;
    let readers = Readers::of_one(args.seed, Form::Headcount).with_names(&args.project, &args.page_host)?;
    let noop = if args.noop { Some(NoopProcess::start().await?) } else { None };
    println!("{}", Machine::this().line());
    let beacons: Arc<dyn Beacons> = Arc::new(readers);
    let (mut knees, mut runs) = (Vec::new(), Vec::new());
    if args.find_knee {
        let mut run = 0;
        for server in sides(&target, noop.as_ref()) {
            knees.push((server.0, knee(&args, &server, &beacons, &mut run).await?));
        }
        if let Some(line) = beside(&knees) {
            println!("{line}");
        }
    } else {
        runs = measure(&args, &target, noop.as_ref(), beacons).await?;
    }
    if let Some(noop) = noop {
        noop.stop().await?;
    }
    let table = Table::of(&runs, NOOP, &MEASURES);
    if !args.find_knee {
        print!("\n{}", table.render());
    }
    args.json.write(&json!({
        "format": 2,
        "machine": Machine::this(),
        "arguments": args,
        "runs": runs,
        "table": table,
        "knees": knees,
    }))?;
    if args.find_knee { Ok(()) } else { judge(&runs) }
}

/// Whom to load, where, and as which process.
type Server = (&'static str, Target, Option<u32>);

fn sides(target: &Target, noop: Option<&NoopProcess>) -> Vec<Server> {
    let pid = target.addresses.first().and_then(|address| listener_pid(address.port()));
    let reference = noop.map(|noop| (NOOP, Target::at(noop.address), Some(noop.pid)));
    reference.into_iter().chain([(TARGET, target.clone(), pid)]).collect()
}

fn limits(args: &HttpArgs) -> Limits {
    Limits {
        count: args.count.unwrap_or(50_000),
        time: Duration::from_secs(u64::from(args.seconds)),
        connections: args.connections,
        threads: args.client_threads,
        rate: args.rate.map(f64::from),
    }
}

/// Searches for the knee of one side.
async fn knee(args: &HttpArgs, server: &Server, beacons: &Arc<dyn Beacons>, run: &mut u32) -> anyhow::Result<Knee> {
    let first = args.rate.map_or(1_000.0, f64::from);
    let handle = tokio::runtime::Handle::current();
    let found = tokio::task::block_in_place(|| {
        knee::find(first, args.client_threads, |rate| {
            // Every stage has beacons of its own: a repeat is not what a view costs.
            *run += 1;
            let count = args.count.unwrap_or(u32::MAX);
            let limits = Limits { count, rate: Some(rate), ..limits(args) };
            let figures = handle.block_on(one(server, beacons, *run, limits))?;
            let verdict = if knee::kept(&figures, rate) { "kept" } else { "not kept" };
            let p99 = figures.latency_ms.map_or(f64::NAN, |latency| latency.p99);
            println!(
                "{:<6} {rate:>8.0} beacons/s due: {verdict}, p99 {p99:.1} ms, {}; client: {:.2} processors of {}, lag p99 {:.1} ms, {} \
                 waited for a connection",
                server.0,
                figures.outcome(),
                figures.client_processors().unwrap_or(f64::NAN),
                args.client_threads,
                figures.client_lag_ms.map_or(f64::NAN, |lag| lag.p99),
                figures.queued
            );
            anyhow::Ok(figures)
        })
    })?;
    let limit = match found.limit {
        Some(Limit::Client) => "; the client could not go faster, the server may",
        Some(Limit::Server) => "; not for want of the client's time, but both share what this machine has",
        None => "; nothing was too much",
    };
    match found.rate {
        Some(rate) => println!("{:<6} knee at {rate:.0} beacons a second{limit}\n", server.0),
        None => println!("{:<6} did not even keep up with the lowest rate{limit}\n", server.0),
    }
    Ok(found)
}

/// What the knee of a server that does nothing says of the target's.
fn beside(knees: &[(&'static str, Knee)]) -> Option<String> {
    let of = |side: &str| knees.iter().find(|(found, _)| *found == side)?.1.rate;
    let (noop, target) = (of(NOOP)?, of(TARGET)?);
    let share = target / noop;
    let hidden = if share >= NEAR_NOOP { ": what was measured is the client, or the way to any server" } else { "" };
    Some(format!("the target's knee is at {:.0} % of the no-op server's, {noop:.0} a second{hidden}", share * 100.0))
}

/// All runs in their order: noop, target, noop, target, … The two of a pair post the same beacons.
async fn measure(
    args: &HttpArgs,
    target: &Target,
    noop: Option<&NoopProcess>,
    beacons: Arc<dyn Beacons>,
) -> anyhow::Result<Vec<Figures>> {
    let sides = sides(target, noop);
    let mut runs = Vec::new();
    for run in 0..args.runs {
        for server in &sides {
            let figures = one(server, &beacons, run, limits(args)).await?;
            println!(
                "run {} {:<6} {:>8.0} requests/s in {:.1} s: {}",
                run + 1,
                server.0,
                figures.requests_per_second,
                figures.seconds,
                figures.outcome()
            );
            runs.push(figures);
        }
    }
    Ok(runs)
}

/// One run against one server.
pub(crate) async fn one(
    (side, target, pid): &Server,
    beacons: &Arc<dyn Beacons>,
    run: u32,
    limits: Limits,
) -> anyhow::Result<Figures> {
    let cpu = || -> anyhow::Result<(Option<f64>, Option<f64>)> {
        // The client's own is a courtesy, and missing where there is no /proc.
        Ok((pid.map(cpu_seconds).transpose()?, cpu_seconds(std::process::id()).ok()))
    };
    let before = cpu()?;
    let observed = drive::observe(beacons, target, run, limits)
        .await
        .with_context(|| format!("run {} against the {}", run + 1, side))?;
    let after = cpu().with_context(|| format!("after run {} against the {}", run + 1, side))?;
    let spent = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
    Ok(Figures::new(side, run, &observed, spent(before.0, after.0), spent(before.1, after.1)))
}

/// An error if any run had one, or posted nothing at all.
fn judge(runs: &[Figures]) -> anyhow::Result<()> {
    let answered: u64 = runs.iter().map(|f| f.answered).sum();
    if answered == 0 {
        bail!("no beacon was answered");
    }
    let faulty: Vec<String> = runs
        .iter()
        .filter(|f| f.errors() > 0)
        .map(|f| format!("run {} {}: {}", f.run + 1, f.side, f.outcome()))
        .collect();
    let errors: u64 = runs.iter().map(Figures::errors).sum();
    if errors > 0 {
        bail!("{errors} beacons were not answered 202 ({})", faulty.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::Observed;

    fn run_with(statuses: &[u16]) -> Figures {
        let observed = Observed {
            answers: statuses.iter().map(|s| (1_000, *s)).collect(),
            due: statuses.len() as u64,
            elapsed: Duration::from_secs(1),
            ..Default::default()
        };
        Figures::new(TARGET, 0, &observed, None, Some(0.1))
    }

    #[test]
    fn refusals_fail_the_command() {
        assert!(judge(&[run_with(&[202, 202])]).is_ok());
        let error = judge(&[run_with(&[202, 429])]).unwrap_err().to_string();
        assert_eq!(error, "1 beacons were not answered 202 (run 1 target: 202 × 1, 429 × 1)");
        assert!(judge(&[run_with(&[])]).is_err());
    }

    #[test]
    fn a_knee_near_the_no_op_servers_is_none_of_the_targets() {
        let knee = |rate| Knee { rate: Some(rate), limit: None, stages: Vec::new() };
        let told = |target| beside(&[(NOOP, knee(80_000.0)), (TARGET, knee(target))]).unwrap();
        assert_eq!(told(40_000.0), "the target's knee is at 50 % of the no-op server's, 80000 a second");
        assert!(told(79_000.0).contains("what was measured is the client"));
        assert_eq!(beside(&[(TARGET, knee(1.0))]), None);
    }

    #[test]
    fn the_command_line_is_bounded() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: HttpArgs,
        }
        let parse = |extra: &[&str]| {
            let fixed = ["loadtest", "--target", "http://127.0.0.1:1", "--project", "p", "--page-host", "h"];
            <Cli as clap::Parser>::try_parse_from(fixed.iter().chain(extra)).map(|cli| cli.args)
        };
        let args = parse(&["--noop"]).unwrap();
        assert_eq!((limits(&args).count, args.seconds, args.connections, args.runs), (50_000, 20, 256, 3));
        assert_eq!((args.noop, args.rate, args.find_knee), (true, None, false));
        assert!(parse(&["--rate", "0"]).is_err());
        assert!(parse(&["--count", "5000001"]).is_err());
        assert!(parse(&["--connections", "0"]).is_err());
    }
}
