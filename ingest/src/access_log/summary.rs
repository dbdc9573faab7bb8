//! What became of the lines of an import, by reason.

use super::line::NotRead;
use super::view::{NotCounted, Outcome};
use schemas::Hour;
use schemas::classes::BotClass;
use std::collections::BTreeMap;

/// A line by its place: index of the file, and number of the line from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the file in the import.
    pub file: usize,
    /// Number of the line in it, from 1.
    pub line: u64,
}

/// Lines for one reason, and where the first one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Place,
}

/// Counts of lines. Each line is in exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All lines.
    pub lines: u64,
    /// Page views of people, or of readers whose agent is not known.
    pub views: u64,
    /// Of them, those of which the format has no user agent.
    pub views_without_agent: u64,
    /// Of them, those of which the log has no IP address: they have no visitor.
    pub views_without_client: u64,
    /// Page views of robots by kind, as the kind's number.
    pub robots: BTreeMap<i32, u64>,
    /// First and last hour of all views.
    pub hours: Option<(Hour, Hour)>,
    /// Lines that were read and are no views that count.
    pub not_counted: BTreeMap<NotCounted, u64>,
    /// Lines that were not read.
    pub not_read: BTreeMap<NotRead, Lines>,
}

impl Summary {
    /// Adds a line.
    pub fn add(&mut self, outcome: &Outcome, place: Place) {
        self.lines += 1;
        if let Outcome::View(view) = outcome {
            let (first, last) = self.hours.unwrap_or((view.hour, view.hour));
            self.hours = Some((first.min(view.hour), last.max(view.hour)));
        }
        match outcome {
            Outcome::View(view) if view.classes.bot_class == BotClass::Person => {
                self.views += 1;
                self.views_without_agent += u64::from(!view.has_agent);
                self.views_without_client += u64::from(view.client.is_none());
            }
            Outcome::View(view) => *self.robots.entry(view.classes.bot_class as i32).or_default() += 1,
            Outcome::NotCounted(reason) => *self.not_counted.entry(*reason).or_default() += 1,
            Outcome::NotRead(reason) => {
                self.not_read.entry(*reason).or_insert(Lines { count: 0, first: place }).count += 1;
            }
        }
    }

    /// Page views of robots.
    pub fn robot_views(&self) -> u64 {
        self.robots.values().sum()
    }

    /// Lines that were not read, without blank lines, comments and messages of other kinds.
    pub fn unreadable(&self) -> u64 {
        let is_request = |reason: &NotRead| !matches!(reason, NotRead::Blank | NotRead::Directive | NotRead::OtherKind);
        self.not_read.iter().filter(|(reason, _)| is_request(reason)).map(|(_, lines)| lines.count).sum()
    }
}
