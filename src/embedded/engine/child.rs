//! The engine's process: `headcount engine-child`.
//!
//! It holds an exclusive lock on the engine's directory for its whole life. It ends when its standard input does, that is, with its parent, however
//! the parent dies. A new parent's child waits for the lock until the old engine is gone, so no two engines ever have the same directory open.

use crate::complain;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use super::super::chdb::{self, ChdbError};

/// How long a former engine may take to end.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(20);
/// Exit codes by which the parent distinguishes the failures.
pub(super) const EXIT_LOCKED: u8 = 81;
pub(super) const EXIT_LIBRARY: u8 = 82;
pub(super) const EXIT_DIRECTORY: u8 = 83;
const EXIT_ENGINE: u8 = 84;

/// Arguments of the hidden subcommand `engine-child`.
#[derive(Debug, clap::Args)]
pub struct ChildArgs {
    /// The library libchdb.so.
    #[arg(long, required_unless_present = "binary")]
    lib: Option<PathBuf>,
    /// A `clickhouse` program, instead of the library.
    #[arg(long, conflicts_with = "lib")]
    binary: Option<PathBuf>,
    /// The engine's directory.
    #[arg(long)]
    data: PathBuf,
    /// The port on 127.0.0.1.
    #[arg(long)]
    port: u16,
    /// The engine's configuration file.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the engine on the calling thread until standard input ends. Call it before any runtime is started.
#[must_use]
pub fn child_main(args: &ChildArgs) -> ExitCode {
    // The engine's memory contains figures of private projects: core files must not contain them, and other processes of this user must not read
    // them. (A `clickhouse` program that this process executes is dumpable again; the limit of core files remains.)
    crate::shell::harden();
    // A service manager signals every process of the service; the engine is needed until the service's last flush.
    chdb::ignore_polite_signals();
    let lock = match lock(&args.data.join("engine.lock")) {
        Ok(Some(lock)) => lock,
        Ok(None) => return ExitCode::from(EXIT_LOCKED),
        Err(error) => {
            complain!("locking {}: {error}", args.data.join("engine.lock").display());
            return ExitCode::from(EXIT_DIRECTORY);
        }
    };
    match (&args.lib, &args.binary) {
        (Some(library), _) => run_library(library, args),
        (None, Some(binary)) => run_binary(binary, args, &lock),
        (None, None) => unreachable!("clap asks for one of the two"),
    }
}

fn run_library(library: &Path, args: &ChildArgs) -> ExitCode {
    let mut arguments = vec!["clickhouse".to_owned()];
    arguments.extend(local_arguments(args));
    match chdb::run(library, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ChdbError::Load { .. }) => {
            complain!("{error}");
            ExitCode::from(EXIT_LIBRARY)
        }
        Err(error) => {
            complain!("{error}");
            ExitCode::from(EXIT_ENGINE)
        }
    }
}

fn run_binary(binary: &Path, args: &ChildArgs, lock: &File) -> ExitCode {
    // The program replaces this process's image; it inherits the lock if the descriptor survives the exec.
    if let Err(error) = rustix::io::fcntl_setfd(lock, rustix::io::FdFlags::empty()) {
        complain!("keeping the lock over exec: {error}");
        return ExitCode::from(EXIT_DIRECTORY);
    }
    let error = Command::new(binary).arg("local").args(local_arguments(args)).exec();
    complain!("starting {}: {error}", binary.display());
    ExitCode::from(EXIT_ENGINE)
}

/// The arguments of `clickhouse local`. The second query reads standard input to its end: the engine's lifetime.
fn local_arguments(args: &ChildArgs) -> Vec<String> {
    let mut arguments = vec![
        "--path".to_owned(),
        args.data.join("store").to_string_lossy().into_owned(),
        "--http_port".to_owned(),
        args.port.to_string(),
        "--listen_host".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    if let Some(config) = &args.config {
        arguments.extend(["--config-file".to_owned(), config.to_string_lossy().into_owned()]);
    }
    arguments.extend([
        "--query".to_owned(),
        "SYSTEM START LISTEN HTTP; SELECT * FROM file('/dev/stdin','LineAsString') FORMAT Null".to_owned(),
    ]);
    arguments
}

/// Takes the lock and writes our process id into it; `None` if another process held it for all of [`LOCK_WAIT`].
fn lock(path: &Path) -> io::Result<Option<File>> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Some(file))
}

/// The process id in a lock file, for the message.
pub(super) fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(32).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), pid) if !pid.is_empty() => pid.to_owned(),
        _ => "unknown".to_owned(),
    }
}
