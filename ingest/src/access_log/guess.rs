//! Which format a file has. It is guessed only if its first lines agree; else the operator names it.

use super::clf::{self, ClfColumns, Layout};
use super::prefix::{without_nul_bytes, without_prefix};
use super::{Format, alb, json};

/// Lines that must agree.
pub const GUESS_LINES: usize = 100;

/// So many lines without one user agent show that the server does not log them (Traefik's default).
const LINES_WITHOUT_AGENT: usize = 10;

/// Why no format was guessed. Nothing of a line is in it.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotGuessed {
    /// There is nothing to guess from.
    #[error("none of the first {GUESS_LINES} lines has a known format; --format names it")]
    Nothing,
    /// They disagree.
    #[error("the first {GUESS_LINES} lines have several formats, such as {0} and {1}; --format names the one to read")]
    Disagree(&'static str, &'static str),
    /// A known format with what is needed in no known place.
    #[error("the columns of referrer and user agent are exchanged; --format with a log_format names their order")]
    Exchanged,
    /// Recognised, and not read.
    #[error("the format is {0}, which is not read")]
    Refused(&'static str),
}

/// A first line's format.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vote {
    Clf(Layout, bool),
    W3c,
    Json,
    Alb,
    Exchanged,
    Refused(&'static str),
}

impl Vote {
    const fn name(self) -> &'static str {
        match self {
            Vote::Clf(Layout::ClientFirst, false) => "common",
            Vote::Clf(Layout::ClientFirst, true) => "combined",
            Vote::Clf(Layout::HostFirst, _) => "host-first",
            Vote::Clf(Layout::HostSecond, _) => "host-second",
            Vote::W3c => "w3c",
            Vote::Json => "json",
            Vote::Alb => "alb",
            Vote::Exchanged => "one with referrer and user agent exchanged",
            Vote::Refused(name) => name,
        }
    }
}

/// The format of a file that begins with these lines, of which the first [`GUESS_LINES`] that are not blank count. A line of no known
/// format has no vote, as one line in a hundred is torn or of another kind.
///
/// # Errors
/// The lines do not agree, or the format is one that is not read.
pub fn guess<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Format, NotGuessed> {
    let (mut agreed, mut forwarded, mut may_be_forwarded) = (None::<Vote>, false, true);
    let (mut voters, mut silent, mut agents) = (0_usize, 0_usize, 0_usize);
    let lines = lines.into_iter().filter_map(|line| without_nul_bytes(line).ok()).map(without_prefix);
    for line in lines.filter(|line| !line.is_empty()).take(GUESS_LINES) {
        if agreed == Some(Vote::W3c) {
            break;
        }
        let Some((vote, column, has_agent)) = vote(line) else {
            silent += 1;
            continue;
        };
        voters += 1;
        agents += usize::from(has_agent);
        match agreed {
            None => agreed = Some(vote),
            Some(known) if known == vote => {}
            Some(known) => return Err(NotGuessed::Disagree(known.name(), vote.name())),
        }
        forwarded |= column == Some(true);
        may_be_forwarded &= column.is_some();
    }
    // Lines of no format are no more than those of one, or the format is another.
    let agreed = agreed.filter(|vote| voters > silent || matches!(vote, Vote::W3c | Vote::Refused(_)));
    match agreed.ok_or(NotGuessed::Nothing)? {
        Vote::Clf(Layout::ClientFirst, false) => Ok(Format::Common),
        Vote::Clf(Layout::ClientFirst, true) if agents == 0 && voters >= LINES_WITHOUT_AGENT => Ok(Format::Common),
        Vote::Clf(Layout::ClientFirst, true) if forwarded && may_be_forwarded => Ok(Format::CombinedForwarded),
        Vote::Clf(Layout::ClientFirst, true) => Ok(Format::Combined),
        Vote::Clf(Layout::HostFirst, _) => Ok(Format::HostFirst),
        Vote::Clf(Layout::HostSecond, _) => Ok(Format::HostSecond),
        Vote::W3c => Ok(Format::W3c),
        Vote::Json => Ok(Format::Json),
        Vote::Alb => Ok(Format::Alb),
        Vote::Exchanged => Err(NotGuessed::Exchanged),
        Vote::Refused(name) => Err(NotGuessed::Refused(name)),
    }
}

/// The format of a line; whether its column after the agent has an IP address, if that may be `X-Forwarded-For`; and whether it has an agent.
fn vote(line: &[u8]) -> Option<(Vote, Option<bool>, bool)> {
    if line.starts_with(b"#") {
        let names = [&b"#Fields:"[..], b"#Version:", b"#Software:", b"#Date:"];
        return names.iter().any(|name| starts_with(line, name)).then_some((Vote::W3c, None, true));
    }
    if let Some(name) = refused(line) {
        return Some((Vote::Refused(name), None, true));
    }
    if json::is_one(line) {
        return Some((Vote::Json, None, true));
    }
    if alb::is_one(line) {
        return Some((Vote::Alb, None, true));
    }
    let shape = clf::shape(line)?;
    let vote = match shape.columns {
        ClfColumns::Nothing => Vote::Clf(shape.layout, false),
        ClfColumns::ReferrerAgent | ClfColumns::Unclear => Vote::Clf(shape.layout, true),
        ClfColumns::AgentReferrer => Vote::Exchanged,
    };
    // With the host in the line, common and combined are one format.
    let vote = match vote {
        Vote::Clf(layout @ (Layout::HostFirst | Layout::HostSecond), _) => Vote::Clf(layout, true),
        vote => vote,
    };
    Some((vote, shape.forwarded, shape.has_agent))
}

fn starts_with(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

/// The name of a format that is recognised and not read.
fn refused(line: &[u8]) -> Option<&'static str> {
    let has = |text: &[u8]| memchr::memmem::find(line, text).is_some();
    if line.starts_with(b"{") {
        return (line.starts_with(br#"{"log":"#) && has(br#""stream":"#))
            .then_some("JSON of Docker's json-file driver");
    }
    if line.starts_with(b"[") {
        return has(b"\" [Client ").then_some("Nginx Proxy Manager");
    }
    let mut columns = line.split(|&byte| byte == b' ').filter(|column| !column.is_empty());
    let (first, second, third) = (columns.next()?, columns.next()?, columns.next()?);
    // `owner bucket [time] client requester id REST.GET.OBJECT key "GET …"`
    let is_owner = first.len() == 64 && first.iter().all(u8::is_ascii_hexdigit);
    if third.starts_with(b"[") && (is_owner || has(b" REST.GET.") || has(b" WEBSITE.GET.")) {
        return Some("S3 server access log");
    }
    // `client:port [time.ms] frontend backend/server 0/0/0/1/1 200 …`
    let (fourth, timers) = (columns.next()?, columns.next()?);
    let is_timer = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'/' | b'-' | b'+');
    let slashes = timers.iter().filter(|&&byte| byte == b'/').count();
    let is_haproxy = second.starts_with(b"[") && second.ends_with(b"]") && fourth.contains(&b'/');
    (is_haproxy && (2..=4).contains(&slashes) && timers.iter().all(is_timer)).then_some("HAProxy")
}
