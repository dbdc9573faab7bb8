//! Records of the log: written with prost, read by a decoder that refuses fields outside the schema.
//!
//! prost skips unknown fields, as protobuf intends. A privacy contract requires the opposite: an undocumented field must not be
//! transferred. So [`decode`] parses the wire format itself. It allows each field at most once, with its one wire type, and borrows its
//! strings from the record; the fold needs no allocation for a page view.
//!
//! Wire format: <https://protobuf.dev/programming-guides/encoding/>.

mod encode;
mod wire;

use crate::project::{Host, ProjectSlug};
use crate::proto;
use crate::rejection::RejectionReason;
use crate::sketch::Coordinate;
use crate::time::Hour;
pub use encode::{RecordFormat, encode_dropped_facts, encode_page_view, encode_rejections, encode_reported_missing};
use wire::{Fields, Value};

/// The newest format. [`decode`] reads formats 1 to 4: format 1 has no id of tallies, format 2 no host, and format 4 has further fields and
/// messages (see `pageview.proto`).
pub const FORMAT: u32 = 4;

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
    /// Views counted without a fact.
    DroppedFacts(DroppedFactsRef<'a>),
    /// A page that readers reported as missing.
    ReportedMissing(ReportedMissingRef<'a>),
}

/// A page view, borrowing from the record's bytes. Every field is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageViewRef<'a> {
    /// A valid project slug.
    pub project: &'a str,
    /// Hour of the view.
    pub hour: Hour,
    /// Starts with `/`.
    pub path: &'a str,
    /// 100 to 599.
    pub status: u16,
    /// Empty if unknown.
    pub version: &'a str,
    /// Empty if unknown.
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
    /// The kind of bot, or a person.
    pub bot_class: proto::BotClass,
    /// Whether the view came from outside the project.
    pub arrival: bool,
    /// Visitor of the project; none for bots, and for views of [`proto::Source::Log`] without one.
    pub site_coordinate: Option<Coordinate>,
    /// Visitor of the path; none if there is no visitor of the project.
    pub page_coordinate: Option<Coordinate>,
    /// Random id of the view; 0 if it has none.
    pub event_id: u64,
    /// Name of the bot; empty for people.
    pub bot: &'a str,
    /// How the view reached the endpoint; [`proto::Source::Beacon`] before format 4.
    pub source: proto::Source,
    /// Version of the table of bots that classified it; 0 if unknown.
    pub rules: u32,
    /// Title of the page; empty if unknown.
    pub title: &'a str,
    /// Reserved bits.
    pub marks: u16,
    /// The version to which an alias in `version` refers; empty if unknown.
    pub version_meant: &'a str,
}

/// A tally of refused beacons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionTallyRef<'a> {
    /// A valid slug, or empty if the beacon named no known project.
    pub project: &'a str,
    /// Hour of the refusals.
    pub hour: Hour,
    /// Why they were refused.
    pub reason: RejectionReason,
    /// Number of beacons, at least 1.
    pub count: u64,
    /// Random id of the tally; 0 in format 1.
    pub id: u64,
    /// Host of the pages, if it is the cause of the refusal; else empty.
    pub host: &'a str,
}

/// A tally of views that were counted without one of their facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DroppedFactsRef<'a> {
    /// A valid slug.
    pub project: &'a str,
    /// Hour of the views.
    pub hour: Hour,
    /// The fact, not [`proto::Fact::Unspecified`].
    pub fact: proto::Fact,
    /// Why it was dropped, not [`proto::Cause::Unspecified`].
    pub cause: proto::Cause,
    /// Number of views, at least 1.
    pub count: u64,
    /// Random id of the tally.
    pub id: u64,
}

/// A tally of readers' reports that a page is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedMissingRef<'a> {
    /// A valid slug.
    pub project: &'a str,
    /// Hour of the reports.
    pub hour: Hour,
    /// Starts with `/`.
    pub path: &'a str,
    /// Number of reports, at least 1.
    pub count: u64,
    /// Random id of the tally.
    pub id: u64,
}

