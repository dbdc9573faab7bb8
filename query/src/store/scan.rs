//! Reads a list of pages to its end with one query: ClickHouse adds up each page and sorts the pages, and this process holds one page at a
//! time.
//!
//! ClickHouse answers a query from the parts that exist when the query starts. A close that removes rows afterwards does not affect it,
//! however long the rows take to arrive. So only the start has a time limit because of closes (`READ_WITHIN`): from reading which months
//! are closed to the first row.

use super::pages::{PAGES, SORT_BYTES, bound, conditions, referrers};
use super::scope::Scope;
use super::{Asked, ReportStore, StoreError, scopes, values};
use crate::period::Period;
use crate::report::facts::{ListedPages, PageDetail, PageFacts, ValueSum};
use crate::report::{PageFigures, PageList, PageTotal, PagesRequest, Rules, Sort, make};
use clickhouse::Row;
use clickhouse::query::RowCursor;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;
use std::time::Duration;

/// Memory that adding up pages may take in ClickHouse before it goes to disk.
const GROUP_BYTES: &str = "268435456";

/// Referrers of pages not found, as an array of `ValueSum`s without their names.
const REFERRERS: &str = "Array(Tuple(UInt16, String, UInt64, UInt64, UInt64))";

/// A page with all its facts. Each array but the last has an element for each row of the page.
#[derive(Row, Deserialize)]
struct ScannedPage {
    path: String,
    status: u16,
    total: u64,
    before: u64,
    months: Vec<u16>,
    sketches: Vec<ByteBuf>,
    visitors: Vec<u64>,
    errors: Vec<f64>,
    /// (month, value, total, beneath, largest).
    referrers: Vec<(u16, String, u64, u64, u64)>,
}

/// The rest of a list of pages, in order.
pub(crate) struct PageScan {
    rows: RowCursor<ScannedPage>,
    first: Option<ScannedPage>,
    closed_months: BTreeSet<u16>,
    /// For a single month.
    period: Option<Period>,
    has_before: bool,
    rules: Rules,
    timeout: Duration,
}

impl PageScan {
    /// The next page; none at the end.
    ///
    /// # Errors
    /// ClickHouse does not answer in time or fails, or a stored sketch does not decode.
    pub(crate) async fn next(&mut self) -> Result<Option<PageFigures>, StoreError> {
        let row = match self.first.take() {
            Some(first) => Some(first),
            None => next_row(&mut self.rows, self.timeout).await?,
        };
        row.map(|row| self.figures(row)).transpose()
    }

    fn figures(&self, row: ScannedPage) -> Result<PageFigures, StoreError> {
        let mut facts = PageFacts::default();
        let closed = row.visitors.into_iter().zip(row.errors).chain(std::iter::repeat((0, 0.0)));
        for ((month, sketch), (visitors, visitors_error)) in row.months.into_iter().zip(row.sketches).zip(closed) {
            // The total has the views; the row has the path.
            let (path, views, sketch) = (String::new(), 0, sketch.into_vec());
            let detail = PageDetail { path, status: row.status, month, views, sketch, visitors, visitors_error };
            facts
                .add(&detail, self.closed_months.contains(&month))
                .map_err(|source| StoreError::Sketch { what: "visitors of pages", source })?;
        }
        let key = (row.path.clone(), row.status);
        let named = |(month, value, total, beneath, largest)| ValueSum {
            month,
            name: row.path.clone(),
            value,
            total,
            beneath,
            largest,
        };
        let listed = ListedPages {
            facts: [(key.clone(), facts)].into(),
            before: self.has_before.then(|| [(key, row.before)].into()),
            referrers: row.referrers.into_iter().map(named).collect(),
        };
        let page = PageTotal { path: row.path, status: row.status, total: row.total };
        let list = PageList { items: vec![page], next: None };
        let list = make::page_list(&list, &listed, self.period, self.rules, true);
        list.items.into_iter().next().ok_or(StoreError::UnknownProject)
    }
}

async fn next_row(rows: &mut RowCursor<ScannedPage>, timeout: Duration) -> Result<Option<ScannedPage>, StoreError> {
    let what = "pages";
    match tokio::time::timeout(timeout, rows.next()).await {
        Ok(row) => row.map_err(|source| StoreError::ClickHouse { what, source }),
        Err(_) => Err(StoreError::Timeout { what, timeout_ms: timeout.as_millis() as u64 }),
    }
}

