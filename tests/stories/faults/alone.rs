//! `headcount serve` with its embedded ClickHouse under load: the shared part of the experiments on one machine.

use crate::bed::Row;
use crate::load::{Driven, Load, PROJECTS};
use anyhow::{Context, Result, ensure};
use harness::http;
use harness::service::{Service, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio::time::Instant;

/// The months of an experiment that uses the machine's clock.
pub fn this_month() -> Vec<String> {
    vec![schemas::Hour::of(chrono::Utc::now()).month().to_string()]
}

/// One service with its expected messages and counts.
pub struct Alone {
    /// The service.
    pub service: Service,
    experiment: &'static str,
    seed: u64,
    /// Months whose views are summed.
    pub months: Vec<String>,
    /// The service's messages, in the form of the row.
    said: Vec<String>,
}

impl Alone {
    /// A started service that knows the projects; `more` are arguments of every start.
    pub async fn start(experiment: &'static str, seed: u64, more: &[&str]) -> Result<Alone> {
        let mut alone = Alone::stopped(experiment, seed, more)?;
        alone.service.start(&[]).await?;
        alone.register().await?;
        Ok(alone)
    }

    /// The same, not started yet.
    pub fn stopped(experiment: &'static str, seed: u64, more: &[&str]) -> Result<Alone> {
        let open = ["--trusted-proxy", "127.0.0.1", "--client-rate", "0"];
        let service = Service::new(&[&open[..], more].concat())?;
        Ok(Alone { service, experiment, seed, months: this_month(), said: Vec::new() })
    }

    /// Registers the projects of the load.
    pub async fn register(&self) -> Result<()> {
        let hosts = PROJECTS.map(|project| format!("{project}.docs.example"));
        let projects: Vec<(&str, &str)> = PROJECTS.iter().copied().zip(hosts.iter().map(String::as_str)).collect();
        self.service.register(&projects).await
    }

    /// Starts readers of the service.
    pub fn load(&self) -> Load {
        Load::start(self.service.address(), self.seed, 8)
    }

    /// ClickHouse's data.
    pub fn store(&self) -> PathBuf {
        self.service.data().join("clickhouse")
    }

    /// Process id of the embedded ClickHouse.
    pub fn engine(&self) -> Result<String> {
        let engine: Value = serde_json::from_str(&std::fs::read_to_string(self.store().join("engine.json"))?)?;
        Ok(engine["pid"].to_string())
    }

    /// Sends a signal to the embedded ClickHouse.
    pub fn signal_engine(&self, signal: &str) -> Result<()> {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.engine()?]).status()?;
        ensure!(sent.success(), "cannot send SIG{signal} to ClickHouse");
        Ok(())
    }

    /// Length of the log so far, for [`says`](Self::says).
    pub fn log_length(&self) -> usize {
        self.service.log().len()
    }

    /// Waits until the service has written, after `from`, a cause and a remedy. Both are in the experiment's row.
    pub async fn says(&mut self, from: usize, cause: &str, remedy: &str) -> Result<()> {
        let log = &self.service;
        eventually("the message", async || {
            let log = log.log();
            let written = log.get(from..).unwrap_or_default();
            ensure!(written.contains(cause) && written.contains(remedy), "{cause:?} and {remedy:?} in\n{written}");
            Ok(())
        })
        .await?;
        let said = format!("“{cause} … {remedy}”");
        if !self.said.contains(&said) {
            self.said.push(said);
        }
        Ok(())
    }

    /// Starts the service, which must refuse to serve and report the cause.
    pub async fn refuses(&mut self, more: &[&str], cause: &str, remedy: &str) -> Result<()> {
        let from = self.log_length();
        self.service.refused(more).await?;
        self.says(from, cause, remedy).await
    }

    /// Waits until `/readyz` of the operator's listener satisfies `check`.
    pub async fn state(&self, what: &str, check: impl Fn(&Value) -> bool) -> Result<()> {
        eventually(what, async || {
            let state = self.service.state().await?;
            ensure!(check(&state), "{state}");
            Ok(())
        })
        .await
        .with_context(|| self.tail())
    }

    /// Views of a project by people and bots, in all months of the experiment.
    async fn views(&self, project: &str) -> Result<u64> {
        let mut views = 0;
        for month in &self.months {
            let path = format!("/v1/projects/{project}/reports/{month}");
            let answer = http::get(self.service.address(), &path).await?;
            ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
            let totals = &answer.json()?["totals"];
            let bots = totals["bots"].as_object().context("bots")?.values().filter_map(Value::as_u64).sum::<u64>();
            views += totals["views"].as_u64().context("totals.views")? + bots;
        }
        Ok(views)
    }

    /// Waits until all acknowledged views are counted. Returns the numbers of missing and of surplus views.
    pub async fn has_counted(&self, driven: &Driven) -> Result<(u64, u64)> {
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        for project in driven.acknowledged.values() {
            *expected.entry(project).or_default() += 1;
        }
        let found = eventually("every acknowledged view to be counted", async || {
            let mut found = Vec::new();
            for (project, expected) in &expected {
                found.push((self.views(project).await?, *expected));
            }
            let counted: u64 = found.iter().map(|(views, _)| views).sum();
            ensure!(counted >= driven.acknowledged.len() as u64, "{found:?}");
            Ok(found)
        })
        .await?;
        let lost = found.iter().map(|(views, expected)| expected.saturating_sub(*views)).sum();
        let doubled = found.iter().map(|(views, expected)| views.saturating_sub(*expected)).sum();
        ensure!(lost == 0 && doubled == 0, "{lost} lost, {doubled} doubled: {found:?}");
        Ok((lost, doubled))
    }

    /// Waits until all acknowledged views are counted, stops the service, audits it, and returns its row.
    pub async fn verify(mut self, driven: &Driven, faults: usize) -> Result<Row> {
        let healed = Instant::now();
        let (lost, doubled) = self.has_counted(driven).await.with_context(|| self.tail())?;
        let catch_up = healed.elapsed();
        self.service.stop().await?;
        let audit = self.service.told(&["audit"]).await?;
        ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}\n{}", self.tail());
        Ok(Row {
            experiment: self.experiment,
            seed: self.seed,
            acknowledged: driven.acknowledged.len(),
            faults,
            replays: driven.retried,
            lost,
            doubled,
            catch_up,
            says_why: !self.said.is_empty(),
            note: self.said.join(" "),
            taken: 0,
        })
    }

    /// The last lines of the service's log.
    pub fn tail(&self) -> String {
        let log = self.service.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

/// Copies a file or a directory of a stopped service, replacing the target.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    remove(to)?;
    ensure!(Command::new("cp").arg("-a").args([from, to]).status()?.success(), "cp failed");
    Ok(())
}

