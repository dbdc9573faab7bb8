//! ClickHouse alone: a Kafka table on the same topic, and materialized views that count the same figures as headcount.
//!
//! ClickHouse decodes the unchanged protobuf records with the schema that wrote them. Columns are named after the path of a field
//! (`page_view.project`). The other message of a oneof leaves its columns empty, so a tally of refusals has no project. The message is named without
//! its package; with it, ClickHouse does not find it. The schema is passed as text: a file would have to be in the server's directory.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::database::Database;
use super::drain_figures::{Figures, Who};
use super::kafka_command::Setting;
use super::topic;

/// The schema of the log.
const SCHEMA: &str = include_str!("../../../schemas/proto/pageview.proto");
/// How often the group's commits are read: also the error of the end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long its consumers may take to leave their group: the brokers' session timeout, and some more.
const LEAVE: Duration = Duration::from_secs(60);

/// The targets, as they are added up.
pub const TABLES: [&str; 3] = ["site_hourly", "page_daily", "breakdown_daily"];

/// The schema without comments, as one line of SQL text.
fn schema_text() -> String {
    let code: Vec<&str> = SCHEMA
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code).trim())
        .filter(|line| !line.is_empty())
        .collect();
    code.join(" ").replace('\\', "\\\\").replace('\'', "\\'")
}

/// Columns of the records, by the names of the Protobuf format.
const COLUMNS: &str = "`page_view.project` String, `page_view.hour` UInt32, `page_view.path` String, \
     `page_view.status` UInt16, `page_view.version` String, `page_view.language` String, \
     `page_view.referrer_host` String, `page_view.country` String, `page_view.device` UInt8, \
     `page_view.browser` UInt8, `page_view.system` UInt8, `page_view.bot_class` UInt8, \
     `page_view.arrival` Bool, `page_view.site_coordinate` UInt32, `page_view.page_coordinate` UInt32, \
     `page_view.bot` String";

/// The statements that create everything; the last one starts it.
fn statements(setting: &Setting, group: &str, database: &str) -> Vec<String> {
    let (bootstrap, topic, consumers) = (&setting.bootstrap, &setting.topic, setting.partitions.min(2));
    let schema = schema_text();
    let view = |name: &str, select: &str| {
        format!("CREATE MATERIALIZED VIEW {database}.{name}_view TO {database}.{name} AS {select}")
    };
    let day = "toDate(toDateTime(`page_view.hour` * 3600, 'UTC'))";
    vec![
        format!("CREATE DATABASE {database} ENGINE = Atomic"),
        format!(
            "CREATE TABLE {database}.site_hourly (project String, hour DateTime('UTC'), \
             views SimpleAggregateFunction(sum, UInt64), visits SimpleAggregateFunction(sum, UInt64), \
             bots SimpleAggregateFunction(sum, UInt64), visitors AggregateFunction(uniqCombined64, UInt32)) \
             ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(hour) ORDER BY (project, hour)"
        ),
        format!(
            "CREATE TABLE {database}.page_daily (project String, day Date, path String, status UInt16, \
             views SimpleAggregateFunction(sum, UInt64), visitors AggregateFunction(uniqCombined64, UInt32)) \
             ENGINE = AggregatingMergeTree PARTITION BY toYYYYMM(day) ORDER BY (project, day, path, status)"
        ),
        format!(
            "CREATE TABLE {database}.breakdown_daily (project String, day Date, dimension LowCardinality(String), \
             value String, views UInt64) \
             ENGINE = SummingMergeTree PARTITION BY toYYYYMM(day) ORDER BY (project, dimension, day, value)"
        ),
        format!("CREATE TABLE {database}.records ({COLUMNS}) ENGINE = Null"),
        view(
            "site_hourly",
            &format!(
                "SELECT `page_view.project` AS project, toDateTime(`page_view.hour` * 3600, 'UTC') AS hour, \
                 countIf(`page_view.bot_class` = 0) AS views, \
                 countIf(`page_view.bot_class` = 0 AND `page_view.arrival`) AS visits, \
                 countIf(`page_view.bot_class` != 0) AS bots, \
                 uniqCombined64StateIf(`page_view.site_coordinate`, `page_view.bot_class` = 0) AS visitors \
                 FROM {database}.records WHERE `page_view.project` != '' GROUP BY project, hour"
            ),
        ),
        view(
            "page_daily",
            &format!(
                "SELECT `page_view.project` AS project, {day} AS day, `page_view.path` AS path, \
                 `page_view.status` AS status, count() AS views, \
                 uniqCombined64State(`page_view.page_coordinate`) AS visitors FROM {database}.records \
                 WHERE `page_view.project` != '' AND `page_view.bot_class` = 0 GROUP BY project, day, path, status"
            ),
        ),
        view(
            "breakdown_daily",
            &format!(
                "SELECT `page_view.project` AS project, {day} AS day, pair.1 AS dimension, pair.2 AS value, \
                 count() AS views FROM {database}.records \
                 ARRAY JOIN if(`page_view.bot_class` != 0, [('bot', `page_view.bot`)], arrayConcat( \
                 [('country', `page_view.country`), ('device', toString(`page_view.device`)), \
                 ('browser', toString(`page_view.browser`)), ('system', toString(`page_view.system`)), \
                 ('version', `page_view.version`), ('language', `page_view.language`)], \
                 if(`page_view.arrival`, [('referrer', `page_view.referrer_host`)], []))) AS pair \
                 WHERE `page_view.project` != '' GROUP BY project, day, dimension, value"
            ),
        ),
        format!(
            "CREATE TABLE {database}.queue ({COLUMNS}) ENGINE = Kafka SETTINGS kafka_broker_list = '{bootstrap}', \
             kafka_topic_list = '{topic}', kafka_group_name = '{group}', kafka_num_consumers = {consumers}, \
             kafka_format = 'ProtobufSingle', format_schema_source = 'string', format_schema = '{schema}', \
             format_schema_message_name = 'LogRecord', kafka_flush_interval_ms = 5000"
        ),
        // A Kafka table starts to read as soon as it has one view, and feeds only the views that exist then. So it has a single view, into a table
        // that stores nothing; the other views read from that table.
        format!("CREATE MATERIALIZED VIEW {database}.pump TO {database}.records AS SELECT * FROM {database}.queue"),
    ]
}

