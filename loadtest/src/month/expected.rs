//! The expected content of the tables, from the scenario's truth: to the last view, and from nothing that was counted.
//!
//! The scenario does not know beforehand where windows end that reach their limit of bytes. So the ledger's window starts are used once three things
//! are certain: its windows cover the log, one starts with each half day of the month, and none starts without a reason.
//!
//! All else comes from the scenario. It knows the offsets of each view and its repeat. So it knows how many repeats are dropped in each window, and
//! which ones a window's start separated from their view. Those, and no others, count a second time.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use clickhouse::Row;
use schemas::rejection::RejectionReason;
use serde::Deserialize;

use super::plan::Plan;
use super::truth::{Counts, Repeat, Sent, Truth};

/// Spans of this many hours, by the log's clock, end windows.
const SPAN_HOURS: u32 = crate::WINDOW_HOURS;
/// A window also ends at 256 MiB of records, none of which has more than 268 bytes.
const FEWEST_BY_BYTES: u64 = 1_000_000;

/// A window as the ledger has it, and whose.
#[derive(Debug, Clone, Default, Row, Deserialize)]
pub struct Window {
    /// Partition of the topic.
    pub partition: i32,
    /// Offset of its first record.
    pub window_start: u64,
    /// Offset after its last.
    pub next_offset: u64,
    /// When the first was appended, in seconds since the epoch.
    pub appended: u32,
    /// Records that were read.
    pub seen: u64,
    /// Views that were counted.
    pub accepted: u64,
    /// Repeats that were dropped.
    pub duplicate: u64,
    /// Tallies.
    pub tallies: u64,
    /// Refused beacons in these.
    pub rejected_beacons: u64,
}

impl Window {
    fn hours(&self) -> u32 {
        self.appended / 3_600 / SPAN_HOURS
    }
}

/// A page's name in the tables: path and status.
pub type PageName = (String, u16);

/// The expected content of the tables.
pub struct Expected<'a> {
    plan: &'a Plan,
    truth: &'a Truth,
    /// Repeats in a later window than their view: they count again, as documented.
    pub parted: Vec<Repeat>,
}

impl<'a> Expected<'a> {
    /// Expects windows of at most `most` records, with the ledger's ends.
    ///
    /// # Errors
    /// The windows do not cover the log, start where they should not, or have other sums than the scenario.
    pub fn new(plan: &'a Plan, truth: &'a Truth, windows: &[Window], most: u64) -> anyhow::Result<Self> {
        let mut parted = Vec::new();
        for (partition, sent) in truth.partitions.iter().enumerate() {
            let mut of: Vec<&Window> = windows.iter().filter(|window| window.partition as usize == partition).collect();
            of.sort_by_key(|window| window.window_start);
            covers(&of, sent, most).with_context(|| format!("the ledger of partition {partition}"))?;
            let window_of = |offset: u64| of.partition_point(|window| window.next_offset <= offset);
            let mut dropped = vec![0; of.len()];
            for repeat in &sent.repeats {
                let (first, second) = (window_of(repeat.first), window_of(repeat.first + u64::from(repeat.after)));
                if first == second {
                    dropped[first] += 1;
                } else {
                    parted.push(*repeat);
                }
            }
            for (window, dropped) in of.iter().zip(dropped) {
                let at = window.window_start;
                ensure!(
                    window.duplicate == dropped,
                    "{} repeats were dropped in the window at {at} of partition {partition}, it has {dropped}",
                    window.duplicate
                );
                ensure!(
                    window.accepted + window.duplicate + window.tallies == window.seen,
                    "the window at {at} of partition {partition} has {} records, of which {} views were counted, {} dropped, and \
                     {} were tallies",
                    window.seen,
                    window.accepted,
                    window.duplicate,
                    window.tallies
                );
            }
        }
        let sum = |of: fn(&Window) -> u64| windows.iter().map(of).sum::<u64>();
        let (tallies, refused) = (sum(|window| window.tallies), sum(|window| window.rejected_beacons));
        ensure!(
            (tallies, refused) == (truth.tallies, truth.refused),
            "the ledger has {tallies} tallies of {refused} refused beacons, there are {} of {}",
            truth.tallies,
            truth.refused
        );
        Ok(Self { plan, truth, parted })
    }

    /// Views by people.
    #[must_use]
    pub fn views(&self) -> u64 {
        self.truth.views + self.parted.len() as u64
    }

