//! Accumulators found by hash, in the order of their creation, with a list of those that changed.

use hashbrown::HashTable;

/// From a hash to positions in other collections. Half of the hash is stored with the position, so that neither growing nor a collision in
/// the table reads the data at that position.
#[derive(Default)]
pub(super) struct Index(HashTable<(u32, u32)>);

impl Index {
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let half = (hash >> 32) as u32;
        self.0.find(whole(half), |&(other, position)| other == half && is(position)).map(|&(_, position)| position)
    }

    pub(super) fn insert(&mut self, hash: u64, position: u32) {
        let half = (hash >> 32) as u32;
        self.0.insert_unique(whole(half), (half, position), |&(half, _)| whole(half));
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.allocation_size()
    }
}

/// The table uses the lowest bits of a hash and the seven highest.
#[inline]
fn whole(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

/// Accumulators of one kind.
pub(super) struct Cells<K, V> {
    index: Index,
    cells: Vec<Cell<K, V>>,
    dirty: Vec<u32>,
}

struct Cell<K, V> {
    key: K,
    dirty: bool,
    value: V,
}

impl<K, V> Default for Cells<K, V> {
    fn default() -> Self {
        Cells { index: Index::default(), cells: Vec::new(), dirty: Vec::new() }
    }
}

impl<K, V: Default> Cells<K, V> {
    /// Position of the cell with this hash for whose key `is` returns true.
    #[inline]
    pub(super) fn find(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<u32> {
        self.index.find(hash, |position| is(&self.cells[position as usize].key))
    }

    /// Creates a cell that was not found.
    #[cold]
    pub(super) fn begin(&mut self, hash: u64, key: K) -> u32 {
        let position = u32::try_from(self.cells.len()).expect("a window has fewer records");
        self.cells.push(Cell { key, dirty: false, value: V::default() });
        self.index.insert(hash, position);
        position
    }

    /// The cell at a position; marks it as changed.
    #[inline]
    pub(super) fn change(&mut self, position: u32) -> &mut V {
        let cell = &mut self.cells[position as usize];
        if !cell.dirty {
            cell.dirty = true;
            self.dirty.push(position);
        }
        &mut cell.value
    }

    /// The value at a position, to change what is not part of a row.
    #[inline]
    pub(super) fn peek(&mut self, position: u32) -> &mut V {
        &mut self.cells[position as usize].value
    }

    pub(super) fn key(&self, position: u32) -> &K {
        &self.cells[position as usize].key
    }

    /// Cells that changed since the last freeze.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }

    /// Passes the changed cells to `take` and marks them as unchanged.
    pub(super) fn freeze(&mut self, mut take: impl FnMut(&K, &mut V)) {
        for position in self.dirty.drain(..) {
            let cell = &mut self.cells[position as usize];
            cell.dirty = false;
            take(&cell.key, &mut cell.value);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.cells.iter().map(|cell| &cell.value)
    }

    /// Bytes on the heap, except those of the values.
    pub(super) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
            + self.cells.capacity() * size_of::<Cell<K, V>>()
            + self.dirty.capacity() * size_of::<u32>()
    }
}
