//! The guard before a test router and without ClickHouse: its decisions, and that they query nothing.

use super::*;
use crate::cache::ReportCache;
use crate::routes::{self, App};
use crate::{QueryConfig, ReportStore};
use axum::body::{Body, to_bytes};
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Extension, Json};
use chrono::DateTime;
use schemas::tables::TokenRow;
use std::sync::atomic::{AtomicI64, Ordering};
use token::Token;
use tower::ServiceExt as _;

struct AccessBed {
    router: Router,
    access: Arc<Access>,
    now_ms: Arc<AtomicI64>,
    reader: Token,
    admin: Token,
    revoked: Token,
}

fn row(token: &Token, project: &str, admin: u8, revoked: u8) -> TokenRow {
    let (id, hash) = (token.id().to_string(), token.hash().to_hex());
    let (project, label) = (project.to_owned(), String::new());
    TokenRow { id, project, admin, hash, label, created: 0, revoked, revision: 1 }
}

/// `docs` and `other` are private, `open` is public. Every connection to ClickHouse would wait in `silent`'s backlog.
fn bed(rate: f64, silent: &std::net::TcpListener) -> AccessBed {
    let now_ms = Arc::new(AtomicI64::new(1_700_000_000_000));
    let clock: Clock = {
        let now_ms = Arc::clone(&now_ms);
        Arc::new(move || DateTime::from_timestamp_millis(now_ms.load(Ordering::Relaxed)).unwrap())
    };
    let edge = Edge {
        client: Arc::new(|_, headers| u64::from(headers.contains_key("x-other-client"))),
        https: Arc::new(|_, headers| headers.contains_key("x-tls")),
    };
    let client = clickhouse::Client::default().with_url(format!("http://{}", silent.local_addr().unwrap()));
    let config = AccessConfig { report_rate: rate, session_seconds: 100, edge, no_token: String::new() };
    let access = Access::new(client.clone(), config, Arc::clone(&clock));
    let [reader, admin, revoked] = [(); 3].map(|()| Token::draw().unwrap());
    let rows = vec![row(&reader, "docs", 0, 0), row(&admin, "", 1, 0), row(&revoked, "docs", 0, 1)];
    access.snapshot.store(Some(Arc::new(Snapshot::of(rows, &[("open".to_owned(), 1)]))));
    let who = async |Extension(caller): Extension<Caller>| Json(format!("{caller:?}"));
    let router = Router::new()
        .route("/", get(who))
        .route("/projects/{project}/{span}", get(who))
        .route("/v1/projects/{project}/reports/{span}", get(who))
        .route("/assets/report.css", get("style"))
        .route("/forgotten/{project}", get("a secret"));
    let app = App::new(ReportStore::new(client), QueryConfig::default(), clock, &access, ReportCache::off());
    let own = routes::router(app, |route| route.path.starts_with("/sign-") || route.rule == Rule::Badge);
    let router = guarded(router.merge(own), &access, RouteTable::of(routes::routes()));
    AccessBed { router, access, now_ms, reader, admin, revoked }
}

fn silent() -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

type TestResponse = (StatusCode, HeaderMap, String);

