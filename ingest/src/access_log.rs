//! Access logs of web servers: from the bytes of a line to what the beacon endpoint makes of a beacon.
//!
//! The way of one line: [`files`] (decompression, lines) → [`Parser`] (the grammar, one module for each family of formats) → [`Line`] →
//! [`view`] (what is a view, project, page name, classes). The grammar is pure and takes any bytes. A line that is not read has a reason
//! ([`NotRead`]), which never contains a byte of the line.

mod alb;
pub mod assets;
pub mod blocks;
mod clf;
pub mod files;
mod guess;
mod json;
mod line;
pub mod lines;
mod prefix;
pub mod summary;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod time;
pub mod view;
pub mod visitors;
mod w3c;

pub use guess::{GUESS_LINES, NotGuessed, guess};
pub use line::{Line, NotRead, Signals, Text};
pub use template::{InvalidTemplate, Template};

use std::fmt;
use std::str::FromStr;

/// The format of an access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `client ident user [time] "request" status size`. What follows is ignored, so that the format has no user agents.
    Common,
    /// Common, then referrer and user agent. Further columns are ignored.
    Combined,
    /// Combined, then `X-Forwarded-For` in quotes: nginx's format `main`.
    CombinedForwarded,
    /// Common or combined with the host, with or without a port, before the client.
    HostFirst,
    /// Common or combined with the host after the client.
    HostSecond,
    /// W3C extended: columns by `#Fields:`. IIS, CloudFront.
    W3c,
    /// One JSON object a line: Caddy, Traefik, nginx, Envoy.
    Json,
    /// Application Load Balancer, or its predecessor without a type in the first column.
    Alb,
    /// The operator's own `log_format`.
    Template(Template),
}

impl Format {
    /// The names that [`FromStr`] reads, without the own format.
    pub const NAMES: [&str; 12] = [
        "common",
        "combined",
        "combined-forwarded",
        "host-first",
        "host-second",
        "w3c",
        "json",
        "caddy",
        "traefik",
        "nginx-json",
        "envoy",
        "alb",
    ];
}

/// Text that names no format.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidFormat {
    /// Neither a name nor a template.
    #[error(
        "expected one of {}, or a `log_format` with variables such as $remote_addr",
        Format::NAMES.join(", ")
    )]
    Name,
    /// A template that cannot be used.
    #[error(transparent)]
    Template(#[from] InvalidTemplate),
}

impl FromStr for Format {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        Ok(match text.trim() {
            "common" => Format::Common,
            "combined" => Format::Combined,
            "combined-forwarded" => Format::CombinedForwarded,
            "host-first" => Format::HostFirst,
            "host-second" => Format::HostSecond,
            "w3c" => Format::W3c,
            "json" | "caddy" | "traefik" | "nginx-json" | "envoy" => Format::Json,
            "alb" => Format::Alb,
            own if own.contains('$') => Format::Template(own.parse()?),
            _ => return Err(InvalidFormat::Name),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Common => "common",
            Format::Combined => "combined",
            Format::CombinedForwarded => "combined-forwarded",
            Format::HostFirst => "host-first",
            Format::HostSecond => "host-second",
            Format::W3c => "w3c",
            Format::Json => "json",
            Format::Alb => "alb",
            Format::Template(_) => "own format",
        })
    }
}

/// Reads the lines of one file in their order. Only W3C extended has a state: the columns.
#[derive(Clone, Debug)]
pub struct Parser {
    format: Format,
    /// Seconds east of UTC of times without a zone; none: such lines are not read.
    utc_offset_seconds: Option<i32>,
    columns: w3c::W3cColumns,
}

impl Parser {
    /// A parser at the start of a file. `utc_offset_seconds` (east of UTC) is the zone of times that name none.
    pub fn new(format: Format, utc_offset_seconds: Option<i32>) -> Self {
        Parser { format, utc_offset_seconds, columns: w3c::W3cColumns::default() }
    }

    /// Reads one line, without its line break.
    ///
    /// ```
    /// use headcount_ingest::access_log::{Format, Parser};
    /// let line = br#"192.0.2.1 - - [26/Nov/2026:10:00:00 +0100] "GET /a HTTP/1.1" 200 12 "-" "Mozilla/5.0""#;
    /// let mut parser = Parser::new(Format::Combined, None);
    /// let line = parser.parse(line).unwrap();
    /// assert_eq!((line.status, &*line.target.decoded()), (200, &b"/a"[..]));
    /// assert_eq!(line.hour.start().to_rfc3339(), "2026-11-26T09:00:00+00:00");
    /// ```
    ///
    /// # Errors
    /// The line is not read; the reason says why.
    pub fn parse<'a>(&mut self, line: &'a [u8]) -> Result<Line<'a>, NotRead> {
        let line = prefix::without_prefix(prefix::without_nul_bytes(line)?);
        if line.is_empty() {
            return Err(NotRead::Blank);
        }
        let zone = self.utc_offset_seconds;
        match &self.format {
            Format::W3c => self.columns.parse(line, zone),
            // Other servers write no comments, but files that were joined have some.
            _ if line.starts_with(b"#") => Err(NotRead::Directive),
            Format::Common => clf::parse(line, clf::Layout::ClientFirst, clf::Tail::Ignored, zone),
            Format::Combined => clf::parse(line, clf::Layout::ClientFirst, clf::Tail::Agent, zone),
            Format::CombinedForwarded => clf::parse(line, clf::Layout::ClientFirst, clf::Tail::Forwarded, zone),
            Format::HostFirst => clf::parse(line, clf::Layout::HostFirst, clf::Tail::Agent, zone),
            Format::HostSecond => clf::parse(line, clf::Layout::HostSecond, clf::Tail::Agent, zone),
            Format::Json => json::parse(line, zone),
            Format::Alb => alb::parse(line),
            Format::Template(template) => template.parse(line, zone),
        }
    }
}
