//! E-mail addresses and IP addresses in a segment of a path.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Whether the text contains an e-mail address: a name, `@` and a host whose last label is alphabetic, as top-level domains are. Versions of packages
/// (`python@3.11`, `pkg@1.0.0-rc.next`) and scopes (`/@scope`) have no such host.
pub(super) fn has_email(text: &str) -> bool {
    text.match_indices('@').any(|(at, sign)| {
        let before = text[..at].chars().next_back();
        let named = before.is_some_and(|c| c.is_alphanumeric() || "!#$%&'*+-=?^_`{|}~.\"".contains(c));
        let host = &text[at + sign.len()..];
        let end = host.find(|c: char| !c.is_alphanumeric() && !matches!(c, '.' | '-')).unwrap_or(host.len());
        named && is_mail_host(&host[..end])
    })
}

fn is_mail_host(host: &str) -> bool {
    let host = super::stem(host).trim_end_matches('.');
    let Some((rest, last)) = host.rsplit_once('.') else { return host == "localhost" };
    let top = (last.chars().count() >= 2 && last.chars().all(char::is_alphabetic)) || last.starts_with("xn--");
    top && rest.split('.').all(|label| !label.is_empty()) && !starts_with_version(host)
}

/// `1.0` and `v1.0`, whatever follows. Hosts may start with one number (`163.com`), but not with two.
fn starts_with_version(host: &str) -> bool {
    let mut labels = host.strip_prefix('v').unwrap_or(host).split('.');
    let mut number =
        || labels.next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()) && !label.is_empty());
    let first = number();
    first && labels.next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether the whole text is an IP address, bare or in brackets, with or without a port. For hosts: a version is not a host.
pub(super) fn is_ip_address(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}

/// Whether the text contains an IP address, and not more likely a version or an identifier of code.
pub(super) fn has_ip_address(text: &str) -> bool {
    has_ipv4(text) || has_dashed_ipv4(text) || (text.contains(':') && has_ipv6(text))
}

/// Four numbers with dots between, and no letter or digit in front (`v1.2.3.4`).
fn has_ipv4(text: &str) -> bool {
    parts_of(text, |c| c.is_ascii_digit() || c == '.').any(|part| {
        let quad = part.trim_matches('.');
        quad.parse::<Ipv4Addr>().is_ok_and(is_no_version)
    })
}

/// `ip-10-153-106-56`, as clouds name hosts.
fn has_dashed_ipv4(text: &str) -> bool {
    let rest = ["ip-", "ip_", "ec2-"].iter().find_map(|prefix| text.split_once(prefix).map(|(_, rest)| rest));
    rest.is_some_and(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '_')).unwrap_or(rest.len());
        let quad = rest[..end].trim_end_matches(['-', '_']).replace(['-', '_'], ".");
        quad.parse::<Ipv4Addr>().is_ok_and(is_no_version)
    })
}

/// Versions have small numbers: `1.2.3.4`, `12.2.0.1`. An IP address starts with 32 or more, or has 100 or more among its first three numbers; one in
/// fifty of all others does not.
fn is_no_version(ip: Ipv4Addr) -> bool {
    let [first, second, third, _] = ip.octets();
    first >= 32 || second >= 100 || third >= 100
}

/// An IPv6 address: all eight groups, or the short form with a first group of four digits of which one is decimal (2001, fe80). Paths of code
/// (`/bad::add`) have no such group.
fn has_ipv6(text: &str) -> bool {
    parts_of(text, |c| c.is_ascii_hexdigit() || matches!(c, ':' | '.')).any(|part| {
        let trimmed = part.strip_prefix(':').filter(|rest| !rest.starts_with(':')).unwrap_or(part);
        [trimmed, trimmed.trim_end_matches([':', '.'])].iter().any(|candidate| {
            let decimal = |text: &str| text.bytes().any(|b| b.is_ascii_digit());
            let Ok(ip) = candidate.parse::<Ipv6Addr>() else { return false };
            let first = candidate.split(':').next().unwrap_or("");
            let whole = !candidate.contains("::") && decimal(candidate);
            whole || (first.len() == 4 && decimal(first)) || ip.to_ipv4_mapped().is_some()
        })
    })
}

/// The longest pieces of the text that consist of such characters. A piece that continues a word (`v1.2`) is skipped.
fn parts_of(text: &str, belongs: impl Fn(char) -> bool + Copy) -> impl Iterator<Item = &str> {
    let mut start = 0;
    std::iter::from_fn(move || {
        loop {
            start += text[start..].find(belongs)?;
            let len = text[start..].find(|c| !belongs(c)).unwrap_or(text.len() - start);
            let (part, before) = (&text[start..start + len], text[..start].chars().next_back());
            start += len;
            if part.starts_with([':', '.']) || !before.is_some_and(char::is_alphanumeric) {
                return Some(part);
            }
        }
    })
}
