//! Statement 12 of the privacy contract, for the tables of one month: no pair of tables with a threshold recovers a suppressed value.
//!
//! The adversary knows all figures without a threshold (views of each page, visits, visits at missing pages), the rule, the possible
//! values, and two tables. A suppressed value is recovered if it is the same in all worlds that give these tables, but not in all worlds
//! that give the figures without a threshold alone. What those figures reveal is no secret of the tables.

use super::*;
use crate::report::breakdowns::referrers_of_missing;
use crate::report::facts::ValueSum;
use schemas::referrer::INTERNAL;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

const THRESHOLD: u64 = 3;

/// The events of a month. There is one existing page, and all its views are arrivals.
#[derive(Clone, Debug, Default)]
struct World {
    /// Arrivals at the page that exists, by referrer.
    existing: Vec<u64>,
    /// For each missing page: arrivals by referrer, and views from own pages.
    missing: Vec<(Vec<u64>, u64)>,
    /// All views, by a dimension other than the referrer.
    languages: Vec<u64>,
    /// Visitors of the page that exists and of each missing one.
    visitors: Vec<u64>,
}

impl World {
    fn views_by_page(&self) -> Vec<u64> {
        let missing = self.missing.iter().map(|(arrivals, internal)| arrivals.iter().sum::<u64>() + internal);
        std::iter::once(self.existing.iter().sum()).chain(missing).collect()
    }

    fn visits_at_missing_pages(&self) -> u64 {
        self.missing.iter().flat_map(|(arrivals, _)| arrivals).sum()
    }

    /// All values that a threshold must protect.
    fn protected(&self) -> Vec<u64> {
        let missing = self.missing.iter().flat_map(|(arrivals, _)| arrivals);
        self.existing.iter().chain(missing).chain(&self.languages).chain(&self.visitors).copied().collect()
    }
}

/// How referrers are counted and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Design {
    /// The design of reports.
    Disjoint,
    /// The earlier, wrong design: the referrers contain arrivals at missing pages.
    Linked,
    /// Disjoint, but own pages are an ordinary value in the referrers of a missing page; wrong, too.
    OwnPagesSuppressed,
}

type Table = Vec<(String, u64)>;

fn plain(items: Vec<BreakdownItem>) -> Table {
    items.into_iter().map(|item| (item.value, item.views)).collect()
}

fn folded(counts: &[u64]) -> Table {
    let named = counts.iter().enumerate().filter(|(_, views)| **views > 0);
    let items = named.map(|(name, &views)| BreakdownItem { value: format!("r{name}"), views, rest: false });
    plain(Floor(THRESHOLD).fold(items.collect()))
}

/// The referrers of a missing page, by the code of reports.
fn of_missing((arrivals, internal): &(Vec<u64>, u64), design: Design) -> Table {
    if design != Design::Disjoint {
        return folded(&[arrivals.as_slice(), &[*internal]].concat());
    }
    let sum = |value: String, total| ValueSum { month: 0, name: "/gone".into(), value, total, beneath: 0, largest: 0 };
    let named = arrivals.iter().enumerate().map(|(name, &views)| sum(format!("r{name}"), views));
    let all = named.chain([sum(INTERNAL.to_owned(), *internal)]).filter(|sum| sum.total > 0);
    let all: Vec<ValueSum> = all.collect();
    referrers_of_missing(&all, Floor(THRESHOLD)).remove("/gone").map(plain).unwrap_or_default()
}

/// Every table with a threshold: referrers, those of each missing page, the other dimension, visitors of pages.
fn tables(world: &World, design: Design) -> Vec<Table> {
    let mut referrers = world.existing.clone();
    if design == Design::Linked {
        for (sum, at) in referrers.iter_mut().zip(0..) {
            *sum += world.missing.iter().map(|(arrivals, _)| arrivals[at]).sum::<u64>();
        }
    }
    let visitors = world.visitors.iter().enumerate().filter(|(_, visitors)| **visitors >= THRESHOLD);
    let mut tables = vec![folded(&referrers)];
    tables.extend(world.missing.iter().map(|page| of_missing(page, design)));
    tables.push(folded(&world.languages));
    tables.push(visitors.map(|(page, &visitors)| (page.to_string(), visitors)).collect());
    tables
}

/// Figures without a threshold.
fn open_figures(world: &World, design: Design) -> Vec<u64> {
    let mut figures = world.views_by_page();
    figures.push(world.existing.iter().sum::<u64>() + world.visits_at_missing_pages());
    match design {
        Design::Disjoint => figures.extend(world.missing.iter().map(|(_, internal)| internal)),
        Design::OwnPagesSuppressed => figures.push(world.visits_at_missing_pages()),
        Design::Linked => {}
    }
    figures
}

/// For all worlds with one observation: the values of the first world, and whether each is the same in all.
struct Alike<K>(HashMap<K, (Vec<u64>, Vec<bool>)>);