impl ReportStore {
    /// Starts to read the list of pages that `request` describes, to its end: `limit` and `after` are ignored. The order is any but
    /// [`Sort::Visitors`], which needs the sketches. The first row has arrived when this returns. ClickHouse may take `within` in all.
    ///
    /// # Errors
    /// The project is not known, or ClickHouse does not answer in time.
    pub(crate) async fn scan(
        &self,
        asked: &Asked<'_>,
        request: &PagesRequest,
        with_referrers: bool,
        within: Duration,
    ) -> Result<PageScan, StoreError> {
        let compared = asked.compared();
        let known = self.known_of(asked, &compared).await?;
        let (scope, before) = scopes(asked, &compared, &known.closed);
        let sql = sql(&scope, before.as_ref(), request, with_referrers, asked.rules);
        let seconds = within.as_secs().to_string();
        let settings = [
            ("max_bytes_before_external_sort", SORT_BYTES),
            ("max_bytes_before_external_group_by", GROUP_BYTES),
            ("max_execution_time", &seconds),
            // A slow client must not end the query.
            ("http_send_timeout", &seconds),
            ("cancel_http_readonly_queries_on_client_close", "1"),
        ];
        let query = bound(self.client.query(&sql), request);
        let query = settings.into_iter().fold(query, |query, (name, value)| query.with_setting(name, value));
        let mut rows =
            query.fetch::<ScannedPage>().map_err(|source| StoreError::ClickHouse { what: "pages", source })?;
        let first = next_row(&mut rows, self.timeout).await?;
        let closed_months = known.closed.keys().copied().collect();
        let period = asked.span.single().and(asked.periods.first().copied());
        let (rules, timeout) = (asked.rules, self.timeout);
        Ok(PageScan { rows, first, closed_months, period, has_before: before.is_some(), rules, timeout })
    }
}

/// Rows of [`ScannedPage`].
fn sql(
    scope: &Scope<'_>,
    before: Option<&Scope<'_>>,
    request: &PagesRequest,
    with_referrers: bool,
    rules: Rules,
) -> String {
    let conditions = conditions(request);
    let no_referrers = format!("CAST([], '{REFERRERS}') AS referrers");
    // Whether a row belongs to the report's months; other rows belong to the month before, or have referrers only.
    let no_page = |then: &str| {
        format!(
            "path, status, toUInt64(0) AS now, {then} AS then, toUInt8(0) AS counts, '' AS sketch, toUInt64(0) AS visitors, \
             toFloat64(0) AS visitors_error, {no_referrers}"
        )
    };
    let page = "path, status, views AS now, toUInt64(0) AS then, toUInt8(1) AS counts";
    let columns = [
        format!("{page}, sketch, toUInt64(0) AS visitors, toFloat64(0) AS visitors_error, {no_referrers}"),
        format!("{page}, '' AS sketch, visitors, visitors_error, {no_referrers}"),
    ];
    let mut rows = scope.rows([&columns[0], &columns[1]], PAGES, &conditions);
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        let columns = no_page("views");
        rows.push_str(&format!(" UNION ALL {}", before.rows([&columns; 2], PAGES, &conditions)));
    }
    if with_referrers {
        let more = request.prefix.as_ref().map_or("", |_| " AND startsWith(path, {prefix:String})");
        rows.push_str(&format!(
            " UNION ALL SELECT toUInt16(0) AS in_month, name AS path, toUInt16(404) AS status, toUInt64(0) AS now, \
             toUInt64(0) AS then, toUInt8(0) AS counts, '' AS sketch, toUInt64(0) AS visitors, toFloat64(0) AS visitors_error, \
             groupArray((month, value, total, beneath, largest)) AS referrers FROM ({}) GROUP BY name",
            values(&referrers(scope, more), super::Threshold::of_referrers(rules.floor))
        ));
    }
    // Columns of closed months are not collected if no month is closed.
    let of_closed = if scope.is_open() {
        "CAST([], 'Array(UInt64)') AS visitors, CAST([], 'Array(Float64)') AS errors"
    } else {
        "groupArrayIf(visitors, counts) AS visitors, groupArrayIf(visitors_error, counts) AS errors"
    };
    let of_referrers =
        if with_referrers { "groupArrayArray(referrers) AS referrers".to_owned() } else { no_referrers.clone() };
    // A change is never below -1: new pages come last.
    let order = match request.sort {
        Sort::Path => "path, status",
        Sort::Change => {
            "if(before = 0, -2., (toFloat64(total) - toFloat64(before)) / toFloat64(before)) DESC, total DESC, path, status"
        }
        Sort::Views | Sort::Visitors => "total DESC, path, status",
    };
    format!(
        "SELECT path, status, sum(now) AS total, sum(then) AS before, groupArrayIf(in_month, counts) AS months, \
         groupArrayIf(sketch, counts) AS sketches, {of_closed}, {of_referrers} FROM ({rows}) GROUP BY path, status \
         HAVING total > 0 ORDER BY {order}"
    )
}
