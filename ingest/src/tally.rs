//! Refused beacons never reach the log one by one: they are tallied per project, reason and host, and the tallies are sent as
//! records of their own, so that a flood of rubbish costs one record a second and a maintainer still sees it.
//!
//! A tally has a random id. One whose fate is unknown is sent again as it was, and the fold drops the repeat (within one
//! window of the log).

use crate::ids;
use schemas::proto::{Cause, Fact};
use schemas::record::{self, RecordFormat};
use schemas::{Hour, ProjectSlug, RejectionReason, proto};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many hosts of a project are told apart between two takes; beacons of others are tallied without their host. Whoever sends
/// beacons can invent hosts without end.
const HOSTS: usize = 16;

/// A tally as it goes to the log.
#[derive(Clone, Debug, PartialEq)]
pub enum TallyMessage {
    /// Refused beacons.
    Rejections(proto::RejectionTally),
    /// Views that were counted without a fact.
    DroppedFacts(proto::DroppedFacts),
}

impl TallyMessage {
    /// The record; none if the format has no place for it.
    pub fn encode(self, format: RecordFormat) -> Option<Vec<u8>> {
        match self {
            TallyMessage::Rejections(tally) => record::encode_rejections(tally, format),
            TallyMessage::DroppedFacts(tally) => record::encode_dropped_facts(tally, format),
        }
    }
}

/// Refusals and dropped facts since the last take.
#[derive(Default)]
struct Pending {
    dropped: HashMap<(ProjectSlug, Fact, Cause), u64>,
    counts: HashMap<(Option<ProjectSlug>, RejectionReason, String), u64>,
    hosts: HashMap<ProjectSlug, HashSet<String>>,
}

/// Counts since the last [`Tally::take`], and the total since the start for `/metrics` and `/readyz`.
#[derive(Default)]
pub struct Tally {
    pending: Mutex<Pending>,
    /// Taken before, and not known to be in the log.
    unsent: Mutex<Vec<TallyMessage>>,
    refused: AtomicU64,
}

