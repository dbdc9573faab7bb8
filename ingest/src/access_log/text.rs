//! Escapes of values, by family of formats.

use std::borrow::Cow;

/// How a format escapes a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Escapes {
    /// Not at all.
    #[default]
    None,
    /// `\"`, `\\`, `\t`, `\xhh`: Apache, nginx.
    Backslash,
    /// JSON's own, in a template that writes JSON.
    Json,
    /// A user agent in W3C extended: `+` for blanks (IIS), or percent-encoded once or twice (CloudFront).
    W3cAgent,
    /// A path in W3C extended: `%25` before two hexadecimal digits is an encoded `%` (CloudFront).
    W3cPath,
}

/// The value without its escapes.
pub(super) fn decoded(raw: &[u8], escapes: Escapes) -> Cow<'_, [u8]> {
    let has = |byte| memchr::memchr(byte, raw).is_some();
    match escapes {
        Escapes::Backslash if has(b'\\') => Cow::Owned(without_backslashes(raw)),
        Escapes::Json if has(b'\\') => Cow::Owned(without_json_escapes(raw)),
        Escapes::W3cAgent if has(b'+') || has(b'%') => Cow::Owned(w3c_agent(raw)),
        Escapes::W3cPath if has(b'%') => Cow::Owned(w3c_path(raw)),
        _ => Cow::Borrowed(raw),
    }
}

fn hex(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    match text {
        [high, low, ..] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    }
}

fn without_backslashes(raw: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(raw.len()), 0);
    while at < raw.len() {
        let escaped = if raw[at] == b'\\' { raw.get(at + 1) } else { None };
        let (byte, len) = match escaped {
            Some(b'x') => match hex(&raw[at + 2..]) {
                Some(byte) => (byte, 4),
                None => (b'\\', 1),
            },
            Some(b't') => (b'\t', 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'b') => (8, 2),
            Some(b'v') => (11, 2),
            Some(b'f') => (12, 2),
            Some(&byte @ (b'"' | b'\\' | b'/')) => (byte, 2),
            // A backslash that escapes nothing is one that the client sent.
            _ => (raw[at], 1),
        };
        out.push(byte);
        at += len;
    }
    out
}

fn without_json_escapes(raw: &[u8]) -> Vec<u8> {
    let mut quoted = String::with_capacity(raw.len() + 2);
    quoted.push('"');
    quoted.push_str(&String::from_utf8_lossy(raw));
    quoted.push('"');
    serde_json::from_str::<String>(&quoted).map_or_else(|_| raw.to_vec(), String::into_bytes)
}

fn w3c_agent(raw: &[u8]) -> Vec<u8> {
    // With blanks as blanks, a plus is one.
    let has_blanks = memchr::memchr(b' ', raw).is_some();
    let mut text: Vec<u8> = raw.iter().map(|&byte| if byte == b'+' && !has_blanks { b' ' } else { byte }).collect();
    for _ in 0..2 {
        if memchr::memchr(b'%', &text).is_none() {
            break;
        }
        text = percent_encoding::percent_decode(&text).collect();
    }
    text
}

fn w3c_path(raw: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(raw.len()), 0);
    while at < raw.len() {
        out.push(raw[at]);
        let is_encoded_percent = raw[at..].starts_with(b"%25") && hex(&raw[at + 3..]).is_some();
        at += if is_encoded_percent { 3 } else { 1 };
    }
    out
}
