//! `headcount loadtest fold`: the month without brokers and without ClickHouse. What making a view costs, what its record, and
//! what folding it; each in processor time of this thread, so that others on the machine take no part in it.

use anyhow::{Context, ensure};
use schemas::Month;
use schemas::record::{RecordFormat, encode_rejections};

use super::plan::{Plan, Preset, Size};
use super::project::Views as Number;
use super::stream::Stretch;
use super::text::grouped;
use super::truth::Truth;
use super::view::{Encoder, Shares, Views};
use crate::cpu::peak_bytes;
use crate::machine::Machine;

/// Arguments of `headcount loadtest fold`.
#[derive(Debug, Clone, clap::Args)]
pub struct FoldArgs {
    /// How large the month is
    #[arg(long, value_enum, default_value_t = Preset::Host)]
    pub preset: Preset,
    /// Page views instead of the preset's, as in 50M
    #[arg(long, value_name = "N")]
    pub views: Option<Number>,
    /// Fold at most so many records, from the month's beginning
    #[arg(long, value_name = "N", default_value = "5M")]
    pub records: Number,
    /// Decides every record
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Records in a window
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=4_194_304))]
    pub window_records: u64,
}

/// What was folded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    /// Rows of all windows.
    pub rows: u64,
    /// Windows.
    pub windows: u64,
    /// Bytes of the largest window's state.
    pub largest_bytes: u64,
    /// Records that do not decode.
    pub undecodable: u64,
}

/// Whoever can fold records.
pub trait Folder {
    /// The next record.
    fn apply(&mut self, record: &[u8]);
    /// The window is over.
    fn end_window(&mut self);
    /// What was folded so far.
    fn folded(&self) -> Folded;
}

/// Seconds that this thread has run.
fn ran() -> anyhow::Result<f64> {
    let path = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let ns = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
    Ok(ns.with_context(|| format!("{path} is {text:?}"))? as f64 / 1e9)
}

/// Goes through the month's first records with one step more each time, and prints what each step costs.
pub(crate) fn run(args: &FoldArgs, folder: &mut dyn Folder) -> anyhow::Result<()> {
    let preset = args.preset.size();
    let size = Size { views: args.views.map_or(preset.views, |views| views.0), ..preset };
    // Any month will do: it decides which days are weekends.
    let month = Month::new(2026, 10).context("a month")?;
    let plan = Plan::new(args.seed, month, size);
    println!("{}\n", Machine::this().line());
    let mut sum = 0_u64;
    let seen = timed("which views there are", 0.0, || {
        let mut records = 0;
        stretches(&plan, args.records.0, |_, stretch| {
            records += stretch.views().len() as u64;
            sum ^= stretch.views().iter().map(|place| u64::from(place.ticket)).sum::<u64>();
        });
        records
    })?;
    let shares = Shares::default();
    let views = Views::new(&plan, &shares);
    let mut truth = Truth::new(&plan);
    let made = timed("… what they are, and the truth", seen, || {
        stretches(&plan, args.records.0, |hour, stretch| {
            for place in stretch.views() {
                truth.count(&plan, place, &views.view(place, hour), hour);
            }
        });
        truth.records
    })?;
    let mut encoder = Encoder::default();
    let mut bytes = 0;
    let encoded = timed("… and their records", made, || {
        let (mut records, mut truth) = (0, Truth::new(&plan));
        stretches(&plan, args.records.0, |hour, stretch| {
            for place in stretch.views() {
                let view = views.view(place, hour);
                truth.count(&plan, place, &view, hour);
                bytes += encoder.encode(&plan, &view).len() as u64;
                records += 1;
            }
        });
        records
    })?;
    timed("… and the fold of these", encoded, || {
        let (mut records, mut truth, mut in_window) = (0, Truth::new(&plan), 0);
        stretches(&plan, args.records.0, |hour, stretch| {
            for place in stretch.views() {
                let view = views.view(place, hour);
                truth.count(&plan, place, &view, hour);
                folder.apply(encoder.encode(&plan, &view));
                records += 1;
                in_window += 1;
                if in_window == args.window_records {
                    folder.end_window();
                    in_window = 0;
                }
            }
            if let Some(tally) = encode_rejections(plan.tally(hour, 0).1, RecordFormat::V4) {
                folder.apply(&tally);
            }
        });
        folder.end_window();
        records
    })?;
    let folded = folder.folded();
    ensure!(folded.undecodable == 0, "{} records did not decode", folded.undecodable);
    println!(
        "\n{} records of {:.1} bytes; {} rows of {} windows, the largest {:.0} MiB; peak {:.0} MiB in all",
        grouped(truth.records),
        bytes as f64 / truth.records.max(1) as f64,
        grouped(folded.rows),
        folded.windows,
        folded.largest_bytes as f64 / f64::from(1 << 20),
        peak_bytes(std::process::id())? as f64 / f64::from(1 << 20)
    );
    // So that nobody may leave the first step out.
    std::hint::black_box(sum);
    Ok(())
}

/// The month's stretches until there were so many records.
fn stretches(plan: &Plan, most: u64, mut of: impl FnMut(u32, &Stretch)) {
    let (mut stretch, mut records) = (Stretch::default(), 0);
    for hour in 0..plan.hours() {
        for part in 0..plan.parts(hour) {
            plan.fill(hour, part, &mut stretch);
            of(hour, &stretch);
            records += stretch.views().len() as u64;
            if records >= most {
                return;
            }
        }
    }
}

/// Prints what a step costs, all steps before it included, and what it adds to these. Returns nanoseconds a record.
fn timed(what: &str, before: f64, step: impl FnOnce() -> u64) -> anyhow::Result<f64> {
    let begun = ran()?;
    let records = step();
    let seconds = ran()? - begun;
    let each = seconds * 1e9 / records.max(1) as f64;
    println!("{what:<32} {each:>8.0} ns a view (+{:.0}), {:.2} M views/s a core", each - before, 1e3 / each);
    Ok(each)
}