/// Why bytes are not a record. Contains no value of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field, or a varint is too long.
    #[error("the record is truncated or malformed")]
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

/// Parses one record strictly. The module's documentation describes what is refused.
///
/// # Errors
/// The bytes are not a record of formats 1 to 4.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let mut fields = Fields::new(bytes);
    let mut format = None;
    let mut body = None;
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Varint(found)) => format = Some(found),
            (2..=5, Value::Bytes(inner)) if body.is_none() => body = Some((number, inner)),
            (2..=5, Value::Bytes(_)) => return Err(DecodeError::RepeatedField(number)),
            _ => return Err(DecodeError::UnknownField(number)),
        }
    }
    let format = match format {
        Some(found @ 1..=4) => found as u32,
        other => return Err(DecodeError::UnknownFormat(other.unwrap_or(0))),
    };
    match body {
        Some((2, inner)) => page_view(inner, format).map(Record::PageView),
        Some((3, inner)) => rejections(inner, format).map(Record::Rejections),
        Some((4, inner)) if format >= 4 => dropped_facts(inner).map(Record::DroppedFacts),
        Some((5, inner)) if format >= 4 => reported_missing(inner).map(Record::ReportedMissing),
        Some((number, _)) => Err(DecodeError::UnknownField(number)),
        None => Err(DecodeError::NoBody),
    }
}

const EMPTY_VIEW: PageViewRef<'static> = PageViewRef {
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
    source: proto::Source::Beacon,
    rules: 0,
    title: "",
    marks: 0,
    version_meant: "",
};

fn page_view(bytes: &[u8], format: u32) -> Result<PageViewRef<'_>, DecodeError> {
    let mut view = EMPTY_VIEW;
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(text)) => view.project = slug(number, text)?,
            (2, Value::Varint(hour)) => view.hour = hour_of(number, hour)?,
            (3, Value::Bytes(text)) => view.path = path(number, text)?,
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
            (18..=22, value) if format >= 4 => since_format_4(&mut view, number, value)?,
            (4 | 13, Value::Varint(_)) | (8, Value::Bytes(_)) => return Err(DecodeError::OutOfRange(number)),
            _ => return Err(DecodeError::UnknownField(number)),
        }
    }
    check(&view, format)?;
    Ok(view)
}

/// Parses a field that only format 4 has.
fn since_format_4<'a>(view: &mut PageViewRef<'a>, number: u32, value: Value<'a>) -> Result<(), DecodeError> {
    match (number, value) {
        (18, Value::Varint(source)) => view.source = enumeration(number, source)?,
        (19, Value::Varint(rules)) => {
            view.rules = u32::try_from(rules).map_err(|_| DecodeError::OutOfRange(number))?;
        }
        (20, Value::Bytes(text)) => view.title = utf8(number, text, MAX_LABEL_BYTES)?,
        (21, Value::Varint(marks)) => {
            view.marks = u16::try_from(marks).map_err(|_| DecodeError::OutOfRange(number))?;
        }
        (22, Value::Bytes(text)) => view.version_meant = utf8(number, text, MAX_LABEL_BYTES)?,
        _ => return Err(DecodeError::UnknownField(number)),
    }
    Ok(())
}

