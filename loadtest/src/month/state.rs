//! What an interrupted run needs to continue: the names of the resources that it left. The topic shows how far it came.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::plan::Size;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of this file.
    pub format: u32,
    /// As `YYYY-MM`.
    pub month: String,
    /// Decides every record.
    pub seed: u64,
    /// How large the month is.
    pub size: Size,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Maximum number of records in a window.
    pub window_records: u64,
    /// Part of the names of topic, group and database.
    pub name: String,
}

impl State {
    /// The state that `path` has, if there is one, and that must be of the same month; otherwise `fresh`, which is written.
    ///
    /// # Errors
    /// When the file is of another month, or cannot be read or written.
    pub fn resume_or_begin(path: Option<&Path>, fresh: Self) -> anyhow::Result<(Self, bool)> {
        let Some(path) = path else { return Ok((fresh, false)) };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let found: Self =
                    serde_json::from_str(&text).with_context(|| format!("reading the state in {}", path.display()))?;
                ensure!(
                    found.format == fresh.format,
                    "the state in {} is of another version of headcount, with another window policy: give another file",
                    path.display()
                );
                let same = Self { name: found.name.clone(), ..fresh };
                ensure!(
                    found == same,
                    "the state in {} is of another run ({text}): give the same arguments, or another file",
                    path.display()
                );
                Ok((found, true))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = serde_json::to_string_pretty(&fresh)? + "\n";
                std::fs::write(path, text).with_context(|| format!("writing the state to {}", path.display()))?;
                Ok((fresh, false))
            }
            Err(error) => Err(error).with_context(|| format!("reading the state in {}", path.display())),
        }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("headcount-month-{}", self.name)
    }

    /// The aggregators' group.
    #[must_use]
    pub fn group(&self) -> String {
        self.topic()
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> String {
        format!("headcount_month_{}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_with_its_names_and_another_does_not_take_them() {
        let directory = std::env::temp_dir().join(format!("headcount-state-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("state.json");
        let state = |name: &str, seed| State {
            format: 1,
            month: "2026-02".to_owned(),
            seed,
            size: Size { projects: 1, views: 1_000 },
            partitions: 4,
            window_records: 100,
            name: name.to_owned(),
        };
        let _ = std::fs::remove_file(&path);
        assert_eq!(State::resume_or_begin(Some(&path), state("a", 1)).unwrap(), (state("a", 1), false));
        assert_eq!(State::resume_or_begin(Some(&path), state("b", 1)).unwrap(), (state("a", 1), true));
        let refused = format!("{:#}", State::resume_or_begin(Some(&path), state("b", 2)).unwrap_err());
        assert!(refused.contains("of another run"), "{refused}");
        let newer = State { format: 2, ..state("b", 1) };
        let refused = format!("{:#}", State::resume_or_begin(Some(&path), newer).unwrap_err());
        assert!(refused.contains("of another version"), "{refused}");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
