//! Reports made lately. A report that is asked for again is the same one while nothing that it was made of has changed, and whether
//! that is so is a smaller question than the report: see [`Mark`].
//!
//! In a running month that is read much, every few seconds something changes. There a report is told a little longer than it is true,
//! in proportion to what it costs to make ([`Patience`]), and is made anew before its time is up, as long as
//! somebody reads it, that of a large project before anybody does ([`crate::ready`]). So whoever reads a large project's report does not
//! wait for it each time. Where these are more than can be made anew in that time, all are told longer: older figures, and not slower ones.
//!
//! What is kept has been told already: figures that went through the floor, and no sketch.

use crate::period::Period;
use crate::report::{BreakdownItem, MonthlyReport, PageFigures};
use chrono_tz::Tz;
use clickhouse::Row;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use schemas::ProjectSlug;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No report is told longer, changed or not: a newer fold that reads a window again writes rows of the same versions.
const AGE: Duration = Duration::from_secs(300);

/// No report is told longer than this after its rows were looked at the last time, but one that is made before its reader comes, and all
/// where those are many ([`Patience::longer`]).
const LONGEST: Duration = Duration::from_secs(60);

// What is told longest is told no longer than any.
const _: () = assert!(LONGEST.as_secs() * (crate::ready::LONGER as u64) <= AGE.as_secs());

/// For how many times as long as it took to make a report of a running month is told, though rows may have come; 0: never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Patience {
    pub(crate) times: u32,
    /// How many times as long as that ([`crate::ready::Ready::longer`]).
    pub(crate) longer: f64,
}

impl Patience {
    /// None.
    pub(crate) const NONE: Patience = Patience { times: 0, longer: 1.0 };

    /// How long one that took so long to make is told.
    pub(crate) fn of(self, took: Duration) -> Duration {
        took.saturating_mul(self.times).min(LONGEST).mul_f64(self.longer)
    }
}

/// Of rows of hours and of refused beacons: how many there are, and the sum of their `next_offset`. A row that is new makes both larger,
/// one that is replaced the sum; rows go only with a close, with their project, or with their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub(crate) struct Versions {
    rows: u64,
    /// Modulo 2⁶⁴, as ClickHouse adds.
    sum: u64,
}

impl Versions {
    /// Adds `rows` more.
    pub(crate) fn add(&mut self, rows: u64, sum: u64) {
        (self.rows, self.sum) = (self.rows + rows, self.sum.wrapping_add(sum));
    }
}

/// What a report was made of: up to which hour it goes, the versions of its project's rows, who closed its months, and what the project
/// says of itself. Hours are read before the lists: what comes in between may be in the report, and then its mark is not theirs, so it is
/// made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The parts of its months that had begun.
    pub(crate) periods: Vec<Period>,
    /// Of its rows.
    pub(crate) rows: Versions,
    /// (month, run), of those that are closed.
    pub(crate) runs: Vec<(u16, u64)>,
    /// Of the project's registration; 0 where it has none.
    pub(crate) revision: u64,
    /// The project's.
    pub(crate) time_zone: Tz,
}

impl Mark {
    /// Whether all differences are what an hour, or a minute, brings.
    fn differs_in_time_only(&self, other: &Mark) -> bool {
        (&self.runs, self.revision, self.time_zone) == (&other.runs, other.revision, other.time_zone)
    }
}

/// Whose report, and what of it was asked for.
pub(crate) type Key = (ProjectSlug, String);

#[derive(Clone)]
struct Kept {
    mark: Mark,
    made: Instant,
    /// When it was known the last time that there are no other rows.
    looked: Instant,
    took: Duration,
    report: Arc<MonthlyReport>,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Kept> for ByBytes {
    fn weight(&self, (project, asked): &Key, kept: &Kept) -> u64 {
        (project.as_str().len() + asked.len() + bytes(&kept.report)) as u64
    }
}

/// Some mebibytes of reports; those that are asked for most stay.
pub(crate) struct KeptReports {
    cache: Option<Cache<Key, Kept, ByBytes>>,
}

impl KeptReports {
    /// At most so many bytes of them; 0 keeps none.
    pub(crate) fn new(most_bytes: u64) -> Self {
        let reports = usize::try_from(most_bytes / TYPICAL).unwrap_or(usize::MAX);
        let cache = (most_bytes > 0).then(|| Cache::with_weighter(reports.max(1), most_bytes, ByBytes));
        KeptReports { cache }
    }

    /// Whether it keeps any.
    pub(crate) fn keeps(&self) -> bool {
        self.cache.is_some()
    }

