//! The journal with real files.

use super::*;

fn open(path: &Path) -> Journal {
    Journal::open(path, JournalConfig::default(), || Hour(100)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_survive_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let journal = open(&path);
    let stream = journal.stream();
    let appends: Vec<_> = (0..500u32)
        .map(|i| {
            let journal = journal.clone();
            tokio::spawn(async move { journal.append(0, i.to_le_bytes().to_vec()).await })
        })
        .collect();
    for append in appends {
        append.await.unwrap().unwrap();
    }
    journal.store_text("commit", "here").unwrap();
    journal.close();
    assert!(matches!(journal.append(0, vec![1]).await, Err(SinkError::Closed)));
    drop(journal);

    let journal = open(&path);
    assert_eq!((journal.stream(), *journal.end().borrow()), (stream, 500));
    assert_eq!(journal.text("commit").unwrap().as_deref(), Some("here"));
    let batches = journal.read(0, usize::MAX).unwrap();
    let mut seen: Vec<u32> = batches
        .iter()
        .flat_map(JournalBatch::records)
        .map(|record| u32::from_le_bytes(record.try_into().unwrap()))
        .collect();
    assert_eq!(batches.last().unwrap().next_offset(), 500);
    seen.sort_unstable();
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    // Reading in the middle starts with the batch that contains the offset.
    let from = batches.last().unwrap().first_offset;
    assert_eq!(journal.read(from, 1).unwrap().first().unwrap().first_offset, from);
    assert!(journal.read(500, 1).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_until_it_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let config = JournalConfig { capacity_bytes: Some(300), ..JournalConfig::default() };
    let journal = Journal::open(&path, config, || Hour(100)).unwrap();
    let mut stored = 0;
    while journal.append(0, vec![7; 50]).await.is_ok() {
        stored += 1;
        assert!(stored <= 6);
    }
    assert!(matches!(journal.append(0, vec![7; 50]).await, Err(SinkError::QueueFull)));
    let bytes = journal.stored_bytes();
    journal.close();
    drop(journal);
    // The figure outlives the process, and falls as records leave.
    let journal = Journal::open(&path, config, || Hour(100)).unwrap();
    assert_eq!(journal.stored_bytes(), bytes);
    journal.trim(stored, Hour(101)).unwrap();
    assert_eq!(journal.stored_bytes(), 0);
    journal.append(0, vec![7; 50]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trimming_keeps_offsets_rising() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let journal = open(&path);
    for _ in 0..3 {
        journal.append(0, vec![7]).await.unwrap();
    }
    assert_eq!(journal.trim(3, Hour(100)).unwrap(), 0, "too young to drop");
    assert_eq!(journal.trim(2, Hour(101)).unwrap(), 2);
    assert_eq!(journal.begin().unwrap(), 2);
    assert_eq!(journal.trim(3, Hour(101)).unwrap(), 1);
    journal.close();
    drop(journal);
    let journal = open(&path);
    assert_eq!(*journal.end().borrow(), 3);
    journal.append(0, vec![8]).await.unwrap();
    assert_eq!(journal.read(0, 100).unwrap()[0].first_offset, 3);
}

fn bounded(path: &Path, capacity_bytes: u64) -> Journal {
    let config = JournalConfig { capacity_bytes: Some(capacity_bytes), ..JournalConfig::default() };
    Journal::open(path, config, || Hour(100)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn counted_records_go_early_before_an_append_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = bounded(&dir.path().join("journal.redb"), 1000);
    let mut appended = 0;
    while journal.append(0, vec![7; 50]).await.is_ok() {
        appended += 1;
    }
    assert_eq!(journal.pressure().state, PressureState::Full);
    // The first half is counted: so many appends have space again, though nothing trims.
    let counted = appended / 2;
    journal.set_counted(counted);
    for _ in 0..counted {
        journal.append(0, vec![8; 50]).await.unwrap();
        let pressure = journal.pressure();
        assert!(pressure.state == PressureState::DropsEarly && pressure.stored_bytes <= 1000, "{pressure:?}");
    }
    assert_eq!((journal.begin().unwrap(), journal.pressure().dropped_early), (counted, counted));
    // The next one finds that nothing is left to drop; it was taken, and those after it are refused.
    let _ = journal.append(0, vec![9; 50]).await;
    assert!(matches!(journal.append(0, vec![9; 50]).await, Err(SinkError::QueueFull)));
    assert_eq!((journal.begin().unwrap(), journal.pressure().state), (counted, PressureState::Full));
}

/// What the bytes of records are in bytes of the disk, for records one by one (a quiet site) and in large batches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_stays_near_its_bound() {
    use std::os::unix::fs::MetadataExt as _;
    for (at_once, rounds) in [(1, 700), (64, 500), (4096, 10)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        let capacity = 1 << 20;
        let journal = bounded(&path, capacity);
        let size = || std::fs::metadata(&path).map(|file| (file.len(), file.blocks() * 512)).unwrap();
        let fresh = size();
        let bytes = if at_once == 1 { 4000 } else { 100 };
        for _ in 0..rounds {
            let appends = (0..at_once).map(|_| journal.append(0, vec![7; bytes]));
            assert!(futures_util::future::join_all(appends).await.iter().all(Result::is_ok));
            // All but the last is counted.
            journal.set_counted(*journal.end().borrow() - at_once);
        }
        let (length, blocks) = size();
        println!(
            "{at_once} at once: {} bytes stored of {capacity}; the file has {length} bytes, {blocks} on disk; fresh {fresh:?}",
            journal.stored_bytes()
        );
        let pressure = journal.pressure();
        assert!(pressure.dropped_early > 0 && pressure.stored_bytes <= capacity, "{pressure:?}");
        assert!(blocks <= 3 * capacity + (1 << 20), "{at_once} at once: {blocks} bytes on disk");
    }
}
