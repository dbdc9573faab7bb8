//! Which records are in the log: views of the busy hours of a month, a pure function of the seed. What they add up to is counted
//! beside.

use schemas::Hour;
use serde::Serialize;

use crate::month::plan::{Plan, Size};

/// The log has as many records as this many mean hours of its month.
const HOURS: u64 = 8;
/// An hour of the month, and the hour since the month's start in which the log begins: a Monday morning.
const MONTH: Hour = Hour(491_000);
const FROM: u32 = 31;

/// A log, before it is records.
#[derive(Debug, Clone)]
pub struct Log {
    plan: Plan,
    records: u64,
}

/// What a log adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Records.
    pub records: u64,
    /// Bytes of the records, without keys and framing.
    pub bytes: u64,
    /// Records that repeat an id.
    pub repeats: u64,
    /// Views by people, each id once.
    pub views: u64,
    /// Views by people, repeats counted again.
    pub views_with_repeats: u64,
}

impl Log {
    /// A log of `records` page views of `projects` projects (at least one).
    #[must_use]
    pub fn new(seed: u64, records: u64, projects: u32) -> Self {
        let month = MONTH.month();
        let hours = u64::from(month.end_hour().0 - month.first_hour().0);
        Self { plan: Plan::new(seed, month, Size { projects, views: records * hours / HOURS }), records }
    }

    /// Hands out the records in order, each with its key: a repeat has the key of its twin. Returns what they add up to.
    ///
    /// # Errors
    /// Those of `of`, after which it is handed no more.
    pub fn each(&self, mut of: impl FnMut(u64, Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<Truth> {
        let (mut truth, mut outcome) = (Truth::default(), Ok(()));
        for hour in FROM..self.plan.hours() {
            self.plan.each(hour..hour + 1, |place, view, _| {
                if truth.records == self.records || outcome.is_err() {
                    return;
                }
                let (person, record) = (u64::from(view.visitor.is_some()), view.record(&self.plan));
                truth.records += 1;
                truth.bytes += record.len() as u64;
                truth.repeats += u64::from(place.repeat);
                truth.views += if place.repeat { 0 } else { person };
                truth.views_with_repeats += person;
                outcome = of(view.key, record);
            });
            if truth.records == self.records || outcome.is_err() {
                break;
            }
        }
        outcome.map(|()| truth)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use schemas::record::{Record, decode};

    use super::*;

    #[test]
    fn every_record_decodes_and_the_truth_adds_up() {
        let (mut people, mut keys) = (0, HashMap::new());
        let truth = Log::new(3, 20_000, 500).each(|key, bytes| {
            let Ok(Record::PageView(view)) = decode(&bytes) else { panic!("{bytes:?}") };
            match keys.insert(view.event_id, key) {
                Some(twin) => assert_eq!(twin, key, "a repeat has its twin's key"),
                None => people += u64::from(view.bot.is_empty()),
            }
            Ok(())
        });
        let truth = truth.unwrap();
        assert_eq!((truth.records, truth.views), (20_000, people));
        assert_eq!(truth.repeats, 20_000 - keys.len() as u64);
        assert!((50..200).contains(&truth.repeats), "{truth:?}");
        assert!(truth.views_with_repeats > truth.views && truth.views > 16_000, "{truth:?}");
    }

    #[test]
    fn an_error_ends_it() {
        let mut handed = 0;
        let outcome = Log::new(3, 5_000, 50).each(|_, _| {
            handed += 1;
            anyhow::ensure!(handed < 7, "no more");
            Ok(())
        });
        assert_eq!((outcome.unwrap_err().to_string().as_str(), handed), ("no more", 7));
    }
}