    /// Compares views by people in each hour of the month.
    ///
    /// # Errors
    /// When an hour has others.
    pub fn hours(&self, counted: &[u64]) -> anyhow::Result<()> {
        let mut expected = self.truth.by_hour.clone();
        self.parted.iter().for_each(|repeat| expected[usize::from(repeat.hour)] += 1);
        ensure!(counted.len() <= expected.len(), "{} hours are counted of {}", counted.len(), expected.len());
        for (hour, expected) in expected.iter().enumerate() {
            let counted = counted.get(hour).copied().unwrap_or(0);
            ensure!(counted == *expected, "hour {hour} of the month: {counted} views are counted of {expected}");
        }
        Ok(())
    }

    /// Compares the figures of each project by its name, and returns the number of projects.
    ///
    /// # Errors
    /// A project has other figures, or does not belong to the month.
    pub fn projects(&self, mut counted: HashMap<String, Counts>) -> anyhow::Result<u64> {
        let mut expected = self.truth.by_project.clone();
        for repeat in &self.parted {
            let project = &mut expected[repeat.project as usize];
            project.views += 1;
            project.visits += u64::from(repeat.arrival);
        }
        for (number, expected) in expected.iter().enumerate() {
            let slug = self.plan.slug(number as u32);
            let counted = counted.remove(slug).unwrap_or_default();
            ensure!(counted == *expected, "{slug}: {counted:?} are counted, there are {expected:?}");
        }
        // Beacons that named no project are refused without a project, and a closed month has a row of them.
        let stranger = counted.iter().find(|(slug, counts)| !slug.is_empty() || **counts != Counts::default());
        ensure!(stranger.is_none(), "counted, but no project of the month: {stranger:?}");
        Ok(expected.len() as u64)
    }

    /// Names of the projects that are compared page by page.
    #[must_use]
    pub fn paged(&self) -> Vec<&'a str> {
        self.truth.by_page.keys().map(|number| self.plan.slug(*number)).collect()
    }

    /// Compares views by people of each page of these projects by their names, and returns the number of pages.
    ///
    /// # Errors
    /// A page has other views, or was not viewed.
    pub fn pages(&self, mut counted: HashMap<String, BTreeMap<PageName, u64>>) -> anyhow::Result<u64> {
        let mut expected = self.truth.pages();
        for repeat in &self.parted {
            if let Some(views) = expected
                .get_mut(&repeat.project)
                .and_then(|pages| pages.get_mut(&(repeat.page.path(), repeat.page.status())))
            {
                *views += 1;
            }
        }
        let mut compared = 0;
        for (number, pages) in &expected {
            let slug = self.plan.slug(*number);
            let mut found = counted.remove(slug).unwrap_or_default();
            for ((path, status), views) in pages {
                let counted = found.remove(&(path.clone(), *status)).unwrap_or(0);
                ensure!(counted == *views, "{slug}{path} ({status}): {counted} views are counted of {views}");
            }
            ensure!(found.is_empty(), "{slug}: rows of pages without views, such as {:?}", found.first_key_value());
            compared += pages.len() as u64;
        }
        Ok(compared)
    }

    /// Compares refused beacons by name of project and reason.
    ///
    /// # Errors
    /// When there are others.
    pub fn refusals(&self, counted: &BTreeMap<(String, String), u64>) -> anyhow::Result<()> {
        let mut expected = BTreeMap::new();
        for ((slug, number), beacons) in &self.truth.by_refusal {
            let reason = RejectionReason::from_number(*number).context("a reason without a name")?;
            expected.insert((slug.clone(), reason.name().to_owned()), *beacons);
        }
        for key in expected.keys().chain(counted.keys()) {
            let [counted, expected] = [counted, &expected].map(|of| of.get(key).copied().unwrap_or(0));
            ensure!(counted == expected, "{key:?}: {counted} refused beacons are counted of {expected}");
        }
        Ok(())
    }
}

