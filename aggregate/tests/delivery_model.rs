//! The argument of delivery, as a model: random schedules of crash, lost acknowledgement, late insert, stale commit and resumed zombie. The
//! processes run the real loop (`aggregate::run`) on a paused clock; the log, the store and the group are models. After each schedule has
//! healed, the result of queries equals a rebuild of the log by the book, sketches byte by byte. While it runs, no figure falls, and a loop
//! that was dropped writes nothing.
//!
//! The same schedules must catch wrong designs ([`Variant`]): a model that finds nothing proves nothing.
//!
//! `HEADCOUNT_MODEL_SCHEDULES` sets the number of schedules, `HEADCOUNT_MODEL_SEED` repeats one.

#[path = "delivery_model/book.rs"]
mod book;
#[path = "delivery_model/design.rs"]
mod design;
#[path = "delivery_model/model_store.rs"]
mod model_store;
#[path = "delivery_model/ports.rs"]
mod ports;
#[path = "delivery_model/variant.rs"]
mod variant;
#[path = "delivery_model/world.rs"]
mod world;

use variant::Variant;
use world::Schedule;

/// The outcome of some schedules.
#[derive(Default)]
struct Outcome {
    wrong: u64,
    /// The first wrong schedule.
    first: Option<(u64, String)>,
    /// Processes that were started in right ones.
    processes: usize,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn outcome(variant: Variant, seeds: std::ops::Range<u64>) -> Outcome {
    let mut outcome = Outcome::default();
    for seed in seeds {
        match Schedule::new(seed, variant).run() {
            Ok(processes) => outcome.processes += processes,
            Err(error) => {
                outcome.wrong += 1;
                outcome.first.get_or_insert((seed, error));
            }
        }
    }
    outcome
}

#[test]
fn the_real_loop_survives_every_schedule() {
    let schedules = number("HEADCOUNT_MODEL_SCHEDULES").unwrap_or(800);
    let seeds = number("HEADCOUNT_MODEL_SEED").map_or(0..schedules, |seed| seed..seed + 1);
    let Outcome { wrong, first, processes } = outcome(Variant::Real, seeds.clone());
    let schedules = seeds.end - seeds.start;
    println!("the real loop: {schedules} schedules, {processes} processes, {wrong} wrong");
    if let Some((seed, error)) = first {
        panic!("{wrong} schedules came out wrong; the first is HEADCOUNT_MODEL_SEED={seed}: {error}");
    }
    assert!(processes as u64 > 2 * schedules, "{processes} processes in {schedules} schedules");
}

#[test]
fn wrong_designs_are_caught() {
    let schedules = number("HEADCOUNT_MODEL_SCHEDULES").unwrap_or(80);
    println!("{:<58} {:>9} {:>7} {:>6}", "design", "schedules", "wrong", "%");
    for variant in Variant::WRONG {
        let Outcome { wrong, first, .. } = outcome(variant, 0..schedules);
        println!("{:<58} {schedules:>9} {wrong:>7} {:>5.1}", variant.name(), 100.0 * wrong as f64 / schedules as f64);
        let (seed, error) = first.unwrap_or_else(|| panic!("{} was not caught", variant.name()));
        println!("    {seed}: {}", error.lines().next().unwrap_or_default());
    }
}

/// The model itself makes no design wrong.
#[test]
fn wrong_designs_are_right_without_faults() {
    for variant in Variant::RIGHT_WITHOUT_FAULTS {
        for seed in 0..30 {
            let outcome = Schedule::undisturbed(seed, variant).run();
            assert_eq!(outcome, Ok(1), "{}, seed {seed}", variant.name());
        }
    }
}
