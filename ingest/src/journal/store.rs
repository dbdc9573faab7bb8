//! The journal's file: opened and verified, and the one boundary at which the store's errors and panics become this crate's.

use super::format::{State, header, verified};
use super::{JournalError, salvage};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub(super) const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
const STATE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("state");
const STATE_KEY: &str = "state";
/// The equivalent of the state in files without one.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");

/// redb's page cache. Appends and reads near the end touch few pages.
const CACHE_BYTES: usize = 8 << 20;

/// Why a call to the store failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error of redb.
    Store(redb::Error),
    /// The stored bytes are not the ones that were written: offset, if known, and the fault.
    Damaged(Option<u64>, String),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::from(redb::Error::from(error))
            }
        })*
    };
}

from_redb!(redb::DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl From<redb::Error> for Failure {
    fn from(error: redb::Error) -> Self {
        match &error {
            redb::Error::Io(io) if matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
                Failure::Damaged(None, error.to_string())
            }
            redb::Error::Corrupted(_)
            | redb::Error::LockPoisoned(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableIsNotMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => Failure::Damaged(None, error.to_string()),
            _ => Failure::Store(error),
        }
    }
}

impl Failure {
    pub(super) fn of(self, path: &Path) -> JournalError {
        match self {
            Failure::Store(error) => JournalError::Store(error),
            Failure::Damaged(offset, found) => JournalError::Damaged { path: path.to_owned(), offset, found },
        }
    }
}

/// Runs a call to redb, which panics on some damaged pages.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Failure::Damaged(None, "the store panicked on one of its pages".to_owned())))
}

/// The state within a transaction.
pub(super) fn state_in(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<State>, Failure> {
    let Some(bytes) = table.get(STATE_KEY)? else { return Ok(None) };
    match State::decode(bytes.value()) {
        Some(state) => Ok(Some(state)),
        None => Err(Failure::Damaged(None, "the checksum of the journal's state is wrong".to_owned())),
    }
}

fn no_state() -> Failure {
    Failure::Damaged(None, "the journal has no state".to_owned())
}

/// The state of an open file.
pub(super) fn state_of(database: &Database) -> Result<State, Failure> {
    state_at(&database.begin_read()?)
}

/// The state as of a transaction.
pub(super) fn state_at(transaction: &redb::ReadTransaction) -> Result<State, Failure> {
    state_in(&transaction.open_table(STATE)?)?.ok_or_else(no_state)
}

/// Changes batches and state in one transaction: both become durable, or neither.
pub(super) fn change<T>(
    database: &Database,
    run: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>, &mut State) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = database.begin_write()?;
    let outcome = {
        let mut batches = transaction.open_table(BATCHES)?;
        let mut table = transaction.open_table(STATE)?;
        let mut state = state_in(&table)?.ok_or_else(no_state)?;
        let outcome = run(&mut batches, &mut state)?;
        state.sequence += 1;
        table.insert(STATE_KEY, state.encode().as_slice())?;
        outcome
    };
    transaction.commit()?;
    Ok(outcome)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Every page is verified: the store's own structure has no other protection against damage, and a plain opening may panic.
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    builder
}

/// Opens the file, or creates it with `stream`. Returns it with its state. The error for a damaged file describes its readable part.
pub(super) fn open(
    path: &Path,
    new_stream: impl FnOnce() -> Result<u64, JournalError>,
) -> Result<(Database, State), JournalError> {
    if !path.exists() {
        create(path, &State { stream: new_stream()?, ..State::default() })?;
    }
    let opened = guarded(|| {
        // redb takes an empty file for a new one, and would start a log at offset 0 again.
        if std::fs::metadata(path).map_err(redb::Error::Io)?.len() == 0 {
            return Err(Failure::Damaged(None, "the file is empty".to_owned()));
        }
        let database = builder().open(path)?;
        adopt(&database)?;
        check(&database)?;
        change(&database, |_, state| {
            state.start_generation();
            Ok(())
        })?;
        let state = state_of(&database)?;
        Ok((database, state))
    });
    opened.map_err(|failure| match failure {
        Failure::Store(cause) => JournalError::Open { path: path.to_owned(), cause },
        Failure::Damaged(offset, found) => salvage::explained(path, offset, found),
    })
}

