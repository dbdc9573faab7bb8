//! A project's path rules, in addition to the masks that apply to all projects ([`crate::hygiene`]). They define which parts identify a person and
//! are masked, which only seem to, which query parameters distinguish pages, and which endings do not.

use crate::hygiene::{clean_path, clean_value, composed, decoded_path, is_index};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use schemas::record::MAX_PATH_BYTES;
use std::fmt;
use std::str::FromStr;
use url::Url;

/// The replacement for a segment that a project masks.
const MASKED: &str = ":masked";

/// A path with wildcards: `*` is one segment, `**` at the end any number, one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Text(String),
    One,
    Rest,
}

/// Text that is no pattern.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a path with * for a segment or ** for all that follow, such as /users/* or /download/**")]
pub struct InvalidPathPattern;

impl FromStr for PathPattern {
    type Err = InvalidPathPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPathPattern> {
        let rest = text.strip_prefix('/').filter(|rest| !rest.is_empty() && text.len() <= MAX_PATH_BYTES);
        let rest = rest.ok_or(InvalidPathPattern)?;
        let mut segments = Vec::new();
        for segment in rest.split('/') {
            if segments.last() == Some(&Segment::Rest) {
                return Err(InvalidPathPattern);
            }
            segments.push(match segment {
                "*" => Segment::One,
                "**" => Segment::Rest,
                text if text.contains(['*', '?', '#']) || text.chars().any(char::is_control) => {
                    return Err(InvalidPathPattern);
                }
                text => Segment::Text(composed(text).into_owned()),
            });
        }
        Ok(PathPattern { segments })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Text(text) => write!(f, "/{text}"),
            Segment::One => f.write_str("/*"),
            Segment::Rest => f.write_str("/**"),
        })
    }
}

impl PathPattern {
    /// Whether a path matches; a slash at its end does not count.
    fn matches(&self, path: &str) -> bool {
        let mut path = path.trim_start_matches('/').trim_end_matches('/').split('/');
        for segment in &self.segments {
            match (segment, path.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::One, Some(_)) => {}
                (Segment::Text(text), Some(found)) if text == found => {}
                // The index file has been removed from paths before.
                (Segment::Text(text), None | Some("")) if text.is_empty() || is_index(text) => {}
                _ => return false,
            }
        }
        path.next().is_none()
    }

    /// The path with the segments under its wildcards masked. The path must match.
    fn masked(&self, path: &str) -> String {
        let slash = path.len() > 1 && path.ends_with('/');
        let found = path.trim_start_matches('/').trim_end_matches('/').split('/');
        let mut out = String::with_capacity(path.len());
        for (at, text) in found.enumerate() {
            match self.segments.get(at) {
                Some(Segment::Text(_)) => out.extend(["/", text]),
                Some(Segment::One) => out.extend(["/", MASKED]),
                // One mask for all of them: their number could identify a person as well.
                Some(Segment::Rest) => {
                    out.extend(["/", MASKED]);
                    return out;
                }
                None => break,
            }
        }
        if slash {
            out.push('/');
        }
        out
    }
}

/// A project's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// Segments under these wildcards are masked.
    pub mask: Vec<PathPattern>,
    /// Paths that are stored unmasked although they seem to identify a person. `mask` takes precedence.
    pub keep: Vec<PathPattern>,
    /// Parameters of the query that are part of the page's name, in this order.
    pub query: Vec<String>,
    /// `/page/` is stored as `/page`.
    pub strip_trailing_slash: bool,
    /// `/page.html` is stored as `/page`.
    pub strip_html: bool,
}

/// Characters that must be encoded in the value of a stored parameter.
const IN_A_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'#').add(b'%').add(b'&').add(b'+').add(b'?').add(b'=');

impl PathRules {
    /// The path of a page as it is stored.
    pub fn clean(&self, url: &Url) -> String {
        let mut path = match self.keep.is_empty() {
            true => clean_path(url.path()),
            false => {
                let decoded = decoded_path(url.path());
                if self.keep.iter().any(|pattern| pattern.matches(&decoded)) { decoded } else { clean_path(url.path()) }
            }
        };
        if let Some(pattern) = self.mask.iter().find(|pattern| pattern.matches(&path)) {
            path = pattern.masked(&path);
        }
        self.strip_ending(&mut path);
        let mut separator = '?';
        for name in &self.query {
            let Some((_, value)) = url.query_pairs().find(|(found, _)| found == name) else { continue };
            // A stored parameter should be a page's number or section; a value that seems to identify a person is masked there, too.
            let value = clean_value(&value);
            path.push(separator);
            path.push_str(name);
            path.push('=');
            path.extend(utf8_percent_encode(&value, IN_A_QUERY));
            separator = '&';
        }
        if path.len() > MAX_PATH_BYTES {
            path.truncate(path.floor_char_boundary(MAX_PATH_BYTES));
        }
        path
    }

