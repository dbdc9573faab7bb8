//! The rows that a process of a design inserts, made from the rows of the real loop.

use crate::book::{Figures, LIMITS};
use crate::model_store::{Insert, Row, rows_of};
use crate::variant::Variant;
use crate::world::{STREAM, World};
use headcount_aggregate::commit::Commit;
use headcount_aggregate::fold::{Rows, WindowState};
use schemas::VisitorSketch;
use std::collections::{BTreeMap, VecDeque};

/// The design of one process, with what it remembers.
pub struct Design {
    variant: Variant,
    /// Inserts of flushes that are not acknowledged, by offset. A retry sends the same.
    flushes: BTreeMap<u64, VecDeque<Insert>>,
    /// Rows that were in the store at the start, or were written last: what a design adds to, or subtracts.
    base: BTreeMap<(String, u64), Figures>,
    /// The last flush ended here.
    flushed: u64,
    /// Rows of names and overflows written so far, with their counts.
    written: BTreeMap<(String, u64), u64>,
}

impl Design {
    pub fn new(variant: Variant) -> Self {
        Design { variant, flushes: BTreeMap::new(), base: BTreeMap::new(), flushed: 0, written: BTreeMap::new() }
    }

    /// A process starts from `commit`.
    pub fn start(&mut self, world: &World, commit: &Commit) {
        self.flushed = commit.next_offset;
        let Some(window) = commit.window else { return };
        if self.variant.sums() {
            // Nothing is wrong with this state. Folded again, because a commit has none.
            let mut state = WindowState::with_limits(STREAM, window, LIMITS);
            for offset in window.offset..commit.next_offset {
                let _ = state.apply(offset, &world.log[offset as usize].bytes);
            }
            self.base = rows_of(state.freeze()).into_iter().flatten().map(|row| (row.key, row.cell)).collect();
        }
        if self.variant == Variant::ReadBackStale {
            let rows = world.stale.read(self.variant).into_iter();
            self.base = rows.filter(|((key, at), _)| *at == window.offset && key != "ledger").collect();
        }
    }

    /// The inserts of a flush that are not acknowledged.
    pub fn inserts(&mut self, world: &mut World, rows: &Rows, next_offset: u64) -> Vec<Insert> {
        if self.variant.sums() && next_offset <= self.flushed && !self.flushes.contains_key(&next_offset) {
            // Deltas of these records are written.
            return Vec::new();
        }
        let split = 1 + world.chance.below(6) as usize;
        if !self.flushes.contains_key(&next_offset) {
            let flush = self.flush(rows_of(rows.clone()), next_offset, split);
            self.flushes.insert(next_offset, flush);
        }
        self.flushes[&next_offset].iter().cloned().collect()
    }

    /// The first insert of a flush is acknowledged.
    pub fn acknowledged(&mut self, next_offset: u64) {
        // The real sink sends all rows of a flush again. With deltas that alone would be wrong.
        if self.variant.sums()
            && let Some(flush) = self.flushes.get_mut(&next_offset)
        {
            flush.pop_front();
        }
    }

    fn flush(&mut self, mut tables: [Vec<Row>; 8], next_offset: u64, split: usize) -> VecDeque<Insert> {
        self.spoil_names(&mut tables[2], ":more");
        self.spoil_names(&mut tables[3], "");
        let from = std::mem::replace(&mut self.flushed, next_offset);
        let mut inserts = VecDeque::new();
        for (table, mut rows) in tables.into_iter().enumerate() {
            rows.iter_mut().for_each(|row| self.spoil_counts(row));
            for part in rows.chunks(split) {
                let token = (from, next_offset, table * 1_000 + inserts.len());
                inserts.push_back(Insert { token, rows: part.to_vec() });
            }
        }
        inserts
    }

    fn spoil_counts(&mut self, row: &mut Row) {
        if self.variant.sums() {
            let Some(before) = self.base.insert(row.key.clone(), row.cell.clone()) else { return };
            for (count, before) in row.cell.counts.iter_mut().zip(&before.counts) {
                // It is negative for a name that lost its counter.
                *count = count.wrapping_sub(*before);
            }
        } else if let Some(base) = self.base.get(&row.key) {
            for (count, base) in row.cell.counts.iter_mut().zip(&base.counts) {
                *count += base;
            }
            if let (Some(sketch), Some(base)) = (&mut row.cell.sketch, &base.sketch) {
                let mut whole = VisitorSketch::new();
                whole.merge_encoded(sketch).and_then(|()| whole.merge_encoded(base)).expect("sketches decode");
                *sketch = whole.encode();
            }
        }
    }

    /// Changes the rows of names as a wrong design would.
    fn spoil_names(&mut self, rows: &mut Vec<Row>, overflow: &str) {
        let (variant, written) = (self.variant, &mut self.written);
        rows.retain(|row| match variant {
            Variant::NoZeroRows => row.cell.counts[0] > 0,
            Variant::ZeroRowsOfOwnNames => row.cell.counts[0] > 0 || written.contains_key(&row.key),
            _ => true,
        });
        written.extend(rows.iter().map(|row| (row.key.clone(), row.cell.counts[0])));
        for row in rows.iter_mut().filter(|_| variant == Variant::InheritedCounts) {
            let Some((group, name)) = row.key.0.rsplit_once(' ') else { continue };
            if !name.is_empty() && !name.starts_with(':') && row.cell.counts[0] > 0 {
                // The one counter has taken over all that is in the overflow.
                let overflow = (format!("{group} {overflow}"), row.key.1);
                row.cell.counts[0] += written.get(&overflow).copied().unwrap_or(0);
            }
        }
    }
}
