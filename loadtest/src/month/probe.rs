//! Somebody reads reports while the month is counted: one client, one report after another, of projects that chance picks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::plan::Plan;
use crate::figures::LatencyMs;
use crate::kafka::database::Database;
use crate::random::SplitMix64;

/// Between two questions: a reader reads.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the reader saw.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Probed {
    /// Reports that were answered 200.
    pub reports: u64,
    /// From connecting to the last byte.
    pub latency_ms: Option<LatencyMs>,
    /// The largest report in bytes.
    pub largest_bytes: u64,
}

/// Registers every project as one whose report anybody may read. Those who ask need no token then.
///
/// # Errors
/// When ClickHouse refuses.
pub async fn register(plan: &Plan, database: &Database) -> anyhow::Result<()> {
    const AT_ONCE: u32 = 5_000;
    let name = &database.name;
    for first in (0..plan.size().projects).step_by(AT_ONCE as usize) {
        let last = (first + AT_ONCE).min(plan.size().projects);
        let row = |number| {
            let slug = plan.slug(number);
            format!("('{slug}',['{slug}.docs.example.org'],0,1,1)")
        };
        let rows: Vec<String> = (first..last).map(row).collect();
        let sql =
            format!("INSERT INTO {name}.project (slug, hosts, removed, revision, public) VALUES {}", rows.join(","));
        database.execute(&sql).await.context("registering the month's projects")?;
    }
    Ok(())
}

/// Asks on until told to stop.
///
/// # Errors
/// When an answer is not 200 or 404 (nobody has read that project yet), or does not come.
pub async fn ask(plan: &Plan, port: u16, token: Option<&str>, stop: &AtomicBool) -> anyhow::Result<Probed> {
    let mut rng = SplitMix64::new(plan.seed ^ 0xa5c);
    let mut histogram = Histogram::<u64>::new_with_max(u64::from(u32::MAX), 3)?;
    let mut largest = 0;
    while !stop.load(Ordering::Relaxed) {
        // Half by how much they are read, half any: small ones are read too.
        let count = plan.projects.len();
        let project =
            if rng.below(2) == 0 { rng.below(count as u64) } else { plan.pages.sample_among(count, &mut rng) as u64 };
        let path = format!("/v1/projects/{}/reports/{}", plan.slug(project as u32), plan.month);
        let begun = Instant::now();
        let (status, bytes) =
            tokio::time::timeout(PATIENCE, get(port, &path, token)).await.context("waiting for a report")??;
        match status {
            200 => {
                histogram.saturating_record((begun.elapsed().as_micros() as u64).max(1));
                largest = largest.max(bytes);
            }
            404 => {}
            _ => anyhow::bail!("the report {path} was answered {status}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Probed { reports: histogram.len(), latency_ms: LatencyMs::of(&histogram), largest_bytes: largest })
}

async fn get(port: u16, path: &str, token: Option<&str>) -> anyhow::Result<(u16, u64)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.context("connecting to the query service")?;
    let access = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{access}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    ensure!(status.is_some(), "the query service answered with something that is no HTTP");
    Ok((status.unwrap_or(0), answer.len() as u64))
}
