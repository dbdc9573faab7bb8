//! The roles of one experiment, and the invariants that are checked after every experiment.

use crate::load::{Driven, Load, PROJECTS};
use anyhow::{Context, Result, ensure};
use chrono::Utc;
use harness::process::Process;
use harness::roles::{Deployment, Role};
use harness::service::eventually;
use harness::{http, kafka};
use ingest::keys::{KeyRing, PeriodKey, VisitorPeriod};
use ingest::visitor::stored_id;
use prost::Message;
use schemas::proto::{LogRecord, log_record::Body};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Whether this is the long run.
pub fn long() -> bool {
    std::env::var("HEADCOUNT_FAULTS").is_ok_and(|value| value == "long")
}

/// The short run's figure, or the long one's.
pub fn times(short: usize, at_length: usize) -> usize {
    if long() { at_length } else { short }
}

/// `HEADCOUNT_FAULTS_SEED`, or this default.
pub fn seed(default: u64) -> u64 {
    std::env::var("HEADCOUNT_FAULTS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// For the classic protocol: a member that is silent for this long leaves the group.
pub const SHORT_SESSION: [&str; 4] =
    ["--kafka-property", "session.timeout.ms=1500", "--kafka-property", "heartbeat.interval.ms=400"];

/// The report on one experiment.
pub struct Row {
    /// Its number and name.
    pub experiment: &'static str,
    /// Its seed.
    pub seed: u64,
    /// Views acknowledged.
    pub acknowledged: usize,
    /// Faults that were caused.
    pub faults: usize,
    /// Repeats: beacons sent again, records read again, rows written again.
    pub replays: u64,
    /// Acknowledged and not counted.
    pub lost: u64,
    /// Counted more than once.
    pub doubled: u64,
    /// From the end of the faults until every figure was right.
    pub catch_up: Duration,
    /// Further observations; the service's messages.
    pub note: String,
    /// Whether the service named the fault, which proves that it took effect even without a replay.
    pub says_why: bool,
    /// Acknowledged views that the experiment itself took away, as an older copy of everything does.
    pub taken: u64,
}

impl Row {
    /// Prints it, stores it for the table of `scripts/test`, and fails unless nothing was lost or counted twice and the faults took effect.
    pub fn end(self) -> Result<()> {
        let line = format!(
            "{:<44} | {:>7} | {:>6} | {:>8} | {:>4} | {:>7} | {:>7.1} | {}",
            self.experiment,
            self.acknowledged,
            self.faults,
            self.replays,
            self.lost,
            self.doubled,
            self.catch_up.as_secs_f64(),
            self.note
        );
        println!("seed {}: {line}", self.seed);
        let target = harness::service::binary()?;
        let directory = target.parent().and_then(Path::parent).context("a target directory")?.join("faults");
        std::fs::create_dir_all(&directory)?;
        let number: String = self.experiment.chars().take_while(char::is_ascii_digit).collect();
        let name: String = self.experiment.chars().filter(char::is_ascii_alphanumeric).collect();
        std::fs::write(directory.join(format!("{number:0>2}-{name}")), format!("{line}\n"))?;
        ensure!(self.lost == self.taken && self.doubled == 0, "{line}");
        ensure!(self.faults > 0 && (self.replays > 0 || self.says_why), "the faults did not bite (I7): {line}");
        ensure!(self.acknowledged >= 1_000, "too few acknowledgements to prove anything (I7): {line}");
        Ok(())
    }
}

/// An endpoint, aggregators and a query service over one topic.
pub struct Bed {
    /// What the roles share.
    pub deployment: Deployment,
    /// Brokers without a proxy before them, for the test's requests.
    pub direct: String,
    /// The endpoint.
    pub ingest: Role,
    /// The aggregators; started or not.
    pub aggregators: Vec<Role>,
    /// Reports.
    pub query: Role,
    watcher: Option<Watcher>,
    /// Records folded again after a restart.
    pub folded_again: u64,
}

struct Watcher {
    stop: Arc<AtomicBool>,
    running: JoinHandle<Result<u64>>,
}

fn month() -> schemas::Month {
    schemas::Hour::of(chrono::Utc::now()).month()
}

impl Bed {
    /// Everything started except the load, without faults.
    pub async fn start(deployment: Deployment, direct: &str, partitions: i32, replication: i32) -> Result<Bed> {
        Bed::start_with(deployment, direct, partitions, replication, &[]).await
    }

    /// The same, with further settings of the endpoint.
    pub async fn start_with(
        mut deployment: Deployment,
        direct: &str,
        partitions: i32,
        replication: i32,
        of_ingest: &[&str],
    ) -> Result<Bed> {
        let hosts = PROJECTS.map(|project| format!("{project}.docs.example"));
        let projects: Vec<(&str, &str)> = PROJECTS.iter().copied().zip(hosts.iter().map(String::as_str)).collect();
        deployment.settings.extend(["--flush-ms".to_owned(), "300".to_owned()]);
        if !deployment.settings.iter().any(|setting| setting.starts_with("session.timeout") || setting == "consumer") {
            // A killed member is detected soon.
            deployment.settings.extend(SHORT_SESSION.map(str::to_owned));
        }
        deployment.prepare(partitions, replication, &projects).await?;
        let open = ["--trusted-proxy", "127.0.0.1", "--client-rate", "0"];
        let mut ingest = deployment.ingest("ingest", &[&open[..], of_ingest].concat())?;
        let mut query = deployment.query("query", &[])?;
        ingest.start(&[]).await?;
        ingest.knows(PROJECTS.len() as u64).await?;
        query.start(&[]).await?;
        let mut bed = Bed {
            deployment,
            direct: direct.to_owned(),
            ingest,
            aggregators: Vec::new(),
            query,
            watcher: None,
            folded_again: 0,
        };
        bed.watch();
        Ok(bed)
    }

    /// Adds an aggregator and starts it.
    pub async fn aggregator(&mut self, more: &[&str]) -> Result<usize> {
        let name = format!("aggregate-{}", self.aggregators.len());
        let mut role = self.deployment.aggregate(&name, more)?;
        role.start(&[]).await?;
        self.aggregators.push(role);
        Ok(self.aggregators.len() - 1)
    }

    /// SIGKILL to an aggregator. The records of open windows that it had folded will be folded again.
    pub async fn kill_aggregator(&mut self, index: usize) -> Result<()> {
        let role = &mut self.aggregators[index];
        // A process that has just started may not have a figure yet.
        if let (Ok(folded), Ok(window)) = (role.figure("folded_offset").await, role.figure("window_start").await) {
            self.folded_again += (folded - window).max(0.0) as u64;
        }
        role.process.kill().await
    }

    /// Starts readers of the endpoint.
    pub fn load(&self, seed: u64) -> Load {
        Load::start(self.ingest.address, seed, 8)
    }

    /// No figure may fall (I5).
    fn watch(&mut self) {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (self.query.address, Arc::clone(&stop));
        let running = tokio::spawn(async move {
            let mut highest = BTreeMap::new();
            let mut polls = 0;
            while !stopped.load(Ordering::SeqCst) {
                for project in PROJECTS {
                    // While ClickHouse is unavailable there is no figure that could fall.
                    let Ok(views) = views(address, project).await else { continue };
                    let before = highest.insert(project, views).unwrap_or(0);
                    ensure!(views >= before, "views of {project} fell from {before} to {views} (I5)");
                    polls += 1;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(polls)
        });
        self.watcher = Some(Watcher { stop, running });
    }

    /// The invariants I1 to I6, after the faults.
    pub async fn verify(&mut self, driven: &Driven) -> Result<Verdict> {
        let healed = Instant::now();
        // Spilled records are acknowledged, and may still be on their way.
        eventually("the endpoint to have handed over everything", async || {
            let left = self.ingest.figure("spill_records").await? + self.ingest.figure("queue_records").await?;
            ensure!(left == 0.0, "{left} records are left");
            Ok(())
        })
        .await
        .with_context(|| self.logs())?;
        // I1: every acknowledged view is in the log.
        let logged = self.logged().await?;
        let key = self.visitor_key()?;
        let stored = driven.acknowledged.iter().map(|(&id, project)| stored_id(&key, project, id));
        let lost = stored.filter(|id| !logged.contains_key(id)).count() as u64;
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for project in logged.values() {
            *expected.entry(project.as_str()).or_default() += 1;
        }
        // I2: views are the distinct ids of the log. Never more, and soon as many.
        let mut doubled = 0;
        let address = self.query.address;
        let expected = PROJECTS.map(|project| expected.get(project).copied().unwrap_or(0));
        let is_complete = |found: &[u64]| found.iter().zip(&expected).all(|(found, expected)| found >= expected);
        // How long it takes depends on the machine. A standstill is a failure.
        let mut counted = vec![0; PROJECTS.len()];
        while !is_complete(&counted) {
            let more = eventually("more views to be counted", async || {
                let mut found = Vec::with_capacity(PROJECTS.len());
                for project in PROJECTS {
                    found.push(views(address, project).await?);
                }
                ensure!(is_complete(&found) || found != counted, "{found:?} of {expected:?}");
                Ok(found)
            });
            counted = more.await.with_context(|| self.logs())?;
        }
        let catch_up = healed.elapsed();
        for (project, expected) in PROJECTS.into_iter().zip(expected) {
            doubled += views(address, project).await? - expected;
        }
        // I3 and I4: rows, sketches and ledger equal the rebuild, up to the log's end.
        let audit = self.deployment.audit(60).await?;
        ensure!(
            audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["moving"] == 0,
            "{audit}\n{}",
            self.logs()
        );
        // I6: a new view is counted.
        let before = views(address, PROJECTS[0]).await?;
        let load = Load::start(self.ingest.address, u64::MAX - before, 1);
        load.reach(10 * PROJECTS.len()).await?;
        let fresh = load.finish().await?;
        let more = fresh.acknowledged.values().filter(|&&project| project == PROJECTS[0]).count() as u64;
        let began = Instant::now();
        eventually("a fresh view to be counted", async || {
            let found = views(address, PROJECTS[0]).await?;
            ensure!(found >= before + more, "{found} of {}", before + more);
            Ok(())
        })
        .await?;
        let fresh_seen = began.elapsed();
        if let Some(watcher) = self.watcher.take() {
            watcher.stop.store(true, Ordering::SeqCst);
            let polls = watcher.running.await??;
            ensure!(polls > 0, "the watcher saw figures");
        }
        Ok(Verdict { lost, doubled, catch_up, fresh_seen, duplicate: audit["duplicate"].as_u64().unwrap_or(0), audit })
    }

    /// The endpoint's key: ids of views are stored as hashes under it.
    fn visitor_key(&self) -> Result<Arc<PeriodKey>> {
        let (file, now) = (self.deployment.path().join("ingest/keys/visitor.key"), Utc::now());
        Ok(KeyRing::open_existing(&file, VisitorPeriod::Month, now)?.at(now)?)
    }

    /// Stored id → project of all views in the log. A project's are all in one partition, and every partition has some.
    pub async fn logged(&self) -> Result<BTreeMap<u64, String>> {
        let topic = &self.deployment.topic;
        let (mut logged, mut homes) = (BTreeMap::new(), BTreeMap::new());
        for partition in 0..kafka::watermarks(&self.direct, topic).await?.len() {
            let before = logged.len();
            for record in kafka::read_all(&self.direct, topic, i32::try_from(partition)?).await? {
                if let Ok(LogRecord { body: Some(Body::PageView(view)), .. }) = LogRecord::decode(&*record.payload) {
                    let home = *homes.entry(view.project.clone()).or_insert(partition);
                    ensure!(home == partition, "{} is in partitions {home} and {partition}", view.project);
                    logged.insert(view.event_id, view.project);
                }
            }
            ensure!(logged.len() > before, "partition {partition} has no view, so no fault could hit one there");
        }
        Ok(logged)
    }

    /// The last log lines of every role.
    pub fn logs(&self) -> String {
        let roles = self.aggregators.iter().chain([&self.ingest, &self.query]);
        roles.map(|role| tail(&role.process)).collect()
    }

    /// Stops everything gracefully.
    pub async fn end(mut self) -> Result<()> {
        self.ingest.process.stop().await?;
        for role in self.aggregators.iter_mut().filter(|role| role.process.runs()) {
            role.process.stop().await?;
        }
        self.query.process.stop().await?;
        self.deployment.drop_database().await
    }
}

fn tail(process: &Process) -> String {
    let log = process.log();
    let lines: Vec<&str> = log.lines().collect();
    format!("{}\n", lines[lines.len().saturating_sub(25)..].join("\n"))
}

/// The result of the invariants.
pub struct Verdict {
    pub lost: u64,
    pub doubled: u64,
    pub catch_up: Duration,
    pub fresh_seen: Duration,
    /// Records that the fold dropped as repeats.
    pub duplicate: u64,
    pub audit: Value,
}

impl Verdict {
    /// The experiment's row.
    pub fn row(self, experiment: &'static str, seed: u64, driven: &Driven, faults: usize, again: u64) -> Row {
        Row {
            experiment,
            seed,
            acknowledged: driven.acknowledged.len(),
            faults,
            replays: again + driven.retried + self.duplicate,
            lost: self.lost,
            doubled: self.doubled,
            catch_up: self.catch_up,
            says_why: false,
            taken: 0,
            note: format!(
                "slowest answer {:.1} s, fresh view seen after {:.1} s, {} windows",
                driven.slowest_ms as f64 / 1e3,
                self.fresh_seen.as_secs_f64(),
                self.audit.get("windows").unwrap_or(&json!(0))
            ),
        }
    }
}

/// Views of a project by people and bots, as reports have them.
pub async fn views(address: std::net::SocketAddr, project: &str) -> Result<u64> {
    let path = format!("/v1/projects/{project}/reports/{}", month());
    let answer = http::get_now(address, &path).await?;
    ensure!(answer.status == 200, "{}", answer.status);
    let report = answer.json()?;
    let bots: u64 = report["totals"]["bots"].as_object().context("bots")?.values().filter_map(Value::as_u64).sum();
    Ok(report["totals"]["views"].as_u64().context("totals.views")? + bots)
}
