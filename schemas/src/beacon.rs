//! The beacon as a page sends it, before validation.
//!
//! A beacon is refused only for facts that the count requires: the project and the page's URL. An optional fact that cannot be used is
//! dropped, and the view is counted without it. [`Beacon::dropped`] lists these facts.

use crate::proto::{Fact, Source};
use crate::record::MAX_LABEL_BYTES;
use crate::rejection::{Rejection, RejectionReason};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What a beacon reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A page was viewed.
    #[default]
    View,
    /// Something else happened on a page, such as a click. It is accepted and not counted.
    Event,
    /// The page reports that it is missing. This arrives in addition to a view of the same URL.
    ReportedMissing,
}

/// Which views of a script are arrivals, as far as its referrers show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrivals {
    /// A view without a referrer is a direct arrival.
    #[default]
    Exact,
    /// The script leaves out referrers, so only a referrer of another site shows an arrival.
    ForeignReferrer,
    /// The script sends no referrers.
    Unknown,
}

/// `POST /v1/pageview` and the query of `GET /v1/pageview.gif`: types are checked, values are not. Fields that are not listed here are
/// ignored, so that an older server understands a newer script. The request's limits bound all lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beacon {
    /// Slug of the project; may be absent if the page's host belongs to one project.
    pub project: Option<String>,
    /// URL of the page.
    pub url: Option<String>,
    /// URL of the referring page.
    pub referrer: Option<String>,
    /// HTTP status of the page; 200 if absent.
    pub status: Option<u16>,
    /// Documentation version, at most 255 bytes.
    pub version: Option<String>,
    /// Documentation language, at most 255 bytes.
    pub language: Option<String>,
    /// 64 random bits, chosen by the script for each view.
    pub id: Option<u64>,
    /// The script that sent it.
    pub source: Source,
    /// What it reports.
    pub kind: Kind,
    /// Which views of this script are arrivals.
    pub arrivals: Arrivals,
    /// Whether the script found that a program drives the browser (`navigator.webdriver`).
    pub automated: bool,
    /// Names of the project in the script's own service: a website's UUID, a domain, a code or a slug, by [`Beacon::source`]. They identify
    /// the project that has them as aliases.
    pub aliases: Vec<String>,
    /// Facts in the beacon that cannot be used, each once.
    pub dropped: Vec<Fact>,
    /// Why `project` or `url` cannot be used. The refusal is shown in the report of the project that the rest of the beacon identifies.
    pub refusal: Option<Rejection>,
}

/// The fields of headcount's own script, borrowed from the body: the common case, without allocations for values that are used once.
#[derive(Deserialize)]
struct Plain<'a> {
    project: Option<&'a str>,
    url: Option<&'a str>,
    referrer: Option<&'a str>,
    status: Option<u64>,
    version: Option<&'a str>,
    language: Option<&'a str>,
    id: Option<&'a str>,
    webdriver: Option<u64>,
}

/// The fields, in the order of their validation.
const FIELDS: [&str; 8] = ["project", "url", "referrer", "status", "version", "language", "id", "webdriver"];

/// The value of a field in the request.
enum Sent<'a> {
    Text(&'a str),
    Number(f64),
    Other,
}

impl<'a> Sent<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Sent::Text(text)),
            Value::Number(number) => Some(number.as_f64().map_or(Sent::Other, Sent::Number)),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => Some(Sent::Other),
        }
    }

    fn text(&self) -> Option<&'a str> {
        match self {
            Sent::Text(text) => Some(text),
            Sent::Number(_) | Sent::Other => None,
        }
    }
}

impl From<Plain<'_>> for Beacon {
    fn from(plain: Plain<'_>) -> Self {
        let mut beacon = Beacon::default();
        let texts = [
            ("project", plain.project),
            ("url", plain.url),
            ("referrer", plain.referrer),
            ("version", plain.version),
            ("language", plain.language),
            ("id", plain.id),
        ];
        for (field, text) in texts {
            if let Some(text) = text {
                beacon.set(field, &Sent::Text(text));
            }
        }
        if let Some(number) = plain.status {
            beacon.set("status", &Sent::Number(number as f64));
        }
        beacon.automated = plain.webdriver == Some(1);
        beacon
    }
}

