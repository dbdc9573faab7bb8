//! One client, or many networks, request the most expensive reports concurrently; and a list of very many pages as CSV.

use anyhow::{Context, Result, bail, ensure};
use harness::http::{self, Connection};
use harness::service::{Service, eventually};
use schemas::{Coordinate, VisitorSketch};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CLOCK: &str = "2026-03-20T09:20:00Z";
const MONTH: &str = "2026-02";
const CONNECTIONS: u8 = 24;
const P99: Duration = Duration::from_secs(1);

fn is_long() -> bool {
    std::env::var("HEADCOUNT_ABUSE").is_ok_and(|form| form == "long")
}

/// Pages of the public project, and the duration of the attack.
fn size() -> (u64, Duration) {
    if is_long() { (200_000, Duration::from_secs(30)) } else { (10_000, Duration::from_secs(4)) }
}

fn sketch(readers: u64) -> String {
    let mut sketch = VisitorSketch::new();
    for reader in 0..readers {
        // Numbers without a pattern, by an odd multiplier.
        sketch.insert(Coordinate::from_hash((reader + readers * 1_000).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    sketch.encode().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// `pages` pages of `docs` on three days each, one in twenty of them not found, with their referrers.
async fn write(service: &Service, pages: u64) -> Result<()> {
    let client = service.clickhouse()?;
    let sketches = (0..32).map(|at| format!("unhex('{}')", sketch(2 + at * at / 8))).collect::<Vec<_>>().join(",");
    let path = "concat('/en/latest/reference/page-', toString(number), '.html')";
    for day in ["2026-02-03", "2026-02-04", "2026-02-20"] {
        let rows = format!(
            "INSERT INTO page_daily (project, day, path, status, views, sketch, stream, window_start, next_offset) \
             SELECT 'docs', toDate('{day}'), {path}, if(number % 20 = 0, 404, 200), 1 + cityHash64(number) % 40, \
             [{sketches}][cityHash64(number, '{day}') % 32 + 1], 1, toUInt64(toDate('{day}')), 900000 FROM numbers({pages})"
        );
        client.query(&rows).execute().await?;
        let hours = format!(
            "INSERT INTO site_hourly (project, hour, views, visits, sketch, stream, window_start, next_offset) \
             SELECT 'docs', toDateTime('{day} 06:00:00', 'UTC'), (SELECT sum(views) FROM page_daily WHERE day = toDate('{day}')), \
             7, unhex('{}'), 1, toUInt64(toDate('{day}')), 900000",
            sketch(2_000)
        );
        client.query(&hours).execute().await?;
    }
    let referrers = format!(
        "INSERT INTO not_found_daily (project, day, path, referrer, views, stream, window_start, next_offset) \
         SELECT 'docs', toDate('2026-02-03'), {path}, concat('site-', toString(number % 7), '.example'), 12, 1, 5, 900000 \
         FROM numbers({pages}) WHERE number % 20 = 0"
    );
    client.query(&referrers).execute().await?;
    Ok(())
}

async fn service(pages: u64) -> Result<Service> {
    let arguments = ["--clock-start", CLOCK, "--report-rate", "20", "--close-after-hours", "720"];
    let service = Service::started(&arguments, &[("docs", "docs.example"), ("other", "other.example")]).await?;
    write(&service, pages).await?;
    Ok(service)
}

/// Latencies by status.
type Seen = BTreeMap<u16, Vec<Duration>>;

fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    latencies.sort_unstable();
    latencies.get((latencies.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or_default()
}

fn described(seen: Seen) -> String {
    let of_status = |(status, mut latencies): (u16, Vec<Duration>)| {
        let (p50, p99) = (percentile(&mut latencies, 50), percentile(&mut latencies, 99));
        format!("{} × {status} (p50 {p50:.0?}, p99 {p99:.0?})", latencies.len())
    };
    seen.into_iter().map(of_status).collect::<Vec<_>>().join(", ")
}

/// Requests one expensive report after the other. Allowed statuses: a report, or a refusal.
async fn attack(service: &Service, source: IpAddr, number: u8, seen: &Mutex<Seen>) -> Result<()> {
    let reports = format!("/v1/projects/docs/reports/{MONTH}");
    let asked =
        [format!("{reports}/pages?sort=visitors&limit=1000"), format!("{reports}.csv"), format!("{reports}/pages.csv")];
    let mut connection = Connection::open_from(source, service.address()).await?;
    for path in asked.iter().cycle().skip(usize::from(number)) {
        let begun = Instant::now();
        let answer = connection.send("GET", path, &[], "").await?;
        ensure!([200, 429, 503].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(answer.status.as_u16()).or_default().push(begun.elapsed());
    }
    Ok(())
}

/// An administrator's requests during the attack, in the same project and in another.
async fn administer(service: &Service, token: &str, during: Duration) -> Result<Vec<Duration>> {
    let (authorization, begun) = (format!("Bearer {token}"), Instant::now());
    let reports = format!("/v1/projects/docs/reports/{MONTH}");
    let asked = [
        format!("/projects/docs/{MONTH}"),
        format!("{reports}/days"),
        format!("{reports}/pages?limit=50&prefix=/en/latest/reference/page-1"),
        format!("/v1/projects/other/reports/{MONTH}"),
        "/v1/projects".to_owned(),
    ];
    let mut connection = Connection::open(service.address()).await?;
    let mut latencies = Vec::new();
    for path in asked.iter().cycle() {
        let sent = Instant::now();
        let answer = connection.send("GET", path, &[("authorization", &authorization)], "").await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        latencies.push(sent.elapsed());
        // The rate limit of one token is twenty a second.
        tokio::time::sleep(Duration::from_millis(60)).await;
        if begun.elapsed() > during {
            return Ok(latencies);
        }
    }
    bail!("the list of paths is empty")
}

/// Waits until the token grants access to reports. Each attempt comes from another client, since failed ones are rate-limited.
async fn valid(service: &Service, token: &str) -> Result<()> {
    let (authorization, client) = (format!("Bearer {token}"), AtomicU8::new(0));
    eventually("the token to be valid", async || {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 2, client.fetch_add(1, Ordering::Relaxed)));
        let mut connection = Connection::open_from(source, service.address()).await?;
        let headers = [("authorization", authorization.as_str())];
        let answer = connection.send("GET", "/v1/projects", &headers, "").await?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    })
    .await
}

async fn attacked(service: &Arc<Service>, token: &str, sources: &str, of: fn(u8) -> IpAddr) -> Result<()> {
    let seen = Arc::new(Mutex::new(Seen::new()));
    let mut attackers = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let (service, seen) = (Arc::clone(service), Arc::clone(&seen));
        attackers.spawn(async move { attack(&service, of(number), number, &seen).await });
    }
    let mut latencies = administer(service, token, size().1).await?;
    // An attack ends by itself only if it fails.
    if let Some(ended) = attackers.try_join_next() {
        ended??;
    }
    attackers.shutdown().await;
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let (p50, p99) = (percentile(&mut latencies, 50), percentile(&mut latencies, 99));
    println!("{CONNECTIONS} connections from {sources}: {}", described(seen));
    println!("an administrator beside them: {} requests, p50 {p50:.0?}, p99 {p99:.0?}", latencies.len());
    ensure!(p99 <= P99, "{sources}: an administrator waits {p99:?} at p99");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_clients_do_not_keep_an_administrator_waiting() -> Result<()> {
    let _alone = crate::MEASURING.lock().await;
    let service = Arc::new(service(size().0).await?);
    let token = service.token(None).await?;
    valid(&service, &token).await?;
    let alone = percentile(&mut administer(&service, &token, Duration::from_secs(1)).await?, 99);
    println!("{} pages; an administrator alone: p99 {alone:.0?}", size().0);
    attacked(&service, &token, "one IP address", |_| IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))).await?;
    attacked(&service, &token, "24 IP addresses", |number| IpAddr::V4(Ipv4Addr::new(127, 0, 1, number + 1))).await
}

/// Anonymous memory of the service's process, KiB.
fn memory(service: &Service) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid().context("it runs")?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Processor time of the service and of its ClickHouse, in ticks of 10 ms.
fn ticks(service: &Service) -> Result<[u64; 2]> {
    let noted = std::fs::read_to_string(service.data().join("clickhouse/engine.json"))?;
    let noted: serde_json::Value = serde_json::from_str(&noted)?;
    let engine = u32::try_from(noted["pid"].as_u64().context("engine.json has a pid")?)?;
    let of = |pid: u32| -> Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // After the name in parentheses: utime and stime are the 12th and 13th.
        let fields: Vec<&str> = stat.rsplit(')').next().context("stat")?.split_whitespace().collect();
        Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
    };
    Ok([of(service.pid().context("it runs")?)?, of(engine)?])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_very_many_pages_is_streamed() -> Result<()> {
    let _alone = crate::MEASURING.lock().await;
    let pages = size().0;
    let service = Arc::new(service(pages).await?);
    let list = format!("/v1/projects/docs/reports/{MONTH}");
    // The first report allocates what is allocated once.
    http::get(service.address(), &format!("{list}/days")).await?;
    for (path, rows) in
        [("/pages.csv", pages), ("/not-found.csv", pages.div_ceil(20)), (".csv", 0), ("/pages.csv?sort=path", pages)]
    {
        let ticks_before = ticks(&service)?;
        let (before, begun, ended) = (memory(&service)?, Instant::now(), Arc::new(AtomicBool::new(false)));
        let watching = {
            let (service, ended) = (Arc::clone(&service), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut most = 0;
                while !ended.load(Ordering::Relaxed) {
                    most = most.max(memory(&service)?);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                anyhow::Ok(most)
            })
        };
        let answer = http::get(service.address(), &format!("{list}{path}")).await?;
        let took = begun.elapsed();
        ended.store(true, Ordering::Relaxed);
        let growth = watching.await??.saturating_sub(before);
        ensure!(answer.status == 200 && !answer.headers.contains_key("content-length"), "{path}: {:?}", answer.headers);
        let found = csv::Reader::from_reader(&answer.body[..]).records().collect::<Result<Vec<_>, _>>()?;
        let [ours, engine] = ticks(&service)?;
        let [ours, engine] = [ours - ticks_before[0], engine - ticks_before[1]].map(|ticks| ticks as f64 / 100.0);
        let kib = answer.body.len() / 1024;
        println!("{path}: {} rows, {kib} KiB in {took:.2?}, RssAnon + {growth} KiB", found.len());
        println!("{path}: processor time {ours} s of the service, {engine} s of ClickHouse");
        ensure!(growth < 48 * 1024, "{path}: memory grew by {growth} KiB");
        if rows > 0 {
            ensure!(found.len() as u64 == rows, "{path}: {} rows of {rows}", found.len());
            in_order(&found, path.contains("sort=path"))?;
        }
    }
    Ok(())
}

/// By views, descending, and then by path; or by path.
fn in_order(rows: &[csv::StringRecord], by_path: bool) -> Result<()> {
    let key = |row: &csv::StringRecord| {
        let views = row[2].parse::<i64>().unwrap_or_default();
        (if by_path { 0 } else { -views }, row[0].to_owned())
    };
    for pair in rows.windows(2) {
        ensure!(key(&pair[0]) < key(&pair[1]), "{:?} comes before {:?}", pair[0], pair[1]);
    }
    Ok(())
}
