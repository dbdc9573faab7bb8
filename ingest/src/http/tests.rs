use super::*;
use crate::Clock;
use crate::keys::{KeyRing, VisitorPeriod};
use crate::projects::{NewNames, ProjectSnapshot, Projects};
use chrono::{DateTime, Utc};
use http::Request as HttpRequest;
use proptest::prelude::*;
use schemas::ProjectSlug;
use schemas::proto::Fact;
use schemas::record::{PageViewRef, Record};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;
use tower::ServiceExt;

mod dialects;
mod rules;

const PAGE: &str = "https://docs.example/a";

#[derive(Default)]
struct Records(Mutex<Vec<Vec<u8>>>);

impl Sink for Arc<Records> {
    async fn append(&self, _: u64, record: Vec<u8>) -> Result<(), SinkError> {
        self.0.lock().unwrap().push(record);
        Ok(())
    }

    fn ready(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

struct Endpoint {
    records: Arc<Records>,
    ingest: Arc<Ingest<Arc<Records>>>,
    runtime: tokio::runtime::Runtime,
    _home: tempfile::TempDir,
}

impl Endpoint {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let now: DateTime<Utc> = "2026-03-14T10:00:00Z".parse().unwrap();
        let clock: Clock = Arc::new(move || now);
        let keys = KeyRing::open(&home.path().join("visitor.key"), VisitorPeriod::Month, now).unwrap();
        let projects = Projects::new(Vec::new(), NewNames { per_hour: 0, per_network: 0 });
        let docs = ("docs".parse().unwrap(), vec!["docs.example".parse().unwrap()]);
        projects.replace(ProjectSnapshot::new(&BTreeMap::from([docs])));
        let records = Arc::new(Records::default());
        let unlimited = schemas::rate_limit::Rate { per_second: 1e9, burst: 1e9 };
        let config = IngestConfig { client_rate: unlimited, project_rate: unlimited, ..IngestConfig::default() };
        let ingest = Arc::new(Ingest::new(config, clock, keys, projects, Arc::clone(&records)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Endpoint { records, ingest, runtime, _home: home }
    }

    /// The response to one request from a fixed peer.
    fn answer(&self, request: http::request::Builder, body: Vec<u8>) -> Response {
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4711))));
        self.runtime.block_on(routes(Arc::clone(&self.ingest)).oneshot(request)).unwrap()
    }

    /// Its status.
    fn send(&self, request: http::request::Builder, body: Vec<u8>) -> u16 {
        self.answer(request, body).status().as_u16()
    }

    /// The refused and uncounted beacons among the records, and how many views.
    fn tallies(&self) -> (Vec<(String, RejectionReason, u64)>, usize) {
        let (mut tallies, mut views) = (Vec::new(), 0);
        for bytes in self.records() {
            match record::decode(&bytes).unwrap() {
                Record::PageView(_) => views += 1,
                Record::Rejections(tally) => tallies.push((tally.project.to_owned(), tally.reason, tally.count)),
                other => panic!("{other:?}"),
            }
        }
        (tallies, views)
    }

    fn post(&self, body: &Value) -> u16 {
        self.send(HttpRequest::post("/v1/pageview").header("user-agent", "Firefox"), body.to_string().into_bytes())
    }

    fn pixel(&self, query: &str) -> u16 {
        self.send(HttpRequest::get(format!("/v1/pageview.gif?{query}")).header("user-agent", "Firefox"), Vec::new())
    }

    /// The records since the last call, after the tallies were sent. Each must decode.
    fn records(&self) -> Vec<Vec<u8>> {
        self.runtime.block_on(self.ingest.send_tallies());
        let records = std::mem::take(&mut *self.records.0.lock().unwrap());
        for bytes in &records {
            record::decode(bytes).expect("what the endpoint accepts decodes");
        }
        records
    }

    /// The dropped facts among the records, and the only page view, as `check` sees it.
    fn view(&self, check: impl Fn(PageViewRef<'_>)) -> Vec<(Fact, Cause, u64)> {
        let (mut views, mut dropped) = (0, Vec::new());
        for bytes in self.records() {
            match record::decode(&bytes).unwrap() {
                Record::PageView(view) => {
                    views += 1;
                    check(view);
                }
                Record::DroppedFacts(tally) => dropped.push((tally.fact, tally.cause, tally.count)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(views, 1);
        dropped
    }
}

fn percent(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[test]
fn each_dropped_fact_is_tallied_for_the_project_and_the_view_is_counted() {
    let endpoint = Endpoint::new();
    let canary = "canary7d1f";
    let long = canary.repeat(26);
    for (field, value, fact) in [
        ("version", long.as_str(), Fact::Version),
        ("version", "canary7d1f\n2", Fact::Version),
        ("language", long.as_str(), Fact::Language),
        ("referrer", canary, Fact::Referrer),
        ("referrer", "https://canary7d1f b/", Fact::Referrer),
        ("status", canary, Fact::Status),
        ("id", canary, Fact::Id),
    ] {
        let posted = |endpoint: &Endpoint| endpoint.post(&json!({"url": PAGE, field: value}));
        let pixel = |endpoint: &Endpoint| endpoint.pixel(&format!("url={}&{field}={}", percent(PAGE), percent(value)));
        for (status, expected) in [(posted(&endpoint), 202), (pixel(&endpoint), 200)] {
            assert_eq!(status, expected, "{field} {value:?}");
        }
        let records = endpoint.records();
        let views = records.iter().filter(|bytes| matches!(record::decode(bytes), Ok(Record::PageView(_))));
        assert_eq!((views.count(), records.len()), (2, 3), "two views and a tally: {field} {value:?}");
        let tally = records.iter().find_map(|bytes| match record::decode(bytes) {
            Ok(Record::DroppedFacts(tally)) => Some((tally.project, tally.fact, tally.cause, tally.count)),
            _ => None,
        });
        assert_eq!(tally, Some(("docs", fact, Cause::Unusable, 2)), "{field} {value:?}");
        for bytes in &records {
            assert!(
                !bytes.windows(canary.len()).any(|part| part == canary.as_bytes()),
                "{field}: no record repeats it"
            );
        }
    }
}

#[test]
fn a_query_that_is_not_utf8_loses_the_fact_and_not_the_view() {
    let endpoint = Endpoint::new();
    let url = percent(PAGE);
    for (query, facts) in [
        (format!("url={url}&version=caf%e9"), vec![(Fact::Version, Cause::Unusable, 1)]),
        (format!("%ff=1&url={url}&version=+1+"), vec![]),
    ] {
        assert_eq!(endpoint.pixel(&query), 200, "{query}");
        assert_eq!(endpoint.view(|view| assert_eq!(view.path, "/a")), facts, "{query}");
    }
    assert_eq!(endpoint.pixel("project=docs&url=https://docs.example/%ff"), 400);
    let refused = endpoint.records();
    match record::decode(&refused[0]).unwrap() {
        Record::Rejections(tally) => assert_eq!((tally.project, tally.reason), ("docs", RejectionReason::NotUtf8)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn beacons_of_a_proxy_that_is_not_trusted_are_counted() {
    let endpoint = Endpoint::new();
    let send = |name: &str| {
        let request = HttpRequest::post("/v1/pageview").header(name, "203.0.113.1");
        endpoint.send(request, json!({"url": PAGE}).to_string().into_bytes())
    };
    assert_eq!((send("x-forwarded-for"), send("x-forwarded-for"), send("x-other")), (202, 202, 202));
    assert_eq!(endpoint.ingest.untrusted_forwarded_beacons(), 2);
    assert_eq!(endpoint.ingest.details()["untrusted_forwarded_beacons"], 2);
}

/// JSON values of every type, with texts that are long, odd, or nearly right.
fn odd_value() -> impl Strategy<Value = Value> {
    let piece = prop_oneof![
        any::<char>().prop_map(String::from),
        "[a-z0-9.:/@%_-]{0,12}",
        Just("https://".to_owned()),
        Just("\u{e01}".to_owned()),
        Just("%FF%00".to_owned()),
        Just("a.".to_owned()),
    ];
    let text = (proptest::collection::vec(piece, 0..8), 1usize..60).prop_map(|(parts, n)| parts.concat().repeat(n));
    prop_oneof![
        6 => text.clone().prop_map(Value::from),
        3 => text.prop_map(|rest| format!("https://{rest}").into()),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => (100u16..600).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(json!([1, {"a": null}])),
        1 => Just(Value::Null),
    ]
}

fn odd_fields() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let name = prop_oneof!["referrer", "version", "language", "status", "id", "title"];
    proptest::collection::btree_map(name, odd_value(), 0..6)
}

/// The query that a pixel would send for the same fields.
fn query_of(fields: &BTreeMap<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    fields.iter().map(|(name, value)| format!("{name}={}", percent(&text(value)))).collect::<Vec<_>>().join("&")
}

#[test]
fn whatever_is_accepted_decodes_and_no_optional_fact_refuses() {
    let endpoint = Endpoint::new();
    let strategy = (odd_fields(), odd_value(), any::<bool>(), proptest::collection::vec(32u8..=255, 0..700));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(2000));
    let outcome = runner.run(&strategy, |(mut fields, tail, good_page, agent)| {
        let tail = tail.as_str().unwrap_or("").to_owned();
        // Either a good page with odd facts beside it, or an odd page.
        let url = if good_page { format!("{PAGE}/{}", percent(&tail)) } else { format!("https://docs.example/{tail}") };
        fields.insert("url".to_owned(), url.into());
        let body = serde_json::to_vec(&fields).unwrap();
        let agent: Vec<u8> = agent.into_iter().filter(|byte| *byte != 127).collect();
        let agent = HeaderValue::from_bytes(&agent).unwrap();
        let fits = body.len() <= 16 << 10;
        let posted = endpoint.send(HttpRequest::post("/v1/pageview").header("user-agent", &agent), body);
        let query = query_of(&fields);
        // The longest URI of the `http` crate.
        let pixel = (query.len() < 60_000).then(|| {
            let uri = format!("/v1/pageview.gif?{query}");
            endpoint.send(HttpRequest::get(uri).header("user-agent", &agent), Vec::new())
        });
        if good_page && fits {
            prop_assert_eq!((posted, pixel.unwrap_or(200)), (202, 200));
        }
        prop_assert!(matches!(posted, 202 | 400 | 404 | 413), "{}", posted);
        endpoint.records();
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_prefetch_counts_nothing_and_is_answered_like_a_view() {
    let endpoint = Endpoint::new();
    let body = || json!({"url": PAGE}).to_string().into_bytes();
    let pixel = format!("/v1/pageview.gif?url={}", percent(PAGE));
    for (name, value, counts) in [
        ("sec-purpose", "prefetch", false),
        ("sec-purpose", "prefetch;prerender", false),
        ("sec-purpose", "prefetch; anonymous-client-ip", false),
        ("purpose", "Prefetch", false),
        ("x-moz", "prefetch", false),
        ("x-purpose", "preview", false),
        ("sec-purpose", "prerender", false),
        ("sec-purpose", "navigate", true),
        ("purpose", "", true),
        ("x-other", "prefetch", true),
    ] {
        let posted = endpoint.send(HttpRequest::post("/v1/pageview").header(name, value), body());
        let image = endpoint.send(HttpRequest::get(&pixel).header(name, value), Vec::new());
        assert_eq!((posted, image), (202, 200), "{name}: {value}");
        let tally = ("docs".to_owned(), RejectionReason::Prefetch, 2);
        let expected = if counts { (vec![], 2) } else { (vec![tally], 0) };
        assert_eq!(endpoint.tallies(), expected, "{name}: {value}");
    }
    // A prefetch must not reveal whether a project exists: unregistered hosts are refused as usual.
    let foreign = json!({"url": "https://other.example/"}).to_string().into_bytes();
    assert_eq!(endpoint.send(HttpRequest::post("/v1/pageview").header("purpose", "prefetch"), foreign), 404);
}

#[test]
fn a_head_request_counts_nothing_and_has_the_length_of_get() {
    let endpoint = Endpoint::new();
    let pixel = format!("/v1/pageview.gif?url={}", percent(PAGE));
    for (path, length) in [(pixel.as_str(), PIXEL.len()), ("/beacon.js", script::BEACON_JS.len())] {
        let head = endpoint.answer(HttpRequest::head(path), Vec::new());
        assert_eq!(head.status(), 200, "{path}");
        assert_eq!(head.headers()[header::CONTENT_LENGTH], length.to_string(), "{path}");
    }
    assert_eq!(endpoint.tallies(), (vec![("docs".to_owned(), RejectionReason::NotAView, 1)], 0));
}

#[test]
fn a_pixel_without_a_page_is_answered_with_the_image_and_tallied() {
    let endpoint = Endpoint::new();
    let answer = endpoint.answer(HttpRequest::get("/v1/pageview.gif?project=docs"), Vec::new());
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[header::CONTENT_TYPE]),
        (200, &"image/gif".parse().unwrap())
    );
    let body = endpoint.runtime.block_on(axum::body::to_bytes(answer.into_body(), 100)).unwrap();
    assert_eq!(&body[..], PIXEL);
    assert_eq!(endpoint.tallies(), (vec![("docs".to_owned(), RejectionReason::MissingField, 1)], 0));
}

#[test]
fn refusals_name_the_paths_that_are_active() {
    let endpoint = Endpoint::new();
    let paths = &endpoint.ingest.config.paths;
    let (beacon, pixel) = (paths.beacon().to_owned(), paths.pixel());
    for (request, status, named) in [
        (HttpRequest::get("/v1/pageview"), 405, &pixel),
        (HttpRequest::post("/v1/pageview.gif"), 405, &beacon),
        (HttpRequest::get("/elsewhere"), 404, &beacon),
    ] {
        let answer = endpoint.answer(request, Vec::new());
        assert_eq!(answer.status(), status);
        let body = endpoint.runtime.block_on(axum::body::to_bytes(answer.into_body(), 1_000)).unwrap();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(named.as_str()) && !body.contains("pageview"), "{body}");
    }
    assert_eq!(PIXEL.len(), 42);
}

#[test]
fn a_byte_order_mark_before_the_json_is_skipped() {
    let endpoint = Endpoint::new();
    let body = format!("\u{feff}{}", json!({"url": PAGE}));
    assert_eq!(endpoint.send(HttpRequest::post("/v1/pageview"), body.into_bytes()), 202);
    assert_eq!(endpoint.send(HttpRequest::post("/v1/pageview"), "\u{feff}\u{feff}{}".into()), 400);
    assert_eq!(endpoint.tallies().1, 1);
}

#[test]
fn a_page_may_send_json_with_credentials() {
    let endpoint = Endpoint::new();
    let origin = "https://docs.example";
    let asked = HttpRequest::builder().method("OPTIONS").uri("/v1/pageview").header("origin", origin);
    let asked = asked.header("access-control-request-method", "POST");
    let preflight = endpoint.answer(asked.header("access-control-request-headers", "content-type"), Vec::new());
    let sent = HttpRequest::post("/v1/pageview").header("origin", origin).header("content-type", "application/json");
    let posted = endpoint.answer(sent, json!({"url": PAGE}).to_string().into_bytes());
    assert_eq!((preflight.status().as_u16(), posted.status().as_u16()), (204, 202));
    assert_eq!(preflight.headers()["access-control-allow-headers"], "content-type");
    for answer in [preflight, posted] {
        assert_eq!(answer.headers()["access-control-allow-origin"], origin);
        assert_eq!(answer.headers()["access-control-allow-credentials"], "true");
        assert_eq!(answer.headers()["vary"], "Origin");
    }
}
