//! Quill turns plain text into printed pages: a [`Feather`] writes on a [`paper::Sheet`].

#![crate_name = "quill"]

/// What writes. See [`paper::Sheet`].
///
/// # Sharpening
///
/// With a knife.
pub struct Feather {
    /// How much ink is left, in drops.
    pub drops: u32,
}

impl Feather {
    /// Dips the feather.
    pub fn dip(&mut self) {
        self.drops += 1;
    }
}

/// What can be written.
pub trait Write {
    /// Writes itself.
    fn write(&self);
}

/// Colours of ink.
pub enum Ink {
    /// The usual one.
    Black,
    /// For corrections.
    Red,
}

/// Prints a text.
pub fn print(text: &str) -> usize {
    text.len()
}

/// What is written on.
pub mod paper {
    /// One sheet. See [`crate::Ink`].
    pub struct Sheet;
}
