//! The recorded traffic of other counters' scripts, replayed: the report has the pages that were opened, their referrers, missing pages
//! and versions, and each endpoint answers as its script expects.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";
/// When the month is due to be closed.
const AFTER_CLOSE: &str = "2026-04-04T00:00:30Z";
const PERSON: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
const ROBOT: &str = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";

/// How often each request is sent: as often as a breakdown needs to show it.
const ROUNDS: u64 = 3;

/// Projects, their hosts and the recorded traffic.
const WIRE: [(&str, &str, &str); 7] = [
    ("plausible", "docs-plausible.example", include_str!("../trackers/plausible.json")),
    ("plausible-script", "docs-plausible-script.example", include_str!("../trackers/plausible-script.json")),
    ("plausible-tracker", "docs-plausible-tracker.example", include_str!("../trackers/plausible-tracker.json")),
    ("umami", "docs-umami.example", include_str!("../trackers/umami.json")),
    ("umami-2", "docs-umami-2.example", include_str!("../trackers/umami-2.json")),
    ("goatcounter", "docs-goatcounter.example", include_str!("../trackers/goatcounter.json")),
    ("readthedocs", "docs-readthedocs.example", include_str!("../trackers/readthedocs.json")),
];

/// The pages that the browser opened in each step, in order.
fn opened_in(step: &str) -> &'static [&'static str] {
    match step {
        "arrivals" => &["/start"],
        "install" => &["/guide/install.html"],
        "umlaut" => &["/bücher/"],
        "spa" => &["/spa/", "/spa/one", "/spa/two"],
        "linked" => &["/linked", "/linked/within"],
        "missing" => &["/missing/page"],
        "driven" => &["/driven"],
        _ => &[],
    }
}

/// Sends one recorded request and checks its response.
async fn replay(connection: &mut Connection, exchange: &Value) -> Result<()> {
    let (request, expected) = (&exchange["request"], &exchange["answer"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let agent = if exchange["step"] == "robot" { ROBOT } else { PERSON };
    let mut headers = vec![("user-agent", agent)];
    let recorded = request["headers"].as_object().context("headers")?;
    let named = recorded.iter().filter(|(name, _)| !matches!(name.as_str(), "host" | "content-length"));
    headers.extend(named.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))));
    let (method, target, body) = (text(&request["method"]), text(&request["target"]), text(&request["body"]));
    let answer = connection.send(&method, &target, &headers, body).await?;
    let body = String::from_utf8_lossy(&answer.body);
    ensure!(expected["status"] == answer.status.as_u16(), "{target}: {} {body}", answer.status);
    let origin = answer.headers.get("access-control-allow-origin").context("a page may read no answer")?;
    ensure!(origin == "*" || recorded.get("origin").is_some_and(|page| page == origin.to_str().unwrap_or("")));
    for name in ["content-type", "access-control-allow-headers", "access-control-max-age"] {
        let found = answer.headers.get(name).and_then(|value| value.to_str().ok());
        ensure!(
            expected["headers"][name].as_str().is_none_or(|value| found == Some(value)),
            "{target}: {name} {found:?}"
        );
    }
    match text(&expected["body"]) {
        gif if gif.starts_with("base64:") => ensure!(answer.body.len() == 43, "{target}: {} bytes", answer.body.len()),
        expected => ensure!(body == expected, "{target}: {body}"),
    }
    Ok(())
}

