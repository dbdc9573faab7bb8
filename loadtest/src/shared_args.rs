//! Options that several load tests have.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::cpu::{Servers, listener_pid};
use crate::kafka::{database, topic};

/// Where the figures go.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct JsonArg {
    /// Write all figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl JsonArg {
    /// Writes these figures to the file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, figures: &impl Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(figures)? + "\n";
        std::fs::write(path, text).with_context(|| format!("writing the figures to {}", path.display()))
    }
}

/// Which service is measured, and where the figures go.
#[derive(Debug, Clone, Default, clap::Args, Serialize)]
pub struct CommonArgs {
    /// The program `headcount` [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    #[command(flatten)]
    pub json: JsonArg,
}

impl CommonArgs {
    /// The program `headcount`.
    ///
    /// # Errors
    /// When none is named and there is none beside this program.
    pub fn headcount(&self) -> anyhow::Result<PathBuf> {
        if let Some(binary) = &self.binary {
            return Ok(binary.clone());
        }
        let beside = std::env::current_exe().context("finding the running executable")?.with_file_name("headcount");
        ensure!(beside.exists(), "{} is missing; name the program with --binary", beside.display());
        Ok(beside)
    }
}

/// Brokers and ClickHouse on this machine.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct ServerArgs {
    /// Brokers on this machine, as in 127.0.0.1:9092
    #[arg(long, value_name = "HOST:PORT")]
    pub kafka_bootstrap: String,
    /// ClickHouse on this machine, as in http://127.0.0.1:8123
    #[arg(long, value_name = "URL", env = "HEADCOUNT_CLICKHOUSE_URL", hide_env_values = true)]
    #[serde(skip)]
    pub clickhouse_url: String,
}

impl ServerArgs {
    /// The servers' processes, where they are known.
    ///
    /// # Errors
    /// When a server is not on this machine.
    pub fn pids(&self) -> anyhow::Result<Servers> {
        let clickhouse_port = database::only_loopback(&self.clickhouse_url)?;
        tokio::task::block_in_place(|| topic::only_loopback(&self.kafka_bootstrap))?;
        let kafka_port = self.kafka_bootstrap.split(',').next().and_then(|b| b.rsplit_once(':')?.1.trim().parse().ok());
        Ok(Servers { kafka: kafka_port.and_then(listener_pid), clickhouse: listener_pid(clickhouse_port), query: None })
    }
}
