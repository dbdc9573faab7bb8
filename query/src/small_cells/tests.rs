//! Statements 11 and 12 of the privacy contract. The adversary knows everything except the figures: the rule, the threshold, the possible
//! values, and every report. A suppressed cell is recovered if it is the same in all worlds that give these reports.

use super::*;
use std::collections::HashMap;

fn items(cells: &[u64]) -> Vec<BreakdownItem> {
    let named = cells.iter().enumerate().filter(|(_, views)| **views > 0);
    named.map(|(name, &views)| BreakdownItem { value: name.to_string(), views, rest: false }).collect()
}

fn shown(cells: &[u64], rule: impl Fn(Vec<BreakdownItem>) -> Vec<BreakdownItem>) -> Vec<(String, u64)> {
    rule(items(cells)).into_iter().map(|item| (item.value, item.views)).collect()
}

/// Suppresses small cells only, without the complement that prevents subtraction.
fn naive(floor: u64) -> impl Fn(Vec<BreakdownItem>) -> Vec<BreakdownItem> {
    move |items| {
        let (small, mut large): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.views < floor);
        let views: u64 = small.iter().map(|item| item.views).sum();
        if views > 0 {
            large.push(BreakdownItem { value: "other".to_owned(), views, rest: true });
        }
        large
    }
}

/// Every way to count `cells` values up to `most` times each.
fn worlds(cells: u32, most: u64) -> impl Iterator<Item = Vec<u64>> {
    (0..(most + 1).pow(cells))
        .map(move |number| (0..cells).map(|cell| number / (most + 1).pow(cell) % (most + 1)).collect())
}

/// Of all worlds up to `most`, those in which the report by `rule` reveals a suppressed cell.
fn recovered(cells: u32, most: u64, rule: impl Fn(Vec<BreakdownItem>) -> Vec<BreakdownItem>) -> Vec<Vec<u64>> {
    let mut alike: HashMap<Vec<(String, u64)>, Vec<Vec<u64>>> = HashMap::new();
    for world in worlds(cells, most) {
        alike.entry(shown(&world, &rule)).or_default().push(world);
    }
    let mut known = Vec::new();
    for (report, worlds) in alike {
        for cell in 0..cells as usize {
            let folded = !report.iter().any(|(name, _)| *name == cell.to_string());
            let value = worlds[0][cell];
            if folded && value > 0 && worlds.iter().all(|world| world[cell] == value) {
                known.push(worlds[0].clone());
            }
        }
    }
    known
}

#[test]
fn nothing_below_the_floor_is_shown_and_nothing_is_lost() {
    for floor in [3, 5, 10] {
        let rule = Floor::new(floor).unwrap();
        for world in worlds(4, 12) {
            let report = rule.fold(items(&world));
            let total: u64 = world.iter().sum();
            assert_eq!(report.iter().map(|item| item.views).sum::<u64>(), total, "{world:?}");
            for item in &report {
                assert!(item.views >= floor || item.views == total, "floor {floor}, {world:?}: {report:?}");
            }
        }
    }
    assert_eq!(Floor::new(2), None);
}

#[test]
fn who_knows_all_but_the_figures_recovers_no_folded_cell() {
    for (cells, floor, most) in
        [(2, 10, 60), (3, 10, 24), (4, 3, 14), (3, 5, 24), (4, 5, 13), (5, 3, 8), (5, 4, 9), (6, 3, 6)]
    {
        let rule = Floor::new(floor).unwrap();
        let known = recovered(cells, most, |items| rule.fold(items));
        assert!(
            known.is_empty(),
            "{cells} values, floor {floor}: {} worlds, such as {:?}",
            known.len(),
            &known[..known.len().min(5)]
        );
        // The search must find the known attack.
        assert!(!recovered(cells, most, naive(floor)).is_empty(), "{cells} values, floor {floor}");
    }
}

