//! Properties of the month, each checked against a count that remembers everything.

use std::collections::{HashMap, HashSet};

use schemas::Month;
use schemas::record::{Record, decode};

use super::plan::{Plan, Preset, Size};
use super::stream::{Kind, Stretch};
use super::truth::Truth;
use super::view::Page;

fn month() -> Month {
    "2026-02".parse().unwrap()
}

fn plan(projects: u32, views: u64) -> Plan {
    Plan::new(5, month(), Size { projects, views })
}

/// Every view of the month, in order, with its hour.
fn each(plan: &Plan, of: impl FnMut(&super::stream::Place, &super::view::View, u32)) {
    plan.each(0..plan.hours(), of);
}

#[test]
fn the_truth_is_what_a_count_that_remembers_everything_finds() {
    let plan = plan(40, 120_000);
    let (mut truth, mut ids) = (Truth::new(&plan), HashSet::new());
    let (mut readers, mut pages) = (vec![HashSet::new(); 40], HashMap::new());
    let mut repeats = 0;
    each(&plan, |place, view, hour| {
        truth.count(&plan, place, view, hour);
        if !ids.insert(view.id) {
            repeats += 1;
        } else if let Some(visitor) = view.visitor {
            readers[view.project as usize].insert(visitor);
            *pages.entry((view.project, view.page)).or_insert(0_u64) += 1;
        }
    });
    for (project, readers) in readers.iter().enumerate() {
        assert_eq!(readers.len(), plan.visitors(project as u32) as usize, "visitors of project {project}");
    }
    assert_eq!(truth.repeats, repeats);
    assert_eq!(truth.records, ids.len() as u64 + repeats);
    assert_eq!(truth.views + truth.bots, ids.len() as u64);
    assert_eq!(truth.by_day.iter().sum::<u64>(), truth.views);
    assert_eq!(truth.by_hour.iter().sum::<u64>(), truth.views);
    assert_eq!(truth.by_project.iter().map(|project| project.views).sum::<u64>(), truth.views);
    let told: HashMap<(u32, Page), u64> = truth
        .by_page
        .iter()
        .flat_map(|(project, pages)| pages.iter().map(|(&page, &n)| ((*project, page), n)))
        .collect();
    assert!(told.iter().all(|(key, views)| pages[key] == *views));
    assert!(truth.late > 50 && truth.repeats > 300 && truth.flood == 2_400, "{truth:?}");
    let share = truth.records as f64 / 120_000.0;
    assert!((0.9..1.1).contains(&share), "{share} of what was asked for");
}

#[test]
fn an_hour_is_independent_of_earlier_hours_and_of_the_window_policy() {
    let plan = plan(7, 30_000);
    let mut in_order = Vec::new();
    each(&plan, |place, view, hour| in_order.push((hour, *place, *view)));
    let (mut stretch, hour) = (Stretch::default(), 400);
    plan.fill(hour, 0, &mut stretch);
    let alone: Vec<_> = stretch.views().iter().map(|place| (hour, *place, plan.view(place, hour))).collect();
    assert_eq!(alone, in_order.into_iter().filter(|(at, ..)| *at == hour).collect::<Vec<_>>());
    assert!(alone.len() > 5);
}

#[test]
fn the_same_seed_gives_the_same_month_and_another_another() {
    let ids = |seed: u64| {
        let plan = Plan::new(seed, month(), Size { projects: 3, views: 2_000 });
        let mut ids = Vec::new();
        each(&plan, |_, view, _| ids.push((view.id, view.page, view.country)));
        ids
    };
    assert_eq!(ids(1), ids(1));
    assert_ne!(ids(1), ids(2));
}

#[test]
fn records_are_those_of_the_schema_and_decode() {
    let plan = plan(30, 20_000);
    let mut kinds = HashSet::new();
    each(&plan, |place, view, _| {
        let bytes = view.record(&plan);
        let Ok(Record::PageView(read)) = decode(&bytes) else { panic!("{bytes:?}") };
        assert_eq!((read.project, read.event_id), (plan.slug(view.project), view.id));
        assert_eq!((read.path, read.status), (view.page.path().as_str(), view.page.status()));
        kinds.insert(format!("{:?}", place.kind));
    });
    assert_eq!(kinds.len(), 3);
}

#[test]
fn readers_come_again_and_keep_what_is_theirs() {
    let plan = plan(1, 60_000);
    let (mut visits, mut browsers) = (HashMap::new(), HashMap::new());
    each(&plan, |place, view, _| {
        if place.kind == Kind::Reader {
            let visitor = view.visitor.unwrap();
            visits.entry(visitor).or_insert_with(HashSet::new).insert(place.ticket);
            browsers.entry(visitor).or_insert_with(HashSet::new).insert((view.agent, view.country));
        }
    });
    assert!(browsers.values().all(|seen| seen.len() == 1));
    let often = visits.values().filter(|visits| visits.len() >= 5).count() as f64 / visits.len() as f64;
    // 5 to the power of -1.8.
    assert!((0.04..0.07).contains(&often), "{often}");
    assert!(visits.values().any(|visits| visits.len() >= 40));
}

#[test]
fn presets_are_as_large_as_they_say_and_no_part_is_large() {
    for preset in [Preset::Small, Preset::Host] {
        let (plan, mut stretch) = (Plan::new(1, month(), preset.size()), Stretch::default());
        let hour = 14 + 24 * 9;
        let seen: usize = (0..plan.parts(hour))
            .map(|part| {
                plan.fill(hour, part, &mut stretch);
                assert!(stretch.views().len() < 80_000, "{}", stretch.views().len());
                stretch.views().len()
            })
            .sum();
        let even = preset.size().views as f64 / 672.0;
        assert!((0.5 * even..4.0 * even).contains(&(seen as f64)), "{seen} of {even}");
    }
}
