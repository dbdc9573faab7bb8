//! The key of the coordinates. It is random when created, one for each period, and replaced at the period's end by a one-way function of itself.
//! Knowledge of today's key does not reveal yesterday's, so it cannot be tested whether a reader was counted then.
//!
//! The key is stored in one page of memory, which is kept out of swap and wiped when the period ends, and in one file of mode 0600,
//! `{"version":1,"period_kind":"month","period":24322,"key":"64 hex digits"}`. Copies that hashing leaves on the stack are wiped after each use, so
//! that no copy outlives the key.

use crate::private_file;
use arc_swap::ArcSwap;
use chrono::{DateTime, Datelike, Utc};
use schemas::Hour;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use zeroize::{Zeroize, Zeroizing};

/// Changing this text changes every key after the next step: never do.
const STEP_CONTEXT: &str = "headcount visitor key: step to the next period, version 1";

/// Used for the fingerprint only, which therefore reveals nothing of any other key.
const FINGERPRINT_CONTEXT: &str = "headcount visitor key: fingerprint, version 1";

/// How long one key lives, which defines a visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisitorPeriod {
    /// A reader counts once a month.
    Month,
    /// A reader counts once a day; a month's sum is of visitor-days.
    Day,
}

impl VisitorPeriod {
    /// Number of the period that `at` falls into, rising by one from each to the next.
    fn number(self, at: DateTime<Utc>) -> i64 {
        match self {
            VisitorPeriod::Month => i64::from(at.year()) * 12 + i64::from(at.month0()),
            VisitorPeriod::Day => at.timestamp().div_euclid(86_400),
        }
    }

    /// The period's first hour.
    fn first_hour(self, number: i64) -> Hour {
        match self {
            VisitorPeriod::Month => {
                let (year, month) = (number.div_euclid(12), number.rem_euclid(12) + 1);
                schemas::Month::new(year as u16, month as u8).map_or(Hour(0), schemas::Month::first_hour)
            }
            VisitorPeriod::Day => Hour((number * 24) as u32),
        }
    }

    /// The only spelling.
    pub const fn name(self) -> &'static str {
        match self {
            VisitorPeriod::Month => "month",
            VisitorPeriod::Day => "day",
        }
    }
}

/// Identifies keys without revealing them; safe to show. Nodes that count the same visitors show the same fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A separate page, so that locking and unlocking it affects no other data.
#[repr(C, align(4096))]
#[derive(Zeroize)]
struct KeyPage([u8; 4096]);

/// One period's key. Not printable; wiped when dropped.
pub struct PeriodKey {
    page: Box<KeyPage>,
    number: i64,
    hours: std::ops::Range<u32>,
    /// Keeps the page out of swap. Dropped after the page was wiped.
    _locked: Option<region::LockGuard>,
}

impl Drop for PeriodKey {
    fn drop(&mut self) {
        self.page.zeroize();
    }
}

/// Wipes what finished calls left on the stack: blake3 copies the key into its frames. 4 KiB is several times their depth. It takes a tenth of a
/// microsecond with writes of words, and eight times that with writes of bytes.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0u64; 512];
    below.zeroize();
    std::hint::black_box(&below);
}

impl PeriodKey {
    fn new(bytes: &[u8; 32], period: VisitorPeriod, number: i64) -> Self {
        let hours = period.first_hour(number).0..period.first_hour(number + 1).0;
        let mut page = Box::new(KeyPage([0; 4096]));
        let locked = region::lock(page.0.as_ptr(), page.0.len());
        if let Err(error) = &locked {
            tracing::warn!(%error, "the visitor key's memory could not be locked; it might be swapped to disk");
        }
        page.0[..32].copy_from_slice(bytes);
        PeriodKey { page, number, hours, _locked: locked.ok() }
    }

