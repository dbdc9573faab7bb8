//! The schema of ClickHouse: created, checked and migrated at start.

pub use storage::{Connect, Server, ServerConfig, WrongServer};

use anyhow::{Context, bail};
use clickhouse::Client;
use schemas::migrations::{SCHEMA_VERSION, all_statements, statements, steps_from};
use std::time::Duration;

/// The database has tables of a later version of this program.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database {database} has schema version {found}, this program knows {SCHEMA_VERSION}: it was written by a newer headcount; run \
     that version"
)]
pub struct NewerSchema {
    database: String,
    found: u32,
}

/// The database has tables of an earlier version, which only `serve` and `aggregate` migrate.
#[derive(Debug, thiserror::Error)]
#[error(
    "the database has schema version {found}, this program needs {SCHEMA_VERSION}: start `headcount aggregate` or `headcount serve` of this \
     version on it, which migrates the schema"
)]
pub struct OlderSchema {
    found: u32,
}

/// The schema version of `client`'s database, for processes that do not migrate it.
///
/// # Errors
/// ClickHouse refused the query, or the database has no schema.
pub async fn read_version(client: &Client) -> Result<u32, clickhouse::error::Error> {
    client.query("SELECT max(version) FROM schema_version").fetch_one().await
}

/// Refuses a database of a later version of this program.
///
/// # Errors
/// [`NewerSchema`].
pub fn check_not_newer(found: u32, database: &str) -> Result<(), NewerSchema> {
    if found > SCHEMA_VERSION { Err(NewerSchema { database: database.to_owned(), found }) } else { Ok(()) }
}

/// Refuses a database of an earlier version of this program.
///
/// # Errors
/// [`OlderSchema`].
pub fn check_not_older(found: u32) -> Result<(), OlderSchema> {
    if found < SCHEMA_VERSION { Err(OlderSchema { found }) } else { Ok(()) }
}

/// ClickHouse has lost stored rows: figures without them would be wrong without any sign of it.
#[derive(Debug, thiserror::Error)]
pub enum DamagedStore {
    /// Tables are missing although others of the same schema exist.
    #[error(
        "ClickHouse's data are damaged: the database {database} lacks {tables}, which its schema has. Stop the service and restore a backup of \
         ClickHouse's data; an older one is enough, since what the log still holds is counted again. Without a backup, move ClickHouse's data \
         away and start with `--recover`, which counts what the log still holds"
    )]
    Tables {
        /// The database.
        database: String,
        /// The missing tables, separated by commas.
        tables: String,
    },
    /// Stored files differ from what was written.
    #[error(
        "ClickHouse's data are damaged: these parts of the database {database} differ from their checksums: {parts}. Check the disk. Stop the \
         service and restore a backup of ClickHouse's data; an older one is enough, since what the log still holds is counted again. Without \
         a backup, move ClickHouse's data away and start with `--recover`, which counts what the log still holds"
    )]
    Checksums {
        /// The database.
        database: String,
        /// Names of the parts, with their tables, separated by commas.
        parts: String,
    },
    /// ClickHouse set parts aside that it could not read.
    #[error(
        "ClickHouse's data are damaged: ClickHouse could not read these parts of the database {database} and set them aside, so their rows \
         are missing from every figure: {parts}. Check the disk. Stop the service and restore a backup of ClickHouse's data; an older one is \
         enough, since what the log still holds is counted again. To go on without these rows, move the directories named here away; \
         `headcount audit` then names the figures that lack them, as far as the log still holds their records"
    )]
    Parts {
        /// The database.
        database: String,
        /// Directories of the parts, with their tables, separated by commas.
        parts: String,
    },
}

/// Stored bytes up to which [`verify_parts`] reads them all: some seconds of reading.
const VERIFIED_BYTES_MAX: u64 = 4 << 30;

/// Time limit for the verification of one table.
const VERIFY_WITHIN: Duration = Duration::from_secs(300);

