//! The roles as processes of their own, over Kafka and a ClickHouse server: as many of each as the traffic needs.

#[cfg(feature = "kafka")]
pub mod aggregate;
pub mod engine;
#[cfg(feature = "kafka")]
pub mod ingest;
pub mod query;

use std::net::{Ipv4Addr, SocketAddr};

/// Default listen address of `metrics_listen` for `serve` and `ingest`, `aggregate`, `query`: side by side on one machine.
pub const METRICS: [SocketAddr; 3] = [loopback(9017), loopback(9018), loopback(9019)];

/// Where a role listens by default: side by side on one machine.
const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}
