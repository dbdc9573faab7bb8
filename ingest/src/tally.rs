//! Refused beacons never reach the log one by one. They are tallied per project, reason and host, and the tallies are sent as separate records: a
//! flood of rubbish costs one record a second, and a maintainer still sees it.
//!
//! A tally has a random id. One whose outcome is unknown is sent again unchanged, and the fold drops the repeat (within one window of the log).

use crate::ids;
use schemas::proto::{Cause, Fact};
use schemas::record::{self, RecordFormat};
use schemas::{Hour, ProjectSlug, RejectionReason, proto};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Hosts of a project that are tallied by name between two takes. Beacons of others are tallied without their host, since a client can forge any
/// number of them. Space-Saving (Metwally, Agrawal, El Abbadi, 2005) chooses the names, as the fold does among those of a window: a host with one in
/// sixteen refusals or more is named, whatever is forged beside it.
const HOSTS: usize = 16;

/// Pages reported as missing that are tallied by path between two takes. Reports of others are tallied as events, since a client can forge
/// any number of paths.
const MISSING_PATHS: usize = 256;

/// A tally in the form that is sent to the log.
#[derive(Clone, Debug, PartialEq)]
pub enum TallyMessage {
    /// Refused beacons.
    Rejections(proto::RejectionTally),
    /// Views that were counted without a fact.
    DroppedFacts(proto::DroppedFacts),
    /// A page that readers reported as missing.
    ReportedMissing(proto::ReportedMissing),
}

impl TallyMessage {
    /// The record; none if the format cannot represent it.
    pub fn encode(self, format: RecordFormat) -> Option<Vec<u8>> {
        match self {
            TallyMessage::Rejections(tally) => record::encode_rejections(tally, format),
            TallyMessage::DroppedFacts(tally) => record::encode_dropped_facts(tally, format),
            TallyMessage::ReportedMissing(tally) => record::encode_reported_missing(tally, format),
        }
    }
}

/// Refusals and dropped facts since the last take.
#[derive(Default)]
struct Pending {
    dropped: HashMap<(ProjectSlug, Fact, Cause), u64>,
    counts: HashMap<(Option<ProjectSlug>, RejectionReason, String), u64>,
    hosts: HashMap<ProjectSlug, Hosts>,
    missing: HashMap<(ProjectSlug, String), u64>,
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
    /// Counts refusals of a project under their host, or under the empty one.
    fn count(&mut self, project: ProjectSlug, reason: RejectionReason, host: String, count: u64) {
        if let Some(left) = self.hosts.entry(project.clone()).or_default().arrive(&host, count) {
            for reason in RejectionReason::ALL.iter().filter(|reason| reason.is_about_host()) {
                let key = |host: &str| (Some(project.clone()), *reason, host.to_owned());
                if let Some(had) = self.counts.remove(&key(&left)) {
                    *self.counts.entry(key("")).or_default() += had;
                }
            }
        }
        *self.counts.entry((Some(project), reason, host)).or_default() += count;
    }
}

/// Names and their counters, in the order in which they were taken in.
#[derive(Default)]
struct Hosts(Vec<(String, u64)>);

impl Hosts {
    /// Counts `by` arrivals of a host. Returns the host that it replaces: the one with the smallest counter; among several, the one that was taken in
    /// first.
    fn arrive(&mut self, host: &str, by: u64) -> Option<String> {
        if let Some((_, counter)) = self.0.iter_mut().find(|(held, _)| held == host) {
            *counter += by;
            return None;
        }
        let (mut left, mut counter) = (None, by);
        if self.0.len() == HOSTS {
            let smallest = (0..HOSTS).min_by_key(|&place| self.0[place].1)?;
            let (name, took_over) = self.0.remove(smallest);
            (left, counter) = (Some(name), took_over + by);
        }
        self.0.push((host.to_owned(), counter));
        left
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Counts `count` refusals. The project is a known one, so that the map stays as small as the registry. `host` is cleaned, and empty if it is not
    /// the reason; refusals without a known project have none.
    pub fn add(&self, project: Option<ProjectSlug>, reason: RejectionReason, host: String, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
        let mut pending = locked(&self.pending);
        match project {
            Some(project) if reason.is_about_host() && !host.is_empty() => pending.count(project, reason, host, count),
            _ => *pending.counts.entry((project, reason, String::new())).or_default() += count,
        }
    }

    /// Counts one view of `project` that was counted without `fact`.
    pub fn add_dropped(&self, project: &ProjectSlug, fact: Fact, cause: Cause) {
        *locked(&self.pending).dropped.entry((project.clone(), fact, cause)).or_default() += 1;
    }

    /// Counts one report that the page at `path` (cleaned) is missing.
    pub fn add_missing(&self, project: &ProjectSlug, path: &str) {
        let mut pending = locked(&self.pending);
        let key = (project.clone(), path.to_owned());
        if pending.missing.len() < MISSING_PATHS || pending.missing.contains_key(&key) {
            *pending.missing.entry(key).or_default() += 1;
            return;
        }
        drop(pending);
        self.add(Some(project.clone()), RejectionReason::NotAView, String::new(), 1);
    }

    /// Refusals since the start.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        let pending = locked(&self.pending);
        let nothing_new = pending.counts.is_empty() && pending.dropped.is_empty() && pending.missing.is_empty();
        nothing_new && locked(&self.unsent).is_empty()
    }

