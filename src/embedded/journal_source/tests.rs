//! Damaged journals: either the figures are exact, or an error names path and offset. Wrong figures never occur.

use super::*;
use crate::random::SplitMix64;
use aggregate::fold::WindowState;
use aggregate::window::WindowStart;
use ingest::journal::{JournalConfig, salvage};
use ingest::sink::Sink;
use schemas::proto;
use schemas::record::{RecordFormat, encode_page_view};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const HOUR: Hour = Hour(490_000);

fn record(number: u64) -> Vec<u8> {
    let coordinate = schemas::Coordinate::new(1, 1).unwrap().packed();
    let view = proto::PageView {
        project: "docs".to_owned(),
        hour: HOUR.0,
        path: format!("/{}", number % 50),
        status: 200,
        site_coordinate: coordinate,
        page_coordinate: coordinate,
        event_id: number + 1,
        ..proto::PageView::default()
    };
    encode_page_view(view, RecordFormat::V4)
}

fn open(path: &Path) -> Result<Journal, JournalError> {
    Journal::open(path, JournalConfig::default(), || HOUR)
}

/// A journal with these records in batches of several sizes, opened and closed several times, with a part trimmed.
async fn filled(path: &Path, records: u64) -> BTreeMap<u64, Vec<u8>> {
    let mut random = SplitMix64::new(1);
    let mut number = 0;
    while number < records {
        let journal = open(path).unwrap();
        let until = records.min(number + records / 4 + 1);
        while number < until {
            let appends: Vec<_> = (0..1 + random.below(60))
                .map(|more| {
                    let journal = journal.clone();
                    tokio::spawn(async move { journal.append(0, record(number + more)).await })
                })
                .collect();
            number += appends.len() as u64;
            for append in appends {
                append.await.unwrap().unwrap();
            }
        }
        let end = *journal.end().borrow();
        let commit = Commit {
            stream: journal.stream(),
            window: Some(WindowStart { offset: end / 8, appended_hour: HOUR.0 }),
            next_offset: end,
            window_policy: aggregate::window::WindowPolicy::default(),
            fold_version: aggregate::fold::FOLD_VERSION,
            drained: true,
        };
        journal.store_text(JournalSource::COMMIT, &serde_json::to_string(&commit).unwrap()).unwrap();
        journal.trim(end / 20, Hour(u32::MAX)).unwrap();
        journal.close();
    }
    let journal = open(path).unwrap();
    let (truth, holes) = all_of(journal).await.unwrap();
    assert!(holes.is_empty());
    truth
}

/// Everything that the source returns, folded in order: records by offset, and holes.
async fn all_of(journal: Journal) -> Result<(BTreeMap<u64, Vec<u8>>, Vec<(u64, u64)>), SourceError> {
    let clock: Clock = Arc::new(|| HOUR.start());
    let mut source = JournalSource::new(journal.clone(), clock, 1);
    let (mut position, end) = (source.log_start().await?, source.log_end().await?);
    let mut state = WindowState::new(source.stream(), WindowStart { offset: position, appended_hour: HOUR.0 });
    let (mut records, mut holes) = (BTreeMap::new(), Vec::new());
    while position < end {
        let batches = source.read(position, Duration::from_secs(5)).await?;
        assert!(!batches.is_empty(), "nothing at {position} of {end}");
        for batch in batches {
            assert_eq!(batch.first_offset(), position, "the source gives no gap and no overlap");
            for (offset, record) in batch.records() {
                assert!(state.apply(offset, record).is_ok());
                records.insert(offset, record.to_vec());
            }
            position = batch.next_offset();
            if batch.lost() > 0 {
                holes.push((batch.first_offset(), position));
                state.pass_hole(position);
            }
        }
    }
    let ledger = state.freeze().ledger.unwrap();
    assert_eq!(ledger.seen + ledger.lost, ledger.next_offset - ledger.window_start);
    assert_eq!(ledger.seen, records.len() as u64);
    journal.close();
    Ok((records, holes))
}

/// Damages a file. Returns how.
fn damage(bytes: &mut Vec<u8>, seed: u64) -> String {
    let mut random = SplitMix64::new(seed * 7919);
    let length = bytes.len() as u64;
    let page = 4096;
    match seed % 5 {
        0 => {
            for _ in 0..20 {
                bytes[random.below(length) as usize] ^= 1 << random.below(8);
            }
            "20 bits".to_owned()
        }
        1 => {
            bytes[random.below(length) as usize] ^= 1 << random.below(8);
            "1 bit".to_owned()
        }
        2 => {
            let to = random.below(length) as usize;
            bytes.truncate(to);
            format!("truncated to {to}")
        }
        3 => {
            let at = (random.below(length / page) * page) as usize;
            bytes[at..at + page as usize].fill(0);
            format!("page at {at} zeroed")
        }
        _ => {
            let from = (length - 1 - random.below(length / 4)) as usize;
            bytes.extend_from_within(from..);
            // Or in place: old data over newer data.
            if random.below(2) == 0 {
                let at = (random.below(length / page) * page) as usize;
                let (source, size) = ((random.below(length / page) * page) as usize, page as usize);
                bytes.copy_within(source..source + size, at);
            }
            format!("tail from {from} again")
        }
    }
}

