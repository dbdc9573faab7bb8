//! The fold, from a record's bytes to its accumulators, beside what it is made of: decoding alone, prost's decoding
//! alone, and the least that a per-project count could cost. Page views per second of one core's time, as Linux accounts
//! it to the thread: other work on the machine takes caches from it, but no time.
//!
//! `cargo bench -p headcount-aggregate --bench fold`, about a minute. The records are made beforehand: a docs host's
//! hundred thousand projects, 8 hours, Zipf's law for projects and for the pages of each.

use cpu_time::CpuTime;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use headcount_aggregate::fold::WindowState;
use headcount_aggregate::window::WindowStart;
use prost::Message;
use random::{SplitMix64, Zipf, mix};
use schemas::record::{self, Record, RecordFormat};
use schemas::{Coordinate, StreamId, proto};
use std::collections::HashMap;
use std::hint::black_box;
use std::time::Duration;

#[path = "../../ingest/benches/common/cpu_time.rs"]
mod cpu_time;
#[allow(dead_code, reason = "the load tester uses the rest")]
#[path = "../../loadtest/src/random.rs"]
mod random;

const VIEWS: usize = 1_000_000;
const PROJECTS: usize = 100_000;
const HOURS: u64 = 8;
const FIRST_HOUR: u64 = 500_000;

fn one_of<T: Copy>(random: &mut SplitMix64, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize]
}

/// The window's records, one after another in one piece of memory, as a batch of the log has them.
struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.bytes[std::mem::replace(&mut start, end)..end])
    }
}

fn records() -> Records {
    let (mut random, projects, pages) = (SplitMix64::new(1), Zipf::new(PROJECTS, 1.0), Zipf::new(400, 1.0));
    let mut records = Records { bytes: Vec::new(), ends: Vec::with_capacity(VIEWS) };
    for index in 0..VIEWS {
        let project = projects.sample(&mut random);
        let of_project = 8 + mix(project as u64) as usize % 393;
        let page = pages.sample_among(of_project, &mut random);
        // A log is nearly in order of time.
        let hour = FIRST_HOUR + (index as u64 * HOURS / VIEWS as u64);
        let reader = mix(random.below(2_000_000));
        let mut view = proto::PageView {
            project: format!("project-{:x}", mix(project as u64) >> 40),
            hour: hour as u32,
            path: format!("/en/stable/{}/page-{page}.html", ["guide", "reference", "tutorial"][page % 3]),
            status: if random.below(50) == 0 { 404 } else { 200 },
            version: one_of(&mut random, &["stable", "stable", "stable", "latest", "v1.2"]).to_owned(),
            language: one_of(&mut random, &["en", "en", "en", "de", "zh-cn"]).to_owned(),
            arrival: random.below(3) == 0,
            event_id: random.next_u64() | 1,
            ..proto::PageView::default()
        };
        if random.below(10) == 0 {
            view.bot_class = one_of(&mut random, &[1, 1, 7, 3]);
            view.bot = one_of(&mut random, &["Googlebot", "GPTBot", "Slackbot", "bingbot"]).to_owned();
        } else {
            view.country = one_of(&mut random, &["DE", "US", "US", "US", "IN", "GB", "FR", "BR", "JP"]).to_owned();
            view.device = one_of(&mut random, &[1, 1, 1, 2, 3]);
            view.browser = one_of(&mut random, &[1, 1, 1, 2, 3, 4]);
            view.system = one_of(&mut random, &[1, 1, 2, 3, 4, 5]);
            view.site_coordinate = Coordinate::from_hash(mix(reader ^ project as u64)).packed();
            view.page_coordinate = Coordinate::from_hash(mix(reader ^ ((project as u64) << 16) ^ page as u64)).packed();
            if view.arrival {
                let hosts = ["www.google.com", "www.google.com", "github.com", "stackoverflow.com", ""];
                view.referrer_host = one_of(&mut random, &hosts).to_owned();
            }
        }
        records.bytes.extend_from_slice(&record::encode_page_view(view, RecordFormat::V4));
        records.ends.push(records.bytes.len());
    }
    records
}

fn fold(records: &Records) -> WindowState {
    let mut state = WindowState::new(StreamId(1), WindowStart { offset: 0, appended_hour: FIRST_HOUR as u32 });
    for (offset, bytes) in records.iter().enumerate() {
        state.apply(offset as u64, bytes).expect("a valid record");
    }
    state
}

fn benches(criterion: &mut Criterion<CpuTime>) {
    let records = records();
    let mut group = criterion.benchmark_group("page views");
    group.throughput(Throughput::Elements(VIEWS as u64));
    group.bench_function("fold", |b| b.iter_with_large_drop(|| fold(&records)));
    group.bench_function("decode", |b| {
        b.iter(|| {
            for bytes in records.iter() {
                black_box(record::decode(black_box(bytes)).expect("a valid record"));
            }
        });
    });
    group.bench_function("decode by prost", |b| {
        b.iter(|| {
            for bytes in records.iter() {
                black_box(proto::LogRecord::decode(black_box(bytes)).expect("a valid record"));
            }
        });
    });
    let numbered: Vec<(u32, u32)> = {
        let mut numbers: HashMap<&str, u32> = HashMap::new();
        let number_of = |bytes| match record::decode(bytes) {
            Ok(Record::PageView(view)) => {
                let next = numbers.len() as u32;
                (*numbers.entry(view.project).or_insert(next), view.hour.0)
            }
            _ => unreachable!("only page views were made"),
        };
        records.iter().map(number_of).collect()
    };
    group.bench_function("count by project and hour", |b| {
        b.iter_with_large_drop(|| {
            let mut counts: HashMap<(u32, u32), u64> = HashMap::new();
            for &key in &numbered {
                *counts.entry(key).or_default() += 1;
            }
            counts
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group("rows");
    let mut state = fold(&records);
    let (cells, bytes) = (state.cells(), state.memory_bytes());
    println!("{cells} cells, {bytes} bytes, {} a cell with all that belongs to it", bytes / cells);
    let rows = state.freeze().len();
    group.throughput(Throughput::Elements(rows as u64));
    group.bench_function("freeze", |b| {
        b.iter_batched(|| fold(&records), |mut state| (state.freeze(), state), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .with_measurement(CpuTime)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(all);
