//! Lists of pages, and the facts of the listed pages.

use super::scope::Scope;
use super::{Asked, ReportStore, StoreError, Threshold, scopes};
use crate::report::facts::{ByPage, ListedPages, PageDetail, PageFacts, Rules, ValueSum};
use crate::report::{Cursor, MaskedPages, PageCounts, PageList, PageTotal, PagesRequest, Sort};
use clickhouse::Row;
use clickhouse::query::Query;
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// Tables of pages: of open months, and of closed ones.
pub(super) const PAGES: [&str; 2] = ["page_daily", "month_closed_page"];
const NOT_FOUND: [&str; 2] = ["not_found_daily", "month_closed_not_found"];

/// Bytes of paths in one query: ClickHouse accepts parameters of at most 128 KiB, and escaping can double a path.
const PATHS_BYTES: usize = 32 * 1024;

/// Views up to which one query reads all pages of a project with their sketches, before it is known which are listed. It replaces three
/// queries. A view adds about four bytes to a sketch, so that is a few megabytes. With so few views, values are seldom many, and are read
/// one by one.
pub(super) const FEW_VIEWS: u64 = 1_000_000;

/// Views up to which the referrers of all pages not found are read concurrently with the pages, before it is known which are listed. Each
/// view may be of another path. If there are more than [`MOST_REFERRERS`] rows, they are dropped, and those of the listed pages are
/// queried.
const FEW_NOT_FOUND: u64 = 200_000;

/// Most rows (a month, a path, a referrer) of that query.
const MOST_REFERRERS: usize = 20_000;

/// Memory that sorting pages by visitors may take in ClickHouse before it goes to disk.
pub(super) const SORT_BYTES: &str = "67108864";

/// A condition on paths: a whole segment, or a parameter's value, is one of the masks that `ingest` writes.
const IS_MASKED: &str = "match(path, '[/=]:(address|email|id|masked|token)(/|&|$)')";

#[derive(Row, Deserialize)]
struct PageChange {
    path: String,
    status: u16,
    total: u64,
    before: u64,
}

/// A page with all its facts: each array has an element for each row of its [`PageDetail`]. If no month is closed, the last two arrays are
/// empty; for a single month the first is. The last two columns are about all pages, and equal in all rows.
#[derive(Row, Deserialize)]
struct FullPage {
    path: String,
    status: u16,
    total: u64,
    before: u64,
    months: Vec<u16>,
    sketches: Vec<ByteBuf>,
    visitors: Vec<u64>,
    errors: Vec<f64>,
    masked: u64,
    masked_views: u64,
}

impl FullPage {
    /// Its rows; the first has all views. Rows are of the month `single`, if there is only one.
    fn details(&mut self, single: Option<u16>) -> impl Iterator<Item = PageDetail> {
        let mut views = Some(self.total);
        let mut closed = std::mem::take(&mut self.visitors).into_iter().zip(std::mem::take(&mut self.errors));
        let months = std::mem::take(&mut self.months).into_iter().chain(single.into_iter().cycle());
        let months = months.zip(std::mem::take(&mut self.sketches));
        let (path, status) = (self.path.clone(), self.status);
        months.map(move |(month, sketch)| {
            let (visitors, visitors_error) = closed.next().unwrap_or_default();
            let (path, views) = (path.clone(), views.take().unwrap_or(0));
            PageDetail { path, status, month, views, sketch: sketch.into_vec(), visitors, visitors_error }
        })
    }
}

/// The lists of a report, and the facts of their pages if the same query returned them.
pub(super) struct FirstPages {
    pub(super) lists: [PageList; 2],
    pub(super) masked: MaskedPages,
    listed: Option<ListedPages>,
    referrers: Option<Vec<ValueSum>>,
}

/// The position of a page in a list by visitors: most first, then by path and status.
type Place = (Reverse<u64>, String, u16);

/// Conditions on path and status. [`bound`] sets their parameter.
pub(super) fn conditions(request: &PagesRequest) -> String {
    let prefix = request.prefix.as_ref().map_or("", |_| " AND startsWith(path, {prefix:String})");
    let status = request.status.map(|status| format!(" AND status = {status}")).unwrap_or_default();
    format!("{prefix}{status}")
}

