//! The embedded ClickHouse is killed, frozen and sent invalid requests while beacons arrive: the service continues, and nothing is lost or counted
//! twice.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, eventually};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Beacons a second, in total.
const RATE: u64 = 150;
/// Connections that send them.
const SENDERS: u64 = 6;
/// Time limit for the first report after a restart.
const REPORTS_WITHIN: Duration = Duration::from_secs(3);
/// Time limit for refusing a report while the engine is unavailable.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
/// Constant of the supervisor: the pause before the first restart, and the uptime after which the pause is reset to it.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// Constant of the supervisor: how long an engine may be unresponsive.
const SILENCE_MAX: Duration = Duration::from_secs(15);

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// Held by stories that check time limits, so that they run one after another.
static ALONE: Mutex<()> = Mutex::const_new(());

fn is_long() -> bool {
    std::env::var("HEADCOUNT_ABUSE").is_ok_and(|form| form == "long")
}

fn month() -> String {
    schemas::Hour::of(chrono::Utc::now()).month().to_string()
}

/// Beacons at [`RATE`], each with a unique id. The first one that is not accepted ends the loop.
struct Beacons {
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    senders: JoinSet<Result<()>>,
}

impl Beacons {
    fn start(address: SocketAddr) -> Self {
        let (accepted, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let (accepted, stop) = (Arc::clone(&accepted), Arc::clone(&stop));
            senders.spawn(async move {
                let mut connection = Connection::open(address).await?;
                let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 * SENDERS / RATE));
                for number in 1_u64.. {
                    ticks.tick().await;
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = number * SENDERS + sender;
                    let body = format!(r#"{{"url":"https://docs.example/{}.html","id":"{id:016x}"}}"#, id % 20);
                    let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
                    ensure!(answer.status == 202, "{}: {:?}", answer.status, answer.body);
                    accepted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Beacons { accepted, stop, senders }
    }

    /// An error if a beacon was not accepted.
    fn check(&mut self) -> Result<()> {
        match self.senders.try_join_next() {
            Some(ended) => ended?.context("a beacon was refused"),
            None => Ok(()),
        }
    }

    /// Stops sending; returns how many were accepted.
    async fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.senders.join_next().await {
            ended?.context("a beacon was refused")?;
        }
        Ok(self.accepted.load(Ordering::Relaxed))
    }
}

/// One outage, as observed by a report user.
#[derive(Default)]
struct Outage {
    /// Until the first good report.
    lasted: Duration,
    /// Refused requests, and the longest wait for a refusal.
    refused: u64,
    slowest: Duration,
}

/// Requests reports until one is good after at least one was refused, or until the engine's process has changed.
async fn outage(service: &Service, beacons: &mut Beacons, before: u64) -> Result<Outage> {
    let (begun, path) = (Instant::now(), format!("/v1/projects/docs/reports/{}", month()));
    let mut seen = Outage::default();
    loop {
        beacons.check()?;
        let asked = Instant::now();
        // A cached report would hide the outage.
        let answer = harness::http::get_now(service.address(), &path).await?;
        let took = asked.elapsed();
        if answer.status == 200 {
            if pid(service).is_ok_and(|pid| pid != before) {
                return Ok(Outage { lasted: begun.elapsed(), ..seen });
            }
        } else {
            ensure!(answer.status == 503, "{}", answer.status);
            ensure!(answer.headers.contains_key("retry-after"), "a 503 says when to come back");
            seen = Outage { refused: seen.refused + 1, slowest: seen.slowest.max(took), ..seen };
            let ready = harness::http::get(service.address(), "/readyz").await?;
            ensure!(ready.status == 200, "beacons are taken: {} {:?}", ready.status, ready.body);
        }
        ensure!(begun.elapsed() < Duration::from_secs(90), "reports do not come back\n{}", service.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The engine's process.
fn pid(service: &Service) -> Result<u64> {
    let text = std::fs::read_to_string(service.data().join("clickhouse/engine.json"))?;
    serde_json::from_str::<serde_json::Value>(&text)?["pid"].as_u64().context("a pid")
}

fn signal(pid: u64, signal: &str) -> Result<()> {
    let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status()?;
    ensure!(sent.success(), "cannot send SIG{signal} to the engine");
    Ok(())
}

async fn started() -> Result<Service> {
    let service = Service::started(&["--client-rate", "0"], &[("docs", "docs.example")]).await?;
    eventually("the first report", async || service.report("docs", &month()).await).await?;
    Ok(service)
}

/// Stops the service, and compares every row with the journal.
async fn verify(mut service: Service, accepted: u64) -> Result<()> {
    service.counted("docs", &month(), accepted).await?;
    service.stop().await?;
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["accepted"] == accepted, "{audit}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_killed_again_and_again() -> Result<()> {
    let _alone = ALONE.lock().await;
    let kills = if is_long() { 100 } else { 5 };
    let mut service = started().await?;
    let url = service.clickhouse_url()?;
    let mut beacons = Beacons::start(service.address());
    let (mut pause, mut times, mut refused, mut slowest) = (FIRST_PAUSE, Vec::new(), 0, Duration::ZERO);
    for _ in 0..kills {
        // The long form waits until the pause is reset; in the short form pauses grow.
        if is_long() {
            tokio::time::sleep(STABLE_AFTER + Duration::from_millis(500)).await;
            pause = FIRST_PAUSE;
        }
        let before = pid(&service)?;
        signal(before, "KILL")?;
        let seen = outage(&service, &mut beacons, before).await?;
        let restart = seen.lasted.saturating_sub(pause);
        ensure!(service.clickhouse_url()? == url, "the engine's URL is the same");
        (pause, refused, slowest) = (pause * 2, refused + seen.refused, slowest.max(seen.slowest));
        times.push((seen.lasted, restart));
    }
    times.sort();
    let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{kills} kills: from a kill to a good report {:?} in the median, {:?} at most", middle.0, last.0);
    times.sort_by_key(|(_, restart)| *restart);
    let restart = times[times.len() / 2].1;
    println!("from a restart to a good report {restart:?} in the median, {:?} at most", times[times.len() - 1].1);
    println!("{refused} reports refused, the slowest after {slowest:?}");
    // The median: a single time depends on other work of this machine.
    ensure!(restart <= REPORTS_WITHIN, "reports {restart:?} after a restart\n{}", service.log());
    ensure!(slowest <= REFUSED_WITHIN, "a report is refused after {slowest:?}");

    // A stop while the engine is unavailable is quick, and loses nothing.
    signal(pid(&service)?, "KILL")?;
    let accepted = beacons.end().await?;
    let begun = Instant::now();
    service.stop().await?;
    println!("stopped within {:?} while the engine was away; {accepted} beacons", begun.elapsed());
    service.start(&[]).await?;
    verify(service, accepted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_is_frozen() -> Result<()> {
    let _alone = ALONE.lock().await;
    let service = started().await?;
    let mut beacons = Beacons::start(service.address());
    let before = pid(&service)?;
    signal(before, "STOP")?;
    let seen = outage(&service, &mut beacons, before).await?;
    println!(
        "frozen: a good report after {:?}; {} reports refused, the slowest after {:?}",
        seen.lasted, seen.refused, seen.slowest
    );
    ensure!(seen.refused > 0 && seen.slowest <= REFUSED_WITHIN, "a report is refused after {:?}", seen.slowest);
    let within = SILENCE_MAX + FIRST_PAUSE + REPORTS_WITHIN + Duration::from_secs(2);
    ensure!(seen.lasted <= within, "back after {:?}", seen.lasted);
    verify(service, beacons.end().await?).await
}

/// ClickHouse ends by itself at a request that is not HTTP, or that stops in the middle of its head (`clickhouse local` treats each connection error
/// as fatal).
#[tokio::test(flavor = "multi_thread")]
async fn any_local_program_sends_nonsense_to_the_engines_port() -> Result<()> {
    let _alone = ALONE.lock().await;
    let service = started().await?;
    let mut beacons = Beacons::start(service.address());
    let url: url::Url = service.clickhouse_url()?.parse()?;
    let port = url.port().context("the engine's port")?;
    let open = |count: usize| -> Result<Vec<TcpStream>> {
        let streams = (0..count).map(|_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n")?;
            Ok(stream)
        });
        streams.collect()
    };
    // While these connections are open, reports are still served.
    let half_open = open(300)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        beacons.check()?;
        service.report("docs", &month()).await?;
    }
    let before = pid(&service)?;
    drop(half_open);
    let seen = outage(&service, &mut beacons, before).await?;
    println!("300 half-open connections, closed: a good report after {:?}", seen.lasted);
    let before = pid(&service)?;
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))?.write_all(b"\0\xff\r\n\r\n")?;
    let seen = outage(&service, &mut beacons, before).await?;
    println!("one request that is no HTTP: a good report after {:?}", seen.lasted);
    verify(service, beacons.end().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_drains_like_a_stop() -> Result<()> {
    let mut service = started().await?;
    let beacons = Beacons::start(service.address());
    eventually("some beacons", async || {
        ensure!(beacons.accepted.load(Ordering::Relaxed) > 50, "not yet");
        Ok(())
    })
    .await?;
    let accepted = beacons.end().await?;
    service.hang_up().await?;
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["accepted"] == accepted, "{audit}");
    Ok(())
}