/// Compares every stored file with its checksum. ClickHouse itself verifies only blocks of columns, when it reads them: a flipped bit in the file
/// with a part's number of rows hides rows without an error. A store of more than `VERIFIED_BYTES_MAX` is not verified, and one log line says that.
///
/// # Errors
/// [`DamagedStore`], or ClickHouse did not answer.
pub async fn verify_parts(client: &Client, database: &str, timeout: Duration) -> anyhow::Result<()> {
    let size =
        client.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = {database:String}");
    let bytes: u64 = in_time(timeout, size.param("database", database).fetch_one())
        .await?
        .context("cannot ask ClickHouse for its size")?;
    if bytes > VERIFIED_BYTES_MAX {
        tracing::info!(
            bytes,
            "ClickHouse's stored files are too large to be verified at start; `headcount audit` compares their rows"
        );
        return Ok(());
    }
    let mut broken = Vec::new();
    for table in missing_tables(&[]) {
        let check = format!("CHECK TABLE {table} SETTINGS check_query_single_value_result = 0");
        let checked = client.query(&check).fetch_all::<(String, bool, String)>();
        let parts =
            in_time(VERIFY_WITHIN, checked).await?.with_context(|| format!("cannot verify the table {table}"))?;
        broken.extend(parts.into_iter().filter(|(_, passed, _)| !passed).map(|(part, ..)| (table.clone(), part)));
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(DamagedStore::Checksums { database: database.to_owned(), parts: named(&broken) }.into())
    }
}

/// Parts that an error message names.
const NAMED_PARTS: usize = 5;

/// Parts that ClickHouse set aside because it could not read them. A merge that a power loss interrupted leaves one too, but then ClickHouse reads
/// the parts that were merged, so no row is missing.
const BROKEN_PARTS: &str = "SELECT lost.table, lost.path \
     FROM (SELECT * FROM system.detached_parts WHERE database = {database:String} AND startsWith(ifNull(reason, ''), 'broken')) AS lost \
     LEFT JOIN (SELECT * FROM system.parts WHERE active) AS part \
     ON lost.database = part.database AND lost.table = part.table AND lost.partition_id = part.partition_id \
         AND part.min_block_number >= lost.min_block_number AND part.max_block_number <= lost.max_block_number \
     GROUP BY lost.table, lost.path HAVING countIf(part.name != '') = 0 ORDER BY lost.table, lost.path";

/// Checks that ClickHouse still has every table of the schema and has set no unreadable part aside. Call it on a prepared database.
///
/// # Errors
/// [`DamagedStore`], or ClickHouse did not answer.
pub async fn check_store(client: &Client, database: &str, timeout: Duration) -> anyhow::Result<()> {
    let missing = missing_tables(&in_time(timeout, tables(client, database)).await??);
    if !missing.is_empty() {
        return Err(DamagedStore::Tables { database: database.to_owned(), tables: missing.join(", ") }.into());
    }
    let broken = client.query(BROKEN_PARTS).param("database", database).fetch_all::<(String, String)>();
    let broken = in_time(timeout, broken).await?.context("cannot ask ClickHouse for unreadable parts")?;
    if broken.is_empty() {
        Ok(())
    } else {
        Err(DamagedStore::Parts { database: database.to_owned(), parts: named(&broken) }.into())
    }
}

/// The first of these parts as (table, part), for a message.
fn named(broken: &[(String, String)]) -> String {
    let mut parts: Vec<String> =
        broken.iter().take(NAMED_PARTS).map(|(table, part)| format!("{part} (table {table})")).collect();
    if broken.len() > parts.len() {
        parts.push(format!("and {} more", broken.len() - parts.len()));
    }
    parts.join(", ")
}

/// Names of the existing tables.
async fn tables(client: &Client, database: &str) -> anyhow::Result<Vec<String>> {
    let names = client
        .query("SELECT name FROM system.tables WHERE database = {database:String}")
        .param("database", database)
        .fetch_all();
    names.await.context("cannot ask ClickHouse for its tables")
}

/// Tables of the schema that are not `found`. A later file may replace a table by a view; that is not among them.
fn missing_tables(found: &[String]) -> Vec<String> {
    let statements: Vec<String> = all_statements().collect();
    let names = |prefix: &'static str| {
        let rest = statements.iter().filter_map(move |statement| statement.strip_prefix(prefix));
        rest.filter_map(|rest| rest.split_whitespace().next().map(str::to_owned))
    };
    let views: Vec<String> = names("CREATE OR REPLACE VIEW ").collect();
    names("CREATE TABLE IF NOT EXISTS ").filter(|table| !views.contains(table) && !found.contains(table)).collect()
}

