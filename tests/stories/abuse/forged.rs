//! Forged beacons by the thousand, over a few connections.

use anyhow::{Result, ensure};
use harness::http::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// A month with no other views.
pub const CLOCK: &str = "2026-03-14T10:00:00Z";
pub const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const CONNECTIONS: usize = 64;

/// One beacon, with the IP address from a trusted proxy.
pub struct Forged {
    pub from: String,
    pub agent: String,
    pub body: String,
}

/// Sends the beacons that `beacon` returns for 0..`count`, in no order. Returns status → count.
pub async fn send_all(
    address: SocketAddr,
    count: usize,
    beacon: impl Fn(usize) -> Forged + Send + Sync + 'static,
) -> Result<BTreeMap<u16, u64>> {
    let beacon = Arc::new(beacon);
    let mut senders = tokio::task::JoinSet::new();
    for first in 0..CONNECTIONS {
        let beacon = Arc::clone(&beacon);
        senders.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let mut statuses: BTreeMap<u16, u64> = BTreeMap::new();
            for number in (first..count).step_by(CONNECTIONS) {
                let Forged { from, agent, body } = beacon(number);
                let headers = [("user-agent", agent.as_str()), ("x-forwarded-for", from.as_str())];
                let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
                *statuses.entry(answer.status.as_u16()).or_default() += 1;
            }
            anyhow::Ok(statuses)
        });
    }
    let mut statuses = BTreeMap::new();
    while let Some(sent) = senders.join_next().await {
        for (status, count) in sent?? {
            *statuses.entry(status).or_default() += count;
        }
    }
    Ok(statuses)
}

/// The same; all must be accepted.
pub async fn accepted(
    address: SocketAddr,
    count: usize,
    beacon: impl Fn(usize) -> Forged + Send + Sync + 'static,
) -> Result<()> {
    let statuses = send_all(address, count, beacon).await?;
    ensure!(statuses == BTreeMap::from([(202, count as u64)]), "{count} beacons: {statuses:?}");
    Ok(())
}
