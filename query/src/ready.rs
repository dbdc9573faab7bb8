//! Which reports of running months are made before somebody asks for them: those that are read, and the largest; of too many the
//! largest.
//!
//! A report that is told longer than it is true ([`crate::kept`]) is at some time too old to be told, and the next reader waits for
//! another. Of a small project that is some hundredths of a second. Of the largest it is the longest wait that there is, and they are
//! read most. So they are made anew, one after the other, at half of the time for which they are told. Where these are more than can be made
//! in that time, all are made less often, up to [`LONGER`] times (as periodic tasks give way in Buttazzo, Lipari and Abeni, "Elastic task
//! model for adaptive rate control", RTSS 1998); of more than can be made even so, those with the most page views are. Only the month's
//! usual report is: there is one for each project, so that nobody can have one project's made in many forms.
//!
//! The first reader of a large project would wait longest of all. So as long as anybody reads anything, the projects with the most views are
//! looked for now and then, and their reports are made before they are read: as seldom as may be, and in half of the time at most.

use schemas::{Month, ProjectSlug};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One that may be told for less is soon made by its reader: by default one that took less than a sixtieth of a second.
const WORTH: Duration = Duration::from_secs(10);

/// For how long after somebody read it.
const READ_LATELY: Duration = Duration::from_secs(600);

/// How many at once.
pub(crate) const MOST: usize = 128;

/// Page views from which on a project's report is made before anybody has read it. Below, most of what a report costs is the same for
/// all, and no reader waits much longer than another.
pub(crate) const LARGE_VIEWS: u64 = 100_000;

/// How many times as long reports are told at most.
pub(crate) const LONGER: f64 = 5.0;

/// Part of the time that those take at most which nobody has read.
const UNREAD: f64 = 0.5;

/// Longest time between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);

/// The largest are looked for again after so many times as long as that took, but within these bounds.
const LOOK_AGAIN: u32 = 600;
const LOOK_AGAIN_WITHIN: [Duration; 2] = [Duration::from_secs(60), READ_LATELY];

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
    /// If anybody did lately.
    read: Option<Instant>,
    views: u64,
    /// What it took, if it was made.
    made: Option<Made>,
    /// When its making was over, or it was seen that there is nothing new, or that it is one of the largest.
    over: Instant,
}

impl Entry {
    /// Half of its time is from the beginning of its making on.
    fn due(&self, longer: f64) -> Instant {
        let longer = if self.read.is_some() { longer } else { LONGER };
        let wait = |made: Made| (made.told.mul_f64(longer) / 2).saturating_sub(made.took);
        self.over + self.made.map(wait).unwrap_or_default()
    }

    /// The part of the time that it takes to make it whenever it is due, pauses included, if it is not told longer. What it took is of
    /// then, so where everything takes longer, all are told longer, too.
    fn share(&self) -> f64 {
        let of = |made: Made| made.took.as_secs_f64() * f64::from(1 + REST) / (made.told / 2).as_secs_f64();
        self.made.map(of).unwrap_or_default()
    }
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Make(Subject),
    /// Look for the largest.
    Largest,
    Wait(Duration),
    /// Nobody reads anything; whoever asked what to do has ended.
    Over,
}

/// The reports that are kept ready.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    entries: HashMap<Subject, Entry>,
    /// Those with the most views, as they were found the last time, and how many each had when it was put among the others.
    largest: HashMap<Subject, u64>,
    /// When they are looked for again.
    look: Option<Instant>,
    /// When anybody read any.
    read: Option<Instant>,
    is_kept: bool,
    load: f64,
}

impl Ready {
    /// Somebody read it at `now`.
    pub(crate) fn read(&mut self, subject: &Subject, now: Instant) {
        self.read = Some(now);
        if let Some(entry) = self.entries.get_mut(subject) {
            let is_new = entry.read.replace(now).is_none();
            if is_new {
                self.fit();
            }
        }
    }

