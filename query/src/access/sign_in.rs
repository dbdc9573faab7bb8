//! Signing in to the page and out again.
//!
//! Only maintainers who sign in here get a cookie. The beacon's routes neither set nor read one.

use super::Access;
use super::credentials::{self, Credentials};
use super::refusals::Refusal;
use super::token::Token;
use crate::page;
use crate::route::Audience;
use crate::turns::CallerKey;
use axum::Extension;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use zeroize::{Zeroize, Zeroizing};

/// Longest body: the form has a token and a path.
pub(crate) const FORM_BYTES: usize = 8 << 10;
const FORM_WITHIN: Duration = Duration::from_secs(10);
const MAX_NEXT_BYTES: usize = 2048;

/// How the request arrived; the guard adds it.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(super) client: u64,
    pub(super) https: bool,
}

#[derive(Deserialize)]
pub(crate) struct NextPath {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct SignInForm {
    #[serde(default)]
    token: String,
    #[serde(default)]
    next: String,
}

impl Drop for SignInForm {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// `/sign-in?next=` with the path that was requested.
pub(super) fn path_back_to(uri: &Uri) -> String {
    let wanted = uri.path_and_query().map_or("/", |path| path.as_str());
    match local(wanted) {
        "/" => "/sign-in".to_owned(),
        path => {
            let mut text = "/sign-in?next=".to_owned();
            for byte in path.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                        text.push(byte.into());
                    }
                    _ => text.push_str(&format!("%{byte:02X}")),
                }
            }
            text
        }
    }
}

/// `next` if it is a path of this service, else the index. Browsers interpret `//host`, `/\host` and (since they drop tabs and line ends)
/// `/<tab>/host` as another host.
fn local(next: &str) -> &str {
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let elsewhere = !next.starts_with('/') || next.starts_with("//");
    let round = next.starts_with("/sign-");
    if plain && !elsewhere && !round && next.len() <= MAX_NEXT_BYTES { next } else { "/" }
}

pub(crate) async fn form(
    State(access): State<Arc<Access>>,
    Extension(arrival): Extension<Arrival>,
    wanted: Result<Query<NextPath>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let next = wanted.map(|Query(wanted)| wanted.next).unwrap_or_default();
    let known = match Credentials::by(&headers, arrival.https) {
        Credentials::Cookie(cookie) => access.session(&cookie).is_some(),
        _ => false,
    };
    if known { see_other(local(&next)) } else { asked(&next, None, StatusCode::OK) }
}

pub(crate) async fn sign_in(
    State(access): State<Arc<Access>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Response {
    if !from_here(&headers, false) {
        return failed(&access, arrival, || Refusal::OtherSite.answer(Audience::People));
    }
    let reading = <Form<SignInForm> as axum::extract::FromRequest<()>>::from_request(request, &());
    let sent: Result<Form<SignInForm>, FormRejection> = match tokio::time::timeout(FORM_WITHIN, reading).await {
        Ok(sent) => sent,
        Err(_) => {
            let late = || asked("/", Some("The form did not arrive in time."), StatusCode::REQUEST_TIMEOUT);
            return failed(&access, arrival, late);
        }
    };
    let Ok(Form(sent)) = sent else {
        let malformed = || asked("/", Some("This was no form with a token."), StatusCode::BAD_REQUEST);
        return failed(&access, arrival, malformed);
    };
    let snapshot = access.snapshot.load();
    let Some(snapshot) = snapshot.as_ref() else { return Refusal::RightsUnknown.answer(Audience::People) };
    let now = (access.clock)();
    let token = Token::parse(sent.token.trim()).filter(|token| snapshot.rights_of(token).is_some());
    let Some(token) = token else {
        // Only failures are limited: a token cannot be guessed, so the limit is against load, and no client can lock out others.
        let wrong =
            || asked(&sent.next, Some("This token opens nothing. It may have been revoked."), StatusCode::FORBIDDEN);
        return failed(&access, arrival, wrong);
    };
    if let Err(seconds) = access.requests.take(CallerKey::Token(token.id()), now.timestamp_millis()) {
        return Refusal::TooMany { seconds }.answer(Audience::People);
    }
    if let Some(old) = credentials::session_cookie(&headers, arrival.https) {
        access.sessions.end(&old);
    }
    let Ok(cookie) = access.sessions.begin(token.id(), now.timestamp_millis()) else {
        tracing::error!("the operating system returns no random numbers; no one can sign in");
        return Refusal::RightsUnknown.answer(Audience::People);
    };
    access.uses.note(token.id(), now);
    let mut response = see_other(local(&sent.next));
    set_cookie(&mut response, &cookie, access.session_seconds, arrival.https);
    response
}

/// The response to a failed sign-in. The number of failures of one client is limited.
fn failed(access: &Access, arrival: Arrival, answer: impl FnOnce() -> Response) -> Response {
    let now_ms = (access.clock)().timestamp_millis();
    match access.failures.take(CallerKey::Network(arrival.client), now_ms) {
        Ok(()) => answer(),
        Err(seconds) => Refusal::TooMany { seconds }.answer(Audience::People),
    }
}

pub(crate) async fn sign_out(
    State(access): State<Arc<Access>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
) -> Response {
    if !from_here(&headers, true) {
        return Refusal::OtherSite.answer(Audience::People);
    }
    if let Some(cookie) = credentials::session_cookie(&headers, arrival.https) {
        access.sessions.end(&cookie);
    }
    let mut response = see_other("/sign-in");
    set_cookie(&mut response, "", 0, arrival.https);
    response
}

/// Whether a form was sent by a page of this service, from the headers that browsers set. Programs send neither header, and have no cookies
/// that another site could use.
///
/// Pages send `Referrer-Policy: no-referrer`, for which browsers send `Origin: null` with forms; /sign-in sends `same-origin` instead. For
/// signing out, `null` is sufficient: the cookie is `SameSite=Strict`, so a form of another site comes without it.
fn from_here(headers: &HeaderMap, null_will_do: bool) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some("null"), _) => null_will_do,
        (Some(origin), Some(host)) => {
            origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
        }
        (Some(_), None) => false,
    }
}