impl Beacon {
    /// Parses a JSON body.
    ///
    /// # Errors
    /// The body is not a JSON object. Invalid fields are listed in [`Beacon::refusal`] or [`Beacon::dropped`].
    pub fn from_json(body: &[u8]) -> Result<Self, Rejection> {
        // A byte order mark; RFC 8259, section 8.1 allows to skip it.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let Ok(text) = std::str::from_utf8(body) else {
            // A page in another encoding: only optional facts may contain bytes that are not UTF-8.
            let not_utf8 = |_| Rejection::new(RejectionReason::NotUtf8, "a body in UTF-8");
            return Self::from_any_json(&String::from_utf8_lossy(body)).map_err(not_utf8);
        };
        // Serde would also read a struct from an array, which is not a beacon.
        if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{')
            && let Ok(plain) = serde_json::from_str::<Plain<'_>>(text)
        {
            return Ok(plain.into());
        }
        Self::from_any_json(text)
    }

    /// Parses what [`Plain`] does not: escapes, and values of unexpected types.
    fn from_any_json(text: &str) -> Result<Self, Rejection> {
        let object = object(text)?;
        let mut beacon = Beacon::default();
        for field in FIELDS {
            if let Some(sent) = object.get(field).and_then(Sent::of) {
                beacon.set(field, &sent);
            }
        }
        Ok(beacon)
    }

    /// Parses decoded pairs of a query string, by the same rules.
    pub fn from_query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut beacon = Beacon::default();
        for (field, value) in pairs {
            beacon.set(field, &Sent::Text(value));
        }
        beacon
    }

    /// Sets one field from text, for a script with other field names. The rules are those of the beacon's own fields: an empty text counts
    /// as absent.
    ///
    /// ```
    /// use headcount_schemas::Beacon;
    /// let mut beacon = Beacon::default();
    /// beacon.set_text("status", "404");
    /// assert_eq!(beacon.status, Some(404));
    /// ```
    pub fn set_text(&mut self, field: &str, text: &str) {
        self.set(field, &Sent::Text(text));
    }

    /// Sets one field. An empty text counts as absent.
    fn set(&mut self, field: &str, sent: &Sent<'_>) {
        if sent.text().is_some_and(|text| trimmed(text).is_empty()) {
            return;
        }
        match field {
            "project" => match sent.text() {
                Some(text) => self.project = Some(trimmed(text).to_owned()),
                None => self.refuse(Rejection::field(RejectionReason::InvalidField, "project", "a string")),
            },
            "url" => match page_url(sent) {
                Ok(url) => self.url = Some(url.to_owned()),
                Err(rejection) => self.refuse(rejection),
            },
            "referrer" => self.referrer = self.usable(Fact::Referrer, sent.text().and_then(clean_text)),
            "version" => self.version = self.usable(Fact::Version, label(sent)),
            "language" => self.language = self.usable(Fact::Language, label(sent)),
            "status" => self.status = self.usable(Fact::Status, status(sent)),
            "webdriver" => self.automated = is_set(sent),
            "id" => self.id = self.usable(Fact::Id, sent.text().and_then(id)),
            _ => {}
        }
    }

    /// The response reports the first refusal.
    fn refuse(&mut self, rejection: Rejection) {
        self.refusal.get_or_insert(rejection);
    }

    /// Sets one field from the JSON of a script with other field names.
    pub fn set_json(&mut self, field: &str, value: &Value) {
        if let Some(sent) = Sent::of(value) {
            self.set(field, &sent);
        }
    }

    /// Records `fact` as dropped if its value cannot be used.
    fn usable<T>(&mut self, fact: Fact, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.drop_fact(fact);
        }
        value
    }

    /// Records that the view is counted without `fact`, since its value cannot be used.
    pub fn drop_fact(&mut self, fact: Fact) {
        if !self.dropped.contains(&fact) {
            self.dropped.push(fact);
        }
    }
}

/// Parses the JSON object in the body of a script with other field names. Bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
/// The body is not a JSON object.
pub fn json_object(body: &[u8]) -> Result<Map<String, Value>, Rejection> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    object(&String::from_utf8_lossy(body))
}

fn object(text: &str) -> Result<Map<String, Value>, Rejection> {
    serde_json::from_str(text)
        .or_else(|_| serde_json::from_str(&without_lone_surrogates(text)))
        .map_err(|_| Rejection::new(RejectionReason::MalformedJson, "one JSON object with at least `url`"))
}

/// The text without spaces, line breaks and control characters at its ends.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c.is_control())
}

/// Whether the text was in another encoding than UTF-8: a decoder replaces what it cannot read by this character.
fn is_torn(text: &str) -> bool {
    text.contains(char::REPLACEMENT_CHARACTER)
}

/// Trimmed text, if it is valid and on one line.
fn clean_text(text: &str) -> Option<String> {
    let text = trimmed(text);
    let is_clean = !is_torn(text) && !text.chars().any(char::is_control);
    is_clean.then(|| text.to_owned())
}

