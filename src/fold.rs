//! The fold for `headcount loadtest fold`: the load test knows records only, so whoever can fold them hands it over.

use aggregate::fold::WindowState;
use aggregate::window::WindowStart;
use loadtest::month::fold::{Folded, Folder};
use schemas::{Hour, StreamId};

/// Folds one stream, window after window, and throws the rows away.
pub struct Windows {
    open: WindowState,
    next: u64,
    folded: Folded,
}

impl Default for Windows {
    fn default() -> Self {
        Windows { open: begun(0), next: 0, folded: Folded::default() }
    }
}

fn begun(offset: u64) -> WindowState {
    WindowState::new(StreamId(1), WindowStart { offset, appended_hour: Hour::default().0 })
}

impl Folder for Windows {
    fn apply(&mut self, record: &[u8]) {
        if self.open.apply(self.next, record).is_err() {
            self.folded.undecodable += 1;
        }
        self.next += 1;
    }

    fn end_window(&mut self) {
        self.folded.largest_bytes = self.folded.largest_bytes.max(self.open.memory_bytes() as u64);
        self.folded.rows += self.open.freeze().len() as u64;
        self.folded.windows += 1;
        self.open = begun(self.next);
    }

    fn folded(&self) -> Folded {
        self.folded
    }
}
