//! `headcount-loadtest attack`: somebody floods a project while readers read it. Do the readers still get through, does memory
//! stay bounded, and is everything counted that was accepted?
//!
//! Readers and flood are two open loops of their own at the same service, each with its figures. Before and after the flood
//! the readers are alone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;

use crate::drive::{self, Beacons, Limits, Observed};
use crate::figures::{Figures, TARGET};
use crate::interrupt::bounded;
use crate::machine::Machine;
use crate::month::beacons::{Form, Readers};
use crate::service::Service;
use crate::shared_args::CommonArgs;

/// How long all else may take: starting, counting, stopping.
const BESIDES: Duration = Duration::from_secs(300);
/// How long readers are alone, before and after.
const ALONE_SECONDS: u32 = 10;

/// Arguments of `headcount-loadtest attack`.
#[derive(Debug, Clone, clap::Args)]
pub struct AttackArgs {
    /// Requests a second that the flood is meant to have; what the machine makes of that is reported
    #[arg(long, default_value_t = 92_000, value_parser = clap::value_parser!(u32).range(1..=400_000))]
    pub rate: u32,
    /// Seconds of the flood
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub seconds: u32,
    /// Addresses the flood comes from
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub addresses: u32,
    /// Connections of the flood
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Threads of the flood
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub client_threads: u32,
    /// Beacons a second of readers
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub readers: u32,
    /// Decides every beacon
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Further arguments of `headcount serve`, as in --setting=--client-rate=10; repeatable
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub setting: Vec<String>,
}

/// What was seen.
#[derive(Debug, Serialize)]
struct Report {
    format: u32,
    machine: Machine,
    rate: u32,
    addresses: u32,
    before: Figures,
    during: Figures,
    flood: Figures,
    after: Figures,
    accepted: u64,
    /// Beacons that were sent and not answered: they may be counted or not.
    unanswered: u64,
    counted: u64,
    counted_after_seconds: f64,
    journal_bytes: u64,
    disk_bytes: u64,
    peak_bytes: u64,
    peak_before_bytes: u64,
    clickhouse_peak_bytes: Option<u64>,
}

pub(crate) async fn run(args: AttackArgs) -> anyhow::Result<()> {
    let binary = args.common.headcount()?;
    let readers = Readers::of_one(args.seed, Form::Headcount);
    let flood = Readers::of_one(args.seed ^ 0xf100d, Form::Headcount).with_addresses(args.addresses);
    let settings: Vec<&str> = args.setting.iter().map(String::as_str).collect();
    let within = Duration::from_secs(u64::from(args.seconds + 2 * ALONE_SECONDS)) + BESIDES;
    let report = bounded(within, async {
        let service = Service::start(&binary, readers.slug(), readers.page_host(), &settings).await?;
        let report = measure(&args, &service, Arc::new(readers), Arc::new(flood)).await?;
        service.stop().await?;
        Ok(report)
    })
    .await?;
    print!("{}", render(&report));
    args.common.json.write(&report)?;
    judge(&report)
}

/// An error unless all that was accepted is counted, and nothing that was not sent.
fn judge(report: &Report) -> anyhow::Result<()> {
    let (accepted, most) = (report.accepted, report.accepted + report.unanswered);
    ensure!(
        (accepted..=most).contains(&report.counted),
        "{} views are in the report, {accepted} were accepted and {} not answered",
        report.counted,
        report.unanswered
    );
    Ok(())
}

async fn measure(
    args: &AttackArgs,
    service: &Service,
    readers: Arc<dyn Beacons>,
    flood: Arc<dyn Beacons>,
) -> anyhow::Result<Report> {
    let of_readers = |seconds: u32| Limits {
        count: args.readers * seconds,
        time: Duration::from_secs(u64::from(seconds)),
        connections: 64,
        threads: 1,
        rate: Some(f64::from(args.readers)),
    };
    let of_flood = Limits {
        count: args.rate.saturating_mul(args.seconds),
        time: Duration::from_secs(u64::from(args.seconds)),
        connections: args.connections,
        threads: args.client_threads,
        rate: Some(f64::from(args.rate)),
    };
    let before = posted(service, &readers, 0, of_readers(ALONE_SECONDS)).await?;
    let peak_before_bytes = service.peaks()?.0;
    let (during, flooded) =
        tokio::join!(posted(service, &readers, 1, of_readers(args.seconds)), posted(service, &flood, 0, of_flood));
    let (during, flooded) = (during?, flooded?);
    let after = posted(service, &readers, 2, of_readers(ALONE_SECONDS)).await?;
    let all = [&before, &during, &flooded, &after];
    let accepted = all.into_iter().map(Observed::accepted).sum();
    // A broken connection is no answer either.
    let unanswered = all.into_iter().map(|observed| observed.unanswered + observed.transport_errors).sum();
    let (counted, counted_after) = service.settled(accepted, accepted + unanswered).await;
    let (peak_bytes, clickhouse_peak_bytes) = service.peaks()?;
    let figures = |observed: &Observed| Figures::new(TARGET, 0, observed, None, None);
    Ok(Report {
        format: 1,
        machine: Machine::this(),
        rate: args.rate,
        addresses: args.addresses,
        before: figures(&before),
        during: figures(&during),
        flood: figures(&flooded),
        after: figures(&after),
        accepted,
        unanswered,
        counted,
        counted_after_seconds: counted_after.as_secs_f64(),
        journal_bytes: service.journal_bytes(),
        disk_bytes: service.disk_bytes(),
        peak_bytes,
        peak_before_bytes,
        clickhouse_peak_bytes,
    })
}

