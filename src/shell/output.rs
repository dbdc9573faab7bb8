//! The output of commands. A closed pipe (`| head`) is no failure: the command finishes its work and prints no more. Any other error of standard
//! output, such as a full disk, is reported at the end.

use anyhow::bail;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::sync::Mutex;

/// The first error of standard output other than a closed pipe.
static FAILED: Mutex<Option<String>> = Mutex::new(None);

/// Writes a line to standard output, as `println!` does, but without its panic.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::shell::output::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes a line to standard error, as `eprintln!` does, but without its panic.
#[macro_export]
macro_rules! complain {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // There is no other place to report it.
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

/// Writes to standard output.
pub fn print(text: fmt::Arguments<'_>) {
    note(std::io::stdout().write_fmt(text));
}

/// Writes bytes to standard output. Returns whether to continue.
pub fn print_bytes(bytes: &[u8]) -> bool {
    note(std::io::stdout().write_all(bytes))
}

fn note(written: std::io::Result<()>) -> bool {
    let Err(error) = written else { return true };
    if error.kind() != ErrorKind::BrokenPipe
        && let Ok(mut failed) = FAILED.lock()
    {
        failed.get_or_insert_with(|| error.to_string());
    }
    false
}

/// Flushes the buffer.
///
/// # Errors
/// Some output could not be written, for another reason than a closed pipe.
pub fn finish() -> anyhow::Result<()> {
    note(std::io::stdout().flush());
    match FAILED.lock().ok().and_then(|failed| failed.clone()) {
        Some(error) => bail!("cannot write to standard output: {error}"),
        None => Ok(()),
    }
}
