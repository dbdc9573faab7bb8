//! What is cut and masked before a path or a referrer is stored.
//!
//! Query string and fragment never get here. A path is percent-decoded once, so that one page has one spelling, and
//! segments that look like they name a person or a secret are replaced:
//!
//! | looks like | becomes |
//! |---|---|
//! | `name@host.tld` | `:email` |
//! | UUID; 16 or more hexadecimal digits with a decimal one; 9 or more decimal digits | `:id` |
//! | 24 or more of `A–Z a–z 0–9 _ -`, with an upper-case and a lower-case letter and a digit | `:token` |
//! | an IPv4 or IPv6 address | `:address` |

use percent_encoding::percent_decode_str;
use schemas::record::MAX_PATH_BYTES;
use std::borrow::Cow;
use std::net::IpAddr;

/// Cleans the path of a parsed URL. The result begins with `/`, is free of control characters and at most 1,024 bytes.
pub fn clean_path(raw: &str) -> String {
    let decoded = match percent_decode_str(raw).decode_utf8() {
        Ok(text) if !text.chars().any(char::is_control) => text,
        _ => Cow::Borrowed(raw),
    };
    let mut path = String::with_capacity(decoded.len());
    for (index, segment) in decoded.split('/').enumerate() {
        if index > 0 {
            path.push('/');
        }
        path.push_str(mask(segment).unwrap_or(segment));
    }
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    if path.len() > MAX_PATH_BYTES {
        path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
    }
    path
}

/// The referrer's host as it is stored: without `www.`, and no network addresses.
pub fn clean_referrer_host(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.parse::<IpAddr>().is_ok() {
        return ":address".to_owned();
    }
    let host = host.strip_prefix("www.").unwrap_or(host);
    mask(host).unwrap_or(host).to_owned()
}

/// A version or language as it is stored.
pub fn clean_label(text: &str) -> String {
    mask(text).unwrap_or(text).to_owned()
}

fn mask(segment: &str) -> Option<&'static str> {
    let stem = segment.rsplit_once('.').map_or(segment, |(stem, _)| stem);
    if let Some((name, host)) = segment.split_once('@')
        && !name.is_empty()
        && host.contains('.')
    {
        return Some(":email");
    }
    if segment.parse::<IpAddr>().is_ok() {
        return Some(":address");
    }
    if is_id(segment) || is_id(stem) {
        return Some(":id");
    }
    if is_token(segment) || is_token(stem) {
        return Some(":token");
    }
    None
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
            ("/api/sphinx.application.TemplateBridge", "/api/sphinx.application.TemplateBridge"),
        ] {
            assert_eq!(clean_path(raw), clean, "{raw}");
        }
        assert!(clean_path(&format!("/{}", "ü".repeat(2000))).len() <= MAX_PATH_BYTES);
    }

    #[test]
    fn referrers_are_hosts_only() {
        assert_eq!(clean_referrer_host("www.example.org"), "example.org");
        assert_eq!(clean_referrer_host("192.0.2.1"), ":address");
        assert_eq!(clean_referrer_host("[2001:db8::1]"), ":address");
    }
}
