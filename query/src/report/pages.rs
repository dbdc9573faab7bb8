//! Which pages a report lists, in which order, and in pages of the list.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

/// Default number of pages in a list.
pub const DEFAULT_LIMIT: usize = 100;

/// Most pages in one answer; the cursor leads to the others.
pub const MAX_LIMIT: usize = 1000;

/// Longest prefix of paths, in bytes: no path is longer.
pub const MAX_PREFIX: usize = 1024;

/// The order of a list of pages. Equals are sorted by path and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Most views first.
    #[default]
    Views,
    /// Most visitors first. Withheld figures count as equal, and come last.
    Visitors,
    /// By path.
    Path,
    /// Largest growth since the month before first, as a fraction; pages without views in the month before are last.
    Change,
}

impl Sort {
    /// All of them.
    pub const ALL: [Sort; 4] = [Sort::Views, Sort::Visitors, Sort::Path, Sort::Change];

    /// The name in a request.
    pub const fn name(self) -> &'static str {
        match self {
            Sort::Views => "views",
            Sort::Visitors => "visitors",
            Sort::Path => "path",
            Sort::Change => "change",
        }
    }
}

/// The text is not a [`Sort`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected views, visitors, path or change")]
pub struct InvalidSort;

impl FromStr for Sort {
    type Err = InvalidSort;

    fn from_str(text: &str) -> Result<Self, InvalidSort> {
        Sort::ALL.into_iter().find(|sort| sort.name() == text).ok_or(InvalidSort)
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Selects the pages to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesRequest {
    /// Most pages, 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// Only pages after this one. A cursor of another order is the caller's mistake: see [`Cursor::of`].
    pub after: Option<Cursor>,
    /// Only pages with this HTTP status.
    pub status: Option<u16>,
    /// Only paths that start with this.
    pub prefix: Option<String>,
    /// In which order.
    pub sort: Sort,
}

impl Default for PagesRequest {
    fn default() -> Self {
        PagesRequest { limit: DEFAULT_LIMIT, after: None, status: None, prefix: None, sort: Sort::Views }
    }
}

impl PagesRequest {
    /// The first `limit` of all pages, by views.
    pub fn first(limit: usize) -> Self {
        PagesRequest { limit, ..PagesRequest::default() }
    }

    /// Whether it requests the start of the list by views, without conditions.
    pub(crate) fn is_plain(&self) -> bool {
        *self == PagesRequest::first(self.limit)
    }
}

/// How many pages there are, if a list shows only some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct PageCounts {
    /// Pages of every status: pairs of path and status.
    pub pages: u64,
    /// Of these, pages not found.
    pub not_found: u64,
}

/// A path's views in the period, over all windows and streams.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct PageTotal {
    /// Cleaned path.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// Page views.
    pub total: u64,
}

/// Position in a list of pages: after this page, in the list's order. While a month is running, a page can gain views between two requests,
/// and then appear twice or not at all. In a past month it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The list's order.
    pub sort: Sort,
    /// For [`Sort::Visitors`] the figure that is shown (0 if it is withheld), else the page's views.
    pub figure: u64,
    /// For [`Sort::Change`] the page's views in the month before, else 0.
    pub before: u64,
    /// Cleaned path.
    pub path: String,
    /// HTTP status.
    pub status: u16,
}

/// The text is not a cursor of this list.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidCursor {
    /// Not a cursor of this service.
    #[error("expected the value of `next` from an earlier answer")]
    NotOurs,
    /// A cursor of the same list in another order.
    #[error("this is a cursor of sort={found}; expected one of sort={expected}, or none")]
    OtherSort {
        /// The cursor's order.
        found: Sort,
        /// The request's.
        expected: Sort,
    },
}

/// Bytes as hexadecimal digits: safe in a query string, whatever a path contains.
pub(crate) fn hex(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Decodes what [`hex`] wrote.
pub(crate) fn unhex(text: &str) -> Option<String> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    String::from_utf8(digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>()?).ok()
}

/// A whole number in its canonical form: no sign, no leading zero. So each cursor has exactly one text.
pub(crate) fn plain_number<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|number| number.to_string() == text)
}

