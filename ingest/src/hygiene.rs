//! What is removed, masked and normalised before a path, a label or a referrer is stored.
//!
//! Query string and fragment do not reach this module (a project may store selected parameters: [`crate::path_rules`]). Each page gets one spelling:
//!
//! - A path is percent-decoded once, segment by segment, and composed (Unicode NFC).
//! - Double slashes become one.
//! - `index.html` or `index.htm` at the end is removed, also in capitals and with a slash after it.
//!
//! Otherwise letters keep their case and a slash at the end stays, because hosts distinguish such pages. Segments that seem to identify a person or
//! contain a secret are replaced:
//!
//! | looks like | becomes | rule |
//! |---|---|---|
//! | `name@host.tld` | `:email` | `contact` |
//! | an IPv4 or IPv6 address, with or without a port | `:address` | `contact` |
//! | UUID; 12 or more hexadecimal digits; 9 or more decimal digits; telephone and card numbers in groups | `:id` | `ids` |
//! | a named secret (`token=…`), or a token that begins as its issuer's do (`ghp_…`) | `:token` | `secrets` |
//! | 12 or more letters and digits that are random rather than words | `:token` | `randomness` |
//!
//! Documentation has names that come close to all of these: versions like `1.2.3.4`, packages like `python@3.11`, classes like
//! `Wav2Vec2ForSequenceClassification`, files like `classEigen_1_1SparseMatrix.html`. They stay, and a test counts how many do not.

use icu_normalizer::ComposingNormalizerBorrowed;
use percent_encoding::percent_decode_str;
use schemas::Host;
use schemas::record::MAX_PATH_BYTES;
use std::borrow::Cow;

mod contact;
mod id_segments;
mod labels;
mod randomness;
mod secrets;
#[cfg(test)]
mod tests;

pub use labels::{clean_label, clean_language};

/// How often a segment is percent-decoded for the checks, as text to be masked may be encoded more than once. The stored path is decoded once.
const MAX_DECODINGS: usize = 3;

/// Last segments that static hosts serve for the folder itself.
const INDEX_FILES: [&str; 2] = ["index.html", "index.htm"];

/// Cleans the path of a parsed URL. The result starts with `/`, is free of control characters and at most 1,024 bytes.
pub fn clean_path(raw: &str) -> String {
    spelt(raw, mask)
}

/// The same without masks: for paths that a project's `keep` rules match.
pub fn decoded_path(raw: &str) -> String {
    spelt(raw, |_| None)
}

/// A value of a query parameter that a project stores. It is readers' input, so it is masked like a segment of a path.
pub fn clean_value(text: &str) -> String {
    mask(text).unwrap_or(text).to_owned()
}

/// Text in Unicode's composed form (NFC): `é` is one character, however it was sent.
pub(crate) fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { ComposingNormalizerBorrowed::new_nfc().normalize(text) }
}

/// Whether static hosts serve this file for its folder.
pub(crate) fn is_index(segment: &str) -> bool {
    INDEX_FILES.iter().any(|file| segment.eq_ignore_ascii_case(file))
}

fn spelt(raw: &str, mask: impl Fn(&str) -> Option<&'static str> + Copy) -> String {
    let mut path = String::with_capacity(raw.len() + 1);
    for segment in raw.split('/') {
        push_clean(&mut path, segment, mask);
    }
    // With a slash behind it, too, as some links have it.
    let file = path.strip_suffix('/').unwrap_or(&path);
    let folder = file.rfind('/').map_or(0, |slash| slash + 1);
    if is_index(&file[folder..]) {
        path.truncate(folder);
    }
    if path.len() > MAX_PATH_BYTES {
        path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
    }
    path
}

/// One segment of a raw path. A `%2F` in it separates as `/` does.
fn push_clean(path: &mut String, raw: &str, mask: impl Fn(&str) -> Option<&'static str>) {
    let bytes = percent_decode_str(raw);
    match bytes.clone().decode_utf8() {
        Ok(text) if !text.chars().any(char::is_control) => {
            for segment in text.split('/') {
                push_segment(path, mask(segment).unwrap_or(&composed(segment)));
            }
        }
        // Stored as sent, unless its readable part must be masked.
        _ => {
            let text = bytes.decode_utf8_lossy();
            let torn = |c: char| c == '/' || c == char::REPLACEMENT_CHARACTER || c.is_control();
            push_segment(path, text.split(torn).find_map(&mask).unwrap_or(raw));
        }
    }
}

/// Adds a slash before the segment unless the path ends with one, so double slashes become one.
fn push_segment(path: &mut String, segment: &str) {
    if !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(segment);
}

/// The referrer's host as stored: without `www.`; `:address` for an IP address.
pub fn clean_referrer_host(host: &str) -> String {
    let host = host.strip_prefix("www.").unwrap_or(host);
    mask_host(host).unwrap_or(host).to_owned()
}

/// The stored host of a page whose beacon was refused because of it: the name under which it would be registered. Empty if it is an IP address, if it
/// seems to identify a person or contain a secret, or if the page's URL names a user.
pub fn clean_page_host(url: &url::Url, host: &Host) -> String {
    let host = host.as_str();
    let of_nobody = url.username().is_empty() && url.password().is_none() && mask_host(host).is_none();
    if of_nobody && Host::is_name(host) { host.to_owned() } else { String::new() }
}

fn mask_host(host: &str) -> Option<&'static str> {
    if contact::is_ip_address(host) { Some(":address") } else { mask(host) }
}

/// The replacement for the segment, if it must be masked.
fn mask(segment: &str) -> Option<&'static str> {
    // Most segments consist of words only and identify no one. Tokens without a digit mix capital and small letters.
    if segment.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'-' | b'_')) {
        return None;
    }
    decoded(segment).split('/').find_map(|text| {
        if contact::has_email(text) {
            return Some(":email");
        }
        // All of these have digits; most names have none.
        if text.bytes().any(|b| b.is_ascii_digit()) {
            if contact::has_ip_address(text) {
                return Some(":address");
            }
            if id_segments::has_id(text) {
                return Some(":id");
            }
        }
        let secret =
            secrets::has_named_secret(text) || secrets::has_known_token(text) || randomness::has_random_run(text);
        secret.then_some(":token")
    })
}

/// The segment, decoded once already, as the masks test it: decoded up to [`MAX_DECODINGS`] times, with an ordinary `@`.
fn decoded(segment: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(segment);
    for _ in 1..MAX_DECODINGS {
        if !text.contains('%') {
            break;
        }
        text = Cow::Owned(percent_decode_str(&text).decode_utf8_lossy().into_owned());
    }
    // Fullwidth and small form of the sign.
    if text.contains(['\u{FF20}', '\u{FE6B}']) {
        text = Cow::Owned(text.replace(['\u{FF20}', '\u{FE6B}'], "@"));
    }
    text
}

/// The longest runs of ASCII letters and digits, with their start.
fn runs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut end = 0;
    std::iter::from_fn(move || {
        let start = end + text[end..].find(|c: char| c.is_ascii_alphanumeric())?;
        end = text[start..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(text.len(), |len| start + len);
        Some((start, &text[start..end]))
    })
}

/// The text without a page's extension.
fn stem(text: &str) -> &str {
    const EXTENSIONS: [&str; 12] =
        ["html", "htm", "xhtml", "php", "asp", "aspx", "jsp", "js", "json", "xml", "txt", "pdf"];
    match text.rsplit_once('.') {
        Some((stem, extension)) if EXTENSIONS.contains(&extension) => stem,
        _ => text,
    }
}
