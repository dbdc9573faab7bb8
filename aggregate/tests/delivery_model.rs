//! The argument of delivery, as a model: random schedules of crash, lost acknowledgement, late insert, stale commit and
//! resumed zombie, over the real fold ([`WindowState`]) and the real cut, with a store and a group that are models. After
//! each schedule has healed, what a reader sees equals a rebuild of the log by the book, sketches byte by byte; while it
//! runs, no figure falls and none exceeds the log.
//!
//! The same schedules must catch designs that are wrong ([`Variant`]): a model that finds nothing proves nothing.
//!
//! `HEADCOUNT_MODEL_SCHEDULES` says how many schedules, `HEADCOUNT_MODEL_SEED` replays one.

#[path = "delivery_model/book.rs"]
mod book;
#[path = "delivery_model/process.rs"]
mod process;
#[path = "delivery_model/world.rs"]
mod world;

use process::Variant;
use world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Schedules that came out wrong, and the first of them.
fn wrong(variant: Variant, seeds: std::ops::Range<u64>) -> (u64, Option<(u64, String)>) {
    let (mut wrong, mut first) = (0, None);
    for seed in seeds {
        if let Err(error) = World::new(seed, variant).run() {
            wrong += 1;
            first.get_or_insert((seed, error));
        }
    }
    (wrong, first)
}

#[test]
fn absolute_rows_survive_every_schedule() {
    let schedules = number("HEADCOUNT_MODEL_SCHEDULES").unwrap_or(2_000);
    let seeds = number("HEADCOUNT_MODEL_SEED").map_or(0..schedules, |seed| seed..seed + 1);
    let (wrong, first) = wrong(Variant::AsBuilt, seeds.clone());
    println!("as built: {} schedules, {wrong} wrong", seeds.end - seeds.start);
    if let Some((seed, error)) = first {
        panic!("{wrong} schedules came out wrong; the first is HEADCOUNT_MODEL_SEED={seed}: {error}");
    }
}

#[test]
fn designs_that_are_wrong_are_caught() {
    let schedules = number("HEADCOUNT_MODEL_SCHEDULES").unwrap_or(150);
    println!("{:<58} {:>9} {:>7} {:>6}", "variant", "schedules", "wrong", "%");
    for variant in Variant::WRONG {
        let (wrong, _) = wrong(variant, 0..schedules);
        println!("{:<58} {schedules:>9} {wrong:>7} {:>5.1}", variant.name(), 100.0 * wrong as f64 / schedules as f64);
        assert!(wrong > 0, "{} was not caught in {schedules} schedules", variant.name());
    }
}
