//! Which pages a report lists: the most viewed, a page of them at a time.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Pages listed where the request does not say.
pub const DEFAULT_LIMIT: usize = 100;

/// Most pages in one answer; the cursor leads to the others.
pub const MAX_LIMIT: usize = 1000;

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

/// Where a list of pages goes on: after this page, in the order (views descending, path, status). While a month is
/// running a page can gain views between two requests and so come twice or not at all; in a past month it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub PageTotal);

/// Text that is no cursor of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected the value of `pages.next` from an earlier answer")]
pub struct InvalidCursor;

impl Cursor {
    /// Opaque text, safe in a query string.
    pub fn encode(&self) -> String {
        let PageTotal { path, status, total } = &self.0;
        format!("{total}.{status}.{path}").bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads what [`Cursor::encode`] wrote.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InvalidCursor);
        }
        let bytes = digits.chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidCursor)?;
            u8::from_str_radix(pair, 16).map_err(|_| InvalidCursor)
        });
        let plain = String::from_utf8(bytes.collect::<Result<_, _>>()?).map_err(|_| InvalidCursor)?;
        let mut parts = plain.splitn(3, '.');
        let mut part = || parts.next().ok_or(InvalidCursor);
        let total = part()?.parse().map_err(|_| InvalidCursor)?;
        let status = part()?.parse().map_err(|_| InvalidCursor)?;
        Ok(Cursor(PageTotal { path: part()?.to_owned(), status, total }))
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode())
    }
}

/// One page of the list, as ClickHouse gave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageList {
    /// In the order of the list.
    pub items: Vec<PageTotal>,
    /// Where it goes on, if it does.
    pub next: Option<Cursor>,
}

impl PageList {
    /// From up to `limit + 1` rows in order: the one more only tells that the list goes on.
    pub fn from_rows(mut rows: Vec<PageTotal>, limit: usize) -> Self {
        let goes_on = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| goes_on).cloned().map(Cursor);
        PageList { items: rows, next }
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
        for path in ["/", "/a.b.c", "/<script>", "/ünï/漢字", "/a&pages_after=b#c"] {
            let cursor = Cursor(PageTotal { path: path.to_owned(), status: 404, total: u64::MAX });
            assert!(cursor.encode().bytes().all(|b| b.is_ascii_hexdigit()));
            assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        }
        for wrong in ["", "0", "zz", "ff", "31", "312e", "312e78", "312e2f", "é", "+1+1"] {
            assert_eq!(Cursor::decode(wrong), Err(InvalidCursor), "{wrong}");
        }
    }

    #[test]
    fn a_list_ends_exactly_where_it_ends() {
        let rows = vec![page("/a", 3), page("/b", 2), page("/c", 1)];
        let whole = PageList::from_rows(rows.clone(), 3);
        assert_eq!((whole.items.len(), whole.next), (3, None));
        let part = PageList::from_rows(rows, 2);
        assert_eq!(part.items.len(), 2);
        assert_eq!(part.next, Some(Cursor(page("/b", 2))));
        assert_eq!(PageList::from_rows(Vec::new(), 5), PageList::default());
    }
}
