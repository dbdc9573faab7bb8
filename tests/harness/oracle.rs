//! The oracle: an independent, single-threaded rebuild of every row from the journal. It shares no code with the
//! aggregator: records are decoded by prost, cells are maps in order, sketches are maps from register to rank.

use anyhow::{Context, Result, ensure};
use ingest::journal::{Journal, JournalConfig};
use prost::Message;
use schemas::proto::{LogRecord, PageView, log_record::Body};
use schemas::{Coordinate, Hour, VisitorSketch};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// (register → rank); the union of coordinates by definition.
type Registers = BTreeMap<u16, u8>;

/// A row of `site_hourly` without its sketch's form.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Views by people.
    pub views: u64,
    /// Of these, arrivals.
    pub visits: u64,
    /// Views by bots; indexed by the class's number, 0 (people) stays 0.
    pub bots: [u64; 7],
    registers: Registers,
}

/// A row of `page_daily`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Views by people.
    pub views: u64,
    registers: Registers,
}

/// A row of `ledger`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records of the window.
    pub seen: u64,
    /// Counted views.
    pub accepted: u64,
    /// Repeated ids.
    pub duplicate: u64,
    /// Tallies of refused beacons.
    pub tallies: u64,
    /// Refused beacons that tallies tell of.
    pub rejected_beacons: u64,
}

/// Everything the log says, window by window.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// (window, project, hour) → site.
    pub site: BTreeMap<(u64, String, u32), Site>,
    /// (window, project, day, path, status) → page.
    pub page: BTreeMap<(u64, String, u16, String, u16), Page>,
    /// (window, project, day, dimension, value) → views.
    pub breakdown: BTreeMap<(u64, String, u16, String, String), u64>,
    /// (window, project, day, reason) → refused beacons.
    pub rejection: BTreeMap<(u64, String, u16, String), u64>,
    /// window → ledger.
    pub ledger: BTreeMap<u64, Ledger>,
    /// Offset after the last record.
    pub end: u64,
}

// Names as reports show them, by their number in the log; written here once more on purpose.
const DEVICES: [&str; 5] = ["", "Desktop", "Mobile", "Tablet", "Other"];
const BROWSERS: [&str; 8] = ["", "Chrome", "Firefox", "Safari", "Edge", "Opera", "Samsung Internet", "Other"];
const SYSTEMS: [&str; 8] = ["", "Windows", "macOS", "Linux", "Android", "iOS", "ChromeOS", "Other"];
const REASONS: [&str; 16] = [
    "",
    "malformed_json",
    "not_utf8",
    "missing_field",
    "invalid_field",
    "field_too_long",
    "control_characters",
    "unknown_project",
    "foreign_host",
    "body_too_large",
    "body_timeout",
    "client_rate_limited",
    "project_rate_limited",
    "log_unavailable",
    "overloaded",
    "ambiguous_project",
];

fn name(names: &[&'static str], number: i32) -> Result<&'static str> {
    names.get(usize::try_from(number)?).copied().with_context(|| format!("no class {number}"))
}

fn insert(registers: &mut Registers, packed: u32) -> Result<()> {
    let coordinate = Coordinate::from_packed(packed)?;
    let rank = registers.entry(coordinate.register()).or_default();
    *rank = (*rank).max(coordinate.rank());
    Ok(())
}

fn bytes(registers: &Registers) -> Result<Vec<u8>> {
    let mut sketch = VisitorSketch::new();
    for (&register, &rank) in registers {
        sketch.insert(Coordinate::new(register, rank)?);
    }
    Ok(sketch.encode())
}

impl Site {
    /// The canonical bytes of its sketch.
    pub fn sketch(&self) -> Result<Vec<u8>> {
        bytes(&self.registers)
    }
}

impl Page {
    /// The canonical bytes of its sketch.
    pub fn sketch(&self) -> Result<Vec<u8>> {
        bytes(&self.registers)
    }
}

/// Reads the journal of a service that does not run. `window_hours` and `max_records` say how windows are cut.
pub fn rebuild(data: &Path, window_hours: u32, max_records: u64) -> Result<Truth> {
    let journal = Journal::open(&data.join("journal.redb"), JournalConfig::default(), || Hour(0))?;
    ensure!(journal.begin()? == 0, "the journal still has its first record");
    let mut truth = Truth::default();
    let mut window: Option<(u64, u32)> = None;
    let mut ids = BTreeSet::new();
    for batch in journal.read(0, usize::MAX)? {
        for (index, record) in batch.records().enumerate() {
            let offset = batch.first_offset + index as u64;
            ensure!(offset == truth.end, "the log has no gaps");
            truth.end = offset + 1;
            let appended = batch.appended.0;
            let same = window.is_some_and(|(start, hour)| {
                hour / window_hours == appended / window_hours && offset - start < max_records
            });
            if !same {
                window = Some((offset, appended));
                ids.clear();
            }
            let start = window.context("a window is open")?.0;
            let ledger = truth.ledger.entry(start).or_default();
            ledger.seen += 1;
            match LogRecord::decode(record)?.body.context("the record has a body")? {
                Body::Rejections(tally) => {
                    if tally.id != 0 && !ids.insert((format!("tally of {}", tally.project), tally.id)) {
                        ledger.duplicate += 1;
                        continue;
                    }
                    ledger.tallies += 1;
                    ledger.rejected_beacons += tally.count;
                    let reason = REASONS.get(tally.reason as usize).context("a reason that is documented")?;
                    let day = u16::try_from(tally.hour / 24)?;
                    *truth.rejection.entry((start, tally.project, day, (*reason).to_owned())).or_default() +=
                        tally.count;
                }
                Body::PageView(view) => {
                    if view.event_id != 0 && !ids.insert((view.project.clone(), view.event_id)) {
                        ledger.duplicate += 1;
                        continue;
                    }
                    ledger.accepted += 1;
                    add(&mut truth, start, &view)?;
                }
            }
        }
    }
    journal.close();
    Ok(truth)
}

fn add(truth: &mut Truth, window: u64, view: &PageView) -> Result<()> {
    let site = truth.site.entry((window, view.project.clone(), view.hour)).or_default();
    let day = u16::try_from(view.hour / 24)?;
    let breakdown = &mut truth.breakdown;
    let mut count = |dimension: &str, value: &str| {
        let key = (window, view.project.clone(), day, dimension.to_owned(), value.to_owned());
        *breakdown.entry(key).or_default() += 1;
    };
    if view.bot_class != 0 {
        *site.bots.get_mut(usize::try_from(view.bot_class)?).context("a class of bots")? += 1;
        count("bot", &view.bot);
        return Ok(());
    }
    if view.arrival {
        count("referrer", &view.referrer_host);
    }
    count("country", &view.country);
    count("device", name(&DEVICES, view.device)?);
    count("browser", name(&BROWSERS, view.browser)?);
    count("os", name(&SYSTEMS, view.system)?);
    count("version", &view.version);
    count("language", &view.language);
    site.views += 1;
    site.visits += u64::from(view.arrival);
    insert(&mut site.registers, view.site_coordinate)?;
    let status = u16::try_from(view.status)?;
    let page = truth.page.entry((window, view.project.clone(), day, view.path.clone(), status)).or_default();
    page.views += 1;
    insert(&mut page.registers, view.page_coordinate)?;
    Ok(())
}
