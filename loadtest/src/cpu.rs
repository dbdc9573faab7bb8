//! Processor time and memory of a process, and who listens on a port, from Linux's `/proc`.

use std::iter::Sum;

use anyhow::Context;
use serde::Serialize;

use crate::role::Role;

/// Clock ticks a second in `/proc`. The kernel fixes it at 100 on every architecture Rust's std supports but Alpha;
/// asking `sysconf` would need unsafe code.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time, user and system, of all threads of process `pid` since it began, to 10 ms. Children are
/// not included.
///
/// # Errors
/// When the process does not exist or the system has no `/proc`.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("reading processor time from {path}"))?;
    parse_stat(&stat).with_context(|| format!("{path} is not as proc(5) says: {stat:?}"))
}

/// The most bytes of memory that process `pid` has had resident, since it began or since [`forget_peak`]. Mapped files
/// count as far as they were touched.
///
/// # Errors
/// When the process does not exist or the system has no `/proc`.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("reading peak memory from {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no VmHWM"))? * 1024)
}

/// Lets [`peak_bytes`] of a process begin anew. Where that is not allowed, nothing happens and the peak is the old one.
pub fn forget_peak(pid: u32) {
    // "5" is the reset of the peak resident set size, see proc(5).
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The process that listens on TCP port `port` of this machine; none if nobody does, or if it is another user's.
#[must_use]
pub fn listener_pid(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| listening_inode(line, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let has = files.any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str()));
        has.then_some(pid)
    })
}

/// The socket of a line of `/proc/net/tcp`, if it listens on `port`.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    // After the state: queues, timer, retransmits, user, timeout, inode.
    let inode = fields.nth(5)?.parse().ok()?;
    (state == LISTEN && at == port).then_some(inode)
}

/// A figure of each process of a measurement; none where the process is not known, or takes no part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Each<T> {
    /// The aggregators together.
    pub aggregate: T,
    /// ClickHouse.
    pub clickhouse: Option<T>,
    /// The broker.
    pub kafka: Option<T>,
    /// The service that serves reports.
    pub query: Option<T>,
    /// The load test itself.
    pub client: T,
}

impl<T: Copy> Each<T> {
    /// Both together, process by process; what only one has stays as it is.
    #[must_use]
    pub fn with(&self, other: &Self, of: impl Fn(T, T) -> T) -> Self {
        let both = |a: Option<T>, b: Option<T>| match (a, b) {
            (Some(a), Some(b)) => Some(of(a, b)),
            _ => a.or(b),
        };
        Self {
            aggregate: of(self.aggregate, other.aggregate),
            clickhouse: both(self.clickhouse, other.clickhouse),
            kafka: both(self.kafka, other.kafka),
            query: both(self.query, other.query),
            client: of(self.client, other.client),
        }
    }
}

/// The servers whose processor time and memory are measured, by their process ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct Servers {
    /// The broker.
    pub kafka: Option<u32>,
    /// ClickHouse.
    pub clickhouse: Option<u32>,
    /// The service that serves reports.
    pub query: Option<u32>,
}

impl Servers {
    /// A figure of each, and of these aggregators: [`cpu_seconds`] or [`peak_bytes`].
    ///
    /// # Errors
    /// When a process is gone.
    pub fn each<T: Sum>(&self, aggregators: &[Role], of: fn(u32) -> anyhow::Result<T>) -> anyhow::Result<Each<T>> {
        Ok(Each {
            aggregate: aggregators.iter().map(|role| of(role.pid)).sum::<anyhow::Result<T>>()?,
            clickhouse: self.clickhouse.map(of).transpose()?,
            kafka: self.kafka.map(of).transpose()?,
            query: self.query.map(of).transpose()?,
            client: of(std::process::id())?,
        })
    }
}

fn parse_stat(stat: &str) -> Option<f64> {
    // The second field is the command's name in parentheses, and may itself have spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_fields_14_and_15() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 500 0 0 0 150 25 7 8 20 0 4 0 100 0 0";
        assert_eq!(parse_stat(stat), Some(1.75));
        assert_eq!(parse_stat("42 (a) S 1"), None);
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100";
        assert_eq!(listening_inode(line, 8080), Some(77));
        assert_eq!(listening_inode(line, 8081), None);
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), 8080), None);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener_pid(listener.local_addr().unwrap().port()), Some(std::process::id()));
    }

    #[test]
    fn this_process_has_had_some_memory() {
        assert!(peak_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn this_process_has_used_some_or_none() {
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
