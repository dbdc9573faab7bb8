//! Records of the log: written with prost, read by a decoder of our own that refuses what the schema does not name.
//!
//! prost skips fields it does not know, as protobuf intends. A privacy contract needs the opposite: a field nobody
//! documented must not travel. So [`decode`] walks the wire format itself, allows each field at most once, with the
//! one wire type it has, and borrows its strings from the record; the fold needs no allocation for a page view.
//!
//! Wire format: <https://protobuf.dev/programming-guides/encoding/>.

use crate::project::{Host, ProjectSlug};
use crate::proto;
use crate::rejection::RejectionReason;
use crate::sketch::Coordinate;
use crate::time::Hour;
use prost::Message;

/// The format this version writes. It also reads format 1, in which tallies have no id, and 2, in which they have no host.
pub const FORMAT: u32 = 3;

/// Longest path in bytes, in a record and in a row.
pub const MAX_PATH_BYTES: usize = 1024;

/// Longest version, language, referrer host or bot name in bytes.
pub const MAX_LABEL_BYTES: usize = 255;

/// One decoded record, borrowing from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An accepted page view.
    PageView(PageViewRef<'a>),
    /// Refused beacons.
    Rejections(RejectionTallyRef<'a>),
}

/// A page view, borrowing from the record's bytes. Every field has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageViewRef<'a> {
    /// A valid project slug.
    pub project: &'a str,
    /// Hour of the view.
    pub hour: Hour,
    /// Begins with `/`.
    pub path: &'a str,
    /// 100 to 599.
    pub status: u16,
    /// Empty where unknown.
    pub version: &'a str,
    /// Empty where unknown.
    pub language: &'a str,
    /// Empty for internal and direct views.
    pub referrer_host: &'a str,
    /// ISO 3166-1 alpha-2 or empty.
    pub country: &'a str,
    /// Device class.
    pub device: proto::Device,
    /// Browser family.
    pub browser: proto::Browser,
    /// Operating system family.
    pub system: proto::System,
    /// What kind of bot, or a person.
    pub bot_class: proto::BotClass,
    /// Whether the view came from outside the project.
    pub arrival: bool,
    /// Visitor of the project; none for bots.
    pub site_coordinate: Option<Coordinate>,
    /// Visitor of the path; none for bots.
    pub page_coordinate: Option<Coordinate>,
    /// Random id of the view; 0 where it has none.
    pub event_id: u64,
    /// Name of the bot; empty for people.
    pub bot: &'a str,
}

/// A tally of refused beacons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionTallyRef<'a> {
    /// A valid slug, or empty where the beacon named no known project.
    pub project: &'a str,
    /// Hour of the refusals.
    pub hour: Hour,
    /// Why.
    pub reason: RejectionReason,
    /// How many, at least 1.
    pub count: u64,
    /// Random id of the tally; 0 in format 1.
    pub id: u64,
    /// Host of the pages, where it is why they were refused; else empty.
    pub host: &'a str,
}

/// Why bytes are no record. Carries no value of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field, or a varint is too long.
    #[error("the record is cut short or malformed")]
    Malformed,
    /// A field that the schema does not have, in this message, with this wire type.
    #[error("field {0} is not in the schema")]
    UnknownField(u32),
    /// A field comes twice.
    #[error("field {0} is repeated")]
    RepeatedField(u32),
    /// A format that this version does not read.
    #[error("format {0} is unknown to this version")]
    UnknownFormat(u64),
    /// A field's value is outside what the schema allows.
    #[error("field {0} has a value outside its range")]
    OutOfRange(u32),
    /// A string is not UTF-8.
    #[error("field {0} is not UTF-8")]
    NotUtf8(u32),
    /// Neither a page view nor a tally.
    #[error("the record has no body")]
    NoBody,
}

/// Encodes a page view as one record.
pub fn encode_page_view(view: proto::PageView) -> Vec<u8> {
    encode(proto::log_record::Body::PageView(view))
}

/// Encodes a tally as one record.
pub fn encode_rejections(tally: proto::RejectionTally) -> Vec<u8> {
    encode(proto::log_record::Body::Rejections(tally))
}