    /// How many times as long it is told as if these were few. One that is made before its reader comes is told up to the end, should it
    /// be made late: nobody waits for it.
    pub(crate) fn longer(&self, subject: Option<&Subject>) -> f64 {
        if subject.is_some_and(|subject| self.entries.contains_key(subject)) { LONGER } else { self.pace() }
    }

    /// How many times as seldom they are made as if they were few.
    fn pace(&self) -> f64 {
        self.load.clamp(1.0, LONGER)
    }

    /// It was made for a reader, at `now`. Says whether somebody has to begin to ask what is next.
    pub(crate) fn made(&mut self, subject: Subject, made: Made, now: Instant) -> bool {
        self.read = Some(now);
        self.entries.remove(&subject);
        if made.told >= WORTH {
            let entry = Entry { read: Some(now), views: made.views, made: Some(made), over: now };
            self.entries.insert(subject, entry);
        }
        self.fit();
        !std::mem::replace(&mut self.is_kept, true)
    }

    /// It was made before a reader, at `now`; without `made` there was nothing new, so that it costs what it did.
    pub(crate) fn made_before(&mut self, subject: &Subject, made: Option<Made>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(subject) {
            entry.made = made.or(entry.made);
            entry.over = now;
            let Some(made) = entry.made else {
                // It was told to a reader before, and is as new as it can be; what it costs is not known.
                return self.failed(subject);
            };
            entry.views = made.views;
            if made.told < WORTH {
                self.entries.remove(subject);
            }
            self.fit();
        }
    }

    /// These have the most views, as was found at `now` in so long a time. One that was put among the others before, and is not there any more,
    /// since it costs too little or too much, comes back when it has twice the views.
    pub(crate) fn found(&mut self, largest: Vec<(Subject, u64)>, took: Duration, now: Instant) {
        self.look_again(took, now);
        let before = std::mem::take(&mut self.largest);
        for (subject, views) in largest {
            let had = before.get(&subject).copied().filter(|had| views < had.saturating_mul(2));
            if had.is_none() {
                let entry = Entry { read: None, views, made: None, over: now };
                self.entries.entry(subject.clone()).or_insert(entry);
            }
            self.largest.insert(subject, had.unwrap_or(views));
        }
        self.fit();
    }

    /// Looking for the largest took so long until `now`, whatever came of it.
    pub(crate) fn look_again(&mut self, took: Duration, now: Instant) {
        let [least, most] = LOOK_AGAIN_WITHIN;
        self.look = Some(now + took.saturating_mul(LOOK_AGAIN).clamp(least, most));
    }

    /// Leaves out those with the least views until all that are left can be made by the time they are due again, if they are told as long
    /// as may be.
    fn fit(&mut self) {
        while self.entries.len() > 1 {
            let unread = self.weigh();
            let too_many = self.entries.len() > MOST || self.load > LONGER;
            if !too_many && unread <= UNREAD {
                return;
            }
            let those = self.entries.iter().filter(|(_, entry)| too_many || entry.read.is_none());
            let least = those.min_by_key(|(_, entry)| entry.views);
            let Some(least) = least.map(|(subject, _)| subject.clone()) else { return };
            self.entries.remove(&least);
        }
        self.weigh();
    }

    /// How many times as seldom those that are read have to be made, so that there is time for all of them. Returns the part of the time
    /// that the others take.
    fn weigh(&mut self) -> f64 {
        let (mut read, mut unread) = (0.0, 0.0);
        for entry in self.entries.values() {
            match entry.read {
                Some(_) => read += entry.share(),
                None => unread += entry.share() / LONGER,
            }
        }
        self.load = read / (1.0 - unread.min(UNREAD));
        unread
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
        let is_lately = |read: &Instant| now.saturating_duration_since(*read) < READ_LATELY;
        let is_read = self.read.as_ref().is_some_and(is_lately);
        if !is_read {
            (self.largest, self.look) = (HashMap::new(), None);
        }
        let largest = &self.largest;
        self.entries.retain(|subject, entry| {
            entry.read = entry.read.filter(is_lately);
            entry.read.is_some() || largest.contains_key(subject)
        });
        self.fit();
        if !is_read {
            self.left();
            return Next::Over;
        }
        if self.look.is_none_or(|look| look <= now) {
            return Next::Largest;
        }
        let longer = self.pace();
        let due = self.entries.iter().map(|(subject, entry)| (entry.due(longer), Reverse(entry.views), subject));
        match due.min_by_key(|(due, views, _)| (*due, *views)) {
            Some((due, _, subject)) if due <= now => Next::Make(subject.clone()),
            Some((due, ..)) => Next::Wait((due - now).min(LOOK)),
            None => Next::Wait(LOOK),
        }
    }
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

