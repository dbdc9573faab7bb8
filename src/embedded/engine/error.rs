//! Everything that can keep the engine from starting, each with advice.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Why there is no running ClickHouse.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No server is configured, and no engine was found.
    #[error(
        "no ClickHouse found; looked for, in this order:\n{looked}\nrun `scripts/engine` once to fetch the engine, or \
         name a server with HEADCOUNT_CLICKHOUSE_URL"
    )]
    NotFound {
        /// The searched paths, one per line.
        looked: String,
    },
    /// `clickhouse_url` is not a base URL.
    #[error("the ClickHouse URL {url:?} must begin with http:// or https://")]
    Url {
        /// As configured.
        url: String,
    },
    /// The data directory could not be prepared.
    #[error("the engine's directory {path} is not writable: {cause}; give another --data or change its owner")]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The device has no space left.
    #[error(
        "no space left for the engine's directory {path}; free some and start again (nothing acknowledged is lost)"
    )]
    DiskFull {
        /// The directory.
        path: PathBuf,
    },
    /// Another process listens on the port.
    #[error("port {port} on 127.0.0.1 is in use; name another engine port, or none to have a free one picked")]
    PortInUse {
        /// The configured port.
        port: u16,
    },
    /// A former engine still holds the directory's lock.
    #[error(
        "another engine (process {pid}) has the directory {path} open and did not end within {waited:?}; stop the \
         headcount it belongs to, or that process"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id in the lock file, or `unknown`.
        pid: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The library exists but the loader refuses it.
    #[error(
        "{message}; the file is damaged or for another processor: delete it and run `scripts/engine` to fetch the one \
         for this machine"
    )]
    Library {
        /// The loader's message.
        message: String,
    },
    /// An older engine than the one that wrote the directory.
    #[error(
        "the directory {path} was written by ClickHouse {written} and this engine is {running}, which is older: run \
         `scripts/engine` to fetch the newer engine"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The newest version that had it open.
        written: String,
        /// The version found now.
        running: String,
    },
    /// The child could not be started at all.
    #[error("starting the engine's process {program}: {cause}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// The child ended before it answered.
    #[error("the engine ended ({status}) before it answered; its last words:\n{stderr}")]
    Ended {
        /// Its exit status.
        status: ExitStatus,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// The directory was copied by a program that followed its symbolic links.
    #[error(
        "the engine's directory {path} is a copy that followed symbolic links (as `cp -rL` and `rsync -L` do), so ClickHouse cannot open it. Copy it \
         again with `cp -a` from a service that is stopped; or use `headcount backup` and `headcount restore`"
    )]
    FollowedLinks {
        /// The directory.
        path: PathBuf,
    },
    /// The child lives but does not answer.
    #[error("the engine did not answer on port {port} within {waited:?}; its last words:\n{stderr}")]
    Silent {
        /// The port on which it should have answered.
        port: u16,
        /// How long we waited.
        waited: Duration,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// The engine answers, but not the first query, or the process that answers is not our engine.
    #[error("asking the engine on port {port} for its version and directory: {message}")]
    Greeting {
        /// The port on which it answered.
        port: u16,
        /// What went wrong.
        message: String,
    },
    /// The child could not be waited for.
    #[error("waiting for the engine's process to end: {0}")]
    Wait(io::Error),
}

impl EngineError {
    /// A failed write below `path`, classified by its cause.
    pub(super) fn write(path: &Path, cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::NotWritable { path: path.to_owned(), cause },
        }
    }
}