    /// Takes the pending tallies as messages for the log: returned ones unchanged, then new ones.
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
        tallies.extend(pending.missing.into_iter().map(|((project, path), count)| {
            TallyMessage::ReportedMissing(proto::ReportedMissing {
                project: project.as_str().to_owned(),
                hour: hour.0,
                path,
                count,
                id: ids::draw(),
            })
        }));
        tallies
    }

    /// Returns a tally that is not known to be in the log. It keeps its id, and so must not grow.
    pub fn put_back(&self, tally: TallyMessage) {
        locked(&self.unsent).push(tally);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_hosts_are_distinguished_and_every_refusal_is_counted() {
        let tally = Tally::default();
        let project = |slug: &str| slug.parse::<ProjectSlug>().ok();
        for beacon in 0..320 {
            // Every 16th is of the site that is really misconfigured.
            let host = if beacon % 16 == 5 { "real.example".to_owned() } else { format!("{beacon}.forged.example") };
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
        let real = of("docs", "real.example");
        assert!(real.len() == 1 && (1..=20).contains(&real[0]), "{real:?}");
        let foreign: Vec<_> = tallies.iter().filter(|tally| tally.project == "docs" && tally.reason == 8).collect();
        assert_eq!((foreign.len(), foreign.iter().map(|tally| tally.count).sum::<u64>()), (HOSTS + 1, 320));
        assert_eq!((of("docs", "0.forged.example"), of("other", "0.example")), (vec![], vec![1]));
        assert_eq!((tallies.len(), tallies.iter().map(|tally| tally.count).sum::<u64>()), (HOSTS + 4, 961));
        for tally in tallies {
            let reason = tally.reason;
            let bytes = schemas::record::encode_rejections(tally, schemas::record::RecordFormat::V3).unwrap();
            assert!(schemas::record::decode(&bytes).is_ok(), "reason {reason}");
        }
        // The next tallies start from zero.
        tally.add(project("docs"), RejectionReason::ForeignHost, "99.example".to_owned(), 1);
        assert_eq!(refusals(tally.take(Hour(500_000)))[0].host, "99.example");
    }

    fn refusals(tallies: Vec<TallyMessage>) -> Vec<proto::RejectionTally> {
        let refusal = |tally| match tally {
            TallyMessage::Rejections(tally) => tally,
            other => panic!("only beacons were refused: {other:?}"),
        };
        tallies.into_iter().map(refusal).collect()
    }

    #[test]
    fn reports_of_missing_pages_are_tallied_by_path_and_forged_ones_stay_few() {
        let tally = Tally::default();
        let project: ProjectSlug = "docs".parse().unwrap();
        (0..300).for_each(|forged| tally.add_missing(&project, &format!("/{forged}")));
        tally.add_missing(&project, "/0");
        let (mut paths, mut reports, mut events) = (0, 0, 0);
        for message in tally.take(Hour(500_000)) {
            match message {
                TallyMessage::ReportedMissing(tally) => (paths, reports) = (paths + 1, reports + tally.count),
                TallyMessage::Rejections(tally) => events += tally.count,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((paths, reports, events), (MISSING_PATHS, MISSING_PATHS as u64 + 1, 44));
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
