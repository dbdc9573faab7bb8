//! Which records are in the log. Record `k` is a pure function of (seed, k); what they add up to is counted beside.

use std::collections::HashSet;

use schemas::record::{RecordFormat, encode_page_view};
use schemas::{Coordinate, proto};
use serde::Serialize;

use crate::random::{SplitMix64, Zipf, mix};

/// Hours that the views are of, in order of time, as a log is.
const HOURS: u64 = 8;
const FIRST_HOUR: u64 = 500_000;
const READERS: u64 = 2_000_000;
/// One record in so many repeats an earlier one, as when a browser asks again after a lost answer.
const REPEATS: u64 = 200;
/// How far back a repeat reaches, at most.
const REPEAT_WITHIN: u64 = 1_000;
/// One view in so many is a bot's.
const BOTS: u64 = 10;

const COUNTRIES: [&str; 9] = ["DE", "US", "US", "US", "IN", "GB", "FR", "BR", "JP"];
const HOSTS: [&str; 5] = ["www.google.com", "www.google.com", "github.com", "stackoverflow.com", ""];
const VERSIONS: [&str; 5] = ["stable", "stable", "stable", "latest", "v1.2"];
const LANGUAGES: [&str; 5] = ["en", "en", "en", "de", "zh-cn"];
const SECTIONS: [&str; 3] = ["guide", "reference", "tutorial"];
const BOT_NAMES: [(i32, &str); 4] = [(1, "Googlebot"), (1, "bingbot"), (7, "GPTBot"), (3, "Slackbot")];

/// A log, before it is records: projects by Zipf's law, each with 8 to 400 pages, again by Zipf's law.
#[derive(Debug, Clone)]
pub struct Log {
    seed: u64,
    records: u64,
    projects: Zipf,
    pages: Zipf,
    project_count: usize,
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// Chooses the partition: a repeat meets its twin there.
    pub key: u64,
    /// As it is encoded.
    pub view: proto::PageView,
}

impl Log {
    /// A log of `records` page views of `projects` projects (at least one).
    #[must_use]
    pub fn new(seed: u64, records: u64, projects: u32) -> Self {
        let project_count = projects.max(1) as usize;
        Self { seed, records, projects: Zipf::new(project_count, 1.0), pages: Zipf::new(400, 1.0), project_count }
    }

    /// Record `k`; of a repeat, the one that is repeated.
    #[must_use]
    pub fn record(&self, k: u64) -> LogRecord {
        let mut rng = SplitMix64::new(mix(!SplitMix64::nth(self.seed, k)));
        if rng.below(REPEATS) == 0 && k > 0 {
            let back = 1 + rng.below(REPEAT_WITHIN.min(k));
            return self.original(k - back);
        }
        self.original(k)
    }

    fn original(&self, k: u64) -> LogRecord {
        let event_id = SplitMix64::nth(self.seed, k) | 1;
        let mut rng = SplitMix64::new(mix(event_id));
        fn one_of<T: Copy>(rng: &mut SplitMix64, of: &[T]) -> T {
            of[rng.below(of.len() as u64) as usize]
        }
        let project = self.projects.sample_among(self.project_count, &mut rng) as u64;
        let page = self.pages.sample_among(8 + (mix(project) % 393) as usize, &mut rng) as u64;
        let reader = mix(rng.below(READERS));
        let mut view = proto::PageView {
            project: format!("project-{:x}", mix(project) >> 40),
            hour: (FIRST_HOUR + k * HOURS / self.records.max(1)) as u32,
            path: format!("/en/stable/{}/page-{page}.html", SECTIONS[page as usize % SECTIONS.len()]),
            status: if rng.below(50) == 0 { 404 } else { 200 },
            version: one_of(&mut rng, &VERSIONS).to_owned(),
            language: one_of(&mut rng, &LANGUAGES).to_owned(),
            arrival: rng.below(3) == 0,
            event_id,
            ..proto::PageView::default()
        };
        if rng.below(BOTS) == 0 {
            let (class, name) = one_of(&mut rng, &BOT_NAMES);
            view.bot_class = class;
            view.bot = name.to_owned();
        } else {
            view.country = one_of(&mut rng, &COUNTRIES).to_owned();
            view.device = one_of(&mut rng, &[1, 1, 1, 2, 3]);
            view.browser = one_of(&mut rng, &[1, 1, 1, 2, 3, 4]);
            view.system = one_of(&mut rng, &[1, 1, 2, 3, 4, 5]);
            view.site_coordinate = Coordinate::from_hash(mix(reader ^ project)).packed();
            view.page_coordinate = Coordinate::from_hash(mix(reader ^ (project << 16) ^ page)).packed();
            if view.arrival {
                view.referrer_host = one_of(&mut rng, &HOSTS).to_owned();
            }
        }
        LogRecord { key: key_of(&view.project), view }
    }

