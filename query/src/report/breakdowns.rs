//! Views by the values of one dimension, and the hosts of refused beacons: folded month by month, added up then.

use super::dropped::DropCause;
use super::facts::{MonthFacts, ValueSum, apart};
use super::pages::{DEFAULT_LIMIT, hex, plain_number, unhex};
use super::{BreakdownItem, RejectedHost};
use crate::small_cells::Floor;
use schemas::referrer::INTERNAL;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Values of one dimension in a whole report; the dimension's own list has the others.
pub const LISTED_VALUES: usize = 1000;

/// Most first, what adds up others at the end.
fn in_order(items: &mut [BreakdownItem]) {
    items.sort_by(|a, b| a.rest.cmp(&b.rest).then(b.views.cmp(&a.views)).then_with(|| a.value.cmp(&b.value)));
}

/// Folded months, added up. Folding the sum instead would let ranges be subtracted from each other.
pub(super) fn added_up(months: impl Iterator<Item = Vec<BreakdownItem>>) -> Vec<BreakdownItem> {
    let mut sums: BTreeMap<(bool, String), u64> = BTreeMap::new();
    for item in months.flatten() {
        *sums.entry((item.rest, item.value)).or_default() += item.views;
    }
    let mut items: Vec<_> =
        sums.into_iter().map(|((rest, value), views)| BreakdownItem { value, views, rest }).collect();
    in_order(&mut items);
    items
}

/// All groups (dimensions, paths) of `sums`.
pub(super) fn folded<'a>(
    sums: impl IntoIterator<Item = &'a ValueSum>,
    floor: Floor,
) -> BTreeMap<&'a str, Vec<BreakdownItem>> {
    let mut groups: BTreeMap<&'a str, BTreeMap<u16, Vec<&ValueSum>>> = BTreeMap::new();
    for sum in sums {
        groups.entry(&sum.name).or_default().entry(sum.month).or_default().push(sum);
    }
    let of_month = |sums: &Vec<&ValueSum>| {
        let (items, beneath) = apart(sums.iter().copied());
        floor.fold_above(items, beneath)
    };
    groups.into_iter().map(|(group, months)| (group, added_up(months.values().map(of_month)))).collect()
}

/// Referrers of missing pages, by path. Views that came from the project's own pages ([`INTERNAL`]) have no threshold, and no
/// suppressed value is added up with them: where one page is missing, they are its views minus the arrivals at missing pages, and whoever
/// subtracts them from "other" would know a suppressed referrer.
pub(crate) fn referrers_of_missing(sums: &[ValueSum], floor: Floor) -> BTreeMap<&str, Vec<BreakdownItem>> {
    let is_internal = |sum: &&ValueSum| sum.beneath == 0 && sum.value == INTERNAL;
    let mut referrers = folded(sums.iter().filter(|sum| !is_internal(sum)), floor);
    let mut internal: BTreeMap<&str, u64> = BTreeMap::new();
    for sum in sums.iter().filter(is_internal) {
        *internal.entry(&sum.name).or_default() += sum.total;
    }
    for (path, views) in internal {
        let items = referrers.entry(path).or_default();
        items.push(BreakdownItem { value: INTERNAL.to_owned(), views, rest: false });
        in_order(items);
    }
    referrers
}

/// At most `limit` values; the others join what adds up others.
pub(super) fn shortened(mut items: Vec<BreakdownItem>, limit: usize) -> Vec<BreakdownItem> {
    if items.iter().filter(|item| !item.rest).count() > limit {
        let views = items.drain(limit..).map(|item| item.views).sum();
        items.push(BreakdownItem { value: "other".to_owned(), views, rest: true });
    }
    items
}

/// The order of a list of values. What adds up others is last in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueSort {
    /// Most views first, equals by value.
    #[default]
    Views,
    /// By value.
    Value,
}

impl ValueSort {
    /// All of them.
    pub const ALL: [ValueSort; 2] = [ValueSort::Views, ValueSort::Value];

    /// As in a request.
    pub const fn name(self) -> &'static str {
        match self {
            ValueSort::Views => "views",
            ValueSort::Value => "value",
        }
    }
}

/// Text that is no [`ValueSort`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected views or value")]
pub struct InvalidValueSort;

impl FromStr for ValueSort {
    type Err = InvalidValueSort;

    fn from_str(text: &str) -> Result<Self, InvalidValueSort> {
        ValueSort::ALL.into_iter().find(|sort| sort.name() == text).ok_or(InvalidValueSort)
    }
}

/// Which values to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuesRequest {
    /// At most so many.
    pub limit: usize,
    /// Only those after this one. A cursor of another order is the caller's mistake: see [`ValueCursor::of`].
    pub after: Option<ValueCursor>,
    /// Only values that begin with this, of those that are told by themselves; empty for all.
    pub prefix: String,
    /// In which order.
    pub sort: ValueSort,
}