    /// A key for the period of `hour` that is in no file and unrelated to any other.
    pub(crate) fn random(period: VisitorPeriod, hour: Hour) -> Self {
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *bytes).expect("the operating system's generator");
        PeriodKey::new(&bytes, period, period.number(hour.start()))
    }

    fn bytes(&self) -> &[u8; 32] {
        self.page.0.first_chunk().expect("a page is longer than a key")
    }

    pub(crate) fn hash(&self, input: &[u8]) -> blake3::Hash {
        let hash = blake3::keyed_hash(self.bytes(), input);
        wipe_stack();
        hash
    }

    /// The public fingerprint of the key.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut digest = blake3::derive_key(FINGERPRINT_CONTEXT, self.bytes());
        let fingerprint = u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
        digest.zeroize();
        wipe_stack();
        Fingerprint(fingerprint)
    }

    /// The period's number: months since year 0, or days since 1970.
    pub fn number(&self) -> i64 {
        self.number
    }

    /// The first hour after the period.
    pub fn ends(&self) -> Hour {
        Hour(self.hours.end)
    }

    /// The period's first hour.
    pub fn begins(&self) -> Hour {
        Hour(self.hours.start)
    }

    /// The hour of a view at `now`. A clock that stepped back over the period's start must not return to the dead key's period: such views count in
    /// the first hour of the current one.
    pub fn hour_of(&self, now: DateTime<Utc>) -> Hour {
        Hour(Hour::of(now).0.max(self.hours.start))
    }

    fn next(&self, period: VisitorPeriod) -> Self {
        let next = Zeroizing::new(blake3::derive_key(STEP_CONTEXT, self.bytes()));
        let key = PeriodKey::new(&next, period, self.number + 1);
        drop(next);
        wipe_stack();
        key
    }
}

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Reading or writing the file failed.
    #[error("cannot {action} the visitor key {}", path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file's content is not a key.
    #[error("{} is no visitor key of version 1; move it away to start with a fresh key (visitors of the running period then count again)", .0.display())]
    Malformed(PathBuf),
    /// The file belongs to the other kind of period.
    #[error("{} is a key for visitor_period = \"{found}\", but the configuration says \"{expected}\"; change it back, or move the file away to start with a fresh key", path.display())]
    OtherPeriod {
        /// The file.
        path: PathBuf,
        /// The kind in the file.
        found: String,
        /// The kind configured.
        expected: &'static str,
    },
    /// Other users may read the file.
    #[error("{} may be read by others (mode {mode:o}); run: chmod 600 {}", path.display(), path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file is in a data directory of ClickHouse or Kafka, or beside a journal.
    #[error(
        "{} is within {}, {what}: a copy of that would contain the key. Set `key_file` to a file elsewhere",
        path.display(), directory.display()
    )]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// The directory that must not contain it.
        directory: PathBuf,
        /// What that directory is.
        what: &'static str,
    },
    /// There is a key already.
    #[error("{} is there already; a new key counts every visitor of the running period again. Move it away first", .0.display())]
    Exists(PathBuf),
    /// There is no key.
    #[error("there is no key at {}; `headcount keys init` makes one, and so does the endpoint's first start", .0.display())]
    Missing(PathBuf),
    /// The clock is far behind the key.
    #[error("the clock says {now}, but the key of {} is already that of a later period. Set the clock right; if it is right and ran ahead once, move the file away to start with a fresh key (visitors of the running period then count again)", path.display())]
    ClockBehind {
        /// The file.
        path: PathBuf,
        /// The clock's time.
        now: DateTime<Utc>,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

#[derive(Deserialize)]
struct KeyFile {
    version: u32,
    period_kind: String,
    period: i64,
    key: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// The current key, advanced by the calendar.
pub struct KeyRing {
    path: PathBuf,
    period: VisitorPeriod,
    current: ArcSwap<PeriodKey>,
    advancing: Mutex<()>,
    /// When a key was last erased, seconds since the epoch; 0 for not yet.
    destroyed: AtomicI64,
}

impl KeyRing {
    /// The same, for a key that exists already.
    pub fn open_existing(path: &Path, period: VisitorPeriod, now: DateTime<Utc>) -> Result<Self, KeyError> {
        if !path.exists() {
            return Err(KeyError::Missing(path.to_owned()));
        }
        KeyRing::open(path, period, now)
    }

    /// Creates a fresh key if there is none.
    pub fn create(path: &Path, period: VisitorPeriod, now: DateTime<Utc>) -> Result<Self, KeyError> {
        if path.exists() {
            return Err(KeyError::Exists(path.to_owned()));
        }
        KeyRing::open(path, period, now)
    }

    /// Imports another node's key from a copy of its file to `path`, if there is none. The copy is not removed: that is left to the user who made it.
    pub fn import(copy: &Path, path: &Path, period: VisitorPeriod, now: DateTime<Utc>) -> Result<Self, KeyError> {
        if path.exists() {
            return Err(KeyError::Exists(path.to_owned()));
        }
        well_placed(path)?;
        let key = read(copy, period)?.ok_or_else(|| KeyError::Missing(copy.to_owned()))?;
        write(path, period, &key)?;
        KeyRing::open(path, period, now)
    }

    /// Reads the key file, or creates a fresh key, and advances it to `now`.
    pub fn open(path: &Path, period: VisitorPeriod, now: DateTime<Utc>) -> Result<Self, KeyError> {
        well_placed(path)?;
        let key = match read(path, period)? {
            Some(key) => key,
            None => {
                let mut bytes = Zeroizing::new([0u8; 32]);
                getrandom::fill(&mut *bytes).map_err(KeyError::Random)?;
                let key = PeriodKey::new(&bytes, period, period.number(now));
                write(path, period, &key)?;
                key
            }
        };
        if i64::from(key.hours.start) * 3600 > now.timestamp() + 86_400 {
            return Err(KeyError::ClockBehind { path: path.to_owned(), now });
        }
        let ring = KeyRing {
            path: path.to_owned(),
            period,
            current: ArcSwap::from_pointee(key),
            advancing: Mutex::new(()),
            destroyed: AtomicI64::new(0),
        };
        ring.at(now)?;
        Ok(ring)
    }

    /// The kind of period.
    pub fn period(&self) -> VisitorPeriod {
        self.period
    }

    /// When this process last replaced and erased a key.
    pub fn destroyed(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.destroyed.load(Ordering::Relaxed), 0).filter(|at| at.timestamp() > 0)
    }

    /// The key for `now`; at a period's end it first steps, writes the new key and forgets the old one.
    pub fn at(&self, now: DateTime<Utc>) -> Result<Arc<PeriodKey>, KeyError> {
        let hour = Hour::of(now).0;
        let current = self.current.load_full();
        if hour < current.hours.end {
            return Ok(current);
        }
        drop(current);
        let _one_at_a_time = self.advancing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut key = self.current.load_full();
        if hour < key.hours.end {
            return Ok(key);
        }
        while hour >= key.hours.end {
            key = Arc::new(key.next(self.period));
        }
        // On disk before in use: a crash must not leave views of a key that is lost.
        write(&self.path, self.period, &key)?;
        self.current.store(Arc::clone(&key));
        self.destroyed.store(now.timestamp(), Ordering::Relaxed);
        tracing::info!(period = self.period.name(), "the visitor key of the past period was replaced and erased");
        Ok(key)
    }
}

/// Refuses a file within a data directory of ClickHouse or Kafka, or beside a journal.
fn well_placed(path: &Path) -> Result<(), KeyError> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let misplaced = |directory: &Path, what| {
        Err(KeyError::Misplaced { path: path.to_owned(), directory: directory.to_owned(), what })
    };
    for (above, directory) in whole.ancestors().skip(1).enumerate() {
        let has = |name: &str| directory.join(name).exists();
        if has("engine.json") || has("engine.version") || (has("store") && has("metadata")) {
            return misplaced(directory, "a data directory of ClickHouse");
        }
        if has("meta.properties") {
            return misplaced(directory, "a data directory of Kafka");
        }
        if above == 0 && (has("journal.redb") || has("spill.redb")) {
            return misplaced(directory, "the journal's directory");
        }
    }
    Ok(())
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { action, path, source }
}

