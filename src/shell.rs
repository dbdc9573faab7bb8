//! What every role's process needs around it: hardening, signals, and a data directory.

pub mod limits;
pub mod logging;
pub mod output;
pub mod priority;
mod private;

use anyhow::{Context, bail};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use tokio::sync::watch;

/// Layout of the data directory; raised when an older program must not touch it.
const DATA_VERSION: &str = "1";

/// An error and its causes, one after another. A cause that the text before it has already (errors of some libraries repeat theirs) is left out.
pub fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !texts.last().is_some_and(|last| last.ends_with(&text)) {
            texts.push(text);
        }
    }
    texts
}

/// [`causes`] in one line.
pub fn chain(error: &anyhow::Error) -> String {
    causes(error).join(": ")
}

/// Resolves once `stopped` is true, or its sender is dropped.
pub async fn until(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|&stopped| stopped).await;
}

/// Resolves at SIGTERM, SIGINT or SIGHUP. A SIGHUP that was ignored at the start, as below `nohup`, stays ignored.
pub async fn signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let ignored = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores_hangup(&status));
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let hangup = async {
        if ignored {
            return std::future::pending().await;
        }
        let mut hangup = signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?;
        hangup.recv().await;
        anyhow::Ok(())
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        hangup = hangup => hangup?,
    }
    Ok(())
}

/// By a process's `/proc/<pid>/status`, see proc(5): bit 0 of the mask of ignored signals is signal 1, SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Files and directories that this process and its children create are accessible to their owner only.
pub fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Creates the directory or checks its version, and locks it until the file is dropped.
pub fn open_data_directory(data: &Path) -> anyhow::Result<File> {
    // The journal stores single views for days: no other user may read them.
    let mut directory = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(directory.recursive(true), 0o700);
    directory.create(data).with_context(|| {
        format!("cannot create the data directory {}; choose one you may write to with --data", data.display())
    })?;
    private::correct(data)?;
    let path = data.join("lock");
    let lock = File::create(&path).with_context(|| {
        format!("cannot write to the data directory {}; choose one you may write to with --data", data.display())
    })?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "another headcount runs on the data directory {}; stop it, or choose another with --data",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    let version = data.join("version");
    match fs::read_to_string(&version) {
        Ok(found) if found.trim() == DATA_VERSION => {}
        // Left by a full disk at the first start.
        Ok(found) if found.trim().is_empty() => write_version(&version)?,
        Ok(found) => bail!(wrong_version(data, found.trim())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_version(&version)?;
        }
        // Not even text.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => bail!(wrong_version(data, "no text")),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "cannot read {}, which says which version of headcount wrote the data directory; it must be a file that \
                     this user may read, with the text {DATA_VERSION}",
                    version.display()
                )
            });
        }
    }
    Ok(lock)
}

/// Why a data directory whose `version` file contains `found` is refused.
fn wrong_version(data: &Path, found: &str) -> String {
    let (file, data) = (data.join("version"), data.display());
    let newer = found.parse::<u64>().is_ok_and(|found| DATA_VERSION.parse().is_ok_and(|ours: u64| found > ours));
    if newer {
        return format!(
            "the data directory {data} has version {found:?}, this program knows {DATA_VERSION}: it was written by a newer \
             headcount; run that version, or choose another directory with --data"
        );
    }
    format!(
        "the data directory {data} has version {found:?}, which no headcount has written: the file {0} is damaged, or {data} belongs to \
         another program. If the directory is headcount's, restore its files from a backup, or check that they are whole and run: \
         echo {DATA_VERSION} > {0}",
        file.display()
    )
}

fn write_version(path: &Path) -> anyhow::Result<()> {
    fs::write(path, format!("{DATA_VERSION}\n"))
        .with_context(|| format!("cannot write {}; is the disk full?", path.display()))
}

/// This process's memory contains IP addresses, user agents and the key: there are no core dumps, and no other process of this user may read it
/// through `ptrace` or `/proc` (prctl(2), `PR_SET_DUMPABLE`).
pub fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process could not be made undumpable");
    }
}

#[cfg(test)]
mod tests {
    use super::{chain, ignores_hangup};
    use anyhow::Context;

    #[test]
    fn a_cause_is_written_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("network error: {0}")]
        struct RepeatedError(#[source] std::io::Error);
        let repeated = || RepeatedError(std::io::Error::other("connection refused"));
        let error = Err::<(), _>(repeated()).context("cannot read the tokens").unwrap_err();
        assert_eq!(chain(&error), "cannot read the tokens: network error: connection refused");
        assert_eq!(chain(&anyhow::anyhow!("one").context("two")), "two: one");
    }

    #[test]
    fn an_ignored_hangup_is_known_by_its_bit() {
        for (mask, expected) in [("0000000000000001", true), ("0000000000001000", false), ("0000000000001001", true)] {
            assert_eq!(
                ignores_hangup(&format!("Name:\theadcount\nSigIgn:\t{mask}\nSigCgt:\t01\n")),
                expected,
                "{mask}"
            );
        }
        assert!(!ignores_hangup(""));
    }
}
