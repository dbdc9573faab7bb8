//! The commit as the metadata of a committed offset.

use crate::commit::Commit;

/// A commit as the metadata of a committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitText;

impl CommitText {
    /// JSON, some 250 bytes (brokers take 4,096: `offset.metadata.max.bytes`).
    pub fn write(commit: &Commit) -> String {
        // A struct of numbers always serialises.
        serde_json::to_string(commit).unwrap_or_default()
    }

    /// Parses metadata. `offset` is the committed offset, which must agree.
    pub fn read(offset: i64, metadata: &str) -> Result<Commit, String> {
        let commit: Commit = serde_json::from_str(metadata).map_err(|error| {
            format!(
                "the group's committed offset {offset} does not have the metadata of headcount ({error}): it was set by another \
                 program. Restore it with `headcount topic reset --from-ledger`"
            )
        })?;
        if u64::try_from(offset) != Ok(commit.next_offset) {
            return Err(format!(
                "the group's committed offset {offset} and its metadata ({}) disagree: the offset was moved by another \
                 program. Restore it with `headcount topic reset --from-ledger`",
                commit.next_offset
            ));
        }
        Ok(commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{WindowPolicy, WindowStart};
    use schemas::StreamId;

    #[test]
    fn a_commit_survives_its_metadata() {
        let commit = Commit {
            stream: StreamId(u64::MAX),
            window: Some(WindowStart { offset: 1 << 40, appended_hour: 500_000 }),
            next_offset: (1 << 40) + 17,
            window_policy: WindowPolicy::default(),
            fold_version: 2,
            drained: true,
        };
        let text = CommitText::write(&commit);
        assert!(text.len() < 1_000, "{text}");
        assert_eq!(CommitText::read((1 << 40) + 17, &text), Ok(commit));
        assert!(CommitText::read(5, &text).unwrap_err().contains("was moved by another program"));
        assert!(CommitText::read(5, "").unwrap_err().contains("was set by another program"));
    }
}
