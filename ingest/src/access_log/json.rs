//! One JSON object a line: Caddy, Traefik, Envoy, and what an nginx writes under names of its operator.
//!
//! The names of all of them are one table. Of several names of one value the more exact one wins: Caddy's `client_ip` before `remote_ip`.

use super::line::{self, Line, NotRead, Text};
use super::text::Escapes;
use super::time;
use crate::http::{is_headless_brand, is_opt_out, is_prefetch_purpose};
use schemas::Hour;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Time,
    Client,
    Forwarded,
    Host,
    Method,
    Target,
    Query,
    Status,
    Referrer,
    Agent,
    Destination,
}

const SLOTS: usize = Slot::Destination as usize + 1;

enum Key {
    /// A value, and its rank among the names of it: the lowest wins.
    Slot(Slot, u8),
    /// The request line (nginx), or an object (Caddy).
    Request,
    /// Headers of the request by their names (Caddy).
    Headers,
    /// Who writes (Caddy).
    Logger,
    OptOut,
    Purpose,
    Brands,
    Other,
}

/// Longest name in the table.
const MAX_KEY_BYTES: usize = 40;

/// The meaning of a name, whatever its case, with `_` for `-`, and without the marks of headers.
fn key(name: &str) -> Key {
    use Slot::*;
    let name = name.strip_prefix(':').unwrap_or(name).as_bytes();
    let mut buffer = [0; MAX_KEY_BYTES];
    let Some(lower) = buffer.get_mut(..name.len()) else { return Key::Other };
    for (to, from) in lower.iter_mut().zip(name) {
        *to = if *from == b'-' { b'_' } else { from.to_ascii_lowercase() };
    }
    let lower: &[u8] = lower;
    match lower {
        b"request_uri" | b"requestpath" => return Key::Slot(Target, 0),
        b"request_method" | b"requestmethod" => return Key::Slot(Method, 0),
        b"http_host" => return Key::Slot(Host, 0),
        _ => {}
    }
    let bare = lower.strip_prefix(b"request_").or(lower.strip_prefix(b"http_")).unwrap_or(lower);
    match bare {
        b"request" => Key::Request,
        b"headers" => Key::Headers,
        b"logger" => Key::Logger,
        b"dnt" | b"sec_gpc" => Key::OptOut,
        b"sec_purpose" | b"purpose" | b"x_moz" | b"x_purpose" => Key::Purpose,
        b"sec_ch_ua" => Key::Brands,
        b"ts" | b"startutc" | b"start_time" | b"time_iso8601" | b"msec" => Key::Slot(Time, 0),
        b"time" | b"timestamp" | b"@timestamp" | b"time_local" | b"date" | b"datetime" => Key::Slot(Time, 1),
        b"client_ip" | b"clienthost" | b"remote_addr" | b"downstream_remote_address" => Key::Slot(Client, 0),
        b"remote_ip" | b"clientaddr" | b"client" | b"clientip" | b"ip" => Key::Slot(Client, 1),
        b"downstream_direct_remote_address" | b"remote" => Key::Slot(Client, 2),
        b"x_forwarded_for" => Key::Slot(Forwarded, 0),
        b"host" | b"authority" | b"requesthost" | b"vhost" => Key::Slot(Host, 1),
        b"server_name" | b"requestaddr" => Key::Slot(Host, 2),
        b"method" | b"verb" => Key::Slot(Method, 1),
        b"uri" | b"path" | b"url" | b"target" => Key::Slot(Target, 1),
        b"args" | b"query_string" | b"query" => Key::Slot(Query, 0),
        b"downstreamstatus" | b"status" | b"response_code" => Key::Slot(Status, 0),
        b"status_code" | b"code" => Key::Slot(Status, 1),
        b"originstatus" => Key::Slot(Status, 2),
        b"referer" | b"referrer" => Key::Slot(Referrer, 0),
        b"user_agent" | b"agent" | b"useragent" | b"ua" => Key::Slot(Agent, 0),
        b"sec_fetch_dest" => Key::Slot(Destination, 0),
        _ => Key::Other,
    }
}

/// Reads a line.
pub(super) fn parse(line: &[u8], utc_offset_seconds: Option<i32>) -> Result<Line<'_>, NotRead> {
    match std::str::from_utf8(line) {
        Ok(text) => parse_text(text, utc_offset_seconds),
        // nginx leaves bytes of the client as they came.
        Err(_) => Ok(parse_text(&String::from_utf8_lossy(line), utc_offset_seconds)?.into_owned()),
    }
}

fn parse_text(text: &str, utc_offset_seconds: Option<i32>) -> Result<Line<'_>, NotRead> {
    if !text.starts_with('{') {
        // Caddy and Traefik write other messages as plain text.
        return Err(if text.ends_with('}') { NotRead::Malformed } else { NotRead::OtherKind });
    }
    let mut found = JsonFields::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = deserializer.deserialize_map(Object { found: &mut found, is_headers: false });
    if read.and_then(|()| deserializer.end()).is_err() {
        return Err(NotRead::Malformed);
    }
    found.line(utc_offset_seconds)
}

/// What an object has of a line.
#[derive(Default)]
struct JsonFields<'a> {
    values: [Option<(u8, Scalar<'a>)>; SLOTS],
    request: Option<Cow<'a, str>>,
    has_headers: bool,
    is_other_logger: bool,
    signals: line::Signals,
}

#[derive(Default)]
enum Scalar<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Number(f64),
}

