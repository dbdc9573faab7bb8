//! Who led to a page that is not there: its referrers on one day, few of them by name.

use super::texts::{Text, Texts};
use schemas::referrer::{INTERNAL, MORE, NAMED};

/// What referrers are called that are no host.
pub(super) struct Unnamed {
    pub(super) internal: Text,
    more: Text,
}

impl Unnamed {
    pub(super) fn new(texts: &mut Texts) -> Self {
        Unnamed { internal: texts.intern(INTERNAL), more: texts.intern(MORE) }
    }

    fn is(&self, referrer: Text) -> bool {
        [Text::EMPTY, self.internal, self.more].contains(&referrer)
    }
}

struct Referrer {
    text: Text,
    dirty: bool,
    views: u64,
}

/// The referrers of one path's day, in the order in which they came: so which of them are named depends on the log alone.
#[derive(Default)]
pub(super) struct Referrers {
    all: Vec<Referrer>,
    named: usize,
}

impl Referrers {
    /// Counts a view. Returns whether it changed a row that had not changed since the last [`Referrers::freeze`].
    pub(super) fn count(&mut self, referrer: Text, unnamed: &Unnamed) -> bool {
        let known = |all: &[Referrer], text: Text| all.iter().position(|held| held.text == text);
        let mut text = referrer;
        let mut position = known(&self.all, text);
        if position.is_none() && !unnamed.is(text) {
            if self.named < NAMED {
                self.named += 1;
            } else {
                text = unnamed.more;
                position = known(&self.all, text);
            }
        }
        let position = position.unwrap_or_else(|| {
            self.all.push(Referrer { text, dirty: false, views: 0 });
            self.all.len() - 1
        });
        let held = &mut self.all[position];
        held.views += 1;
        !std::mem::replace(&mut held.dirty, true)
    }

    /// Hands over the changed ones, which then count as unchanged.
    pub(super) fn freeze(&mut self, mut take: impl FnMut(Text, u64)) {
        for held in self.all.iter_mut().filter(|held| held.dirty) {
            held.dirty = false;
            take(held.text, held.views);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Referrer>()
    }
}
