//! `headcount-loadtest kafka`: contenders, their order, and clean-up.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde_json::json;

use super::database::{Database, Held};
use super::drain::DrainArgs;
use super::drain_figures::{Figures, Who};
use super::drain_report;
use super::records::{Log, Truth};
use super::topic::{Filled, Times};
use super::{aggregators, drain, producer, table_engine, topic};
use crate::cpu::{Each, Servers, cpu_seconds, forget_peak, peak_bytes};
use crate::interrupt::bounded;
use crate::machine::Machine;
use crate::random::mix;
use crate::shared_args::{CommonArgs, ServerArgs};

/// Arguments of `headcount-loadtest kafka`.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct KafkaArgs {
    #[command(flatten)]
    pub servers: ServerArgs,
    /// Page views in the topic
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000..=50_000_000))]
    pub views: u64,
    /// Partitions of the topic
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=64))]
    pub partitions: i32,
    /// Projects the views are of; the most viewed of 10,000 gets about a tenth
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub projects: u32,
    /// Decides every record
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Runs of each contender, one contender after another
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub runs: u32,
    /// Seconds a run may take
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// Processes of `headcount aggregate` in one group; a list makes a contender of each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2], value_parser = clap::value_parser!(u32).range(1..=16))]
    pub aggregators: Vec<u32>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Settings that all contenders share.
#[derive(Clone)]
pub struct Setting {
    /// Brokers.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// The URL of ClickHouse.
    pub clickhouse_url: String,
    /// The program under test.
    pub binary: PathBuf,
    /// How long a run may take.
    pub within: Duration,
}

pub(crate) async fn run(args: KafkaArgs) -> anyhow::Result<()> {
    let servers = args.servers.pids()?;
    servers.each(&[], cpu_seconds).context("reading the servers' processor time")?;
    let own = std::env::current_exe().context("finding the running executable")?;
    let name = format!("{:016x}", unique());
    let setting = Setting {
        bootstrap: args.servers.kafka_bootstrap.clone(),
        topic: format!("headcount-loadtest-{name}"),
        partitions: args.partitions,
        clickhouse_url: args.servers.clickhouse_url.clone(),
        binary: args.common.headcount()?,
        within: Duration::from_secs(u64::from(args.seconds)),
    };
    let mut test =
        Test { args: &args, setting, own, servers, name, sending: false, groups: Vec::new(), runs: Vec::new() };
    // Each run has its own bound.
    let outcome = bounded(Duration::MAX, test.all()).await;
    for number in 0..test.groups.len() {
        Database::new(&args.servers.clickhouse_url, test.database(number)).remove().await;
    }
    topic::remove(&args.servers.kafka_bootstrap, &test.setting.topic, &test.groups).await;
    if test.sending {
        topic::remove(&args.servers.kafka_bootstrap, &test.sent_to(), &[]).await;
    }
    outcome
}

/// A number that no other load test on this machine has.
pub(crate) fn unique() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    mix(now.as_nanos() as u64 ^ u64::from(std::process::id()) << 48)
}

struct Test<'a> {
    args: &'a KafkaArgs,
    setting: Setting,
    /// This program, which is also the drain: the reference stays the same whatever is measured.
    own: PathBuf,
    servers: Servers,
    name: String,
    /// Whether there is a topic of the bare producer's.
    sending: bool,
    /// One for each run that has a database, of the same number.
    groups: Vec<String>,
    runs: Vec<Figures>,
}