    /// All records in order: key and encoded bytes. What they add up to is in the iterator afterwards.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records { log: self, next: 0, seen: HashSet::new(), truth: Truth::default() }
    }
}

/// FNV-1a with a finish: any function of the project will do, if every sender has the same.
fn key_of(project: &str) -> u64 {
    mix(project
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// What a log adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Records.
    pub records: u64,
    /// Bytes of the records, without keys and framing.
    pub bytes: u64,
    /// Records that repeat an id.
    pub repeats: u64,
    /// Views by people, each id once.
    pub views: u64,
    /// Views by people, repeats counted again.
    pub views_with_repeats: u64,
}

/// The records of a log, one after another.
#[derive(Debug)]
pub struct Records<'a> {
    log: &'a Log,
    next: u64,
    seen: HashSet<u64>,
    truth: Truth,
}

impl Records<'_> {
    /// What the records so far add up to.
    #[must_use]
    pub fn truth(&self) -> Truth {
        self.truth
    }
}

impl Iterator for Records<'_> {
    type Item = (u64, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.log.records {
            return None;
        }
        let LogRecord { key, view } = self.log.record(self.next);
        self.next += 1;
        let (person, first) = (u64::from(view.bot_class == 0), self.seen.insert(view.event_id));
        let bytes = encode_page_view(view, RecordFormat::V4);
        self.truth.records += 1;
        self.truth.bytes += bytes.len() as u64;
        self.truth.repeats += u64::from(!first);
        self.truth.views += if first { person } else { 0 };
        self.truth.views_with_repeats += person;
        Some((key, bytes))
    }
}

#[cfg(test)]
mod tests {
    use schemas::record::{Record, decode};

    use super::*;

    #[test]
    fn every_record_decodes_and_the_truth_adds_up() {
        let log = Log::new(3, 20_000, 500);
        let (mut records, mut people, mut ids) = (log.records(), 0, HashSet::new());
        for (_, bytes) in records.by_ref() {
            let Ok(Record::PageView(view)) = decode(&bytes) else { panic!("{bytes:?}") };
            if ids.insert(view.event_id) && view.bot.is_empty() {
                people += 1;
            }
        }
        let truth = records.truth();
        assert_eq!((truth.records, truth.views), (20_000, people));
        assert_eq!(truth.repeats, 20_000 - ids.len() as u64);
        assert!((50..200).contains(&truth.repeats), "{truth:?}");
        assert!(truth.views_with_repeats > truth.views && truth.views > 17_000, "{truth:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_log_and_a_repeat_has_its_twins_key() {
        let log = Log::new(3, 5_000, 50);
        let all: Vec<LogRecord> = (0..5_000).map(|k| log.record(k)).collect();
        assert!((0..5_000).all(|k| Log::new(3, 5_000, 50).record(k) == all[k as usize]));
        assert_ne!(Log::new(4, 5_000, 50).record(7), all[7]);
        let mut keys = std::collections::HashMap::new();
        assert!(all.iter().all(|r| *keys.entry(r.view.event_id).or_insert(r.key) == r.key));
    }
}