/// An error unless these windows, in order, cover the sent records, one starts with each half day, and none starts without a reason.
fn covers(windows: &[&Window], sent: &Sent, most: u64) -> anyhow::Result<()> {
    let mut at = 0;
    for (number, window) in windows.iter().enumerate() {
        let (start, end) = (window.window_start, window.next_offset);
        ensure!(start == at, "a window begins at {start}, the one before it ends at {at}");
        let holds = end.saturating_sub(start);
        ensure!((1..=most).contains(&holds), "the window at {start} has {holds} records of at most {most}");
        ensure!(window.seen == holds, "the window at {start} has {holds} records, of which {} were read", window.seen);
        if let Some(next) = windows.get(number + 1) {
            let cut = holds == most || next.hours() != window.hours() || holds >= FEWEST_BY_BYTES;
            ensure!(cut, "the window at {start} was closed after {holds} records of {most}");
        }
        at = end;
    }
    ensure!(at == sent.records, "it has {at} records of {}", sent.records);
    for span in sent.spans.iter().filter(|span| **span < sent.records) {
        let begins = windows.binary_search_by_key(span, |window| window.window_start).is_ok();
        ensure!(begins, "no window begins at {span}, where half a day does");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::month::plan::Size;
    use crate::month::stream::Stretch;
    use crate::month::truth::Sent;

    const PARTITIONS: usize = 3;
    /// So few that many repeats, which follow within some records, are in a later window than their view.
    const MOST: u64 = 20;

    /// How the records were folded.
    #[derive(Clone, Copy, PartialEq)]
    enum Drops {
        InItsWindow,
        Nothing,
        Anywhere,
    }

    /// The figures that a fold counted.
    #[derive(Default, Clone)]
    struct Counted {
        windows: Vec<Window>,
        hours: Vec<u64>,
        projects: HashMap<String, Counts>,
        pages: HashMap<String, BTreeMap<PageName, u64>>,
        refusals: BTreeMap<(String, String), u64>,
    }

    fn plan() -> Plan {
        Plan::new(5, "2026-02".parse().unwrap(), Size { projects: 30, views: 60_000 })
    }

    /// The truth, and the figures of a fold that holds every id of the same records in memory.
    fn month(plan: &Plan, drops: Drops) -> (Truth, Counted) {
        let mut truth = Truth { partitions: vec![Sent::default(); PARTITIONS], ..Truth::new(plan) };
        let mut counted = Counted { hours: vec![0; plan.hours() as usize], ..Counted::default() };
        let (mut stretch, mut ids) = (Stretch::default(), HashSet::new());
        let mut ends = [0; PARTITIONS];
        let mut window = |counted: &mut Counted, key: u64| {
            let partition = key as usize % PARTITIONS;
            let offset = ends[partition];
            ends[partition] += 1;
            let (partition, window_start) = (partition as i32, offset / MOST * MOST);
            let same = |window: &Window| (window.partition, window.window_start) == (partition, window_start);
            let at = counted.windows.iter().rposition(same).unwrap_or_else(|| {
                counted.windows.push(Window { partition, window_start, ..Window::default() });
                counted.windows.len() - 1
            });
            counted.windows[at].next_offset = offset + 1;
            counted.windows[at].seen += 1;
            at
        };
        for (hour, part) in (0..plan.hours()).flat_map(|hour| (0..plan.parts(hour)).map(move |part| (hour, part))) {
            plan.fill(hour, part, &mut stretch);
            for place in stretch.views() {
                let view = plan.view(place, hour);
                truth.count(plan, place, &view, hour);
                truth.view_in(view.key as usize % PARTITIONS, plan, place, &view);
                let at = window(&mut counted, view.key);
                let scope = if drops == Drops::InItsWindow { at } else { 0 };
                if !ids.insert((scope, view.id)) && drops != Drops::Nothing {
                    counted.windows[at].duplicate += 1;
                    continue;
                }
                counted.windows[at].accepted += 1;
                let project = counted.projects.entry(plan.slug(view.project).to_owned()).or_default();
                if view.visitor.is_none() {
                    project.bots += 1;
                    continue;
                }
                project.views += 1;
                project.visits += u64::from(view.arrival);
                counted.hours[(view.hour.0 - plan.month().first_hour().0) as usize] += 1;
                let pages = counted.pages.entry(plan.slug(view.project).to_owned()).or_default();
                *pages.entry((view.page.path(), view.page.status())).or_default() += 1;
            }
            let (key, tally) = plan.tally(hour, part);
            truth.tally(&tally);
            truth.partitions[key as usize % PARTITIONS].records += 1;
            let at = window(&mut counted, key);
            counted.windows[at].tallies += 1;
            counted.windows[at].rejected_beacons += tally.count;
            let reason = RejectionReason::from_number(tally.reason).unwrap().name().to_owned();
            *counted.refusals.entry((tally.project, reason)).or_default() += tally.count;
        }
        (truth, counted)
    }

    fn compare(plan: &Plan, truth: &Truth, counted: Counted) -> anyhow::Result<usize> {
        let expected = Expected::new(plan, truth, &counted.windows, MOST)?;
        expected.hours(&counted.hours)?;
        expected.projects(counted.projects)?;
        assert!(expected.pages(counted.pages)? > 100);
        expected.refusals(&counted.refusals)?;
        Ok(expected.parted.len())
    }

    /// The error for a month that was counted this way.
    fn wrong(drops: Drops, but: impl FnOnce(&mut Counted)) -> String {
        let plan = plan();
        let (truth, mut counted) = month(&plan, drops);
        but(&mut counted);
        format!("{:#}", compare(&plan, &truth, counted).unwrap_err())
    }

    #[test]
    fn correct_counts_pass_with_repeats_in_two_windows() {
        let plan = plan();
        let (truth, counted) = month(&plan, Drops::InItsWindow);
        let parted = compare(&plan, &truth, counted).unwrap();
        assert!(parted > 0 && parted < truth.repeats as usize / 2, "{parted} of {}", truth.repeats);
    }

    #[test]
    fn a_fold_that_drops_no_repeats_fails_and_so_does_one_that_drops_too_many() {
        for drops in [Drops::Nothing, Drops::Anywhere] {
            let said = wrong(drops, |_| {});
            assert!(said.contains("repeats were dropped in the window at"), "{said}");
        }
        // A falsified ledger does not help: the ledger of one fold with the rows of another is detected.
        let (_, right) = month(&plan(), Drops::InItsWindow);
        let said = wrong(Drops::Nothing, |counted| counted.windows = right.windows);
        assert!(said.contains("views are counted of"), "{said}");
    }

    #[test]
    fn one_view_too_many_too_few_or_somewhere_else_fails() {
        let largest = plan().slug(0).to_owned();
        let said = wrong(Drops::InItsWindow, |counted| {
            counted.hours[100] -= 1;
            counted.hours[101] += 1;
        });
        assert!(said.contains("hour 100 of the month"), "{said}");
        for but in [
            (|counts| counts.views += 1) as fn(&mut Counts),
            |counts| counts.visits -= 1,
            |counts| (counts.views, counts.bots) = (counts.views - 1, counts.bots + 1),
        ] {
            let said = wrong(Drops::InItsWindow, |counted| but(counted.projects.get_mut(&largest).unwrap()));
            assert!(said.contains(&format!("{largest}: Counts")), "{said}");
        }
        let said = wrong(Drops::InItsWindow, |counted| {
            counted.projects.insert("stranger".to_owned(), Counts::default());
        });
        assert!(said.contains("no project of the month"), "{said}");
        let said = wrong(Drops::InItsWindow, |counted| {
            let mut pages = counted.pages.get_mut(&largest).unwrap().values_mut();
            *pages.next().unwrap() += 1;
            *pages.next().unwrap() -= 1;
        });
        assert!(said.contains(&format!("{largest}/")), "{said}");
        let said = wrong(Drops::InItsWindow, |counted| {
            counted.pages.get_mut(&largest).unwrap().insert(("/nowhere".to_owned(), 200), 1);
        });
        assert!(said.contains("pages without views") && said.contains("/nowhere"), "{said}");
        let said = wrong(Drops::InItsWindow, |counted| *counted.refusals.values_mut().next().unwrap() += 1);
        assert!(said.contains("refused beacons are counted of"), "{said}");
    }

    #[test]
    fn windows_with_gaps_or_arbitrary_bounds_fail() {
        let said = wrong(Drops::InItsWindow, |counted| counted.windows = counted.windows.split_off(1));
        assert!(said.contains("the one before it ends at 0"), "{said}");
        let said = wrong(Drops::InItsWindow, |counted| counted.windows.truncate(counted.windows.len() - 1));
        assert!(said.contains("it has") && said.contains("records of"), "{said}");
        // Two windows instead of one; the clock may be a reason.
        let halve = |counted: &mut Counted, appended| {
            let mut second = counted.windows[0].clone();
            counted.windows[0].next_offset = MOST / 2;
            counted.windows[0].seen = MOST / 2;
            (second.window_start, second.seen, second.appended) = (MOST / 2, MOST / 2, appended);
            counted.windows.push(second);
        };
        let said = wrong(Drops::InItsWindow, |counted| halve(counted, SPAN_HOURS * 3_600 - 1));
        assert!(said.contains("was closed after 10 records of 20"), "{said}");
        let said = wrong(Drops::InItsWindow, |counted| halve(counted, SPAN_HOURS * 3_600));
        assert!(!said.contains("was closed after 10 "), "{said}");
    }

    #[test]
    fn a_window_that_spans_a_noon_fails() {
        let window = |window_start: u64| Window {
            window_start,
            next_offset: window_start + MOST,
            seen: MOST,
            ..Window::default()
        };
        let windows = [window(0), window(MOST)];
        let covers = |spans: &[u64]| {
            let mut sent = Sent::default();
            (sent.records, sent.spans) = (2 * MOST, spans.to_vec());
            covers(&windows.iter().collect::<Vec<_>>(), &sent, MOST).map_err(|error| error.to_string())
        };
        assert_eq!(covers(&[0, MOST]), Ok(()));
        assert_eq!(covers(&[0, MOST, 2 * MOST]), Ok(()), "nothing was sent after it");
        assert_eq!(covers(&[0, 7, MOST]), Err("no window begins at 7, where half a day does".to_owned()));
    }
}
