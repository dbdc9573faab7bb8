//! The country of a reader's IP address, from a file in the MaxMind DB format, for services without a proxy that sets it.

use crate::client::ClientAddress;
use arc_swap::ArcSwap;
use maxminddb::{PathElement, Reader, WithinOptions};
use serde::de::IgnoredAny;
use std::fmt;
use std::fs::{self, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest file that is read into memory, in bytes. Databases of cities have some 130 MB.
const MAX_BYTES: u64 = 512 << 20;

/// Paths of the country code in common databases: MaxMind and DB-IP; ip-location-db and IPinfo Lite; older ones of IPinfo.
const CODE_PATHS: [&[PathElement<'static>]; 3] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    &[PathElement::Key("country_code")],
    &[PathElement::Key("country")],
];

type Database = Reader<Vec<u8>>;

/// A database of countries in memory. Its clones share it.
#[derive(Clone)]
pub struct Countries(Arc<CountriesState>);

struct CountriesState {
    path: PathBuf,
    database: ArcSwap<Database>,
    /// The version of the file that was read last, whether or not it was usable.
    version: Mutex<Option<FileVersion>>,
    /// Whether a task checks the file now.
    is_checked: AtomicBool,
}

/// Metadata that changes when a file is replaced or written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum CountriesError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// A read of a pipe or a device may never end.
    #[error("it is no regular file")]
    NoFile,
    /// It would fill the memory.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// It is in another format, or incomplete.
    #[error("it is not a complete MaxMind DB file ({0})")]
    Format(#[from] maxminddb::MaxMindDbError),
    /// It is a database of other facts, such as networks' names.
    #[error("none of its records has a country")]
    NoCountry,
}

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Countries").field(&self.0.path).finish()
    }
}

impl Countries {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, is no complete database, or has no countries.
    pub fn open(path: &Path) -> Result<Self, CountriesError> {
        let (database, version) = read(path)?;
        Ok(Countries(Arc::new(CountriesState {
            path: path.to_owned(),
            database: ArcSwap::from_pointee(database),
            version: Mutex::new(Some(version)),
            is_checked: AtomicBool::new(false),
        })))
    }

    /// The country of an IP address in capital letters (ISO 3166-1 alpha-2), if the database has it.
    pub(crate) fn find(&self, client: &ClientAddress) -> Option<String> {
        let database = self.0.database.load();
        client.with_address(|address| code(&database.lookup(address).ok()?))
    }

    /// Starts to read the file again if it has changed. A file that cannot be used is logged once, and the database in memory stays.
    ///
    /// It returns at once: a file system over a network may not answer for a long time.
    pub(crate) fn refresh(&self) {
        if self.0.is_checked.swap(true, Ordering::AcqRel) {
            return;
        }
        let countries = self.clone();
        // A thread of its own: the runtime waits for its blocking tasks when it ends.
        let check = move || {
            // A panic over a file is logged by the hook; the database in memory stays active.
            let _ = catch_unwind(AssertUnwindSafe(|| countries.refresh_now()));
            countries.0.is_checked.store(false, Ordering::Release);
        };
        if let Err(error) = std::thread::Builder::new().name("countries".to_owned()).spawn(check) {
            self.0.is_checked.store(false, Ordering::Release);
            tracing::warn!(%error, "the database of countries is not checked for changes: no thread starts");
        }
    }

    fn refresh_now(&self) {
        let CountriesState { path, database, version, .. } = &*self.0;
        let found = fs::metadata(path).ok().map(|metadata| FileVersion::of(&metadata));
        {
            let mut version = version.lock().unwrap_or_else(PoisonError::into_inner);
            if *version == found {
                return;
            }
            *version = found;
        }
        match read(path) {
            Ok((read, _)) => {
                database.store(Arc::new(read));
                tracing::info!(path = %path.display(), "the database of countries has changed and was read again");
            }
            Err(error) => tracing::error!(
                path = %path.display(), %error,
                "the database of countries has changed and cannot be used; countries come from the previous version. Replace the file"
            ),
        }
    }
}

impl FileVersion {
    fn of(metadata: &Metadata) -> Self {
        FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            // Archives keep the times of modification, and other tools set them.
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.len(),
        }
    }
}

fn read(path: &Path) -> Result<(Database, FileVersion), CountriesError> {
    // Before the content: a change while it is read is found by the next check.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(CountriesError::NoFile);
    }
    if metadata.len() > MAX_BYTES {
        return Err(CountriesError::TooLarge);
    }
    let version = FileVersion::of(&metadata);
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let database = Reader::from_source(bytes)?;
    check(&database)?;
    Ok((database, version))
}

/// Reads every record. `Reader::verify` is stricter: it refuses databases without a description, such as those of ip-location-db.
fn check(database: &Database) -> Result<(), CountriesError> {
    let mut has_country = false;
    for record in database.networks(WithinOptions::default())? {
        let record = record?;
        record.decode::<IgnoredAny>()?;
        has_country |= code(&record).is_some();
    }
    has_country.then_some(()).ok_or(CountriesError::NoCountry)
}

fn code(record: &maxminddb::LookupResult<'_, Vec<u8>>) -> Option<String> {
    let text = CODE_PATHS.iter().find_map(|path| record.decode_path::<&str>(path).ok().flatten())?;
    country_code(text.as_bytes())
}

/// A country's code in capital letters. `XX` is the unknown country, and `T1`, which some proxies send, is Tor.
pub(crate) fn country_code(text: &[u8]) -> Option<String> {
    let is_code = text.len() == 2 && text.iter().all(u8::is_ascii_alphabetic) && !text.eq_ignore_ascii_case(b"XX");
    is_code.then(|| String::from_utf8_lossy(text).to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_database_of_countries_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("countries.mmdb");
        assert!(matches!(Countries::open(&path), Err(CountriesError::Unreadable(_))));
        assert!(matches!(Countries::open(home.path()), Err(CountriesError::NoFile)));
        fs::write(&path, "").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(Countries::open(&path), Err(CountriesError::TooLarge)));
        for content in [&b""[..], b"country", b"\xab\xcd\xefMaxMind.com"] {
            fs::write(&path, content).unwrap();
            assert!(matches!(Countries::open(&path), Err(CountriesError::Format(_))), "{content:?}");
        }
    }

    #[test]
    fn a_code_has_two_letters() {
        for (text, code) in
            [("DE", Some("DE")), ("de", Some("DE")), ("XX", None), ("T1", None), ("", None), ("DEU", None)]
        {
            assert_eq!(country_code(text.as_bytes()).as_deref(), code, "{text}");
        }
    }
}
