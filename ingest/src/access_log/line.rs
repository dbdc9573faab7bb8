//! What is read of a line, and why a line is not read.

use super::text::{self, Escapes};
use schemas::Hour;
use std::borrow::Cow;
use std::fmt;

/// A value of a line as it was logged. It borrows from the line, unless JSON had escapes in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text<'a> {
    raw: Cow<'a, [u8]>,
    escapes: Escapes,
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(…)")
    }
}

impl<'a> Text<'a> {
    pub(super) const fn new(raw: &'a [u8], escapes: Escapes) -> Self {
        Text { raw: Cow::Borrowed(raw), escapes }
    }

    pub(super) const fn plain(raw: &'a [u8]) -> Self {
        Text::new(raw, Escapes::None)
    }

    pub(super) fn of_str(text: Cow<'a, str>) -> Self {
        let raw = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Text { raw, escapes: Escapes::None }
    }

    pub(super) fn into_owned(self) -> Text<'static> {
        Text { raw: Cow::Owned(self.raw.into_owned()), escapes: self.escapes }
    }

    /// Whether nothing was logged: no text, or `-`.
    pub fn is_absent(&self) -> bool {
        matches!(self.raw.trim_ascii(), b"" | b"-")
    }

    /// The value with the escapes of its format removed. It may be any bytes.
    pub fn decoded(&self) -> Cow<'_, [u8]> {
        text::decoded(&self.raw, self.escapes)
    }
}

/// What request headers say of a view, where a format logs all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// `Sec-GPC: 1` or `DNT: 1`.
    pub opted_out: bool,
    /// The browser fetched the page before anybody opened it.
    pub is_prefetch: bool,
    /// The client hints name a browser without a window.
    pub is_headless: bool,
}

/// What is read of one line. Its `Debug` shows nothing of the client.
#[derive(Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// The hour in UTC that the line's time is in.
    pub hour: Hour,
    /// The far end of the connection, or a list as `X-Forwarded-For` has it: IP address, with or without a port; a name; or absent.
    pub client: Text<'a>,
    /// `X-Forwarded-For`; absent where the format has none.
    pub forwarded: Text<'a>,
    /// Host of the request, with or without a port; absent where the format has none.
    pub host: Text<'a>,
    /// Method of the request.
    pub method: Text<'a>,
    /// Target of the request as it was sent: path and query, or an absolute URL.
    pub target: Text<'a>,
    /// Query, where the format has it apart from the target.
    pub query: Text<'a>,
    /// HTTP status of the answer; 0 where none was logged.
    pub status: u16,
    /// `Referer`; none where the format has no such column.
    pub referrer: Option<Text<'a>>,
    /// `User-Agent`; none where the format has no such column.
    pub agent: Option<Text<'a>>,
    /// `Sec-Fetch-Dest`; absent where the format has none.
    pub destination: Text<'a>,
    /// What other headers say.
    pub signals: Signals,
}

impl fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("hour", &self.hour).field("status", &self.status).finish_non_exhaustive()
    }
}

impl<'a> Line<'a> {
    /// A line of which only the hour is known.
    pub(super) fn at(hour: Hour) -> Self {
        Line {
            hour,
            client: Text::default(),
            forwarded: Text::default(),
            host: Text::default(),
            method: Text::default(),
            target: Text::default(),
            query: Text::default(),
            status: 0,
            referrer: None,
            agent: None,
            destination: Text::default(),
            signals: Signals::default(),
        }
    }

    pub(super) fn into_owned(self) -> Line<'static> {
        Line {
            hour: self.hour,
            client: self.client.into_owned(),
            forwarded: self.forwarded.into_owned(),
            host: self.host.into_owned(),
            method: self.method.into_owned(),
            target: self.target.into_owned(),
            query: self.query.into_owned(),
            status: self.status,
            referrer: self.referrer.map(Text::into_owned),
            agent: self.agent.map(Text::into_owned),
            destination: self.destination.into_owned(),
            signals: self.signals,
        }
    }

    /// Sets method and target from a request line: the method is up to the first blank, the version after the last.
    pub(super) fn set_request(&mut self, request: &'a [u8], escapes: Escapes) -> Result<(), NotRead> {
        let (method, target) = request_parts(request)?;
        self.method = Text::plain(method);
        self.target = Text::new(target, escapes);
        Ok(())
    }
}

/// Method and target of `GET /a b HTTP/1.1`.
pub(super) fn request_parts(request: &[u8]) -> Result<(&[u8], &[u8]), NotRead> {
    let request = request.trim_ascii();
    let method_len = memchr::memchr(b' ', request).ok_or(NotRead::NoRequest)?;
    let (method, rest) = (&request[..method_len], request[method_len..].trim_ascii_start());
    if !is_method(method) {
        return Err(NotRead::NoRequest);
    }
    let is_version = |text: &[u8]| text.len() >= 5 && text[..5].eq_ignore_ascii_case(b"HTTP/");
    match memchr::memrchr(b' ', rest) {
        Some(at) if is_version(&rest[at + 1..]) => Ok((method, rest[..at].trim_ascii_end())),
        _ => Err(NotRead::NoVersion),
    }
}

/// Letters, as all registered methods have, some with a hyphen.
pub(super) fn is_method(text: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.len() <= 32 && text.iter().all(is_letter)
}

/// One to three digits; 0 for `-` and what else is none.
pub(super) fn status(text: &[u8]) -> u16 {
    let is_number = (1..=3).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    if is_number { text.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')) } else { 0 }
}

macro_rules! not_read {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, $text:literal; )+) => {
        /// Why a line is not read. Never an end of the import, and never with a byte of the line.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        pub enum NotRead { $( $(#[doc = $doc])+ #[error($text)] $variant, )+ }

        impl NotRead {
            /// Every reason.
            pub const ALL: &'static [NotRead] = &[ $(NotRead::$variant),+ ];

            /// The one spelling, in snake case.
            pub const fn name(self) -> &'static str {
                match self { $(NotRead::$variant => $name),+ }
            }
        }
    };
}

not_read! {
    /// Nothing but blanks.
    Blank = "blank", "blank line";
    /// A comment, or a directive of W3C extended.
    Directive = "directive", "comment or directive";
    /// A message of the server that is no request.
    OtherKind = "other_kind", "a message that is no request";
    /// Longer than the limit.
    TooLong = "too_long", "longer than the limit of a line";
    /// NUL bytes within the line, as a crash leaves them.
    NulBytes = "nul_bytes", "NUL bytes";
    /// The last line of a file, without its line break, is incomplete.
    Torn = "torn", "incomplete last line";
    /// Not written in the format of the file.
    Malformed = "malformed", "not a line of this format";
    /// No time, or one that does not exist.
    InvalidTime = "invalid_time", "no valid time";
    /// A local time whose zone is not known.
    NoZone = "no_zone", "a time without a zone; --utc-offset names it";
    /// No HTTP request, such as the bytes of a TLS handshake.
    NoRequest = "no_request", "no request";
    /// A request without a version, as HTTP/0.9 and scanners send.
    NoVersion = "no_version", "a request without an HTTP version";
    /// W3C extended without `#Fields:` before the line, or without a column that is needed.
    NoFields = "no_fields", "no #Fields before it, or none with date, time, method, path and status";
    /// The target is neither a path nor an http or https URL.
    NoPath = "no_path", "a target that is no path";
    /// Neither the line nor the option names the host.
    NoHost = "no_host", "no host; --host names it";
}
