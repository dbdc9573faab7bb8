//! Values of settings: each is parsed once, and an error says what is expected.

use axum::http::{HeaderName, Uri};
use schemas::rate_limit::Rate;
use std::fmt::Display;
use std::time::Duration;

/// What a setting expects, for a value that it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    /// `expected` without its first word, such as `a number of seconds`.
    pub fn expected(expected: impl Display) -> Self {
        InvalidValue(format!("expected {expected}"))
    }

    /// A whole sentence, for a value that is well-formed and refused for another reason.
    pub fn because(reason: impl Into<String>) -> Self {
        InvalidValue(reason.into())
    }
}

/// A value, or what was expected instead.
pub type Parsed<T> = Result<T, InvalidValue>;

/// A setting that may be absent. The empty text is absent, so a flag can remove what the file sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Optional<T>(pub Option<T>);

impl Optional<String> {
    /// The text, if there is one.
    pub fn text(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// A text, or none.
pub fn text(text: &str) -> Parsed<Optional<String>> {
    Ok(Optional(Some(text.to_owned()).filter(|text| !text.is_empty())))
}

/// None if the text is empty, else what `parse` makes of it.
pub fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Parsed<T>) -> Parsed<Optional<T>> {
    if text.is_empty() { Ok(Optional(None)) } else { parse(text).map(|value| Optional(Some(value))) }
}

/// The name of a header in lower case, or none.
pub fn header_name(text: &str) -> Parsed<Optional<String>> {
    optional(text, |text| {
        let name = HeaderName::from_bytes(text.as_bytes());
        name.map(|name| name.to_string())
            .map_err(|_| InvalidValue::expected("the name of a header such as cf-ipcountry"))
    })
}

/// A URL of this service without a slash at its end, or none.
pub fn public_url(text: &str) -> Parsed<Optional<String>> {
    optional(text, |text| {
        let is_http = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        let url = text.parse().ok().filter(is_http).filter(|_| !text.contains(['?', '#']));
        match url {
            Some(_) => Ok(text.trim_end_matches('/').to_owned()),
            None => Err(InvalidValue::expected("a URL such as https://stats.example.org, without query and fragment")),
        }
    })
}

/// Several values in one text, separated by commas. A list may be given several times, too.
#[derive(Clone, Debug)]
pub struct Items<T>(Vec<T>);

/// All values of a list.
pub fn all<T: Clone>(lists: &[Items<T>]) -> Vec<T> {
    lists.iter().flat_map(|items| items.0.iter().cloned()).collect()
}

/// Values between commas. Empty ones are left out.
pub fn items<T>(text: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Parsed<Items<T>> {
    let several = text.contains(',');
    let item = |item: &str| {
        parse(item).ok_or_else(|| match several {
            true => InvalidValue(format!("{item:?} is wrong; expected {expected}")),
            false => InvalidValue::expected(expected),
        })
    };
    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(item).collect::<Parsed<_>>().map(Items)
}

/// One value that may have commas. Empty ones are left out.
pub fn item<T>(text: &str, parse: impl Fn(&str) -> Option<T>, expected: &str) -> Parsed<Items<T>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Items(Vec::new()));
    }
    parse(text).map(|value| Items(vec![value])).ok_or_else(|| InvalidValue::expected(expected))
}

fn number<const MIN: u64, const MAX: u64>(text: &str, unit: &str) -> Parsed<u64> {
    let number = text.trim().parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| {
        InvalidValue::expected(match (MIN, MAX) {
            (0, u64::MAX) => format!("a number{unit}"),
            (_, u64::MAX) => format!("a number{unit} of at least {MIN}"),
            _ => format!("a number{unit} from {MIN} to {MAX}"),
        })
    })
}

