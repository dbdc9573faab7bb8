//! Version and language of a page. The author of the docs chooses them, so versions, commits and dates in them are not masked; only e-mail addresses
//! and secrets are.

use super::{contact, decoded, randomness, secrets};

/// A version as stored: trimmed, and masked if it contains an e-mail address or a secret.
pub fn clean_label(text: &str) -> String {
    let text = text.trim();
    mask(text).unwrap_or(text).to_owned()
}

/// A language as stored: like [`clean_label`], with language tags in the spelling of BCP 47 (`en_us` becomes `en-US`).
pub fn clean_language(text: &str) -> String {
    let text = text.trim();
    mask(text).map_or_else(|| language_tag(text), str::to_owned)
}

fn mask(text: &str) -> Option<&'static str> {
    let text = decoded(text);
    if contact::has_email(&text) {
        return Some(":email");
    }
    let secret =
        secrets::has_named_secret(&text) || secrets::has_known_token(&text) || randomness::has_random_run(&text);
    secret.then_some(":token")
}

/// The spelling that RFC 5646, 2.1.1, recommends: small letters, regions (two letters) in capitals and scripts (four letters) with an initial
/// capital. The first subtag, and one directly after a single letter, stay in small letters. Text that is not a language tag is returned unchanged.
fn language_tag(text: &str) -> String {
    let subtags = || text.split(['-', '_']);
    let fits = |subtag: &str| (1..=8).contains(&subtag.len()) && subtag.bytes().all(|b| b.is_ascii_alphanumeric());
    let is_language = |first: &str| matches!(first.len(), 2 | 3) && first.bytes().all(|b| b.is_ascii_alphabetic());
    if !subtags().all(fits) || !subtags().next().is_some_and(is_language) {
        return text.to_owned();
    }
    let mut tag = String::with_capacity(text.len());
    let mut previous_len = 0;
    for subtag in subtags() {
        let small = subtag.to_ascii_lowercase();
        let alphabetic = subtag.bytes().all(|b| b.is_ascii_alphabetic());
        match subtag.len() {
            _ if previous_len == 0 => tag.push_str(&small),
            _ if previous_len == 1 => tag.extend(["-", &small]),
            2 if alphabetic => tag.extend(["-", &subtag.to_ascii_uppercase()]),
            4 if alphabetic => tag.extend(["-", &subtag[..1].to_ascii_uppercase(), &small[1..]]),
            _ => tag.extend(["-", &small]),
        }
        previous_len = subtag.len();
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_have_one_spelling() {
        for (text, stored) in [
            ("en", "en"),
            ("EN", "en"),
            (" en-us\n", "en-US"),
            ("en_US", "en-US"),
            ("zh_Hant_TW", "zh-Hant-TW"),
            ("ZH-HANT-tw", "zh-Hant-TW"),
            ("sr_latn", "sr-Latn"),
            ("es-419", "es-419"),
            ("de-CH-1996", "de-CH-1996"),
            ("en-x-US", "en-x-us"),
            ("fil", "fil"),
            ("", ""),
            // No language tags.
            ("English", "English"),
            ("en_US.UTF-8", "en_US.UTF-8"),
            ("日本語", "日本語"),
            ("all languages", "all languages"),
            ("-", "-"),
            ("jane@example.org", ":email"),
        ] {
            assert_eq!(clean_language(text), stored, "{text:?}");
        }
    }

    #[test]
    fn labels_keep_versions_commits_and_dates() {
        for kept in [
            "1.2.3.4",
            "192.0.2.1",
            "pkg@1.2.3",
            "2024-01-02",
            "20240102030405",
            "0123456789abcdef0123456789abcdef01234567",
            "1.2.3.dev4+g0123456789abcdef",
            "v0.0.0-20210101000000-abcdef123456",
            "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
            "feature/add-oauth2",
            "release 2.0 (beta)",
        ] {
            assert_eq!(clean_label(kept), kept);
            assert_eq!(clean_label(&format!(" {kept}\t")), kept);
        }
        for (text, stored) in [
            ("jane@example.org", ":email"),
            ("jane%40example.org", ":email"),
            ("ghp_wVq7AEBmALsqEGpZ8r4qyBYCncyZ3BXqaNDc", ":token"),
            ("token=hunter2", ":token"),
            ("e4xBDZczPyty0FzFwJ4SvryPlwi", ":token"),
        ] {
            assert_eq!(clean_label(text), stored);
        }
    }
}
