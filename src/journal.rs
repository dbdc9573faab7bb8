//! `headcount journal salvage`: what can be read of a damaged journal, in a new file.

use crate::say;
use anyhow::Context;
use clap::ArgMatches;
use ingest::journal::salvage::salvage;
use std::path::PathBuf;

/// Holes that are printed one by one.
const PRINTED: usize = 20;

/// Runs `headcount journal salvage`.
pub fn command(matches: &ArgMatches) -> anyhow::Result<()> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).with_context(|| format!("no {name} given"));
    let (source, target) = (path("source")?, path("target")?);
    let salvaged = salvage(source, target).with_context(|| format!("cannot salvage {}", source.display()))?;
    say!(
        "{}: {} records from offset {} to {}, {} lost in {} holes",
        target.display(),
        salvaged.records,
        salvaged.begin,
        salvaged.end,
        salvaged.lost(),
        salvaged.holes.len()
    );
    for (from, to) in salvaged.holes.iter().take(PRINTED) {
        say!("  lost: offsets {from} to {to}");
    }
    if salvaged.holes.len() > PRINTED {
        say!("  and {} more holes", salvaged.holes.len() - PRINTED);
    }
    say!(
        "Keep {0} aside, move {1} to its place and start the service. The ledger counts the holes in its column `lost`; \
         windows that were counted before stay as they are.",
        source.display(),
        target.display()
    );
    Ok(())
}
