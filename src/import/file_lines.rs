//! The lines of one file: an import takes a file as a whole, so that no line of it is lost.

use anyhow::bail;
use ingest::access_log::view::{NotCounted, Outcome};

/// Lines of one file that decide whether it can be imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileLines {
    /// Views that count.
    views: u64,
    /// Views of the running month, and lines in the future.
    too_early: u64,
}

impl FileLines {
    /// Adds a line.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::View(_) => self.views += 1,
            Outcome::NotCounted(NotCounted::RunningMonth | NotCounted::Future) => self.too_early += 1,
            Outcome::NotCounted(_) | Outcome::NotRead(_) => {}
        }
    }

    /// Whether the file is to be imported later: it has lines of the running month, and no view that counts.
    ///
    /// # Errors
    /// It has both. Once imported it would be known, and its lines of the running month would be lost.
    pub fn is_too_early(self) -> anyhow::Result<bool> {
        if self.views > 0 && self.too_early > 0 {
            bail!(
                "{} lines are of the running month: import the file once that month is over, or split it at the month's end",
                self.too_early
            );
        }
        Ok(self.too_early > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_lines_of_the_running_month_is_refused_or_left_for_later() {
        for (views, too_early, expected) in
            [(0, 0, Some(false)), (3, 0, Some(false)), (0, 2, Some(true)), (3, 2, None), (1, 1, None)]
        {
            let lines = FileLines { views, too_early };
            assert_eq!(lines.is_too_early().ok(), expected, "{lines:?}");
        }
        let mut lines = FileLines::default();
        for reason in [NotCounted::RunningMonth, NotCounted::Future, NotCounted::Asset] {
            lines.add(&reason.into());
        }
        assert_eq!((lines.views, lines.too_early), (0, 2));
        let error = FileLines { views: 3, too_early: 2 }.is_too_early().unwrap_err().to_string();
        assert!(error.starts_with("2 lines are of the running month"), "{error}");
    }
}