impl<K: Eq + Hash> Alike<K> {
    fn of(observed: impl Iterator<Item = (K, Vec<u64>)>) -> Self {
        let mut alike = HashMap::new();
        for (key, values) in observed {
            let fresh = || (values.clone(), vec![true; values.len()]);
            let (first, certain): &mut (Vec<u64>, Vec<bool>) = alike.entry(key).or_insert_with(fresh);
            for (certain, (first, value)) in certain.iter_mut().zip(first.iter().zip(&values)) {
                *certain &= first == value;
            }
        }
        Alike(alike)
    }
}

/// Pairs of tables that together recover a suppressed value in some world, with one such world.
fn recovered(worlds: &[World], design: Design) -> BTreeMap<(usize, usize), World> {
    let open: Vec<Vec<u64>> = worlds.iter().map(|world| open_figures(world, design)).collect();
    let shown: Vec<Vec<Table>> = worlds.iter().map(|world| tables(world, design)).collect();
    let protected: Vec<Vec<u64>> = worlds.iter().map(World::protected).collect();
    let without = Alike::of(open.iter().zip(protected.iter().cloned()));
    let count = shown.first().map_or(0, Vec::len);
    let mut found = BTreeMap::new();
    for pair in (0..count).flat_map(|first| (first + 1..count).map(move |second| (first, second))) {
        let key = |at: usize| (&open[at], &shown[at][pair.0], &shown[at][pair.1]);
        let with = Alike::of((0..worlds.len()).map(|at| (key(at), protected[at].clone())));
        let gives_away = |at: &usize| {
            let (_, known) = &with.0[&key(*at)];
            let (_, known_anyway) = &without.0[&open[*at]];
            let suppressed = |value: u64| 0 < value && value < THRESHOLD;
            (0..known.len()).any(|cell| known[cell] && !known_anyway[cell] && suppressed(protected[*at][cell]))
        };
        if let Some(at) = (0..worlds.len()).find(gives_away) {
            found.insert(pair, worlds[at].clone());
        }
    }
    found
}

/// Every way to count `cells` values up to `most` times each.
fn counts(cells: u32, most: u64) -> Vec<Vec<u64>> {
    let count = |number: u64| (0..cells).map(|cell| number / (most + 1).pow(cell) % (most + 1)).collect();
    (0..(most + 1).pow(cells)).map(count).collect()
}

/// Worlds of `referrers` hosts with up to `most` arrivals each at the existing page and at each of `missing` others; own pages link to the
/// first of these up to `internal` times.
fn worlds(referrers: u32, most: u64, missing: u32, internal: u64) -> Vec<World> {
    let mut worlds = Vec::new();
    for existing in counts(referrers, most) {
        for arrivals in counts(referrers * missing, most) {
            for internal in 0..=internal {
                let pages = arrivals.chunks(referrers as usize).enumerate();
                let pages = pages.map(|(at, of_page)| (of_page.to_vec(), if at == 0 { internal } else { 0 }));
                worlds.push(World { existing: existing.clone(), missing: pages.collect(), ..World::default() });
            }
        }
    }
    worlds
}

/// The same with every split of views between two languages, and every possible number of visitors of each page.
fn with_languages_and_visitors(worlds: Vec<World>) -> Vec<World> {
    let visitors_of = |views: u64| if views == 0 { 0..=0 } else { 1..=views };
    let of_world = |world: World| {
        let views = world.views_by_page();
        let total: u64 = views.iter().sum();
        let mut all = Vec::new();
        for language in 0..=total {
            for first in visitors_of(views[0]) {
                for second in visitors_of(views[1]) {
                    let languages = vec![language, total - language];
                    all.push(World { languages, visitors: vec![first, second], ..world.clone() });
                }
            }
        }
        all
    };
    worlds.into_iter().flat_map(of_world).collect()
}

#[test]
fn no_pair_of_tables_recovers_a_suppressed_value() {
    for (name, worlds) in [
        ("two referrers", worlds(2, 5, 1, 2)),
        ("three referrers", worlds(3, 4, 1, 0)),
        ("two missing pages", worlds(2, 3, 2, 1)),
        ("all tables", with_languages_and_visitors(worlds(2, 3, 1, 0))),
    ] {
        let found = recovered(&worlds, Design::Disjoint);
        assert!(found.is_empty(), "{name}: {found:?}");
        // The search finds a known attack: the referrers against those of the first missing page.
        let linked = recovered(&worlds, Design::Linked);
        assert!(linked.contains_key(&(0, 1)), "{name}: {linked:?}");
    }
}

#[test]
fn views_from_own_pages_have_no_threshold_since_the_totals_tell_them() {
    let found = recovered(&worlds(2, 5, 1, 2), Design::OwnPagesSuppressed);
    assert!(found.contains_key(&(0, 1)), "{found:?}");
}
