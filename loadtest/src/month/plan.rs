//! The size of a month, and its division among projects. This is all that must be stored, some fifty bytes a project.

use schemas::Month;

use super::rhythm::Rhythm;
use crate::random::{SplitMix64, Zipf, mix};

/// Of 100 page views, those by bots. Assumed.
const BOTS: f64 = 10.0;
/// Of 100 page views, those of the flood. Assumed.
const FLOOD: f64 = 2.0;
/// Of 100 visits of a project that has a release, those that the release brings. Assumed.
const CURIOUS: f64 = 12.0;
/// One project in this many has a release in the month, and the largest always has one.
const RELEASES: u64 = 20;
/// Of how many visitors the flood pretends to be, for each of its views.
const FLOOD_VISITORS: f64 = 0.01;
/// The project that is flooded, if there are more than one.
const FLOODED: usize = 1;
/// Maximum number of pages of a project.
const PAGES: usize = 4_000;

/// Visits of one visitor: the share with at least k is k to this power.
const VISITS_EXPONENT: f64 = -1.8;
const VISITS: usize = 60;
/// Views of one visit, by the same rule.
const VIEWS_EXPONENT: f64 = -1.5;
const VIEWS: usize = 40;

/// Months of known sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Preset {
    /// One project, 100,000 page views
    Small,
    /// A docs host: 2,000 projects, 5 million page views
    Host,
    /// As Read the Docs may be: 100,000 projects, 250 million page views
    Readthedocs,
}

impl Preset {
    /// Its projects and page views.
    #[must_use]
    pub fn size(self) -> Size {
        match self {
            Self::Small => Size { projects: 1, views: 100_000 },
            Self::Host => Size { projects: 2_000, views: 5_000_000 },
            Self::Readthedocs => Size { projects: 100_000, views: 250_000_000 },
        }
    }
}

/// How large a month is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Size {
    /// Projects, at least one.
    pub projects: u32,
    /// The intended page views. The actual number varies by a few percent, by chance.
    pub views: u64,
}

/// The share with at least k of something: a truncated heavy tail.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    /// Sum over 1..=k of the share with at least k, from k = 0 on.
    sums: Vec<f64>,
}

impl Tail {
    fn new(exponent: f64, most: usize) -> Self {
        let mut sum = 0.0;
        let sums = (0..=most).map(|k| {
            sum += if k == 0 { 0.0 } else { (k as f64).powf(exponent) };
            sum
        });
        Self { sums: sums.collect() }
    }

    /// The mean.
    pub(super) fn mean(&self) -> f64 {
        self.sums[self.sums.len() - 1]
    }

    /// All that `n` have together, in whole numbers.
    fn total(&self, n: u32) -> u32 {
        self.before(n, self.sums.len() - 1)
    }

    /// Those in the layers 1..=k of `n`.
    fn before(&self, n: u32, k: usize) -> u32 {
        (f64::from(n) * self.sums[k]) as u32
    }

    /// The owner of item `ticket` among `n` owners. Items are numbered layer by layer: first one item of each owner, then the second item of those
    /// who have two, and so on. So the first layer has each owner exactly once.
    pub(super) fn owner(&self, n: u32, ticket: u32) -> u32 {
        // The first k whose layers, up to k, include the ticket.
        let k = self.sums.partition_point(|sum| (f64::from(n) * sum) as u32 <= ticket);
        ticket - self.before(n, k - 1)
    }

    /// A number of items, with `draw` uniform in all of u32.
    pub(super) fn draw(&self, draw: u32) -> u8 {
        let share = f64::from(draw) / f64::from(u32::MAX);
        let enough = |k: &usize| self.sums[*k] - self.sums[*k - 1] > share;
        (1..self.sums.len()).take_while(enough).count().max(1) as u8
    }
}

/// One project's month.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProjectPlan {
    /// People, each with at least one visit. The flood's are not included.
    pub visitors: u32,
    /// Visits of these visitors.
    pub visits: u32,
    /// Of the visits, those that a release brings.
    pub curious: u32,
    /// When the release is, in hours since the month's start.
    pub release: f32,
    /// Views by bots.
    pub bots: u32,
    /// Views of the flood.
    pub flood: u32,
    /// Visitors that the flood pretends to be.
    pub flood_visitors: u32,
    /// Pages.
    pub pages: u32,
    /// Which rhythm.
    pub home: u8,
    /// Where in the interval between two visits the first one is, 0 to 1. Without it all small projects would have theirs at the same time.
    pub phase: f32,
}

/// All projects.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) seed: u64,
    pub(super) month: Month,
    pub(super) size: Size,
    pub(super) projects: Vec<ProjectPlan>,
    pub(super) slugs: Vec<String>,
    pub(super) rhythms: Vec<Rhythm>,
    pub(super) machines: Rhythm,
    pub(super) visits: Tail,
    pub(super) views: Tail,
    pub(super) pages: Zipf,
    /// The hour of the flood, since the month's start.
    pub(super) flood_hour: u32,
}