    /// What is next where no project is large.
    fn next(ready: &mut Ready, now: Instant) -> Next {
        match ready.next(now) {
            Next::Largest => {
                ready.found(Vec::new(), Duration::ZERO, now);
                ready.next(now)
            }
            next => next,
        }
    }

    #[test]
    fn what_is_read_is_made_again_at_half_of_its_time() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        assert_eq!(next(&mut ready, begun), Next::Over, "nobody has read anything");
        assert!(ready.made(subject(1), took(16), begun), "the largest are looked for");
        assert_eq!(next(&mut ready, begun), Next::Wait(LOOK), "and it costs too little");

        assert!(!ready.made(subject(1), took(2_000), begun), "somebody asks already");
        assert!(!ready.made(subject(2), took(20), begun), "somebody asks already");
        assert_eq!(next(&mut ready, begun), Next::Wait(LOOK));
        assert_eq!(next(&mut ready, begun + Duration::from_millis(5_980)), Next::Make(subject(2)));
        ready.failed(&subject(2));
        assert_eq!(next(&mut ready, begun + Duration::from_millis(27_999)), Next::Wait(Duration::from_millis(1)));
        assert_eq!(next(&mut ready, begun + seconds(28)), Next::Make(subject(1)));

        // Nothing had come: it costs what it did.
        ready.read(&subject(1), begun + seconds(10));
        ready.made_before(&subject(1), None, begun + seconds(30));
        assert_eq!(next(&mut ready, begun + seconds(57)), Next::Wait(LOOK));
        assert_eq!(next(&mut ready, begun + seconds(58)), Next::Make(subject(1)));
        // Made before a reader it is not read, and so its end is that of its last reader's ten minutes.
        ready.made_before(&subject(1), Some(took(400)), begun + seconds(570));
        assert_eq!(next(&mut ready, begun + seconds(609)), Next::Make(subject(1)));
        assert_eq!(next(&mut ready, begun + seconds(610)), Next::Over);
        ready.made_before(&subject(1), Some(took(400)), begun + seconds(610));
        assert_eq!(next(&mut ready, begun + seconds(700)), Next::Over, "nobody reads anything any more");
        assert!(ready.made(subject(1), took(400), begun + seconds(700)), "somebody does again");
        ready.read(&subject(2), begun + seconds(1_200));
        assert_eq!(next(&mut ready, begun + seconds(1_299)), Next::Make(subject(1)));
        assert_eq!(next(&mut ready, begun + seconds(1_300)), Next::Wait(LOOK), "another is read, but not it");
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
            assert_eq!(next(&mut ready, late), Next::Make(subject(number)));
            ready.made_before(&subject(number), Some(cost), late);
        }
        assert_eq!(next(&mut ready, late), Next::Wait(LOOK), "each had its turn");
    }

    #[test]
    fn one_that_has_become_cheap_is_let_go() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        ready.made(subject(1), took(400), begun);
        ready.made_before(&subject(1), Some(took(16)), begun);
        assert!(kept(&ready).is_empty());
        ready.made(subject(1), took(400), begun);
        ready.made(subject(1), took(16), begun);
        assert!(kept(&ready).is_empty());
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
    fn the_largest_are_made_before_anybody_reads_them() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        ready.made(subject(1), made(100, 10), begun);
        assert_eq!(ready.next(begun), Next::Largest);
        let largest =
            |numbers: &[u32]| numbers.iter().map(|&number| (subject(number), 1_000 + u64::from(number))).collect();
        ready.found(largest(&[7, 9, 8]), Duration::from_millis(200), begun);
        for number in [9, 8, 7] {
            assert_eq!(ready.next(begun), Next::Make(subject(number)), "the largest first");
            assert!((ready.longer(Some(&subject(number))) - LONGER).abs() < 1e-9);
            ready.made_before(&subject(number), Some(made(100, 1_000)), begun);
        }
        assert!((ready.longer(Some(&subject(6))) - 1.0).abs() < 1e-9 && (ready.longer(None) - 1.0).abs() < 1e-9);
        // One that is read is due at half of 60 s; the others, which wait for their reader, at half of 300 s.
        ready.read(&subject(8), begun + seconds(20));
        let mut made_at = Vec::new();
        for second in 0..300 {
            let now = begun + seconds(second);
            loop {
                match ready.next(now) {
                    Next::Make(subject) => {
                        ready.made_before(&subject, Some(made(100, 1_000)), now);
                        made_at.push((second, subject.0.to_string()));
                    }
                    Next::Largest => {
                        assert!([120, 240].contains(&second), "after six hundred times of what it took");
                        ready.found(largest(&[7, 8]), Duration::from_millis(200), now);
                    }
                    Next::Wait(_) => break,
                    Next::Over => panic!("somebody reads"),
                }
            }
        }
        let of = |number: u32| -> Vec<u64> {
            let name = subject(number).0.to_string();
            made_at.iter().filter(|(_, subject)| *subject == name).map(|(second, _)| *second).collect()
        };
        assert_eq!(of(8), [30, 60, 90, 120, 150, 180, 210, 240, 270]);
        assert_eq!(of(7), [150]);
        assert!(of(9).is_empty(), "it is none of the largest any more");
        // Its reader's ten minutes are over, but another report is read, so it is made as one that waits for a reader.
        ready.read(&subject(2), begun + seconds(600));
        ready.found(largest(&[8]), Duration::from_secs(3), begun + seconds(600));
        ready.made_before(&subject(8), None, begun + seconds(620));
        assert_eq!(ready.next(begun + seconds(700)), Next::Wait(LOOK));
        assert_eq!(ready.next(begun + seconds(770)), Next::Make(subject(8)));
        assert_eq!(ready.next(begun + seconds(1_199)), Next::Make(subject(8)));
        ready.read(&subject(2), begun + seconds(1_199));
        assert_eq!(ready.next(begun + seconds(1_200)), Next::Largest, "after ten minutes at most");
        // What was found before is true until something else is.
        ready.look_again(Duration::from_secs(3), begun + seconds(1_200));
        assert_eq!(ready.next(begun + seconds(1_201)), Next::Make(subject(8)));
        assert_eq!(ready.next(begun + seconds(1_798)), Next::Make(subject(8)));
        assert_eq!(ready.next(begun + seconds(1_799)), Next::Over, "nobody reads anything");
        assert!(kept(&ready).is_empty());
        assert!(ready.made(subject(1), made(100, 10), begun + seconds(2_000)));
        assert_eq!(ready.next(begun + seconds(2_000)), Next::Largest);
    }

    #[test]
    fn those_that_nobody_has_read_take_half_of_the_time_at_most() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        let large =
            |numbers: std::ops::Range<u32>| numbers.map(|number| (subject(number), u64::from(number))).collect();
        ready.made(subject(1), made(9_000, 10), begun);
        ready.found(large(300..310), Duration::ZERO, begun);
        for number in (300..310).rev() {
            ready.made_before(&subject(number), Some(made(3_000, u64::from(number))), begun);
        }
        assert_eq!(
            kept(&ready),
            [1, 305, 306, 307, 308, 309],
            "three of thirty seconds, at a fifth of the pace, five times"
        );
        assert!((ready.pace() - 3.0).abs() < 1e-9, "one and a half, in half of the time");
        assert_eq!(ready.next(begun + Duration::from_millis(80_999)), Next::Largest);
        ready.found(large(300..310), Duration::ZERO, begun + seconds(80));
        assert_eq!(kept(&ready), [1, 305, 306, 307, 308, 309], "no other is tried again");
        assert_eq!(ready.next(begun + Duration::from_millis(80_999)), Next::Wait(Duration::from_millis(1)));
        assert_eq!(ready.next(begun + seconds(81)), Next::Make(subject(1)));
        ready.found(Vec::new(), Duration::ZERO, begun + seconds(80));
        ready.next(begun + seconds(80));
        assert_eq!(kept(&ready), [1]);
        assert!((ready.pace() - 1.5).abs() < 1e-9);

        // Of too many the largest stay, be they read or not.
        let mut ready = Ready::default();
        let most = MOST as u32;
        for number in 0..most {
            ready.made(subject(number), made(50, 100 + 2 * u64::from(number)), begun);
        }
        ready.found(large(300..303), Duration::ZERO, begun);
        assert_eq!(kept(&ready), (3..most).chain(300..303).collect::<Vec<_>>());
        ready.found(large(303..304), Duration::ZERO, begun);
        ready.made(subject(200), made(50, 301), begun);
        assert_eq!(kept(&ready), (5..most).chain([200]).chain(300..304).collect::<Vec<_>>());

        // One that turns out to cost little is let go; one of which that is not known, since it was kept, too.
        let mut ready = Ready::default();
        ready.made(subject(1), made(100, 10), begun);
        ready.found(large(300..303), Duration::ZERO, begun);
        ready.made_before(&subject(302), Some(made(10, 302)), begun);
        ready.made_before(&subject(301), None, begun);
        assert_eq!(kept(&ready), [1, 300]);
        let grown = |views: u64| vec![(subject(302), views), (subject(300), 300)];
        ready.found(grown(603), Duration::ZERO, begun);
        assert_eq!(kept(&ready), [1, 300]);
        ready.found(grown(604), Duration::ZERO, begun);
        assert_eq!(kept(&ready), [1, 300, 302], "it has twice the views");
    }

    #[test]
    fn where_too_many_are_read_all_are_told_longer() {
        let (mut ready, begun) = (Ready::default(), Instant::now());
        assert!((ready.pace() - 1.0).abs() < 1e-9, "of none");
        ready.made(subject(1), made(3_000, 10), begun);
        assert!((ready.pace() - 1.0).abs() < 1e-9, "there is time for six seconds of making");
        assert_eq!(next(&mut ready, begun + seconds(27)), Next::Make(subject(1)));
        ready.made_before(&subject(1), None, begun);
        ready.made(subject(2), made(6_000, 20), begun);
        ready.made(subject(3), made(3_000, 30), begun);
        assert!((ready.pace() - 2.0).abs() < 1e-9, "twelve");
        // At half of 120 s from its beginning on, be it made before there were others.
        assert_eq!(next(&mut ready, begun + Duration::from_millis(53_999)), Next::Wait(Duration::from_millis(1)));
        assert_eq!(next(&mut ready, begun + seconds(54)), Next::Make(subject(2)));
        ready.failed(&subject(2));
        assert!((ready.pace() - 1.0).abs() < 1e-9, "one is gone, so the others may be told for 60 s only");
        ready.failed(&subject(1));
        assert_eq!(next(&mut ready, begun + Duration::from_millis(26_999)), Next::Wait(Duration::from_millis(1)));
        assert_eq!(next(&mut ready, begun + seconds(27)), Next::Make(subject(3)));
        ready.made(subject(3), made(10, 30), begun);
        assert!(ready.load.abs() < 1e-9, "it has become cheap");
        ready.made(subject(4), made(60_000, 40), begun);
        assert_eq!((kept(&ready), ready.pace()), (vec![4], LONGER), "and no longer than that");
        assert_eq!(next(&mut ready, begun + READ_LATELY), Next::Over);
        assert!((ready.pace() - 1.0).abs() < 1e-9, "nobody reads it any more");
    }
}