fn encode(body: proto::log_record::Body) -> Vec<u8> {
    proto::LogRecord { format: FORMAT, body: Some(body) }.encode_to_vec()
}

/// Reads one record strictly. See the module's text for what is refused.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let mut fields = Fields::new(bytes);
    let mut format = None;
    let mut body = None;
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Varint(found)) => format = Some(found),
            (2, Value::Bytes(inner)) if body.is_none() => body = Some((2, inner)),
            (3, Value::Bytes(inner)) if body.is_none() => body = Some((3, inner)),
            (2 | 3, Value::Bytes(_)) => return Err(DecodeError::RepeatedField(number)),
            _ => return Err(DecodeError::UnknownField(number)),
        }
    }
    let format = match format {
        Some(found @ 1..=3) => found,
        other => return Err(DecodeError::UnknownFormat(other.unwrap_or(0))),
    };
    match body {
        Some((2, inner)) => page_view(inner).map(Record::PageView),
        Some((_, inner)) => tally(inner, format).map(Record::Rejections),
        None => Err(DecodeError::NoBody),
    }
}

fn page_view(bytes: &[u8]) -> Result<PageViewRef<'_>, DecodeError> {
    let mut view = PageViewRef {
        project: "",
        hour: Hour(0),
        path: "",
        status: 0,
        version: "",
        language: "",
        referrer_host: "",
        country: "",
        device: proto::Device::Unknown,
        browser: proto::Browser::Unknown,
        system: proto::System::Unknown,
        bot_class: proto::BotClass::Person,
        arrival: false,
        site_coordinate: None,
        page_coordinate: None,
        event_id: 0,
        bot: "",
    };
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(text)) => view.project = slug(number, text)?,
            (2, Value::Varint(hour)) => view.hour = hour_of(number, hour)?,
            (3, Value::Bytes(text)) => {
                view.path = utf8(number, text, MAX_PATH_BYTES)?;
                if !view.path.starts_with('/') {
                    return Err(DecodeError::OutOfRange(number));
                }
            }
            (4, Value::Varint(status)) if (100..=599).contains(&status) => view.status = status as u16,
            (5, Value::Bytes(text)) => view.version = utf8(number, text, MAX_LABEL_BYTES)?,
            (6, Value::Bytes(text)) => view.language = utf8(number, text, MAX_LABEL_BYTES)?,
            (7, Value::Bytes(text)) => view.referrer_host = utf8(number, text, MAX_LABEL_BYTES)?,
            (8, Value::Bytes(text)) if text.len() == 2 && text.iter().all(u8::is_ascii_uppercase) => {
                view.country = utf8(number, text, 2)?;
            }
            (9, Value::Varint(class)) => view.device = enumeration(number, class)?,
            (10, Value::Varint(class)) => view.browser = enumeration(number, class)?,
            (11, Value::Varint(class)) => view.system = enumeration(number, class)?,
            (12, Value::Varint(class)) => view.bot_class = enumeration(number, class)?,
            (13, Value::Varint(1)) => view.arrival = true,
            (14, Value::Varint(packed)) => view.site_coordinate = Some(coordinate(number, packed)?),
            (15, Value::Varint(packed)) => view.page_coordinate = Some(coordinate(number, packed)?),
            (16, Value::Fixed64(id)) => view.event_id = id,
            (17, Value::Bytes(text)) => view.bot = utf8(number, text, MAX_LABEL_BYTES)?,
            (1..=17, Value::Varint(_)) if matches!(number, 4 | 13) => return Err(DecodeError::OutOfRange(number)),
            (8, Value::Bytes(_)) => return Err(DecodeError::OutOfRange(number)),
            _ => return Err(DecodeError::UnknownField(number)),
        }
    }
    // proto3 leaves zeros out, so what must not be zero is checked at the end.
    let person = view.bot_class == proto::BotClass::Person;
    for (number, present) in [
        (1, !view.project.is_empty()),
        (2, view.hour.0 > 0),
        (3, !view.path.is_empty()),
        (4, view.status > 0),
        (14, view.site_coordinate.is_some() == person),
        (15, view.page_coordinate.is_some() == person),
        (17, view.bot.is_empty() == person),
    ] {
        if !present {
            return Err(DecodeError::OutOfRange(number));
        }
    }
    Ok(view)
}

