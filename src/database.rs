//! The schema of ClickHouse: created, checked and migrated at start.

mod layout;
mod server;

pub use server::{Connect, Server, ServerConfig, WrongServer};

use anyhow::{Context, bail};
use clickhouse::Client;
use schemas::tables::{MIGRATIONS, SCHEMA_VERSION, statements};
use std::time::Duration;

/// Checks the server, creates the database where it is missing, brings it to this program's version, and returns a client of it.
///
/// # Errors
/// [`WrongServer`] where another attempt does not help; the database is newer than this program; or ClickHouse failed.
pub async fn prepare(server: &Server, database: &str, timeout: Duration) -> anyhow::Result<Client> {
    check_name(database)?;
    // The check comes before anything is written.
    in_time(timeout, server.check()).await??;
    migrate(&server.unchecked(), database, timeout).await?;
    in_time(timeout, server.bind()).await??;
    Ok(server.client())
}

async fn migrate(server: &Client, database: &str, timeout: Duration) -> anyhow::Result<()> {
    // Atomic, not the engine's `default`: that one maps files.
    let create = format!("CREATE DATABASE IF NOT EXISTS {database} ENGINE = Atomic");
    in_time(timeout, server.query(&create).execute()).await?.context("cannot create the database in ClickHouse")?;
    let client = server.clone().with_database(database);
    let found = in_time(timeout, version(&client, database)).await??;
    if found > SCHEMA_VERSION {
        bail!(
            "the database {database} has schema version {found}, this program knows {SCHEMA_VERSION}: it was written by a \
             newer headcount; run that version"
        );
    }
    for (version, sql) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
        for statement in statements(sql) {
            in_time(timeout, client.query(&statement).execute())
                .await?
                .with_context(|| format!("cannot bring the database {database} to schema version {version}"))?;
        }
        let noted = client.query("INSERT INTO schema_version (version) VALUES (?)").bind(*version).execute();
        in_time(timeout, noted).await?.context("cannot note the schema's version")?;
        tracing::info!(database, version, "schema is up to date");
    }
    Ok(())
}

/// Refuses what cannot be the name of a database.
///
/// # Errors
/// It has other characters than letters, digits and underscores, or none.
pub fn check_name(database: &str) -> anyhow::Result<()> {
    if !database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || database.is_empty() {
        bail!("setting `clickhouse_database` is {database:?}: expected letters, digits and underscores");
    }
    Ok(())
}

/// Of the schema that the database has; 0 where it has none.
async fn version(client: &Client, database: &str) -> anyhow::Result<u32> {
    let known: u64 = client
        .query("SELECT count() FROM system.tables WHERE database = ? AND name = 'schema_version'")
        .bind(database)
        .fetch_one()
        .await
        .context("cannot ask ClickHouse for its tables")?;
    if known == 0 {
        return Ok(0);
    }
    client
        .query("SELECT max(version) FROM schema_version")
        .fetch_one()
        .await
        .context("cannot read the schema's version")
}

/// One question or statement has `timeout`, however many a new schema takes.
async fn in_time<T>(timeout: Duration, question: impl Future<Output = T>) -> anyhow::Result<T> {
    match tokio::time::timeout(timeout, question).await {
        Ok(answer) => Ok(answer),
        Err(_) => bail!("ClickHouse did not answer within {} ms while its schema was checked", timeout.as_millis()),
    }
}
