//! Statement 7: a stored sketch and the next period's key cannot distinguish a former reader from a stranger.

use crate::readers::{Keys, read};
use anyhow::{Result, ensure};
use ingest::keys::PeriodKey;
use schemas::VisitorSketch;

/// Small audiences, one after another: it is hardest to hide in them.
const AUDIENCE: u32 = 500;
const AUDIENCES: u32 = 200;

/// How many of these readers the sketch may have counted: their register has their rank or a higher one.
fn hits(registers: &[u8], key: &PeriodKey, project: &str, readers: std::ops::Range<u32>) -> u32 {
    let hit = |&reader: &u32| {
        let coordinate = read(key, project, "/", reader).site;
        registers[usize::from(coordinate.register())] >= coordinate.rank()
    };
    readers.filter(hit).count() as u32
}

#[test]
fn a_former_reader_is_hit_as_often_as_a_stranger() -> Result<()> {
    let keys = Keys::new()?;
    let (january, february) = (keys.of_month(1)?, keys.of_month(2)?);
    let strangers = 1_000_000..1_000_000 + AUDIENCE;
    let (mut with_living_key, mut former, mut never) = (0, 0, 0);
    for audience in 0..AUDIENCES {
        let project = format!("project-{audience}");
        let mut sketch = VisitorSketch::new();
        for reader in 0..AUDIENCE {
            sketch.insert(read(&january, &project, "/", reader).site);
        }
        let mut registers = vec![0u8; 16_384];
        for coordinate in sketch.coordinates() {
            registers[usize::from(coordinate.register())] = coordinate.rank();
        }
        with_living_key += hits(&registers, &january, &project, 0..AUDIENCE);
        former += hits(&registers, &february, &project, 0..AUDIENCE);
        never += hits(&registers, &february, &project, strangers.clone());
    }
    let asked = f64::from(AUDIENCE * AUDIENCES);
    // This is not promised, and shows that the test itself works.
    ensure!(f64::from(with_living_key) == asked, "the living key finds {with_living_key} of {asked} readers");
    let rate = f64::from(former + never) / (2.0 * asked);
    let sigma = (2.0 * asked * rate * (1.0 - rate)).sqrt();
    let off = (f64::from(former) - f64::from(never)) / sigma;
    println!(
        "7: n = {asked}, the living key finds {with_living_key} readers; the next one {former} readers and {never} strangers, {off:+.1} σ"
    );
    ensure!(off.abs() <= 3.0, "{former} readers, {never} strangers of {asked}");
    Ok(())
}
