//! Statement 5: a reader's data in one project, on one page, in one scope or one period reveal nothing about the others.

use crate::readers::{CHANCE, Keys, read};
use anyhow::{Result, ensure};

const TRIALS: u32 = 1_000_000;

#[test]
fn coordinates_collide_no_more_often_than_by_chance() -> Result<()> {
    let (keys, threads) = (Keys::new()?, 2);
    let january = keys.of_month(1)?;
    let february = keys.of_month(2)?;
    // [another project, another page, site and page scope, another period, another project's page]
    let count = |from: u32, to: u32| {
        let mut alike = [0u32; 5];
        for reader in from..to {
            let here = read(&january, "alpha", "/index.html", reader);
            let there = read(&january, "beta", "/index.html", reader);
            let elsewhere = read(&january, "alpha", "/other.html", reader);
            let later = read(&february, "alpha", "/index.html", reader);
            let pairs = [
                (here.site, there.site),
                (here.page, elsewhere.page),
                (here.site, here.page),
                (here.site, later.site),
                (here.page, there.page),
            ];
            for (alike, (one, other)) in alike.iter_mut().zip(pairs) {
                *alike += u32::from(one == other);
            }
        }
        alike
    };
    let mut alike = [0u32; 5];
    std::thread::scope(|scope| {
        let share = TRIALS / threads;
        let parts: Vec<_> =
            (0..threads).map(|part| scope.spawn(move || count(part * share, (part + 1) * share))).collect();
        for part in parts {
            let found = part.join().unwrap_or([u32::MAX / 2; 5]);
            alike.iter_mut().zip(found).for_each(|(alike, found)| *alike += found);
        }
    });
    let expected = f64::from(TRIALS) * CHANCE;
    let sigma = (expected * (1.0 - CHANCE)).sqrt();
    for (name, alike) in ["projects", "pages", "scopes", "periods", "pages of projects"].into_iter().zip(alike) {
        let off = (f64::from(alike) - expected) / sigma;
        println!("5: n = {TRIALS}, {name}: {alike} alike, {expected:.1} expected by chance, {off:+.1} σ");
        ensure!(off.abs() <= 3.0, "{name}: {alike} alike, {expected:.1} ± {sigma:.1} expected");
    }
    // The same reader in the same place has the same coordinates; otherwise counts would be wrong.
    ensure!(read(&january, "alpha", "/", 7) == read(&january, "alpha", "/", 7), "a reader is not found again");
    Ok(())
}