pub(super) fn bound(query: Query, request: &PagesRequest) -> Query {
    match &request.prefix {
        Some(prefix) => query.param("prefix", prefix.as_str()),
        None => query,
    }
}

impl ReportStore {
    /// The list that `request` asks for. `before` is the month before, for [`Sort::Change`].
    pub(super) async fn page_list(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        request: &PagesRequest,
        rules: Rules,
    ) -> Result<PageList, StoreError> {
        match (request.sort, before) {
            (Sort::Views | Sort::Path, _) => self.pages_by_key(scope, request).await,
            (Sort::Visitors, _) => self.pages_by_visitors(scope, request, rules).await,
            (Sort::Change, Some(before)) => self.pages_by_change(scope, before, request).await,
            (Sort::Change, None) => Ok(PageList::default()),
        }
    }

    /// How many pages there are.
    pub(crate) async fn page_counts(&self, asked: &Asked<'_>) -> Result<PageCounts, StoreError> {
        let known = self.known_of(asked, &[None, None]).await?;
        let (scope, _) = scopes(asked, &[None, None], &known.closed);
        let rows = scope.rows(["path, status"; 2], PAGES, "");
        let sql = format!(
            "SELECT count() AS pages, countIf(status = 404) AS not_found FROM (SELECT DISTINCT path, status FROM ({rows}))"
        );
        self.within("the number of pages", self.client.query(&sql).fetch_one()).await
    }

    /// Rows with a masked path, of a project with so many `views`.
    async fn masked_pages(&self, scope: &Scope<'_>, views: u64) -> Result<MaskedPages, StoreError> {
        if views == 0 {
            return Ok(MaskedPages::default());
        }
        let rows = scope.rows(["path, status, views"; 2], PAGES, &format!(" AND {IS_MASKED}"));
        let sql = format!("SELECT uniqExact(path, status), sum(views) FROM ({rows})");
        let (rows, views) = self.within("pages with a masked path", self.client.query(&sql).fetch_one()).await?;
        Ok(MaskedPages { rows, views })
    }

    async fn pages_by_key(&self, scope: &Scope<'_>, request: &PagesRequest) -> Result<PageList, StoreError> {
        let rows = scope.rows(["path, status, views"; 2], PAGES, &conditions(request));
        let mut sql = format!("SELECT path, status, sum(views) AS total FROM ({rows}) GROUP BY path, status");
        let by_views = request.sort == Sort::Views;
        if request.after.is_some() {
            sql.push_str(if by_views {
                " HAVING (-toInt128(total), path, status) > (-toInt128({figure:UInt64}), {path:String}, {status:UInt16})"
            } else {
                " HAVING (path, status) > ({path:String}, {status:UInt16})"
            });
        }
        sql.push_str(if by_views { " ORDER BY total DESC, path, status" } else { " ORDER BY path, status" });
        sql.push_str(&format!(" LIMIT {}", request.limit + 1));
        let mut query = bound(self.client.query(&sql), request);
        if let Some(Cursor { figure, path, status, .. }) = &request.after {
            query = query.param("figure", figure).param("path", path.as_str()).param("status", status);
        }
        let rows = self.within("pages", query.fetch_all::<PageTotal>()).await?;
        let cursor = |page: &PageTotal| Cursor { sort: request.sort, ..page.by_views() };
        Ok(PageList::from_rows(rows, request.limit, cursor))
    }

