//! A database of an earlier schema version has the tables of a new one after the next start.

use ::clickhouse::Client;
use anyhow::{Result, ensure};
use harness::clickhouse;
use harness::roles::Deployment;
use schemas::migrations::{BEFORE, BEFORE_VERSION, FROM_BEFORE, SCHEMA_VERSION, statements};
use std::collections::BTreeMap;

/// The definition of each table and view, without the name of the database.
async fn definitions(client: &Client, database: &str) -> Result<BTreeMap<String, String>> {
    let sql = "SELECT name, create_table_query FROM system.tables WHERE database = ? AND NOT startsWith(name, '.')";
    let tables = client.query(sql).bind(database).fetch_all::<(String, String)>().await?;
    Ok(tables.into_iter().map(|(name, definition)| (name, definition.replace(database, "headcount"))).collect())
}

/// Runs these statements in the database.
async fn run(client: &Client, sql: &str) -> Result<()> {
    for statement in statements(sql) {
        client.query(&statement.replace('?', "??")).execute().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_database_gets_the_tables_of_a_new_one() -> Result<()> {
    let server = clickhouse::shared().await?;
    let client = Client::default().with_url(&server);
    let new = Deployment::new("127.0.0.1:1", &server)?;
    new.done(&["project", "add", "docs", "--host", "docs.example"]).await?;
    let expected = definitions(&client, &new.database).await?;
    ensure!(expected.len() > 20, "{expected:?}");
    // (version that the database had, statements of the last file that ran before a kill)
    for (version, repeated) in [(1, 0), (4, 0), (BEFORE_VERSION, 0), (BEFORE_VERSION, 1)] {
        let old = Deployment::new("127.0.0.1:1", &server)?;
        client.query(&format!("CREATE DATABASE {} ENGINE = Atomic", old.database)).execute().await?;
        let tables = client.clone().with_database(&old.database);
        for (_, sql) in &BEFORE[..version as usize] {
            run(&tables, sql).await?;
        }
        tables.query("INSERT INTO schema_version (version) VALUES (?)").bind(version).execute().await?;
        for statement in statements(FROM_BEFORE.1).take(repeated) {
            run(&tables, &statement).await?;
        }
        old.done(&["project", "add", "docs", "--host", "docs.example"]).await?;
        let found = definitions(&client, &old.database).await?;
        for (table, definition) in &expected {
            let other = found.get(table);
            ensure!(other == Some(definition), "from version {version}: {other:#?}\n{definition:#?}");
        }
        ensure!(found.len() == expected.len(), "from version {version}: {:?}", found.keys());
        let noted = tables.query("SELECT max(version) FROM schema_version").fetch_one::<u32>().await?;
        ensure!(noted == SCHEMA_VERSION, "version {noted}");
        old.drop_database().await?;
    }
    new.drop_database().await
}
