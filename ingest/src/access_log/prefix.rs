//! What other programs write before a line: container runtimes and syslog.

use super::line::NotRead;
use super::time::month_number;

/// The line without NUL bytes at its ends: a file system that crashed leaves blocks of them before the first line that it wrote later.
pub(super) fn without_nul_bytes(line: &[u8]) -> Result<&[u8], NotRead> {
    if memchr::memchr(0, line).is_none() {
        return Ok(line.trim_ascii());
    }
    let start = line.iter().position(|&byte| byte != 0).unwrap_or(line.len());
    let end = line.iter().rposition(|&byte| byte != 0).map_or(start, |at| at + 1);
    let line = line[start..end].trim_ascii();
    if line.is_empty() || memchr::memchr(0, line).is_some() { Err(NotRead::NulBytes) } else { Ok(line) }
}

/// The line without `caddy-1  | ` (docker compose), `2026-11-26T10:00:00.1Z stdout F ` (containerd, CRI-O) and the head of syslog.
pub(super) fn without_prefix(line: &[u8]) -> &[u8] {
    let line = after_compose(line).unwrap_or(line);
    let line = after_container_runtime(line).unwrap_or(line);
    after_syslog(line).unwrap_or(line)
}

fn after_compose(line: &[u8]) -> Option<&[u8]> {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let name = line.iter().position(|byte| !is_of_name(byte)).filter(|&len| len > 0)?;
    let rest = line[name..].trim_ascii_start();
    if rest.len() == line.len() - name { None } else { rest.strip_prefix(b"| ") }
}

fn after_container_runtime(line: &[u8]) -> Option<&[u8]> {
    if line.get(10) != Some(&b'T') || !line[0].is_ascii_digit() {
        return None;
    }
    let mut parts = line.splitn(4, |&byte| byte == b' ');
    let (_, stream, tag, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (matches!(stream, b"stdout" | b"stderr") && matches!(tag, b"F" | b"P")).then_some(rest)
}

/// RFC 3164 (`<190>Nov 26 10:00:00 web nginx[7]: `) and RFC 5424 (`<190>1 2026-11-26T10:00:00Z web nginx 7 - - `).
fn after_syslog(line: &[u8]) -> Option<&[u8]> {
    let after_priority = line.strip_prefix(b"<").and_then(|rest| {
        let end = rest.iter().take(4).position(|&byte| byte == b'>')?;
        rest[..end].iter().all(u8::is_ascii_digit).then_some(&rest[end + 1..])
    });
    let rest = after_priority.unwrap_or(line);
    if after_priority.is_some()
        && let Some(rest) = rest.strip_prefix(b"1 ")
    {
        // Time, host, program, process, kind of message, structured data.
        let mut parts = rest.splitn(7, |&byte| byte == b' ');
        return (parts.nth(5)? == b"-").then_some(parts.next()?);
    }
    month_number(rest.get(..3)?)?;
    if rest.get(3) != Some(&b' ') || rest.get(9) != Some(&b':') || rest.get(12) != Some(&b':') {
        return None;
    }
    // Host, then the program and a colon.
    let rest = rest.get(16..)?;
    let after_host = memchr::memchr(b' ', rest)? + 1;
    let tag_end = memchr::memchr(b' ', &rest[after_host..])? + after_host;
    rest[..tag_end].ends_with(b":").then(|| rest[tag_end..].trim_ascii_start())
}