/// Outcomes of the seeds.
#[derive(Debug, Default)]
struct Tally {
    exact: u32,
    /// The last transaction before a kill is lost, as after a power failure during it; see the test.
    rolled_back: u32,
    refused: u32,
    salvaged: u32,
    lost: u64,
    no_state: u32,
}

async fn try_seed(original: &[u8], truth: &BTreeMap<u64, Vec<u8>>, killed: bool, seed: u64, tally: &mut Tally) {
    let directory = tempfile::tempdir().unwrap();
    let (path, target) = (directory.path().join("journal.redb"), directory.path().join("salvaged.redb"));
    let mut bytes = original.to_vec();
    let how = format!("seed {seed}: {}", damage(&mut bytes, seed));
    std::fs::write(&path, &bytes).unwrap();
    let end = truth.keys().last().unwrap() + 1;
    let salvaged = salvage::salvage(&path, &target);
    let opened = match open(&path) {
        Ok(journal) => all_of(journal).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match opened {
        Ok((records, holes)) => {
            let last = truth.last_key_value().unwrap().0;
            let rolled_back = killed && records.iter().eq(truth.iter().filter(|(offset, _)| *offset != last));
            assert!((records == *truth || rolled_back) && holes.is_empty(), "{how}: other records than were appended");
            *(if rolled_back { &mut tally.rolled_back } else { &mut tally.exact }) += 1;
        }
        Err(error) => {
            assert!(error.contains(&*path.to_string_lossy()), "{how}: {error}");
            assert!(error.contains("headcount journal salvage"), "{how}: {error}");
            assert!(error.contains("at offset") || salvaged.is_err(), "{how}: {error}");
            tally.refused += 1;
        }
    }
    let Ok(salvaged) = salvaged else {
        tally.no_state += 1;
        return;
    };
    let (records, holes) = all_of(open(&target).unwrap()).await.unwrap();
    for (offset, record) in &records {
        let trimmed = truth.keys().next().unwrap();
        assert!(truth.get(offset).is_none_or(|truth| truth == record), "{how}: another record at {offset}");
        assert!(offset < &end && (truth.contains_key(offset) || offset < trimmed), "{how}: a record at {offset}");
    }
    let lost: u64 = holes.iter().map(|(from, to)| to - from).sum();
    assert_eq!((records.len() as u64, lost), (salvaged.records, salvaged.lost()), "{how}");
    // Holes and records add up to all offsets. A part of the end is missing only if neither a newer state nor a newer batch is left.
    assert_eq!(records.len() as u64 + lost, salvaged.end - salvaged.begin, "{how}");
    if salvaged.end < end {
        println!("{how}: the end is {} of {end}", salvaged.end);
    }
    tally.salvaged += 1;
    tally.lost += lost;
}

/// Half of the files were closed; half are in the state that a kill leaves. In those redb drops the last transaction if its pages are damaged: it
/// cannot distinguish them from pages that a power failure left unwritten before the record was acknowledged.
///
/// `HEADCOUNT_DAMAGE_SEEDS`, such as 200, runs more seeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_gives_its_records_or_an_error() {
    let seeds = std::env::var("HEADCOUNT_DAMAGE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(30);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.redb");
    let truth = filled(&path, 3000).await;
    let closed = std::fs::read(&path).unwrap();
    let journal = open(&path).unwrap();
    let mut truth_of_killed = truth.clone();
    truth_of_killed.insert(*journal.end().borrow(), record(9_999));
    journal.append(0, record(9_999)).await.unwrap();
    let killed = std::fs::read(&path).unwrap();
    journal.close();
    let mut tally = Tally::default();
    for seed in 0..seeds {
        // There are 5 kinds of damage, so each is applied to both.
        if seed / 5 % 2 == 0 {
            try_seed(&closed, &truth, false, seed, &mut tally).await;
        } else {
            try_seed(&killed, &truth_of_killed, true, seed, &mut tally).await;
        }
    }
    println!("{seeds} seeds of damage in a file of {} bytes, {} records: {tally:?}", closed.len(), truth.len());
    assert!(tally.exact > 0 && tally.refused > 0 && tally.salvaged > 0 && tally.lost > 0);
}
