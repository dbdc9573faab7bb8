//! Requests that get no report: one value, rendered as problem JSON (RFC 9457) or as a page.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::borrow::Cow;

/// Seconds after which a caller may retry: ClickHouse is away, or there was no turn.
const RETRY_AFTER_SECONDS: &str = "5";

/// Why there is no report, in the members of RFC 9457. Never contains text of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// Identifies the kind; a path in this service's documentation.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What was expected, or what to do.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
    /// The part of the request at fault, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'static str>,
}

impl Problem {
    /// 400: `field` is invalid.
    pub fn invalid_field(field: &'static str, expected: impl Into<Cow<'static, str>>) -> Self {
        Problem {
            kind: "/problems/invalid-field",
            title: "A part of the request is not valid",
            status: 400,
            detail: expected.into(),
            field: Some(field),
        }
    }

    /// 404: the project is not registered, or the caller has no access to it. The response does not say which.
    pub fn unknown_project() -> Self {
        Problem {
            kind: "/problems/unknown-project",
            title: "No such project",
            status: 404,
            detail: "no project of this name exists, or the caller has no access to it".into(),
            field: Some("project"),
        }
    }

    /// 404: the month is in the future.
    pub fn month_not_started(detail: String) -> Self {
        Problem {
            kind: "/problems/month-not-begun",
            title: "No report yet",
            status: 404,
            detail: detail.into(),
            field: Some("span"),
        }
    }

    /// 404: no such route.
    pub fn no_such_route() -> Self {
        Problem {
            kind: "/problems/no-such-route",
            title: "Nothing is here",
            status: 404,
            detail: "no route of this service has this path; /v1/openapi.json lists those there are".into(),
            field: None,
        }
    }

    /// 405: the route does not support the method.
    pub fn method_not_allowed() -> Self {
        Problem {
            kind: "/problems/method-not-allowed",
            title: "The method is not allowed here",
            status: 405,
            detail: "expected a method that the header `allow` names".into(),
            field: None,
        }
    }

    /// 406: neither JSON nor CSV is accepted.
    pub fn not_acceptable() -> Self {
        Problem {
            kind: "/problems/not-acceptable",
            title: "No form of the answer is acceptable",
            status: 406,
            detail: "expected application/json or text/csv to be accepted".into(),
            field: Some("accept"),
        }
    }

    /// 503: ClickHouse does not answer, or not in time.
    pub fn storage_unavailable() -> Self {
        Problem {
            kind: "/problems/storage-unavailable",
            title: "The figures cannot be read right now",
            status: 503,
            detail: "the storage of the figures does not answer; try again shortly".into(),
            field: None,
        }
    }

    /// 503: other requests hold all turns, and the wait for a turn was too long.
    pub fn too_many_reports() -> Self {
        Problem {
            kind: "/problems/too-many-reports",
            title: "Too many concurrent reports",
            status: 503,
            detail: "others are being served first; try again shortly".into(),
            field: None,
        }
    }

    /// 429: the caller has as many waiting requests as it may have.
    pub fn too_many_waiting() -> Self {
        Problem {
            kind: "/problems/too-many-waiting",
            title: "Too many requests of this caller wait for reports",
            status: 429,
            detail: "expected fewer concurrent requests; try again after the seconds that Retry-After names".into(),
            field: None,
        }
    }

    /// 500: this version cannot interpret ClickHouse's response.
    pub fn unreadable_figures() -> Self {
        Problem {
            kind: "/problems/unreadable-figures",
            title: "The stored figures cannot be read by this version",
            status: 500,
            detail: "the operator finds the cause in the service's log".into(),
            field: None,
        }
    }

    /// Whether the request got no turn.
    pub(crate) fn is_no_turn(&self) -> bool {
        *self == Problem::too_many_waiting() || *self == Problem::too_many_reports()
    }

    /// Whether a retry may succeed soon: there was no turn, or ClickHouse did not answer.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_no_turn() || *self == Problem::storage_unavailable()
    }

    /// Its status.
    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Adds the headers that the status requires to a response for this problem.
    pub(crate) fn complete(&self, mut response: Response) -> Response {
        *response.status_mut() = self.status_code();
        if matches!(self.status, 429 | 503) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = axum::Json(&self).into_response();
        let problem_json = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem_json);
        self.complete(response)
    }
}
