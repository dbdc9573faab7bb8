//! Which reports of running months are made before somebody asks for them: those that are read, and of too many the largest.
//!
//! A report that is told longer than it is true ([`crate::kept`]) is at some time too old to be told, and the next reader waits for
//! another. Of a small project that is some hundredths of a second. Of the largest it is the longest wait that there is, and they are
//! read most. So they are made anew, one after the other, at half of the time for which they are told. Where these are more than can be made
//! in that time, all are told longer, up to [`LONGER`] times (as periodic tasks give way in Buttazzo, Lipari and Abeni, "Elastic task model
//! for adaptive rate control", RTSS 1998); of more than can be made even so, those with the most page views are. Only the month's usual
//! report is: there is one for each project, so that nobody can have one project's made in many forms.

use schemas::{Month, ProjectSlug};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One that may be told for less is soon made by its reader: by default one that took less than a sixtieth of a second.
const WORTH: Duration = Duration::from_secs(10);

/// For how long after somebody read it.
const READ_LATELY: Duration = Duration::from_secs(600);

/// How many at once.
const MOST: usize = 128;

/// How many times as long reports are told at most.
pub(crate) const LONGER: f64 = 5.0;

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
    /// When its making was over, or it was seen that there is nothing new.
    over: Instant,
}

impl Entry {
    /// Half of its time is from the beginning of its making on.
    fn due(&self, longer: f64) -> Instant {
        self.over + (self.made.told.mul_f64(longer) / 2).saturating_sub(self.made.took)
    }
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
    /// The time that it takes to make all of them once, by that in which they are due.
    load: f64,
}

impl Ready {
    /// Somebody read it at `now`.
    pub(crate) fn read(&mut self, subject: &Subject, now: Instant) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.read = now;
        }
    }

    /// How many times as long reports are told as if these were few.
    pub(crate) fn longer(&self) -> f64 {
        self.load.clamp(1.0, LONGER)
    }

    /// It was made for a reader, at `now`. Says whether somebody has to begin to ask what is next.
    pub(crate) fn made(&mut self, subject: Subject, made: Made, now: Instant) -> bool {
        self.entries.remove(&subject);
        if made.told >= WORTH {
            self.entries.insert(subject, Entry { read: now, made, over: now });
        }
        self.fit();
        !self.entries.is_empty() && !std::mem::replace(&mut self.is_kept, true)
    }

    /// It was made before a reader, at `now`; without `made` there was nothing new, so that it costs what it did.
    pub(crate) fn made_before(&mut self, subject: &Subject, made: Option<Made>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.made = made.unwrap_or(entry.made);
            entry.over = now;
            if entry.made.told < WORTH {
                self.entries.remove(subject);
            }
            self.fit();
        }
    }

    /// Leaves out those with the least views until all that are left can be made by the time they are due again, if they are told as
    /// long as may be.
    fn fit(&mut self) {
        self.weigh();
        while self.entries.len() > MOST || (self.entries.len() > 1 && self.load > LONGER) {
            let least = self.entries.iter().min_by_key(|(_, entry)| entry.made.views);
            let Some(least) = least.map(|(subject, _)| subject.clone()) else { break };
            self.entries.remove(&least);
            self.weigh();
        }
    }

    fn weigh(&mut self) {
        self.load = self.entries.values().map(|entry| share(entry.made)).sum();
    }

    /// It could not be made; the next reader finds out why.
    pub(crate) fn failed(&mut self, subject: &Subject) {
        self.entries.remove(subject);
        self.weigh();
    }

    /// Whoever asked what is next does not any more.
    pub(crate) fn left(&mut self) {
        self.is_kept = false;
    }

    /// What is to be done at `now`: what has been due longest.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.read) < READ_LATELY);
        self.weigh();
        let longer = self.longer();
        let due = self.entries.iter().map(|(subject, entry)| (entry.due(longer), subject));
        match due.min_by_key(|(due, _)| *due) {
            None => {
                self.left();
                Next::Over
            }
            Some((due, subject)) if due <= now => Next::Make(subject.clone()),
            Some((due, _)) => Next::Wait((due - now).min(LOOK)),
        }
    }
}

