//! The sums of a month. They are counted while it is driven, a few numbers a project and an hour; for some projects also each page and the offset of
//! each repeat.

use std::collections::{BTreeMap, HashMap};

use schemas::proto::RejectionTally;

use super::plan::Plan;
use super::stream::{Kind, Place};
use super::view::{Page, View};
use crate::random::mix;

/// Number of the largest projects that are compared page by page.
const LARGEST: u32 = 20;
/// Number of other projects that are compared page by page.
const SAMPLED: u64 = 200;

/// The sums of a month, or of its driven part.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Truth {
    /// Records with a view, repeats included.
    pub records: u64,
    /// Views by people, each once; those of the flood are among them.
    pub views: u64,
    /// Views by bots.
    pub bots: u64,
    /// Views of the flood.
    pub flood: u64,
    /// Views that were sent a second time.
    pub repeats: u64,
    /// Views that arrived hours after they happened.
    pub late: u64,
    /// Tallies of refused beacons.
    pub tallies: u64,
    /// Refused beacons in them.
    pub refused: u64,
    /// Distinct visitors, added up over the projects.
    pub visitors: u64,
    /// Bytes of the records, without keys and framing.
    pub bytes: u64,
    /// Views by people on each day of the month.
    pub by_day: Vec<u64>,
    /// Views by people in each hour of the month; late ones count in the hour when they happened.
    #[serde(skip)]
    pub by_hour: Vec<u64>,
    /// Of each project, by its number.
    #[serde(skip)]
    pub by_project: Vec<Counts>,
    /// Refused beacons by the project's name and the reason's number.
    #[serde(skip)]
    pub by_refusal: HashMap<(String, u32), u64>,
    /// The records of each partition of the topic; none if the month goes into no topic.
    #[serde(skip)]
    pub partitions: Vec<Sent>,
    /// Views by people of each page of the projects that are compared page by page.
    #[serde(skip)]
    pub by_page: HashMap<u32, HashMap<Page, u64>>,
}

/// The sums of a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Views by people.
    pub views: u64,
    /// Arrivals among these views.
    pub visits: u64,
    /// Views by bots.
    pub bots: u64,
}

/// A view that a partition has twice. Some forty thousand of them are a megabyte; a month has one in two hundred views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeat {
    /// Offset of the view.
    pub first: u64,
    /// The repeat follows this many records later.
    pub after: u32,
    /// The project's number.
    pub project: u32,
    /// The viewed page.
    pub page: Page,
    /// The hour of the view, since the month's start.
    pub hour: u16,
    /// Whether it is an arrival.
    pub arrival: bool,
}

/// The records of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Records, from offset 0 on.
    pub records: u64,
    /// Offsets at which half a day of the month starts: windows end there.
    pub spans: Vec<u64>,
    /// Repeats among these records, in the order of the log.
    pub repeats: Vec<Repeat>,
    /// Offsets of views that will be repeated, by id.
    awaited: HashMap<u64, u64>,
}

impl Truth {
    /// Empty.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let count = plan.projects.len() as u32;
        let mut chosen: Vec<u32> = (0..count.min(LARGEST)).collect();
        let others = u64::from(count.saturating_sub(LARGEST));
        chosen.extend((0..SAMPLED.min(others)).map(|n| LARGEST + (mix(plan.seed ^ n << 20) % others) as u32));
        Self {
            by_day: vec![0; plan.hours().div_ceil(24) as usize],
            by_hour: vec![0; plan.hours() as usize],
            by_project: vec![Counts::default(); plan.projects.len()],
            by_page: chosen.into_iter().map(|project| (project, HashMap::new())).collect(),
            ..Self::default()
        }
    }

    /// Counts a view that was seen in `hour` since the month's start.
    pub fn count(&mut self, plan: &Plan, place: &Place, view: &View, hour: u32) {
        self.records += 1;
        if place.repeat {
            self.repeats += 1;
            return;
        }
        let happened = view.hour.0 - plan.month.first_hour().0;
        self.late += u64::from(happened != hour);
        let project = &mut self.by_project[view.project as usize];
        if view.visitor.is_none() {
            project.bots += 1;
            self.bots += 1;
            return;
        }
        project.views += 1;
        project.visits += u64::from(view.arrival);
        self.views += 1;
        self.flood += u64::from(place.kind == Kind::Flood);
        self.by_day[(happened / 24) as usize] += 1;
        self.by_hour[happened as usize] += 1;
        if let Some(pages) = self.by_page.get_mut(&view.project) {
            *pages.entry(view.page).or_insert(0) += 1;
        }
    }

    /// Counts a tally of refused beacons.
    pub fn tally(&mut self, tally: &RejectionTally) {
        self.tallies += 1;
        self.refused += tally.count;
        *self.by_refusal.entry((tally.project.clone(), tally.reason)).or_default() += tally.count;
    }

    /// Notes that the next record of a partition is this view.
    pub fn view_in(&mut self, partition: usize, plan: &Plan, place: &Place, view: &View) {
        let sent = &mut self.partitions[partition];
        if place.again {
            sent.awaited.insert(view.id, sent.records);
        } else if place.repeat
            && let Some(first) = sent.awaited.remove(&view.id)
        {
            sent.repeats.push(Repeat {
                first,
                after: (sent.records - first) as u32,
                project: view.project,
                page: view.page,
                hour: (view.hour.0 - plan.month.first_hour().0) as u16,
                arrival: view.arrival,
            });
        }
        sent.records += 1;
    }

    /// The projects that are compared page by page, with their pages as in rows: path and status.
    #[must_use]
    pub fn pages(&self) -> BTreeMap<u32, BTreeMap<(String, u16), u64>> {
        let named = |pages: &HashMap<Page, u64>| {
            let mut named = BTreeMap::new();
            for (page, views) in pages {
                *named.entry((page.path(), page.status())).or_insert(0) += views;
            }
            named
        };
        self.by_page.iter().map(|(project, pages)| (*project, named(pages))).collect()
    }
}
