//! Which reports of running months are made before somebody asks for them: those that cost much, as long as they are read.
//!
//! A report that is told longer than it is true ([`crate::kept`]) is at some time too old to be told, and the next reader waits for
//! another. Of a small project that is some hundredths of a second. Of the largest it is the longest wait that there is, and they are
//! read most. So those are made anew, one after the other, at half of the time for which they are told.

use crate::period::Span;
use schemas::ProjectSlug;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A report that may be told for so long is worth it: by default one that took a tenth of a second.
const COSTLY: Duration = Duration::from_secs(20);

/// For how long after somebody read it.
const READ_LATELY: Duration = Duration::from_secs(600);

/// How many at once. At half of its time each takes a hundredth of a processor by default, whatever it costs.
const MOST: usize = 32;

/// No report is made again sooner.
const PAUSE: Duration = Duration::from_secs(1);

/// A report with the first `limit` of its pages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    pub(crate) project: ProjectSlug,
    pub(crate) span: Span,
    pub(crate) limit: usize,
}

/// How a report that was made may be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// When it was made.
    pub(crate) at: Instant,
    /// For so long; none where there was nothing new, so that it costs what it did.
    pub(crate) during: Option<Duration>,
    /// Its hours are others after so long.
    pub(crate) hour_ends_in: Duration,
}

#[derive(Debug)]
struct Entry {
    read: Instant,
    during: Duration,
    due: Instant,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Make(Subject),
    Wait(Duration),
    /// Nobody reads anything; whoever asked what to do has ended.
    Over,
}

/// The reports that are kept ready.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    entries: HashMap<Subject, Entry>,
    is_kept: bool,
}

impl Ready {
    /// Somebody read it at `now`.
    pub(crate) fn read(&mut self, subject: &Subject, now: Instant) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.read = now;
        }
    }

    /// It was made, for a reader or (`is_read` is false) before one. Of too many, those that cost least are left out. Says whether
    /// somebody has to begin to ask what is next.
    pub(crate) fn made(&mut self, subject: Subject, told: Told, is_read: bool) -> bool {
        let before = self.entries.remove(&subject);
        let read = if is_read { Some(told.at) } else { before.as_ref().map(|entry| entry.read) };
        let during = told.during.or(before.map(|entry| entry.during)).filter(|during| *during >= COSTLY);
        let (Some(read), Some(during)) = (read, during) else { return false };
        if self.entries.len() >= MOST
            && let Some((cheapest, least)) =
                self.entries.iter().map(|(subject, entry)| (subject.clone(), entry.during)).min_by_key(|(_, of)| *of)
        {
            if least >= during {
                return false;
            }
            self.entries.remove(&cheapest);
        }
        let due = told.at + (during / 2).min(told.hour_ends_in).max(PAUSE);
        self.entries.insert(subject, Entry { read, during, due });
        !std::mem::replace(&mut self.is_kept, true)
    }

    /// It could not be made; the next reader finds out why.
    pub(crate) fn failed(&mut self, subject: &Subject) {
        self.entries.remove(subject);
    }

    /// What is to be done at `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.read) < READ_LATELY);
        match self.entries.iter().min_by_key(|(_, entry)| entry.due) {
            None => {
                self.is_kept = false;
                Next::Over
            }
            Some((subject, entry)) if entry.due <= now => Next::Make(subject.clone()),
            Some((_, entry)) => Next::Wait((entry.due - now).min(PAUSE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(number: u32) -> Subject {
        let project = format!("docs-{number}").parse().unwrap();
        Subject { project, span: "2026-10".parse().unwrap(), limit: 100 }
    }

    fn told(at: Instant, during: u64) -> Told {
        Told { at, during: Some(Duration::from_secs(during)), hour_ends_in: Duration::from_secs(3_600) }
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_costs_much_is_made_again_at_half_of_its_time_as_long_as_it_is_read() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        assert!(!ready.made(subject(1), told(begun, 19), true), "it costs too little");
        assert_eq!(ready.next(begun), Next::Over);

        assert!(ready.made(subject(1), told(begun, 60), true));
        assert!(!ready.made(subject(2), told(begun + seconds(1), 20), true), "somebody asks already");
        assert_eq!(ready.next(begun), Next::Wait(PAUSE));
        assert_eq!(ready.next(begun + seconds(11)), Next::Make(subject(2)));
        ready.failed(&subject(2));
        assert_eq!(ready.next(begun + seconds(29)), Next::Wait(PAUSE));
        assert_eq!(ready.next(begun + seconds(30)), Next::Make(subject(1)));

        // Nothing had come: it costs what it did.
        ready.read(&subject(1), begun + seconds(10));
        ready.made(subject(1), Told { during: None, ..told(begun + seconds(31), 0) }, false);
        assert_eq!(ready.next(begun + seconds(60)), Next::Wait(PAUSE));
        assert_eq!(ready.next(begun + seconds(61)), Next::Make(subject(1)));
        // Made anew it is still not read, and so its end is that of its last reader's ten minutes.
        assert!(!ready.made(subject(1), told(begun + seconds(570), 60), false));
        assert_eq!(ready.next(begun + seconds(609)), Next::Make(subject(1)));
        assert_eq!(ready.next(begun + seconds(610)), Next::Over);
        assert!(!ready.made(subject(1), told(begun + seconds(610), 60), false), "nobody reads it any more");
        assert!(ready.made(subject(1), told(begun + seconds(611), 60), true), "somebody does again");
    }

    #[test]
    fn one_that_has_become_cheap_is_let_go_and_the_hour_is_waited_for() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        let at_the_end = |left: u64| Told { hour_ends_in: seconds(left), ..told(begun, 60) };
        assert!(ready.made(subject(1), at_the_end(7), true));
        assert_eq!(ready.next(begun + seconds(7)), Next::Make(subject(1)), "after the hour its figures are others");
        assert!(!ready.made(subject(1), at_the_end(0), false));
        assert_eq!(ready.next(begun), Next::Wait(PAUSE), "not in a loop until the hour is over");
        assert!(!ready.made(subject(1), told(begun, 5), false));
        assert_eq!(ready.next(begun + seconds(99)), Next::Over);
    }

    #[test]
    fn of_too_many_those_that_cost_most_are_ready() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        for number in 0..MOST as u32 {
            ready.made(subject(number), told(begun, 25 + u64::from(number)), true);
        }
        ready.made(subject(100), told(begun, 25), true);
        assert!(!ready.entries.contains_key(&subject(100)), "it costs no more than any");
        ready.made(subject(101), told(begun, 60), true);
        assert!(ready.entries.contains_key(&subject(101)) && !ready.entries.contains_key(&subject(0)));
        assert_eq!(ready.entries.len(), MOST);
        // One that is there makes room for itself.
        ready.made(subject(1), told(begun, 24), false);
        assert_eq!(ready.entries.len(), MOST);
    }
}