    /// The lists of a whole report: `pages`, and the first of those not found; and the rows with a masked path. With limits of 0 both lists
    /// are empty. `views` are the project's views in these months.
    pub(super) async fn first_pages(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        pages: &PagesRequest,
        not_found_limit: usize,
        rules: Rules,
        views: u64,
    ) -> Result<FirstPages, StoreError> {
        let limits = [pages.limit, not_found_limit];
        if limits == [0, 0] {
            let listed = ListedPages { before: before.map(|_| ByPage::new()), ..ListedPages::default() };
            let masked = self.masked_pages(scope, views).await?;
            return Ok(FirstPages {
                lists: Default::default(),
                masked,
                listed: Some(listed),
                referrers: Some(Vec::new()),
            });
        }
        if pages.is_plain() && views <= FEW_VIEWS {
            // It is not known yet which pages not found are listed. With few views, all referrers are seldom many.
            let all = async {
                if views > FEW_NOT_FOUND {
                    Ok(None)
                } else {
                    let all = self.all_referrers(scope, rules).await?;
                    Ok(Some(all).filter(|all| all.len() < MOST_REFERRERS))
                }
            };
            let (mut first, referrers) = tokio::try_join!(self.few_pages(scope, before, limits), all)?;
            first.referrers = referrers;
            return Ok(first);
        }
        let lists = async {
            if pages.is_plain() {
                return self.most_viewed(scope, limits).await;
            }
            let not_found = PagesRequest { status: Some(404), ..PagesRequest::first(not_found_limit) };
            let (pages, not_found) = tokio::try_join!(
                self.page_list(scope, before, pages, rules),
                self.page_list(scope, None, &not_found, rules)
            )?;
            Ok([pages, not_found])
        };
        let (lists, masked) = tokio::try_join!(lists, self.masked_pages(scope, views))?;
        Ok(FirstPages { lists, masked, listed: None, referrers: None })
    }

    /// The first of all pages and the first of those not found, with all their facts, and the rows with a masked path, in one query.
    async fn few_pages(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        limits: [usize; 2],
    ) -> Result<FirstPages, StoreError> {
        const NO_MONTHS: &str = "CAST([], 'Array(UInt16)') AS months";
        const NOW: &str = "path, status, views AS now, toUInt64(0) AS then, toUInt8(1) AS counts";
        const THEN: &str = "path, status, toUInt64(0) AS now, views AS then, toUInt8(0) AS counts, '' AS sketch";
        // Columns of closed months are not collected if no month is closed, as for the running month.
        let (none, of_closed) = if scope.is_open() {
            ("", "CAST([], 'Array(UInt64)') AS visitors, CAST([], 'Array(Float64)') AS errors")
        } else {
            let none = ", toUInt64(0) AS visitors, toFloat64(0) AS visitors_error";
            (none, "groupArrayIf(visitors, counts) AS visitors, groupArrayIf(visitors_error, counts) AS errors")
        };
        let columns = [format!("{NOW}, sketch{none}"), format!("{NOW}, '' AS sketch, visitors, visitors_error")];
        let mut rows = scope.rows([&columns[0], &columns[1]], PAGES, "");
        if let Some(before) = before {
            let then = format!("{THEN}{none}");
            rows = format!("{rows} UNION ALL {}", before.rows([&then; 2], PAGES, ""));
        }
        let most = limits[0].max(limits[1]) + 1;
        // Computed before the rows are limited.
        let masked =
            format!("countIf({IS_MASKED}) OVER () AS masked, sumIf(total, {IS_MASKED}) OVER () AS masked_views");
        let single = scope.single();
        let months = if single.is_some() { NO_MONTHS } else { "groupArrayIf(in_month, counts) AS months" };
        // Nearly all reports of a project's first month need only this simpler query.
        let asked = if scope.single_open().is_some() && before.is_none_or(Scope::is_empty) {
            format!(
                "sum(views) AS total, toUInt64(0) AS before, {NO_MONTHS}, groupArray(sketch) AS sketches, {of_closed}, \
                 {masked} FROM page_daily FINAL {} GROUP BY path, status",
                scope.days()
            )
        } else {
            format!(
                "sum(now) AS total, sum(then) AS before, {months}, groupArrayIf(sketch, counts) AS sketches, {of_closed}, {masked} \
                 FROM ({rows}) GROUP BY path, status HAVING total > 0"
            )
        };
        let sql =
            format!("SELECT path, status, {asked} ORDER BY total DESC, path, status LIMIT {most} BY status = 404");
        let (mut totals, mut masked) = (Vec::new(), MaskedPages::default());
        let mut listed = ListedPages { before: before.map(|_| ByPage::new()), ..ListedPages::default() };
        let take = |mut page: FullPage| {
            masked = MaskedPages { rows: page.masked, views: page.masked_views };
            for detail in page.details(single) {
                listed.add(&detail, scope.is_closed(detail.month))?;
            }
            if let Some(before) = &mut listed.before {
                before.insert((page.path.clone(), page.status), page.before);
            }
            totals.push(PageTotal { path: page.path, status: page.status, total: page.total });
            Ok(())
        };
        self.each("pages", self.client.query(&sql), take).await?;
        Ok(FirstPages { lists: first_of(totals, limits), masked, listed: Some(listed), referrers: None })
    }

