//! Projects: their slugs and the hosts of their pages.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A project's name: 1 to 63 of `a–z 0–9 - _ .`, with a letter or digit at both ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ProjectSlug(Box<str>);

/// A host name as pages use it: lower case, without scheme; with a port only if it is not the scheme's default.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Host(Box<str>);

/// The text is not a project slug.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected {}", InvalidSlug::EXPECTED)]
pub struct InvalidSlug;

impl InvalidSlug {
    /// Describes a slug, for messages that contain `expected` themselves.
    pub const EXPECTED: &str =
        "a project slug: 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning and ending with a letter or digit";
}

/// The text is not a host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a host such as docs.example.org, optionally with a port, without scheme or path")]
pub struct InvalidHost;

impl ProjectSlug {
    /// The slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` is a slug: the check of [`FromStr`], for code that borrows.
    pub fn is_valid(text: &str) -> bool {
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && edge(bytes[0])
            && edge(bytes[bytes.len() - 1])
            && bytes.iter().all(|&b| edge(b) || matches!(b, b'-' | b'_' | b'.'))
    }
}

impl FromStr for ProjectSlug {
    type Err = InvalidSlug;

    fn from_str(text: &str) -> Result<Self, InvalidSlug> {
        if Self::is_valid(text) { Ok(ProjectSlug(text.into())) } else { Err(InvalidSlug) }
    }
}

impl<'de> Deserialize<'de> for ProjectSlug {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ProjectSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Host {
    /// The host as text, such as `docs.example.org` or `localhost:8000`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a host's text is a plain name, with or without a port: at most 255 of `a–z 0–9 - _ .` and not an IP address.
    pub fn is_name(text: &str) -> bool {
        let (name, port) = text.split_once(':').unwrap_or((text, "0"));
        let of_names = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        !name.is_empty()
            && text.len() <= 255
            && name.bytes().all(of_names)
            && name.parse::<std::net::Ipv4Addr>().is_err()
            && port.parse::<u16>().is_ok_and(|_| port.bytes().all(|b| b.is_ascii_digit()))
    }

    /// The host of a parsed URL, with its port if that is not the scheme's default.
    pub fn of(url: &url::Url) -> Option<Self> {
        let host = url.host_str()?.trim_end_matches('.');
        if host.is_empty() {
            return None;
        }
        Some(Host(match url.port() {
            Some(port) => format!("{host}:{port}").into(),
            None => host.into(),
        }))
    }
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        if text.len() > 255 || text.contains(['/', '@', '?', '#', '*', '{', '\\']) || text.contains(char::is_whitespace)
        {
            return Err(InvalidHost);
        }
        let url = url::Url::parse(&format!("https://{text}/")).map_err(|_| InvalidHost)?;
        Host::of(&url).ok_or(InvalidHost)
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_a_small_alphabet() {
        for right in ["a", "sphinx", "read-the-docs", "a.b_c-9"] {
            assert_eq!(right.parse::<ProjectSlug>().unwrap().as_str(), right);
        }
        for wrong in ["", "-a", "a-", "A", "a/b", "a b", "é", &"a".repeat(64)] {
            assert_eq!(wrong.parse::<ProjectSlug>(), Err(InvalidSlug), "{wrong}");
        }
    }

    #[test]
    fn names_are_no_addresses() {
        for right in ["docs.example.org", "localhost:8000", "xn--bcher-kva.example", "a_b.example"] {
            assert!(Host::is_name(right), "{right}");
        }
        let long = "a".repeat(256);
        for wrong in [
            "",
            ":80",
            "192.0.2.7",
            "192.0.2.7:80",
            "[2001:db8::1]",
            "2001:db8::1",
            "a:b",
            "a:+1",
            "a:",
            "A.example",
            "u@a",
            &long,
        ] {
            assert!(!Host::is_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn hosts_are_normalised() {
        assert_eq!("Docs.Example.ORG".parse::<Host>().unwrap().as_str(), "docs.example.org");
        assert_eq!("docs.example.org:443".parse::<Host>().unwrap().as_str(), "docs.example.org");
        assert_eq!("localhost:8000".parse::<Host>().unwrap().as_str(), "localhost:8000");
        assert_eq!("bücher.example".parse::<Host>().unwrap().as_str(), "xn--bcher-kva.example");
        for wrong in ["", "https://a.example", "a.example/x", "u@a.example", "*.example.org", "a b"] {
            assert_eq!(wrong.parse::<Host>(), Err(InvalidHost), "{wrong}");
        }
    }
}
