//! The roles as processes, over one topic, one group and one database per deployment.

use crate::http;
use crate::process::{Process, free_address};
use crate::service::{binary, eventually};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::process::Command;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// What the roles of one story share.
pub struct Deployment {
    directory: TempDir,
    /// Brokers, as the roles see them.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
    /// ClickHouse, as the roles see it.
    pub clickhouse: String,
    /// The database.
    pub database: String,
    /// Further settings of all roles, such as `--window-hours`.
    pub settings: Vec<String>,
}

impl Deployment {
    /// Names that are unique on this broker and this ClickHouse.
    pub fn new(bootstrap: &str, clickhouse: &str) -> Result<Self> {
        let name = format!("story_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Ok(Deployment {
            directory: TempDir::with_prefix("headcount-story-")?,
            bootstrap: bootstrap.to_owned(),
            topic: name.clone(),
            group: name.clone(),
            clickhouse: clickhouse.to_owned(),
            database: name,
            settings: Vec::new(),
        })
    }

    /// Its own directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The settings as arguments.
    pub fn arguments(&self) -> Vec<String> {
        let named = [
            ("--kafka-bootstrap", &self.bootstrap),
            ("--kafka-topic", &self.topic),
            ("--kafka-group", &self.group),
            ("--clickhouse-url", &self.clickhouse),
            ("--clickhouse-database", &self.database),
        ];
        let named = named.into_iter().flat_map(|(name, value)| [name.to_owned(), value.clone()]);
        named.chain(self.settings.iter().cloned()).collect()
    }

    /// Runs a headcount command to its end.
    pub async fn run(&self, command: &[&str]) -> Result<Output> {
        let output = Command::new(binary()?).args(command).args(self.arguments()).kill_on_drop(true).output();
        Ok(tokio::time::timeout(crate::service::PATIENCE, output).await.context("the command does not end")??)
    }

    /// Runs a command that must succeed, and returns its output.
    pub async fn done(&self, command: &[&str]) -> Result<String> {
        let output = self.run(command).await?;
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{command:?}: {}\n{said}{complained}", output.status);
        Ok(said.into_owned())
    }

    /// Makes the topic and registers projects, each (slug, host).
    pub async fn prepare(&self, partitions: i32, replication: i32, projects: &[(&str, &str)]) -> Result<()> {
        let (partitions, replication) = (partitions.to_string(), replication.to_string());
        self.done(&["topic", "ensure", "--kafka-partitions", &partitions, "--kafka-replication", &replication]).await?;
        for (slug, host) in projects {
            self.done(&["project", "add", slug, "--host", host, "--public"]).await?;
        }
        Ok(())
    }

    fn role(&self, role: &str, name: &str, more: &[&str]) -> Result<Role> {
        let metrics = free_address()?;
        let mut arguments = vec![role.to_owned(), "--metrics-listen".to_owned(), metrics.to_string()];
        // An aggregator has no other listener.
        let address = if role == "aggregate" { metrics } else { free_address()? };
        if role != "aggregate" {
            arguments.extend(["--listen".to_owned(), address.to_string()]);
        }
        if role == "ingest" {
            arguments.extend(["--data".to_owned(), self.path().join(name).display().to_string()]);
        }
        arguments.extend(self.arguments());
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let log = self.path().join(format!("{name}.log"));
        let mut process = Process::new(name, &binary()?, arguments, log);
        // Stories repeat requests until something has happened.
        process.variable("HEADCOUNT_REPORT_RATE", "0");
        process.variable("HEADCOUNT_PROJECT_RATE", "0");
        Ok(Role { process, address, metrics })
    }

    /// An endpoint that is not started yet. Its data directory has its name.
    pub fn ingest(&self, name: &str, more: &[&str]) -> Result<Role> {
        self.role("ingest", name, more)
    }

    /// An aggregator that is not started yet.
    pub fn aggregate(&self, name: &str, more: &[&str]) -> Result<Role> {
        self.role("aggregate", name, more)
    }

    /// A query service that is not started yet.
    pub fn query(&self, name: &str, more: &[&str]) -> Result<Role> {
        self.role("query", name, more)
    }

    /// A client of its database.
    pub fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default().with_url(&self.clickhouse).with_database(&self.database)
    }

    /// The result of `headcount audit` once everything in the topic is folded.
    pub async fn audit(&self, wait_seconds: u64) -> Result<Value> {
        let wait = wait_seconds.to_string();
        let arguments = ["audit", "--format", "json", "--wait", &wait];
        let output = Command::new(binary()?).args(arguments).args(self.arguments()).kill_on_drop(true).output();
        let patience = std::time::Duration::from_secs(wait_seconds + 120);
        let output = tokio::time::timeout(patience, output).await.context("the audit does not end")??;
        let said = String::from_utf8_lossy(&output.stdout);
        let audit = serde_json::from_str(&said);
        audit.with_context(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Drops its database.
    pub async fn drop_database(&self) -> Result<()> {
        let server = clickhouse::Client::default().with_url(&self.clickhouse);
        Ok(server.query(&format!("DROP DATABASE IF EXISTS {}", self.database)).execute().await?)
    }
}

/// Waits until a project's reports are public at `address`: the query service reads permissions every two seconds.
pub async fn opened(address: SocketAddr, project: &str) -> Result<()> {
    eventually("the project to be public", async || {
        // For an invalid month: the response shows whether the guard was passed, without a query to ClickHouse.
        let answer = http::get(address, &format!("/v1/projects/{project}/reports/none")).await?;
        ensure!(answer.status != 401 && answer.status != 503, "{}", answer.status);
        Ok(())
    })
    .await
}

/// A role's process and its listen addresses.
pub struct Role {
    /// The process.
    pub process: Process,
    /// Its listener; an aggregator's is the operator's.
    pub address: SocketAddr,
    /// Its operator's listener.
    pub metrics: SocketAddr,
}

impl Role {
    /// Starts it and waits until it is ready.
    pub async fn start(&mut self, more: &[&str]) -> Result<()> {
        self.process.spawn(more)?;
        let address = self.address;
        self.process.wait_ready(address, "/readyz").await
    }

    /// Starts it and waits only until it listens.
    pub async fn start_unready(&mut self, more: &[&str]) -> Result<()> {
        self.process.spawn(more)?;
        let address = self.address;
        self.process.wait_ready(address, "/healthz").await
    }

    /// The content of `/readyz` of the operator's listener, whatever its status.
    pub async fn state(&self) -> Result<Value> {
        http::get(self.metrics, "/readyz").await?.json()
    }

    /// Waits until an endpoint knows this many projects.
    pub async fn knows(&self, projects: u64) -> Result<()> {
        eventually("the projects to be known", async || {
            let state = self.state().await?;
            ensure!(state["projects"].as_u64() >= Some(projects), "{state}");
            Ok(())
        })
        .await
    }

    /// Waits until an aggregator has exactly this many partitions, each with a stream.
    pub async fn has_partitions(&self, count: usize) -> Result<Value> {
        eventually(&format!("{count} partitions"), async || {
            let state = self.state().await?;
            let partitions = state["partitions"].as_object().context("partitions")?;
            let begun = partitions.values().filter(|partition| partition["stream"].is_string()).count();
            ensure!(partitions.len() == count && begun == count, "{state}");
            Ok(state.clone())
        })
        .await
    }

    /// One figure of `/metrics`, summed over its labels.
    pub async fn figure(&self, name: &str) -> Result<f64> {
        let page = http::get(self.metrics, "/metrics").await?;
        let text = String::from_utf8_lossy(&page.body).into_owned();
        let values = text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            let bare = key.split('{').next()?;
            (bare == format!("headcount_{name}")).then(|| value.parse::<f64>().ok())?
        });
        let values: Vec<f64> = values.collect();
        if values.is_empty() {
            bail!("no figure {name} in\n{text}");
        }
        Ok(values.iter().sum())
    }
}
