//! Every public route but the health checks has a rate limit.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::routes;
use harness::service::Service;

/// Requests of one client to one route; the buckets of this story have ten tokens at most.
const REQUESTS: usize = 12;

/// Routes beside those of the guard's table: (method, path).
const OTHERS: &[(&str, &str)] = &[
    ("POST", "/v1/projects"),
    ("GET", "/v1/projects/docs/reports/2026-01/nothing"),
    ("GET", "/v1/projects/docs"),
    ("GET", "/v1/nothing"),
    ("GET", "/v1/"),
    ("GET", "/privacy"),
    ("GET", "/nothing"),
    ("POST", "/nothing"),
    ("GET", "/beacon.js"),
    ("HEAD", "/beacon.js"),
    ("POST", "/beacon.js"),
    ("POST", "/v1/pageview"),
    ("OPTIONS", "/v1/pageview"),
    ("GET", "/v1/pageview"),
    ("GET", "/v1/pageview.gif"),
    ("PUT", "/v1/pageview.gif"),
];

/// Statuses of `REQUESTS` requests from a client that has used no other route.
async fn asked(service: &Service, client: usize, method: &str, path: &str) -> Result<Vec<u16>> {
    let address = format!("10.1.{}.{}", client / 250, client % 250 + 1);
    let mut connection = Connection::open(service.address()).await?;
    let mut statuses = Vec::new();
    for _ in 0..REQUESTS {
        let answer = connection.send(method, path, &[("x-forwarded-for", &address)], "").await?;
        let status = answer.status.as_u16();
        if status == 429 {
            let after = answer.headers.get("retry-after").context("Retry-After")?.to_str()?.parse::<u64>()?;
            ensure!(after >= 1, "{method} {path}: Retry-After is {after}");
        }
        statuses.push(status);
    }
    Ok(statuses)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_but_the_health_checks_has_a_rate_limit() -> Result<()> {
    let arguments = ["--report-rate", "0.1", "--client-rate", "0.1", "--trusted-proxy", "127.0.0.1"];
    let mut service = Service::new(&arguments)?;
    service.start(&[]).await?;
    service.done(&["project", "add", "docs", "--host", "docs.example", "--public"]).await?;
    let of_table = routes::requests("docs").into_iter().map(|request| (request.method, request.path));
    let others = OTHERS.iter().map(|(method, path)| (*method, (*path).to_owned()));
    let mut seen = Vec::new();
    for (client, (method, path)) in of_table.chain(others).enumerate() {
        let statuses = asked(&service, client, method, &path).await?;
        let first = statuses.iter().position(|status| *status == 429);
        ensure!(first.is_some_and(|first| first > 0), "{method} {path} has no limit: {statuses:?}");
        seen.push(format!("{method} {path}: {} then 429", statuses[0]));
    }
    println!("{} routes:\n{}", seen.len(), seen.join("\n"));
    for path in ["/healthz", "/readyz"] {
        let statuses = asked(&service, 9_999, "GET", path).await?;
        ensure!(statuses.iter().all(|status| *status == 200), "{path}: {statuses:?}");
    }
    Ok(())
}