    async fn most_viewed(&self, scope: &Scope<'_>, limits: [usize; 2]) -> Result<[PageList; 2], StoreError> {
        let rows = scope.rows(["path, status, views"; 2], PAGES, "");
        let most = limits[0].max(limits[1]) + 1;
        let sql = format!(
            "SELECT path, status, sum(views) AS total FROM ({rows}) GROUP BY path, status \
             ORDER BY total DESC, path, status LIMIT {most} BY status = 404"
        );
        let totals = self.within("pages", self.client.query(&sql).fetch_all::<PageTotal>()).await?;
        Ok(first_of(totals, limits))
    }

    /// By growth since the month before. A page without views in that month has no growth, and comes after all others.
    async fn pages_by_change(
        &self,
        scope: &Scope<'_>,
        before: &Scope<'_>,
        request: &PagesRequest,
    ) -> Result<PageList, StoreError> {
        let conditions = conditions(request);
        let now = scope.rows(["path, status, views AS views_now, toUInt64(0) AS views_then"; 2], PAGES, &conditions);
        let then = before.rows(["path, status, toUInt64(0) AS views_now, views AS views_then"; 2], PAGES, &conditions);
        // A change is never below -1.
        let growth = |total: &str, before: &str| {
            format!("if({before} = 0, -2., (toFloat64({total}) - toFloat64({before})) / toFloat64({before}))")
        };
        let mut sql = format!(
            "SELECT path, status, sum(views_now) AS total, sum(views_then) AS before FROM ({now} UNION ALL {then}) \
             GROUP BY path, status HAVING total > 0"
        );
        if let Some(Cursor { figure, before, .. }) = &request.after {
            let place = growth(&format!("toUInt64({figure})"), &format!("toUInt64({before})"));
            let key = growth("total", "before");
            sql.push_str(&format!(
                " AND (-{key}, -toInt128(total), path, status) > (-{place}, -toInt128({figure}), {{path:String}}, {{status:UInt16}})"
            ));
        }
        sql.push_str(&format!(
            " ORDER BY {} DESC, total DESC, path, status LIMIT {}",
            growth("total", "before"),
            request.limit + 1
        ));
        let mut query = bound(self.client.query(&sql), request);
        if let Some(Cursor { path, status, .. }) = &request.after {
            query = query.param("path", path.as_str()).param("status", status);
        }
        let rows = self.within("pages", query.fetch_all::<PageChange>()).await?;
        let befores: ByPage<u64> = rows.iter().map(|row| ((row.path.clone(), row.status), row.before)).collect();
        let rows = rows.into_iter().map(|row| PageTotal { path: row.path, status: row.status, total: row.total });
        let cursor = |page: &PageTotal| {
            let before = befores.get(&(page.path.clone(), page.status)).copied().unwrap_or(0);
            Cursor { sort: Sort::Change, before, ..page.by_views() }
        };
        Ok(PageList::from_rows(rows.collect(), request.limit, cursor))
    }

