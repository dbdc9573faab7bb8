//! The reader, as the endpoint sees them for the length of one request. These types can be neither serialised nor
//! printed; nothing outside this crate ever holds one.

use http::HeaderMap;
use ipnet::IpNet;
use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a user agent that are looked at. Longer ones are cut, so that a caller cannot make hashing expensive.
const MAX_AGENT_BYTES: usize = 512;

/// A client's IP address. An IPv4 address within an IPv6 address counts as IPv4 ([`unwrapped`]).
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
    /// The IP address of the far end of a connection.
    pub fn new(address: IpAddr) -> Self {
        ClientAddress(unwrapped(address))
    }

    /// Whether it is in one of the networks.
    pub(crate) fn is_in(&self, networks: &[IpNet]) -> bool {
        networks.iter().any(|network| network.contains(&self.0))
    }

    /// What `use_address` finds by the whole IP address. Nothing of the address may be in it.
    pub(crate) fn with_address<T>(&self, use_address: impl FnOnce(IpAddr) -> T) -> T {
        use_address(self.0)
    }

    /// What of the address is hashed: all 4 bytes of IPv4, the first 8 of IPv6 (a household's /64).
    pub(crate) fn with_network_bytes<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        with_prefix(self.0, 8, use_bytes)
    }
}

/// The IPv4 address that an IPv6 address stands for, else the address itself. A translator or a proxy puts IPv4 clients into one IPv6 network,
/// so by their first 64 bits they would all be one reader.
///
/// | network | what it is |
/// |---|---|
/// | `64:ff9b::/96` | IPv4/IPv6 translation, RFC 6052 |
/// | `::ffff:0:0/96` | IPv4-mapped, RFC 4291 |
/// | `::/96`, but for `::` and `::1` | IPv4-compatible, RFC 4291 |
/// | `::ffff:0:0:0/96` | IPv4-translated, RFC 7915 |
/// | `2002::/16` | 6to4, RFC 3056: the next 32 bits |
pub fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(ipv6) = address else { return address };
    let ipv4 = match ipv6.segments() {
        [0x2002, high, low, ..] => Some((high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low] => Some((high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if ipv6 != Ipv6Addr::UNSPECIFIED && ipv6 != Ipv6Addr::LOCALHOST => {
            Some((high, low))
        }
        _ => None,
    };
    match ipv4 {
        Some((high, low)) => Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into(),
        None => address,
    }
}

/// The network that limits go by: all 4 bytes of the IPv4 address, or the first 7 of IPv6 (the /56 that one customer of a provider usually
/// has). In `64:ff9b:1::/48` (RFC 8215) all 16 bytes: where the IPv4 address is in there is local choice.
pub fn with_client_network<T>(address: IpAddr, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
    with_prefix(unwrapped(address), 7, use_bytes)
}

/// The network of an unwrapped IP address: of an IPv6 address the first `ipv6_bytes`, unless an IPv4 address is somewhere in it.
fn with_prefix<T>(address: IpAddr, ipv6_bytes: usize, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
    match address {
        IpAddr::V4(address) => use_bytes(&address.octets()),
        IpAddr::V6(address) if matches!(address.segments(), [0x64, 0xff9b, 1, ..]) => use_bytes(&address.octets()),
        IpAddr::V6(address) => use_bytes(&address.octets()[..ipv6_bytes]),
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

    /// The bytes of the client network, as [`with_client_network`] has them.
    pub(crate) fn with_client_network<T>(&self, use_bytes: impl FnOnce(&[u8]) -> T) -> T {
        with_client_network(self.0, use_bytes)
    }
}

impl<'a> UserAgent<'a> {
    /// The `User-Agent` header, or the empty one.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let bytes = headers.get(http::header::USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
        UserAgent(&bytes[..bytes.len().min(MAX_AGENT_BYTES)])
    }

    /// The agent that a line of an access log has.
    pub(crate) fn of_log(bytes: &'a [u8]) -> Self {
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
        // Not unwrapped: only the kernel maps addresses; all other forms of IPv4 within IPv6 can be chosen by a peer.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's IP address: the far end itself unless that is a trusted proxy; then the nearest hop, read from the
    /// right of `X-Forwarded-For` or `Forwarded` (RFC 7239), that is not one. What a client wrote further left is
    /// never reached, so a client cannot choose its IP address.
    ///
    /// A proxy writes one of the two headers and may pass the other on as a client wrote it. Nothing in the request shows which one the proxy
    /// wrote, so where both name a client, and not the same, the far end counts. Proxies should drop the header that they do not write.
    /// A header that names no client (empty, `proto=https;host=x`) says nothing, and the other one decides.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        if !self.contains(peer) {
            return ClientAddress::new(peer);
        }
        let by_x = self.nearest(peer, hops_of_x_forwarded_for(headers));
        let by_rfc = self.nearest(peer, hops_of_forwarded(headers));
        match (by_x, by_rfc) {
            (Some(one), None) | (None, Some(one)) => one,
            (Some(one), Some(other)) if one == other => one,
            _ => ClientAddress::new(peer),
        }
    }

    /// Whether `peer` names clients although it is no trusted proxy: probably a proxy that the setting `trusted_proxy` lacks.
    pub fn is_unnamed_proxy(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        headers.contains_key("x-forwarded-for") && !self.contains(peer)
    }

    /// Whether the client came over TLS, by the word of a proxy that is trusted: the last entry of `X-Forwarded-Proto`.
    pub fn says_https(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let told = headers.get_all("x-forwarded-proto").iter().next_back().and_then(|value| value.to_str().ok());
        let last = told.and_then(|value| value.rsplit(',').next());
        self.contains(peer) && last.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
    }

    /// The client of a line of an access log: `peer` is what the server logged as the far end, or a list of hops; `forwarded` is what it
    /// logged of `X-Forwarded-For`. The rule is that of [`TrustedProxies::client`]: the last hop that is no trusted proxy. None if the far end
    /// is no IP address.
    pub(crate) fn client_of_log(&self, peer: &str, forwarded: &str) -> Option<ClientAddress> {
        let peers = peer.split(',').map(str::trim).filter(|hop| !hop.is_empty());
        let hops = forwarded.split(',').map(str::trim).filter(|hop| !hop.is_empty() && *hop != "-").chain(peers);
        let mut nearest = None;
        for hop in hops.rev() {
            match parse_hop(unquoted(hop)) {
                Some(address) if self.contains(address) => nearest = Some(ClientAddress::new(address)),
                Some(address) => return Some(ClientAddress::new(address)),
                None => break,
            }
        }
        nearest
    }

    /// Where the hops of one header lead; nothing where it names none.
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

/// The elements of all lines of a header, left to right. A value that is not ASCII is an element that cannot be read.
fn elements<'a>(
    headers: &'a HeaderMap,
    name: &str,
    split: impl Fn(&'a str) -> Vec<&'a str>,
) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    lines.flat_map(split).map(str::trim).filter(|element| !element.is_empty())
}

fn hops_of_x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let hops = elements(headers, "x-forwarded-for", |line| line.split(',').collect());
    hops.map(|hop| parse_hop(unquoted(hop))).collect()
}