impl Test<'_> {
    fn database(&self, number: usize) -> String {
        format!("headcount_loadtest_{}_{number}", self.name)
    }

    /// A new group and a new database.
    fn fresh(&mut self) -> (String, Database) {
        let number = self.groups.len();
        let group = format!("headcount-loadtest-{}-{number}", self.name);
        self.groups.push(group.clone());
        (group, Database::new(&self.args.servers.clickhouse_url, self.database(number)))
    }

    async fn all(&mut self) -> anyhow::Result<()> {
        let filled = self.fill().await?;
        let aggregators = self.args.aggregators.iter().map(|&processes| Who::Aggregators(processes));
        let order: Vec<Who> =
            [Who::Producer, Who::Drain].into_iter().chain(aggregators).chain([Who::TableEngine]).collect();
        for run in 0..self.args.runs {
            for &who in &order {
                let figures = self
                    .one(who, run, filled.truth)
                    .await
                    .with_context(|| format!("run {} of {}", run + 1, who.name()))?;
                println!(
                    "run {} {:<26} {:>8.0} records/s in {:.1} s",
                    run + 1,
                    who.name(),
                    figures.records_per_second(),
                    figures.seconds
                );
                self.runs.push(figures);
            }
        }
        let table = drain_report::table(&self.runs);
        let remarks = drain_report::remarks(&self.runs, filled.truth);
        println!("\n{}", table.render());
        for remark in &remarks {
            println!("- {remark}");
        }
        self.args.common.json.write(&json!({
            "format": 3,
            "machine": Machine::this(),
            "arguments": self.args,
            "truth": filled.truth,
            "wire_bytes": filled.wire_bytes,
            "runs": self.runs,
            "table": table,
            "remarks": remarks,
        }))
    }

    fn log(&self) -> Log {
        Log::new(self.args.seed, self.args.views, self.args.projects)
    }

    /// The topic that the bare producer fills. It is there for a run.
    fn sent_to(&self) -> String {
        format!("{}-produce", self.setting.topic)
    }

    async fn fill(&self) -> anyhow::Result<Filled> {
        topic::make(&self.setting.bootstrap, &self.setting.topic, self.setting.partitions, Times::Append).await?;
        let log = self.log();
        let filled = tokio::task::block_in_place(|| topic::fill(&self.setting.bootstrap, &self.setting.topic, &log))
            .context("filling the topic")?;
        let of_each = |bytes: u64| bytes as f64 / filled.truth.records as f64;
        println!(
            "topic of {} partitions: {} records in {:.1} s, {:.0} bytes each, {:.0} on the wire (lz4)",
            self.setting.partitions,
            filled.truth.records,
            filled.seconds,
            of_each(filled.truth.bytes),
            of_each(filled.wire_bytes)
        );
        Ok(filled)
    }

    async fn one(&mut self, who: Who, run: u32, truth: Truth) -> anyhow::Result<Figures> {
        let before = self.servers.each(&[], cpu_seconds)?;
        if let Some(pid) = self.servers.clickhouse {
            forget_peak(pid);
        }
        let figures = match who {
            Who::Producer => self.produce().await?,
            Who::Drain => self.drain(truth).await?,
            Who::Aggregators(processes) => {
                let (group, database) = self.fresh();
                let figures = aggregators::measure(&self.setting, processes, &group, &database, truth.records).await?;
                let spent = self.spent(before, Some(&database)).await?;
                let figures = spent.of(figures, database.held(&aggregators::TABLES).await?);
                let views = self.counted(&database, truth).await?;
                database.remove().await;
                return Ok(Figures { run, views: Some(views), ..figures });
            }
            Who::TableEngine => {
                let (group, database) = self.fresh();
                let figures = table_engine::measure(&self.setting, &group, &database, truth.records).await?;
                let spent = self.spent(before, Some(&database)).await?;
                let held = database.held(&table_engine::TABLES).await?;
                ensure!(
                    figures.views == Some(truth.views_with_repeats),
                    "it counted {:?} views by people, the topic has {} with repeats and {} without",
                    figures.views,
                    truth.views_with_repeats,
                    truth.views
                );
                // Dropped so that the merges of one run do not disturb the next one.
                database.remove().await;
                return Ok(Figures { run, ..spent.of(figures, held) });
            }
        };
        Ok(Figures { run, kafka_cpu_seconds: self.spent(before, None).await?.now.kafka, ..figures })
    }

    async fn produce(&mut self) -> anyhow::Result<Figures> {
        let topic = self.sent_to();
        self.sending = true;
        topic::make(&self.setting.bootstrap, &topic, self.setting.partitions, Times::Append).await?;
        let log = self.log();
        let sent = tokio::task::block_in_place(|| producer::measure(&self.setting, &topic, &log));
        topic::remove(&self.setting.bootstrap, &topic, &[]).await;
        self.sending = false;
        sent
    }

    async fn drain(&self, truth: Truth) -> anyhow::Result<Figures> {
        let args = DrainArgs {
            kafka_bootstrap: self.setting.bootstrap.clone(),
            topic: self.setting.topic.clone(),
            partitions: self.setting.partitions,
            records: truth.records,
        };
        let drained = drain::in_a_process(&self.own, &args, self.setting.within).await?;
        ensure!(drained.bytes == Some(truth.bytes), "the drain read {:?} bytes of {}", drained.bytes, truth.bytes);
        Ok(drained)
    }

    /// Views by people that an aggregator's tables have, which are those of the truth.
    async fn counted(&self, database: &Database, truth: Truth) -> anyhow::Result<u64> {
        let sum = async |column: &str, table: &str| {
            database.number(&format!("SELECT sum({column}) FROM {}.{table} FINAL", database.name)).await
        };
        let views = sum("views", "site_hourly").await?;
        let counted = (views, sum("views", "page_daily").await?, sum("duplicate", "ledger").await?);
        ensure!(
            counted == (truth.views, truth.views, truth.repeats),
            "by hour, by page, repeats: {counted:?} were counted, there are {} views by people and {} repeats",
            truth.views,
            truth.repeats
        );
        Ok(views)
    }

    /// The servers' consumption so far, and ClickHouse's until the merges of `database` have finished.
    async fn spent(&self, before: Each<f64>, database: Option<&Database>) -> anyhow::Result<Spent> {
        let since = |now: Each<f64>| now.with(&before, |now, before| now - before);
        let now = since(self.servers.each(&[], cpu_seconds)?);
        if let Some(database) = database {
            database.rest().await?;
        }
        let at_rest = since(self.servers.each(&[], cpu_seconds)?);
        Ok(Spent { now, at_rest, peak_bytes: self.servers.clickhouse.map(peak_bytes).transpose()? })
    }
}

