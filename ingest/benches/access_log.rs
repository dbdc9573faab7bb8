//! Lines of access logs per second of one core's time, as Linux accounts it to the thread: the grammar alone, and up to the page view
//! (project, page name, referrer, classes).
//!
//! `cargo bench -p headcount-ingest --bench access_log`, about a minute. The lines are made beforehand: pages of a documentation site, a
//! fifth of them assets, 40 user agents, a third with a referrer.

use cpu_time::CpuTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headcount_ingest::access_log::assets::Assets;
use headcount_ingest::access_log::view::{Outcome, ViewRules, Views};
use headcount_ingest::access_log::{Format, Parser};
use headcount_ingest::agents::OwnRules;
use headcount_ingest::client::TrustedProxies;
use headcount_ingest::ignored::IgnoredNetworks;
use headcount_ingest::projects::{NewNames, ProjectSnapshot, Projects};
use random::SplitMix64;
use schemas::Hour;
use std::collections::BTreeMap;
use std::hint::black_box;

#[path = "common/cpu_time.rs"]
mod cpu_time;
#[allow(dead_code, reason = "the load tester uses the rest")]
#[path = "../../loadtest/src/random.rs"]
mod random;

const LINES: u64 = 20_000;

/// One line as each format has it.
type Writer = fn(u64) -> String;

fn mix(number: u64) -> u64 {
    SplitMix64::nth(0, number)
}

fn client(number: u64) -> String {
    let [a, b, c, ..] = mix(number).to_le_bytes();
    format!("198.{}.{b}.{c}", 18 + a % 2)
}

fn target(number: u64) -> String {
    let page = mix(number) % 400;
    match mix(number) % 5 {
        0 => format!("/en/stable/_static/style-{page}.css"),
        _ => format!("/en/stable/reference/page-{page}.html?highlight=x"),
    }
}

fn referrer(number: u64) -> &'static str {
    ["-", "https://docs.example.org/en/stable/", "https://www.search.example/"][(mix(number) >> 8) as usize % 3]
}

fn agent(number: u64) -> String {
    let version = 100 + (mix(number) >> 16) % 40;
    format!("Mozilla/5.0 (X11; Linux x86_64; rv:{version}.0) Gecko/20100101 Firefox/{version}.0")
}

fn combined(number: u64) -> String {
    format!(
        r#"{} - - [26/Nov/2026:10:{:02}:00 +0100] "GET {} HTTP/1.1" 200 5120 "{}" "{}""#,
        client(number),
        number % 60,
        target(number),
        referrer(number),
        agent(number)
    )
}

fn host_first(number: u64) -> String {
    format!("docs.example.org:443 {}", combined(number))
}

fn caddy(number: u64) -> String {
    format!(
        r#"{{"level":"info","ts":1795687200.5,"logger":"http.log.access","msg":"handled request","request":{{"remote_ip":"{0}","remote_port":"4000","client_ip":"{0}","proto":"HTTP/2.0","method":"GET","host":"docs.example.org","uri":"{1}","headers":{{"User-Agent":["{2}"],"Referer":["{3}"],"Accept":["text/html"]}}}},"bytes_read":0,"duration":0.0001,"size":5120,"status":200,"resp_headers":{{"Server":["Caddy"]}}}}"#,
        client(number),
        target(number),
        agent(number),
        referrer(number)
    )
}

fn w3c(number: u64) -> String {
    let target = target(number);
    let (stem, query) = target.split_once('?').unwrap_or((&target, "-"));
    let agent = agent(number).replace(' ', "+");
    format!("2026-11-26 10:00:00 {} GET {stem} {query} 200 {} {agent}", client(number), referrer(number))
}

fn rules() -> ViewRules {
    ViewRules {
        host: "docs.example.org".parse().ok(),
        trusted_proxies: TrustedProxies::default(),
        ignore_networks: IgnoredNetworks::default(),
        assets: Assets::default(),
        own_rules: OwnRules::default(),
        first_hour: Hour(0),
        now: Hour(600_000),
    }
}

fn lines(c: &mut Criterion<CpuTime>) {
    let projects = Projects::new(Vec::new(), NewNames { per_hour: 0, per_network: 0 });
    let docs = ("docs".parse().expect("a slug"), vec!["docs.example.org".parse().expect("a host")]);
    projects.replace(ProjectSnapshot::new(&BTreeMap::from([docs])));
    let views = Views::new(rules(), &projects);
    let formats: [(&str, Writer); 4] =
        [("combined", combined), ("host-first", host_first), ("w3c", w3c), ("json", caddy)];
    for (name, write) in formats {
        let lines: Vec<Vec<u8>> = (0..LINES).map(|number| write(number).into_bytes()).collect();
        let mut parser = Parser::new(name.parse::<Format>().expect("a format"), None);
        let fields = b"#Fields: date time c-ip cs-method cs-uri-stem cs-uri-query sc-status cs(Referer) cs(User-Agent)";
        let _ = parser.parse(fields);
        let read = lines.iter().filter(|line| parser.parse(line).is_ok()).count();
        assert_eq!(read as u64, LINES, "{name}");
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(LINES)).sample_size(20);
        group.bench_function("grammar", |bencher| {
            bencher.iter(|| lines.iter().filter(|line| black_box(parser.parse(line)).is_ok()).count());
        });
        group.bench_function("view", |bencher| {
            bencher.iter(|| {
                let outcomes = lines.iter().filter_map(|line| parser.parse(line).ok()).map(|line| views.outcome(&line));
                outcomes.filter(|outcome| matches!(black_box(outcome), Outcome::View(_))).count()
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = lines
}
criterion_main!(benches);
