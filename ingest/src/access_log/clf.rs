//! Common, combined and their variants: `head [time] "request" status size`, then perhaps `"referrer" "agent"` and further columns.
//!
//! The head has client, ident and user, and the host before or after the client. Users have blanks, so the time is found first.

use super::line::{self, Line, NotRead, Text};
use super::text::Escapes;
use super::time;
use std::net::{IpAddr, SocketAddr};

/// Where the client is in the head of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// First.
    ClientFirst,
    /// After the host.
    HostFirst,
    /// First, and the host after it.
    HostSecond,
}

/// What of the columns after the size is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    Ignored,
    /// Referrer and agent, if there are any.
    Agent,
    /// Also `X-Forwarded-For` after them.
    Forwarded,
}

/// The parts of a line.
pub(super) struct Parts<'a> {
    head: &'a [u8],
    time: &'a [u8],
    request: &'a [u8],
    status: &'a [u8],
    /// What follows the size.
    tail: &'a [u8],
}

/// Reads a line.
pub(super) fn parse(
    line: &[u8],
    layout: Layout,
    tail: Tail,
    utc_offset_seconds: Option<i32>,
) -> Result<Line<'_>, NotRead> {
    let parts = split(line)?;
    let mut line = Line::at(time::any(parts.time, utc_offset_seconds)?);
    line.set_request(parts.request, Escapes::Backslash)?;
    line.status = line::status(parts.status);
    let (first, rest) = address_column(parts.head);
    let (second, _) = address_column(rest);
    (line.host, line.client) = match layout {
        Layout::ClientFirst => (Text::default(), Text::plain(first)),
        Layout::HostFirst => (Text::plain(first), Text::plain(second)),
        Layout::HostSecond => (Text::plain(second), Text::plain(first)),
    };
    if line.client == Text::default() {
        return Err(NotRead::Malformed);
    }
    if !parts.tail.is_empty() && tail != Tail::Ignored {
        let (referrer, agent, rest) = referrer_and_agent(parts.tail)?;
        line.referrer = Some(Text::new(referrer, Escapes::Backslash));
        line.agent = Some(Text::new(agent, Escapes::Backslash));
        if tail == Tail::Forwarded && rest.starts_with(b"\"") {
            let (hops, _) = quoted(rest)?;
            line.forwarded = Text::plain(hops);
        }
    }
    Ok(line)
}

/// Splits a line at its time, request and status.
pub(super) fn split(line: &[u8]) -> Result<Parts<'_>, NotRead> {
    // Some exporters quote the whole line.
    let line = match line {
        [b'"', inner @ .., b'"'] if !inner.starts_with(b"\"") => inner,
        _ => line,
    };
    let (head, time, rest) = around_time(line).ok_or(NotRead::Malformed)?;
    let start = memchr::memchr(b'"', rest).ok_or(NotRead::Malformed)?;
    let between = rest[..start].trim_ascii();
    // Gandi has the duration there: `(0 s)`.
    let is_duration = between.starts_with(b"(") && between.ends_with(b")");
    if !between.is_empty() && !is_duration {
        return Err(NotRead::Malformed);
    }
    let rest = &rest[start + 1..];
    let end = request_end(rest, true).or_else(|| request_end(rest, false)).ok_or(NotRead::Malformed)?;
    let (status, after) = column(rest[end + 1..].trim_ascii_start());
    let (_size, tail) = column(after);
    Ok(Parts { head, time, request: &rest[..end], status, tail })
}

/// What is before the brackets of the time, within, and after.
fn around_time(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let is_time = |text: &[u8]| {
        matches!(text, [a, b, b'/', _, ..] if a.is_ascii_digit() && b.is_ascii_digit())
            || matches!(text, [a, b, c, d, b'-', ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()))
            || matches!(text, [_, _, _, _, _, _, _, _, ..] if text.iter().take(10).all(|byte| byte.is_ascii_digit() || *byte == b'.'))
    };
    for open in memchr::memchr_iter(b'[', line) {
        let rest = &line[open + 1..];
        let is_column = open == 0 || line[open - 1] == b' ';
        if is_column
            && is_time(rest)
            && let Some(close) = memchr::memchr(b']', rest)
        {
            return Some((&line[..open], &rest[..close], &rest[close + 1..]));
        }
    }
    None
}

/// The quote that ends the request: a status follows it. Old versions of nginx leave quotes of the client as they are.
fn request_end(rest: &[u8], honour_escapes: bool) -> Option<usize> {
    memchr::memchr_iter(b'"', rest).find(|&at| {
        let follows = rest[at + 1..].trim_ascii_start();
        let (status, _) = column(follows);
        let is_status = status == b"-" || (1..=3).contains(&status.len()) && status.iter().all(u8::is_ascii_digit);
        is_status && follows.len() < rest.len() - at - 1 && !(honour_escapes && is_escaped(rest, at))
    })
}

/// Whether an odd number of backslashes is before the place.
fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// The first column, up to a blank, and what follows.
fn column(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr2(b' ', b'\t', text).unwrap_or(text.len());
    (&text[..end], text[end..].trim_ascii_start())
}

/// A column of IP addresses: with a comma at its end the next one belongs to it.
fn address_column(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let (_, mut rest) = column(text);
    let len = |rest: &[u8]| text[..text.len() - rest.len()].trim_ascii_end().len();
    while text[..len(rest)].ends_with(b",") && !rest.is_empty() {
        (_, rest) = column(rest);
    }
    (&text[..len(rest)], rest)
}

