//! Names of a project in other counters: their scripts send that name instead of a slug.

use schemas::proto::Source;
use std::fmt;
use std::str::FromStr;

/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A project's name in another counter, as `umami:6f9619ff-8b86-4011-b42d-00cf4fc964ff`.
///
/// ```
/// use headcount_ingest::aliases::Alias;
/// let alias: Alias = "plausible:Docs.Example".parse()?;
/// assert_eq!(alias.to_string(), "plausible:docs.example");
/// # Ok::<(), headcount_ingest::aliases::InvalidAlias>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Alias {
    source: Source,
    /// In lower case.
    name: String,
}

/// Text that is not an alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAlias {
    /// Not a counter whose scripts are supported.
    #[error("expected umami, plausible, goatcounter or readthedocs before the name")]
    Counter,
    /// Not a UUID.
    #[error("expected the website's UUID, such as 6f9619ff-8b86-4011-b42d-00cf4fc964ff")]
    Uuid,
    /// Not a name.
    #[error("expected 1 to {NAME_BYTES_MAX} bytes without spaces, commas and slashes")]
    Name,
}

impl Alias {
    /// The name `text` in a counter.
    ///
    /// # Errors
    /// The counter has no such names.
    pub fn new(source: Source, text: &str) -> Result<Self, InvalidAlias> {
        let is_name = !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '/'));
        match source {
            Source::Umami if !is_uuid(text) => Err(InvalidAlias::Uuid),
            Source::Umami | Source::Plausible | Source::Goatcounter | Source::Readthedocs if is_name => {
                Ok(Alias { source, name: text.to_lowercase() })
            }
            Source::Umami | Source::Plausible | Source::Goatcounter | Source::Readthedocs => Err(InvalidAlias::Name),
            Source::Beacon | Source::Log | Source::Import => Err(InvalidAlias::Counter),
        }
    }
}

impl FromStr for Alias {
    type Err = InvalidAlias;

    fn from_str(text: &str) -> Result<Self, InvalidAlias> {
        let (counter, name) = text.split_once(':').ok_or(InvalidAlias::Counter)?;
        let source = Source::from_str_name(&counter.to_ascii_uppercase()).ok_or(InvalidAlias::Counter)?;
        Alias::new(source, name)
    }
}

impl fmt::Display for Alias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.as_str_name().to_ascii_lowercase(), self.name)
    }
}

/// Whether the text is a UUID, such as `6f9619ff-8b86-4011-b42d-00cf4fc964ff`.
pub(crate) fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let is_hex = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_read_back_and_its_case_does_not_matter() {
        for (text, expected) in [
            ("umami:6F9619FF-8b86-4011-b42d-00cf4fc964ff", "umami:6f9619ff-8b86-4011-b42d-00cf4fc964ff"),
            ("plausible:example.org", "plausible:example.org"),
            ("goatcounter:my-code", "goatcounter:my-code"),
            ("readthedocs:sphinx", "readthedocs:sphinx"),
        ] {
            let alias: Alias = text.parse().unwrap();
            assert_eq!((alias.to_string().as_str(), alias.to_string().parse()), (expected, Ok(alias)));
        }
        for (text, error) in [
            ("umami:docs", InvalidAlias::Uuid),
            ("plausible:", InvalidAlias::Name),
            ("plausible:a,b", InvalidAlias::Name),
            ("goatcounter:a/b", InvalidAlias::Name),
            ("beacon:a", InvalidAlias::Counter),
            ("matomo:a", InvalidAlias::Counter),
            ("docs", InvalidAlias::Counter),
        ] {
            assert_eq!(text.parse::<Alias>(), Err(error), "{text}");
        }
    }
}
