//! The roles as processes of their own, over Kafka and a ClickHouse server: as many of each as the traffic needs.

pub mod aggregate;
pub mod engine;
mod figures;
pub mod ingest;
pub mod query;

use std::net::{Ipv4Addr, SocketAddr};

/// Where a role listens unless it is told otherwise: side by side on one machine.
const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
