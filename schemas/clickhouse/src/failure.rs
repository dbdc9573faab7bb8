//! The meaning of a failed call to ClickHouse for its caller, by ClickHouse's error code.

use clickhouse::error::Error;
use std::borrow::Cow;
use std::time::Duration;

/// Why a call failed, with its action.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// ClickHouse refused or went away.
    #[error("ClickHouse, while {action}: {cause}")]
    ClickHouse {
        /// What was attempted.
        action: Cow<'static, str>,
        /// Cause of the failure.
        cause: Error,
    },
    /// No answer in time; the outcome is unknown.
    #[error("ClickHouse gave no answer within {} ms, while {action}", timeout.as_millis())]
    Timeout {
        /// What was attempted.
        action: Cow<'static, str>,
        /// The time limit of the call.
        timeout: Duration,
    },
}

impl CallError {
    /// The kind of the failure.
    #[must_use]
    pub fn failure_kind(&self) -> FailureKind {
        match self {
            CallError::ClickHouse { cause, .. } => failure_kind(cause),
            CallError::Timeout { .. } => FailureKind::Unavailable,
        }
    }
}

/// The meaning of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// ClickHouse does not answer, is overloaded, or gave up: the same call may succeed later.
    Unavailable,
    /// Stored data cannot be read.
    Damaged,
    /// The statement does not fit ClickHouse's schema, syntax, settings or rights. The same call fails again.
    Bug,
}

/// Codes after which the same statement may succeed later. All codes that are not listed here or in [`DAMAGED`] are bugs.
pub const UNAVAILABLE: [(u16, &str); 41] = [
    (74, "CANNOT_READ_FROM_FILE_DESCRIPTOR"),
    (75, "CANNOT_WRITE_TO_FILE_DESCRIPTOR"),
    (76, "CANNOT_OPEN_FILE"),
    (77, "CANNOT_CLOSE_FILE"),
    (88, "CANNOT_TRUNCATE_FILE"),
    (95, "CANNOT_READ_FROM_SOCKET"),
    (96, "CANNOT_WRITE_TO_SOCKET"),
    (159, "TIMEOUT_EXCEEDED"),
    (160, "TOO_SLOW"),
    (173, "CANNOT_ALLOCATE_MEMORY"),
    (198, "DNS_ERROR"),
    (201, "QUOTA_EXCEEDED"),
    (202, "TOO_MANY_SIMULTANEOUS_QUERIES"),
    (203, "NO_FREE_CONNECTION"),
    (204, "CANNOT_FSYNC"),
    (209, "SOCKET_TIMEOUT"),
    (210, "NETWORK_ERROR"),
    (236, "ABORTED"),
    (241, "MEMORY_LIMIT_EXCEEDED"),
    (242, "TABLE_IS_READ_ONLY"),
    (243, "NOT_ENOUGH_SPACE"),
    (252, "TOO_MANY_PARTS"),
    (274, "AIO_READ_ERROR"),
    (275, "AIO_WRITE_ERROR"),
    (279, "ALL_CONNECTION_TRIES_FAILED"),
    (319, "UNKNOWN_STATUS_OF_INSERT"),
    (341, "UNFINISHED"),
    (384, "PART_IS_TEMPORARILY_LOCKED"),
    (394, "QUERY_WAS_CANCELLED"),
    (425, "SYSTEM_ERROR"),
    (439, "CANNOT_SCHEDULE_TASK"),
    (473, "DEADLOCK_AVOIDED"),
    (517, "CANNOT_ASSIGN_ALTER"),
    (692, "TOO_MANY_MUTATIONS"),
    (696, "ASYNC_LOAD_CANCELED"),
    (735, "QUERY_WAS_CANCELLED_BY_CLIENT"),
    (745, "SERVER_OVERLOADED"),
    (999, "KEEPER_EXCEPTION"),
    (1000, "POCO_EXCEPTION"),
    (1001, "STD_EXCEPTION"),
    (1002, "UNKNOWN_EXCEPTION"),
];

