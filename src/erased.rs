//! `erased.json` beside the journal: which projects were erased and which tokens were revoked, and when. A backup that is older brings them back;
//! the restore erases and revokes them again.

use crate::projects::Snapshot;
use crate::say;
use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Version of the file's format.
const VERSION: u32 = 1;

/// A project or a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErasedEntry {
    /// Slug of an erased project.
    Project(String),
    /// Id of a revoked token, never the token.
    Token(String),
}

/// When it was erased or revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The time.
    pub at: DateTime<Utc>,
    /// The project or the token.
    #[serde(flatten)]
    pub entry: ErasedEntry,
}

/// The file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    version: u32,
    /// In the order in which they were added.
    pub entries: Vec<Noted>,
}

fn path(data: &Path) -> PathBuf {
    data.join("erased.json")
}

impl Erased {
    /// The file of a data directory; none if there is none.
    ///
    /// # Errors
    /// It cannot be read, or was written by a newer version.
    pub fn load(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = path(data);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let erased: Erased =
            serde_json::from_str(&text).with_context(|| format!("{} cannot be understood", path.display()))?;
        if erased.version != VERSION {
            bail!(
                "{} has format {}, this program knows {VERSION}: it was written by a newer headcount",
                path.display(),
                erased.version
            );
        }
        Ok(Some(erased))
    }
}

/// Adds an entry with the current time to the file of a data directory. If there is no data directory, it prints what that means.
///
/// # Errors
/// The file cannot be read or written.
pub fn note(data: &Path, entry: ErasedEntry) -> anyhow::Result<()> {
    if !data.join("version").exists() {
        say!("note: {} is no data directory, so a restore of an older backup will not know of this", data.display());
        return Ok(());
    }
    // Commands that run concurrently must not lose each other's entry.
    let lock = File::open(data).with_context(|| format!("cannot open {}", data.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", data.display()))?;
    let mut erased = Erased::load(data)?.unwrap_or(Erased { version: VERSION, entries: Vec::new() });
    erased.entries.push(Noted { at: Utc::now(), entry });
    Snapshot::new(&path(data)).store(&erased)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn entries_are_added_to_a_private_file() {
        let data = tempfile::tempdir().unwrap();
        note(data.path(), ErasedEntry::Token("a".to_owned())).unwrap();
        assert_eq!(Erased::load(data.path()).unwrap(), None, "this is no data directory");
        std::fs::write(data.path().join("version"), "1\n").unwrap();
        note(data.path(), ErasedEntry::Project("docs".to_owned())).unwrap();
        note(data.path(), ErasedEntry::Token("a".to_owned())).unwrap();
        let entries = Erased::load(data.path()).unwrap().unwrap().entries;
        let entries: Vec<ErasedEntry> = entries.into_iter().map(|noted| noted.entry).collect();
        assert_eq!(entries, [ErasedEntry::Project("docs".to_owned()), ErasedEntry::Token("a".to_owned())]);
        let file = path(data.path());
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, r#"{"version":2,"entries":[]}"#).unwrap();
        assert!(
            note(data.path(), ErasedEntry::Token("b".to_owned())).unwrap_err().to_string().contains("newer headcount")
        );
    }
}
