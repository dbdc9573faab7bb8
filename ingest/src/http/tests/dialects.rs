//! The recorded traffic of other counters' scripts, request by request: what is counted and what is answered.

use super::*;
use crate::aliases::Alias;
use schemas::proto::Source;

const WIRE: [(&str, Source); 7] = [
    (include_str!("../../../../tests/stories/trackers/plausible.json"), Source::Plausible),
    (include_str!("../../../../tests/stories/trackers/plausible-script.json"), Source::Plausible),
    (include_str!("../../../../tests/stories/trackers/plausible-tracker.json"), Source::Plausible),
    (include_str!("../../../../tests/stories/trackers/umami.json"), Source::Umami),
    (include_str!("../../../../tests/stories/trackers/umami-2.json"), Source::Umami),
    (include_str!("../../../../tests/stories/trackers/goatcounter.json"), Source::Goatcounter),
    (include_str!("../../../../tests/stories/trackers/readthedocs.json"), Source::Readthedocs),
];

const HOSTS: [&str; 7] = [
    "docs-plausible.example",
    "docs-plausible-script.example",
    "docs-plausible-tracker.example",
    "docs-umami.example",
    "docs-umami-2.example",
    "docs-goatcounter.example",
    "docs-readthedocs.example",
];

/// The endpoint with one project whose pages the recorded requests name.
fn endpoint() -> Endpoint {
    let endpoint = Endpoint::new();
    let hosts = HOSTS.iter().map(|host| host.parse().unwrap()).collect();
    endpoint.ingest.projects.replace(ProjectSnapshot::new(&BTreeMap::from([("docs".parse().unwrap(), hosts)])));
    endpoint
}

fn request(sent: &Value, agent: &str) -> (http::request::Builder, Vec<u8>) {
    let text = |name: &str| sent[name].as_str().unwrap();
    let mut request = HttpRequest::builder().method(text("method")).uri(text("target")).header("user-agent", agent);
    for (name, value) in sent["headers"].as_object().unwrap() {
        request = request.header(name, value.as_str().unwrap());
    }
    (request, text("body").as_bytes().to_vec())
}

fn body_of(endpoint: &Endpoint, response: Response) -> Vec<u8> {
    endpoint.runtime.block_on(response.into_body().collect()).unwrap().to_bytes().to_vec()
}

/// The outcome of one request.
#[derive(Clone)]
struct Seen {
    status: u16,
    headers: http::HeaderMap,
    body: Vec<u8>,
    people: u64,
    robots: u64,
    missing: u64,
    sources: Vec<Source>,
}

fn seen(endpoint: &Endpoint, exchange: &Value) -> Seen {
    let agent = if exchange["step"] == "robot" {
        "Googlebot/2.1"
    } else {
        "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"
    };
    let (request, body) = request(&exchange["request"], agent);
    let response = endpoint.answer(request, body);
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = body_of(endpoint, response);
    let mut seen = Seen { status, headers, body, people: 0, robots: 0, missing: 0, sources: Vec::new() };
    for bytes in endpoint.records() {
        match record::decode(&bytes).unwrap() {
            Record::PageView(view) => {
                *(if view.bot_class == BotClass::Person { &mut seen.people } else { &mut seen.robots }) += 1;
                seen.sources.push(view.source);
            }
            Record::ReportedMissing(tally) if tally.path == "/missing/page" => seen.missing += tally.count,
            Record::Rejections(tally) if tally.reason == RejectionReason::NotAView => {}
            other => panic!("{other:?}"),
        }
    }
    seen
}

