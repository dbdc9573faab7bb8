//! Which server may be loaded: one on this machine, or one whose owner says so by name.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail, ensure};

/// A server that passed the guard.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the `Host` header says: host, and port if the URL has one.
    pub authority: String,
    /// Where to connect; the first that accepts is used. Resolved once, so that no later answer of a name server can
    /// turn the load elsewhere.
    pub addresses: Vec<SocketAddr>,
}

impl Target {
    /// Parses and resolves `url` (`http://HOST[:PORT]`), and refuses it unless every address is a loopback address or
    /// `owned_host` is exactly the URL's host.
    ///
    /// # Errors
    /// When the URL is not of that form, does not resolve, or is not allowed.
    pub fn parse(url: &str, owned_host: Option<&str>) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("the target {url:?} is not a URL"))?;
        ensure!(uri.scheme_str() == Some("http"), "the target {url:?} must begin with http:// (no TLS is spoken)");
        ensure!(matches!(uri.path(), "" | "/") && uri.query().is_none(), "the target {url:?} must not have a path");
        let authority = uri.authority().with_context(|| format!("the target {url:?} has no host"))?;
        ensure!(!authority.as_str().contains('@'), "the target {url:?} must not carry credentials");
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses: Vec<SocketAddr> = (bare, authority.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .with_context(|| format!("resolving the target's host {host:?}"))?
            .collect();
        ensure!(!addresses.is_empty(), "the target's host {host:?} has no address");
        if owned_host != Some(host)
            && let Some(stranger) = addresses.iter().find(|a| !a.ip().is_loopback())
        {
            bail!(
                "{host} resolves to {}, which is not a loopback address; to load it all the same: --i-own-this-target {host}",
                stranger.ip()
            );
        }
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
            Target::parse(url, None).unwrap_or_else(|e| panic!("{url}: {e:#}"));
        }
        let target = Target::parse("http://127.0.0.1", None).unwrap();
        assert_eq!(target.addresses, ["127.0.0.1:80".parse().unwrap()]);
        assert_eq!(target.authority, "127.0.0.1");
    }

    #[test]
    fn other_machines_only_by_their_exact_name() {
        let url = "http://192.0.2.7:8080";
        let refused = Target::parse(url, None).unwrap_err().to_string();
        assert!(refused.contains("--i-own-this-target 192.0.2.7"), "{refused}");
        assert!(Target::parse(url, Some("192.0.2.8")).is_err());
        assert!(Target::parse(url, Some("192.0.2.7")).is_ok());
        // 0.0.0.0 connects to this machine on Linux, but it says nothing of the sort.
        assert!(Target::parse("http://0.0.0.0:80", None).is_err());
        assert!(Target::parse("http://[2001:db8::1]:80", None).is_err());
    }

    #[test]
    fn odd_urls_are_refused() {
        for url in
            ["https://127.0.0.1", "127.0.0.1:80", "http://127.0.0.1/v1/pageview", "http://a@127.0.0.1", "http://"]
        {
            assert!(Target::parse(url, None).is_err(), "{url}");
        }
    }
}
