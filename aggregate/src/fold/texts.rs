//! Strings of one window, each stored once.

use super::cells::Index;
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// A string of the window: the position of its length and bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Text(u32);

impl Text {
    /// The empty string, the value of many fields.
    pub(super) const EMPTY: Text = Text(0);

    pub(super) fn number(self) -> u64 {
        u64::from(self.0)
    }
}

/// All strings, each after its length, so that a comparison reads one place in memory.
pub(super) struct Texts {
    index: Index,
    bytes: Vec<u8>,
    state: FixedState,
}

const LENGTH_BYTES: usize = size_of::<u16>();

impl Default for Texts {
    fn default() -> Self {
        Texts { index: Index::default(), bytes: vec![0; LENGTH_BYTES], state: FixedState::default() }
    }
}

impl Texts {
    /// The only `Text` for this string.
    #[inline]
    pub(super) fn intern(&mut self, text: &str) -> Text {
        if text.is_empty() {
            return Text::EMPTY;
        }
        let hash = self.state.hash_one(text.as_bytes());
        match self.index.find(hash, |held| self.get(Text(held)) == text.as_bytes()) {
            Some(held) => Text(held),
            None => self.keep(hash, text),
        }
    }

    #[cold]
    fn keep(&mut self, hash: u64, text: &str) -> Text {
        let start = u32::try_from(self.bytes.len()).expect("a window has less than 4 GiB of different text");
        let length = u16::try_from(text.len()).expect("records hold shorter strings");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.index.insert(hash, start);
        Text(start)
    }

    #[inline]
    pub(super) fn get(&self, text: Text) -> &[u8] {
        slice(&self.bytes, text)
    }

    /// An owned string for a row.
    pub(super) fn to_string(&self, text: Text) -> String {
        std::str::from_utf8(self.get(text)).expect("strings were put in").to_owned()
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.index.memory_bytes()
    }
}

#[inline]
fn slice(bytes: &[u8], Text(start): Text) -> &[u8] {
    let bytes = &bytes[start as usize..];
    let (length, bytes) = bytes.split_at(LENGTH_BYTES);
    &bytes[..usize::from(u16::from_le_bytes([length[0], length[1]]))]
}