/// Codes for stored data that ClickHouse cannot read or no longer has.
pub const DAMAGED: [(u16, &str); 12] = [
    (33, "CANNOT_READ_ALL_DATA"),
    (40, "CHECKSUM_DOESNT_MATCH"),
    (107, "FILE_DOESNT_EXIST"),
    (226, "NO_FILE_IN_DATA_PART"),
    (227, "UNEXPECTED_FILE_IN_DATA_PART"),
    (228, "BAD_SIZE_OF_FILE_IN_DATA_PART"),
    (232, "NO_SUCH_DATA_PART"),
    (233, "BAD_DATA_PART_NAME"),
    (246, "CORRUPTED_DATA"),
    (271, "CANNOT_DECOMPRESS"),
    (695, "ASYNC_LOAD_FAILED"),
    (722, "ASYNC_LOAD_WAIT_FAILED"),
];

/// The kind of a failed call.
#[must_use]
pub fn failure_kind(error: &Error) -> FailureKind {
    match error {
        Error::TimedOut => FailureKind::Unavailable,
        // The check of a new connection has ClickHouse's answer in its error.
        Error::Network(cause) => kind_of_answer(&words_of(&**cause)),
        Error::BadResponse(answer) => kind_of_answer(answer),
        _ => FailureKind::Bug,
    }
}

fn kind_of_answer(answer: &str) -> FailureKind {
    let mut codes = codes(answer).peekable();
    match codes.peek().copied() {
        // No connection, a server that is starting, or a proxy in front of it.
        None => FailureKind::Unavailable,
        // A merge or a mutation reports the damage that it met as the cause of its own error.
        Some(_) if codes.any(|code| is_listed(&DAMAGED, code)) => FailureKind::Damaged,
        Some(code) if is_listed(&UNAVAILABLE, code) => FailureKind::Unavailable,
        Some(_) => FailureKind::Bug,
    }
}

/// An error with its causes, each once.
#[must_use]
pub fn words_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// ClickHouse's code of an error, if it has one.
#[must_use]
pub fn code_of(error: &Error) -> Option<u16> {
    match error {
        Error::BadResponse(answer) => codes(answer).next(),
        _ => None,
    }
}

fn is_listed(codes: &[(u16, &str)], code: u16) -> bool {
    codes.iter().any(|(listed, _)| *listed == code)
}

/// The codes in the text of an exception, the outermost first.
fn codes(answer: &str) -> impl Iterator<Item = u16> {
    answer.split("Code: ").skip(1).filter_map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_means_what_its_code_says() {
        for (answer, kind, code) in [
            ("Code: 47. DB::Exception: Unknown expression identifier `views`", FailureKind::Bug, Some(47)),
            ("Code: 60. DB::Exception: Table headcount.page_daily does not exist", FailureKind::Bug, Some(60)),
            ("Code: 62. DB::Exception: Syntax error", FailureKind::Bug, Some(62)),
            ("Code: 53. DB::Exception: Type mismatch", FailureKind::Bug, Some(53)),
            ("Code: 516. DB::Exception: default: Authentication failed", FailureKind::Bug, Some(516)),
            ("Code: 241. DB::Exception: Memory limit (total) exceeded", FailureKind::Unavailable, Some(241)),
            ("Code: 202", FailureKind::Unavailable, Some(202)),
            ("Code: 40. DB::Exception: Checksum doesn't match", FailureKind::Damaged, Some(40)),
            ("Code: 341. DB::Exception: mutation failed: Code: 40. DB::Exception", FailureKind::Damaged, Some(341)),
            ("502 Bad Gateway", FailureKind::Unavailable, None),
            ("Code: none", FailureKind::Unavailable, None),
        ] {
            let error = Error::BadResponse(answer.to_owned());
            assert_eq!((failure_kind(&error), code_of(&error)), (kind, code), "{answer}");
        }
    }

    #[test]
    fn a_refused_check_of_a_connection_means_what_its_code_says() {
        let refused =
            std::io::Error::other("ClickHouse answered 403 to the check of its id: Code: 516. DB::Exception: x");
        assert_eq!(failure_kind(&Error::Network(Box::new(refused))), FailureKind::Bug);
    }

    #[test]
    fn an_error_without_an_answer_is_one_of_the_connection_or_a_bug() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(failure_kind(&Error::Network(Box::new(refused))), FailureKind::Unavailable);
        assert_eq!(failure_kind(&Error::TimedOut), FailureKind::Unavailable);
        assert_eq!(failure_kind(&Error::SchemaMismatch(String::new())), FailureKind::Bug);
        assert_eq!(failure_kind(&Error::NotEnoughData), FailureKind::Bug);
    }
}
