//! Application Load Balancer of AWS, and the classic one, whose lines lack the first column.
//!
//! `https TIME app/lb/1 192.0.2.1:4000 10.0.0.1:80 0.0 0.0 0.0 200 200 1 2 "GET https://docs.example.org:443/a HTTP/1.1" "agent" …`

use super::line::{self, Line, NotRead, Text};
use super::text::Escapes;
use super::time;

/// Columns from the time to the request.
const COLUMNS: usize = 11;

/// Reads a line. Of its two statuses the first is the one that the client got.
pub(super) fn parse(line: &[u8]) -> Result<Line<'_>, NotRead> {
    let (columns, rest) = columns(line).ok_or(NotRead::Malformed)?;
    let [time, _balancer, client, _target, _t1, _t2, _t3, status, ..] = columns;
    let mut parsed = Line::at(time::any(time, None)?);
    parsed.client = Text::plain(client);
    parsed.status = line::status(status);
    let (request, rest) = quoted(rest).ok_or(NotRead::Malformed)?;
    parsed.set_request(request, Escapes::Backslash)?;
    let (agent, _) = quoted(rest).ok_or(NotRead::Malformed)?;
    parsed.agent = Some(Text::new(agent, Escapes::Backslash));
    Ok(parsed)
}

/// Whether a line is of this format; for the guess.
pub(super) fn is_one(line: &[u8]) -> bool {
    columns(line).is_some_and(|(columns, rest)| time::any(columns[0], None).is_ok() && rest.starts_with(b"\""))
}

fn columns(line: &[u8]) -> Option<([&[u8]; COLUMNS], &[u8])> {
    let quote = memchr::memchr(b'"', line)?;
    let mut parts = line[..quote].trim_ascii_end().split(|&byte| byte == b' ').peekable();
    if !parts.peek()?.first()?.is_ascii_digit() {
        parts.next();
    }
    let mut columns = [&b""[..]; COLUMNS];
    for column in &mut columns {
        *column = parts.next()?;
    }
    parts.next().is_none().then_some((columns, &line[quote..]))
}

fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_start().strip_prefix(b"\"")?;
    let end = memchr::memchr_iter(b'"', text).find(|&at| matches!(text.get(at + 1), None | Some(b' ')))?;
    Some((&text[..end], &text[end + 1..]))
}