/// Lets ClickHouse read the topic until its group has committed `records`, and stops it.
///
/// # Errors
/// ClickHouse refuses a statement, or is not done in time. The latter error includes its message about its consumers.
pub async fn measure(setting: &Setting, group: &str, database: &Database, records: u64) -> anyhow::Result<Figures> {
    let name = &database.name;
    for sql in statements(setting, group, name) {
        database.execute(&sql).await?;
    }
    let begun = Instant::now();
    let deadline = begun + setting.within;
    let assigned_sql =
        format!("SELECT sum(length(`assignments.partition_id`)) FROM system.kafka_consumers WHERE database = '{name}'");
    while database.number(&assigned_sql).await? == 0 {
        if Instant::now() > deadline {
            return Err(says(database, "none of its partitions was assigned").await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let assigned = Instant::now();
    let consumer: BaseConsumer = topic::client(&setting.bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .context("creating a client that queries the group")?;
    loop {
        let committed =
            tokio::task::block_in_place(|| topic::committed(&consumer, &setting.topic, setting.partitions))?;
        if committed >= records {
            break;
        }
        if Instant::now() > deadline {
            return Err(says(database, &format!("{committed} of {records} records were committed")).await);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let seconds = assigned.elapsed().as_secs_f64();
    let views = database.number(&format!("SELECT sum(views) FROM {name}.site_hourly")).await?;
    let pages = database.number(&format!("SELECT sum(views) FROM {name}.page_daily")).await?;
    ensure!(views == pages, "ClickHouse's tables disagree: {views} views by hour, {pages} by page");
    // So that it leaves the group before the next contender, and writes no more.
    database.execute(&format!("DROP TABLE {name}.pump SYNC")).await?;
    database.execute(&format!("DROP TABLE {name}.queue SYNC")).await?;
    left(&consumer, group).await?;
    let startup_seconds = Some(assigned.duration_since(begun).as_secs_f64());
    Ok(Figures { startup_seconds, views: Some(views), ..Figures::new(Who::TableEngine, records, seconds) })
}

/// Waits until the group has no members: a dropped table's consumers go some time after it, and while they are there the group cannot
/// be deleted.
async fn left(consumer: &BaseConsumer, group: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + LEAVE;
    while Instant::now() < deadline {
        let found = tokio::task::block_in_place(|| consumer.fetch_group_list(Some(group), topic::BROKER_TIMEOUT));
        let found = found.context("listing the members of ClickHouse's group")?;
        if found.groups().iter().all(|group| group.members().is_empty()) {
            break;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// ClickHouse's message about its consumers, as an error.
async fn says(database: &Database, what: &str) -> anyhow::Error {
    let sql = format!(
        "SELECT arrayStringConcat(groupUniqArrayArray(`exceptions.text`), '; ') FROM system.kafka_consumers WHERE \
         database = '{}'",
        database.name
    );
    let said = database.text(&sql).await.unwrap_or_else(|error| format!("{error:#}"));
    anyhow::anyhow!("ClickHouse's Kafka engine was given up: {what}. Its consumers say: {said:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_one_line_of_sql_text_without_comments() {
        let text = schema_text();
        assert!(text.starts_with(r#"syntax = "proto3"; package headcount.v1; message LogRecord {"#), "{text}");
        assert!(!text.contains("//") && !text.contains('\n'), "{text}");
    }
}