impl Pending {
    /// The host, if it is one of the project's first few; else nothing.
    fn admitted(&mut self, project: &ProjectSlug, host: String) -> String {
        if !self.hosts.contains_key(project) {
            self.hosts.insert(project.clone(), HashSet::new());
        }
        match self.hosts.get_mut(project) {
            Some(hosts) if hosts.len() < HOSTS => {
                hosts.insert(host.clone());
                host
            }
            Some(hosts) if hosts.contains(&host) => host,
            _ => String::new(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Counts `count` refusals. The project is one we know, so that the map stays as small as the registry. `host` is cleaned, and
    /// empty where it is not why; refusals of no known project have none.
    pub fn add(&self, project: Option<ProjectSlug>, reason: RejectionReason, host: String, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
        let mut pending = locked(&self.pending);
        let host = match &project {
            Some(project) if reason.is_about_host() && !host.is_empty() => pending.admitted(project, host),
            _ => String::new(),
        };
        *pending.counts.entry((project, reason, host)).or_default() += count;
    }

    /// Counts one view of `project` that was counted without `fact`.
    pub fn add_dropped(&self, project: &ProjectSlug, fact: Fact, cause: Cause) {
        *locked(&self.pending).dropped.entry((project.clone(), fact, cause)).or_default() += 1;
    }

    /// Refusals since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        let pending = locked(&self.pending);
        pending.counts.is_empty() && pending.dropped.is_empty() && locked(&self.unsent).is_empty()
    }

    /// Takes what is pending as messages for the log: those that were put back as they are, then new ones.
    pub fn take(&self, hour: Hour) -> Vec<TallyMessage> {
        let mut tallies = std::mem::take(&mut *locked(&self.unsent));
        let pending = std::mem::take(&mut *locked(&self.pending));
        tallies.extend(pending.counts.into_iter().map(|((project, reason, host), count)| {
            TallyMessage::Rejections(proto::RejectionTally {
                project: project.map_or_else(String::new, |slug| slug.as_str().to_owned()),
                hour: hour.0,
                reason: reason as u32,
                count,
                id: ids::draw(),
                host,
            })
        }));
        tallies.extend(pending.dropped.into_iter().map(|((project, fact, cause), count)| {
            TallyMessage::DroppedFacts(proto::DroppedFacts {
                project: project.as_str().to_owned(),
                hour: hour.0,
                fact: fact as i32,
                cause: cause as i32,
                count,
                id: ids::draw(),
            })
        }));
        tallies
    }

    /// Puts back what is not known to be in the log. It keeps its id, and so must not grow.
    pub fn put_back(&self, tally: TallyMessage) {
        locked(&self.unsent).push(tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_hosts_are_told_apart_and_every_refusal_is_counted() {
        let tally = Tally::default();
        let project = |slug: &str| slug.parse::<ProjectSlug>().ok();
        for beacon in 0..300 {
            let host = format!("{}.example", beacon % 100);
            tally.add(project("docs"), RejectionReason::ForeignHost, host.clone(), 1);
            tally.add(None, RejectionReason::UnknownProject, host.clone(), 1);
            tally.add(project("docs"), RejectionReason::InvalidField, host, 1);
        }
        tally.add(project("other"), RejectionReason::ForeignHost, "0.example".to_owned(), 1);
        let tallies = refusals(tally.take(Hour(500_000)));
        assert!(tally.is_empty());
        let of = |project: &str, host: &str| -> Vec<u64> {
            let found = tallies.iter().filter(|tally| tally.project == project && tally.host == host);
            found.filter(|tally| tally.reason == RejectionReason::ForeignHost as u32).map(|tally| tally.count).collect()
        };
        assert_eq!(
            (of("docs", "0.example"), of("docs", "15.example"), of("docs", "16.example")),
            (vec![3], vec![3], vec![])
        );
        assert_eq!((of("docs", ""), of("other", "0.example")), (vec![3 * (100 - HOSTS as u64)], vec![1]));
        assert_eq!(tallies.len(), HOSTS + 4);
        assert_eq!(tallies.iter().map(|tally| tally.count).sum::<u64>(), 901);
        for tally in tallies {
            let reason = tally.reason;
            let bytes = schemas::record::encode_rejections(tally, schemas::record::RecordFormat::V3).unwrap();
            assert!(schemas::record::decode(&bytes).is_ok(), "reason {reason}");
        }
        // The next ones begin anew.
        tally.add(project("docs"), RejectionReason::ForeignHost, "99.example".to_owned(), 1);
        assert_eq!(refusals(tally.take(Hour(500_000)))[0].host, "99.example");
    }

    fn refusals(tallies: Vec<TallyMessage>) -> Vec<proto::RejectionTally> {
        let refusal = |tally| match tally {
            TallyMessage::Rejections(tally) => tally,
            TallyMessage::DroppedFacts(tally) => panic!("no fact was dropped: {tally:?}"),
        };
        tallies.into_iter().map(refusal).collect()
    }

    #[test]
    fn dropped_facts_are_tallied_and_travel_in_format_4_only() {
        let tally = Tally::default();
        let project: ProjectSlug = "docs".parse().unwrap();
        for _ in 0..3 {
            tally.add_dropped(&project, Fact::Path, Cause::Limit);
        }
        tally.add_dropped(&project, Fact::Agent, Cause::Limit);
        assert_eq!((tally.refused(), tally.is_empty()), (0, false), "the views are counted");
        let tallies = tally.take(Hour(500_000));
        assert!(tally.is_empty() && tallies.len() == 2);
        let of_path =
            |tally: &&TallyMessage| matches!(tally, TallyMessage::DroppedFacts(tally) if tally.fact() == Fact::Path);
        let of_path = tallies.iter().find(of_path).unwrap().clone();
        assert_eq!(of_path.clone().encode(RecordFormat::V3), None);
        let bytes = of_path.encode(RecordFormat::V4).unwrap();
        match record::decode(&bytes).unwrap() {
            record::Record::DroppedFacts(read) => assert_eq!((read.project, read.count), ("docs", 3)),
            other => panic!("{other:?}"),
        }
    }
}
