//! The limits of the process that matter, checked at start: later they would show as refused connections, or as an
//! error deep within ClickHouse.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Minimum of open files for this service and ClickHouse to start.
const MIN_OPEN_FILES: u64 = 1_024;

/// Open files beside client connections: the journal, connections to ClickHouse and Kafka, listeners.
const OWN_OPEN_FILES: u64 = 256;

const GIB: u64 = 1 << 30;

/// ClickHouse within this service reserves 3.6 GiB of address space at rest, and never touches most of it.
const MIN_ADDRESS_SPACE: u64 = 4 * GIB;

/// Address space that it reserves under load.
const ADDRESS_SPACE: u64 = 8 * GIB;

/// Raises the soft limit on open files to the hard one and checks it against `connections`.
///
/// # Errors
/// The hard limit is below the minimum of any start.
pub fn check_open_files(connections: usize) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let open_files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    match open_files_verdict(open_files.unwrap_or(u64::MAX), connections) {
        Verdict::Enough => {}
        Verdict::Low(words) => tracing::warn!("{words}"),
        Verdict::TooLow(words) => bail!(words),
    }
    Ok(())
}

/// Checks the limit on address space, for a role that starts ClickHouse within this service.
///
/// # Errors
/// ClickHouse cannot start within the limit.
pub fn check_address_space() -> anyhow::Result<()> {
    match address_space_verdict(getrlimit(Resource::As).current) {
        Verdict::Enough => {}
        Verdict::Low(words) => tracing::warn!("{words}"),
        Verdict::TooLow(words) => bail!(words),
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Enough,
    Low(String),
    TooLow(String),
}

fn open_files_verdict(open_files: u64, connections: usize) -> Verdict {
    let needed = (connections as u64 + OWN_OPEN_FILES).max(MIN_OPEN_FILES);
    let words = || {
        format!(
            "the limit on open files is {open_files}; {needed} are needed for `connections` = {connections}. Raise it (`ulimit -n \
             {needed}`, or LimitNOFILE={needed} in a systemd unit), or lower `connections`"
        )
    };
    match open_files {
        few if few < MIN_OPEN_FILES => Verdict::TooLow(words()),
        few if few < needed => Verdict::Low(words()),
        _ => Verdict::Enough,
    }
}

fn address_space_verdict(limit: Option<u64>) -> Verdict {
    let words = |bytes: u64| {
        format!(
            "the limit on address space is {:.1} GiB; ClickHouse within headcount needs {} GiB of addresses, most of which it never \
             touches. Remove the limit (`ulimit -v unlimited`, or LimitAS=infinity in a systemd unit); to bound memory, use \
             MemoryMax=",
            bytes as f64 / GIB as f64,
            ADDRESS_SPACE / GIB
        )
    };
    match limit {
        Some(bytes) if bytes < MIN_ADDRESS_SPACE => Verdict::TooLow(words(bytes)),
        Some(bytes) if bytes < ADDRESS_SPACE => Verdict::Low(words(bytes)),
        _ => Verdict::Enough,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_names_the_number_that_is_needed() {
        assert_eq!(open_files_verdict(4_352, 4_096), Verdict::Enough);
        assert!(matches!(open_files_verdict(4_351, 4_096), Verdict::Low(words) if words.contains("4352 are needed")));
        assert!(matches!(open_files_verdict(1_024, 100), Verdict::Enough));
        assert!(
            matches!(open_files_verdict(64, 100), Verdict::TooLow(words) if words.contains("limit on open files is 64"))
        );
        assert_eq!(address_space_verdict(None), Verdict::Enough);
        assert_eq!(address_space_verdict(Some(8 * GIB)), Verdict::Enough);
        assert!(matches!(address_space_verdict(Some(6 * GIB)), Verdict::Low(_)));
        assert!(matches!(address_space_verdict(Some(2 * GIB)), Verdict::TooLow(words) if words.contains("2.0 GiB")));
    }
}