fn tally(bytes: &[u8], format: u64) -> Result<RejectionTallyRef<'_>, DecodeError> {
    let (mut project, mut hour, mut reason, mut count, mut id, mut host) = ("", Hour(0), None, 0, 0, "");
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(text)) => project = slug(number, text)?,
            (2, Value::Varint(value)) => hour = hour_of(number, value)?,
            (3, Value::Varint(value)) => {
                let known = u32::try_from(value).ok().and_then(RejectionReason::from_number);
                reason = Some(known.ok_or(DecodeError::OutOfRange(number))?);
            }
            (4, Value::Varint(value)) => count = value,
            (5, Value::Fixed64(value)) if format >= 2 => id = value,
            (6, Value::Bytes(text)) if format >= 3 => {
                host = utf8(number, text, MAX_LABEL_BYTES)?;
                if !Host::is_name(host) {
                    return Err(DecodeError::OutOfRange(number));
                }
            }
            _ => return Err(DecodeError::UnknownField(number)),
        }
    }
    if format >= 2 && id == 0 {
        return Err(DecodeError::OutOfRange(5));
    }
    match (reason, hour.0, count) {
        (None, _, _) => Err(DecodeError::OutOfRange(3)),
        (_, 0, _) => Err(DecodeError::OutOfRange(2)),
        (_, _, 0) => Err(DecodeError::OutOfRange(4)),
        (Some(reason), _, _) if !host.is_empty() && (project.is_empty() || !reason.is_about_host()) => {
            Err(DecodeError::OutOfRange(6))
        }
        (Some(reason), _, _) => Ok(RejectionTallyRef { project, hour, reason, count, id, host }),
    }
}

fn utf8(number: u32, bytes: &[u8], limit: usize) -> Result<&str, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::OutOfRange(number));
    }
    std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8(number))
}

fn slug(number: u32, bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = utf8(number, bytes, MAX_LABEL_BYTES)?;
    if ProjectSlug::is_valid(text) { Ok(text) } else { Err(DecodeError::OutOfRange(number)) }
}

/// Hours up to 2106-02-07, the end of ClickHouse's `DateTime`.
fn hour_of(number: u32, value: u64) -> Result<Hour, DecodeError> {
    if value <= u64::from(u32::MAX / 3600) { Ok(Hour(value as u32)) } else { Err(DecodeError::OutOfRange(number)) }
}

fn enumeration<E: TryFrom<i32>>(number: u32, value: u64) -> Result<E, DecodeError> {
    i32::try_from(value).ok().and_then(|value| E::try_from(value).ok()).ok_or(DecodeError::OutOfRange(number))
}

fn coordinate(number: u32, value: u64) -> Result<Coordinate, DecodeError> {
    let packed = u32::try_from(value).map_err(|_| DecodeError::OutOfRange(number))?;
    Coordinate::from_packed(packed).map_err(|_| DecodeError::OutOfRange(number))
}

enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// Walks the fields of one message; refuses repeats. Field numbers of the schema are below 32.
struct Fields<'a> {
    rest: &'a [u8],
    seen: u32,
}

impl<'a> Fields<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Fields { rest, seen: 0 }
    }

    #[inline]
    fn next_field(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Malformed)?;
        if number == 0 || number >= 32 {
            return Err(DecodeError::UnknownField(number));
        }
        if self.seen & (1 << number) != 0 {
            return Err(DecodeError::RepeatedField(number));
        }
        self.seen |= 1 << number;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let (bytes, rest) = self.rest.split_first_chunk::<8>().ok_or(DecodeError::Malformed)?;
                self.rest = rest;
                Value::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Malformed)?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Malformed)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            _ => return Err(DecodeError::UnknownField(number)),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                if index == 9 && byte > 1 {
                    return Err(DecodeError::Malformed);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed)
    }
}
