//! The beacon as a page sends it, before anything of it is believed.

use crate::rejection::{Rejection, RejectionReason};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest URL or referrer in bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// Longest version or language in bytes.
pub const MAX_TEXT_BYTES: usize = 64;

/// `POST /v1/pageview` and the query of `GET /v1/pageview.gif`: types checked, values not. Fields that are not listed
/// here are ignored, so that an older server understands a newer script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beacon {
    /// Slug of the project; may be absent where the page's host belongs to one project.
    pub project: Option<String>,
    /// Address of the page.
    pub url: Option<String>,
    /// Address of the page that led here.
    pub referrer: Option<String>,
    /// HTTP status of the page; 200 where absent.
    pub status: Option<u16>,
    /// Documentation version.
    pub version: Option<String>,
    /// Documentation language.
    pub language: Option<String>,
    /// 64 random bits, chosen by the script for each view.
    pub id: Option<u64>,
}

/// What our script sends, borrowed from the body: the common case, without an allocation for what is looked at once.
#[derive(Deserialize)]
struct Plain<'a> {
    project: Option<&'a str>,
    url: Option<&'a str>,
    referrer: Option<&'a str>,
    status: Option<u64>,
    version: Option<&'a str>,
    language: Option<&'a str>,
    id: Option<&'a str>,
}

impl Plain<'_> {
    fn check(self) -> Result<Beacon, Rejection> {
        let owned = |name, text: Option<&str>, limit| match text {
            None | Some("") => Ok(None),
            Some(text) => checked(name, text, limit).map(|text| Some(text.to_owned())),
        };
        Ok(Beacon {
            project: owned("project", self.project, MAX_TEXT_BYTES)?,
            url: owned("url", self.url, MAX_URL_BYTES)?,
            referrer: owned("referrer", self.referrer, MAX_URL_BYTES)?,
            version: owned("version", self.version, MAX_TEXT_BYTES)?,
            language: owned("language", self.language, MAX_TEXT_BYTES)?,
            status: self.status.map(|number| status(Some(number))).transpose()?,
            id: owned("id", self.id, MAX_TEXT_BYTES)?.map(|text| id(&text)).transpose()?,
        })
    }
}

const STATUS: &str = "an HTTP status from 100 to 599";
const ID: &str = "16 hexadecimal digits";

impl Beacon {
    /// Reads a JSON body; a refusal names the field and what was expected.
    pub fn from_json(body: &[u8]) -> Result<Self, Rejection> {
        let text =
            std::str::from_utf8(body).map_err(|_| Rejection::new(RejectionReason::NotUtf8, "a body in UTF-8"))?;
        // Serde reads a struct from an array too, which is no beacon.
        if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{')
            && let Ok(plain) = serde_json::from_str::<Plain<'_>>(text)
        {
            return plain.check();
        }
        Self::from_any_json(text)
    }

    /// Reads what [`Plain`] does not: escapes, and everything that is to be refused by name.
    fn from_any_json(text: &str) -> Result<Self, Rejection> {
        let mut object: Map<String, Value> = serde_json::from_str(text)
            .map_err(|_| Rejection::new(RejectionReason::MalformedJson, "one JSON object with at least `url`"))?;
        let mut beacon = Beacon {
            project: string(&mut object, "project", MAX_TEXT_BYTES)?,
            url: string(&mut object, "url", MAX_URL_BYTES)?,
            referrer: string(&mut object, "referrer", MAX_URL_BYTES)?,
            version: string(&mut object, "version", MAX_TEXT_BYTES)?,
            language: string(&mut object, "language", MAX_TEXT_BYTES)?,
            ..Beacon::default()
        };
        beacon.status = match object.get("status") {
            None | Some(Value::Null) => None,
            Some(Value::Number(number)) => Some(status(number.as_u64())?),
            Some(Value::String(text)) => Some(status(text.parse().ok())?),
            Some(_) => return Err(Rejection::field(RejectionReason::InvalidField, "status", STATUS)),
        };
        beacon.id = string(&mut object, "id", MAX_TEXT_BYTES)?.map(|text| id(&text)).transpose()?;
        Ok(beacon)
    }

    /// Reads decoded pairs of a query string, with the same refusals.
    pub fn from_query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self, Rejection> {
        let mut beacon = Beacon::default();
        for (name, value) in pairs {
            if value.is_empty() {
                continue;
            }
            match name {
                "project" => beacon.project = Some(checked("project", value, MAX_TEXT_BYTES)?.to_owned()),
                "url" => beacon.url = Some(checked("url", value, MAX_URL_BYTES)?.to_owned()),
                "referrer" => beacon.referrer = Some(checked("referrer", value, MAX_URL_BYTES)?.to_owned()),
                "version" => beacon.version = Some(checked("version", value, MAX_TEXT_BYTES)?.to_owned()),
                "language" => beacon.language = Some(checked("language", value, MAX_TEXT_BYTES)?.to_owned()),
                "status" => beacon.status = Some(status(value.parse().ok())?),
                "id" => beacon.id = Some(id(value)?),
                _ => {}
            }
        }
        Ok(beacon)
    }
}

fn string(object: &mut Map<String, Value>, name: &'static str, limit: usize) -> Result<Option<String>, Rejection> {
    match object.get_mut(name).map(Value::take) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            checked(name, &text, limit)?;
            Ok(if text.is_empty() { None } else { Some(text) })
        }
        Some(_) => Err(Rejection::field(RejectionReason::InvalidField, name, "a string")),
    }
}

