//! The reader, as the endpoint sees them for the length of one request. These types can be neither serialised nor
//! printed; nothing outside this crate ever holds one.

use http::HeaderMap;
use ipnet::IpNet;
use std::fmt;
use std::hash::BuildHasher;
use std::net::IpAddr;

/// Bytes of a user agent that are looked at. Longer ones are cut, so that a caller cannot make hashing expensive.
const MAX_AGENT_BYTES: usize = 512;

/// A client's network address. IPv4-mapped IPv6 counts as IPv4.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(IpAddr);

/// A client's `User-Agent`, cut to 512 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserAgent<'a>(&'a [u8]);

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAddress(…)")
    }
}

impl fmt::Debug for UserAgent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserAgent(…)")
    }
}

impl ClientAddress {
    /// The address of the far end of a connection.
    pub fn new(address: IpAddr) -> Self {
        ClientAddress(address.to_canonical())
    }

    /// What of the address is hashed: all 4 bytes of IPv4, the first 8 of IPv6 (a household's /64).
    pub(crate) fn with_network_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        match self.0 {
            IpAddr::V4(address) => use_bytes(&address.octets()),
            IpAddr::V6(address) => use_bytes(&address.octets()[..8]),
        }
    }
}

/// What clients are hashed with where they must be told apart, and not known. It lives in memory only.
#[derive(Clone, Default)]
pub struct ClientSecret(foldhash::quality::RandomState);

impl ClientAddress {
    /// The network under a secret of the caller's process.
    pub fn hashed(&self, secret: &ClientSecret) -> u64 {
        self.with_network_bytes(|bytes| secret.0.hash_one(bytes))
    }

    /// The client network that limits go by (the IPv4 address, or the IPv6 /56 that one customer of a provider usually has),
    /// under a secret of the caller's process.
    pub fn network_hashed(&self, secret: &ClientSecret) -> u64 {
        self.with_client_network(|bytes| secret.0.hash_one(bytes))
    }

    /// All 4 bytes of IPv4, the first 7 of IPv6.
    pub(crate) fn with_client_network<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        match self.0 {
            IpAddr::V4(address) => use_bytes(&address.octets()),
            IpAddr::V6(address) => use_bytes(&address.octets()[..7]),
        }
    }
}

impl<'a> UserAgent<'a> {
    /// The `User-Agent` header, or the empty one.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let bytes = headers.get(http::header::USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
        UserAgent(&bytes[..bytes.len().min(MAX_AGENT_BYTES)])
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The part that is UTF-8.
    pub(crate) fn text(&self) -> &'a str {
        match std::str::from_utf8(self.0) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&self.0[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

/// The proxies in front of us whose word about a client's address is taken.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Networks of our own proxies.
    pub fn new(networks: Vec<IpNet>) -> Self {
        TrustedProxies(networks)
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: the far end itself unless that is a trusted proxy; then the nearest hop, read from the
    /// right of `X-Forwarded-For` or `Forwarded` (RFC 7239), that is not one. What a client wrote further left is
    /// never reached, so a client cannot choose its address.
    ///
    /// A proxy writes one of the two headers and may pass the other on as a client wrote it. Which one is ours cannot
    /// be told, so where both are present and lead to different clients, neither is believed and the far end counts.
    /// Proxies should drop the header that they do not write.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        if !self.contains(peer) {
            return ClientAddress::new(peer);
        }
        let by_x = self.nearest(peer, hops(headers, "x-forwarded-for", parse_hop));
        let by_rfc = self.nearest(peer, hops(headers, "forwarded", parse_forwarded));
        match (by_x, by_rfc) {
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) if one == other => one,
            _ => ClientAddress::new(peer),
        }
    }

    /// Whether the client came over TLS, by the word of a proxy that is trusted: the last entry of `X-Forwarded-Proto`.
    pub fn says_https(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let told = headers.get_all("x-forwarded-proto").iter().next_back().and_then(|value| value.to_str().ok());
        let last = told.and_then(|value| value.rsplit(',').next());
        self.contains(peer) && last.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
    }

    /// Where the hops of one header lead; nothing where it is absent.
    fn nearest(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> Option<ClientAddress> {
        if hops.is_empty() {
            return None;
        }
        let mut nearest = peer;
        for hop in hops.into_iter().rev() {
            match hop {
                Some(address) if self.contains(address) => nearest = address,
                Some(address) => return Some(ClientAddress::new(address)),
                // An unreadable hop ends what can be trusted.
                None => break,
            }
        }
        Some(ClientAddress::new(nearest))
    }
}