/// The servers' consumption in a run.
struct Spent {
    now: Each<f64>,
    at_rest: Each<f64>,
    /// Of ClickHouse.
    peak_bytes: Option<u64>,
}

impl Spent {
    /// Adds the consumption and the tables' content to the figures of the run.
    fn of(self, figures: Figures, held: Held) -> Figures {
        Figures {
            kafka_cpu_seconds: self.now.kafka,
            clickhouse_cpu_seconds: self.now.clickhouse,
            clickhouse_cpu_seconds_at_rest: self.at_rest.clickhouse,
            clickhouse_peak_bytes: self.peak_bytes,
            rows: Some(held.rows),
            disk_bytes: Some(held.disk_bytes),
            ..figures
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_bounded() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            args: KafkaArgs,
        }
        let parse = |extra: &[&str]| {
            let fixed = ["loadtest", "--kafka-bootstrap", "127.0.0.1:1", "--clickhouse-url", "http://127.0.0.1:2"];
            <Cli as clap::Parser>::try_parse_from(fixed.iter().chain(extra)).map(|cli| cli.args)
        };
        let args = parse(&[]).unwrap();
        assert_eq!((args.views, args.partitions, args.runs), (2_000_000, 4, 3));
        assert_eq!(args.aggregators, [1, 2]);
        assert_eq!(parse(&["--aggregators", "3"]).unwrap().aggregators, [3]);
        for refused in [
            ["--views", "999"],
            ["--views", "50000001"],
            ["--partitions", "65"],
            ["--aggregators", "1,17"],
            ["--seconds", "3601"],
            ["--runs", "0"],
        ] {
            assert!(parse(&refused).is_err(), "{refused:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn servers_elsewhere_are_refused() {
        let args = |kafka: &str, clickhouse: &str| KafkaArgs {
            servers: ServerArgs { kafka_bootstrap: kafka.to_owned(), clickhouse_url: clickhouse.to_owned() },
            common: CommonArgs::default(),
            views: 1_000,
            partitions: 1,
            projects: 1,
            seed: 1,
            runs: 1,
            seconds: 1,
            aggregators: vec![1],
        };
        let refused = run(args("127.0.0.1:1", "http://192.0.2.1:8123")).await.unwrap_err().to_string();
        assert!(refused.contains("not a loopback address"), "{refused}");
        let refused = run(args("192.0.2.1:9092", "http://127.0.0.1:1")).await.unwrap_err().to_string();
        assert!(refused.contains("not a loopback address"), "{refused}");
    }
}