/// The first difference from what the script expects, or from what its reader did.
fn difference(exchange: &Value, seen: &Seen) -> Option<&'static str> {
    let answer = &exchange["answer"];
    if answer["status"] != seen.status {
        return Some("status");
    }
    for (name, value) in answer["headers"].as_object().unwrap() {
        // Instead of `*`, the page's origin is fine, and allows requests with credentials.
        let origin = exchange["request"]["headers"].get("origin").unwrap_or(value);
        let expected = if name == "access-control-allow-origin" { origin } else { value };
        if seen.headers.get(name).and_then(|value| value.to_str().ok()) != expected.as_str() {
            return Some("header");
        }
    }
    let is_body = match answer["body"].as_str().unwrap() {
        gif if gif.starts_with("base64:") => seen.body.starts_with(b"GIF89a") && seen.body.len() == 43,
        text => seen.body == text.as_bytes(),
    };
    let views = match exchange["counts"].as_str().unwrap() {
        "a view" => (1, 0),
        "a robot's view" => (0, 1),
        _ => (0, 0),
    };
    let missing = u64::from(exchange["as"] == "event 404");
    match ((seen.people, seen.robots) == views, seen.missing == missing) {
        _ if !is_body => Some("body"),
        (false, _) => Some("views"),
        (true, false) => Some("missing pages"),
        (true, true) => None,
    }
}

/// Each recorded request with its script.
fn exchanges() -> Vec<(Value, Source)> {
    let of = |(wire, source): (&str, Source)| {
        let wire: Value = serde_json::from_str(wire).unwrap();
        wire["wire"].as_array().unwrap().iter().map(|exchange| (exchange.clone(), source)).collect::<Vec<_>>()
    };
    WIRE.into_iter().flat_map(of).collect()
}

#[test]
fn recorded_traffic_is_counted_and_answered_as_its_scripts_expect() {
    let endpoint = endpoint();
    for (exchange, source) in exchanges() {
        let seen = seen(&endpoint, &exchange);
        assert_eq!(difference(&exchange, &seen), None, "{exchange}");
        assert!(seen.sources.iter().all(|from| *from == source), "{exchange}");
    }
}

/// The comparison above must be able to fail.
#[test]
fn an_endpoint_that_counts_or_answers_otherwise_is_caught() {
    let endpoint = endpoint();
    let caught = |which: fn(&Value) -> bool, change: fn(&mut Seen)| {
        let found: Vec<_> = exchanges().into_iter().filter(|(exchange, _)| which(exchange)).collect();
        assert!(!found.is_empty());
        let differences = found.iter().map(|(exchange, _)| {
            let mut seen = seen(&endpoint, exchange);
            change(&mut seen);
            difference(exchange, &seen)
        });
        differences.collect::<std::collections::BTreeSet<_>>()
    };
    let is_event = |exchange: &Value| exchange["as"].as_str().unwrap().starts_with("event");
    assert_eq!(caught(is_event, |seen| seen.people += 1), [Some("views")].into());
    let is_engagement = |exchange: &Value| exchange["as"] == "event engagement";
    assert_eq!(caught(is_engagement, |seen| seen.people += 1), [Some("views")].into());
    let is_preflight = |exchange: &Value| exchange["as"] == "preflight";
    let plain = |seen: &mut Seen| {
        seen.headers.insert("access-control-allow-headers", HeaderValue::from_static("content-type"));
    };
    assert_eq!(caught(is_preflight, plain), [Some("header")].into());
    let is_gif = |exchange: &Value| exchange["answer"]["headers"]["content-type"] == "image/gif";
    assert_eq!(caught(is_gif, |seen| seen.status = 204), [Some("status")].into());
}

/// A request of each script for a page on `host`.
fn views_on(host: &str) -> [(http::request::Builder, Vec<u8>); 4] {
    let agent = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0";
    let origin = format!("https://{host}");
    let post = |path: &str| HttpRequest::post(path).header("user-agent", agent).header("origin", &origin);
    let umami = json!({"type": "event", "payload": {"website": "6f9619ff-8b86-4011-b42d-00cf4fc964ff", "url": format!("{origin}/x")}});
    let plausible = json!({"n": "pageview", "u": format!("{origin}/x"), "d": "docs"});
    let uri = percent(&format!("{origin}/x"));
    let read_the_docs = format!("/_/api/v2/analytics/?project=docs&version=null&absolute_uri={uri}&status=undefined");
    [
        (post("/api/event"), plausible.to_string().into_bytes()),
        (post("/api/send"), umami.to_string().into_bytes()),
        (post("/count?p=/x"), Vec::new()),
        (HttpRequest::get(read_the_docs).header("user-agent", agent), Vec::new()),
    ]
}

