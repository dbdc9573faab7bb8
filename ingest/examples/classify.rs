//! Classifies the user agents of the standard input, one a line: prints kind, name, device, browser and system, separated by tabs. The time
//! of one goes to the standard error. `scripts/agents` runs it.

use headcount_ingest::agents::{OwnRules, classify};
use headcount_ingest::client::UserAgent;
use schemas::classes::ClassName as _;
use std::io::{self, BufRead as _, Write as _};
use std::time::Instant;

fn main() -> io::Result<()> {
    let agents: Vec<_> = io::stdin().lock().lines().collect::<Result<_, _>>()?;
    let rules = OwnRules::default();
    let mut headers = http::HeaderMap::new();
    let mut out = io::stdout().lock();
    let classes = |headers: &http::HeaderMap| classify(UserAgent::of(headers), &rules);
    let mut values = Vec::new();
    for agent in &agents {
        headers.insert(
            "user-agent",
            http::HeaderValue::from_bytes(agent.as_bytes()).unwrap_or(http::HeaderValue::from_static("")),
        );
        let found = classes(&headers);
        let (device, browser, system) =
            (found.device.class_name(), found.browser.class_name(), found.system.class_name());
        writeln!(out, "{}\t{}\t{device}\t{browser}\t{system}", found.bot_class.class_name(), found.bot)?;
        values.push(headers.clone());
    }
    let start = Instant::now();
    for headers in &values {
        std::hint::black_box(classes(headers));
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / values.len().max(1) as f64;
    eprintln!("{micros:.2} µs for each agent, uncached{}", if cfg!(debug_assertions) { " (debug build)" } else { "" });
    Ok(())
}