/// None if no element has a `for`. Beside others, an element without one is a hop that cannot be read.
fn hops_of_forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let elements = elements(headers, "forwarded", |line| outside_quotes(line, b','));
    let clients: Vec<_> = elements.map(client_of_element).collect();
    if clients.iter().all(|client| *client == Ok(None)) {
        return Vec::new();
    }
    clients.into_iter().map(|client| parse_hop(client.ok()??)).collect()
}

/// The parts of a header's value between separators that are not within a quoted string (RFC 9110, 5.6.4). A quote that is never closed is
/// an ordinary character, or a client's one quote would hide what the proxy appended.
fn outside_quotes(value: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while at < value.len() {
        if value.as_bytes()[at] == separator {
            parts.push(&value[start..at]);
            start = at + 1;
        }
        at += quoted_len(&value[at..]).unwrap_or(1);
    }
    parts.push(&value[start..]);
    parts
}

/// Bytes of the quoted string that `text` begins with, quotes included.
fn quoted_len(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    if bytes.next() != Some((0, b'"')) {
        return None;
    }
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).map_or(text, str::trim)
}

/// An element of `Forwarded` that is not written as RFC 7239 says.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// The client that one element of `Forwarded` names in its `for`. An element with a quote in the wrong place is malformed: a client that
/// sends `x="` would hide the `for` that the proxy appends.
fn client_of_element(element: &str) -> Result<Option<&str>, Malformed> {
    let mut client = None;
    for pair in outside_quotes(element, b';').into_iter().map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(Malformed)?;
        let value = value.trim();
        let is_quoted = quoted_len(value) == Some(value.len());
        if name.contains('"') || (value.contains('"') && !is_quoted) {
            return Err(Malformed);
        }
        if name.trim().eq_ignore_ascii_case("for") {
            client = Some(unquoted(value));
        }
    }
    Ok(client)
}