    /// The report, if it may be told at `now` without asking whether rows have come, and though an hour may have begun since. `known` is
    /// all of its mark but the rows. One without views is not: whoever reads it waits for the first.
    pub(crate) fn lately(
        &self,
        key: &Key,
        known: &Mark,
        patience: Patience,
        now: Instant,
    ) -> Option<Arc<MonthlyReport>> {
        let kept = self.cache.as_ref()?.get(key)?;
        let is_young = now.saturating_duration_since(kept.looked) < patience.of(kept.took)
            && now.saturating_duration_since(kept.made) < AGE;
        let has_views = kept.report.totals.views > 0;
        (is_young && has_views && kept.mark.differs_in_time_only(known)).then_some(kept.report)
    }

    /// The report, if it was made of what there is now. `looked` is when that was asked. Else it stays until the next one
    /// replaces it: meanwhile it may be told with [`KeptReports::lately`].
    pub(crate) fn get(&self, key: &Key, mark: &Mark, looked: Instant) -> Option<Arc<MonthlyReport>> {
        let cache = self.cache.as_ref()?;
        let kept = cache.get(key)?;
        if kept.mark == *mark && kept.made.elapsed() < AGE {
            let report = Arc::clone(&kept.report);
            cache.insert(key.clone(), Kept { looked, ..kept });
            return Some(report);
        }
        None
    }

    /// Whether there is one that may still be told.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.peek(key).is_some_and(|kept| kept.made.elapsed() < AGE))
    }

    /// Keeps it, and says how long it took; its rows were begun to be read at `begun`.
    pub(crate) fn put(&self, key: Key, mark: Mark, begun: Instant, report: &Arc<MonthlyReport>) -> Duration {
        let (made, report) = (Instant::now(), Arc::clone(report));
        let took = made - begun;
        if let Some(cache) = &self.cache
            // One that took longer may come after one that was begun later.
            && cache.peek(&key).is_none_or(|kept| kept.looked <= begun)
        {
            cache.insert(key, Kept { mark, made, looked: begun, took, report });
        }
        took
    }

    /// Forgets all of a project that is gone.
    pub(crate) fn forget(&self, project: &ProjectSlug) {
        if let Some(cache) = &self.cache {
            cache.retain(|(of, _), _| of != project);
        }
    }
}

/// Bytes of a usual report; only how many places are made ready depends on it.
const TYPICAL: u64 = 64 << 10;

