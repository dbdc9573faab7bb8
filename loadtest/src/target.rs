//! Which server may be loaded: one on this machine.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, ensure};

/// A server that passed the guard.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the `Host` header says: host, and port if the URL has one.
    pub authority: String,
    /// Where to connect; the first that accepts is used. Resolved once, so that no later answer of a name server can
    /// turn the load elsewhere.
    pub addresses: Vec<SocketAddr>,
}

/// Where a server on this machine listens.
///
/// # Errors
/// When the host does not resolve, or to somewhere else: load is for a server that was started for it.
pub fn loopback(host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = (bare, port).to_socket_addrs().with_context(|| format!("resolving {host:?}"))?;
    let found: Vec<SocketAddr> = found.collect();
    for address in &found {
        let ip = address.ip();
        ensure!(ip.is_loopback(), "{host} is at {ip}, which is not a loopback address: start a server on this machine");
    }
    ensure!(!found.is_empty(), "{host:?} does not resolve");
    Ok(found)
}

impl Target {
    /// Parses and resolves `url` (`http://HOST[:PORT]`).
    ///
    /// # Errors
    /// When the URL is not of that form, does not resolve, or is not of this machine.
    pub fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("the target {url:?} is not a URL"))?;
        ensure!(uri.scheme_str() == Some("http"), "the target {url:?} must begin with http:// (no TLS is spoken)");
        ensure!(matches!(uri.path(), "" | "/") && uri.query().is_none(), "the target {url:?} must not have a path");
        let authority = uri.authority().with_context(|| format!("the target {url:?} has no host"))?;
        ensure!(!authority.as_str().contains('@'), "the target {url:?} must not carry credentials");
        let addresses = loopback(authority.host(), authority.port_u16().unwrap_or(80))?;
        Ok(Self { authority: authority.as_str().to_owned(), addresses })
    }

    /// The target at one loopback address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        Self { authority: address.to_string(), addresses: vec![address] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_may_be_loaded() {
        for url in ["http://127.0.0.1:8080", "http://127.8.9.1:80/", "http://[::1]:9000"] {
            Target::parse(url).unwrap_or_else(|e| panic!("{url}: {e:#}"));
        }
        let target = Target::parse("http://127.0.0.1").unwrap();
        assert_eq!(target.addresses, ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(target.authority, "127.0.0.1");
    }

    #[test]
    fn other_machines_are_refused() {
        let refused = Target::parse("http://192.0.2.7:8080").unwrap_err().to_string();
        assert!(refused.contains("192.0.2.7, which is not a loopback address"), "{refused}");
        // 0.0.0.0 connects to this machine on Linux, but it says nothing of the sort.
        assert!(Target::parse("http://0.0.0.0:80").is_err());
        assert!(Target::parse("http://[2001:db8::1]:80").is_err());
    }

    #[test]
    fn odd_urls_are_refused() {
        for url in
            ["https://127.0.0.1", "127.0.0.1:80", "http://127.0.0.1/v1/pageview", "http://a@127.0.0.1", "http://"]
        {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