/// Views by path and status that the recorded browser caused, by the steps it took.
fn pages_opened(wire: &[Value], project: &str) -> BTreeMap<(String, u64), u64> {
    let mut views_of_step = BTreeMap::<&str, usize>::new();
    let mut pages = BTreeMap::new();
    for exchange in wire.iter().filter(|exchange| exchange["counts"] == "a view") {
        let step = exchange["step"].as_str().unwrap_or_default();
        let nth = views_of_step.entry(step).or_default();
        let status = if step == "missing" && project == "readthedocs" { 404 } else { 200 };
        if let Some(path) = opened_in(step).get(*nth) {
            *pages.entry(((*path).to_owned(), status)).or_default() += ROUNDS;
        }
        *nth += 1;
    }
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_other_counters_count_the_pages_that_were_opened() -> Result<()> {
    let arguments = [
        "--clock-start",
        CLOCK,
        "--small-cell-floor",
        "3",
        "--more-script-paths",
        "/js/script.js,/script.js,/count.js",
    ];
    let projects: Vec<_> = WIRE.iter().map(|(slug, host, _)| (*slug, *host)).collect();
    let service = Service::started(&arguments, &projects).await?;
    let mut connection = Connection::open(service.address()).await?;
    for (slug, _, wire) in WIRE {
        let wire: Value = serde_json::from_str(wire)?;
        let wire = wire["wire"].as_array().context("wire")?;
        for _ in 0..ROUNDS {
            for exchange in wire {
                replay(&mut connection, exchange).await.with_context(|| format!("{slug}: {}", exchange["step"]))?;
            }
        }
    }
    for (slug, _, wire) in WIRE {
        let wire: Value = serde_json::from_str(wire)?;
        let expected = pages_opened(wire["wire"].as_array().context("wire")?, slug);
        let report = service.counted(slug, MONTH, expected.values().sum()).await?;
        let items = report["pages"]["items"].as_array().context("pages.items")?;
        let page = |item: &Value| {
            Some(((item["path"].as_str()?.to_owned(), item["status"].as_u64()?), item["views"].as_u64()?))
        };
        let found: BTreeMap<_, _> = items.iter().filter_map(page).collect();
        ensure!(found == expected, "{slug}: {found:?}, expected {expected:?}");
        let values = |name: &str| -> BTreeSet<String> {
            let items = report["breakdowns"][name].as_array().into_iter().flatten();
            items.filter_map(|item| Some(item["value"].as_str()?.to_owned())).collect()
        };
        let has_version = values("version").contains("stable");
        ensure!(has_version == (slug == "readthedocs"), "{slug}: {}", report["breakdowns"]["version"]);
        let has_referrer = report.to_string().contains("ref.example");
        ensure!(has_referrer == (slug != "readthedocs"), "{slug}: {}", report["breakdowns"]);
    }
    for path in ["/js/script.js", "/script.js", "/count.js"] {
        let script = connection.send("GET", path, &[], "").await?;
        ensure!(script.status == 200 && !script.body.is_empty(), "{path}: {}", script.status);
    }
    let older = connection.send("POST", "/api/collect", &[("user-agent", PERSON)], "{}").await?;
    ensure!(older.status == 404, "the endpoint of Umami 1: {}", older.status);
    rates(&mut connection).await
}

/// Prints how many beacons one connection sends in a second to each endpoint, one after the other.
async fn rates(connection: &mut Connection) -> Result<()> {
    const BEACONS: u32 = 100;
    let uuid = "6f9619ff-8b86-4011-b42d-00cf4fc964ff";
    let umami = format!(r#"{{"type":"event","payload":{{"website":"{uuid}","url":"https://docs-umami.example/a"}}}}"#);
    let read_the_docs = "/_/api/v2/analytics/?project=x&absolute_uri=https%3A%2F%2Fdocs-readthedocs.example%2Fa";
    for (method, target, body) in [
        ("POST", "/v1/page", r#"{"url":"https://docs-umami.example/a"}"#),
        ("POST", "/api/event", r#"{"n":"pageview","u":"https://docs-plausible.example/a","d":"x"}"#),
        ("POST", "/api/send", &umami),
        ("POST", "/count?p=/a", ""),
        ("GET", read_the_docs, ""),
    ] {
        let started = Instant::now();
        for _ in 0..BEACONS {
            let headers = [("user-agent", PERSON), ("origin", "https://docs-goatcounter.example")];
            let answer = connection.send(method, target, &headers, body.to_owned()).await?;
            ensure!(answer.status.is_success(), "{target}: {}", answer.status);
        }
        let rate = f64::from(BEACONS) / started.elapsed().as_secs_f64();
        println!("{target:.24}: {rate:.0} beacons/s over one connection, one after the other");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_names_the_project_and_two_projects_may_not_have_it() -> Result<()> {
    let shared = [("docs", "shared.example"), ("other", "shared.example")];
    let service = Service::started(&["--clock-start", CLOCK], &shared).await?;
    let uuid = "6F9619FF-8B86-4011-B42D-00CF4FC964FF";
    let added = service.done(&["project", "alias", "docs", "--umami", uuid, "--goatcounter", "docs-code"]).await?;
    ensure!(added.contains("project docs: umami:6f9619ff-8b86-4011-b42d-00cf4fc964ff\n"), "{added}");
    let claimed = service.done(&["project", "alias", "other", "--goatcounter", "docs-code"]).await;
    let error = format!("{:?}", claimed.err().context("two projects claim one alias")?);
    ensure!(error.contains("goatcounter:docs-code is an alias of the project docs"), "{error}");
    let list = service.done(&["project", "alias", "docs", "--list"]).await?;
    ensure!(
        list == "project docs: goatcounter:docs-code\nproject docs: umami:6f9619ff-8b86-4011-b42d-00cf4fc964ff\n",
        "{list}"
    );

    // Two projects share the host: only the alias identifies the project. Without a host, the code in the path does.
    let body = format!(r#"{{"type":"event","payload":{{"website":"{uuid}","url":"https://shared.example/a"}}}}"#);
    let mut connection = Connection::open(service.address()).await?;
    eventually("the alias to be known", async || {
        let mut connection = Connection::open(service.address()).await?;
        let answer = connection.send("POST", "/api/send", &[("user-agent", PERSON)], body.clone()).await?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    })
    .await?;
    let answer = connection.send("GET", "/count/docs-code?p=/b", &[("user-agent", PERSON)], "").await?;
    ensure!(answer.status == 200, "{}", answer.status);
    service.counted("docs", MONTH, 2).await?;
    let copy = std::fs::read_to_string(service.data().join("projects.json"))?;
    ensure!(copy.contains("goatcounter:docs-code"), "{copy}");
    let removed = service.done(&["project", "alias", "docs", "--umami", uuid, "--remove"]).await?;
    ensure!(removed.starts_with("project docs: goatcounter:docs-code\n"), "{removed}");
    Ok(())
}

/// While a project moves, its pages have the script of either counter. The report has the views of each, before and after the month's close. A reader
/// whom both have counted is one visitor.
#[tokio::test(flavor = "multi_thread")]
async fn the_report_says_how_many_views_each_script_sent() -> Result<()> {
    let mut service = Service::new(&[])?;
    service.start(&["--clock-start", CLOCK]).await?;
    service.register(&[("docs", "docs.example")]).await?;
    let mut connection = Connection::open(service.address()).await?;
    for number in 0..14 {
        let referrer = if number == 0 { "https://ref.example/" } else { "https://docs.example/" };
        let page = format!("https://docs.example/{}", number % 3);
        let (target, body) = match number % 7 {
            0..=4 => ("/v1/page", json!({"url": page, "referrer": referrer})),
            _ => ("/api/event", json!({"n": "pageview", "d": "docs.example", "u": page, "r": referrer})),
        };
        let answer = connection.send("POST", target, &[("user-agent", PERSON)], body.to_string()).await?;
        ensure!(answer.status.is_success(), "{target}: {}", answer.status);
    }
    let expected = json!([
        {"source": "headcount", "views": 10, "visits": "arrivals"},
        {"source": "plausible", "views": 4, "visits": "repeated_referrer"},
    ]);
    let check = |report: &Value| {
        ensure!(report["counted_by"] == expected, "{}", report["counted_by"]);
        let (totals, pages) = (&report["totals"], report["pages"]["items"].as_array().context("pages.items")?);
        ensure!(totals["visits_up_to"] == true, "{totals}");
        ensure!(totals["views"] == 14 && totals["visits"] == 1 && totals["visitors"]["estimate"] == 1, "{totals}");
        let views: Vec<_> = pages.iter().map(|page| (page["path"].as_str(), page["views"].as_u64())).collect();
        ensure!(views == [(Some("/0"), Some(5)), (Some("/1"), Some(5)), (Some("/2"), Some(4))], "{views:?}");
        let systems = &report["breakdowns"]["os"];
        ensure!(*systems == json!([{"value": "Linux", "views": 14}]), "{systems}");
        Ok(())
    };
    check(&service.counted("docs", MONTH, 14).await?)?;
    service.stop().await?;
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    service.start(&["--clock-start", AFTER_CLOSE]).await?;
    let closed = eventually("the month to be closed", async || {
        let report = service.report("docs", MONTH).await?;
        ensure!(report["period"]["closed"] == true, "{}", report["period"]);
        Ok(report)
    })
    .await?;
    check(&closed)?;
    let sql = "SELECT views, visits, assumeNotNull(visitors) FROM monthly_traffic WHERE project = 'docs'";
    let traffic: (u64, u64, u64) = service.clickhouse()?.query(sql).fetch_one().await?;
    ensure!(traffic == (14, 1, 1), "SQL says {traffic:?}");
    let markdown = service.done(&["report", "docs", MONTH, "--format", "md", "--clock-start", AFTER_CLOSE]).await?;
    let rows = "\n## Counted by\n\n| Tracker | Views |\n|---|---:|\n| headcount's script or pixel | 10 |\n| Plausible's script | 4 |\n";
    ensure!(markdown.contains(rows) && markdown.contains("\n| Visits | up to 1 |\n"), "{markdown}");
    ensure!(
        markdown.contains("\n- Plausible's script. A visit is a view with a referrer of another site. "),
        "{markdown}"
    );
    Ok(())
}
