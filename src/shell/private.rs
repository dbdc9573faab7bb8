//! Permissions of an existing data directory: files that other users of the machine could read are corrected, or refused.

use anyhow::{Context, bail};
use std::fs::{self, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The files that headcount stores in a data directory. Other files are the operator's and stay unchanged; the directory's mode protects them, too.
const OURS: [&str; 10] = [
    "version",
    "lock",
    "keys",
    "journal.redb",
    "spill.redb",
    "projects.json",
    "admitted.json",
    "erased.json",
    "headcount.toml",
    "clickhouse",
];

/// Removes the permissions of group and others from the directory and from headcount's files below it, and logs one line. The visitor key's file has
/// a separate check, which refuses it: other users may have read it already.
pub(super) fn correct(data: &Path) -> anyhow::Result<()> {
    let directory = fs::metadata(data).with_context(|| format!("cannot inspect {}", data.display()))?;
    // A directory that many users share, such as /tmp, must not be closed to them.
    if directory.mode() & 0o1000 != 0 {
        bail!(
            "the data directory {} is shared by many users (mode {:o}); name a directory of its own with --data",
            data.display(),
            directory.mode() & 0o7777
        );
    }
    // The directory's owner could replace every file in it, including the settings, which can specify a library to load.
    if !is_ours(&directory) {
        bail!(
            "the data directory {0} belongs to another user (uid {1}); run headcount as that user, or run: chown -R {2} {0}",
            data.display(),
            directory.uid(),
            rustix::process::geteuid().as_raw()
        );
    }
    let files: Vec<(PathBuf, Metadata)> = OURS
        .iter()
        .map(|name| data.join(name))
        // A file that was moved to another disk is a symbolic link: its target counts.
        .filter_map(|path| {
            let target = fs::canonicalize(path).ok()?;
            let metadata = fs::metadata(&target).ok()?;
            Some((target, metadata))
        })
        // Another user, such as root, may own and manage the settings file.
        .filter(|(path, metadata)| is_ours(metadata) || !path.ends_with("headcount.toml"))
        .collect();
    if !is_open(&directory) && !files.iter().any(|(_, metadata)| is_open(metadata)) {
        return Ok(());
    }
    let advice = || {
        format!(
            "other users may read the data directory {0} (mode {1:o}), where single page views are stored; run: chmod -R go-rwx {0} (or \
             name a directory of its own with --data)",
            data.display(),
            directory.mode() & 0o7777
        )
    };
    for (path, _) in files {
        close(&path).with_context(advice)?;
    }
    // Last, so that the next start continues after an interruption.
    restrict(data, &directory).with_context(advice)?;
    tracing::warn!(data = %data.display(), "other users could read the data directory; its files are now its owner's alone");
    Ok(())
}

/// Whether group or others have any permission. Symbolic links have no mode.
fn is_open(metadata: &Metadata) -> bool {
    !metadata.is_symlink() && metadata.mode() & 0o077 != 0
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// A file, or all files below a directory.
fn close(path: &Path) -> std::io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        // An engine that is ending removes files at the same time.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if !path.ends_with("visitor.key") {
                close(&path)?;
            }
        }
    }
    restrict(path, &metadata)
}

fn restrict(path: &Path, metadata: &Metadata) -> std::io::Result<()> {
    if !is_open(metadata) {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(metadata.mode() & 0o7700)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn file(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_open_is_closed_and_what_is_the_operators_stays() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        fs::create_dir_all(data.join("clickhouse/store/abc")).unwrap();
        fs::create_dir_all(data.join("keys")).unwrap();
        for directory in ["", "clickhouse", "clickhouse/store", "clickhouse/store/abc", "keys"] {
            fs::set_permissions(data.join(directory), Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["journal.redb", "projects.json", "clickhouse/store/abc/data.bin", "keys/visitor.key", "notes.txt"]
        {
            file(&data.join(name), 0o644);
        }
        correct(&data).unwrap();
        for directory in ["", "clickhouse", "clickhouse/store/abc", "keys"] {
            assert_eq!(mode(&data.join(directory)), 0o700, "{directory}");
        }
        for name in ["journal.redb", "projects.json", "clickhouse/store/abc/data.bin"] {
            assert_eq!(mode(&data.join(name)), 0o600, "{name}");
        }
        assert_eq!(mode(&data.join("notes.txt")), 0o644);
        assert_eq!(mode(&data.join("keys/visitor.key")), 0o644, "the key's own check refuses it");
        // A file on another disk.
        let elsewhere = home.path().join("elsewhere");
        fs::rename(data.join("clickhouse"), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, data.join("clickhouse")).unwrap();
        fs::set_permissions(&elsewhere, Permissions::from_mode(0o755)).unwrap();
        correct(&data).unwrap();
        assert_eq!(mode(&elsewhere), 0o700);
        // One open file in a closed directory is sufficient.
        file(&data.join("admitted.json"), 0o640);
        correct(&data).unwrap();
        assert_eq!(mode(&data.join("admitted.json")), 0o600);
    }

    #[test]
    fn a_directory_that_many_share_is_refused_and_stays() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o1777)).unwrap();
        let error = correct(home.path()).unwrap_err().to_string();
        assert!(error.contains("shared by many users") && error.contains("--data"), "{error}");
        assert!(!error.contains("chmod"), "{error}");
        assert_eq!(mode(home.path()), 0o1777);
    }
}
