//! Files that only this user may read, replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Writes `content` to a file beside `path`, syncs it and renames it: a reader sees the old content or the new, also after a crash.
///
/// # Errors
/// The file cannot be created, written or renamed. The old content is then unchanged.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_by(path, &path.with_extension("new"), content)
}

/// The same, by a file of another name: for files that several processes may write at the same time.
///
/// # Errors
/// As of [`replace`].
pub fn replace_by(path: &Path, fresh: &Path, content: &[u8]) -> io::Result<()> {
    let attempt = || {
        // One that an earlier process left may have other modes.
        let _ = std::fs::remove_file(fresh);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(fresh, path)?;
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    attempt().inspect_err(|_| drop(std::fs::remove_file(fresh)))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("note.json");
        std::fs::write(directory.path().join("note.new"), "left by a crash").unwrap();
        for content in ["first", "2nd"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(replace(&directory.path().join("absent/note.json"), b"").is_err());
    }
}
