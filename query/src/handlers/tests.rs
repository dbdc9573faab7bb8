use super::*;
use crate::access::{Access, AccessConfig, Edge};
use crate::cache::ReportCache;
use crate::routes::{App, router};
use crate::store::{ReportStore, StoreError};
use crate::{Clock, QueryConfig};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use chrono::DateTime;
use serde_json::Value;
use std::sync::Arc;
use tower::ServiceExt as _;

/// No server listens on port 1, so ClickHouse is away.
fn without_clickhouse() -> Router {
    let store = ReportStore::new(clickhouse::Client::default().with_url("http://127.0.0.1:1"));
    let now = DateTime::parse_from_rfc3339("2026-11-23T13:30:00Z").unwrap().to_utc();
    let clock: Clock = Arc::new(move || now);
    let edge = Edge { client: Arc::new(|_, _| 0), https: Arc::new(|_, _| false) };
    let config = AccessConfig { report_rate: 0.0, session_seconds: 1, edge, no_token: String::new() };
    let access = Access::new(clickhouse::Client::default(), config, Arc::clone(&clock));
    let app = App::new(store, QueryConfig::default(), clock, &access, ReportCache::off());
    router(app, |_| true)
}

async fn ask(path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = without_clickhouse().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn refusals_name_the_field_and_what_was_expected() {
    let report = "/v1/projects/sphinx/reports/2026-10";
    let of_views = crate::report::PageTotal { path: "/a".to_owned(), status: 200, total: 3 }.by_views().encode();
    let of_value = crate::report::pages::hex("views.3.a");
    for (path, status, field, detail) in [
        ("/v1/projects/sphinx/reports/2026-13", 400, "span", "expected a month as YYYY-MM"),
        ("/v1/projects/sphinx/reports/october", 400, "span", "expected a month as YYYY-MM"),
        ("/v1/projects/sphinx/reports/2026-10..2026-09", 400, "span", "first is not after its last"),
        ("/v1/projects/sphinx/reports/2020-10..2026-09.csv", 400, "span", "at most 36 months"),
        ("/v1/projects/sphinx/reports/9999-12", 404, "span", "9999-12 has not started"),
        ("/v1/projects/sphinx/reports/2026-10.csv?bom=0", 400, "bom", "expected 1"),
        ("/v1/projects/sphinx/reports/2026-10?bom=1", 400, "bom", "expected none but"),
        ("/v1/projects/sphinx/reports/2026-12", 404, "span", "2026-12 has not started"),
        ("/v1/projects/Not%20a%20slug/reports/2026-10", 404, "project", "no project of this name"),
        (&format!("{report}?pages_limit=0"), 400, "pages_limit", "from 1 to 1000"),
        (&format!("{report}?pages_limit=1001"), 400, "pages_limit", "from 1 to 1000"),
        (&format!("{report}?pages_limit=+5"), 400, "pages_limit", "from 1 to 1000"),
        (&format!("{report}?pages_status=99"), 400, "pages_status", "from 100 to 599"),
        (&format!("{report}?pages_after=xyz"), 400, "pages_after", "`next`"),
        (&format!("{report}?limit=5"), 400, "limit", "expected none but pages_limit"),
        (&format!("{report}.csv?x=1"), 400, "query", "pages_status, bom"),
        (&format!("{report}?%3Cscript%3E"), 400, "query", "expected none but pages_limit"),
        (&format!("{report}/pages?limit=1&limit=2"), 400, "limit", "once"),
        (&format!("{report}/pages?sort=size"), 400, "sort", "views, visitors, path or change"),
        (&format!("{report}/pages?sort=path&after={of_views}"), 400, "after", "expected one of sort=path"),
        (&format!("{report}/pages?prefix=en"), 400, "prefix", "a slash first"),
        (&format!("{report}/pages?prefix=%ff"), 400, "prefix", "UTF-8"),
        (&format!("{report}/pages?prefix=/%00"), 400, "prefix", "a slash first"),
        (&format!("{report}/not-found?status=200"), 400, "status", "expected none but limit, after, prefix, sort"),
        (&format!("{report}/breakdowns/os?sort=path"), 400, "sort", "views or value"),
        (&format!("{report}/breakdowns/os?sort=value&after={of_value}"), 400, "after", "in the same order"),
        (&format!("{report}/breakdowns/colour"), 400, "dimension", "referrer, country"),
        (&format!("{report}/breakdowns/os.csv?after=zz"), 400, "after", "`next`"),
        (&format!("{report}/days?limit=3"), 400, "limit", "no parameters"),
        ("/v1/projects/sphinx/reports/2026-11/pages?sort=change", 400, "sort", "one finished month"),
        ("/v1/projects/sphinx/reports/2026-09..2026-10/pages?sort=change", 400, "sort", "one finished month"),
        ("/v1/projects?after=/", 400, "after", "`next`"),
    ] {
        let (found, headers, body) = ask(path).await;
        assert_eq!(found.as_u16(), status, "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{path}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((problem["status"].as_u64(), problem["field"].as_str()), (Some(u64::from(status)), Some(field)));
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path}: {body}");
        assert!(!body.contains("<script") && !body.contains("xyz"), "what was sent is not repeated");
        assert!(problem["type"].is_string() && problem["title"].is_string());
    }
}

#[tokio::test]
async fn clickhouse_away_says_when_to_come_back() {
    for path in ["/v1/projects/sphinx/reports/2026-10", "/projects/sphinx/2026-10"] {
        let (status, headers, body) = ask(path).await;
        assert_eq!(status, 503, "{path}");
        assert_eq!(headers[header::RETRY_AFTER], "5");
        assert!(body.contains("does not answer") && !body.contains("127.0.0.1"), "{body}");
    }
}

#[tokio::test]
async fn a_project_leads_to_its_running_month() {
    let (status, headers, _) = ask("/projects/sphinx").await;
    assert_eq!(
        (status, &headers[header::LOCATION]),
        (StatusCode::TEMPORARY_REDIRECT, &"/projects/sphinx/2026-11".parse().unwrap())
    );
    for (path, expected) in [
        ("/projects/sphinx/?x=1&y=%2F", "/projects/sphinx?x=1&y=%2F"),
        ("/projects/sphinx?x=1", "/projects/sphinx/2026-11?x=1"),
    ] {
        assert_eq!(ask(path).await.1[header::LOCATION], expected, "{path}");
    }
    assert_eq!(ask("/projects/%2F%2Fevil.example").await.0, 404);
}

#[tokio::test]
async fn clickhouse_that_hangs_is_given_up() {
    // Accepts connections into its backlog and never responds.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = clickhouse::Client::default().with_url(format!("http://{}", silent.local_addr().unwrap()));
    let store = ReportStore::new(client).with_timeout_ms(50);
    let error = store.require_project(&"sphinx".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout { timeout_ms: 50, .. }), "{error}");
    assert_eq!(error.failure_kind(), storage::FailureKind::Unavailable);
    assert_eq!(crate::reports::problem_of(&error), Problem::storage_unavailable());
}

