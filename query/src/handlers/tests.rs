use super::*;
use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use chrono::DateTime;
use serde_json::Value;
use tower::ServiceExt as _;

/// Nothing listens on port 1, so ClickHouse is away.
fn without_clickhouse() -> Router {
    let store = ReportStore::new(clickhouse::Client::default().with_url("http://127.0.0.1:1"));
    let now = DateTime::parse_from_rfc3339("2026-11-23T13:30:00Z").unwrap().to_utc();
    crate::routes(store, QueryConfig::default(), Arc::new(move || now))
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
    let cursor = "/v1/projects/sphinx/reports/2026-10?pages_after=xyz";
    for (path, status, field, detail) in [
        ("/v1/projects/sphinx/reports/2026-13", 400, "month", "expected a month as YYYY-MM"),
        ("/v1/projects/sphinx/reports/october", 400, "month", "expected a month as YYYY-MM"),
        ("/v1/projects/sphinx/reports/2026-12", 404, "month", "2026-12 has not begun"),
        ("/v1/projects/Not%20a%20slug/reports/2026-10", 404, "project", "no project of this name is here"),
        ("/v1/projects/sphinx/reports/2026-10?pages_limit=0", 400, "pages_limit", "from 1 to 1000"),
        ("/v1/projects/sphinx/reports/2026-10?pages_limit=1001", 400, "pages_limit", "from 1 to 1000"),
        ("/v1/projects/sphinx/reports/2026-10?pages_status=99", 400, "pages_status", "from 100 to 599"),
        (cursor, 400, "pages_after", "`pages.next`"),
    ] {
        let (found, headers, body) = ask(path).await;
        assert_eq!(found.as_u16(), status, "{path}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{path}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((problem["status"].as_u64(), problem["field"].as_str()), (Some(u64::from(status)), Some(field)));
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path}: {body}");
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
    assert_eq!(ask("/projects/%2F%2Fevil.example").await.0, 404);
}

#[tokio::test]
async fn every_answer_forbids_what_the_page_does_not_need() {
    for path in ["/assets/report.css", "/projects/sphinx/2026-10", "/projects/sphinx", "/v1/projects/sphinx/reports/x"]
    {
        let (_, headers, _) = ask(path).await;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(headers[header::CACHE_CONTROL], "private, no-cache");
    }
}

#[tokio::test]
async fn clickhouse_that_hangs_is_given_up() {
    // Accepts connections into its backlog and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = clickhouse::Client::default().with_url(format!("http://{}", silent.local_addr().unwrap()));
    let store = ReportStore::new(client).with_timeout_ms(50);
    let error = store.require_project(&"sphinx".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout { timeout_ms: 50, .. }), "{error}");
    assert!(error.is_unavailable());
    assert_eq!(problem_of(&error), Problem::storage_unavailable());
}
