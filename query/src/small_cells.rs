//! Small cells: values with few views, which a report suppresses.
//!
//! A value of a breakdown with fewer views than the threshold is added up in "other". A dimension's total is always shown, so one value
//! suppressed alone would come out by subtraction: then the next smallest goes with it (in the field's words, complementary suppression),
//! and so it goes on while "other" itself is below the threshold. Of a page, the visitors are withheld if they are fewer than the
//! threshold. It counts views, not readers: one reader who opens twelve pages passes it.
//!
//! Every output is made of a report that went through here, one month at a time: whoever adds up several months adds up
//! what is left. Ranges folded after adding could be subtracted from each other.
//!
//! Suppression and why it needs a complement: Willenborg and de Waal, Elements of Statistical Disclosure Control, 2001.

use crate::report::BreakdownItem;
use std::sync::atomic::{AtomicU64, Ordering};

/// The smallest floor that may be configured.
pub const LEAST_FLOOR: u64 = 3;

/// Values below the floor, added up by who read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beneath {
    /// How many.
    pub cells: u64,
    /// Their views together.
    pub views: u64,
    /// Views of the largest.
    pub largest: u64,
}

/// A figure that is shown counts at least so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor(u64);

/// Cells that reports of this process suppressed. For a metric: one number for the process, whichever report it was.
static SUPPRESSED_CELLS: AtomicU64 = AtomicU64::new(0);

/// How many cells the reports of this process have suppressed since its start, each time that they were computed.
pub fn suppressed_cells() -> u64 {
    SUPPRESSED_CELLS.load(Ordering::Relaxed)
}

impl Default for Floor {
    fn default() -> Self {
        Floor(10)
    }
}

impl Floor {
    /// None below [`LEAST_FLOOR`].
    pub fn new(floor: u64) -> Option<Self> {
        (floor >= LEAST_FLOOR).then_some(Floor(floor))
    }

    /// As a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Whether a figure is too small to be shown.
    pub fn withholds(self, figure: u64) -> bool {
        figure < self.0
    }

    /// Folds one dimension. `items` come in any order; an item marked `rest` is folded already and stays so. The result is
    /// sorted by views, most first, and the folded ones are one item at its end.
    pub fn fold(self, items: Vec<BreakdownItem>) -> Vec<BreakdownItem> {
        self.fold_above(items, Beneath::default())
    }

    /// Folds one dimension of which only some values came as `items`, and the others, each below the floor, added up as
    /// `beneath`. The result is that of [`Floor::fold`] with all values.
    pub fn fold_above(self, mut items: Vec<BreakdownItem>, beneath: Beneath) -> Vec<BreakdownItem> {
        items.sort_by(|a, b| a.rest.cmp(&b.rest).then(b.views.cmp(&a.views)).then_with(|| a.value.cmp(&b.value)));
        let Beneath { mut cells, mut views, mut largest } = beneath;
        while let Some(last) = items.last() {
            // So many cells below the floor cannot add up to more, nor two of which one is below the smallest that is shown. A reader
            // of such a sum would know all of them. Equals go together, lest their order tell.
            let most = (cells * (self.0 - 1)).max((self.0 - 1) + (last.views - 1));
            let too_telling =
                cells > 0 && (cells < 2 || self.withholds(views) || views >= most || last.views == largest);
            if !(last.rest || self.withholds(last.views) || too_telling) {
                break;
            }
            (cells, views, largest) = (cells + 1, views + last.views, last.views);
            items.pop();
        }
        if cells > 0 {
            SUPPRESSED_CELLS.fetch_add(cells, Ordering::Relaxed);
            items.push(BreakdownItem { value: "other".to_owned(), views, rest: true });
        }
        items
    }
}

#[cfg(test)]
mod pairs;
#[cfg(test)]
mod tests;
