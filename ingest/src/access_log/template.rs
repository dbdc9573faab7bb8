//! The operator's own format: a `log_format` of nginx, such as `$remote_addr [$time_local] "$request" $status "$http_user_agent"`.
//!
//! A variable's value ends where the text after it in the format is found. What a line has after the last text of the format is ignored.

use super::line::{self, Line, NotRead, Text};
use super::text::Escapes;
use super::time;
use memchr::memmem;
use schemas::Hour;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Time,
    Client,
    Forwarded,
    Host,
    Request,
    Method,
    Target,
    /// Path without the query, as nginx rewrote it.
    Path,
    Query,
    Status,
    Referrer,
    Agent,
    Destination,
    Other,
}

impl Variable {
    fn named(name: &str) -> Self {
        match name {
            "time_local" | "time_iso8601" | "msec" => Variable::Time,
            "remote_addr" | "proxy_protocol_addr" | "remote_host" => Variable::Client,
            "http_x_forwarded_for" | "proxy_add_x_forwarded_for" => Variable::Forwarded,
            "host" | "http_host" | "server_name" => Variable::Host,
            "request" => Variable::Request,
            "request_method" => Variable::Method,
            "request_uri" => Variable::Target,
            "uri" | "document_uri" => Variable::Path,
            "args" | "query_string" => Variable::Query,
            "status" => Variable::Status,
            "http_referer" => Variable::Referrer,
            "http_user_agent" => Variable::Agent,
            "http_sec_fetch_dest" => Variable::Destination,
            _ => Variable::Other,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    variable: Variable,
    /// The text after the variable. Empty at the end only.
    then: Box<str>,
}

/// A format of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    start: Box<str>,
    pieces: Vec<Piece>,
    escapes: Escapes,
}

/// Why a text is no such format.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidTemplate {
    /// Where one ends cannot be found.
    #[error("two variables of the format follow each other without text between them")]
    NoText,
    /// A view has an hour.
    #[error("the format lacks the time: expected $time_local, $time_iso8601 or $msec")]
    NoTime,
    /// A view has a page.
    #[error("the format lacks the request: expected $request, or $request_method and $request_uri (or $uri)")]
    NoRequest,
    /// Answers differ in what counts.
    #[error("the format lacks $status")]
    NoStatus,
}

impl FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = text.split('$');
        let start: Box<str> = parts.next().unwrap_or("").into();
        let mut pieces: Vec<Piece> = Vec::new();
        for part in parts {
            let (name, then) = match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
                Some(braced) => braced,
                None => {
                    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    part.split_at(part.find(|c| !is_of_name(c)).unwrap_or(part.len()))
                }
            };
            if pieces.last().is_some_and(|piece| piece.then.is_empty()) {
                return Err(InvalidTemplate::NoText);
            }
            pieces.push(Piece { variable: Variable::named(name), then: then.into() });
        }
        let has = |variable| pieces.iter().any(|piece| piece.variable == variable);
        if !has(Variable::Time) {
            return Err(InvalidTemplate::NoTime);
        }
        let has_target = has(Variable::Target) || has(Variable::Path);
        if !(has(Variable::Request) || has(Variable::Method) && has_target) {
            return Err(InvalidTemplate::NoRequest);
        }
        if !has(Variable::Status) {
            return Err(InvalidTemplate::NoStatus);
        }
        let escapes = if start.trim_start().starts_with('{') { Escapes::Json } else { Escapes::Backslash };
        Ok(Template { start, pieces, escapes })
    }
}

impl Template {
    /// Reads a line.
    pub(super) fn parse<'a>(&self, line: &'a [u8], utc_offset_seconds: Option<i32>) -> Result<Line<'a>, NotRead> {
        let mut rest = line.strip_prefix(self.start.as_bytes()).ok_or(NotRead::Malformed)?;
        let mut parsed = Line::at(Hour::default());
        let (mut request, mut path) = (None, Text::default());
        for piece in &self.pieces {
            let end = end_of_value(rest, piece.then.as_bytes()).ok_or(NotRead::Malformed)?;
            let value = Text::new(&rest[..end], self.escapes);
            match piece.variable {
                Variable::Time => parsed.hour = time::any(&rest[..end], utc_offset_seconds)?,
                Variable::Client => parsed.client = value,
                Variable::Forwarded => parsed.forwarded = value,
                Variable::Host if parsed.host.is_absent() => parsed.host = value,
                Variable::Request => request = Some(&rest[..end]),
                Variable::Method => parsed.method = value,
                Variable::Target => parsed.target = value,
                Variable::Path => path = value,
                Variable::Query => parsed.query = value,
                Variable::Status => parsed.status = line::status(&rest[..end]),
                Variable::Referrer => parsed.referrer = Some(value),
                Variable::Agent => parsed.agent = Some(value),
                Variable::Destination => parsed.destination = value,
                Variable::Host | Variable::Other => {}
            }
            rest = &rest[end + piece.then.len()..];
        }
        match request {
            Some(request) => parsed.set_request(request, self.escapes)?,
            None => {
                if parsed.target.is_absent() {
                    parsed.target = path;
                }
                if parsed.target.is_absent() || !line::is_method(&parsed.method.decoded()) {
                    return Err(NotRead::NoRequest);
                }
            }
        }
        Ok(parsed)
    }
}

/// Where the text after a value is found. A quote with a backslash before it is of the value.
fn end_of_value(rest: &[u8], then: &[u8]) -> Option<usize> {
    if then.is_empty() {
        return Some(rest.len());
    }
    let mut places = memmem::find_iter(rest, then);
    if !then.starts_with(b"\"") {
        return places.next();
    }
    let is_escaped = |at: usize| rest[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1;
    places.find(|&at| !is_escaped(at))
}
