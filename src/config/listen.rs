//! Settings of the listeners: where they listen, which proxies they trust, how many connections they take.

use super::values::{InvalidValue, Items, Optional, Parsed, all, count, items, millis, optional};
use crate::http::HttpConfig;
use ingest::client::TrustedProxies;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The listener of beacons and reports.
#[derive(clap::Args)]
pub struct ListenSettings {
    /// Listen address of beacons and reports
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8017", value_parser = listen_address)]
    pub listen: SocketAddr,
}

fn listen_address(text: &str) -> Parsed<SocketAddr> {
    text.trim().parse().map_err(|_| InvalidValue::expected("a listen address such as 127.0.0.1:8017 or [::]:80"))
}

/// The listener for the operator.
#[derive(clap::Args)]
pub struct OperatorSettings {
    /// Listen address of metrics; empty: off
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9017", value_parser = operator_address)]
    pub metrics_listen: Optional<SocketAddr>,
}

fn operator_address(text: &str) -> Parsed<Optional<SocketAddr>> {
    let expected = "a listen address such as 127.0.0.1:9017, or nothing to switch it off";
    optional(text.trim(), |text| text.parse().map_err(|_| InvalidValue::expected(expected)))
}

/// The old name of `metrics_listen` for `headcount aggregate`.
#[derive(clap::Args)]
pub struct OldListenSettings {
    /// Replaced by metrics_listen
    #[arg(long, value_name = "ADDR", default_value = "", hide = true, value_parser = old_listen_address)]
    pub listen: Optional<SocketAddr>,
}

fn old_listen_address(text: &str) -> Parsed<Optional<SocketAddr>> {
    optional(text, listen_address)
}

/// Bounds of all listeners.
#[derive(clap::Args)]
pub struct ConnectionSettings {
    /// Open connections; more wait
    #[arg(long, value_name = "N", default_value = "4096", value_parser = count::<usize, 1, { u64::MAX }>)]
    connections: usize,
    /// Open connections of one client network; more are closed; 0: no limit
    #[arg(long, value_name = "N", default_value = "256", value_parser = connections_per_network)]
    connections_per_network: usize,
    /// Bound of a request's head, in ms; then 408
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = millis::<0, { u64::MAX }>)]
    header_timeout_ms: Duration,
    /// Proxy whose X-Forwarded-For or Forwarded is believed
    #[arg(long, value_name = "CIDR", value_parser = proxies)]
    trusted_proxy: Vec<Items<IpNet>>,
}

fn connections_per_network(text: &str) -> Parsed<usize> {
    let expected = "a number of connections, or 0 for no limit";
    text.trim().parse().map_err(|_| InvalidValue::expected(expected))
}

fn proxies(text: &str) -> Parsed<Items<IpNet>> {
    let single = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = |text: &str| text.parse::<IpNet>().ok().or_else(|| single(text));
    items(text, network, "a network such as 10.0.0.0/8 or an IP address")
}

impl ConnectionSettings {
    /// Proxies whose headers are believed.
    pub fn trusted_proxies(&self) -> TrustedProxies {
        TrustedProxies::new(all(&self.trusted_proxy))
    }

    /// The listener's bounds.
    pub fn http(&self) -> HttpConfig {
        HttpConfig {
            connections: self.connections,
            connections_per_network: self.connections_per_network,
            trusted_proxies: self.trusted_proxies(),
            header_timeout: self.header_timeout_ms,
        }
    }
}