impl Default for ValuesRequest {
    fn default() -> Self {
        ValuesRequest { limit: DEFAULT_LIMIT, after: None, prefix: String::new(), sort: ValueSort::Views }
    }
}

/// Where a list of values goes on: after this one, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueCursor {
    sort: ValueSort,
    views: u64,
    value: String,
}

/// Text that is no cursor of a list of values.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected the value of `next` from an earlier answer in the same order")]
pub struct InvalidValueCursor;

impl ValueCursor {
    /// Opaque text, safe in a query string.
    pub fn encode(&self) -> String {
        hex(&format!("{}.{}.{}", self.sort.name(), self.views, self.value))
    }

    /// Reads what [`ValueCursor::encode`] wrote for a list in this order.
    pub fn of(text: &str, expected: ValueSort) -> Result<Self, InvalidValueCursor> {
        let read = || {
            let plain = unhex(text)?;
            let mut parts = plain.splitn(3, '.');
            Some(ValueCursor {
                sort: parts.next()?.parse().ok()?,
                views: plain_number(parts.next()?)?,
                value: parts.next()?.to_owned(),
            })
        };
        read().filter(|cursor| cursor.sort == expected).ok_or(InvalidValueCursor)
    }
}

/// Of values by views those that `request` asks for, and where they go on. What adds up others begins with nothing: it is left out
/// where a prefix is asked for.
pub(crate) fn page_of(
    mut items: Vec<BreakdownItem>,
    request: &ValuesRequest,
) -> (Vec<BreakdownItem>, Option<ValueCursor>) {
    let ValuesRequest { limit, after, prefix, sort } = request;
    if *sort == ValueSort::Value {
        items.sort_by(|a, b| (a.rest, &a.value).cmp(&(b.rest, &b.value)));
    }
    let begins = |item: &BreakdownItem| prefix.is_empty() || (!item.rest && item.value.starts_with(prefix.as_str()));
    let is_after = |item: &BreakdownItem| {
        after.as_ref().is_none_or(|after| {
            let further = item.value > after.value;
            item.rest
                || match sort {
                    ValueSort::Views => item.views < after.views || (item.views == after.views && further),
                    ValueSort::Value => further,
                }
        })
    };
    let mut left = items.into_iter().filter(|item| begins(item) && is_after(item));
    let page: Vec<_> = left.by_ref().take(*limit).collect();
    let next = page.last().filter(|_| left.next().is_some());
    let next = next.map(|last| ValueCursor { sort: *sort, views: last.views, value: last.value.clone() });
    (page, next)
}

/// Rows of refused beacons, without those of dropped facts: these views were counted.
fn refusals(months: &[MonthFacts]) -> impl Iterator<Item = (&(String, String), &u64)> {
    months.iter().flat_map(of_month)
}

fn of_month(month: &MonthFacts) -> impl Iterator<Item = (&(String, String), &u64)> {
    // A host that gave its name up has a row of 0.
    let refused =
        |((reason, _), beacons): &(&(String, String), &u64)| **beacons > 0 && DropCause::of_reason(reason).is_none();
    month.rejections.iter().filter(refused)
}

/// Beacons refused in all months, by reason.
pub(super) fn rejected(months: &[MonthFacts]) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for ((reason, _), beacons) in refusals(months) {
        *sums.entry(reason.clone()).or_default() += beacons;
    }
    sums
}

/// Hosts of refused beacons. A host can be one reader's own, so they are folded as values of a dimension are.
pub(super) fn rejected_hosts(months: &[MonthFacts], floor: Floor) -> Vec<RejectedHost> {
    let mut reasons: BTreeMap<&str, Vec<Vec<BreakdownItem>>> = BTreeMap::new();
    for month in months {
        let mut by_reason: BTreeMap<&str, Vec<BreakdownItem>> = BTreeMap::new();
        for ((reason, host), &beacons) in of_month(month) {
            let item = BreakdownItem { value: host.clone(), views: beacons, rest: false };
            by_reason.entry(reason).or_default().push(item);
        }
        for (reason, hosts) in by_reason {
            // Where no page's host is at fault, none was noted.
            if hosts.iter().any(|host| !host.value.is_empty()) {
                reasons.entry(reason).or_default().push(floor.fold(hosts));
            }
        }
    }
    let mut hosts: Vec<RejectedHost> = reasons
        .into_iter()
        .flat_map(|(reason, months)| added_up(months.into_iter()).into_iter().map(move |item| (reason, item)))
        .map(|(reason, BreakdownItem { value, views, rest })| {
            let host = if rest { String::new() } else { value };
            RejectedHost { reason: reason.to_owned(), host, beacons: views, rest }
        })
        .collect();
    hosts.sort_by(|a, b| (a.rest, b.beacons, &a.reason, &a.host).cmp(&(b.rest, a.beacons, &b.reason, &b.host)));
    hosts
}
