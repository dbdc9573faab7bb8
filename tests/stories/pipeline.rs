//! The pipeline's story: 20,000 beacons from 3,000 known readers over two months, with `kill -9` in between, and every figure correct.

#[path = "pipeline/invalid.rs"]
mod invalid;

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use harness::http::Connection;
use harness::random::mix;
use harness::service::{PATIENCE, Service, eventually};
use invalid::{Invalid, Refusals};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const PROJECTS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "omega"];
const READERS: u64 = 3_000;
const PER_MONTH: u64 = 10_000;
/// Maximum error of an estimate in standard deviations. Each run has a different key, so estimates vary. Of ten estimates, one exceeds three
/// deviations once in forty runs, and five once in two hundred thousand.
const SIGMAS: f64 = 5.0;
/// One beacon that must be refused is sent with this many views.
const INVALID_EVERY: usize = 25;
const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
];

const BOTS: [&str; 2] = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.3; +https://openai.com/gptbot)",
];

/// One view, with all its facts.
#[derive(Clone)]
struct View {
    project: &'static str,
    path: String,
    status: u16,
    reader: u64,
    arrival: bool,
    /// The one of [`BOTS`] that made it; none for a person.
    bot: Option<usize>,
    id: u64,
}

impl View {
    /// The `index`th view of all.
    fn new(index: u64) -> Self {
        let chance = mix(index);
        let reader = chance % READERS;
        // Half of a reader's views are in one project, so that projects share some readers but not all.
        let project = if chance >> 60 < 8 { reader } else { chance >> 20 } % PROJECTS.len() as u64;
        // Squaring favours low page numbers.
        let page = ((chance >> 32) % 40).pow(2) / 40;
        View {
            project: PROJECTS[project as usize],
            path: format!("/en/stable/page-{page}.html"),
            status: if page == 7 { 404 } else { 200 },
            reader,
            arrival: chance >> 50 & 3 == 0,
            bot: (index % 30 == 7).then_some((index / 30 % 2) as usize),
            id: mix(index ^ 0xabcd) | 1,
        }
    }

    fn agent(&self) -> &'static str {
        self.bot.map_or(AGENTS[(self.reader % 3) as usize], |bot| BOTS[bot])
    }

    fn address(&self) -> String {
        if self.reader.is_multiple_of(4) {
            format!("2001:db8:{:x}:{:x}::1", self.reader >> 8, self.reader & 0xff)
        } else {
            format!("198.51.{}.{}", self.reader >> 8, self.reader & 0xff)
        }
    }

    fn body(&self) -> String {
        let host = format!("{}.docs.example", self.project);
        let referrer = if self.arrival { "https://search.example/?q=x".to_owned() } else { format!("https://{host}/") };
        format!(
            r#"{{"project":"{}","url":"https://{host}{}?secret=1#part","referrer":"{referrer}","status":{},"version":"stable","language":"en","id":"{:016x}"}}"#,
            self.project, self.path, self.status, self.id
        )
    }
}

/// The expected figures of one project's month.
#[derive(Default)]
struct Expected {
    views: u64,
    visits: u64,
    /// Views by search engines and by AI crawlers.
    bots: [u64; 2],
    pages: BTreeMap<(String, u64), u64>,
    readers: BTreeSet<u64>,
}

fn expected(views: &[View]) -> BTreeMap<&'static str, Expected> {
    let mut all: BTreeMap<&'static str, Expected> = BTreeMap::new();
    for view in views {
        let project = all.entry(view.project).or_default();
        if let Some(bot) = view.bot {
            project.bots[bot] += 1;
            continue;
        }
        project.views += 1;
        project.visits += u64::from(view.arrival);
        *project.pages.entry((view.path.clone(), u64::from(view.status))).or_default() += 1;
        project.readers.insert(view.reader);
    }
    all
}

