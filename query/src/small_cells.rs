//! Small cells: values with few views, which a report suppresses.
//!
//! A value of a breakdown with fewer views than the threshold is added up in "other". The total of a dimension is always shown, so a value
//! suppressed alone could be recovered by subtraction. The next smallest value is therefore suppressed with it (complementary suppression),
//! until "other" reaches the threshold. The visitors of a page are withheld if they are fewer than the threshold. The threshold counts
//! views, not readers: one reader who opens twelve pages passes it.
//!
//! Every output is based on a report with suppressed cells, one month at a time: sums over several months add up what is shown. If
//! suppression came after adding up, ranges could be subtracted from each other.
//!
//! Suppression and why it needs a complement: Willenborg and de Waal, Elements of Statistical Disclosure Control, 2001.

use crate::report::BreakdownItem;
use std::sync::atomic::{AtomicU64, Ordering};

/// The smallest threshold that may be configured.
pub const LEAST_FLOOR: u64 = 3;

/// Values below the threshold, added up by the code that read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beneath {
    /// How many values.
    pub cells: u64,
    /// Their views together.
    pub views: u64,
    /// Views of the largest value.
    pub largest: u64,
}

/// The threshold: the smallest figure that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor(u64);

/// Cells that reports of this process suppressed. For a metric, without a label for the report.
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
    /// None if `floor` is below [`LEAST_FLOOR`].
    pub fn new(floor: u64) -> Option<Self> {
        (floor >= LEAST_FLOOR).then_some(Floor(floor))
    }

    /// As a number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Whether a figure is below the threshold.
    pub fn withholds(self, figure: u64) -> bool {
        figure < self.0
    }

    /// Suppresses the small cells of one dimension. `items` come in any order; an item marked `rest` is suppressed already and stays so.
    /// The result is sorted by views, most first, with the suppressed values as one item at its end.
    pub fn fold(self, items: Vec<BreakdownItem>) -> Vec<BreakdownItem> {
        self.fold_above(items, Beneath::default())
    }

    /// Suppresses the small cells of one dimension, of which only some values are in `items`. `beneath` adds up the others, each of which
    /// is below the threshold. The result equals that of [`Floor::fold`] with all values.
    pub fn fold_above(self, mut items: Vec<BreakdownItem>, beneath: Beneath) -> Vec<BreakdownItem> {
        items.sort_by(|a, b| a.rest.cmp(&b.rest).then(b.views.cmp(&a.views)).then_with(|| a.value.cmp(&b.value)));
        let Beneath { mut cells, mut views, mut largest } = beneath;
        while let Some(last) = items.last() {
            // Upper bound of "other" with this many cells below the threshold, or with two cells of which one is below the smallest shown
            // value. A sum that reaches its bound reveals all of them. Equal values are suppressed together, so that their order reveals
            // nothing.
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