/// What a report takes in memory, nearly: its lists, and the texts in them.
fn bytes(report: &MonthlyReport) -> usize {
    let values =
        |items: &[BreakdownItem]| items.iter().map(|item| size_of::<BreakdownItem>() + item.value.len()).sum::<usize>();
    let page = |page: &PageFigures| size_of::<PageFigures>() + page.path.len() + values(&page.referrers);
    size_of::<MonthlyReport>()
        + size_of_val(report.hours.as_slice())
        + size_of_val(report.days.as_slice())
        + size_of_val(report.months.as_slice())
        + size_of_val(report.rejected_hosts.as_slice())
        + report.pages.items.iter().chain(&report.not_found.items).map(page).sum::<usize>()
        + report.breakdowns.values().map(|items| values(items)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::period::Span;
    use crate::report::{ReportFacts, Rules};

    const ROWS: Versions = Versions { rows: 2, sum: 7 };

    fn report() -> Arc<MonthlyReport> {
        let span: Span = "2026-10".parse().unwrap();
        let facts = ReportFacts::new(&[Period::whole(span.first())]);
        Arc::new(MonthlyReport::of("docs".parse().unwrap(), span, &facts, Rules::default()))
    }

    fn key(project: &str, asked: &str) -> Key {
        (project.parse().unwrap(), asked.to_owned())
    }

    #[test]
    fn a_report_is_kept_until_anything_that_it_was_made_of_changes() {
        let kept = KeptReports::new(1 << 20);
        let docs = key("docs", "2026-10");
        let mark = Mark { periods: vec![], rows: ROWS, runs: vec![(20_000, 1)], revision: 1, time_zone: Tz::UTC };
        kept.put(docs.clone(), mark.clone(), Instant::now(), &report());
        assert!(kept.get(&docs, &mark, Instant::now()).is_some());
        assert!(kept.get(&key("other", "2026-10"), &mark, Instant::now()).is_none());
        assert!(kept.get(&key("docs", "2026-09"), &mark, Instant::now()).is_none());
        for other in [
            Mark { periods: vec![Period::whole("2026-10".parse().unwrap())], ..mark.clone() },
            Mark { rows: Versions { rows: 3, ..ROWS }, ..mark.clone() },
            Mark { rows: Versions { sum: 8, ..ROWS }, ..mark.clone() },
            Mark { runs: vec![(20_000, 2)], ..mark.clone() },
            Mark { runs: vec![], ..mark.clone() },
            Mark { revision: 2, ..mark.clone() },
            Mark { time_zone: Tz::Europe__Berlin, ..mark.clone() },
        ] {
            kept.put(docs.clone(), mark.clone(), Instant::now(), &report());
            assert!(kept.get(&docs, &other, Instant::now()).is_none(), "{other:?}");
        }
    }

    #[test]
    fn what_took_long_is_told_longer() {
        let kept = KeptReports::new(1 << 20);
        let (docs, begun) = (key("docs", "2026-10"), Instant::now());
        let mark = Mark { periods: vec![], rows: ROWS, runs: vec![], revision: 1, time_zone: Tz::UTC };
        let mut read = MonthlyReport::clone(&report());
        read.totals.views = 1;
        kept.put(docs.clone(), mark.clone(), begun, &Arc::new(read));
        let place = |took: Duration| {
            let cache = kept.cache.as_ref().unwrap();
            let held = cache.get(&docs).unwrap();
            cache.insert(docs.clone(), Kept { took, ..held });
        };
        let lately = |known: &Mark, patience: u32, after: Duration| {
            kept.lately(&docs, known, Patience { times: patience, ..Patience::NONE }, begun + after).is_some()
        };
        let milliseconds = Duration::from_millis;
        place(milliseconds(100));
        let next_hour = vec![Period::whole("2026-10".parse().unwrap())];
        let others = Mark { periods: next_hour, rows: Versions { rows: 9, sum: 99 }, ..mark.clone() };
        assert!(lately(&others, 200, milliseconds(19_999)));
        assert!(!lately(&others, 200, milliseconds(20_000)));
        assert!(!lately(&mark, 0, Duration::ZERO), "no patience");
        for other in [Mark { runs: vec![(20_000, 1)], ..mark.clone() }, Mark { revision: 2, ..mark.clone() }] {
            assert!(
                !lately(&other, 200, Duration::ZERO),
                "a close, or a change to the project, is told at once: {other:?}"
            );
        }
        place(Duration::from_secs(30));
        assert!(lately(&others, 200, Duration::from_secs(59)));
        assert!(!lately(&others, 200, LONGEST));
        let longer = Patience { times: 200, longer: 2.5 };
        assert!(kept.lately(&docs, &others, longer, begun + Duration::from_secs(149)).is_some());
        assert!(kept.lately(&docs, &others, longer, begun + Duration::from_secs(150)).is_none());

        // Looked at again and again, it is still not told for longer than any.
        let cache = kept.cache.as_ref().unwrap();
        let looked = begun + AGE - milliseconds(1);
        cache.insert(docs.clone(), Kept { looked, ..cache.get(&docs).unwrap() });
        assert!(lately(&others, 200, AGE - milliseconds(1)));
        assert!(!lately(&others, 200, AGE + milliseconds(500)));
        // One that was begun before it, and took longer, does not replace it.
        kept.put(docs.clone(), others.clone(), begun, &report());
        assert!(kept.get(&docs, &others, begun).is_none() && kept.get(&docs, &mark, looked).is_some());

        // Whatever it took.
        for (views, expected) in [(1, true), (0, false)] {
            let mut read = MonthlyReport::clone(&report());
            read.totals.views = views;
            let quiet = key("quiet", &views.to_string());
            kept.put(quiet.clone(), mark.clone(), begun, &Arc::new(read));
            let told = kept.lately(&quiet, &others, Patience { times: u32::MAX, longer: 1.0 }, begun).is_some();
            assert_eq!(told, expected, "the first view is told at once: {views}");
        }
    }

    #[test]
    fn of_a_project_that_is_gone_nothing_is_kept() {
        let kept = KeptReports::new(1 << 20);
        let mark = Mark { periods: vec![], rows: ROWS, runs: vec![], revision: 1, time_zone: Tz::UTC };
        let months = ["2026-09", "2026-10", "2026-09..2026-10"];
        let keys = |project: &str| months.map(|asked| key(project, asked));
        let others = keys("docs-of-another");
        for key in keys("docs").into_iter().chain(others.clone()) {
            kept.put(key, mark.clone(), Instant::now(), &report());
        }
        kept.forget(&"docs".parse().unwrap());
        assert_eq!(kept.cache.as_ref().map(Cache::len), Some(others.len()));
        assert!(others.iter().all(|key| kept.get(key, &mark, Instant::now()).is_some()));
    }

    #[test]
    fn no_more_bytes_are_kept_than_allowed() {
        let most = 20 * bytes(&report()) as u64;
        let kept = KeptReports::new(most);
        let mark = Mark { periods: vec![], rows: ROWS, runs: vec![], revision: 1, time_zone: Tz::UTC };
        let of = |number: u64| key(&format!("docs-{number}"), "2026-10");
        for number in 0..200 {
            kept.put(of(number), mark.clone(), Instant::now(), &report());
        }
        let there = (0..200).filter(|&number| kept.get(&of(number), &mark, Instant::now()).is_some()).count();
        assert!((5..=20).contains(&there), "{there}");
        let none = KeptReports::new(0);
        none.put(of(0), mark.clone(), Instant::now(), &report());
        assert!(none.get(&of(0), &mark, Instant::now()).is_none());
    }
}