/// Removes a file or a directory, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        std::fs::remove_dir_all(path)?;
    } else if path.exists() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// Runs a load until `count` views are acknowledged and all are counted, and then stops the service.
pub async fn counted_and_stopped(alone: &mut Alone, load: &Load, count: usize) -> Result<()> {
    load.reach(count).await?;
    alone.service.stop().await.context("SIGTERM under load ends with success")
}

/// A separate file system, mounted over a directory, if this process may mount; unmounted when this value is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` without the right to mount, as in a container without privileges.
    pub fn mount(at: &Path, mebibytes: u64) -> Result<Option<SmallDisk>> {
        std::fs::create_dir_all(at)?;
        let size = format!("size={mebibytes}m,mode=0700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output()?;
        Ok(output.status.success().then(|| SmallDisk(at.to_owned())))
    }

    /// Fills the disk until `bytes` of it are free.
    pub fn fill(&self, bytes: u64) -> Result<()> {
        let free = || -> Result<u64> {
            let stat = rustix::fs::statvfs(&self.0)?;
            Ok(stat.f_bavail * stat.f_frsize)
        };
        let mut file = std::fs::File::options().create(true).append(true).open(self.0.join("ballast"))?;
        while free()? > bytes {
            let length = (free()? - bytes).clamp(4096, 1 << 20);
            if std::io::Write::write_all(&mut file, &vec![1; length as usize]).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Frees the space.
    pub fn free(&self) -> Result<()> {
        remove(&self.0.join("ballast"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a service that a failed test leaves behind may still have files there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