/// Sends all views from 24 connections; a failed one is sent again with the same id until it is acknowledged, as the script does. Kills and restarts
/// the service whenever a mark is passed.
async fn drive(service: &mut Service, views: Vec<View>, kills: &[usize], clock: &str) -> Result<Driven> {
    let views = Arc::new(views);
    let next = Arc::new(AtomicUsize::new(0));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let broken = Arc::new(AtomicU64::new(0));
    let killed = Arc::new(AtomicUsize::new(0));
    let refusals = Arc::new(Mutex::new(Refusals::default()));
    let kills_due = kills.len();
    let address = service.address();
    let senders: Vec<_> = (0..24)
        .map(|_| {
            let (views, next) = (Arc::clone(&views), Arc::clone(&next));
            let (acknowledged, broken) = (Arc::clone(&acknowledged), Arc::clone(&broken));
            let (killed, refusals) = (Arc::clone(&killed), Arc::clone(&refusals));
            tokio::spawn(async move {
                let mut connection = None;
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    let Some(view) = views.get(index) else { return Ok::<(), anyhow::Error>(()) };
                    if index.is_multiple_of(INVALID_EVERY) {
                        let invalid = Invalid::new(index / INVALID_EVERY, view.project);
                        let after_kills = killed.load(Ordering::SeqCst) == kills_due;
                        let told = invalid.send(&mut connection, address).await?;
                        let mut refusals = refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        refusals.sent(&invalid, told && after_kills);
                    }
                    acknowledge(&mut connection, address, view, &broken).await?;
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for &mark in kills {
        eventually("the next kill", async || {
            let so_far = acknowledged.load(Ordering::SeqCst);
            ensure!(so_far >= mark, "{so_far} of {mark} acknowledged");
            Ok(())
        })
        .await?;
        service.kill().await?;
        service.start(&["--clock-start", clock]).await?;
        killed.fetch_add(1, Ordering::SeqCst);
    }
    for sender in senders {
        sender.await??;
    }
    let refusals = std::mem::take(&mut *refusals.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    Ok(Driven { refusals, acknowledged: acknowledged.load(Ordering::SeqCst), broken: broken.load(Ordering::SeqCst) })
}

/// Sends a view until it is acknowledged, and counts the requests without a response.
async fn acknowledge(
    connection: &mut Option<Connection>,
    address: std::net::SocketAddr,
    view: &View,
    broken: &AtomicU64,
) -> Result<()> {
    let (body, from) = (view.body(), view.address());
    let headers = [("user-agent", view.agent()), ("x-forwarded-for", from.as_str())];
    let deadline = Instant::now() + PATIENCE;
    loop {
        if connection.is_none() {
            *connection = Connection::open(address).await.ok();
        }
        let outcome = match connection.as_mut() {
            Some(open) => open.send("POST", "/v1/pageview", &headers, body.clone()).await,
            None => Err(anyhow::anyhow!("not connected")),
        };
        match outcome {
            Ok(answer) if answer.status == 202 => return Ok(()),
            // Never 404: a fresh process knows the registry from its copy on disk.
            Ok(answer) => {
                ensure!(answer.status == 503, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
            }
            Err(_) => {
                *connection = None;
                broken.fetch_add(1, Ordering::SeqCst);
            }
        }
        ensure!(Instant::now() < deadline, "a beacon was never acknowledged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Driven {
    refusals: Refusals,
    acknowledged: usize,
    broken: u64,
}

fn hour_of(clock: &str) -> Result<u32> {
    Ok(schemas::Hour::of(DateTime::parse_from_rfc3339(clock)?.to_utc()).0)
}

/// Watches one figure until stopped: it must never fall, through kills and restarts (I5).
fn watch(address: std::net::SocketAddr, path: String, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Result<u64>> {
    tokio::spawn(async move {
        let (mut highest, mut polls) = (0, 0);
        while !stop.load(Ordering::SeqCst) {
            if let Ok(answer) = harness::http::get(address, &path).await
                && answer.status == 200
            {
                let views = answer.json()?["totals"]["views"].as_u64().context("totals.views")?;
                ensure!(views >= highest, "a figure fell from {highest} to {views}");
                highest = views;
                polls += 1;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        Ok(polls)
    })
}

/// One project's report of a month equals the truth. Returns the estimate's error in standard deviations.
async fn project_is_exact(
    service: &Service,
    project: &str,
    truth: &Expected,
    (month, clock): (&str, &str),
) -> Result<f64> {
    let report = service.counted(project, month, truth.views).await?;
    ensure!(report["totals"]["visits"] == truth.visits, "{project}: {}", report["totals"]);
    eventually("the bots' views", async || {
        let bots = service.report(project, month).await?["totals"]["bots"].take();
        ensure!(bots["search"] == truth.bots[0] && bots["ai_crawler"] == truth.bots[1], "{project}: {bots}");
        Ok(())
    })
    .await?;
    // One hour has all of them, and every other hour of the month has none.
    let hour = schemas::Hour(hour_of(clock)?).start().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    for entry in report["hours"].as_array().context("hours")? {
        let wanted = if entry["hour"] == hour.as_str() { truth.views } else { 0 };
        ensure!(entry["views"] == wanted, "{project}: {entry}");
    }
    let pages: BTreeMap<(String, u64), u64> = report["pages"]["items"]
        .as_array()
        .context("pages.items")?
        .iter()
        .map(|page| {
            let path = page["path"].as_str().unwrap_or_default().to_owned();
            ((path, page["status"].as_u64().unwrap_or(0)), page["views"].as_u64().unwrap_or(0))
        })
        .collect();
    ensure!(pages == truth.pages, "{project}: pages {pages:?}, expected {:?}", truth.pages);
    // The report states linear counting's deviation at this size; half a visitor is rounding.
    let visitors = &report["totals"]["visitors"];
    let (estimate, error) =
        (visitors["estimate"].as_f64().context("estimate")?, visitors["error"].as_f64().context("error")?);
    let readers = truth.readers.len() as f64;
    ensure!((estimate - readers).abs() <= SIGMAS * error * readers + 0.5, "{project}: {visitors}, truly {readers}");
    println!(
        "{month} {project}: {} views, {readers} readers, estimated {estimate} ± {:.1}",
        truth.views,
        error * readers
    );
    Ok((estimate - readers) / (error * readers))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_months_with_five_kills_come_out_exact() -> Result<()> {
    let months = [("2026-01", "2026-01-31T22:00:00Z", 0), ("2026-02", "2026-02-01T03:00:00Z", PER_MONTH)];
    let mut service = Service::new(&["--trusted-proxy", "127.0.0.1", "--client-rate", "0"])?;
    service.start(&["--clock-start", months[0].1]).await?;
    let hosts: Vec<String> = PROJECTS.iter().map(|project| format!("{project}.docs.example")).collect();
    let registered: Vec<(&str, &str)> = PROJECTS.iter().copied().zip(hosts.iter().map(String::as_str)).collect();
    service.register(&registered).await?;

    let mut kills = 0;
    let mut broken = 0;
    let mut refused = Vec::new();
    let mut browsers = [0; 3];
    let mut off = Vec::new();
    for (month, clock, first) in months {
        if first > 0 {
            // The next month starts while the service is down.
            service.stop().await?;
            service.start(&["--clock-start", clock]).await?;
        }
        let views: Vec<View> = (first..first + PER_MONTH).map(View::new).collect();
        // Every fortieth view is sent twice, like by a script whose first response was lost.
        let mut sent = views.clone();
        for index in (0..views.len()).step_by(40).rev() {
            sent.insert((index + 5).min(sent.len()), views[index].clone());
        }
        let marks: &[usize] = if first == 0 { &[1_000, 4_000, 8_000] } else { &[2_000, 7_000] };
        let stop = Arc::new(AtomicBool::new(false));
        let watcher = watch(service.address(), format!("/v1/projects/alpha/reports/{month}"), Arc::clone(&stop));
        let total = sent.len();
        let mut driven = drive(&mut service, sent, marks, clock).await?;
        kills += marks.len();
        broken += driven.broken;
        ensure!(driven.acknowledged == total, "all {total} were acknowledged");

        // No kill follows: each of these must be counted.
        let mut connection = None;
        for number in 0..20 * PROJECTS.len() {
            let invalid = Invalid::new(number / PROJECTS.len(), PROJECTS[number % PROJECTS.len()]);
            ensure!(invalid.send(&mut connection, service.address()).await?, "a refusal was not told");
            driven.refusals.sent(&invalid, true);
        }
        refused.push((month, driven.refusals));

        for view in views.iter().filter(|view| view.bot.is_none()) {
            browsers[(view.reader % 3) as usize] += 1;
        }
        let expected = expected(&views);
        for (project, truth) in &expected {
            off.push(project_is_exact(&service, project, truth, (month, clock)).await?);
        }
        stop.store(true, Ordering::SeqCst);
        let polls = watcher.await??;
        ensure!(polls > 0, "the watcher saw the report");
    }
    // A common bias is no chance, even if each error is within its limit: a mean has 1/√n of one's deviation.
    let mean = off.iter().sum::<f64>() / off.len() as f64;
    ensure!(mean.abs() <= SIGMAS / (off.len() as f64).sqrt(), "estimates are off by {mean} σ together: {off:?}");
    ensure!(kills == 5 && broken > 0, "the kills bit: {kills} kills, {broken} broken requests");

    // The stored rows equal an independent rebuild from the log, row by row and byte by byte.
    service.stop().await?;
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["moving"] == 0, "{audit}");
    ensure!(audit["windows"] == 2, "two windows: {audit}");
    let truth = service.told(&["rebuild", "--from-log"]).await?;
    service.start(&["--clock-start", months[1].1]).await?;
    for (name, views) in ["Chrome", "Firefox", "Safari"].into_iter().zip(browsers) {
        let of = |project: &&str| truth["projects"][project]["breakdowns"]["browser"][name].as_u64();
        let found: u64 = PROJECTS.iter().filter_map(of).sum();
        ensure!(found == views, "{name}: {found} views, {views} sent");
    }
    for (month, refusals) in &refused {
        refusals.check(&service, &truth, month).await?;
    }
    let duplicates = audit["duplicate"].as_u64().context("duplicate")?;
    ensure!(duplicates >= 2 * PER_MONTH / 40, "repeated ids reached the fold: {duplicates}");
    println!("{} records, {duplicates} repeated, {broken} requests broken by {kills} kills", audit["records"]);
    service.stop().await
}