/// Checks the server, creates the database if it is missing, migrates it to this program's version, and returns a client for it.
///
/// # Errors
/// [`WrongServer`] if a retry does not help; the database is newer than this program; or ClickHouse failed.
pub async fn prepare(server: &Server, database: &str, timeout: Duration) -> anyhow::Result<Client> {
    check_name(database)?;
    // The check must precede any write.
    in_time(timeout, server.check()).await??;
    migrate(&server.unchecked(), database, timeout).await?;
    in_time(timeout, server.bind()).await??;
    Ok(server.client())
}

/// Least time limit of a statement of a migration: it may copy a table.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(3_600);

async fn migrate(server: &Client, database: &str, timeout: Duration) -> anyhow::Result<()> {
    // Atomic, not the engine's `default`: that one maps files.
    let create = format!("CREATE DATABASE IF NOT EXISTS {database} ENGINE = Atomic");
    in_time(timeout, server.query(&create).execute()).await?.context("cannot create the database in ClickHouse")?;
    let client = server.clone().with_database(database);
    let found = in_time(timeout, version(&client, database)).await??;
    check_not_newer(found, database)?;
    for (version, sql) in steps_from(found) {
        for statement in statements(sql) {
            in_time(timeout.max(MIGRATION_TIMEOUT), client.query(&statement).execute())
                .await?
                .with_context(|| format!("cannot bring the database {database} to schema version {version}"))?;
        }
        let noted = client
            .query("INSERT INTO schema_version (version) SELECT {version:UInt32}")
            .param("version", version)
            .execute();
        in_time(timeout, noted).await?.context("cannot note the schema's version")?;
        tracing::info!(database, version, "schema is up to date");
    }
    Ok(())
}

/// Refuses an invalid name of a database.
///
/// # Errors
/// The name is empty, or has characters other than letters, digits and underscores.
pub fn check_name(database: &str) -> anyhow::Result<()> {
    if !database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || database.is_empty() {
        bail!("setting `clickhouse_database` is {database:?}: expected letters, digits and underscores");
    }
    Ok(())
}

/// The schema version of the database; 0 if it has none.
async fn version(client: &Client, database: &str) -> anyhow::Result<u32> {
    let found = tables(client, database).await?;
    if !found.iter().any(|table| table == "schema_version") {
        // The first statement of all creates it: otherwise migrations would create empty tables in place of lost ones.
        if missing_tables(&found).len() < missing_tables(&[]).len() {
            let tables = missing_tables(&found).join(", ");
            return Err(DamagedStore::Tables { database: database.to_owned(), tables }.into());
        }
        return Ok(0);
    }
    read_version(client).await.context("cannot read the schema's version")
}

/// `timeout` applies to each query or statement, however many a new schema takes.
async fn in_time<T>(timeout: Duration, question: impl Future<Output = T>) -> anyhow::Result<T> {
    match tokio::time::timeout(timeout, question).await {
        Ok(answer) => Ok(answer),
        Err(_) => bail!("ClickHouse did not answer within {} ms while its schema was checked", timeout.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_of_another_version_says_what_to_run() {
        assert!(check_not_newer(SCHEMA_VERSION, "headcount").is_ok() && check_not_older(SCHEMA_VERSION).is_ok());
        let newer = check_not_newer(SCHEMA_VERSION + 1, "headcount").unwrap_err().to_string();
        assert!(newer.contains("written by a newer headcount; run that version"), "{newer}");
        let older = check_not_older(SCHEMA_VERSION - 1).unwrap_err().to_string();
        assert!(older.contains("start `headcount aggregate` or `headcount serve` of this version"), "{older}");
    }

    #[test]
    fn every_table_of_the_schema_is_expected() {
        let all = missing_tables(&[]);
        assert!(
            ["schema_version", "ledger", "page_daily", "token", "month_due"]
                .iter()
                .all(|name| all.contains(&(*name).to_owned()))
        );
        assert!(!all.contains(&"breakdown_daily".to_owned()), "it is a view");
        let found: Vec<String> = all.iter().filter(|table| *table != "ledger").cloned().collect();
        assert_eq!(missing_tables(&found), ["ledger"]);
    }
}