fn checked<'a>(name: &'static str, text: &'a str, limit: usize) -> Result<&'a str, Rejection> {
    if text.len() > limit {
        return Err(Rejection::field(RejectionReason::FieldTooLong, name, format!("at most {limit} bytes")));
    }
    if text.chars().any(char::is_control) {
        return Err(Rejection::field(RejectionReason::ControlCharacters, name, "text without control characters"));
    }
    Ok(text)
}

fn status(number: Option<u64>) -> Result<u16, Rejection> {
    match number {
        Some(number @ 100..=599) => Ok(number as u16),
        _ => Err(Rejection::field(RejectionReason::InvalidField, "status", STATUS)),
    }
}

fn id(text: &str) -> Result<u64, Rejection> {
    let refusal = || Rejection::field(RejectionReason::InvalidField, "id", ID);
    if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(refusal());
    }
    u64::from_str_radix(text, 16).map_err(|_| refusal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_beacon_is_read() {
        let beacon = Beacon::from_json(
            br#"{"project":"sphinx","url":"https://docs.example.org/a?b#c","referrer":"","status":404,"version":"stable",
                 "language":"en","id":"00ff00ff00ff00ff","a_field_of_tomorrow":[1]}"#,
        )
        .unwrap();
        assert_eq!(beacon.project.as_deref(), Some("sphinx"));
        assert_eq!((beacon.status, beacon.id), (Some(404), Some(0x00ff_00ff_00ff_00ff)));
        assert_eq!(beacon.referrer, None);
    }

    #[test]
    fn refusals_name_the_field() {
        for (body, reason, field) in [
            (&b"{"[..], RejectionReason::MalformedJson, None),
            (b"[]", RejectionReason::MalformedJson, None),
            (br#"["docs","https://a/",null,200,null,null,null]"#, RejectionReason::MalformedJson, None),
            (b"{\"url\":\"\xff\"}", RejectionReason::NotUtf8, None),
            (br#"{"url":5}"#, RejectionReason::InvalidField, Some("url")),
            (br#"{"url":"https://a/","status":99}"#, RejectionReason::InvalidField, Some("status")),
            (br#"{"url":"https://a/","id":"xyz"}"#, RejectionReason::InvalidField, Some("id")),
            (br#"{"url":"https://a/","version":"a\u0000b"}"#, RejectionReason::ControlCharacters, Some("version")),
        ] {
            let refusal = Beacon::from_json(body).unwrap_err();
            assert_eq!((refusal.reason, refusal.field), (reason, field));
        }
        let long = format!(r#"{{"url":"https://a/{}"}}"#, "x".repeat(MAX_URL_BYTES));
        assert_eq!(Beacon::from_json(long.as_bytes()).unwrap_err().reason, RejectionReason::FieldTooLong);
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
            r#"{"url":"https://a.example/","id":"0123"}"#,
            r#"{"url":"https://a.example/","id":"01234567890123456789012345678901234567890123456789012345678901234"}"#,
            r#"{"url":"https://a.example/","url":"https://b.example/"}"#,
        ] {
            assert_eq!(Beacon::from_json(body.as_bytes()), Beacon::from_any_json(body), "{body}");
        }
    }
}