fn asked(next: &str, error: Option<&str>, status: StatusCode) -> Response {
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::REFERRER_POLICY, "same-origin")];
    (status, headers, page::sign_in(local(next), error)).into_response()
}

fn see_other(path: &str) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Redirect::to(path)).into_response()
}

fn set_cookie(response: &mut Response, value: &str, seconds: u64, https: bool) {
    let name = credentials::cookie_name(https);
    let secure = if https { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    let text = Zeroizing::new(text);
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_leads_nowhere_else() {
        for good in ["/", "/projects/docs/2026-01?prefix=/en/", "/projects/docs/2026-01..2026-03", "/a//b", "/./x"] {
            assert_eq!(local(good), good);
        }
        let long = format!("/{}", "a".repeat(MAX_NEXT_BYTES));
        for bad in [
            "",
            "projects",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/a\r\nset-cookie: x=y",
            "https://evil.example/",
            "javascript:alert(1)",
            " /a",
            "/é",
            "/sign-in",
            "/sign-out",
            "/sign-in?next=/sign-in",
            &long,
        ] {
            assert_eq!(local(bad), "/", "{bad}");
        }
        let back = |uri: &str| path_back_to(&uri.parse().unwrap());
        assert_eq!(
            back("/projects/docs/2026-01?prefix=/en/&sort=views"),
            "/sign-in?next=/projects/docs/2026-01%3Fprefix%3D/en/%26sort%3Dviews"
        );
        assert_eq!((back("/"), back("//evil.example/x")), ("/sign-in".to_owned(), "/sign-in".to_owned()));
    }

    #[test]
    fn a_form_of_another_site_is_known() {
        let ask = |pairs: &[(&'static str, &'static str)], null: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().unwrap());
            }
            from_here(&headers, null)
        };
        let host = ("host", "stats.example.org");
        for (pairs, sign_in, sign_out) in [
            (&[host][..], true, true),
            (&[host, ("sec-fetch-site", "same-origin"), ("origin", "null")], true, true),
            (&[host, ("sec-fetch-site", "cross-site"), ("origin", "https://stats.example.org")], false, false),
            (&[host, ("sec-fetch-site", "same-site")], false, false),
            (&[host, ("sec-fetch-site", "none")], false, false),
            (&[host, ("origin", "https://stats.example.org")], true, true),
            (&[host, ("origin", "https://STATS.example.org")], true, true),
            (&[host, ("origin", "https://stats.example.org:8443")], false, false),
            (&[host, ("origin", "https://evil.example")], false, false),
            (&[host, ("origin", "null")], false, true),
            (&[("origin", "https://stats.example.org")], false, false),
        ] {
            assert_eq!((ask(pairs, false), ask(pairs, true)), (sign_in, sign_out), "{pairs:?}");
        }
    }
}