async fn send(bed: &AccessBed, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TestResponse {
    let mut request = axum::http::Request::builder().method(method).uri(path).header("host", "stats.example.org");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = bed.router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(bed: &AccessBed, path: &str, headers: &[(&str, &str)]) -> TestResponse {
    send(bed, "GET", path, headers, "").await
}

fn bearer(token: &Token) -> String {
    format!("Bearer {}", *token.text())
}

async fn signed_in(bed: &AccessBed, token: &Token, more: &[(&str, &str)]) -> String {
    let headers = [&[("content-type", "application/x-www-form-urlencoded")], more].concat();
    let (status, headers, _) = send(bed, "POST", "/sign-in", &headers, &format!("token={}", *token.text())).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    headers[header::SET_COOKIE].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_caller_without_access_learns_nothing_and_clickhouse_is_not_queried() {
    let silent = silent();
    let bed = bed(0.0, &silent);
    let (reader, admin, revoked) = (bearer(&bed.reader), bearer(&bed.admin), bearer(&bed.revoked));
    let wrong = bearer(&Token::draw().unwrap());
    for path in ["/v1/projects/PROJECT/reports/2026-01", "/projects/PROJECT/2026-01", "/badge/PROJECT.svg"] {
        for authorization in [None, Some(&wrong), Some(&revoked), Some(&"Bearer x".to_owned()), Some(&reader)] {
            let headers: Vec<(&str, &str)> =
                authorization.iter().map(|value| ("authorization", value.as_str())).collect();
            let mut answers = Vec::new();
            // A project that exists, one that does not, and names that cannot be a project.
            for project in ["other", "nowhere", "Not%20a%20slug", "%FF"] {
                let (status, headers, body) = ask(&bed, &path.replace("PROJECT", project), &headers).await;
                assert!(!status.is_success(), "{path} {project} {authorization:?}");
                let mut headers = headers;
                // The redirect contains the requested path.
                headers.remove(header::LOCATION);
                answers.push((status, headers, body));
            }
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{path} {authorization:?}: {answers:?}");
        }
    }
    for (path, authorization, expected) in [
        ("/v1/projects/docs/reports/2026-01", &reader, "\"Reader(ProjectSlug(\\\"docs\\\"))\""),
        ("/v1/projects/other/reports/2026-01", &admin, "\"Admin\""),
        ("/projects/open/2026-01", &wrong, "\"Anonymous\""),
        ("/projects/open/2026-01", &reader, "\"Reader(ProjectSlug(\\\"docs\\\"))\""),
        ("/", &reader, "\"Reader(ProjectSlug(\\\"docs\\\"))\""),
    ] {
        let (status, _, body) = ask(&bed, path, &[("authorization", authorization)]).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, expected), "{path}");
    }
    // None of that connected to ClickHouse.
    let asked = silent.accept();
    assert_eq!(asked.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_route_without_a_row_is_refused_to_all() {
    let silent = silent();
    let bed = bed(0.0, &silent);
    let admin = bearer(&bed.admin);
    for path in [
        "/forgotten/docs",
        "/forgotten/open",
        "/projects/docs/2026-01/more",
        "/v1/projects/docs",
        "/v1/projects/docs/reports/2026-01/colours",
        "/nowhere",
    ] {
        let (status, headers, body) = ask(&bed, path, &[("authorization", &admin)]).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(body.contains("/problems/no-such-route") && headers.contains_key(header::CONTENT_SECURITY_POLICY));
    }
}

#[tokio::test]
async fn before_the_rights_were_read_no_caller_has_any() {
    let silent = silent();
    let bed = bed(0.0, &silent);
    bed.access.snapshot.store(None);
    let admin = bearer(&bed.admin);
    for path in ["/projects/open/2026-01", "/v1/projects/open/reports/2026-01", "/badge/open.svg", "/"] {
        let (status, headers, _) = ask(&bed, path, &[("authorization", &admin)]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(headers.contains_key(header::RETRY_AFTER));
    }
    assert_eq!(ask(&bed, "/assets/report.css", &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn people_are_redirected_to_the_form_and_programs_get_401() {
    let silent = silent();
    let bed = bed(0.0, &silent);
    let (status, headers, _) = ask(&bed, "/projects/docs/2026-01?prefix=/en/", &[]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert_eq!(headers[header::LOCATION], "/sign-in?next=/projects/docs/2026-01%3Fprefix%3D/en/");
    let (status, headers, _) = ask(&bed, "/v1/projects/docs/reports/2026-01", &[]).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer realm=\"headcount\", Basic realm=\"headcount\"");
    // Browsers must not ask for a password in the middle of a page.
    let browser = [("sec-fetch-site", "same-origin")];
    let (_, headers, _) = ask(&bed, "/v1/projects/docs/reports/2026-01", &browser).await;
    assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer realm=\"headcount\"");
    // A client with a wrong token gets 401 on a page, too.
    assert_eq!(ask(&bed, "/projects/docs/2026-01", &[("authorization", "Bearer x")]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(send(&bed, "POST", "/projects/docs/2026-01", &[], "").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_ends_with_its_time_its_token_and_at_signing_out() {
    let silent = silent();
    let bed = bed(0.0, &silent);
    let report = "/v1/projects/docs/reports/2026-01";
    let cookie = signed_in(&bed, &bed.reader, &[]).await;
    assert!(
        cookie.starts_with("headcount_session=")
            && cookie.ends_with("; Path=/; Max-Age=100; HttpOnly; SameSite=Strict")
    );
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(ask(&bed, report, &[("cookie", pair)]).await.0, StatusCode::OK);
    assert_eq!(ask(&bed, "/v1/projects/other/reports/2026-01", &[("cookie", pair)]).await.0, StatusCode::NOT_FOUND);
    // Over TLS the cookie has another name, and only that one is accepted.
    assert_eq!(ask(&bed, report, &[("cookie", pair), ("x-tls", "1")]).await.0, StatusCode::UNAUTHORIZED);
    let tls = signed_in(&bed, &bed.reader, &[("x-tls", "1")]).await;
    assert!(tls.starts_with("__Host-headcount=") && tls.ends_with("; Secure"), "{tls}");
    let tls = tls.split(';').next().unwrap();
    let (status, headers, _) = ask(&bed, report, &[("cookie", tls), ("x-tls", "1")]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers.contains_key(header::STRICT_TRANSPORT_SECURITY));
    // A program's token takes precedence over any cookie.
    let both = [("cookie", pair), ("authorization", "Bearer x")];
    assert_eq!(ask(&bed, report, &both).await.0, StatusCode::UNAUTHORIZED);

    bed.now_ms.fetch_add(100_000, Ordering::Relaxed);
    assert_eq!(ask(&bed, report, &[("cookie", pair)]).await.0, StatusCode::UNAUTHORIZED);

    let cookie = signed_in(&bed, &bed.reader, &[]).await;
    let pair = cookie.split(';').next().unwrap();
    let (status, headers, _) = send(&bed, "POST", "/sign-out", &[("cookie", pair)], "").await;
    assert_eq!((status, &headers[header::LOCATION]), (StatusCode::SEE_OTHER, &"/sign-in".parse().unwrap()));
    assert!(headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(ask(&bed, report, &[("cookie", pair)]).await.0, StatusCode::UNAUTHORIZED);

    let cookie = signed_in(&bed, &bed.reader, &[]).await;
    let pair = cookie.split(';').next().unwrap();
    bed.access.snapshot.store(Some(Arc::new(Snapshot::of(vec![row(&bed.reader, "docs", 0, 1)], &[]))));
    assert_eq!(ask(&bed, report, &[("cookie", pair)]).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn rates_are_by_token_and_by_client_and_lower_for_failures() {
    let silent = silent();
    let bed = bed(2.0, &silent);
    let (reader, admin) = (bearer(&bed.reader), bearer(&bed.admin));
    let report = "/v1/projects/docs/reports/2026-01";
    for _ in 0..20 {
        assert_eq!(ask(&bed, report, &[("authorization", &reader)]).await.0, StatusCode::OK);
        assert_eq!(ask(&bed, "/projects/open/2026-01", &[]).await.0, StatusCode::OK);
    }
    let (status, headers, body) = ask(&bed, report, &[("authorization", &reader)]).await;
    assert_eq!((status, &headers[header::RETRY_AFTER]), (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap()));
    assert!(body.contains("/problems/too-many-requests"));
    assert_eq!(ask(&bed, "/projects/open/2026-01", &[]).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask(&bed, "/projects/open/2026-01", &[("x-other-client", "1")]).await.0, StatusCode::OK);
    assert_eq!(ask(&bed, report, &[("authorization", &admin)]).await.0, StatusCode::OK);

    // Ten failed attempts, then one every ten seconds; the right token is accepted all the same.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for _ in 0..10 {
        assert_eq!(send(&bed, "POST", "/sign-in", &form, "token=hc_guess").await.0, StatusCode::FORBIDDEN);
    }
    let (status, headers, _) = send(&bed, "POST", "/sign-in", &form, "token=hc_guess").await;
    assert_eq!((status, &headers[header::RETRY_AFTER]), (StatusCode::TOO_MANY_REQUESTS, &"10".parse().unwrap()));
    assert_eq!(ask(&bed, report, &[("authorization", "Bearer x")]).await.0, StatusCode::TOO_MANY_REQUESTS);
    signed_in(&bed, &bed.admin, &[]).await;
}

#[tokio::test]
async fn a_form_that_is_too_large_or_of_another_site_is_refused() {
    let silent = silent();
    let bed = bed(0.0, &silent);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let right = format!("token={}&next=//evil.example", *bed.reader.text());
    let crossing = [form, ("sec-fetch-site", "cross-site")];
    let (status, headers, _) = send(&bed, "POST", "/sign-in", &crossing, &right).await;
    assert_eq!((status, headers.get(header::SET_COOKIE)), (StatusCode::FORBIDDEN, None));
    assert_eq!(send(&bed, "POST", "/sign-out", &[("sec-fetch-site", "same-site")], "").await.0, StatusCode::FORBIDDEN);
    let (status, headers, _) = send(&bed, "POST", "/sign-in", &[form], &right).await;
    assert_eq!((status, &headers[header::LOCATION]), (StatusCode::SEE_OTHER, &"/".parse().unwrap()));
    let large = format!("token={}", "x".repeat(20_000));
    let (status, headers, body) = send(&bed, "POST", "/sign-in", &[form], &large).await;
    assert_eq!((status, headers.get(header::SET_COOKIE)), (StatusCode::BAD_REQUEST, None));
    assert!(!body.contains("xxxx"), "nothing of what was sent comes back");
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let silent = silent();
    let bed = bed(0.0, &silent);
    let reader = bearer(&bed.reader);
    for path in ["/", "/sign-in", "/nowhere", "/projects/docs/2026-01", "/v1/projects/x/reports/x", "/badge/x.svg"] {
        for headers in [&[][..], &[("authorization", reader.as_str())]] {
            let (_, headers, _) = ask(&bed, path, headers).await;
            let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
            assert!(text("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
            assert_eq!(text("x-content-type-options"), "nosniff");
            assert!(text("permissions-policy").contains("camera=()"));
            assert!(
                matches!(text("cache-control"), "private, no-cache" | "no-store"),
                "{path}: {}",
                text("cache-control")
            );
            let referrer = if path == "/sign-in" { "same-origin" } else { "no-referrer" };
            assert_eq!(text("referrer-policy"), referrer, "{path}");
            assert_eq!(
                text("cross-origin-resource-policy"),
                if path.starts_with("/badge") { "cross-origin" } else { "same-origin" }
            );
            assert_eq!(text("strict-transport-security"), "");
        }
    }
}