#[test]
fn an_unknown_project_and_a_foreign_host_have_one_answer_in_each_dialect() {
    let endpoint = endpoint();
    let aliases = |source: Source, name: &str| Alias::new(source, name).unwrap();
    let hosts: Vec<schemas::Host> = vec!["docs.example".parse().unwrap()];
    let docs: ProjectSlug = "docs".parse().unwrap();
    let with_aliases = [
        aliases(Source::Plausible, "docs"),
        aliases(Source::Umami, "6f9619ff-8b86-4011-b42d-00cf4fc964ff"),
        aliases(Source::Goatcounter, "docs"),
        aliases(Source::Readthedocs, "docs"),
    ];
    let answers = |snapshot: ProjectSnapshot, host: &str| {
        endpoint.ingest.projects.replace(snapshot);
        let answers = views_on(host).map(|(request, body)| {
            let response = endpoint.answer(request, body);
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            (status, headers, body_of(&endpoint, response))
        });
        (answers, endpoint.tallies())
    };
    let registry = BTreeMap::from([(docs.clone(), hosts.clone())]);
    let named = ProjectSnapshot::new(&registry).with_aliases([(docs, hosts, with_aliases.to_vec())]);
    let (foreign, (tallied, views)) = answers(named.clone(), "elsewhere.example");
    assert_eq!(views, 0);
    assert!(tallied.contains(&("docs".to_owned(), RejectionReason::ForeignHost, 3)), "{tallied:?}");
    let (unknown, (_, views)) = answers(ProjectSnapshot::default(), "elsewhere.example");
    assert_eq!(views, 0);
    assert_eq!(foreign, unknown);
    assert_eq!(foreign.map(|(status, ..)| status), [202, 400, 400, 404]);
    let (counted, (_, views)) = answers(named, "docs.example");
    assert_eq!((counted.map(|(status, ..)| status), views), ([202, 200, 200, 204], 4));
}

#[test]
fn a_code_in_the_path_names_the_project_of_a_request_without_a_host() {
    let endpoint = endpoint();
    let docs: ProjectSlug = "docs".parse().unwrap();
    let hosts: Vec<schemas::Host> = vec!["docs.example".parse().unwrap()];
    let named = ProjectSnapshot::new(&BTreeMap::from([(docs.clone(), hosts.clone())]));
    let named = named.with_aliases([(docs, hosts, vec![Alias::new(Source::Goatcounter, "my-code").unwrap()])]);
    endpoint.ingest.projects.replace(named);
    let get = |path: &str| endpoint.send(HttpRequest::get(path).header("user-agent", "Firefox"), Vec::new());
    assert_eq!(get("/count/my-code?p=/a"), 200);
    assert_eq!(endpoint.view(|view| assert_eq!((view.project, view.path), ("docs", "/a"))), []);
    assert_eq!([get("/count/other?p=/a"), get("/count?p=/a")], [400, 400]);
}