fn hops(headers: &HeaderMap, name: &str, parse: impl Fn(&str) -> Option<IpAddr>) -> Vec<Option<IpAddr>> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(|hop| parse(hop.trim()))
        .collect()
}

fn parse_forwarded(element: &str) -> Option<IpAddr> {
    let value = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    parse_hop(value.trim_matches('"'))
}

/// An address with or without brackets and port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    if let Ok(address) = hop.parse() {
        return Some(address);
    }
    if let Ok(socket) = hop.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &'static str)]) -> IpAddr {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &map).0
    }

    #[test]
    fn an_untrusted_client_cannot_choose_its_address() {
        for (peer, headers, expected) in [
            ("198.51.100.7", &[("x-forwarded-for", "203.0.113.1")][..], "198.51.100.7"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.1")], "203.0.113.1"),
            // The client wrote the first entry itself; our proxy appended the second.
            ("10.0.0.1", &[("x-forwarded-for", "192.0.2.66, 203.0.113.1")], "203.0.113.1"),
            ("10.0.0.1", &[("x-forwarded-for", "192.0.2.66, 203.0.113.1, 10.0.0.9")], "203.0.113.1"),
            ("10.0.0.1", &[("x-forwarded-for", "192.0.2.66"), ("x-forwarded-for", "203.0.113.1")], "203.0.113.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.1, rubbish")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.1:4711")], "203.0.113.1"),
            ("10.0.0.1", &[("forwarded", r#"for="[2001:db8::1]:99";proto=https"#)], "2001:db8::1"),
            ("10.0.0.1", &[("forwarded", "for=192.0.2.66, For=203.0.113.1")], "203.0.113.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            // One header is our proxy's, the other the client's invention; whichever it is, it chooses nothing.
            ("10.0.0.1", &[("x-forwarded-for", "192.0.2.66"), ("forwarded", "for=203.0.113.1")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.1"), ("forwarded", "for=192.0.2.66")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "rubbish"), ("forwarded", "for=203.0.113.1")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "10.0.0.9"), ("forwarded", "for=203.0.113.1")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.1"), ("forwarded", "for=203.0.113.1")], "203.0.113.1"),
            ("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:203.0.113.1")], "203.0.113.1"),
        ] {
            assert_eq!(client(peer, headers), expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_says_that_a_client_came_over_tls() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        for (peer, told, expected) in [
            ("10.0.0.1", "https", true),
            ("10.0.0.1", "http, HTTPS", true),
            ("10.0.0.1", "https, http", false),
            ("10.0.0.1", "", false),
            ("198.51.100.7", "https", false),
        ] {
            let headers = HeaderMap::from_iter([("x-forwarded-proto".parse().unwrap(), told.parse().unwrap())]);
            assert_eq!(proxies.says_https(peer.parse().unwrap(), &headers), expected, "{peer} {told}");
        }
        assert!(!proxies.says_https("10.0.0.1".parse().unwrap(), &HeaderMap::new()));
    }

    #[test]
    fn neither_type_prints_what_it_holds() {
        let address = ClientAddress::new("203.0.113.99".parse().unwrap());
        let agent = UserAgent(b"secret");
        assert_eq!(format!("{address:?} {agent:?}"), "ClientAddress(…) UserAgent(…)");
    }
}
