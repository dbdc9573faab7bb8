//! What one user agent costs: classified for the first time, and when it is remembered, beside a copy of it in lower case, which is the
//! least that a search without regard to case needs. The goal is 3 µs for the first time.
//!
//! `cargo bench -p headcount-ingest --bench classify`, about half a minute. The first classification of a process, which builds the tables, is
//! not measured.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headcount_ingest::agents::{Classifier, OwnRules, classify};
use headcount_ingest::client::UserAgent;
use http::HeaderMap;
use http::header::USER_AGENT;
use std::hint::black_box;

/// Browsers of people first, as most agents are, then robots: named in a table, by a word, and by their form.
const AGENTS: [&str; 12] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (Linux; Android 15; Pixel 9 Build/AP4A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/142.0.0.0 Safari/537.36",
    "curl/8.14.1",
    "acme-fetcher/1.0 (+https://acme.example/fetcher)",
];

fn classification(bench: &mut Criterion) {
    let headers: Vec<HeaderMap> = AGENTS
        .iter()
        .map(|agent| HeaderMap::from_iter([(USER_AGENT, agent.parse().expect("an agent is a header's value"))]))
        .collect();
    let (rules, classifier) = (OwnRules::default(), Classifier::default());
    let each = |use_agent: &dyn Fn(UserAgent<'_>)| headers.iter().for_each(|headers| use_agent(UserAgent::of(headers)));
    each(&|agent| {
        black_box(classifier.classify(agent));
    });
    let mut group = bench.benchmark_group("agents");
    group.throughput(Throughput::Elements(AGENTS.len() as u64));
    group.bench_function("lower case", |bench| {
        bench.iter(|| AGENTS.iter().for_each(|agent| drop(black_box(agent.to_ascii_lowercase()))));
    });
    group.bench_function("remembered", |bench| {
        bench.iter(|| {
            each(&|agent| {
                black_box(classifier.classify(agent));
            });
        });
    });
    group.bench_function("first time", |bench| {
        bench.iter(|| {
            each(&|agent| {
                black_box(classify(agent, &rules));
            });
        });
    });
    group.finish();
}

criterion_group!(benches, classification);
criterion_main!(benches);