    /// By the visitor figures that are shown, so that the order reveals no more than the figures. All pages must be read. They come in
    /// order of their path, so that memory holds only the sketch of one page and the best pages so far.
    async fn pages_by_visitors(
        &self,
        scope: &Scope<'_>,
        request: &PagesRequest,
        rules: Rules,
    ) -> Result<PageList, StoreError> {
        let sql = format!("{} ORDER BY path, status", details(scope, &conditions(request)));
        let query = bound(self.client.query(&sql), request).with_setting("max_bytes_before_external_sort", SORT_BYTES);
        let range = scope.range;
        let after: Option<Place> =
            request.after.as_ref().map(|cursor| (Reverse(cursor.figure), cursor.path.clone(), cursor.status));
        let mut best: BinaryHeap<(Place, u64)> = BinaryHeap::new();
        let mut take = |((path, status), facts): ((String, u16), PageFacts)| {
            let told = facts.visitors(rules, range).shown().map_or(0, |visitors| visitors.estimate);
            let place = (Reverse(told), path, status);
            if after.as_ref().is_none_or(|after| place > *after) {
                best.push((place, facts.views));
                if best.len() > request.limit + 1 {
                    best.pop();
                }
            }
        };
        let mut current: Option<((String, u16), PageFacts)> = None;
        self.each("visitors of pages", query, |row: PageDetail| {
            let same = current.as_ref().is_some_and(|((path, status), _)| *path == row.path && *status == row.status);
            if !same && let Some(done) = current.replace(((row.path.clone(), row.status), PageFacts::default())) {
                take(done);
            }
            match &mut current {
                Some((_, facts)) => facts.add(&row, scope.is_closed(row.month)),
                None => Ok(()),
            }
        })
        .await?;
        if let Some(done) = current {
            take(done);
        }
        let rows = best.into_sorted_vec();
        let told: ByPage<u64> =
            rows.iter().map(|((Reverse(told), path, status), _)| ((path.clone(), *status), *told)).collect();
        let rows = rows.into_iter().map(|((_, path, status), total)| PageTotal { path, status, total });
        let cursor = |page: &PageTotal| {
            let figure = told.get(&(page.path.clone(), page.status)).copied().unwrap_or(0);
            Cursor { sort: Sort::Visitors, figure, ..page.by_views() }
        };
        Ok(PageList::from_rows(rows.collect(), request.limit, cursor))
    }

    /// The facts of the pages in a report's lists.
    pub(super) async fn listed_first(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        first: FirstPages,
        rules: Rules,
    ) -> Result<([PageList; 2], ListedPages), StoreError> {
        let FirstPages { lists, listed, referrers, .. } = first;
        let listed = match listed {
            Some(listed) => {
                let missing = || lists[1].items.iter().map(|page| page.path.clone()).collect();
                let referrers = match referrers {
                    Some(all) => all,
                    None => self.referrers(scope, &missing(), rules).await?,
                };
                ListedPages { referrers, ..listed }
            }
            None => self.listed(scope, before, [&lists[0], &lists[1]], rules).await?,
        };
        Ok((lists, listed))
    }

    /// The facts of the listed pages only: a project may have a hundred thousand others.
    pub(super) async fn listed(
        &self,
        scope: &Scope<'_>,
        before: Option<&Scope<'_>>,
        lists: [&PageList; 2],
        rules: Rules,
    ) -> Result<ListedPages, StoreError> {
        let paths_of = |list: &PageList| list.items.iter().map(|page| page.path.clone()).collect::<BTreeSet<_>>();
        let [all, missing] = lists.map(paths_of);
        let all = all.union(&missing).cloned().collect();
        let mut listed = ListedPages::default();
        let (facts, before, referrers) = tokio::try_join!(
            self.page_facts(scope, &all),
            self.views_before(before, &all),
            self.referrers(scope, &missing, rules)
        )?;
        (listed.facts, listed.before, listed.referrers) = (facts, before, referrers);
        Ok(listed)
    }

    async fn page_facts(&self, scope: &Scope<'_>, paths: &BTreeSet<String>) -> Result<ByPage<PageFacts>, StoreError> {
        let mut listed = ListedPages::default();
        for chunk in chunks(paths) {
            let sql = details(scope, " AND path IN {paths:Array(String)}");
            let query = self.client.query(&sql).param("paths", &chunk);
            self.each("visitors of pages", query, |row: PageDetail| listed.add(&row, scope.is_closed(row.month)))
                .await?;
        }
        Ok(listed.facts)
    }

