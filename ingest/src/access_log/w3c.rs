//! W3C extended log file format: `#Fields:` names the columns, may come again, and then names others.

use super::line::{self, Line, NotRead, Text};
use super::text::Escapes;
use super::time;
use schemas::Hour;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Date,
    Time,
    /// Seconds since 1970, as some CDNs have it.
    Timestamp,
    Client,
    Forwarded,
    Method,
    Stem,
    Query,
    Uri,
    Host,
    /// The host that the browser named, where [`Column::Host`] is that of the distribution.
    ViewerHost,
    Status,
    Referrer,
    Agent,
    Destination,
    Other,
}

impl Column {
    fn of(name: &[u8]) -> Self {
        match name.to_ascii_lowercase().as_slice() {
            b"date" => Column::Date,
            b"time" => Column::Time,
            b"timestamp" => Column::Timestamp,
            b"c-ip" | b"c-dns" => Column::Client,
            b"x-forwarded-for" | b"cs(x-forwarded-for)" => Column::Forwarded,
            b"cs-method" => Column::Method,
            b"cs-uri-stem" => Column::Stem,
            b"cs-uri-query" => Column::Query,
            b"cs-uri" => Column::Uri,
            b"cs-host" | b"cs(host)" => Column::Host,
            b"x-host-header" => Column::ViewerHost,
            b"sc-status" => Column::Status,
            b"cs(referer)" | b"cs(referrer)" => Column::Referrer,
            b"cs(user-agent)" => Column::Agent,
            b"cs(sec-fetch-dest)" => Column::Destination,
            _ => Column::Other,
        }
    }
}

/// The columns that `#Fields:` named last, and the date of lines that have only a time.
#[derive(Clone, Debug, Default)]
pub(super) struct W3cColumns {
    columns: Vec<Column>,
    date: Option<[u8; 10]>,
}

impl W3cColumns {
    /// Reads a line or a directive.
    pub(super) fn parse<'a>(&mut self, line: &'a [u8], zone: Option<i32>) -> Result<Line<'a>, NotRead> {
        if let Some(directive) = line.strip_prefix(b"#") {
            self.direct(directive);
            return Err(NotRead::Directive);
        }
        let has = |column| self.columns.contains(&column);
        let has_time = has(Column::Timestamp) || has(Column::Time) && (has(Column::Date) || self.date.is_some());
        let has_path = has(Column::Stem) || has(Column::Uri);
        if !(has_time && has_path && has(Column::Method) && has(Column::Status)) {
            return Err(NotRead::NoFields);
        }
        self.values(line, zone)
    }

    fn direct(&mut self, directive: &[u8]) {
        if let Some(names) = after_name(directive, b"Fields:") {
            let names = names.split(|byte| byte.is_ascii_whitespace()).filter(|name| !name.is_empty());
            self.columns = names.map(Column::of).collect();
        } else if let Some(date) = after_name(directive, b"Date:") {
            self.date = date.trim_ascii().get(..10).and_then(|date| date.try_into().ok());
        }
    }

    fn values<'a>(&self, line: &'a [u8], zone: Option<i32>) -> Result<Line<'a>, NotRead> {
        let mut parsed = Line::at(Hour::default());
        let (mut date, mut clock, mut timestamp): (Option<&[u8]>, &[u8], &[u8]) = (None, b"", b"");
        let is_by_tabs = memchr::memchr(b'\t', line).is_some();
        let mut rest = line;
        for column in &self.columns {
            let (value, after) = value(rest, is_by_tabs).ok_or(NotRead::Malformed)?;
            rest = after;
            match column {
                Column::Date => date = Some(value),
                Column::Time => clock = value,
                Column::Timestamp => timestamp = value,
                Column::Client => parsed.client = Text::plain(value),
                // IIS writes a list with `+` for its blanks.
                Column::Forwarded => parsed.forwarded = Text::new(value, Escapes::W3cAgent),
                Column::Method => parsed.method = Text::plain(value),
                Column::Stem => parsed.target = Text::new(value, Escapes::W3cPath),
                Column::Uri if parsed.target == Text::default() => parsed.target = Text::new(value, Escapes::W3cPath),
                Column::Query => parsed.query = Text::plain(value),
                Column::ViewerHost => parsed.host = Text::plain(value),
                Column::Host if parsed.host == Text::default() => parsed.host = Text::plain(value),
                Column::Status => parsed.status = line::status(value),
                Column::Referrer => parsed.referrer = Some(Text::plain(value)),
                Column::Agent => parsed.agent = Some(Text::new(value, Escapes::W3cAgent)),
                Column::Destination => parsed.destination = Text::plain(value),
                Column::Uri | Column::Host | Column::Other => {}
            }
        }
        parsed.hour = match date.or(self.date.as_ref().map(<[u8; 10]>::as_slice)) {
            Some(date) => time::date_and_time(date, clock)?,
            None => time::any(timestamp, zone.or(Some(0)))?,
        };
        if parsed.method.is_absent() || parsed.target.is_absent() {
            return Err(NotRead::NoRequest);
        }
        Ok(parsed)
    }
}

fn after_name<'a>(directive: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = directive.trim_ascii_start().split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

/// The next value and what follows. By blanks, a value in quotes has blanks, and doubled quotes for quotes.
fn value(text: &[u8], is_by_tabs: bool) -> Option<(&[u8], &[u8])> {
    if is_by_tabs {
        if text.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\t', text).unwrap_or(text.len());
        let value = text[..end].trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        return Some((value, text.get(end + 1..).unwrap_or(b"")));
    }
    let text = text.trim_ascii_start();
    if text.is_empty() {
        return None;
    }
    if let Some(quoted) = text.strip_prefix(b"\"") {
        let end = memchr::memchr_iter(b'"', quoted).find(|&at| matches!(quoted.get(at + 1), None | Some(b' ')))?;
        return Some((&quoted[..end], &quoted[end + 1..]));
    }
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    Some((&text[..end], &text[end..]))
}