/// Creates a file. It gets its name only when it is complete, so an interrupted start leaves nothing that seems damaged.
pub(super) fn create(path: &Path, state: &State) -> Result<Database, JournalError> {
    let name = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        PathBuf::from(name)
    };
    let unfinished = name(path);
    let make = || -> Result<Database, Failure> {
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(redb::Error::Io(error).into()),
            _ => {}
        }
        let database = builder().create(&unfinished)?;
        let transaction = database.begin_write()?;
        transaction.open_table(BATCHES)?;
        transaction.open_table(STATE)?.insert(STATE_KEY, state.encode().as_slice())?;
        transaction.commit()?;
        std::fs::rename(&unfinished, path).map_err(redb::Error::Io)?;
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(redb::Error::Io)?;
        }
        Ok(database)
    };
    guarded(make).map_err(|failure| match failure {
        Failure::Store(cause) => JournalError::Open { path: path.to_owned(), cause },
        damaged @ Failure::Damaged(..) => damaged.of(path),
    })
}

/// Creates the state of a file of version 1 from its numbers and texts.
fn adopt(database: &Database) -> Result<(), Failure> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(STATE)?;
        if state_in(&table)?.is_some() {
            return Ok(());
        }
        let numbers = transaction.open_table(NUMBERS)?;
        let number = |name: &str| -> Result<Option<u64>, Failure> { Ok(numbers.get(name)?.map(|value| value.value())) };
        let batches = transaction.open_table(BATCHES)?;
        let mut state = State {
            // Without a stream there is neither a state nor the numbers of an earlier version.
            stream: number("stream")?.ok_or_else(no_state)?,
            trimmed_below: number("trimmed_below")?.unwrap_or(0),
            ..State::default()
        };
        state.end = state.trimmed_below;
        for entry in batches.range::<u64>(..)? {
            let (first, bytes) = entry?;
            let header = verified(bytes.value()).filter(|header| header.place.is_none());
            let Some(header) = header else {
                let found = "a batch is not of the version that a journal without a state has".to_owned();
                return Err(Failure::Damaged(Some(first.value()), found));
            };
            state.end = first.value() + u64::from(header.count);
            state.stored_bytes += bytes.value().len() as u64;
        }
        for entry in transaction.open_table(TEXTS)?.range::<&str>(..)? {
            let (name, text) = entry?;
            state.texts.insert(name.value().to_owned(), text.value().to_owned());
        }
        table.insert(STATE_KEY, state.encode().as_slice())?;
    }
    transaction.delete_table(NUMBERS)?;
    transaction.delete_table(TEXTS)?;
    transaction.commit()?;
    Ok(())
}

/// Whether state and batches agree on the start and the end of the log.
fn check(database: &Database) -> Result<(), Failure> {
    let state = state_of(database)?;
    let transaction = database.begin_read()?;
    let batches = transaction.open_table(BATCHES)?;
    if let Some((first, bytes)) = batches.first()? {
        let version_2 = header(bytes.value()).is_some_and(|header| header.place.is_some());
        if version_2 && first.value() != state.trimmed_below {
            let found = format!("the log begins at offset {} instead of {}", first.value(), state.trimmed_below);
            return Err(Failure::Damaged(Some(state.trimmed_below), found));
        }
    }
    let end = match batches.last()? {
        None => state.trimmed_below,
        Some((first, bytes)) => {
            let header = verified(bytes.value());
            let header = header.filter(|header| {
                header.place.is_none_or(|place| place == (first.value(), schemas::StreamId(state.stream)))
            });
            let Some(header) = header else {
                let found = "the checksum of the last batch is wrong".to_owned();
                return Err(Failure::Damaged(Some(first.value()), found));
            };
            first.value() + u64::from(header.count)
        }
    };
    if end != state.end {
        let found = format!("the last batch ends at offset {end}, the state says {}", state.end);
        return Err(Failure::Damaged(Some(end.min(state.end)), found));
    }
    Ok(())
}
