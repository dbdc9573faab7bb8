//! What is cut and masked before a path or a referrer is stored.
//!
//! Query string and fragment never get here (a project may keep parameters of its own: [`crate::path_rules`]). A path is percent-decoded once, segment by segment, so that one page has
//! one spelling, and segments that look like they name a person or a secret are replaced:
//!
//! | looks like | becomes |
//! |---|---|
//! | `name@host.tld` | `:email` |
//! | an IPv4 or IPv6 address, with or without a port | `:address` |
//! | UUID; 16 or more hexadecimal digits with a decimal one; 9 or more decimal digits | `:id` |
//! | 24 or more of `A–Z a–z 0–9 _ -`, with an upper-case and a lower-case letter and a digit | `:token` |
//! | a named secret: `token=…`, `jsessionid=…`, `key=…` and their like | `:token` |
//!
//! What stands between `. ; = : , ~ +` is looked at as well, and a find there replaces the whole segment. Between dots
//! there are also long names of classes (`transformers.Wav2Vec2ForSequenceClassification`), so there a token must
//! change between upper case, lower case and digits as often as chance does and words do not.

use percent_encoding::percent_decode_str;
use schemas::Host;
use schemas::record::MAX_PATH_BYTES;
use std::net::{IpAddr, SocketAddr};

/// Cleans the path of a parsed URL. The result begins with `/`, is free of control characters and at most 1,024 bytes.
pub fn clean_path(raw: &str) -> String {
    spelt(raw, mask)
}

/// The same without masks: for paths that a project says to keep.
pub fn decoded_path(raw: &str) -> String {
    spelt(raw, |_| None)
}

fn spelt(raw: &str, mask: impl Fn(&str) -> Option<&'static str> + Copy) -> String {
    let mut path = String::with_capacity(raw.len());
    for (index, segment) in raw.split('/').enumerate() {
        if index > 0 {
            path.push('/');
        }
        push_clean(&mut path, segment, mask);
    }
    if !path.starts_with('/') {
        path.insert(0, '/');
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
            for (index, segment) in text.split('/').enumerate() {
                if index > 0 {
                    path.push('/');
                }
                path.push_str(mask(segment).unwrap_or(segment));
            }
        }
        // Kept as it came, unless what can be read of it is to be masked.
        _ => {
            let text = bytes.decode_utf8_lossy();
            let torn = |c: char| c == '/' || c == char::REPLACEMENT_CHARACTER || c.is_control();
            path.push_str(text.split(torn).find_map(&mask).unwrap_or(raw));
        }
    }
}

/// The referrer's host as it is stored: without `www.`, and no network addresses.
pub fn clean_referrer_host(host: &str) -> String {
    let host = host.strip_prefix("www.").unwrap_or(host);
    mask(host).unwrap_or(host).to_owned()
}

/// The host of a page whose beacon is refused for it, as it is stored: the name under which it would be registered. Empty where it
/// is a network address or looks like it names a person or a secret, and where the page's address names a user.
pub fn clean_page_host(url: &url::Url, host: &Host) -> String {
    let host = host.as_str();
    let of_nobody = url.username().is_empty() && url.password().is_none() && mask(host).is_none();
    if of_nobody && Host::is_name(host) { host.to_owned() } else { String::new() }
}

/// A version or language as it is stored.
pub fn clean_label(text: &str) -> String {
    mask(text).unwrap_or(text).to_owned()
}

/// Names that, before `=`, say that a secret follows. Compared without `_` and `-` and regardless of case.
const SECRETS: [&str; 20] = [
    "token",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "authtoken",
    "csrftoken",
    "jwt",
    "auth",
    "key",
    "apikey",
    "secret",
    "clientsecret",
    "password",
    "passwd",
    "sid",
    "session",
    "sessionid",
    "jsessionid",
    "phpsessid",
    "signature",
];

fn mask(segment: &str) -> Option<&'static str> {
    if let Some((name, host)) = segment.split_once('@')
        && !name.is_empty()
        && host.contains('.')
    {
        return Some(":email");
    }
    if is_address(segment) {
        return Some(":address");
    }
    let stem = segment.rsplit_once('.').map_or(segment, |(stem, _)| stem);
    if is_id(segment) || is_id(stem) {
        return Some(":id");
    }
    if is_token(segment) || is_token(stem) {
        return Some(":token");
    }
    if !segment.contains(['.', ';', '=', ':', ',', '~', '+']) {
        return None;
    }
    for pair in segment.split([';', ',', '~', '+']) {
        if is_address(pair) || pair.split_once('=').is_some_and(|(_, value)| is_address(value)) {
            return Some(":address");
        }
        if pair.split_once('=').is_some_and(|(name, value)| !value.is_empty() && is_secret(name)) {
            return Some(":token");
        }
    }
    for part in segment.split(['.', ';', '=', ':', ',', '~', '+']) {
        if is_id(part) {
            return Some(":id");
        }
        if is_token(part) && is_mixed(part) {
            return Some(":token");
        }
    }
    None
}