    async fn views_before(
        &self,
        before: Option<&Scope<'_>>,
        paths: &BTreeSet<String>,
    ) -> Result<Option<ByPage<u64>>, StoreError> {
        let Some(before) = before else { return Ok(None) };
        let mut views = ByPage::new();
        for chunk in chunks(paths) {
            let rows = before.rows(["path, status, views"; 2], PAGES, " AND path IN {paths:Array(String)}");
            let sql = format!("SELECT path, status, sum(views) AS total FROM ({rows}) GROUP BY path, status");
            let query = self.client.query(&sql).param("paths", &chunk);
            let found = self.within("pages of the month before", query.fetch_all::<PageTotal>()).await?;
            views.extend(found.into_iter().map(|page| ((page.path, page.status), page.total)));
        }
        Ok(Some(views))
    }

    async fn referrers(
        &self,
        scope: &Scope<'_>,
        paths: &BTreeSet<String>,
        rules: Rules,
    ) -> Result<Vec<ValueSum>, StoreError> {
        let mut sums = Vec::new();
        for chunk in chunks(paths) {
            sums.extend(self.referrers_where(scope, " AND path IN {paths:Array(String)}", &chunk, rules).await?);
        }
        Ok(sums)
    }

    /// Referrers of all pages not found, at most [`MOST_REFERRERS`] rows.
    async fn all_referrers(&self, scope: &Scope<'_>, rules: Rules) -> Result<Vec<ValueSum>, StoreError> {
        let threshold = Threshold::of_referrers(rules.floor);
        let sql = match scope.single_open() {
            Some(month) => {
                let columns = ["path", "referrer"];
                super::values_one_by_one(scope, month, NOT_FOUND[0], columns, threshold, MOST_REFERRERS)
            }
            None => super::values(&referrers(scope, ""), threshold) + &format!(" LIMIT {MOST_REFERRERS}"),
        };
        self.within("referrers of pages not found", self.client.query(&sql).fetch_all()).await
    }

    async fn referrers_where(
        &self,
        scope: &Scope<'_>,
        more: &str,
        paths: &[&str],
        rules: Rules,
    ) -> Result<Vec<ValueSum>, StoreError> {
        let sql = super::values(&referrers(scope, more), Threshold::of_referrers(rules.floor));
        let query = self.client.query(&sql).param("paths", paths);
        self.within("referrers of pages not found", query.fetch_all()).await
    }
}

/// The first of the most viewed pages and of the most viewed pages not found, as two lists.
fn first_of(totals: Vec<PageTotal>, limits: [usize; 2]) -> [PageList; 2] {
    let not_found = totals.iter().filter(|page| page.status == 404).take(limits[1] + 1).cloned().collect();
    let all = totals.into_iter().take(limits[0] + 1).collect();
    [PageList::by_views(all, limits[0]), PageList::by_views(not_found, limits[1])]
}

/// Rows of pages not found, in the form for [`super::values`].
pub(super) fn referrers(scope: &Scope<'_>, more: &str) -> String {
    scope.rows(["path AS name, referrer AS value, views"; 2], NOT_FOUND, more)
}

/// Rows of [`PageDetail`].
fn details(scope: &Scope<'_>, more: &str) -> String {
    let columns = [
        "path, status, views, sketch, toUInt64(0) AS visitors, toFloat64(0) AS visitors_error",
        "path, status, views, '' AS sketch, visitors, visitors_error",
    ];
    let rows = scope.rows(columns, PAGES, more);
    format!("SELECT path, status, in_month AS month, views, sketch, visitors, visitors_error FROM ({rows})")
}

fn chunks(paths: &BTreeSet<String>) -> Vec<Vec<&str>> {
    let (mut chunk, mut bytes, mut chunks) = (Vec::new(), 0, Vec::new());
    for path in paths {
        if bytes + path.len() > PATHS_BYTES {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += path.len();
        chunk.push(path.as_str());
    }
    chunks.push(chunk);
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}
