//! The country of a reader's IP address, from a file in the MaxMind DB format, for services behind no proxy that says it.

use crate::client::ClientAddress;
use arc_swap::ArcSwap;
use maxminddb::{PathElement, Reader, WithinOptions};
use std::fmt;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Records that are searched for a country before a database is refused.
const SEARCHED_RECORDS: usize = 1000;

/// Where the databases in use have the code: those of MaxMind and DB-IP, those of ip-location-db and IPinfo Lite, and IPinfo's older ones.
const CODE_PATHS: [&[PathElement<'static>]; 3] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    &[PathElement::Key("country_code")],
    &[PathElement::Key("country")],
];

type Database = Reader<Vec<u8>>;

/// A database of countries, read into memory. It is shared by its clones.
#[derive(Clone)]
pub struct Countries(Arc<Inner>);

struct Inner {
    path: PathBuf,
    database: ArcSwap<Database>,
    /// The version of the file that was read last, whether or not it could be used.
    version: Mutex<Option<FileVersion>>,
}

/// What changes when a file is replaced or written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum CountriesError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] std::io::Error),
    /// It is in another format, or incomplete.
    #[error("it is not a complete MaxMind DB file ({0})")]
    Format(#[from] maxminddb::MaxMindDbError),
    /// It is a database of something else, such as networks' names.
    #[error("none of its first {SEARCHED_RECORDS} records has a country")]
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
        Ok(Countries(Arc::new(Inner {
            path: path.to_owned(),
            database: ArcSwap::from_pointee(database),
            version: Mutex::new(Some(version)),
        })))
    }

    /// The country of an IP address in capital letters (ISO 3166-1 alpha-2), if the database has it.
    pub(crate) fn find(&self, client: &ClientAddress) -> Option<String> {
        let database = self.0.database.load();
        client.with_address(|address| code(&database.lookup(address).ok()?))
    }

    /// Reads the file again if it has changed. A file that cannot be used is logged once, and the database in memory stays.
    pub(crate) async fn refresh(&self) {
        let countries = self.clone();
        // A panic while a file is read is one of this process: the database stays, too.
        let _ = tokio::task::spawn_blocking(move || countries.refresh_now()).await;
    }

    fn refresh_now(&self) {
        let Inner { path, database, version } = &*self.0;
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
        FileVersion { modified: metadata.modified().ok(), bytes: metadata.len() }
    }
}

fn read(path: &Path) -> Result<(Database, FileVersion), CountriesError> {
    // Before the content: a change while it is read is found by the next check.
    let version = FileVersion::of(&fs::metadata(path)?);
    let database = Reader::from_source(fs::read(path)?)?;
    let mut records = database.networks(WithinOptions::default())?.take(SEARCHED_RECORDS);
    if !records.any(|record| record.is_ok_and(|record| code(&record).is_some())) {
        return Err(CountriesError::NoCountry);
    }
    Ok((database, version))
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