async fn posted(service: &Service, beacons: &Arc<dyn Beacons>, run: u32, limits: Limits) -> anyhow::Result<Observed> {
    let observed = drive::observe(beacons, &service.target(), run, limits).await?;
    ensure!(!observed.answers.is_empty(), "no beacon was answered: {:?}", observed.first_error);
    Ok(observed)
}

fn render(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = format!("{}\n\n", report.machine.line());
    let mut line = |who: &str, figures: &Figures| {
        let through = figures.accepted_share() * 100.0;
        let latency =
            figures.latency_ms.map_or_else(String::new, |l| format!("p50 {:.1} ms, p99 {:.1} ms", l.p50, l.p99));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{who:<26} {:>8.0}/s  {through:>6.2} % accepted  {latency:<30} {}",
            figures.requests_per_second,
            figures.outcome()
        );
    };
    line("readers before", &report.before);
    line("readers during the flood", &report.during);
    line("the flood", &report.flood);
    line("readers after", &report.after);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let _ = writeln!(
        out,
        "\nThe flood was to have {} requests a second from {} addresses.\n\
         {} beacons were accepted, {} sent and not answered; {} views are in the report ({:.1} s after the last answer), {} of them of \
         beacons that were not answered.\n\
         Journal {:.1} MiB, all on disk {:.1} MiB. Peak memory: {:.0} MiB before the flood, {:.0} MiB with it; ClickHouse {}.\n\
         Shares are of the beacons that were due, sent or not; latency is from when a beacon was due. Load test and service share this machine's processors: part of what readers wait \
         is the flood's own client.",
        report.rate,
        report.addresses,
        report.accepted,
        report.unanswered,
        report.counted,
        report.counted_after_seconds,
        report.counted.saturating_sub(report.accepted),
        mib(report.journal_bytes),
        mib(report.disk_bytes),
        mib(report.peak_before_bytes),
        mib(report.peak_bytes),
        report.clickhouse_peak_bytes.map_or_else(|| "–".to_owned(), |peak| format!("{:.0} MiB", mib(peak)))
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(accepted: u64, unanswered: u64, counted: u64) -> Report {
        let figures = || Figures::new(TARGET, 0, &Observed::default(), None, None);
        Report {
            format: 1,
            machine: Machine::default(),
            rate: 1,
            addresses: 1,
            before: figures(),
            during: figures(),
            flood: figures(),
            after: figures(),
            accepted,
            unanswered,
            counted,
            counted_after_seconds: 0.5,
            journal_bytes: 1 << 20,
            disk_bytes: 3 << 20,
            peak_bytes: 0,
            peak_before_bytes: 0,
            clickhouse_peak_bytes: None,
        }
    }

    #[test]
    fn what_was_not_answered_may_be_counted_and_what_was_accepted_must() {
        assert!(judge(&report(100, 0, 100)).is_ok());
        assert!(judge(&report(100, 3, 102)).is_ok());
        for (accepted, unanswered, counted) in [(100, 0, 99), (100, 0, 101), (100, 3, 104), (100, 3, 99)] {
            assert!(judge(&report(accepted, unanswered, counted)).is_err(), "{counted} of {accepted}");
        }
        let told = render(&report(100, 3, 102));
        assert!(told.contains("100 beacons were accepted, 3 sent and not answered; 102 views"), "{told}");
        assert!(
            told.contains("2 of them of beacons that were not answered") && told.contains("Journal 1.0 MiB"),
            "{told}"
        );
    }
}