/// A label is never truncated: a part of it would be another value.
fn label(sent: &Sent<'_>) -> Option<String> {
    let text = sent.text().filter(|text| trimmed(text).len() <= MAX_LABEL_BYTES)?;
    clean_text(text)
}

fn page_url<'a>(sent: &Sent<'a>) -> Result<&'a str, Rejection> {
    let refusal = |reason, expected: &'static str| Rejection::field(reason, "url", expected);
    let text = sent.text().ok_or_else(|| refusal(RejectionReason::InvalidField, "a string"))?;
    let text = trimmed(text);
    if is_torn(text) {
        return Err(refusal(RejectionReason::NotUtf8, "a URL in UTF-8"));
    }
    if text.chars().any(char::is_control) {
        return Err(refusal(RejectionReason::ControlCharacters, "text without control characters"));
    }
    Ok(text)
}

/// A whole number from 100 to 599, also as `404.0` or as text.
fn status(sent: &Sent<'_>) -> Option<u16> {
    let number = match sent {
        Sent::Text(text) => trimmed(text).parse::<f64>().ok()?,
        Sent::Number(number) => *number,
        Sent::Other => return None,
    };
    let is_status = number.fract() == 0.0 && (100.0..=599.0).contains(&number);
    is_status.then_some(number as u16)
}

/// Whether a bit is 1, as a number or as text.
fn is_set(sent: &Sent<'_>) -> bool {
    match sent {
        Sent::Text(text) => trimmed(text) == "1",
        Sent::Number(number) => *number == 1.0,
        Sent::Other => false,
    }
}

/// 16 hexadecimal digits.
fn id(text: &str) -> Option<u64> {
    let text = trimmed(text);
    let is_id = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id { u64::from_str_radix(text, 16).ok() } else { None }
}

