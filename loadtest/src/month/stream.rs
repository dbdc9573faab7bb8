//! The views of a month in the order of time, without remembering any.
//!
//! A project's month is a row of *slots*, one for each visit (or view by a bot, or view of the flood). Three functions without memory turn the row
//! into a stream:
//!
//! 1. *When.* The first ⌊S·R(t) + φ⌋ of S slots are before the moment t; R is the rhythm, from 0 to 1, and φ < 1 the project's phase. So each slot is
//!    in exactly one stretch of time, however the month is divided into stretches.
//! 2. *Whose.* A shuffle of 0..S ([`super::permute`]) maps a slot to a ticket. Tickets are owned layer by layer: the first V are the first visits of
//!    visitor 0 … V−1, the next ones second visits of those who have two, and so on ([`super::plan`]). So each of the V visitors has at least one
//!    visit, and the visits of one visitor are anywhere in the month.
//! 3. *What.* The number of views of a visit, and each fact of a view, are hashes of project, ticket and position.
//!
//! Therefore a project has V distinct visitors, by construction and not by counting. Any hour can be generated without the earlier ones. Only the
//! plan and the views of a few seconds or minutes are in memory.

use super::permute::Shuffle;
use super::plan::{Plan, ProjectPlan};
use super::rhythm::of_release;
use crate::random::mix;

/// Buckets that a stretch of time is ordered by.
const BUCKETS: usize = 256;
/// One view in this many is sent twice.
const REPEATS: u64 = 200;

/// Why there is a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A person reads.
    Reader,
    /// A bot runs scripts.
    Bot,
    /// An attacker sends forged views.
    Flood,
}

/// Which view of the month one is. All else follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the project.
    pub project: u32,
    /// Ticket of a visit, or number of a bot's or the flood's view.
    pub ticket: u32,
    /// Which view of the visit.
    pub index: u8,
    /// Why.
    pub kind: Kind,
    /// Whether it will be sent again, a few records later.
    pub again: bool,
    /// Whether it was sent before.
    pub repeat: bool,
    bucket: u8,
}

impl Place {
    /// A place by itself, outside any order of time.
    #[must_use]
    pub fn new(project: u32, ticket: u32, index: u8, kind: Kind) -> Self {
        Self { project, ticket, index, kind, again: false, repeat: false, bucket: 0 }
    }
}

/// Some views, in the order of time. To be filled again and again.
#[derive(Debug, Default)]
pub struct Stretch {
    unordered: Vec<Place>,
    ordered: Vec<Place>,
}

impl Stretch {
    /// The views.
    #[must_use]
    pub fn views(&self) -> &[Place] {
        &self.ordered
    }

    fn order(&mut self) {
        let mut ends = [0_usize; BUCKETS];
        self.unordered.iter().for_each(|place| ends[usize::from(place.bucket)] += 1);
        let mut sum = 0;
        for end in &mut ends {
            sum += std::mem::replace(end, sum);
        }
        self.ordered.clear();
        self.ordered.extend_from_slice(&self.unordered);
        for place in self.unordered.drain(..) {
            let at = &mut ends[usize::from(place.bucket)];
            self.ordered[*at] = place;
            *at += 1;
        }
    }
}

/// Slots of `count` before the moment at which this share has passed.
fn slots(count: u32, share: f64, phase: f32) -> u32 {
    (f64::from(count) * share + f64::from(phase)) as u32
}

impl Plan {
    /// A number that is a project's own.
    pub(super) fn hash_of(&self, project: u32) -> u64 {
        mix(self.seed ^ mix(u64::from(project) << 32 | 0x5eed))
    }

    /// Puts the views of part `part` of `hour` (since the month's start) into `stretch`.
    pub fn fill(&self, hour: u32, part: u32, stretch: &mut Stretch) {
        let parts = f64::from(self.parts(hour));
        let (from, to) = (f64::from(hour) + f64::from(part) / parts, f64::from(hour) + f64::from(part + 1) / parts);
        let shares: Vec<(f64, f64)> =
            self.rhythms.iter().map(|rhythm| (rhythm.before(from), rhythm.before(to))).collect();
        let machines = (self.machines.before(from), self.machines.before(to));
        stretch.unordered.clear();
        for (number, plan) in self.projects.iter().enumerate() {
            let share = shares[usize::from(plan.home)];
            self.visits(number as u32, plan, share, (from, to), &mut stretch.unordered);
            let bots = slots(plan.bots, machines.0, plan.phase)..slots(plan.bots, machines.1, plan.phase);
            stretch.unordered.extend(bots.map(|ticket| self.single(number as u32, ticket, Kind::Bot)));
            if plan.flood > 0 && hour == self.flood_hour {
                let before = |moment: f64| slots(plan.flood, moment - f64::from(hour), plan.phase);
                let flood = before(from)..before(to);
                stretch.unordered.extend(flood.map(|ticket| self.single(number as u32, ticket, Kind::Flood)));
            }
        }
        stretch.order();
    }

    fn visits(&self, project: u32, plan: &ProjectPlan, share: (f64, f64), time: (f64, f64), into: &mut Vec<Place>) {
        let steady = plan.visits - plan.curious;
        let (from, to) = (slots(steady, share.0, plan.phase), slots(steady, share.1, plan.phase));
        let mut curious = 0..0;
        if plan.curious > 0 {
            let (release, end) = (f64::from(plan.release), f64::from(self.hours()));
            let before = |moment: f64| slots(plan.curious, of_release(moment - release, end - release), plan.phase);
            curious = steady + before(time.0)..steady + before(time.1);
        }
        if from == to && curious.is_empty() {
            return;
        }
        let hash = self.hash_of(project);
        let shuffle = Shuffle::new(plan.visits, hash);
        for slot in (from..to).chain(curious) {
            let ticket = shuffle.image(slot);
            let drawn = mix(hash ^ mix(u64::from(ticket)));
            let (views, start, pace) = (self.views.draw(drawn as u32), (drawn >> 32) as u8, (drawn >> 40) as u8 % 8);
            for index in 0..views {
                // A visit that starts late in the stretch continues in it: the next stretch is a few seconds away.
                let bucket = start.saturating_add(index.saturating_mul(pace));
                let again = mix(drawn ^ u64::from(index)).is_multiple_of(REPEATS);
                let place = Place { project, ticket, index, kind: Kind::Reader, again, repeat: false, bucket };
                into.push(place);
                if again {
                    into.push(Place { again: false, repeat: true, bucket: bucket.saturating_add(1), ..place });
                }
            }
        }
    }

    fn single(&self, project: u32, ticket: u32, kind: Kind) -> Place {
        let bucket = mix(self.hash_of(project) ^ u64::from(ticket)) as u8;
        Place { project, ticket, index: 0, kind, again: false, repeat: false, bucket }
    }
}
