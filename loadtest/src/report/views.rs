//! The views of a project's day: a function of seed, project and day.

use crate::random::{SplitMix64, Zipf, mix};

/// One view by a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Hour of the day.
    pub hour: u32,
    /// Which of the project's pages.
    pub page: u32,
    /// Whether the page was not there.
    pub missing: bool,
    /// Whether the reader came from elsewhere.
    pub arrival: bool,
    /// The reader's number in the project.
    pub reader: u64,
    /// Chance for everything else.
    pub chance: u64,
}

/// Sizes of all projects.
#[derive(Debug, Clone)]
pub struct Crowd {
    seed: u64,
    /// Views of each project in the month, most first.
    pub views: Vec<u64>,
    pages: Zipf,
}

/// Most pages of a project.
const MAX_PAGES: usize = 5_000;
/// Views for each reader of a month, on average.
const VIEWS_A_READER: u64 = 4;

impl Crowd {
    /// `views` shared among `projects` as one over their rank; each has one at least.
    #[must_use]
    pub fn new(projects: u32, views: u64, seed: u64) -> Self {
        let weights: f64 = (1..=projects).map(|rank| 1.0 / f64::from(rank)).sum();
        let share = |rank: u32| (views as f64 / (f64::from(rank) * weights)).round().max(1.0) as u64;
        Self { seed, views: (1..=projects).map(share).collect(), pages: Zipf::new(MAX_PAGES, 1.0) }
    }

    /// A project's slug.
    #[must_use]
    pub fn slug(rank: usize) -> String {
        // Neighbours in rank are none in the table, as with names that people chose.
        format!("p{:08x}-{rank}", mix(rank as u64) >> 32)
    }

    /// How many views a project has on the `day`th of `days` days: its month's views, spread evenly.
    #[must_use]
    pub fn on(&self, rank: usize, day: u64, days: u64) -> u64 {
        // Those that do not divide go to different days in different projects.
        let views = self.views[rank];
        let turn = (day + mix(rank as u64 ^ self.seed) % days) % days;
        views / days + u64::from(turn < views % days)
    }

    /// Pages of a project.
    #[must_use]
    pub fn pages_of(&self, rank: usize) -> usize {
        ((self.views[rank] / 40) as usize).clamp(3, MAX_PAGES)
    }

    /// A page's path.
    #[must_use]
    pub fn path(page: u32) -> String {
        let section = ["guide", "reference", "api", "tutorial", "faq"][(mix(u64::from(page)) % 5) as usize];
        format!("/en/stable/{section}/page-{page:04}.html")
    }

    /// Views of one day.
    pub fn day(&self, rank: usize, day: u64, days: u64) -> impl Iterator<Item = View> + '_ {
        let mut random = SplitMix64::new(mix(self.seed ^ mix(rank as u64) ^ (day << 40)));
        let (pages, readers) = (self.pages_of(rank), (self.views[rank] / VIEWS_A_READER).max(1));
        (0..self.on(rank, day, days)).map(move |_| {
            let chance = random.next_u64();
            // Most of the day's views in twelve of its hours.
            let hour = if chance & 3 == 0 { chance >> 2 & 0xff } else { 8 + (chance >> 2 & 0xff) % 12 } % 24;
            let page = self.pages.sample_among(pages, &mut random) as u32;
            View {
                hour: hour as u32,
                page,
                missing: page % 50 == 49,
                arrival: chance >> 10 & 3 == 0,
                reader: random.below(readers),
                chance,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_months_days_have_all_views_and_are_the_same_each_time() {
        let crowd = Crowd::new(100, 50_000, 7);
        let total: u64 = crowd.views.iter().sum();
        assert!((49_900..50_200).contains(&total), "{total}");
        for rank in [0, 3, 99] {
            let views: usize = (0..31).map(|day| crowd.day(rank, day, 31).count()).sum();
            assert_eq!(views as u64, crowd.views[rank]);
        }
        assert!(crowd.day(0, 3, 31).eq(Crowd::new(100, 50_000, 7).day(0, 3, 31)));
        assert!(!crowd.day(0, 3, 31).eq(crowd.day(0, 4, 31)));
        assert!(crowd.day(0, 3, 31).all(|view| view.hour < 24));
    }
}
