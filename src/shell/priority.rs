//! The priority of a process that works in the background.

/// Report users and beacons have precedence over an aggregator that works off a backlog. Threads inherit the priority.
pub fn yield_to_others() {
    const NICENESS: i32 = 15;
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "cannot yield to others");
    }
    // Where the kernel shares out processors by sessions first (autogroup), that counts within a session only, and a service is one of
    // its own. A session of others is not ours to slow down.
    if !std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| leads_its_session(&stat)) {
        return;
    }
    // The kernel takes one such wish each tenth of a second, from all of the machine.
    let mut tries = 20;
    while let Err(error) = std::fs::write("/proc/self/autogroup", NICENESS.to_string()) {
        tries -= 1;
        if error.kind() == std::io::ErrorKind::WouldBlock && tries > 0 {
            std::thread::sleep(std::time::Duration::from_millis(u64::from(60 + std::process::id() % 80)));
            continue;
        }
        // A kernel without autogroups has none.
        if error.kind() != std::io::ErrorKind::NotFound {
            tracing::info!(%error, "cannot have the session yield to others");
        }
        break;
    }
}

/// By a process's `/proc/<pid>/stat`: its id is the 1st field, its session's the 4th after the name, see proc(5). In a container whose
/// session began outside of it the kernel calls the session 0, which the system call's wrapper in rustix 1.1 takes for impossible.
fn leads_its_session(stat: &str) -> bool {
    let id = stat.split_whitespace().next();
    // The name is in parentheses and may have any character.
    let session = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(3));
    id.is_some() && id == session
}

#[cfg(test)]
mod tests {
    use super::leads_its_session;

    #[test]
    fn a_session_is_led_by_whom_it_is_called_after() {
        let cases = [
            ("1503 (headcount) S 1 1503 1503 0 -1 4194560 89", true),
            ("1503 (head) 7 (count) S 1 1503 1503 0 -1", true),
            ("1503 (headcount) S 1502 1503 1502 34816 -1", false),
            // Of a container whose session began outside.
            ("1 (headcount) R 0 0 0 0 -1 4194560 89", false),
            ("1503 (headcount) S 1", false),
            ("", false),
        ];
        for (stat, expected) in cases {
            assert_eq!(leads_its_session(stat), expected, "{stat}");
        }
    }
}