/// An IP address with or without brackets and port.
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
            // IPv4 within IPv6 makes no peer trusted but for the kernel's own form.
            ("2002:a00:1::1", &[("x-forwarded-for", "203.0.113.1")], "10.0.0.1"),
            // A quote of the client's does not hide what the proxy appended.
            ("10.0.0.1", &[("forwarded", r#"for="192.0.2.66, for=203.0.113.1"#)], "203.0.113.1"),
            ("10.0.0.1", &[("forwarded", r#"for=192.0.2.66, x=", for="203.0.113.1""#)], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", r#"x=", for="203.0.113.1""#), ("x-forwarded-for", "192.0.2.66")], "10.0.0.1"),
            (
                "10.0.0.1",
                &[("forwarded", r#"x="\", for="203.0.113.1""#), ("x-forwarded-for", "192.0.2.66")],
                "10.0.0.1",
            ),
            ("10.0.0.1", &[("x-forwarded-for", r#"192.0.2.66, ", 203.0.113.1"#)], "203.0.113.1"),
            ("10.0.0.1", &[("forwarded", "for=192.0.2.66, proto=https")], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.1"), ("forwarded", "for=unknown")], "10.0.0.1"),
        ] {
            assert_eq!(client(peer, headers), expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
        }
    }

    #[test]
    fn a_header_that_names_no_client_says_nothing() {
        let x = ("x-forwarded-for", "203.0.113.1");
        for (headers, expected) in [
            (&[x, ("forwarded", "proto=https;host=x")][..], "203.0.113.1"),
            (&[x, ("forwarded", r#"by=10.0.0.1;host="a, for=192.0.2.66;b""#)], "203.0.113.1"),
            (&[x, ("forwarded", "")], "203.0.113.1"),
            (&[x, ("forwarded", " , ;")], "203.0.113.1"),
            (&[("x-forwarded-for", ""), ("forwarded", "for=203.0.113.1")], "203.0.113.1"),
            (&[("x-forwarded-for", ""), ("forwarded", "proto=https")], "10.0.0.1"),
            (&[("x-forwarded-for", "203.0.113.1,")], "203.0.113.1"),
            (&[("x-forwarded-for", "203.0.113.1, ,")], "203.0.113.1"),
            (&[x, ("x-forwarded-for", "")], "203.0.113.1"),
            (&[("x-forwarded-for", r#""203.0.113.1""#)], "203.0.113.1"),
            (&[("x-forwarded-for", r#""[2001:db8::1]:99""#)], "2001:db8::1"),
            (&[("forwarded", "for=203.0.113.1,")], "203.0.113.1"),
            (&[("forwarded", r#"for = "203.0.113.1" ; proto=https"#)], "203.0.113.1"),
            (&[("forwarded", r#"host="a,b;c";for=203.0.113.1"#)], "203.0.113.1"),
            (&[("forwarded", r#"for=203.0.113.1;host="a\",b""#)], "203.0.113.1"),
            (&[("forwarded", r#"for="203.0.113.1:99";by="[::1]""#), x], "203.0.113.1"),
        ] {
            assert_eq!(client("10.0.0.1", headers), expected.parse::<IpAddr>().unwrap(), "{headers:?}");
        }
    }

    #[test]
    fn ipv4_within_ipv6_is_one_reader_for_each_ipv4_address() {
        for (one, other) in [
            ("64:ff9b::198.51.100.1", "64:ff9b::198.51.100.2"),
            ("::ffff:198.51.100.1", "::ffff:198.51.100.2"),
            ("::198.51.100.1", "::198.51.100.2"),
            ("::ffff:0:198.51.100.1", "::ffff:0:198.51.100.2"),
            ("2002:c633:6401::1", "2002:c633:6402::1"),
        ] {
            for (address, ipv4) in [(one, "198.51.100.1"), (other, "198.51.100.2")] {
                let (address, ipv4): (IpAddr, IpAddr) = (address.parse().unwrap(), ipv4.parse().unwrap());
                assert_eq!(unwrapped(address), ipv4, "{address}");
                assert!(ClientAddress::new(address) == ClientAddress::new(ipv4), "{address}");
                let network = |address| with_client_network(address, <[u8]>::to_vec);
                assert_eq!(network(address), network(ipv4), "{address}");
            }
        }
        for kept in
            ["::", "::1", "64:ff9b:1::198.51.100.1", "64:ff9b:0:1::198.51.100.1", "2001:db8::1", "2003::1", "fe80::1"]
        {
            assert_eq!(unwrapped(kept.parse().unwrap()), kept.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn the_network_of_an_ipv6_address() {
        for (one, other, same_reader, same_network) in [
            ("2001:db8:0:ff00::1", "2001:db8:0:ff00::2", true, true),
            ("2001:db8:0:ff00::1", "2001:db8:0:ffff::1", false, true),
            ("2001:db8:0:ff00::1", "2001:db8:0:fe00::1", false, false),
            ("64:ff9b:1::1", "64:ff9b:1::2", false, false),
            ("64:ff9b:1:c633:64:100::", "64:ff9b:1:c633:64:200::", false, false),
            ("64:ff9b:1::1", "64:ff9b:1::1", true, true),
        ] {
            let address = |text: &str| ClientAddress::new(text.parse().unwrap());
            let reader = |text: &str| address(text).with_network_bytes(<[u8]>::to_vec);
            let network = |text: &str| address(text).with_client_network(<[u8]>::to_vec);
            assert_eq!(reader(one) == reader(other), same_reader, "{one} {other}");
            assert_eq!(network(one) == network(other), same_network, "{one} {other}");
        }
    }

    #[test]
    fn a_proxy_that_is_not_trusted_is_noticed() {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let forwarded = HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), "203.0.113.1".parse().unwrap())]);
        for (peer, headers, noticed) in [
            ("198.51.100.7", &forwarded, true),
            ("10.0.0.1", &forwarded, false),
            ("198.51.100.7", &HeaderMap::new(), false),
        ] {
            assert_eq!(proxies.is_unnamed_proxy(peer.parse().unwrap(), headers), noticed, "{peer}");
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
