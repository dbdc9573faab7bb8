//! Why a beacon was refused. The spelling is the same in code, metric, record, row and document, and in the response except for `not_counted_here`.

use crate::proto::{Cause, Fact};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

macro_rules! reasons {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal, $status:literal; )+) => {
        /// One reason for each refused beacon. The numbers are stored: never reuse one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum RejectionReason { $( $(#[doc = $doc])+ $variant = $number, )+ }

        impl RejectionReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [RejectionReason] = &[ $(RejectionReason::$variant),+ ];

            /// The only spelling, in snake case.
            pub const fn name(self) -> &'static str {
                match self { $(RejectionReason::$variant => $name),+ }
            }

            /// HTTP status of the response.
            pub const fn status(self) -> u16 {
                match self { $(RejectionReason::$variant => $status),+ }
            }

            /// The reason with this stored number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(RejectionReason::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The body is not JSON, or not an object.
    MalformedJson = 1, "malformed_json", 400;
    /// The body or query is not UTF-8.
    NotUtf8 = 2, "not_utf8", 400;
    /// A required field is missing.
    MissingField = 3, "missing_field", 400;
    /// A field has the wrong type or form.
    InvalidField = 4, "invalid_field", 400;
    /// A field is longer than allowed.
    FieldTooLong = 5, "field_too_long", 400;
    /// A field contains control characters.
    ControlCharacters = 6, "control_characters", 400;
    /// The named project is unknown, or no project has the page's host.
    UnknownProject = 7, "unknown_project", 404;
    /// The page's host is not one of the project's.
    ForeignHost = 8, "foreign_host", 404;
    /// The body is longer than 16 KiB.
    BodyTooLarge = 9, "body_too_large", 413;
    /// The body did not arrive in time.
    BodyTimeout = 10, "body_timeout", 408;
    /// Too many beacons from one client.
    ClientRateLimited = 11, "client_rate_limited", 429;
    /// Too many beacons for one project.
    ProjectRateLimited = 12, "project_rate_limited", 429;
    /// The log cannot take the view now; nothing was counted.
    LogUnavailable = 13, "log_unavailable", 503;
    /// Too many requests in progress; refused before parsing.
    Overloaded = 14, "overloaded", 503;
    /// Several projects share the page's host, and the beacon does not name one.
    AmbiguousProject = 15, "ambiguous_project", 404;
    /// The client is in a network whose views are not counted. Record format 4.
    IgnoredNetwork = 16, "ignored_network", 204;
    /// The browser prefetched the page before a reader opened it. Record format 4.
    Prefetch = 17, "prefetch", 204;
    /// The event is not a page view. Record format 4.
    NotAView = 18, "not_a_view", 202;
}

/// The response for all reasons that depend on which projects are registered.
pub const NOT_COUNTED_HERE: &str = "not_counted_here";

impl RejectionReason {
    /// Whether the reason reveals something about the registry: that a project exists, or which hosts it has. Such a reason is shown only
    /// in the project's report. The sender gets [`NOT_COUNTED_HERE`] for all of them. Otherwise an outsider could find out whether a
    /// private project exists.
    pub const fn is_about_registry(self) -> bool {
        matches!(
            self,
            RejectionReason::UnknownProject | RejectionReason::ForeignHost | RejectionReason::AmbiguousProject
        )
    }

    /// The first record format (see [`crate::record`]) with this reason.
    pub const fn first_format(self) -> u32 {
        match self {
            RejectionReason::IgnoredNetwork | RejectionReason::Prefetch | RejectionReason::NotAView => 4,
            _ => 1,
        }
    }

    /// Whether the page's host is the cause, so that a maintainer needs to know it.
    pub const fn is_about_host(self) -> bool {
        matches!(self, RejectionReason::ForeignHost | RejectionReason::AmbiguousProject)
    }
}

/// The reason in `rejection_daily` for views that were counted without a fact, such as `dropped_title` (an invalid title) or `limited_path`
/// (a client network exceeded its limit of paths). These are not refused beacons.
pub fn reason_of_dropped_fact(fact: Fact, cause: Cause) -> String {
    let cause = match cause {
        Cause::Limit => LIMITED,
        Cause::Unusable | Cause::Unspecified => DROPPED,
    };
    format!("{cause}{}", fact.name())
}

/// Whether a reason of `rejection_daily` is one of [`reason_of_dropped_fact`].
pub fn is_of_dropped_fact(reason: &str) -> bool {
    reason.starts_with(DROPPED) || reason.starts_with(LIMITED)
}

/// Prefix of reasons for facts with an unusable value; the fact's name follows.
pub const DROPPED: &str = "dropped_";

/// Prefix of reasons for facts beyond a limit of one client network; the fact's name follows.
pub const LIMITED: &str = "limited_";

/// A refusal as the sender sees it. It never contains text of the request, since others may log a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}{expected}", reason.name(), field.map(|f| format!("field `{f}`: ")).unwrap_or_default())]
pub struct Rejection {
    /// Why it was refused.
    pub reason: RejectionReason,
    /// The field at fault, if there is one.
    pub field: Option<&'static str>,
    /// What was expected instead.
    pub expected: Cow<'static, str>,
}

impl Rejection {
    /// A refusal without a field at fault.
    pub fn new(reason: RejectionReason, expected: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason, field: None, expected: expected.into() }
    }

    /// A refusal for `field`.
    pub fn field(reason: RejectionReason, field: &'static str, expected: impl Into<Cow<'static, str>>) -> Self {
        Rejection { reason, field: Some(field), expected: expected.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_read_back() {
        for &reason in RejectionReason::ALL {
            assert_eq!(RejectionReason::from_number(reason as u32), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
        }
        assert_eq!(RejectionReason::from_number(0), None);
        let about_registry = RejectionReason::ALL.iter().filter(|reason| reason.is_about_registry());
        assert!(about_registry.clone().count() == 3 && about_registry.clone().all(|reason| reason.status() == 404));
    }

    #[test]
    fn reasons_of_dropped_facts_differ_from_refusals() {
        for cause in [Cause::Unusable, Cause::Limit] {
            for number in 1..=9 {
                let reason = reason_of_dropped_fact(Fact::try_from(number).unwrap(), cause);
                assert!(is_of_dropped_fact(&reason) && reason.len() > LIMITED.len(), "{reason}");
            }
        }
        assert_eq!(reason_of_dropped_fact(Fact::Path, Cause::Limit), "limited_path");
        assert_eq!(reason_of_dropped_fact(Fact::Title, Cause::Unusable), "dropped_title");
        assert!(RejectionReason::ALL.iter().all(|reason| !is_of_dropped_fact(reason.name())));
    }
}
