//! Statement 4: the most identifying data outside the endpoint is a coordinate, about 16 bits; no table stores hashes.

use crate::readers::{Keys, read};
use anyhow::{Result, ensure};
use schemas::migrations::{BEFORE, FILES, FROM_BEFORE, statements};
use schemas::{Coordinate, VisitorSketch};
use std::collections::BTreeMap;

#[test]
fn a_coordinate_has_sixteen_bits_and_a_sketch_nothing_else() -> Result<()> {
    let keys = Keys::new()?;
    let january = keys.of_month(1)?;
    let (count, mut seen, mut sketch) = (400_000u32, BTreeMap::<u32, u32>::new(), VisitorSketch::new());
    for reader in 0..count {
        let coordinate = read(&january, "docs", "/", reader).site;
        ensure!(coordinate.packed() < 1 << 20 && (1..=51).contains(&coordinate.rank()), "{}", coordinate.packed());
        *seen.entry(coordinate.packed()).or_default() += 1;
        sketch.insert(coordinate);
    }
    // Shannon's entropy of the observed coordinates: 14 bits of register, and 2 of a rank whose probability is halved each time.
    let entropy: f64 =
        seen.values().map(|&times| f64::from(times) / f64::from(count)).map(|share| -share * share.log2()).sum();
    println!("4: n = {count}, {} different coordinates, {entropy:.2} bits", seen.len());
    ensure!(entropy <= 16.0, "{entropy} bits");
    // A stored sketch decodes to coordinates, which encode to the same bytes again: it contains nothing else.
    let bytes = sketch.encode();
    let decoded = VisitorSketch::decode(&bytes)?;
    let mut again = VisitorSketch::new();
    decoded.coordinates().for_each(|coordinate: Coordinate| _ = again.insert(coordinate));
    ensure!(again.encode() == bytes, "a sketch holds more than its coordinates");
    Ok(())
}

#[test]
fn no_table_keeps_a_state_of_clickhouse() -> Result<()> {
    for (file, sql) in FILES.iter().chain(BEFORE).chain([&FROM_BEFORE]) {
        for statement in statements(sql) {
            let plain = statement.to_lowercase();
            for state in ["aggregatefunction", "uniq", "bitmap"] {
                ensure!(!plain.contains(state), "{file}: {statement}");
            }
        }
    }
    Ok(())
}
