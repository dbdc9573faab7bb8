//! Processor time of a process, from Linux's `/proc/PID/stat`.

use anyhow::Context;

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
    fn this_process_has_used_some_or_none() {
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