impl Plan {
    /// The month `month` of this size. Everything in it follows from the seed.
    #[must_use]
    pub fn new(seed: u64, month: Month, size: Size) -> Self {
        let hours = month.end_hour().0 - month.first_hour().0;
        // The fourth home is no region: readers as they are distributed over the world.
        let rhythms: Vec<Rhythm> =
            (0..=super::facts::REGIONS.len()).map(|home| Rhythm::of_readers(month, home)).collect();
        let (visits, views) = (Tail::new(VISITS_EXPONENT, VISITS), Tail::new(VIEWS_EXPONENT, VIEWS));
        let count = size.projects.max(1) as usize;
        let harmonic: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
        let flooded = FLOODED.min(count - 1);
        let projects = (0..count).map(|number| {
            let mut rng = SplitMix64::new(mix(seed ^ mix(number as u64 + 1)));
            let all = size.views as f64 / harmonic / (number + 1) as f64;
            let people = all * (100.0 - BOTS - FLOOD) / 100.0;
            let visitors = (people / visits.mean() / views.mean()).round().max(1.0) as u32;
            let visits = visits.total(visitors);
            let releases = number == 0 || rng.below(RELEASES) == 0;
            let flood = if number == flooded { size.views as f64 * FLOOD / 100.0 } else { 0.0 };
            ProjectPlan {
                visitors,
                visits,
                curious: if releases { (f64::from(visits) * CURIOUS / 100.0) as u32 } else { 0 },
                release: (rng.unit() * f64::from(hours) * 0.8) as f32,
                bots: (all * BOTS / 100.0 + rng.unit()) as u32,
                flood: flood as u32,
                flood_visitors: (flood * FLOOD_VISITORS).ceil() as u32,
                pages: (people.sqrt() as usize).clamp(8, PAGES) as u32,
                home: rng.below(rhythms.len() as u64) as u8,
                // Below 1 after rounding, too; otherwise the last slot would be after the month's end.
                phase: (rng.unit() * 0.999) as f32,
            }
        });
        let projects = projects.collect();
        let slugs = (0..count).map(slug).collect();
        let flood_hour = (16 * 24 + 13).min(hours - 1);
        let machines = Rhythm::of_machines(month);
        Self {
            seed,
            month,
            size,
            projects,
            slugs,
            rhythms,
            machines,
            visits,
            views,
            pages: Zipf::new(PAGES, 1.0),
            flood_hour,
        }
    }

    /// The seed, which determines everything.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The month.
    #[must_use]
    pub fn month(&self) -> Month {
        self.month
    }

    /// The requested size.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Hours of the month.
    #[must_use]
    pub fn hours(&self) -> u32 {
        self.month.end_hour().0 - self.month.first_hour().0
    }

    /// The name of a project.
    #[must_use]
    pub fn slug(&self, project: u32) -> &str {
        &self.slugs[project as usize]
    }

    /// The number of people who read a project in the whole month. It holds by construction: each of them has a first visit, each visit at least one
    /// view, and no view is lost. (`truth` counts them if a month is not driven to its end.)
    #[must_use]
    pub fn visitors(&self, project: u32) -> u32 {
        let plan = &self.projects[project as usize];
        plan.visitors + plan.flood_visitors
    }

    /// The number of parts of an hour, so that none is large.
    #[must_use]
    pub fn parts(&self, hour: u32) -> u32 {
        const PART: f64 = 8_192.0;
        let world = &self.rhythms[self.rhythms.len() - 1];
        let share = world.before(f64::from(hour + 1)) - world.before(f64::from(hour));
        let visits = self.size.views as f64 / self.views.mean() * share;
        let bots = self.size.views as f64 * BOTS / 100.0 / f64::from(self.hours());
        let flood = if hour == self.flood_hour { self.size.views as f64 * FLOOD / 100.0 } else { 0.0 };
        ((visits + bots + flood) / PART).ceil().max(1.0) as u32
    }
}

/// Realistic names: a word or two and sometimes a number, 8 to 20 letters.
fn slug(number: usize) -> String {
    const FIRST: [&str; 8] = ["py", "open", "django", "flask", "data", "async", "micro", "net"];
    const SECOND: [&str; 8] = ["forms", "requests", "widgets", "parser", "storage", "toolkit", "client", "cache"];
    let hash = mix(number as u64 + 77) as usize;
    format!("{}-{}-{number}", FIRST[hash % 8], SECOND[hash / 8 % 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_project_owns_a_first_ticket_and_none_owns_too_many() {
        let tail = Tail::new(VISITS_EXPONENT, VISITS);
        for n in [1, 2, 3, 10, 1_000, 54_321] {
            let total = tail.total(n);
            let mut owned = vec![0; n as usize];
            (0..total).for_each(|ticket| owned[tail.owner(n, ticket) as usize] += 1);
            assert!(owned.iter().all(|&tickets| (1..=VISITS).contains(&tickets)), "{n}");
        }
    }

    #[test]
    fn draws_have_the_mean_of_the_tail() {
        let tail = Tail::new(VIEWS_EXPONENT, VIEWS);
        let mut rng = SplitMix64::new(3);
        let sum: u64 = (0..200_000).map(|_| u64::from(tail.draw(rng.next_u64() as u32))).sum();
        let mean = sum as f64 / 200_000.0;
        assert!((mean / tail.mean() - 1.0).abs() < 0.02, "{mean} {}", tail.mean());
        assert_eq!(tail.draw(0), VIEWS as u8);
        assert_eq!(tail.draw(u32::MAX), 1);
    }

    #[test]
    fn slugs_are_slugs_and_differ() {
        let all: std::collections::HashSet<String> = (0..10_000).map(slug).collect();
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().all(|slug| schemas::ProjectSlug::is_valid(slug)));
    }
}
