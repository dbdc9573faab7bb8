//! Visitors from sketches.

use super::close_error::CloseError;
use schemas::VisitorSketch;

/// The estimate as in a report: a whole number, and its error to 4 decimals.
pub(crate) fn estimate(sketch: &VisitorSketch) -> (u64, f64) {
    let estimate = sketch.estimate();
    (estimate.value.round() as u64, (estimate.error * 1e4).round() / 1e4)
}

pub(crate) fn merge(sketch: &mut VisitorSketch, encoded: &[u8], project: &str) -> Result<(), CloseError> {
    if encoded.is_empty() {
        // Another run has closed the month meanwhile, and its figures count.
        return Ok(());
    }
    sketch.merge_encoded(encoded).map_err(|source| CloseError::Sketch { project: project.to_owned(), cause: source })
}