/// The part of the time that it takes to make it whenever it is due, pauses included. What it took is of then, so where everything takes
/// longer, all are told longer, too.
fn share(made: Made) -> f64 {
    made.took.as_secs_f64() * f64::from(1 + REST) / (made.told / 2).as_secs_f64()
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

    /// With a patience of 600.
    fn made(milliseconds: u64, views: u64) -> Made {
        let took = Duration::from_millis(milliseconds);
        Made { took, told: (took * 600).min(seconds(60)), views }
    }

    fn took(milliseconds: u64) -> Made {
        made(milliseconds, 1_000)
    }

    fn kept(ready: &Ready) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..400).filter(|number| ready.entries.contains_key(&subject(*number))).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn what_is_read_is_made_again_at_half_of_its_time() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        assert!(!ready.made(subject(1), took(16), begun), "it costs too little");
        assert_eq!(ready.next(begun), Next::Over);

        assert!(ready.made(subject(1), took(2_000), begun));
        assert!(!ready.made(subject(2), took(20), begun), "somebody asks already");
        assert_eq!(ready.next(begun), Next::Wait(LOOK));
        assert_eq!(ready.next(begun + Duration::from_millis(5_980)), Next::Make(subject(2)));
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
    fn what_has_been_due_longest_comes_first() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        ready.made(subject(1), made(100, 9), begun);
        ready.made(subject(2), made(4_000, 7), begun);
        ready.made(subject(3), made(20, 8), begun);
        let late = begun + seconds(40);
        for (number, cost) in [(3, made(20, 8)), (2, made(4_000, 7)), (1, made(100, 9))] {
            assert_eq!(ready.next(late), Next::Make(subject(number)));
            ready.made_before(&subject(number), Some(cost), late);
        }
        assert_eq!(ready.next(late), Next::Wait(LOOK), "each had its turn");
    }

    #[test]
    fn one_that_has_become_cheap_is_let_go() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        ready.made(subject(1), took(400), begun);
        ready.made_before(&subject(1), Some(took(16)), begun);
        assert_eq!(ready.next(begun), Next::Over);
        ready.made(subject(1), took(400), begun);
        ready.made(subject(1), took(16), begun);
        assert_eq!(ready.next(begun), Next::Over);
    }

    #[test]
    fn of_too_many_the_largest_are_ready() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        let most = MOST as u32;
        // The larger, the faster here: what one took says nothing of it.
        for number in 0..most {
            ready.made(subject(number), made(u64::from(250 - number), u64::from(1_000 + number)), begun);
        }
        assert_eq!(kept(&ready), (0..most).collect::<Vec<_>>());
        ready.made(subject(300), made(99, 999), begun);
        assert_eq!(kept(&ready), (0..most).collect::<Vec<_>>(), "it is the smallest, and was only slow");
        ready.made(subject(301), made(20, 5_000), begun);
        assert_eq!(kept(&ready), (1..most).chain([301]).collect::<Vec<_>>());
        // One that is there makes room for itself.
        ready.made(subject(1), made(20, 900), begun);
        assert_eq!(kept(&ready), (1..most).chain([301]).collect::<Vec<_>>());
    }

    #[test]
    fn no_more_are_ready_than_can_be_made_in_time() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        // Half of 60 s, with pauses of four times as long: six seconds of making, or thirty where all are told five times as long.
        ready.made(subject(1), made(45_000, 10), begun);
        assert_eq!(kept(&ready), [1], "one alone may take longer");
        ready.made(subject(1), made(15_000, 10), begun);
        ready.made(subject(2), made(15_000, 20), begun);
        assert_eq!(kept(&ready), [1, 2]);
        ready.made(subject(3), made(1_000, 30), begun);
        assert_eq!(kept(&ready), [2, 3]);
        ready.made_before(&subject(3), Some(made(15_001, 30)), begun);
        assert_eq!(kept(&ready), [3], "it has grown");
    }

    #[test]
    fn where_too_many_are_read_all_are_told_longer() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        assert!((ready.longer() - 1.0).abs() < 1e-9, "of none");
        ready.made(subject(1), made(3_000, 10), begun);
        assert!((ready.longer() - 1.0).abs() < 1e-9, "there is time for six seconds of making");
        assert_eq!(ready.next(begun + seconds(27)), Next::Make(subject(1)));
        ready.made_before(&subject(1), None, begun);
        ready.made(subject(2), made(6_000, 20), begun);
        ready.made(subject(3), made(3_000, 30), begun);
        assert!((ready.longer() - 2.0).abs() < 1e-9, "twelve");
        // At half of 120 s from its beginning on, be it made before there were others.
        assert_eq!(ready.next(begun + Duration::from_millis(53_999)), Next::Wait(Duration::from_millis(1)));
        assert_eq!(ready.next(begun + seconds(54)), Next::Make(subject(2)));
        ready.failed(&subject(2));
        assert!((ready.longer() - 1.0).abs() < 1e-9, "one is gone, so the others may be told for 60 s only");
        ready.failed(&subject(1));
        assert_eq!(ready.next(begun + Duration::from_millis(26_999)), Next::Wait(Duration::from_millis(1)));
        assert_eq!(ready.next(begun + seconds(27)), Next::Make(subject(3)));
        ready.made(subject(3), made(10, 30), begun);
        assert!(ready.load.abs() < 1e-9, "it has become cheap");
        ready.made(subject(4), made(60_000, 40), begun);
        assert_eq!((kept(&ready), ready.longer()), (vec![4], LONGER), "and no longer than that");
        assert_eq!(ready.next(begun + READ_LATELY), Next::Over);
        assert!((ready.longer() - 1.0).abs() < 1e-9, "nobody reads it any more");
    }
}