impl<'a> JsonFields<'a> {
    fn set(&mut self, slot: Slot, rank: u8, value: Scalar<'a>) {
        let known = &mut self.values[slot as usize];
        if known.as_ref().is_none_or(|(best, _)| rank < *best) {
            *known = Some((rank, value));
        }
    }

    fn take(&mut self, slot: Slot) -> Option<Scalar<'a>> {
        self.values[slot as usize].take().map(|(_, value)| value)
    }

    /// A text; absent where the object has none.
    fn text(&mut self, slot: Slot) -> Text<'a> {
        match self.take(slot) {
            Some(Scalar::Text(text)) => Text::of_str(text),
            _ => Text::default(),
        }
    }

    /// A header's value. None if the format does not have that header at all.
    fn header(&mut self, slot: Slot) -> Option<Text<'a>> {
        let is_logged = self.has_headers || self.values[slot as usize].is_some();
        is_logged.then(|| self.text(slot))
    }

    fn line(mut self, utc_offset_seconds: Option<i32>) -> Result<Line<'a>, NotRead> {
        if self.is_other_logger {
            return Err(NotRead::OtherKind);
        }
        let mut line = Line::at(Hour::default());
        match self.request.take() {
            Some(request) => match request {
                Cow::Borrowed(request) => line.set_request(request.as_bytes(), Escapes::None)?,
                Cow::Owned(request) => {
                    let (method, target) = line::request_parts(request.as_bytes())?;
                    (line.method, line.target) = (Text::plain(method).into_owned(), Text::plain(target).into_owned());
                }
            },
            None => (line.method, line.target) = (self.text(Slot::Method), self.text(Slot::Target)),
        }
        if line.method.is_absent() || line.target.is_absent() {
            return Err(NotRead::OtherKind);
        }
        line.status = match self.take(Slot::Status) {
            Some(Scalar::Number(number)) if (0.0..1000.0).contains(&number) => number as u16,
            Some(Scalar::Text(text)) => line::status(text.trim().as_bytes()),
            Some(_) => 0,
            None => return Err(NotRead::OtherKind),
        };
        line.hour = match self.take(Slot::Time) {
            Some(Scalar::Number(number)) => time::since_1970(number)?,
            Some(Scalar::Text(text)) => time::any(text.as_bytes(), utc_offset_seconds)?,
            _ => return Err(NotRead::InvalidTime),
        };
        line.client = self.text(Slot::Client);
        line.forwarded = self.text(Slot::Forwarded);
        line.host = self.text(Slot::Host);
        line.query = self.text(Slot::Query);
        line.destination = self.text(Slot::Destination);
        line.referrer = self.header(Slot::Referrer);
        line.agent = self.header(Slot::Agent);
        line.signals = self.signals;
        Ok(line)
    }
}

/// Reads an object into [`JsonFields`]; of nested ones, the request and its headers.
struct Object<'f, 'a> {
    found: &'f mut JsonFields<'a>,
    is_headers: bool,
}

impl<'de: 'a, 'a> Visitor<'de> for Object<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let found = self.found;
        while let Some(key) = map.next_key_seed(KeySeed)? {
            // A client chooses the names of its headers: only those that name headers are taken.
            match key {
                Key::Slot(slot, rank) if !self.is_headers || is_header(slot) => {
                    let value = map.next_value_seed(ScalarSeed)?;
                    found.set(slot, rank, value);
                }
                Key::Request if !self.is_headers => map.next_value_seed(RequestSeed(&mut *found))?,
                Key::Headers if !self.is_headers => {
                    found.has_headers = true;
                    map.next_value_seed(HeadersSeed(&mut *found))?;
                }
                Key::Logger if !self.is_headers => {
                    if let Scalar::Text(name) = map.next_value_seed(ScalarSeed)? {
                        found.is_other_logger |= !name.starts_with("http.log.access");
                    }
                }
                Key::OptOut | Key::Purpose | Key::Brands => {
                    if let Scalar::Text(value) = map.next_value_seed(ScalarSeed)? {
                        let (signals, value) = (&mut found.signals, value.as_bytes());
                        match key {
                            Key::OptOut => signals.opted_out |= is_opt_out(value),
                            Key::Purpose => signals.is_prefetch |= is_prefetch_purpose(value),
                            _ => signals.is_headless |= is_headless_brand(value),
                        }
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

const fn is_header(slot: Slot) -> bool {
    matches!(slot, Slot::Forwarded | Slot::Referrer | Slot::Agent | Slot::Destination)
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(key(name))
    }
}

/// A string or a number; of an array its first element. All else is absent.
struct ScalarSeed;

impl<'de> DeserializeSeed<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Scalar<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ScalarSeed {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Absent)
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Scalar<'de>, A::Error> {
        let first = elements.next_element_seed(ScalarSeed)?.unwrap_or_default();
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Absent)
    }
}

/// The headers of the request, which a client chooses.
struct HeadersSeed<'f, 'a>(&'f mut JsonFields<'a>);

impl<'de: 'a, 'a> DeserializeSeed<'de> for HeadersSeed<'_, 'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(Object { found: self.0, is_headers: true })
    }
}

/// A request line, or an object with the request's parts.
struct RequestSeed<'f, 'a>(&'f mut JsonFields<'a>);

impl<'de: 'a, 'a> DeserializeSeed<'de> for RequestSeed<'_, 'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for RequestSeed<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a request line or an object")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.0.request = Some(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.request = Some(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Object { found: self.0, is_headers: false }.visit_map(map)
    }
}

/// Whether a line may be of this format; for the guess.
pub(super) fn is_one(line: &[u8]) -> bool {
    line.starts_with(b"{") && line.ends_with(b"}")
}