#[tokio::test]
async fn other_methods_and_forms_are_problems_too() {
    let send = async |request: axum::http::request::Builder| {
        let response = without_clickhouse().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status.as_u16(), headers, serde_json::from_slice::<Value>(&body).unwrap_or_default())
    };
    let path = "/v1/projects/sphinx/reports/2026-10/days";
    let (status, headers, problem) = send(Request::post(path)).await;
    assert_eq!((status, problem["type"].as_str()), (405, Some("/problems/method-not-allowed")));
    assert_eq!(headers[header::ALLOW], "GET,HEAD");
    let (status, headers, problem) = send(Request::get(path).header(header::ACCEPT, "image/png")).await;
    assert_eq!((status, problem["field"].as_str()), (406, Some("accept")));
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    // The suffix determines the format, whatever `Accept` says; an absent store is reported as usual.
    let (status, ..) = send(Request::get(format!("{path}.csv")).header(header::ACCEPT, "image/png")).await;
    assert_eq!(status, 503);
    let (status, headers, problem) = send(Request::head(path)).await;
    assert_eq!((status, problem), (503, Value::Null));
    assert!(headers.get(header::ETAG).is_none(), "a problem has no validator");
}

#[tokio::test]
async fn what_the_document_lists_is_there() {
    let (status, headers, body) = ask("/v1/openapi.json").await;
    assert_eq!((status, &headers[header::CONTENT_TYPE]), (StatusCode::OK, &"application/json".parse().unwrap()));
    let document: Value = serde_json::from_str(&body).unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        let asked = path.replace("{project}", "sphinx").replace("{span}", "2026-10").replace("{dimension}", "os");
        let (status, _, body) = ask(&asked).await;
        assert_eq!(status, 503, "{path} would be read if the store were there: {body}");
    }
}