    /// Removes the endings that the project's host serves the same page without.
    fn strip_ending(&self, path: &mut String) {
        if self.strip_html
            && let Some(stem) = path.strip_suffix(".html").or_else(|| path.strip_suffix(".htm"))
            && !stem.ends_with('/')
        {
            path.truncate(stem.len());
        }
        if self.strip_trailing_slash && path.len() > 1 && path.ends_with('/') {
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(mask: &[&str], keep: &[&str], query: &[&str]) -> PathRules {
        let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        PathRules {
            mask: patterns(mask),
            keep: patterns(keep),
            query: query.iter().map(|&n| n.to_owned()).collect(),
            ..PathRules::default()
        }
    }

    fn clean(rules: &PathRules, path: &str) -> String {
        rules.clean(&Url::parse(&format!("https://docs.example{path}")).unwrap())
    }

    #[test]
    fn a_project_masks_keeps_and_tells_pages_apart() {
        let rules = rules(&["/users/*/settings", "/download/**"], &["/commit/*"], &["page", "q"]);
        for (path, stored) in [
            ("/users/jane/settings", "/users/:masked/settings"),
            ("/users/jane/settings/", "/users/:masked/settings/"),
            ("/users/jane", "/users/jane"),
            ("/users/jane/settings/x", "/users/jane/settings/x"),
            ("/download/a/b/c.zip", "/download/:masked"),
            ("/download", "/download"),
            // In this path the apparent id is not one; in other paths it is.
            ("/commit/0123456789abcdef0123456789abcdef01234567", "/commit/0123456789abcdef0123456789abcdef01234567"),
            ("/other/0123456789abcdef0123456789abcdef01234567", "/other/:id"),
            ("/list?x=1&page=2&secret=y", "/list?page=2"),
            ("/list?q=a%26b&page=2", "/list?page=2&q=a%26b"),
            ("/list?page=jane%40example.org", "/list?page=:email"),
            ("/list", "/list"),
        ] {
            assert_eq!(clean(&rules, path), stored, "{path}");
        }
        let none = PathRules::default();
        assert_eq!(clean(&none, "/list?page=2"), "/list", "nothing of a query without a rule");
    }

    #[test]
    fn a_project_says_which_endings_are_one_page() {
        let strip = |strip_trailing_slash: bool, strip_html: bool| PathRules {
            strip_trailing_slash,
            strip_html,
            ..rules(&["/users/*/"], &[], &["page"])
        };
        for (path, neither, slash, html, both) in [
            ("/", "/", "/", "/", "/"),
            ("/index.html", "/", "/", "/", "/"),
            ("/a/index.html", "/a/", "/a", "/a/", "/a"),
            ("/a/", "/a/", "/a", "/a/", "/a"),
            ("/a.html", "/a.html", "/a.html", "/a", "/a"),
            ("/a.htm?page=2", "/a.htm?page=2", "/a.htm?page=2", "/a?page=2", "/a?page=2"),
            ("/a/.html", "/a/.html", "/a/.html", "/a/.html", "/a/.html"),
            ("/a.html/", "/a.html/", "/a.html", "/a.html/", "/a.html"),
            ("/users/jane/", "/users/:masked/", "/users/:masked", "/users/:masked/", "/users/:masked"),
        ] {
            let stored = [(false, false), (true, false), (false, true), (true, true)]
                .map(|(slash, html)| clean(&strip(slash, html), path));
            assert_eq!(stored, [neither, slash, html, both], "{path}");
        }
    }

    #[test]
    fn patterns_match_paths_as_they_are_stored() {
        let rules = rules(&["/users/*/index.html"], &["/index.html", "/cafe\u{301}/*"], &[]);
        for (path, stored) in [
            ("/users/jane/index.html", "/users/:masked/"),
            ("/users/jane/", "/users/:masked/"),
            ("/users/jane/x", "/users/jane/x"),
            ("/index.html", "/"),
            ("/caf%C3%A9/123456789", "/café/123456789"),
        ] {
            assert_eq!(clean(&rules, path), stored, "{path}");
        }
    }

    #[test]
    fn patterns_read_back_and_others_are_refused() {
        for text in ["/users/*", "/a/**", "/*/b", "/a/b"] {
            assert_eq!(text.parse::<PathPattern>().unwrap().to_string(), text);
        }
        for wrong in ["", "/", "users/*", "/a/**/b", "/a*", "/a?b", "/a#b", "/a\n"] {
            assert_eq!(wrong.parse::<PathPattern>(), Err(InvalidPathPattern), "{wrong:?}");
        }
    }
}
