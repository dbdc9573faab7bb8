//! A database of an earlier schema version has the tables of a new one after the next start.

use ::clickhouse::Client;
use anyhow::{Result, ensure};
use harness::clickhouse;
use harness::roles::Deployment;
use schemas::migrations::{BEFORE, BEFORE_VERSION, FILES, FROM_BEFORE, SCHEMA_VERSION, statements, steps_from};
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
    let packed = BEFORE_VERSION + 1;
    // (version that the database had, statements of the next file that ran before a kill)
    for (version, repeated) in [(1, 0), (4, 0), (BEFORE_VERSION, 0), (BEFORE_VERSION, 1), (packed, 0), (packed, 2)] {
        let old = Deployment::new("127.0.0.1:1", &server)?;
        client.query(&format!("CREATE DATABASE {} ENGINE = Atomic", old.database)).execute().await?;
        let tables = client.clone().with_database(&old.database);
        let (files, next) = if version > BEFORE_VERSION {
            (&FILES[..(version - BEFORE_VERSION) as usize], FILES[(version - BEFORE_VERSION) as usize])
        } else {
            (&BEFORE[..version as usize], FROM_BEFORE)
        };
        for (_, sql) in files {
            run(&tables, sql).await?;
        }
        tables.query("INSERT INTO schema_version (version) VALUES (?)").bind(version).execute().await?;
        for statement in statements(next.1).take(repeated) {
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

/// Views by robots of two hours in two windows, and of a closed month, as version 9 has them.
const ROBOTS_OF_VERSION_9: &str = "
    INSERT INTO site_hourly (project, hour, views, bots_search, bots_ai_crawler, stream, window_start, next_offset) VALUES
        ('docs', '2026-06-01 01:00:00', 1, 2, 3, 1, 0, 5), ('docs', '2026-06-01 01:00:00', 1, 3, 4, 1, 0, 9),
        ('docs', '2026-06-01 02:00:00', 0, 5, 0, 1, 0, 7), ('docs', '2026-06-01 02:00:00', 0, 7, 0, 1, 10, 19),
        ('docs', '2026-06-02 02:00:00', 0, 0, 11, 1, 10, 19);
    INSERT INTO breakdown_daily (project, day, dimension, value, views, stream, window_start, next_offset) VALUES
        ('docs', '2026-06-01', 'bot', 'Googlebot', 15, 1, 0, 9);
    INSERT INTO month_closed (project, month, run, bots_preview, bots_other, day_bots, day_visitors, day_errors) VALUES
        ('docs', '2026-05-01', 7, 13, 17, arrayResize([30], 31), arrayResize([0], 31), arrayResize([0.], 31));
    INSERT INTO month_close (month, run, finished, streams, windows, projects, views) VALUES
        ('2026-05-01', 7, '2026-06-05 00:00:00', [1], [0], 1, 0)";

/// Wherever the migration was stopped, the next one leaves each figure once.
#[tokio::test(flavor = "multi_thread")]
async fn views_by_robots_are_copied_once_wherever_the_migration_stops() -> Result<()> {
    let server = clickhouse::shared().await?;
    let client = Client::default().with_url(&server);
    let steps = steps_from(BEFORE_VERSION);
    let all: Vec<String> = steps.iter().flat_map(|(_, sql)| statements(sql)).collect();
    // The objects that 0001_tables.sql creates after these have no figures.
    for stopped in 0..=statements(FROM_BEFORE.1).count() {
        let database = Deployment::new("127.0.0.1:1", &server)?.database.clone();
        client.query(&format!("CREATE DATABASE {database} ENGINE = Atomic")).execute().await?;
        let tables = client.clone().with_database(&database);
        for (_, sql) in BEFORE {
            run(&tables, sql).await?;
        }
        run(&tables, ROBOTS_OF_VERSION_9).await?;
        for statement in all.iter().take(stopped).chain(&all) {
            run(&tables, statement).await?;
        }
        let sql = "SELECT toString(day), CAST(kind AS String), name, stream, window_start, next_offset, views FROM robot_daily FINAL \
                   ORDER BY day, window_start, kind";
        let rows = tables.query(sql).fetch_all::<(String, String, String, u64, u64, u64, u64)>().await?;
        let row = |day: &str, kind: &str, window: u64, next_offset: u64, views: u64| {
            (day.to_owned(), kind.to_owned(), String::new(), 1, window, next_offset, views)
        };
        let expected = [
            row("2026-06-01", "ai_crawler", 0, 9, 4),
            row("2026-06-01", "search", 0, 9, 8),
            row("2026-06-01", "search", 10, 19, 7),
            row("2026-06-02", "ai_crawler", 10, 19, 11),
        ];
        ensure!(rows == expected, "stopped after {stopped} statements: {rows:?}");
        let sql = "SELECT CAST(kind AS String) AS kind, name, run, views FROM month_closed_robot FINAL ORDER BY kind";
        let closed = tables.query(sql).fetch_all::<(String, String, u64, u64)>().await?;
        let row = |kind: &str, views| (kind.to_owned(), String::new(), 7, views);
        ensure!(closed == [row("other_bot", 17), row("preview", 13)], "stopped after {stopped}: {closed:?}");
        let sql = "SELECT toString(month), bots FROM monthly_traffic ORDER BY month";
        let months = tables.query(sql).fetch_all::<(String, u64)>().await?;
        ensure!(months == [("2026-05-01".to_owned(), 30), ("2026-06-01".to_owned(), 30)], "{months:?}");
        let sql = "SELECT toString(day), assumeNotNull(bots) FROM daily_traffic ORDER BY day";
        let days = tables.query(sql).fetch_all::<(String, u64)>().await?;
        let expected =
            [("2026-05-01", 30), ("2026-06-01", 19), ("2026-06-02", 11)].map(|(day, of)| (day.to_owned(), of));
        ensure!(days == expected, "{days:?}");
        let names = tables.query("SELECT sum(views) FROM breakdown_daily FINAL WHERE dimension = 'bot'");
        ensure!(names.fetch_one::<u64>().await? == 15, "the names stay");
        client.query(&format!("DROP DATABASE {database} SYNC")).execute().await?;
    }
    Ok(())
}

/// Values of two days in two windows, as version 10 has them. The last flush of the second window did not end: the ledger counts to 20 only.
const VALUES_OF_VERSION_10: &str = "
    INSERT INTO breakdown_daily (project, day, dimension, value, views, stream, window_start, next_offset, source) VALUES
        ('docs', '2026-06-01', 'version', '2.0', 4, 1, 0, 7, 'headcount'),
        ('docs', '2026-06-01', 'version', '1.0', 2, 1, 0, 7, 'headcount'),
        ('docs', '2026-06-01', 'version', '2.0', 1, 1, 0, 9, 'plausible'),
        ('docs', '2026-06-02', 'version', '2.0', 5, 1, 10, 19, 'headcount');
    INSERT INTO breakdown_daily (project, day, dimension, value, views, stream, window_start, next_offset, source) VALUES
        ('docs', '2026-06-01', 'version', '1.0', 3, 1, 0, 9, 'headcount'),
        ('docs', '2026-06-02', 'bot', 'Googlebot', 6, 1, 10, 25, 'headcount');
    INSERT INTO ledger (stream, window_start, next_offset) VALUES (1, 0, 9), (1, 10, 15), (1, 10, 20)";

/// (day, source, window, next offset, values) of each row.
type Packed = (String, String, u64, u64, String);

async fn packed(tables: &Client) -> Result<Vec<Packed>> {
    let sql = "SELECT toString(day), CAST(source AS String), window_start, next_offset, \
               arrayStringConcat(arrayMap((of, value, views) -> concat(of, ' ', value, ' ', views), dimensions, values, views), ', ') \
               FROM breakdown_window FINAL ORDER BY day, source";
    Ok(tables.query(sql).fetch_all().await?)
}

/// Wherever the migration was stopped, and if two processes migrate, each value is in one row, and the old name has the old columns.
#[tokio::test(flavor = "multi_thread")]
async fn values_are_packed_once_wherever_the_migration_stops() -> Result<()> {
    let server = clickhouse::shared().await?;
    let client = Client::default().with_url(&server);
    let all: Vec<String> = statements(FILES[1].1).collect();
    let row = |day: &str, source: &str, (window, next_offset), values: &str| -> Packed {
        (day.to_owned(), source.to_owned(), window, next_offset, values.to_owned())
    };
    let expected = [
        row("2026-06-01", "headcount", (0, 9), "version 1.0 3, version 2.0 4"),
        row("2026-06-01", "plausible", (0, 9), "version 2.0 1"),
        row("2026-06-02", "headcount", (10, 20), "bot Googlebot 6, version 2.0 5"),
    ];
    for stopped in 0..=all.len() {
        let database = Deployment::new("127.0.0.1:1", &server)?.database.clone();
        client.query(&format!("CREATE DATABASE {database} ENGINE = Atomic")).execute().await?;
        let tables = client.clone().with_database(&database);
        run(&tables, FILES[0].1).await?;
        run(&tables, VALUES_OF_VERSION_10).await?;
        let columns = "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'breakdown_daily' ORDER BY position";
        let old = tables.query(columns).fetch_all::<(String, String)>().await?;
        for statement in all.iter().take(stopped) {
            run(&tables, statement).await?;
        }
        let migrated = async || run(&tables, FILES[1].1).await;
        tokio::try_join!(migrated(), migrated())?;
        let found = packed(&tables).await?;
        ensure!(found == expected, "stopped after {stopped} statements: {found:#?}");
        let new = tables.query(columns).fetch_all::<(String, String)>().await?;
        ensure!(new == old, "{new:?}\n{old:?}");
        let sql = "SELECT sum(views), count() FROM breakdown_daily FINAL WHERE dimension = 'version'";
        let (views, rows): (u64, u64) = tables.query(sql).fetch_one().await?;
        ensure!((views, rows) == (13, 4), "stopped after {stopped} statements: {views} views, {rows} rows");

        // An aggregator folds the open window again; a process that migrates later does not undo its rows.
        let folded = "INSERT INTO breakdown_window (project, day, dimensions, values, views, stream, window_start, next_offset) VALUES \
                      ('docs', '2026-06-02', ['version', 'version'], ['2.0', '3.0'], [5, 1], 1, 10, 21)";
        run(&tables, folded).await?;
        run(&tables, FILES[1].1).await?;
        let found = packed(&tables).await?;
        let newer = row("2026-06-02", "headcount", (10, 21), "version 2.0 5, version 3.0 1");
        ensure!(found[..2] == expected[..2] && found[2..] == [newer], "{found:#?}");
        client.query(&format!("DROP DATABASE {database} SYNC")).execute().await?;
    }
    Ok(())
}
