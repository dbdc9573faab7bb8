//! Which reports of running months are made before somebody asks for them: those of the largest projects, as long as they are read.
//!
//! A report that is told longer than it is true ([`crate::kept`]) is at some time too old to be told, and the next reader waits for
//! another. Of a small project that is some hundredths of a second. Of the largest it is the longest wait that there is, and they are
//! read most. So those are made anew, one after the other, at half of the time for which they are told. Only the month's usual report is:
//! there is one for each project, so that nobody can have one project's made in many forms.

use schemas::{Month, ProjectSlug};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A report that may be told for so long is worth it: by default one that took a sixtieth of a second.
const COSTLY: Duration = Duration::from_secs(10);

/// For how long after somebody read it.
const READ_LATELY: Duration = Duration::from_secs(600);

/// How many at once.
const MOST: usize = 32;

/// Longest time between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// After each one nothing is made for so many times as long as it took: all of them together take a fifth of the time at most.
pub(crate) const REST: u32 = 4;

/// A project's report of a month.
pub(crate) type Subject = (ProjectSlug, Month);

/// What making a report took, for how long it may be told from its beginning on, and how many page views it counts. What it took says
/// whether it is worth it, and its views which of two is worth more: the time is also others', of whatever the machine did then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) took: Duration,
    pub(crate) told: Duration,
    pub(crate) views: u64,
}

#[derive(Debug)]
struct Entry {
    read: Instant,
    made: Made,
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

    /// It was made for a reader, at `now`. Of too many, those with the least views are left out. Says whether somebody has to begin to ask
    /// what is next.
    pub(crate) fn made(&mut self, subject: Subject, made: Made, now: Instant) -> bool {
        self.entries.remove(&subject);
        if made.told < COSTLY {
            return false;
        }
        if self.entries.len() >= MOST
            && let Some((least, entry)) = self.entries.iter().min_by_key(|(_, entry)| entry.made.views)
        {
            if entry.made.views >= made.views {
                return false;
            }
            let least = least.clone();
            self.entries.remove(&least);
        }
        self.entries.insert(subject, Entry { read: now, made, due: due(made, now) });
        !std::mem::replace(&mut self.is_kept, true)
    }

    /// It was made before a reader, at `now`; without `made` there was nothing new, so that it costs what it did.
    pub(crate) fn made_before(&mut self, subject: &Subject, made: Option<Made>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.made = made.unwrap_or(entry.made);
            entry.due = due(entry.made, now);
            if entry.made.told < COSTLY {
                self.entries.remove(subject);
            }
        }
    }

    /// It could not be made; the next reader finds out why.
    pub(crate) fn failed(&mut self, subject: &Subject) {
        self.entries.remove(subject);
    }

    /// Whoever asked what is next does not any more.
    pub(crate) fn left(&mut self) {
        self.is_kept = false;
    }

    /// What is to be done at `now`. Of those that are due the one with the most views comes first: who has to wait for it waits longest.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.read) < READ_LATELY);
        let due = self.entries.iter().filter(|(_, entry)| entry.due <= now).max_by_key(|(_, entry)| entry.made.views);
        if let Some((subject, _)) = due {
            return Next::Make(subject.clone());
        }
        match self.entries.values().map(|entry| entry.due).min() {
            Some(due) => Next::Wait((due - now).min(LOOK)),
            None => {
                self.left();
                Next::Over
            }
        }
    }
}

/// Half of its time is from the beginning of its making on, which is over at `now`.
fn due(made: Made, now: Instant) -> Instant {
    now + (made.told / 2).saturating_sub(made.took)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(number: u32) -> Subject {
        (format!("docs-{number}").parse().unwrap(), "2026-10".parse().unwrap())
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// With a patience of 200, and three views for each millisecond.
    fn took(milliseconds: u64) -> Made {
        let took = Duration::from_millis(milliseconds);
        Made { took, told: (took * 200).min(seconds(60)), views: milliseconds * 3 }
    }

    #[test]
    fn what_costs_much_is_made_again_at_half_of_its_time_as_long_as_it_is_read() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        assert!(!ready.made(subject(1), took(49), begun), "it costs too little");
        assert_eq!(ready.next(begun), Next::Over);

        assert!(ready.made(subject(1), took(2_000), begun));
        assert!(!ready.made(subject(2), took(50), begun), "somebody asks already");
        assert_eq!(ready.next(begun), Next::Wait(LOOK));
        assert_eq!(ready.next(begun + Duration::from_millis(4_950)), Next::Make(subject(2)));
        ready.failed(&subject(2));
        assert_eq!(ready.next(begun + Duration::from_millis(27_999)), Next::Wait(Duration::from_millis(1)));
        assert_eq!(ready.next(begun + seconds(28)), Next::Make(subject(1)));

        // Nothing had come: it costs what it did.
        ready.read(&subject(1), begun + seconds(10));
        ready.made_before(&subject(1), None, begun + seconds(30));
        assert_eq!(ready.next(begun + seconds(57)), Next::Wait(LOOK));
        assert_eq!(ready.next(begun + seconds(58)), Next::Make(subject(1)));
        // Made before a reader it is not read, and so its end is that of its last reader's ten minutes.
        ready.made_before(&subject(1), Some(took(400)), begun + seconds(570));
        assert_eq!(ready.next(begun + seconds(609)), Next::Make(subject(1)));
        assert_eq!(ready.next(begun + seconds(610)), Next::Over);
        ready.made_before(&subject(1), Some(took(400)), begun + seconds(610));
        assert_eq!(ready.next(begun + seconds(700)), Next::Over, "nobody reads it any more");
        assert!(ready.made(subject(1), took(400), begun + seconds(700)), "somebody does again");
        ready.left();
        assert!(ready.made(subject(1), took(400), begun + seconds(701)), "whoever asked has died");
    }

    #[test]
    fn of_those_that_are_due_the_largest_comes_first() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        ready.made(subject(1), took(100), begun);
        ready.made(subject(2), took(5_000), begun);
        ready.made(subject(3), took(200), begun);
        assert_eq!(ready.next(begun + seconds(15)), Next::Make(subject(1)), "the others are not due yet");
        assert_eq!(ready.next(begun + seconds(25)), Next::Make(subject(2)), "though it was due last");
        ready.made_before(&subject(2), Some(took(5_000)), begun + seconds(30));
        assert_eq!(ready.next(begun + seconds(30)), Next::Make(subject(3)));
    }

    #[test]
    fn one_that_has_become_cheap_is_let_go() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        ready.made(subject(1), took(400), begun);
        ready.made_before(&subject(1), Some(took(49)), begun);
        assert_eq!(ready.next(begun), Next::Over);
        ready.made(subject(1), took(400), begun);
        ready.made(subject(1), took(49), begun);
        assert_eq!(ready.next(begun), Next::Over);
    }

    #[test]
    fn of_too_many_the_largest_are_ready() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        // All of these may be told equally long.
        for number in 0..MOST as u32 {
            ready.made(subject(number), took(1_000 + u64::from(number)), begun);
        }
        let slow = Made { took: seconds(9), ..took(1_000) };
        ready.made(subject(100), slow, begun);
        assert!(!ready.entries.contains_key(&subject(100)), "it is no larger than any, and was only slow");
        ready.made(subject(101), took(5_000), begun);
        assert!(ready.entries.contains_key(&subject(101)) && !ready.entries.contains_key(&subject(0)));
        assert_eq!(ready.entries.len(), MOST);
        // One that is there makes room for itself.
        ready.made(subject(1), took(900), begun);
        assert!(ready.entries.contains_key(&subject(1)) && ready.entries.len() == MOST);
    }
}
