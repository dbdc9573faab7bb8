//! `headcount-loadtest compare`: the same beacons, by the same client, on the same machine, to a server that does nothing, to
//! `headcount serve` and to GoatCounter, in turns; what is accepted in a second, how soon it is counted, whether all of it is,
//! and how long a report takes then.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::cpu::{cpu_seconds, peak_bytes};
use crate::drive::{self, Beacons, Limits, Observed};
use crate::figures::{Figures, MEASURES, NOOP};
use crate::goatcounter::{self, GoatCounter};
use crate::interrupt::bounded;
use crate::machine::Machine;
use crate::month::beacons::{Form, Readers};
use crate::noop::NoopProcess;
use crate::service::Service;
use crate::shared_args::CommonArgs;
use crate::table::{Spread, Table};
use crate::target::Target;

/// How long starting, asking for reports and stopping may take; and counting, after each run.
const BESIDES: Duration = Duration::from_secs(900);
const BETWEEN_SECONDS: u32 = 120;
/// The other counter.
const GOATCOUNTER: &str = "GoatCounter";
/// Reports that are asked for, one after another.
const REPORTS: usize = 50;

/// Arguments of `headcount-loadtest compare`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompareArgs {
    /// Beacons of a run
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=2_000_000))]
    pub count: u32,
    /// Runs of each, in turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// Connections; each has one request in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Seconds a run posts beacons, at most
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// GoatCounter's program; without it, only the other two are compared
    #[arg(long, value_name = "FILE")]
    pub goatcounter: Option<PathBuf>,
    /// Decides every beacon
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// One of them, over all runs.
#[derive(Debug, Clone, Default, Serialize)]
struct Whole {
    who: &'static str,
    /// Accepted in all runs.
    accepted: u64,
    /// What should be counted of that, and what is.
    expected: u64,
    counted: u64,
    disk_bytes: u64,
    /// Of these, the log of 72 hours; none where there is no log.
    journal_bytes: Option<u64>,
    peak_bytes: u64,
    report_ms: Option<Spread>,
}

#[derive(Debug, Serialize)]
struct Report {
    format: u32,
    machine: Machine,
    count: u32,
    connections: u32,
    runs: Vec<Figures>,
    whole: Vec<Whole>,
}

/// Answered with success: 202 by us, 200 by GoatCounter.
fn accepted(observed: &Observed) -> u64 {
    observed.answers.iter().filter(|(_, status)| (200..203).contains(status)).count() as u64
}

pub(crate) async fn run(args: CompareArgs) -> anyhow::Result<()> {
    // Three servers, each run of each as long as it may be, and what stands between.
    let within = Duration::from_secs(u64::from(args.runs) * 3 * u64::from(args.seconds + BETWEEN_SECONDS));
    bounded(within + BESIDES, all(args)).await
}

async fn all(args: CompareArgs) -> anyhow::Result<()> {
    let binary = args.common.headcount()?;
    let readers = |form| Readers::of_one(args.seed, form);
    let ours = readers(Form::Headcount);
    let theirs: Arc<dyn Beacons> = Arc::new(readers(Form::GoatCounter { host: goatcounter::HOST.to_owned() }));
    let noop = NoopProcess::start().await?;
    // Each report is computed, as the other's is; and its time is asked for, not whether one may ask so often.
    let settings = ["--report-rate", "0", "--report-cache-bytes", "0"];
    let service = Service::start(&binary, ours.slug(), ours.page_host(), &settings).await?;
    let ours: Arc<dyn Beacons> = Arc::new(ours);
    let goats = match &args.goatcounter {
        Some(binary) => Some(GoatCounter::start(binary).await?),
        None => None,
    };
    let mut report = Report {
        format: 1,
        machine: Machine::this(),
        count: args.count,
        connections: args.connections,
        runs: Vec::new(),
        whole: Vec::new(),
    };
    println!("{}\n", report.machine.line());
    let mut of_service = Whole { who: "headcount serve", ..Whole::default() };
    let mut of_goats = Whole { who: GOATCOUNTER, ..Whole::default() };
    let mut pairs = HashSet::new();
    for number in 0..args.runs {
        let cpu = || cpu_seconds(noop.pid);
        let (run, _) = one(&args, NOOP, &ours, &Target::at(noop.address), number, &cpu).await?;
        tell(&mut report, run);

        let (mut run, seen) =
            one(&args, "headcount serve", &ours, &service.target(), number, &|| service.cpu()).await?;
        of_service.accepted += accepted(&seen);
        run.counted_after_seconds = Some(service.counted(of_service.accepted).await?.as_secs_f64());
        tell(&mut report, run);

        if let Some(goats) = &goats {
            let cpu = || cpu_seconds(goats.pid);
            let (mut run, seen) = one(&args, GOATCOUNTER, &theirs, &goats.target(), number, &cpu).await?;
            of_goats.accepted += accepted(&seen);
            ensure!(accepted(&seen) == u64::from(args.count), "GoatCounter did not accept all: raise --seconds");
            first_views(theirs.as_ref(), number, args.count, &mut pairs);
            let (counted, took) = goats.counted(pairs.len() as u64).await?;
            of_goats.counted = counted;
            run.counted_after_seconds = (counted == pairs.len() as u64).then_some(took.as_secs_f64());
            tell(&mut report, run);
        }
    }
    // The service was waited for until it had exactly these.
    (of_service.expected, of_service.counted) = (of_service.accepted, of_service.accepted);
    of_service.report_ms = Some(asked(async || service.report().await.map(drop)).await?);
    (of_service.disk_bytes, of_service.journal_bytes) = (service.disk_bytes(), Some(service.journal_bytes()));
    let (own, engine) = service.peaks()?;
    of_service.peak_bytes = own + engine.unwrap_or(0);
    report.whole.push(of_service);
    if let Some(goats) = goats {
        of_goats.expected = pairs.len() as u64;
        of_goats.report_ms = Some(asked(async || goats.report().await).await?);
        (of_goats.disk_bytes, of_goats.peak_bytes) = (goats.disk_bytes(), peak_bytes(goats.pid)?);
        report.whole.push(of_goats);
        goats.stop().await?;
    }
    service.stop().await?;
    noop.stop().await?;
    print!("{}", render(&report));
    args.common.json.write(&report)
}