/// JSON in which escapes of half a character (`\ud83d` without `\ude00`) are replaced by escapes of U+FFFD. A script that splits a string
/// within a character sends such halves, and serde refuses the whole body for them.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let escape_at = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut fixed = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        match escape_at(at) {
            Some(0xd800..=0xdbff) if matches!(escape_at(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                fixed.push_str(&text[copied..at]);
                fixed.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
            Some(_) => at += 6,
            // The character after the backslash may be a backslash itself.
            None => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    fixed.push_str(&text[copied..]);
    Cow::Owned(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Beacon {
        Beacon::from_json(body.as_bytes()).unwrap()
    }

    #[test]
    fn a_full_beacon_is_read() {
        let beacon = read(
            r#"{"project":"sphinx","url":"https://docs.example.org/a?b#c","referrer":"","status":404,"version":"stable",
                 "language":"en","id":"00ff00ff00ff00ff","a_field_of_tomorrow":[1]}"#,
        );
        assert_eq!(beacon.project.as_deref(), Some("sphinx"));
        assert_eq!((beacon.status, beacon.id), (Some(404), Some(0x00ff_00ff_00ff_00ff)));
        assert_eq!((beacon.referrer, beacon.dropped, beacon.refusal), (None, vec![], None));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (body, reason) in [
            (&b"{"[..], RejectionReason::MalformedJson),
            (b"[]", RejectionReason::MalformedJson),
            (br#"["docs","https://a/",null,200,null,null,null]"#, RejectionReason::MalformedJson),
            (br#"{"url":"https://a/","version":"\ud8"}"#, RejectionReason::MalformedJson),
            (b"\xff", RejectionReason::NotUtf8),
        ] {
            let refusal = Beacon::from_json(body).unwrap_err();
            assert_eq!((refusal.reason, refusal.field), (reason, None), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (body, reason, field) in [
            (&b"{\"url\":\"\xff\",\"project\":\"docs\"}"[..], RejectionReason::NotUtf8, "url"),
            (br#"{"project":"docs","url":5}"#, RejectionReason::InvalidField, "url"),
            (br#"{"project":"docs","url":"https://a/\u0000b"}"#, RejectionReason::ControlCharacters, "url"),
            (br#"{"project":5,"url":"https://a/"}"#, RejectionReason::InvalidField, "project"),
        ] {
            let beacon = Beacon::from_json(body).unwrap();
            assert!(beacon.project.is_some() || beacon.url.is_some(), "says whose it is");
            let refusal = beacon.refusal.unwrap();
            assert_eq!((refusal.reason, refusal.field), (reason, Some(field)));
        }
    }

    #[test]
    fn an_odd_optional_fact_is_dropped_and_nothing_else() {
        let long = "x".repeat(MAX_LABEL_BYTES + 1);
        let long_version = format!(r#""version":"{long}""#);
        let long_language = format!(r#""language":"{long}""#);
        for (field, fact) in [
            (long_version.as_str(), Fact::Version),
            (long_language.as_str(), Fact::Language),
            (r#""version":"1\n2""#, Fact::Version),
            (r#""version":"a\u0000b""#, Fact::Version),
            (r#""version":"\ud83d 1""#, Fact::Version),
            (r#""version":3"#, Fact::Version),
            (r#""language":["en"]"#, Fact::Language),
            (r#""language":"e\tn""#, Fact::Language),
            (r#""referrer":{}"#, Fact::Referrer),
            (r#""referrer":"https://a/\nb""#, Fact::Referrer),
            (r#""status":99"#, Fact::Status),
            (r#""status":600"#, Fact::Status),
            (r#""status":-404"#, Fact::Status),
            (r#""status":404.5"#, Fact::Status),
            (r#""status":true"#, Fact::Status),
            (r#""status":"ok""#, Fact::Status),
            (r#""status":"NaN""#, Fact::Status),
            (r#""id":"xyz""#, Fact::Id),
            (r#""id":"+123456789abcdef""#, Fact::Id),
            (r#""id":7"#, Fact::Id),
        ] {
            let url = "https://a.example/";
            let beacon = read(&format!(r#"{{"url":"{url}",{field}}}"#));
            let expected = Beacon { url: Some(url.to_owned()), dropped: vec![fact], ..Beacon::default() };
            assert_eq!(beacon, expected, "{field}");
        }
        let latin_1 = Beacon::from_json(b"{\"url\":\"https://a/\",\"version\":\"caf\xe9\"}").unwrap();
        assert_eq!((latin_1.url.as_deref(), latin_1.dropped), (Some("https://a/"), vec![Fact::Version]));
    }

    #[test]
    fn facts_are_trimmed_and_their_limits_are_of_the_decoded_text() {
        let label = "ก".repeat(MAX_LABEL_BYTES / 3);
        let escaped = label.replace('ก', "\\u0e01");
        let beacon = read(&format!(
            r#"{{"url":" https://a/\n","version":"\n {escaped}\t","language":"\r\n","status":404.0,"id":" 0123456789abcdef\n"}}"#
        ));
        assert_eq!(beacon.url.as_deref(), Some("https://a/"));
        assert_eq!((beacon.version.as_deref(), beacon.language), (Some(label.as_str()), None));
        assert_eq!((beacon.status, beacon.id), (Some(404), Some(0x0123_4567_89ab_cdef)));
        assert_eq!((beacon.dropped, beacon.refusal), (vec![], None));
        for status in ["404", "404.0", "4.04e2", "\"404\"", "\" 404.0 \""] {
            assert_eq!(read(&format!(r#"{{"status":{status}}}"#)).status, Some(404), "{status}");
        }
    }

    #[test]
    fn half_a_character_does_not_lose_the_view() {
        for (sent, read) in [
            (r"\ud83d\ude00", "😀"),
            (r"\\ud83d", r"\ud83d"),
            (r"\ud83d", "\u{fffd}"),
            (r"a\ude00b", "a\u{fffd}b"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\ud83d\n", "\u{fffd}\n"),
        ] {
            let text: String = serde_json::from_str(&without_lone_surrogates(&format!("\"{sent}\""))).unwrap();
            assert_eq!(text, read, "{sent}");
        }
    }

    #[test]
    fn both_ways_of_reading_agree() {
        for body in [
            r#"{"url":"https://a.example/x","status":404,"id":"0123456789abcdef"}"#,
            r#"{"url":"https://a.example/x","project":"","id":""}"#,
            r#"{"url":"https://a.example/x","status":1000}"#,
            r#"{"url":"https://a.example/x","version":"a\tb"}"#,
            r#"{"url":"https://a.example/\u00fc","status":"404"}"#,
            r#"{"url":null,"status":null}"#,
            r#"["docs","https://a.example/",null,200,null,null,null]"#,
            " \t\r\n[null,\"https://a.example/\",null,null,null,null,null]",
            " \t\r\n{\"url\":\"https://a.example/\"}",
            "\u{a0}{\"url\":\"https://a.example/\"}",
            "{\"url\":\"https://a.example/\u{7f}/\",\"version\":\"\u{fffd}\"}",
            r#"{"url":"https://a.example/","id":"0123"}"#,
            r#"{"url":"https://a.example/","id":"01234567890123456789012345678901234567890123456789012345678901234"}"#,
            r#"{"url":"https://a.example/","url":"https://b.example/"}"#,
        ] {
            assert_eq!(Beacon::from_json(body.as_bytes()), Beacon::from_any_json(body), "{body}");
        }
    }
}
