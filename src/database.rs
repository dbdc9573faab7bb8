//! The schema of ClickHouse: created, checked and migrated at start.

use anyhow::{Context, bail};
use clickhouse::Client;
use schemas::tables::{MIGRATIONS, SCHEMA_VERSION, statements};
use std::time::Duration;

/// Creates the database where it is missing, brings it to this program's version, and returns a client of it.
pub async fn prepare(server: &Client, database: &str, timeout: Duration) -> anyhow::Result<Client> {
    if !database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || database.is_empty() {
        bail!("setting `clickhouse_database` is {database:?}: expected letters, digits and underscores");
    }
    let run = async {
        // Atomic, not the engine's `default`: that one maps files.
        server
            .query(&format!("CREATE DATABASE IF NOT EXISTS {database} ENGINE = Atomic"))
            .execute()
            .await
            .context("cannot create the database in ClickHouse")?;
        let client = server.clone().with_database(database);
        let known: u64 = client
            .query("SELECT count() FROM system.tables WHERE database = ? AND name = 'schema_version'")
            .bind(database)
            .fetch_one()
            .await
            .context("cannot ask ClickHouse for its tables")?;
        let found: u32 = match known {
            0 => 0,
            _ => client
                .query("SELECT max(version) FROM schema_version")
                .fetch_one()
                .await
                .context("cannot read the schema's version")?,
        };
        if found > SCHEMA_VERSION {
            bail!(
                "the database {database} has schema version {found}, this program knows {SCHEMA_VERSION}: it was written \
                 by a newer headcount; run that version"
            );
        }
        for (version, sql) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
            for statement in statements(sql) {
                client
                    .query(&statement)
                    .execute()
                    .await
                    .with_context(|| format!("cannot bring the database {database} to schema version {version}"))?;
            }
            client
                .query("INSERT INTO schema_version (version) VALUES (?)")
                .bind(*version)
                .execute()
                .await
                .context("cannot note the schema's version")?;
            tracing::info!(database, version, "schema is up to date");
        }
        Ok(client)
    };
    match tokio::time::timeout(timeout, run).await {
        Ok(done) => done,
        Err(_) => bail!("ClickHouse did not answer within {} ms while its schema was checked", timeout.as_millis()),
    }
}
