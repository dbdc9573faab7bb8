//! Capped counts: counts by host, a few of them by name, the others in one overflow. Hosts come from outside, and a client can forge
//! any number of them.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005) chooses
//! the names. Each has a counter. A host that has none takes over the smallest one, with its value: so the counters add up to all N
//! arrivals, and a host with N / [`NAMED`](schemas::referrer::NAMED) of them or more has one at the end. Among equal counters, the one
//! of the host that was taken in first goes.
//!
//! A counter overestimates by what it took over, so rows do not show it: a named host's row has what was counted since it was taken
//! in. When a host leaves, its count moves to the overflow. Names and overflow thus add up to the total at every offset.
//!
//! A source's views have counters and an overflow of their own; the names of all sources together are limited.
//!
//! A host that left gets a row of 0, even if this process never wrote another one: a process before it, which flushed at other
//! offsets, may have.

use super::texts::{Text, Texts};
use schemas::classes::Source;
use schemas::referrer::{INTERNAL, MORE};
use std::collections::BTreeSet;

/// A host from one source, as a row has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) text: Text,
    pub(super) source: Source,
}

/// Values that are no names, and which of them is the overflow.
pub(super) struct Overflow {
    unnamed: [Text; 3],
    overflow: Text,
}

impl Overflow {
    /// For referrers of missing pages.
    pub(super) fn of_referrers(texts: &mut Texts) -> Self {
        let overflow = texts.intern(MORE);
        Overflow { unnamed: [Text::EMPTY, texts.intern(INTERNAL), overflow], overflow }
    }

    /// For hosts of refused beacons.
    pub(super) fn of_hosts() -> Self {
        Overflow { unnamed: [Text::EMPTY; 3], overflow: Text::EMPTY }
    }

    pub(super) fn internal(&self) -> Text {
        self.unnamed[1]
    }

    pub(super) fn overflow(&self) -> Text {
        self.overflow
    }

    /// The overflow of the source that a name has.
    fn of(&self, name: Name) -> Name {
        Name { text: self.overflow, ..name }
    }

    fn names(&self, name: Name) -> bool {
        !self.unnamed.contains(&name.text)
    }
}

struct Count {
    name: Name,
    dirty: bool,
    /// What the row shows.
    count: u64,
    /// Space-Saving's counter, of names only.
    counter: u64,
}

/// Counts of one missing page, or of one reason of refused beacons.
#[derive(Default)]
pub(super) struct CappedCounts {
    /// In the order in which they were taken in, names and others.
    all: Vec<Count>,
    names: usize,
    /// Hosts that left since the last freeze and did not come back.
    left: BTreeSet<Name>,
}

impl CappedCounts {
    /// Adds to a host's count; at most `most` hosts are named. Returns how many rows changed that had not changed since the last
    /// [`CappedCounts::freeze`].
    pub(super) fn count(&mut self, host: Name, by: u64, overflow: &Overflow, most: usize) -> usize {
        if let Some(held) = self.all.iter_mut().find(|held| held.name == host) {
            held.counter = held.counter.saturating_add(by);
            return held.add(by);
        }
        if !overflow.names(host) {
            return self.add(host, by, 0);
        }
        let (mut changed, mut counter) = (0, by);
        if self.names < most {
            self.names += 1;
        } else {
            let Some(smallest) = self.smallest(overflow) else { return self.add(overflow.of(host), by, 0) };
            let leaves = self.all.remove(smallest);
            self.left.insert(leaves.name);
            changed += usize::from(!leaves.dirty);
            let others = overflow.of(leaves.name);
            changed += match self.all.iter_mut().find(|held| held.name == others) {
                Some(held) => held.add(leaves.count),
                None => self.add(others, leaves.count, 0),
            };
            counter = leaves.counter.saturating_add(by);
        }
        let came_back = self.left.remove(&host);
        changed + self.add(host, by, counter) - usize::from(came_back)
    }

    /// Position of the name with the smallest counter; of several, the one taken in first.
    fn smallest(&self, overflow: &Overflow) -> Option<usize> {
        let names = self.all.iter().enumerate().filter(|(_, held)| overflow.names(held.name));
        names.min_by_key(|(_, held)| held.counter).map(|(position, _)| position)
    }

    fn add(&mut self, name: Name, count: u64, counter: u64) -> usize {
        self.all.push(Count { name, dirty: true, count, counter });
        1
    }

    /// Hands over the changed counts, which then count as unchanged, with 0 for hosts that left.
    pub(super) fn freeze(&mut self, mut take: impl FnMut(Name, u64)) {
        for held in self.all.iter_mut().filter(|held| held.dirty) {
            held.dirty = false;
            take(held.name, held.count);
        }
        for name in std::mem::take(&mut self.left) {
            take(name, 0);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes on the heap, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Count>() + self.left.len() * 2 * size_of::<Name>()
    }
}

impl Count {
    fn add(&mut self, by: u64) -> usize {
        self.count += by;
        usize::from(!std::mem::replace(&mut self.dirty, true))
    }
}
