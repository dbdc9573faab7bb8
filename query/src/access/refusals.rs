//! Requests that the guard refuses, and their responses. The response is the same whether the project exists or not.

use super::credentials::Credentials;
use crate::page;
use crate::problem::Problem;
use crate::route::{Audience, Route};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};

/// Why the guard refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No token, or one without rights.
    NotSignedIn,
    /// A valid token without access to the project, or a badge of a project that is not public.
    NotYours,
    /// Too many requests; the next is accepted after this many seconds.
    TooMany { seconds: u64 },
    /// ClickHouse has not answered since the start, so no rights are known.
    RightsUnknown,
    /// A form sent from another site.
    OtherSite,
    /// No such route.
    Nothing,
}

impl Refusal {
    pub(super) fn problem(self) -> Problem {
        match self {
            Refusal::NotSignedIn => Problem {
                kind: "/problems/not-signed-in",
                title: "A token is needed",
                status: 401,
                detail: "send a valid token, as `Authorization: Bearer TOKEN`".into(),
                field: None,
            },
            Refusal::NotYours => Problem::unknown_project(),
            Refusal::TooMany { .. } => Problem {
                kind: "/problems/too-many-requests",
                title: "Too many requests",
                status: 429,
                detail: "retry after the seconds in Retry-After".into(),
                field: None,
            },
            Refusal::RightsUnknown => Problem::storage_unavailable(),
            Refusal::OtherSite => Problem {
                kind: "/problems/other-site",
                title: "This form was sent by another site",
                status: 403,
                detail: "sign in on the page of this service".into(),
                field: None,
            },
            Refusal::Nothing => Problem::no_such_route(),
        }
    }

    /// The response, in the form for its audience.
    pub(super) fn answer(self, audience: Audience) -> Response {
        let problem = self.problem();
        let mut response = match audience {
            Audience::Programs => problem.into_response(),
            Audience::People if self == Refusal::NotYours => problem.complete(page::not_allowed().into_response()),
            Audience::People => problem.complete(page::problem(&problem).into_response()),
        };
        if let Refusal::TooMany { seconds } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The response to a request without a session: a redirect to the form, or 401.
pub(super) fn not_signed_in(
    route: &Route,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    shown: &Credentials,
) -> Response {
    let looks = matches!(*method, Method::GET | Method::HEAD);
    // A program that sent a wrong token gets the 401, not a redirect to the form.
    let sent_a_token = matches!(shown, Credentials::NoToken | Credentials::Token(_));
    if route.audience == Audience::People && looks && !sent_a_token {
        return Redirect::to(&super::sign_in::path_back_to(uri)).into_response();
    }
    let mut response = Refusal::NotSignedIn.answer(Audience::Programs);
    // The challenge offers `Basic` to programs only. A browser would open its own password dialog in the middle of a page.
    let browser = headers.contains_key(HeaderName::from_static("sec-fetch-site"));
    let challenge =
        if browser { "Bearer realm=\"headcount\"" } else { "Bearer realm=\"headcount\", Basic realm=\"headcount\"" };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    debug_assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    response
}
