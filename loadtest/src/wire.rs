//! The part of HTTP/1.1 that a load test needs: where a response ends, and its status.
//!
//! A full client would be safer against odd servers, but its cycles would reduce the server's share of the machine. Everything else is an error,
//! never a guess.

/// A response head larger than this is an error.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// A response whose bytes are all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Status code, 200 to 999.
    pub status: u16,
    /// Bytes of head and body together.
    pub length_bytes: usize,
    /// The server will close the connection after it.
    pub close: bool,
}

/// Why bytes are not a response this client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Not `HTTP/1.1 NNN`, or an interim (1xx) response, which was not requested.
    StatusLine,
    /// The head does not end within 16 KiB.
    HeadTooLong,
    /// `content-length` is missing, repeated or not a number (chunked bodies have none).
    ContentLength,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StatusLine => "the response does not begin with a final HTTP/1.1 status line",
            Self::HeadTooLong => "the response's head does not end within 16 KiB",
            Self::ContentLength => "the response has no single valid content-length",
        })
    }
}

impl std::error::Error for Malformed {}

/// The response at the start of `bytes`, or `None` while more bytes are needed.
///
/// # Errors
/// When no further bytes could make it a response that is understood.
pub fn parse_response(bytes: &[u8]) -> Result<Option<Response>, Malformed> {
    let Some(head_length) = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.len() > MAX_HEAD_BYTES { Err(Malformed::HeadTooLong) } else { Ok(None) };
    };
    let mut lines =
        bytes[..head_length - 4].split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let status = lines.next().and_then(parse_status).ok_or(Malformed::StatusLine)?;
    let (mut body_length, mut close) = (None, false);
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|v| v.parse::<u32>().ok());
            if body_length.is_some() || length.is_none() {
                return Err(Malformed::ContentLength);
            }
            body_length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(Malformed::ContentLength);
        } else if name.eq_ignore_ascii_case(b"connection") {
            close = value.eq_ignore_ascii_case(b"close");
        }
    }
    // These two have no body, whatever the head contains (RFC 9112, section 6.3).
    let body_length = match status {
        204 | 304 => 0,
        _ => body_length.ok_or(Malformed::ContentLength)? as usize,
    };
    let length_bytes = head_length + body_length;
    Ok((bytes.len() >= length_bytes).then_some(Response { status, length_bytes, close }))
}

fn parse_status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ")?;
    let (code, after) = rest.split_at_checked(3)?;
    let status = std::str::from_utf8(code).ok()?.parse().ok()?;
    (status >= 200 && matches!(after.first(), None | Some(b' '))).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] =
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\n\r\nok";

    #[test]
    fn a_response_split_anywhere_is_incomplete_until_its_last_byte() {
        for end in 0..ACCEPTED.len() {
            assert_eq!(parse_response(&ACCEPTED[..end]), Ok(None), "after {end} bytes");
        }
        let whole = Response { status: 202, length_bytes: ACCEPTED.len(), close: false };
        assert_eq!(parse_response(ACCEPTED), Ok(Some(whole)));
    }

    #[test]
    fn bytes_of_the_next_response_are_left_alone() {
        let two = [ACCEPTED, ACCEPTED].concat();
        assert_eq!(parse_response(&two).unwrap().unwrap().length_bytes, ACCEPTED.len());
    }

    #[test]
    fn no_content_needs_no_length_and_close_is_seen() {
        let bytes = b"HTTP/1.1 204 No Content\r\nconnection: Close\r\n\r\n";
        let expected = Response { status: 204, length_bytes: bytes.len(), close: true };
        assert_eq!(parse_response(bytes), Ok(Some(expected)));
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let cases: [(&[u8], Malformed); 7] = [
            (b"HTTP/1.0 202 OK\r\ncontent-length: 0\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 100 Continue\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 20\r\n\r\n", Malformed::StatusLine),
            (b"HTTP/1.1 202 OK\r\n\r\n", Malformed::ContentLength),
            (b"HTTP/1.1 202 OK\r\ncontent-length: -1\r\n\r\n", Malformed::ContentLength),
            (b"HTTP/1.1 202 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", Malformed::ContentLength),
            (b"HTTP/1.1 202 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Malformed::ContentLength),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse_response(bytes), Err(expected), "{}", bytes.escape_ascii());
        }
        assert_eq!(parse_response(&vec![b'x'; MAX_HEAD_BYTES + 1]), Err(Malformed::HeadTooLong));
    }
}
