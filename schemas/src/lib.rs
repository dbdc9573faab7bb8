//! Placeholder, replaced within the first commits.

pub mod sketch;
pub use sketch::{Coordinate, Estimate, InvalidCoordinate, SketchDecodeError, VisitorSketch};