/// An address, bare or in brackets, with or without a port.
fn is_address(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok()
}

fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).collect();
    SECRETS.contains(&plain.as_str())
}

fn is_id(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let uuid = bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    uuid || (bytes.len() >= 16 && digits > 0 && bytes.iter().all(u8::is_ascii_hexdigit))
        || (bytes.len() >= 9 && digits == bytes.len())
}

fn is_token(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 24
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        && bytes.iter().any(u8::is_ascii_uppercase)
        && bytes.iter().any(u8::is_ascii_lowercase)
        && bytes.iter().any(u8::is_ascii_digit)
}

/// Whether two of five neighbours or more are of different kinds. Of random text it is about two of three.
fn is_mixed(text: &str) -> bool {
    let kind = |b: u8| match b {
        b'A'..=b'Z' => 0,
        b'a'..=b'z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let changes = text.as_bytes().windows(2).filter(|pair| kind(pair[0]) != kind(pair[1])).count();
    changes * 5 >= text.len().saturating_sub(1) * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_what_names_a_page_and_lose_what_names_a_person() {
        for (raw, clean) in [
            ("/en/stable/usage/quickstart.html", "/en/stable/usage/quickstart.html"),
            ("/en/latest/b%C3%BCcher/", "/en/latest/bücher/"),
            ("/a%00b", "/a%00b"),
            ("/u/jane.doe%40example.org/", "/u/:email/"),
            ("/builds/123456789/", "/builds/:id/"),
            ("/2026/11/23/", "/2026/11/23/"),
            ("/c/0123456789abcdef0123456789abcdef01234567.html", "/c/:id"),
            ("/c/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/c/:id"),
            ("/reset/eyJhbGciOiJIUzI1NiIsInR5cCI6", "/reset/:token"),
            ("/from/192.0.2.1", "/from/:address"),
            ("", "/"),
            ("/decade", "/decade"),
            ("/from/192.0.2.1:3000/x", "/from/:address/x"),
            ("/from/[2001:db8::1]:8080", "/from/:address"),
            ("/from/2001:db8::1", "/from/:address"),
            ("/from/ip=192.0.2.1;x", "/from/:address"),
            // What cannot be decoded stays, and hides neither itself nor its neighbours.
            ("/a%ff/jane%40example.org/%00", "/a%ff/:email/%00"),
            ("/jane%40example.org%00", "/:email"),
            ("/x%ff123456789", "/:id"),
            ("/b%C3%BCcher%ff/b%C3%BCcher", "/b%C3%BCcher%ff/bücher"),
            ("/a%2Fjane%40example.org%2Fb", "/a/:email/b"),
            ("/a%2Fjane%40example.org%00%2Fb", "/:email"),
            // Parts of a segment.
            (
                "/verify/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
                "/verify/:token",
            ),
            ("/index.html;jsessionid=0A1B2C3D4E5F60718293A4B5C6D7E8F9", "/:token"),
            ("/index.html;v=0A1B2C3D4E5F60718293A4B5C6D7E8F9", "/:id"),
            ("/token=hunter2/", "/:token/"),
            ("/a,Access_Token=x", "/:token"),
            ("/x=Zk3JtQ9aLw0PzX7bVn2RcY5d", "/:token"),
            ("/user:123456789", "/:id"),
            ("/~3f2504e0-4f89-41d3-9a0c-0305e82c3301~", "/:id"),
        ] {
            assert_eq!(clean_path(raw), clean, "{raw}");
        }
        for kept in [
            "/api/sphinx.application.TemplateBridge",
            "/transformers.Wav2Vec2ForSequenceClassification",
            "/org.springframework.AbstractSingletonProxyFactoryBean.html",
            "/AbstractSingletonProxyFactoryBean",
            "/whatsnew-3.11.html",
            "/2026-11-23",
            "/20261123",
            "/v1.2.3",
            "/1.2.3.dev4+g84144ce",
            "/genindex-all.html",
            "/PEP-0008",
            "/token",
            "/token.html",
            "/key=",
            "/sort=name",
            "/std::vec",
            "/@scope",
            "/c++",
            "/~jane",
            "/bücher,",
        ] {
            assert_eq!(clean_path(kept), kept);
        }
        assert!(clean_path(&format!("/{}", "ü".repeat(2000))).len() <= MAX_PATH_BYTES);
    }

    #[test]
    fn referrers_are_hosts_only() {
        assert_eq!(clean_referrer_host("www.example.org"), "example.org");
        assert_eq!(clean_referrer_host("192.0.2.1"), ":address");
        assert_eq!(clean_referrer_host("[2001:db8::1]"), ":address");
        assert_eq!(clean_referrer_host("192.0.2.77:3000"), ":address");
        assert_eq!(clean_referrer_host("[2001:db8::1]:8080"), ":address");
        for kept in ["localhost:3000", "docs.example.org:8443", "deploy-preview-12--docs.example.app", "t.co"] {
            assert_eq!(clean_referrer_host(kept), kept);
        }
    }
}
