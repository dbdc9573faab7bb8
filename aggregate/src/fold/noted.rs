//! Views by the version of the rules that classified them, and pages that readers' browsers reported as missing.

use super::cells::Cells;
use super::texts::Text;
use super::{Rows, WindowState};
use schemas::caps::MORE_PATH;
use schemas::record::ReportedMissingRef;
use schemas::tables::{ReportedMissingDailyRow, RulesDailyRow};
use std::hash::BuildHasher;

pub(super) struct RulesKey {
    project_day: u32,
    rules: u32,
}

pub(super) struct ReportedKey {
    project_day: u32,
    path: Text,
}

/// The accumulators of both.
#[derive(Default)]
pub(super) struct Noted {
    rules: Cells<RulesKey, u64>,
    reported: Cells<ReportedKey, u64>,
}

impl Noted {
    /// Cells changed since the last freeze.
    pub(super) fn dirty(&self) -> usize {
        self.rules.dirty() + self.reported.dirty()
    }

    pub(super) fn len(&self) -> usize {
        self.rules.len() + self.reported.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rules.memory_bytes() + self.reported.memory_bytes()
    }
}

impl WindowState {
    /// Counts a view that these rules classified. They change at most once in most windows, so the day holds the position of the last.
    #[inline]
    pub(super) fn rules(&mut self, project_day: u32, rules: u32) {
        let last = &mut self.project_days.peek(project_day).last_rules;
        let position = match *last {
            Some((of, position)) if of == rules => position,
            _ => {
                let hash = self.hasher.hash_one((project_day, rules));
                let same = |key: &RulesKey| (key.project_day, key.rules) == (project_day, rules);
                let known = self.noted.rules.find(hash, same);
                known.unwrap_or_else(|| self.noted.rules.begin(hash, RulesKey { project_day, rules }))
            }
        };
        *last = Some((rules, position));
        *self.noted.rules.change(position) += 1;
    }

    /// Counts the reports of a tally; in the overflow if the day has as many reported pages as it may.
    pub(super) fn reported_missing(&mut self, tally: &ReportedMissingRef<'_>) {
        if !self.is_new_tally(tally.project, tally.id) {
            return;
        }
        let slug = self.hasher.hash_one(tally.project.as_bytes());
        let project_day = self.project_day(slug, tally.project, tally.hour.day());
        let mut path = self.texts.intern(tally.path);
        let mut found = self.find_reported(project_day, path);
        if found.is_none() && tally.path != MORE_PATH {
            let reported = &mut self.project_days.peek(project_day).reported;
            if *reported < self.limits.pages {
                *reported += 1;
            } else {
                path = self.texts.intern(MORE_PATH);
                found = self.find_reported(project_day, path);
            }
        }
        let position = found.unwrap_or_else(|| {
            let hash = self.hasher.hash_one((project_day, path));
            self.noted.reported.begin(hash, ReportedKey { project_day, path })
        });
        let reports = self.noted.reported.change(position);
        *reports = reports.saturating_add(tally.count);
    }

    fn find_reported(&self, project_day: u32, path: Text) -> Option<u32> {
        let hash = self.hasher.hash_one((project_day, path));
        self.noted.reported.find(hash, |key| (key.project_day, key.path) == (project_day, path))
    }

    /// The rows of both that have changed since the last freeze.
    pub(super) fn freeze_noted(&mut self, rows: &mut Rows) {
        let (stream, window_start, next_offset) = (self.stream.0, self.start.offset, self.next_offset);
        let (texts, project_days) = (&self.texts, &self.project_days);
        self.noted.rules.freeze(|key, &mut views| {
            let of = project_days.key(key.project_day);
            let (project, day, rules) = (texts.to_string(of.project), of.day.0, key.rules);
            rows.rules.push(RulesDailyRow { project, day, rules, views, stream, window_start, next_offset });
        });
        self.noted.reported.freeze(|key, &mut reports| {
            let of = project_days.key(key.project_day);
            let (project, day, path) = (texts.to_string(of.project), of.day.0, texts.to_string(key.path));
            rows.reported_missing.push(ReportedMissingDailyRow {
                project,
                day,
                path,
                reports,
                stream,
                window_start,
                next_offset,
            });
        });
    }
}
