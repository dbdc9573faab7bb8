//! Networks whose views are not counted: those of the docs' own team.

use crate::client::{ClientAddress, unwrapped};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// First of the IPv6 addresses that are assigned to readers, 2000::/3.
const PUBLIC_IPV6: Ipv6Addr = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0);

/// A list of networks.
///
/// ```
/// use headcount_ingest::client::ClientAddress;
/// use headcount_ingest::ignored::{IgnoredNetworks, Network};
///
/// let networks = IgnoredNetworks::new(["192.0.2.0/24".parse::<Network>().unwrap()]);
/// assert!(networks.contains(&ClientAddress::new("192.0.2.7".parse().unwrap())));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoredNetworks(Vec<IpNet>);

impl IgnoredNetworks {
    /// These networks.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Self {
        IgnoredNetworks(networks.into_iter().map(|network| network.0).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the client is in one of them.
    pub fn contains(&self, client: &ClientAddress) -> bool {
        client.is_in(&self.0)
    }
}

/// A network in CIDR notation, or one IP address. A network of IPv4 addresses within IPv6 ([`unwrapped`]) means the network of the IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not accepted as a network.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidNetwork {
    /// It is not a network.
    #[error("expected a network such as 192.0.2.0/24 or 2001:db8::/32, or an IP address")]
    Form,
    /// No view of a reader with IPv4 would be counted. Prefixes that contain IPv4 addresses (64:ff9b::/96, ::ffff:0:0/96, 2002::/16 …) mean those.
    #[error("it contains every IPv4 address, so no reader with IPv4 would be counted; expected a smaller network")]
    AllOfIpv4,
    /// No view of a reader with IPv6 would be counted.
    #[error(
        "it contains every public IPv6 address, so no reader with IPv6 would be counted; expected a smaller network"
    )]
    AllOfIpv6,
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        let network = text.parse::<IpNet>().or_else(|_| single()).map_err(|_| InvalidNetwork::Form)?.trunc();
        let network = within_ipv4(network).map_or(network, IpNet::from);
        match network {
            IpNet::V4(network) if network.prefix_len() == 0 => Err(InvalidNetwork::AllOfIpv4),
            // Only 2000::/3 is assigned to readers.
            IpNet::V6(network) if network.contains(&Ipv6Net::new_assert(PUBLIC_IPV6, 3)) => {
                Err(InvalidNetwork::AllOfIpv6)
            }
            network => Ok(Network(network)),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The IPv4 network that an IPv6 network represents, since clients are looked up by their unwrapped IP addresses.
fn within_ipv4(network: IpNet) -> Option<Ipv4Net> {
    let (IpAddr::V6(ipv6), IpAddr::V4(ipv4)) = (network.addr(), unwrapped(network.addr())) else { return None };
    let first_bit = if ipv6.segments()[0] == 0x2002 { 16 } else { 96 };
    let length = network.prefix_len().checked_sub(first_bit)?.min(32);
    Ipv4Net::new(ipv4, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_in_a_network_however_either_is_written() {
        for (network, client, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.77/24", "192.0.2.1", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.0/24", "::ffff:192.0.2.1", true),
            ("192.0.2.0/24", "64:ff9b::192.0.2.1", true),
            ("::ffff:192.0.2.0/120", "192.0.2.1", true),
            ("::ffff:192.0.2.0/120", "192.0.3.1", false),
            ("2002:c000:200::/40", "2002:c000:201:1::1", true),
            ("2002:c000:201::/56", "192.0.2.1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("3fff::/16", "192.0.2.1", false),
            ("128.0.0.0/1", "::ffff:192.0.2.1", true),
        ] {
            let networks = IgnoredNetworks::new([network.parse().unwrap()]);
            assert_eq!(networks.contains(&ClientAddress::new(client.parse().unwrap())), expected, "{network} {client}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "192.0.2.0/33", "2001:db8::/129", "office", "192.0.2.0/", "192.0.2"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::Form), "{text}");
        }
    }

    #[test]
    fn a_network_of_all_readers_is_refused() {
        for text in ["0.0.0.0/0", "2002::/16", "64:ff9b::/96", "::ffff:0:0/96", "::ffff:0:0:0/96"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::AllOfIpv4), "{text}");
        }
        for text in ["::/0", "2000::/3"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork::AllOfIpv6), "{text}");
        }
        for (text, expected) in
            [("0.0.0.0/1", "0.0.0.0/1"), ("2002:c000::/24", "192.0.0.0/8"), ("2001:db8::/32", "2001:db8::/32")]
        {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), expected);
        }
    }
}