fn tell(report: &mut Report, run: Figures) {
    let p99 = run.latency_ms.map_or(f64::NAN, |latency| latency.p99);
    println!("{:<16} {:>8.0} accepted/s, p99 {:.1} ms", run.side, run.requests_per_second, p99);
    report.runs.push(run);
}

async fn one(
    args: &CompareArgs,
    who: &'static str,
    beacons: &Arc<dyn Beacons>,
    target: &Target,
    number: u32,
    cpu: &dyn Fn() -> anyhow::Result<f64>,
) -> anyhow::Result<(Figures, Observed)> {
    let limits = Limits {
        count: args.count,
        time: Duration::from_secs(u64::from(args.seconds)),
        connections: args.connections,
        threads: 1,
        rate: None,
    };
    let before = cpu()?;
    let observed = drive::observe(beacons, target, number, limits)
        .await
        .with_context(|| format!("run {} of {who}", number + 1))?;
    let (spent, accepted) = (cpu()? - before, accepted(&observed));
    ensure!(
        accepted == observed.due && accepted > 0,
        "{who}: of {} beacons {accepted} were accepted, {} were lost ({:?})",
        observed.due,
        observed.transport_errors + observed.unanswered,
        observed.first_error
    );
    let run = Figures::new(who, number, &observed, Some(spent), None);
    Ok((run, observed))
}

/// Reader and path of each beacon: GoatCounter counts each pair once in a session, and a session lasts longer than this test.
fn first_views(beacons: &dyn Beacons, number: u32, count: u32, pairs: &mut HashSet<String>) {
    let (head, mut body, mut request) = (beacons.request_head(goatcounter::HOST), Vec::new(), Vec::new());
    for k in 0..count {
        beacons.write_request(number, k, &head, &mut body, &mut request);
        let text = String::from_utf8_lossy(&request);
        let path = text.split(['=', '&']).nth(1).unwrap_or_default();
        let reader = text.split("user-agent: ").nth(1).unwrap_or_default();
        pairs.insert(format!("{path} {reader}"));
    }
}

/// Milliseconds of one report after another.
async fn asked(report: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<Spread> {
    let mut times = Vec::new();
    for _ in 0..REPORTS {
        let begun = Instant::now();
        report().await?;
        times.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    Spread::of(times).context("reports were asked for")
}

fn render(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = format!("\n{}", Table::of(&report.runs, NOOP, &MEASURES).render());
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    out.push('\n');
    for whole in &report.whole {
        let _ = writeln!(
            out,
            "{}: {} accepted; counted {} of {} that should be; {:.1} MiB on disk{}, peak {:.0} MiB; a report takes {} ms",
            whole.who,
            whole.accepted,
            whole.counted,
            whole.expected,
            mib(whole.disk_bytes),
            whole.journal_bytes.map_or_else(String::new, |journal| format!(", {:.1} of it the log", mib(journal))),
            mib(whole.peak_bytes),
            whole.report_ms.map_or_else(|| "–".to_owned(), |spread| spread.show(1))
        );
    }
    if report.whole.iter().all(|whole| whole.who != GOATCOUNTER) {
        let _ = writeln!(out, "\nGoatCounter took no part. {}", goatcounter::HOW);
    }
    out.push_str(
        "\n- headcount answers when the view is on disk. GoatCounter answers when it is in memory and writes every ten seconds: what \
         was answered since is lost with the process. Its figure above is of acceptance, not of durability.\n\
         - GoatCounter closes the connection after each beacon, so its figure has a new connection in every one; that is how it \
         comes. Its limit of four views a second from one reader was raised by its flag.\n\
         - GoatCounter counts the first view of a page in a session, headcount every view: each is compared with what it means to \
         count.\n\
         - A report of headcount is one answer with all of the month; of GoatCounter it is six answers of its API (total, pages, \
         referrers, browsers, systems, locations), together.\n\
         - headcount's memory and processor time are with its ClickHouse, and its disk is with the log of 72 hours and ClickHouse's \
         own files.\n",
    );
    out
}