/// Referrer, agent, and the columns after them.
type Quoted<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn referrer_and_agent(tail: &[u8]) -> Result<Quoted<'_>, NotRead> {
    // The agent's quote follows. The agent may have bare quotes of its own, which do not concern the referrer.
    let text = tail.strip_prefix(b"\"").ok_or(NotRead::Malformed)?;
    let is_end = |&at: &usize| text[at + 1..].trim_ascii_start().starts_with(b"\"") && text[at + 1] != b'"';
    let end = memchr::memchr_iter(b'"', text).find(|at| is_end(at) && !is_escaped(text, *at));
    let (referrer, rest) = match end {
        Some(end) => (&text[..end], text[end + 1..].trim_ascii_start()),
        None => quoted(tail)?,
    };
    let (agent, rest) = quoted(rest)?;
    Ok((referrer, agent, rest))
}

/// The text within the quotes that the columns begin with, and the columns after it.
fn quoted(columns: &[u8]) -> Result<(&[u8], &[u8]), NotRead> {
    let text = columns.strip_prefix(b"\"").ok_or(NotRead::Malformed)?;
    let end = quote_end(text, true).or_else(|| quote_end(text, false)).ok_or(NotRead::Malformed)?;
    Ok((&text[..end], text[end + 1..].trim_ascii_start()))
}

/// The quote after which the rest is columns again.
fn quote_end(text: &[u8], honour_escapes: bool) -> Option<usize> {
    // A hostile line has many quotes: the check of the rest would make them a square.
    const MAX_QUOTES: usize = 64;
    let mut quotes = memchr::memchr_iter(b'"', text).take(MAX_QUOTES);
    quotes.find(|&at| {
        let rest = &text[at + 1..];
        let is_end = rest.is_empty() || matches!(rest[0], b' ' | b'\t');
        is_end && !(honour_escapes && is_escaped(text, at)) && are_columns(rest)
    })
}

/// Whether quotes are only around columns. They need not be closed within the last one.
fn are_columns(mut text: &[u8]) -> bool {
    loop {
        text = text.trim_ascii_start();
        let Some(at) = memchr::memchr(b'"', text) else { return true };
        if at > 0 && !matches!(text[at - 1], b' ' | b'\t') {
            return false;
        }
        let rest = &text[at + 1..];
        let close = memchr::memchr_iter(b'"', rest).find(|&end| {
            let follows = rest.get(end + 1);
            !is_escaped(rest, end) && matches!(follows, None | Some(b' ' | b'\t'))
        });
        let Some(close) = close else { return false };
        text = &rest[close + 1..];
    }
}

/// What the columns of a line look like; for the guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub layout: Layout,
    pub columns: ClfColumns,
    /// `X-Forwarded-For` may be the column after the agent; whether it has an IP address.
    pub forwarded: Option<bool>,
    /// Whether an agent was logged.
    pub has_agent: bool,
}

/// What follows the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClfColumns {
    Nothing,
    ReferrerAgent,
    /// The agent is in the place of the referrer.
    AgentReferrer,
    /// Quoted columns that are neither, such as two absent ones.
    Unclear,
}

/// The shape of a line; none if it is not of this family, or if two columns may be the client.
pub(super) fn shape(line: &[u8]) -> Option<Shape> {
    let parts = split(line).ok()?;
    let layout = layout_of(parts.head)?;
    if parts.tail.is_empty() {
        return Some(Shape { layout, columns: ClfColumns::Nothing, forwarded: None, has_agent: false });
    }
    let (first, second, rest) = referrer_and_agent(parts.tail).ok()?;
    let is_agent = |text: &[u8]| text.starts_with(b"Mozilla/") || text.starts_with(b"Opera/");
    let is_url = |text: &[u8]| text.starts_with(b"http://") || text.starts_with(b"https://");
    let columns = match (first, second) {
        (first, _) if is_agent(first) => ClfColumns::AgentReferrer,
        (_, second) if is_url(second) && !is_url(first) => ClfColumns::AgentReferrer,
        (first, second) if is_url(first) || is_agent(second) => ClfColumns::ReferrerAgent,
        _ => ClfColumns::Unclear,
    };
    let forwarded = quoted(rest).ok().and_then(|(hops, _)| match hops {
        b"-" | b"" => Some(false),
        hops => is_address(hops.split(|&byte| byte == b',').next().unwrap_or(hops)).then_some(true),
    });
    let has_agent = !Text::plain(second).is_absent();
    Some(Shape { layout, columns, forwarded, has_agent })
}

fn layout_of(head: &[u8]) -> Option<Layout> {
    let (first, rest) = address_column(head);
    let (second, third) = address_column(rest);
    let is_list = |text: &[u8]| text.split(|&byte| byte == b',').all(is_address);
    match (is_list(first), is_list(second)) {
        (true, true) if first.ends_with(b":80") || first.ends_with(b":443") => Some(Layout::HostFirst),
        (true, true) => None,
        (false, true) => Some(Layout::HostFirst),
        (true, false) if !third.is_empty() && is_host_like(second) => Some(Layout::HostSecond),
        _ if first.is_empty() => None,
        _ => Some(Layout::ClientFirst),
    }
}

fn is_host_like(text: &[u8]) -> bool {
    let is_of_host = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    memchr::memchr(b'.', text).is_some() && text.iter().all(is_of_host)
}

fn is_address(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text.trim_ascii()) else { return false };
    text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}
