//! When readers read: which share of a month's visits has come by a given moment.

use schemas::{Hour, Month};

use super::facts::{DAY, REGIONS, WEEKEND};

/// Hours after a release in which the curiosity about it fades to a third.
const RELEASE_FADES_HOURS: f64 = 14.0;

/// The share of a month's visits before each hour. Ascending from 0 to 1.
#[derive(Debug, Clone)]
pub struct Rhythm {
    before: Vec<f64>,
}

impl Rhythm {
    /// A rhythm of `hours` hours with these weights.
    fn of(weights: impl Iterator<Item = f64>) -> Self {
        let mut sum = 0.0;
        let mut before = vec![0.0];
        before.extend(weights.map(|weight| {
            sum += weight;
            sum
        }));
        before.iter_mut().for_each(|share| *share /= sum);
        Self { before }
    }

    /// Readers all over the world, most of them in region `home` (all as they are distributed, if there is no such region).
    #[must_use]
    pub fn of_readers(month: Month, home: usize) -> Self {
        let (first, hours) = (month.first_hour().0, month.end_hour().0 - month.first_hour().0);
        Self::of((0..hours).map(|hour| {
            let at = |(number, (share, region)): (usize, &(u32, super::facts::Region))| {
                let share = f64::from(*share) * if number == home { 4.0 } else { 1.0 };
                let local = i64::from(first + hour) + i64::from(region.offset);
                share * weight_of(Hour(u32::try_from(local).unwrap_or(0)))
            };
            REGIONS.iter().enumerate().map(at).sum()
        }))
    }

    /// Machines, which do not sleep.
    #[must_use]
    pub fn of_machines(month: Month) -> Self {
        Self::of((month.first_hour().0..month.end_hour().0).map(|_| 1.0))
    }

    /// The share before `at`, in hours since the month's start.
    #[must_use]
    pub fn before(&self, at: f64) -> f64 {
        let last = self.before.len() - 1;
        let hour = at.floor().clamp(0.0, last as f64) as usize;
        if hour == last {
            return 1.0;
        }
        let (low, high) = (self.before[hour], self.before[hour + 1]);
        low + (high - low) * (at - hour as f64)
    }

    /// The busiest hour's share.
    #[must_use]
    pub fn peak(&self) -> f64 {
        self.before.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }
}

/// Which share of those who come for a release has come `since` hours after it, of a month that ends `left` hours after it.
#[must_use]
pub fn of_release(since: f64, left: f64) -> f64 {
    let gone = |hours: f64| 1.0 - (-hours.max(0.0) / RELEASE_FADES_HOURS).exp();
    (gone(since) / gone(left)).min(1.0)
}

fn weight_of(local: Hour) -> f64 {
    // The first of January 1970 was a Thursday.
    let weekday = (local.day().0 + 3) % 7;
    DAY[(local.0 % 24) as usize] * if weekday >= 5 { WEEKEND } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rhythm_goes_from_nothing_to_everything_and_never_back() {
        let month: Month = "2026-02".parse().unwrap();
        let rhythm = Rhythm::of_readers(month, 1);
        assert_eq!((rhythm.before(0.0), rhythm.before(672.0), rhythm.before(700.0)), (0.0, 1.0, 1.0));
        let at: Vec<f64> = (0..6_720).map(|tenth| rhythm.before(f64::from(tenth) / 10.0)).collect();
        assert!(at.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn weekends_are_quiet_and_nights_where_the_readers_are() {
        let month: Month = "2026-02".parse().unwrap();
        let rhythm = Rhythm::of_readers(month, 1);
        let share = |day: u32, hour: u32| {
            let at = f64::from((day - 1) * 24 + hour);
            rhythm.before(at + 1.0) - rhythm.before(at)
        };
        // 2026-02-01 was a Sunday.
        assert!(share(3, 14) > 2.0 * share(1, 14), "Tuesday and Sunday");
        assert!(share(3, 14) > 1.5 * share(3, 2), "day and night of Europe");
    }

    #[test]
    fn a_release_is_over_after_days() {
        assert_eq!((of_release(-1.0, 500.0), of_release(500.0, 500.0)), (0.0, 1.0));
        assert!(of_release(14.0, 500.0) > 0.6 && of_release(72.0, 500.0) > 0.99);
        assert_eq!(of_release(3.0, 3.0), 1.0);
    }
}