/// Otherwise many values with one view each would remove every name from a report.
#[test]
fn a_long_tail_takes_no_frequent_value_along() {
    let rule = Floor::default();
    for tail in [3, 12, 200, 5_000] {
        let cells: Vec<u64> = [150, 100, 60, 25].into_iter().chain(std::iter::repeat_n(4, tail)).collect();
        let named: Vec<u64> =
            rule.fold(items(&cells)).iter().filter(|item| !item.rest).map(|item| item.views).collect();
        assert_eq!(named, [150, 100, 60, 25], "beside {tail} values with 4 views each");
    }
}

#[test]
fn values_added_up_beforehand_fold_alike() {
    for floor in [3, 5] {
        let rule = Floor::new(floor).unwrap();
        for world in worlds(4, 9) {
            let (small, large): (Vec<_>, Vec<_>) =
                items(&world).into_iter().partition(|item| rule.withholds(item.views));
            let beneath = Beneath {
                cells: small.len() as u64,
                views: small.iter().map(|item| item.views).sum(),
                largest: small.iter().map(|item| item.views).max().unwrap_or(0),
            };
            assert_eq!(rule.fold_above(large, beneath), rule.fold(items(&world)), "floor {floor}, {world:?}");
        }
    }
}

/// What two months and their range show together.
type Told = [Vec<(String, u64)>; 3];

fn told(first: &[u64], second: &[u64], rule: Floor, fold_the_sum: bool) -> Told {
    let folded = [rule.fold(items(first)), rule.fold(items(second))];
    let range = if fold_the_sum {
        let sum: Vec<u64> = first.iter().zip(second).map(|(first, second)| first + second).collect();
        rule.fold(items(&sum))
    } else {
        let mut sums = std::collections::BTreeMap::new();
        for item in folded.iter().flatten() {
            *sums.entry((item.rest, item.value.clone())).or_insert(0) += item.views;
        }
        sums.into_iter().map(|((rest, value), views)| BreakdownItem { value, views, rest }).collect()
    };
    let plain = |report: &[BreakdownItem]| report.iter().map(|item| (item.value.clone(), item.views)).collect();
    [plain(&folded[0]), plain(&folded[1]), plain(&range)]
}

/// Two months that give some reports, and which cells are the same in all such months, in the first and in the second.
type Alike = ([Vec<u64>; 2], Vec<[bool; 2]>);

/// Pairs of months in which the reports of both and of their range reveal a suppressed cell.
fn recovered_from_ranges(cells: u32, most: u64, rule: Floor, fold_the_sum: bool) -> usize {
    let mut alike: HashMap<Told, Alike> = HashMap::new();
    let all: Vec<Vec<u64>> = worlds(cells, most).collect();
    for first in &all {
        for second in &all {
            let fresh = || ([first.clone(), second.clone()], vec![[true; 2]; cells as usize]);
            let (seen, certain) = alike.entry(told(first, second, rule, fold_the_sum)).or_insert_with(fresh);
            for (cell, certain) in certain.iter_mut().enumerate() {
                certain[0] &= seen[0][cell] == first[cell];
                certain[1] &= seen[1][cell] == second[cell];
            }
        }
    }
    let gives_away = |(reports, (seen, certain)): (&Told, &Alike)| {
        (0..cells as usize).any(|cell| {
            (0..2).any(|month| {
                let folded = !reports[month].iter().any(|(name, _)| *name == cell.to_string());
                folded && certain[cell][month] && seen[month][cell] > 0
            })
        })
    };
    alike.iter().filter(|entry| gives_away(*entry)).count()
}

#[test]
fn months_and_their_ranges_together_recover_no_folded_cell() {
    for (cells, floor, most) in [(2, 5, 14), (3, 3, 6)] {
        let rule = Floor::new(floor).unwrap();
        assert_eq!(recovered_from_ranges(cells, most, rule, false), 0, "{cells} values, floor {floor}");
        // Why months are suppressed before they are added up.
        assert!(recovered_from_ranges(cells, most, rule, true) > 0, "{cells} values, floor {floor}");
    }
}