/// Validates the view as a whole. proto3 omits zeros, so fields that must not be zero are validated here, too.
fn check(view: &PageViewRef<'_>, format: u32) -> Result<(), DecodeError> {
    let person = view.bot_class == proto::BotClass::Person;
    // A web server's log may be too coarse for visitors.
    let anonymous = person && view.source == proto::Source::Log && view.site_coordinate.is_none();
    let visitor = person && !anonymous;
    let class_of_format = |known_before: bool| format >= 4 || known_before;
    all_valid([
        (1, !view.project.is_empty()),
        (2, view.hour.0 > 0),
        (3, !view.path.is_empty()),
        (4, view.status > 0),
        (9, class_of_format(view.device <= proto::Device::OtherDevice)),
        (10, class_of_format(view.browser <= proto::Browser::OtherBrowser)),
        (11, class_of_format(view.system <= proto::System::OtherSystem)),
        (12, class_of_format(view.bot_class <= proto::BotClass::OtherBot)),
        (12, format < 4 || view.bot_class != proto::BotClass::AiCrawler),
        (14, view.site_coordinate.is_some() == visitor),
        (15, view.page_coordinate.is_some() == visitor),
        (17, view.bot.is_empty() == person),
    ])
}

fn rejections(bytes: &[u8], format: u32) -> Result<RejectionTallyRef<'_>, DecodeError> {
    let (mut project, mut hour, mut reason, mut count, mut id, mut host) = ("", Hour(0), None, 0, 0, "");
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(text)) => project = slug(number, text)?,
            (2, Value::Varint(value)) => hour = hour_of(number, value)?,
            (3, Value::Varint(value)) => {
                let known = u32::try_from(value).ok().and_then(RejectionReason::from_number);
                let known = known.filter(|reason| reason.first_format() <= format);
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

fn dropped_facts(bytes: &[u8]) -> Result<DroppedFactsRef<'_>, DecodeError> {
    let (fact, cause) = (proto::Fact::Unspecified, proto::Cause::Unspecified);
    let mut tally = DroppedFactsRef { project: "", hour: Hour(0), fact, cause, count: 0, id: 0 };
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(text)) => tally.project = slug(number, text)?,
            (2, Value::Varint(value)) => tally.hour = hour_of(number, value)?,
            (3, Value::Varint(value)) => tally.fact = enumeration(number, value)?,
            (4, Value::Varint(value)) => tally.cause = enumeration(number, value)?,
            (5, Value::Varint(value)) => tally.count = value,
            (6, Value::Fixed64(value)) => tally.id = value,
            _ => return Err(DecodeError::UnknownField(number)),
        }
    }
    all_valid([
        (1, !tally.project.is_empty()),
        (2, tally.hour.0 > 0),
        (3, tally.fact != proto::Fact::Unspecified),
        (4, tally.cause != proto::Cause::Unspecified),
        (5, tally.count > 0),
        (6, tally.id != 0),
    ])?;
    Ok(tally)
}

fn reported_missing(bytes: &[u8]) -> Result<ReportedMissingRef<'_>, DecodeError> {
    let mut tally = ReportedMissingRef { project: "", hour: Hour(0), path: "", count: 0, id: 0 };
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next_field()? {
        match (number, value) {
            (1, Value::Bytes(text)) => tally.project = slug(number, text)?,
            (2, Value::Varint(value)) => tally.hour = hour_of(number, value)?,
            (3, Value::Bytes(text)) => tally.path = path(number, text)?,
            (4, Value::Varint(value)) => tally.count = value,
            (5, Value::Fixed64(value)) => tally.id = value,
            _ => return Err(DecodeError::UnknownField(number)),
        }
    }
    all_valid([
        (1, !tally.project.is_empty()),
        (2, tally.hour.0 > 0),
        (3, !tally.path.is_empty()),
        (4, tally.count > 0),
        (5, tally.id != 0),
    ])?;
    Ok(tally)
}

/// Refuses the invalid field with the lowest number.
fn all_valid<const N: usize>(fields: [(u32, bool); N]) -> Result<(), DecodeError> {
    match fields.into_iter().find(|(_, valid)| !valid) {
        Some((number, _)) => Err(DecodeError::OutOfRange(number)),
        None => Ok(()),
    }
}

fn path(number: u32, bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = utf8(number, bytes, MAX_PATH_BYTES)?;
    if text.starts_with('/') { Ok(text) } else { Err(DecodeError::OutOfRange(number)) }
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
