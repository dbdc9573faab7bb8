//! Parameters of a request. They are parsed strictly: a misspelt one is an error, not ignored.

use crate::period::{InvalidSpan, Span};
use crate::problem::Problem;
use crate::report::breakdowns::{InvalidValueSort, ValueCursor};
use crate::report::pages::{DEFAULT_LIMIT, InvalidSort, MAX_LIMIT, MAX_PREFIX};
use crate::report::{Cursor, PagesRequest, Sort, ValueSort, ValuesRequest};
use percent_encoding::percent_decode_str;
use schemas::ProjectSlug;

/// Names that any route accepts, so that a problem can name the parameter at fault without repeating the request's text.
const NAMES: [&str; 9] =
    ["bom", "limit", "after", "prefix", "status", "sort", "pages_limit", "pages_after", "pages_status"];

/// The parameters of one request, each at most once.
pub(crate) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Parses `query`, which may contain `known` parameters only.
    pub(crate) fn of(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(&name) = known.iter().find(|known| decoded(name).as_deref() == Some(**known)) else {
                return Err(unknown(name, known));
            };
            if found.iter().any(|(other, _)| *other == name) {
                return Err(Problem::invalid_field(name, "expected this parameter once"));
            }
            let value =
                decoded(value).ok_or_else(|| Problem::invalid_field(name, "expected UTF-8, percent-encoded"))?;
            found.push((name, value));
        }
        Ok(Parameters(found))
    }

    /// A parameter as it was sent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    /// `limit`, or the default.
    pub(crate) fn limit(&self, name: &'static str) -> Result<usize, Problem> {
        let Some(text) = self.get(name) else { return Ok(DEFAULT_LIMIT) };
        number(text, 1..=MAX_LIMIT)
            .ok_or_else(|| Problem::invalid_field(name, format!("expected a number from 1 to {MAX_LIMIT}")))
    }

    fn status(&self, name: &'static str) -> Result<Option<u16>, Problem> {
        let status = self.get(name).map(|text| {
            number(text, 100..=599)
                .ok_or_else(|| Problem::invalid_field(name, "expected an HTTP status from 100 to 599"))
        });
        status.transpose()
    }

    fn prefix(&self) -> Result<Option<String>, Problem> {
        let fits = |text: &str| text.starts_with('/') && text.len() <= MAX_PREFIX && !text.contains('\0');
        let expected = || {
            Problem::invalid_field(
                "prefix",
                format!("expected the beginning of a path: a slash first, {MAX_PREFIX} bytes at most"),
            )
        };
        match self.get("prefix") {
            None | Some("") => Ok(None),
            Some(text) if fits(text) => Ok(Some(text.to_owned())),
            Some(_) => Err(expected()),
        }
    }

    /// A list of pages: `limit`, `after`, `prefix`, `status`, `sort`.
    pub(crate) fn pages(&self) -> Result<PagesRequest, Problem> {
        let sort = match self.get("sort") {
            Some(text) => {
                text.parse().map_err(|error: InvalidSort| Problem::invalid_field("sort", error.to_string()))?
            }
            None => Sort::default(),
        };
        Ok(PagesRequest {
            limit: self.limit("limit")?,
            after: self.cursor("after", sort)?,
            status: self.status("status")?,
            prefix: self.prefix()?,
            sort,
        })
    }

    /// The pages of a whole report: `pages_limit`, `pages_after`, `pages_status`.
    pub(crate) fn pages_of_report(&self) -> Result<PagesRequest, Problem> {
        Ok(PagesRequest {
            limit: self.limit("pages_limit")?,
            after: self.cursor("pages_after", Sort::Views)?,
            status: self.status("pages_status")?,
            ..PagesRequest::default()
        })
    }

    fn cursor(&self, name: &'static str, sort: Sort) -> Result<Option<Cursor>, Problem> {
        let cursor = self.get(name).map(|text| Cursor::of(text, sort));
        cursor.transpose().map_err(|error| Problem::invalid_field(name, error.to_string()))
    }

    /// A list of values: `limit`, `after`, `prefix`, `sort`.
    pub(crate) fn values(&self) -> Result<ValuesRequest, Problem> {
        let sort = self.get("sort").map(str::parse::<ValueSort>).transpose();
        let sort = sort.map_err(|error: InvalidValueSort| Problem::invalid_field("sort", error.to_string()))?;
        let sort = sort.unwrap_or_default();
        let after = self.get("after").map(|text| ValueCursor::of(text, sort)).transpose();
        Ok(ValuesRequest {
            limit: self.limit("limit")?,
            after: after.map_err(|error| Problem::invalid_field("after", error.to_string()))?,
            prefix: self.get("prefix").unwrap_or("").to_owned(),
            sort,
        })
    }

    /// `after` of a list of projects.
    pub(crate) fn after_project(&self) -> Result<Option<ProjectSlug>, Problem> {
        let slug = self.get("after").map(|text| text.parse::<ProjectSlug>());
        slug.transpose()
            .map_err(|_| Problem::invalid_field("after", "expected the value of `next` from an earlier answer"))
    }
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let expected = match known {
        [] => "expected no parameters here".to_owned(),
        known => format!("expected none but {}", known.join(", ")),
    };
    // An unknown name can be any text and is not repeated.
    let name = decoded(name);
    let field = NAMES.into_iter().find(|ours| name.as_deref() == Some(*ours)).unwrap_or("query");
    Problem::invalid_field(field, expected)
}

fn decoded(text: &str) -> Option<String> {
    // Forms encode a space as `+`.
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned())
}

fn number<T: std::str::FromStr + PartialOrd>(text: &str, within: std::ops::RangeInclusive<T>) -> Option<T> {
    // `parse` would accept a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && within.contains(number))
}

/// A project in a path. Text that is not a slug is an unknown project: the response is the same.
pub(crate) fn project(text: &str) -> Result<ProjectSlug, Problem> {
    text.parse().map_err(|_| Problem::unknown_project())
}

/// Months in a path.
pub(crate) fn span(text: &str) -> Result<Span, Problem> {
    text.parse().map_err(|error: InvalidSpan| match error {
        InvalidSpan::NotStarted(_) => Problem::month_not_started(error.to_string()),
        _ => Problem::invalid_field("span", error.to_string()),
    })
}