impl Cursor {
    /// Opaque text, safe in a query string.
    pub fn encode(&self) -> String {
        let Cursor { sort, figure, before, path, status } = self;
        hex(&format!("{sort}.{figure}.{before}.{status}.{path}"))
    }

    /// Parses what [`Cursor::encode`] wrote.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let read = || {
            let plain = unhex(text)?;
            let mut parts = plain.splitn(5, '.');
            Some(Cursor {
                sort: parts.next()?.parse().ok()?,
                figure: plain_number(parts.next()?)?,
                before: plain_number(parts.next()?)?,
                status: plain_number(parts.next()?)?,
                path: parts.next()?.to_owned(),
            })
        };
        read().ok_or(InvalidCursor::NotOurs)
    }

    /// Parses a cursor of a list in this order.
    pub fn of(text: &str, expected: Sort) -> Result<Self, InvalidCursor> {
        let cursor = Cursor::decode(text)?;
        if cursor.sort == expected {
            Ok(cursor)
        } else {
            Err(InvalidCursor::OtherSort { found: cursor.sort, expected })
        }
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

/// One page of the list, as ClickHouse returned it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageList {
    /// In the order of the list.
    pub items: Vec<PageTotal>,
    /// Cursor of the next page, if there is one.
    pub next: Option<Cursor>,
}

impl PageList {
    /// From up to `limit + 1` rows in order: the extra row only shows that the list has a next page. `cursor` returns the position of a
    /// row.
    pub fn from_rows(mut rows: Vec<PageTotal>, limit: usize, cursor: impl Fn(&PageTotal) -> Cursor) -> Self {
        let goes_on = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| goes_on).map(cursor);
        PageList { items: rows, next }
    }

    /// By views.
    pub fn by_views(rows: Vec<PageTotal>, limit: usize) -> Self {
        PageList::from_rows(rows, limit, PageTotal::by_views)
    }
}

impl PageTotal {
    /// Its position in a list by views.
    pub fn by_views(&self) -> Cursor {
        Cursor { sort: Sort::Views, figure: self.total, before: 0, path: self.path.clone(), status: self.status }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, total: u64) -> PageTotal {
        PageTotal { path: path.to_owned(), status: 200, total }
    }

    #[test]
    fn cursors_read_back_whatever_the_path() {
        for path in ["/", "/a.b.c", "/<script>", "/ünï/漢字", "/a&pages_after=b#c", ""] {
            for sort in Sort::ALL {
                let cursor = Cursor { sort, figure: u64::MAX, before: 7, path: path.to_owned(), status: 404 };
                assert!(cursor.encode().bytes().all(|b| b.is_ascii_hexdigit()));
                assert_eq!(Cursor::of(&cursor.encode(), sort).unwrap(), cursor);
            }
        }
        let odd = ["views.1.0.200", "views.01.0.200./", "views.+1.0.200./", "views.1.0.70000./", "size.1.0.200./"];
        for wrong in ["", "0", "zz", "ff", "31", "é", "+1+1"].map(str::to_owned).into_iter().chain(odd.map(hex)) {
            assert_eq!(Cursor::decode(&wrong), Err(InvalidCursor::NotOurs), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_order() {
        let cursor = page("/a", 3).by_views().encode();
        let error = Cursor::of(&cursor, Sort::Path).unwrap_err();
        assert_eq!(error, InvalidCursor::OtherSort { found: Sort::Views, expected: Sort::Path });
        assert_eq!(error.to_string(), "this is a cursor of sort=views; expected one of sort=path, or none");
    }

    #[test]
    fn a_list_ends_exactly_where_it_ends() {
        let rows = vec![page("/a", 3), page("/b", 2), page("/c", 1)];
        let whole = PageList::by_views(rows.clone(), 3);
        assert_eq!((whole.items.len(), whole.next), (3, None));
        let part = PageList::by_views(rows, 2);
        assert_eq!(part.items.len(), 2);
        assert_eq!(part.next, Some(page("/b", 2).by_views()));
        assert_eq!(PageList::by_views(Vec::new(), 5), PageList::default());
    }
}
