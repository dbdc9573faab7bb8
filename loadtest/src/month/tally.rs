//! Refused beacons: the tallies that the endpoint sends of them.

use schemas::proto::RejectionTally;
use schemas::rejection::RejectionReason;

use super::plan::Plan;
use crate::random::{SplitMix64, mix};

/// Reasons for which the endpoint refuses and tallies beacons. Assumed to be equally frequent.
const REASONS: [RejectionReason; 5] = [
    RejectionReason::ForeignHost,
    RejectionReason::InvalidField,
    RejectionReason::ClientRateLimited,
    RejectionReason::MalformedJson,
    RejectionReason::UnknownProject,
];
/// Maximum number of refused beacons in a tally.
const MOST: u64 = 40;
/// Hosts that have a copy of the pages, beacon and all.
const COPIES: u64 = 30;

impl Plan {
    /// The tally of a part of an hour (since the month's start), with the key that chooses its partition.
    #[must_use]
    pub fn tally(&self, hour: u32, part: u32) -> (u64, RejectionTally) {
        let id = mix(mix(self.seed ^ 0x7a11) ^ (u64::from(hour) << 32 | u64::from(part))).max(1);
        let mut rng = SplitMix64::new(id);
        let reason = REASONS[rng.below(REASONS.len() as u64) as usize];
        // A beacon without a known project is refused without a project.
        let nobody = matches!(reason, RejectionReason::UnknownProject | RejectionReason::MalformedJson);
        let project = self.pages.sample_among(self.projects.len(), &mut rng) as u32;
        let project = if nobody { String::new() } else { self.slug(project).to_owned() };
        let hour = self.month.first_hour().0 + hour;
        let host = match reason {
            RejectionReason::ForeignHost => format!("copy-{}.example.net", rng.below(COPIES)),
            _ => String::new(),
        };
        (mix(id), RejectionTally { project, hour, reason: reason as u32, count: 1 + rng.below(MOST), id, host })
    }
}