#[test]
fn a_driven_browser_is_a_robot_and_arrivals_are_as_sure_as_the_script() {
    let endpoint = endpoint();
    let driven = HttpRequest::get("/count?p=/a&b=151")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0");
    assert_eq!(endpoint.send(driven.header("origin", "https://docs-goatcounter.example"), Vec::new()), 200);
    let _ = endpoint.view(|view| assert_eq!((view.bot, view.bot_class), crate::agents::AUTOMATED_BROWSER));
    for (referrer, arrival) in
        [(json!(null), false), (json!("https://docs-umami.example/"), false), (json!("https://s.example/"), true)]
    {
        let body = json!({"n": "pageview", "u": "https://docs-plausible.example/a", "r": referrer}).to_string();
        let request = HttpRequest::post("/api/event")
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0");
        assert_eq!(endpoint.send(request, body.into_bytes()), 202);
        let _ = endpoint.view(|view| assert_eq!(view.arrival, arrival, "{referrer}"));
    }
}

#[test]
fn an_alias_of_a_project_without_the_pages_host_is_as_no_alias() {
    let endpoint = Endpoint::new();
    let projects = [("docs", "docs.example"), ("secret", "secret.example")];
    let hosts = projects.map(|(slug, host)| (slug.parse().unwrap(), vec![host.parse().unwrap()]));
    let snapshot = ProjectSnapshot::new(&BTreeMap::from(hosts));
    let names = ["plausible:docs", "umami:6f9619ff-8b86-4011-b42d-00cf4fc964ff", "readthedocs:docs"];
    let aliases = names.map(|name| name.parse().unwrap()).to_vec();
    let secret = ("secret".parse().unwrap(), vec!["secret.example".parse().unwrap()], aliases);
    let answers = |snapshot: ProjectSnapshot| {
        endpoint.ingest.projects.replace(snapshot);
        views_on("docs.example").map(|(request, body)| {
            let response = endpoint.answer(request, body);
            (response.status(), response.headers().clone(), body_of(&endpoint, response), endpoint.records().len())
        })
    };
    let without = answers(snapshot.clone());
    assert!(without.iter().all(|(.., records)| *records == 1), "the host decides: {without:?}");
    assert_eq!(answers(snapshot.with_aliases([secret])), without);
}

#[test]
fn a_robot_reports_no_missing_page() {
    let endpoint = endpoint();
    let report =
        json!({"n": "404", "u": "https://docs-plausible.example/gone", "d": "docs-plausible.example"}).to_string();
    let robot = HttpRequest::post("/api/event").header("user-agent", "Googlebot/2.1");
    let headless = HttpRequest::post("/api/event")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")
        .header("sec-ch-ua", "\"HeadlessChrome\";v=\"142\"");
    for request in [robot, headless] {
        assert_eq!(endpoint.send(request, report.clone().into_bytes()), 202);
        let is_report = |bytes: &Vec<u8>| matches!(record::decode(bytes), Ok(Record::ReportedMissing(_)));
        assert!(!endpoint.records().iter().any(is_report));
    }
}

#[test]
fn newer_scripts_of_umami_pass_their_preflight() {
    let endpoint = endpoint();
    let request = HttpRequest::options("/api/send")
        .header("origin", "https://docs.example")
        .header("access-control-request-headers", "content-type,x-umami-hostname,x-umami-website-id");
    let response = endpoint.answer(request, Vec::new());
    let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap();
    assert_eq!(allowed, "content-type, x-umami-cache, x-umami-website-id, x-umami-hostname");
}

#[test]
fn a_preflight_of_each_origin_allows_the_headers_of_umami() {
    let endpoint = endpoint();
    for (path, headers) in [("/api/send", "content-type, x-umami-cache"), ("/api/event", "content-type")] {
        let request = HttpRequest::options(path).header("origin", "https://docs.example");
        let response = endpoint.answer(request.header("access-control-request-method", "POST"), Vec::new());
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!((response.status().as_u16(), header("access-control-allow-headers")), (204, headers.to_owned()));
        assert_eq!(header("access-control-allow-credentials"), "true");
        assert_eq!(
            (header("access-control-allow-origin"), header("access-control-max-age")),
            ("https://docs.example".to_owned(), "86400".to_owned())
        );
    }
    assert_eq!(endpoint.send(HttpRequest::get("/api/event"), Vec::new()), 405);
}
