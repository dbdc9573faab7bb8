//! Counts by host, few of them by name: hosts come from outside, and whoever sends them can invent some without end.

use super::texts::{Text, Texts};
use schemas::referrer::{INTERNAL, MORE, NAMED};

/// What stands for hosts that are not named.
pub(super) struct Unnamed {
    all: [Text; 3],
    beyond: Text,
}

impl Unnamed {
    /// For referrers of pages not found.
    pub(super) fn referrers(texts: &mut Texts) -> Self {
        let beyond = texts.intern(MORE);
        Unnamed { all: [Text::EMPTY, texts.intern(INTERNAL), beyond], beyond }
    }

    /// For hosts of refused beacons.
    pub(super) fn hosts() -> Self {
        Unnamed { all: [Text::EMPTY; 3], beyond: Text::EMPTY }
    }

    pub(super) fn internal(&self) -> Text {
        self.all[1]
    }
}

struct Host {
    text: Text,
    dirty: bool,
    count: u64,
}

/// Hosts in the order in which they came: so which of them are named depends on the log alone.
#[derive(Default)]
pub(super) struct Named {
    all: Vec<Host>,
    named: usize,
}

impl Named {
    /// Adds to a host's count. Returns whether that changed a row that had not changed since the last [`Named::freeze`].
    pub(super) fn count(&mut self, host: Text, by: u64, unnamed: &Unnamed) -> bool {
        let known = |all: &[Host], text: Text| all.iter().position(|held| held.text == text);
        let mut text = host;
        let mut position = known(&self.all, text);
        if position.is_none() && !unnamed.all.contains(&text) {
            if self.named < NAMED {
                self.named += 1;
            } else {
                text = unnamed.beyond;
                position = known(&self.all, text);
            }
        }
        let position = position.unwrap_or_else(|| {
            self.all.push(Host { text, dirty: false, count: 0 });
            self.all.len() - 1
        });
        let held = &mut self.all[position];
        held.count += by;
        !std::mem::replace(&mut held.dirty, true)
    }

    /// Hands over the changed ones, which then count as unchanged.
    pub(super) fn freeze(&mut self, mut take: impl FnMut(Text, u64)) {
        for held in self.all.iter_mut().filter(|held| held.dirty) {
            held.dirty = false;
            take(held.text, held.count);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Host>()
    }
}