fn read(path: &Path, period: VisitorPeriod) -> Result<Option<PeriodKey>, KeyError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_err(io_error("inspect", path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions { path: path.to_owned(), mode });
        }
    }
    let malformed = || KeyError::Malformed(path.to_owned());
    let file: KeyFile = serde_json::from_str(&text).map_err(|_| malformed())?;
    if file.version != 1 {
        return Err(malformed());
    }
    if file.period_kind != period.name() {
        let (found, expected) = (file.period_kind.clone(), period.name());
        return Err(KeyError::OtherPeriod { path: path.to_owned(), found, expected });
    }
    let bytes = unhex(&file.key).ok_or_else(malformed)?;
    let key = PeriodKey::new(&bytes, period, file.period);
    drop(bytes);
    wipe_stack();
    Ok(Some(key))
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
    }
    Some(bytes)
}

/// Replaces the file. The old file's bytes are overwritten first, as far as the file system lets us.
fn write(path: &Path, period: VisitorPeriod, key: &PeriodKey) -> Result<(), KeyError> {
    // Allocated at its full length from the start: text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(256));
    let _ = write!(text, r#"{{"version":1,"period_kind":"{}","period":{},"key":""#, period.name(), key.number);
    for &byte in key.bytes() {
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text.push_str("\"}");
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(io_error("create the directory of", path))?;
    // The old inode stays open through the rename, so after a crash the file has either key whole, never a wiped one.
    let old = fs::OpenOptions::new().write(true).open(path).ok();
    private_file::replace(path, text.as_bytes()).map_err(io_error("write", path))?;
    if let Some(mut old) = old {
        let length = old.metadata().map_or(0, |m| m.len()) as usize;
        let _ = old.write_all(&vec![b' '; length]).and_then(|()| old.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().to_utc()
    }

    fn fingerprint(key: &PeriodKey) -> blake3::Hash {
        key.hash(b"test")
    }

    #[test]
    fn a_key_lives_for_its_month_and_steps_alike_in_one_step_or_two() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("visitor.key");
        let ring = KeyRing::open(&path, VisitorPeriod::Month, at("2026-01-31T12:00:00Z")).unwrap();
        let january = fingerprint(&ring.at(at("2026-01-31T23:59:59Z")).unwrap());
        let copy = dir.path().join("copy.key");
        fs::copy(&path, &copy).unwrap();
        let march = fingerprint(&ring.at(at("2026-03-01T00:00:00Z")).unwrap());
        assert_ne!(january, march);
        // A node that slept through February arrives at the same key.
        let other = KeyRing::open(&copy, VisitorPeriod::Month, at("2026-02-10T00:00:00Z")).unwrap();
        assert_eq!(fingerprint(&other.at(at("2026-03-02T00:00:00Z")).unwrap()), march);
        // After a restart the key is the same.
        drop(ring);
        let again = KeyRing::open(&path, VisitorPeriod::Month, at("2026-03-05T00:00:00Z")).unwrap();
        assert_eq!(fingerprint(&again.at(at("2026-03-05T00:00:00Z")).unwrap()), march);
        // A clock that stepped back by seconds counts into the current period.
        let key = again.at(at("2026-02-28T23:59:59Z")).unwrap();
        assert_eq!(key.hour_of(at("2026-02-28T23:59:59Z")), Hour::of(at("2026-03-01T00:00:00Z")));
    }

    #[test]
    fn wrong_files_are_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("visitor.key");
        let now = at("2026-03-05T00:00:00Z");
        drop(KeyRing::open(&path, VisitorPeriod::Month, now).unwrap());
        assert!(matches!(KeyRing::open(&path, VisitorPeriod::Day, now), Err(KeyError::OtherPeriod { .. })));
        let before = at("2026-02-05T00:00:00Z");
        assert!(matches!(KeyRing::open(&path, VisitorPeriod::Month, before), Err(KeyError::ClockBehind { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(KeyRing::open(&path, VisitorPeriod::Month, now), Err(KeyError::Permissions { .. })));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert!(matches!(KeyRing::create(&path, VisitorPeriod::Month, now), Err(KeyError::Exists(_))));
        let elsewhere = dir.path().join("elsewhere.key");
        assert!(matches!(KeyRing::open_existing(&elsewhere, VisitorPeriod::Month, now), Err(KeyError::Missing(_))));
        let copied = KeyRing::import(&path, &elsewhere, VisitorPeriod::Month, now).unwrap();
        let original = KeyRing::open(&path, VisitorPeriod::Month, now).unwrap();
        let of = |ring: &KeyRing| ring.at(now).unwrap().fingerprint().to_string();
        assert_eq!(of(&copied), of(&original));
        for (marker, inside) in
            [("meta.properties", "a/visitor.key"), ("engine.json", "b/c/visitor.key"), ("journal.redb", "visitor.key")]
        {
            let other = dir.path().join(marker.replace('.', "-"));
            fs::create_dir_all(&other).unwrap();
            fs::write(other.join(marker), "").unwrap();
            let misplaced = KeyRing::open(&other.join(inside), VisitorPeriod::Month, now);
            assert!(matches!(misplaced, Err(KeyError::Misplaced { .. })), "{marker}");
        }
        fs::write(&path, "{}").unwrap();
        assert!(matches!(KeyRing::open(&path, VisitorPeriod::Month, now), Err(KeyError::Malformed(_))));
    }
}
