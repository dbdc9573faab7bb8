//! Visitor keys: creates them, shows facts about them (never the key itself), imports one from another node, and detects nodes with a different one.

use crate::config::commands::KeysCommand;
use crate::say;
use anyhow::Context;
use clap::ArgMatches;
use clickhouse::{Client, Row};
use ingest::Ingest;
use ingest::keys::{KeyRing, VisitorPeriod};
use ingest::sink::Sink;
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often an endpoint reports which key it has, and checks which keys others have.
const EVERY: Duration = Duration::from_secs(10);

/// Runs `headcount keys init|show|import`.
pub fn command(action: &str, matches: &ArgMatches, settings: &KeysCommand) -> anyhow::Result<()> {
    let (path, period) = (settings.keys.file(&settings.store), settings.visitors.visitor_period);
    let now = settings.clock.clock()();
    let ring = match action {
        "init" => KeyRing::create(&path, period, now)?,
        "import" => {
            let copy = matches.get_one::<String>("file").context("no file given")?;
            let ring = KeyRing::import(Path::new(copy), &path, period, now)?;
            say!(
                "remove {copy} now: with it, anyone can test whether a given visitor was there, until the period ends"
            );
            ring
        }
        _ => KeyRing::open_existing(&path, period, now)?,
    };
    let key = ring.at(now)?;
    say!("file         {}", path.display());
    say!("period       {}", period_of(period, &key));
    say!("fingerprint  {}", key.fingerprint());
    if action != "show" {
        say!("Nodes that show the same period and fingerprint count a visitor once.");
    }
    Ok(())
}

/// `2026-11`, or `2026-11-23` if keys live for a day.
pub fn period_of(period: VisitorPeriod, key: &ingest::keys::PeriodKey) -> String {
    match period {
        VisitorPeriod::Month => key.begins().month().to_string(),
        VisitorPeriod::Day => key.begins().day().date().to_string(),
    }
}

#[derive(Row, Deserialize)]
struct Others {
    nodes: u64,
}

/// Reports through ClickHouse which key this endpoint has, and detects endpoints with a key of another lineage: those would count visitors a second
/// time. Runs until dropped.
pub async fn compare<S: Sink>(ingest: Arc<Ingest<S>>, client: Client) {
    let mut node = [0; 8];
    if getrandom::fill(&mut node).is_err() {
        tracing::warn!("the operating system gave no random bytes; keys of other nodes are not compared");
        return;
    }
    let node = u64::from_le_bytes(node);
    let (mut told, mut since) = (0, None);
    loop {
        match others(&ingest, &client, node, &mut since).await {
            Ok(nodes) => {
                ingest.set_foreign_keys(nodes);
                if nodes > 0 && told == 0 {
                    tracing::error!(
                        nodes,
                        "other endpoints have another visitor key, so visitors who meet both count twice. Compare `headcount keys \
                         show`, and take one node's key over with `headcount keys import`"
                    );
                }
                told = nodes;
            }
            Err(error) => tracing::debug!(%error, "keys of other nodes could not be compared"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Endpoints with another key that have reported since this one's first report, at ClickHouse's time `since`. Earlier reports may be the last ones of
/// a node that this one replaces, such as itself before its key was lost.
async fn others<S: Sink>(
    ingest: &Ingest<S>,
    client: &Client,
    node: u64,
    since: &mut Option<u32>,
) -> anyhow::Result<u64> {
    let first = match *since {
        Some(first) => first,
        None => {
            let now = client.query("SELECT toUInt32(now('UTC'))").fetch_one::<u32>();
            *since.insert(now.await.context("cannot ask ClickHouse for the time")?)
        }
    };
    let (period, number, fingerprint) = ingest.key_in_use()?;
    let sql = "INSERT INTO key_in_use (period, number, node, fingerprint, seen) SELECT {period:String}, {number:Int64}, {node:UInt64}, {fingerprint:UInt64}, now('UTC')";
    let insert = client
        .query(sql)
        .param("period", period.name())
        .param("number", number)
        .param("node", node)
        .param("fingerprint", fingerprint.0);
    insert.execute().await.context("cannot tell which key is in use")?;
    // Only of the same period: at its end the nodes step one after another.
    let sql = "SELECT uniqExact(node) AS nodes FROM key_in_use FINAL WHERE period = {period:String} AND number = {number:Int64} AND fingerprint != {fingerprint:UInt64} \
               AND seen > now('UTC') - INTERVAL 2 MINUTE AND toUInt32(seen) > {first:UInt32}";
    let query = client
        .query(sql)
        .param("period", period.name())
        .param("number", number)
        .param("fingerprint", fingerprint.0)
        .param("first", first);
    Ok(query.fetch_one::<Others>().await.context("cannot ask for other keys")?.nodes)
}