/// A whole number of something.
pub fn count<T: TryFrom<u64>, const MIN: u64, const MAX: u64>(text: &str) -> Parsed<T> {
    let number = number::<MIN, MAX>(text, "")?;
    T::try_from(number).map_err(|_| InvalidValue::expected("a smaller number"))
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A whole number of bytes.
pub fn bytes<const MIN: u64, const MAX: u64>(text: &str) -> Parsed<Bytes> {
    number::<MIN, MAX>(text, " of bytes").map(Bytes)
}

/// A whole number of mebibytes.
pub fn mebibytes<const MIN: u64, const MAX: u64>(text: &str) -> Parsed<Bytes> {
    number::<MIN, MAX>(text, " of mebibytes").map(|mebibytes| Bytes(mebibytes.saturating_mul(1 << 20)))
}

/// A whole number of milliseconds.
pub fn millis<const MIN: u64, const MAX: u64>(text: &str) -> Parsed<Duration> {
    number::<MIN, MAX>(text, " of milliseconds").map(Duration::from_millis)
}

/// A whole number of seconds.
pub fn seconds<const MIN: u64, const MAX: u64>(text: &str) -> Parsed<Duration> {
    number::<MIN, MAX>(text, " of seconds").map(Duration::from_secs)
}

/// A whole number of minutes.
pub fn minutes<const MIN: u64, const MAX: u64>(text: &str) -> Parsed<Duration> {
    number::<MIN, MAX>(text, " of minutes").map(|minutes| Duration::from_secs(minutes.saturating_mul(60)))
}

/// A whole number of hours.
pub fn hours<const MIN: u64, const MAX: u64>(text: &str) -> Parsed<Duration> {
    number::<MIN, MAX>(text, " of hours").map(|hours| Duration::from_secs(hours.saturating_mul(3600)))
}

/// Events a second. The burst is ten times as many; 0 is no limit.
pub fn rate(text: &str) -> Parsed<Rate> {
    let per_second = text.trim().parse().ok().filter(|rate| (0.0..=1e9).contains(rate));
    let per_second: f64 = per_second.ok_or_else(|| InvalidValue::expected("a number a second, or 0 for no limit"))?;
    Ok(Rate { per_second, burst: per_second * 10.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_units_are_named() {
        let error = |parsed: Parsed<Duration>| parsed.expect_err("refused").to_string();
        assert_eq!(error(hours::<1, 720>("721")), "expected a number of hours from 1 to 720");
        assert_eq!(error(millis::<100, { u64::MAX }>("99")), "expected a number of milliseconds of at least 100");
        assert_eq!(error(seconds::<0, { u64::MAX }>("soon")), "expected a number of seconds");
        assert_eq!(hours::<1, 720>(" 72 "), Ok(Duration::from_secs(72 * 3600)));
        assert_eq!(bytes::<1, 9>("9"), Ok(Bytes(9)));
        assert!(rate("-1").is_err() && rate("nan").is_err() && rate("0").is_ok());
    }

    #[test]
    fn urls_and_header_names_are_checked() {
        let url = |text| public_url(text).map(|url| url.0);
        assert_eq!(url("https://stats.example.org/"), Ok(Some("https://stats.example.org".to_owned())));
        assert_eq!(url("http://[::1]:8017/stats"), Ok(Some("http://[::1]:8017/stats".to_owned())));
        assert_eq!(url(""), Ok(None));
        for wrong in [
            "nonsense",
            "stats.example.org",
            "/stats",
            "ftp://a.example",
            "https://",
            "https://a.example/?x",
            "https://a b",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
        let header = |text| header_name(text).map(|name| name.0);
        assert_eq!(header("CF-IPCountry"), Ok(Some("cf-ipcountry".to_owned())));
        assert_eq!(header(""), Ok(None));
        for wrong in ["x country", "x-country:", "läufer", "x\ny"] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_names_its_wrong_item() {
        let parse = |text| items::<u8>(text, |item| item.parse().ok(), "a number");
        assert_eq!(parse(" 1, 2,,3").unwrap().0, [1, 2, 3]);
        assert_eq!(parse("1,x").unwrap_err().to_string(), "\"x\" is wrong; expected a number");
        assert_eq!(parse("x").unwrap_err().to_string(), "expected a number");
    }
}
