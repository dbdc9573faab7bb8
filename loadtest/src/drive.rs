//! One run over keep-alive connections, each with one request in flight.
//!
//! *Closed*: a connection posts a beacon, waits for its response, and posts the next. There are never more requests in flight than connections, and a
//! slow server gets fewer requests; latency is from the first byte out.
//!
//! *Open*, with a rate: beacon k is due k / rate seconds after the start, whatever the outcome of earlier ones, and latency is from that moment.
//! While all connections wait for responses, a beacon goes out late, and its wait for a connection is part of its latency. So a server that stalls
//! does not reduce the load that is measured (coordinated omission).
//!
//! Beacons that are due when the time is up may still go out for a second. The rest are counted as unsent, and still count as due. The timer's tick
//! is a millisecond, so a latency may be measured up to that much too long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::figures::ACCEPTED;
use crate::target::Target;
use crate::wire::{Response, parse_response};

/// How long a request may still be unanswered when the run's time is up.
const GRACE: Duration = Duration::from_secs(10);

/// How long after the end of the time a beacon that was due before it may still go out.
const LATE: Duration = Duration::from_secs(1);

/// A connection that fails this often in a row is abandoned.
const FAILURES_IN_A_ROW: u32 = 3;

/// The limits of one run; it ends at `count` or `time`, whichever is reached first.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of beacons.
    pub count: u32,
    /// Maximum time for posting beacons.
    pub time: Duration,
    /// Connections, at least one.
    pub connections: u32,
    /// Threads of the client, at least one.
    pub threads: u32,
    /// Beacons a second, due at equal intervals; none for a closed loop.
    pub rate: Option<f64>,
}

/// Which requests are sent: request `k` of run `run` is a function of the two.
pub trait Beacons: Send + Sync {
    /// The parts of a request that are the same for every beacon to the server called `authority`.
    fn request_head(&self, authority: &str) -> Vec<u8>;

    /// Replaces `request` by the whole request number `k`. `body` is scratch space.
    fn write_request(&self, run: u32, k: u32, head: &[u8], body: &mut Vec<u8>, request: &mut Vec<u8>);
}

/// The observations of one run.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Microseconds from the first byte out (open loop: from the due time) to the last byte in, and the status, of every answered request.
    pub answers: Vec<(u32, u16)>,
    /// Beacons that were due: in a closed loop, those that were sent.
    pub due: u64,
    /// Due beacons that found no connection until a second after the run's time was up. None in a closed loop.
    pub unsent: u64,
    /// Beacons of an open loop that went out late because every connection waited for an answer.
    pub queued: u64,
    /// Microseconds by which the others of an open loop went out late: the client's own lag, since a connection was free.
    pub lags: Vec<u32>,
    /// Requests lost to a broken connection or an answer that was not understood.
    pub transport_errors: u64,
    /// Requests still unanswered 10 s after the run's time was up.
    pub unanswered: u64,
    /// The first transport error, for the report.
    pub first_error: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

/// Everything the connections of a run share.
struct Shared {
    beacons: Arc<dyn Beacons>,
    addresses: Vec<SocketAddr>,
    head: Vec<u8>,
    run: u32,
    count: u32,
    rate: Option<f64>,
    start: Instant,
    /// The next beacon to post. A shared counter keeps a slow connection from delaying the end of the run.
    next: AtomicU32,
}

impl Observed {
    /// Adds the observations of another run, or of another connection.
    pub fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.lags.extend(other.lags);
        self.due += other.due;
        self.unsent += other.unsent;
        self.queued += other.queued;
        self.transport_errors += other.transport_errors;
        self.unanswered += other.unanswered;
        self.first_error = self.first_error.take().or(other.first_error);
        self.elapsed += other.elapsed;
    }

    /// Beacons that were answered 202.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.answers.iter().filter(|(_, status)| *status == ACCEPTED).count() as u64
    }
}

/// [`run`] on a separate thread, for async code.
///
/// # Errors
/// As for [`run`].
pub async fn observe(
    beacons: &Arc<dyn Beacons>,
    target: &Target,
    number: u32,
    limits: Limits,
) -> anyhow::Result<Observed> {
    let (beacons, target) = (Arc::clone(beacons), target.clone());
    let observed = tokio::task::spawn_blocking(move || run(&beacons, &target, number, limits));
    observed.await.context("the load test's thread panicked")?
}

/// Opens all connections, then posts the beacons of run `run` until a limit is reached. Blocks.
///
/// The client runs on separate threads with one reactor each. They steal no work from each other, which would cost wake-ups, and the caller's runtime
/// is not affected.
///
/// # Errors
/// A connection cannot be opened at the start. Later failures are counted in [`Observed`].
pub fn run(beacons: &Arc<dyn Beacons>, target: &Target, run: u32, limits: Limits) -> anyhow::Result<Observed> {
    let threads = limits.threads.clamp(1, limits.connections.max(1)) as usize;
    let mut shares: Vec<Vec<std::net::TcpStream>> = (0..threads).map(|_| Vec::new()).collect();
    for n in 0..limits.connections.max(1) as usize {
        let stream =
            open(&target.addresses).with_context(|| format!("opening connection {} to {}", n + 1, target.authority))?;
        shares[n % threads].push(stream);
    }
    let start = Instant::now();
    let shared = Arc::new(Shared {
        beacons: Arc::clone(beacons),
        addresses: target.addresses.clone(),
        head: beacons.request_head(&target.authority),
        run,
        count: limits.count,
        rate: limits.rate,
        start,
        next: AtomicU32::new(0),
    });
    let deadline = start + limits.time;
    let handles: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || drive_share(share, &shared, deadline))
        })
        .collect();
    let mut total = Observed::default();
    let mut end = start;
    for handle in handles {
        for worker in handle.join().map_err(|_| anyhow!("a client thread panicked"))?? {
            end = worker.last_answer.map_or(end, |at| end.max(at));
            total.add(worker.observed);
        }
    }
    total.elapsed = end - start;
    let sent = total.answers.len() as u64 + total.transport_errors + total.unanswered;
    total.due = limits.rate.map_or(sent, |rate| due_within(rate, limits.time).min(limits.count.into()));
    total.unsent = total.due.saturating_sub(sent);
    Ok(total)
}

/// The time from the start until beacon `k` is due.
fn due_after(k: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(k as f64 / rate)
}

/// Beacons that are due within `time`.
fn due_within(rate: f64, time: Duration) -> u64 {
    let about = (time.as_secs_f64() * rate).ceil() as u64 + 1;
    // The last ones one by one: a product and a quotient round differently.
    (about.saturating_sub(2)..=about).find(|&k| due_after(k, rate) >= time).unwrap_or(about)
}

fn open(addresses: &[SocketAddr]) -> std::io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect(addresses)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Drives one thread's connections to the end.
fn drive_share(
    share: Vec<std::net::TcpStream>,
    shared: &Arc<Shared>,
    deadline: Instant,
) -> anyhow::Result<Vec<Worker>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting a client thread's reactor")?;
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for stream in share {
            let connection = Connection { stream: TcpStream::from_std(stream)?, received: Vec::new() };
            let shared = Arc::clone(shared);
            tasks.spawn(async move {
                let mut worker = Worker::default();
                // One timer a connection, not one a request: timers are not free.
                let give_up = tokio::time::Instant::from_std(deadline + GRACE);
                if tokio::time::timeout_at(give_up, worker.post_all(connection, &shared, deadline)).await.is_err() {
                    worker.observed.unanswered += u64::from(worker.in_flight);
                }
                worker
            });
        }
        Ok(tasks.join_all().await)
    })
}

/// The observations of one connection (and of those that replaced it).
#[derive(Default)]
struct Worker {
    observed: Observed,
    last_answer: Option<Instant>,
    in_flight: bool,
}

impl Worker {
    async fn post_all(&mut self, connection: Connection, shared: &Shared, deadline: Instant) {
        let (mut body, mut request) = (Vec::new(), Vec::new());
        let mut connection = Some(connection);
        let mut failures = 0;
        let until = if shared.rate.is_some() { deadline + LATE } else { deadline };
        while failures < FAILURES_IN_A_ROW && Instant::now() < until {
            let k = shared.next.fetch_add(1, Ordering::Relaxed);
            if k >= shared.count {
                return;
            }
            shared.beacons.write_request(shared.run, k, &shared.head, &mut body, &mut request);
            let mut due = None;
            if let Some(rate) = shared.rate {
                let at = shared.start + due_after(k.into(), rate);
                if at >= deadline {
                    return;
                }
                if Instant::now() < at {
                    tokio::time::sleep_until(at.into()).await;
                    self.observed.lags.push(micros(at.elapsed()));
                } else {
                    self.observed.queued += 1;
                }
                due = Some(at);
            }
            self.in_flight = true;
            let sent = due.unwrap_or_else(Instant::now);
            match post(&mut connection, &shared.addresses, &request).await {
                Ok(response) => {
                    failures = 0;
                    let now = Instant::now();
                    self.observed.answers.push((micros(now - sent), response.status));
                    self.last_answer = Some(now);
                }
                Err(error) => {
                    failures += 1;
                    connection = None;
                    self.observed.transport_errors += 1;
                    self.observed.first_error.get_or_insert_with(|| format!("{error:#}"));
                }
            }
            self.in_flight = false;
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Posts one request, on a new connection if the last one is closed.
async fn post(slot: &mut Option<Connection>, addresses: &[SocketAddr], request: &[u8]) -> anyhow::Result<Response> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(Connection::connect(addresses).await.context("connecting again")?),
    };
    let response = connection.exchange(request).await?;
    if response.close {
        *slot = None;
    }
    Ok(response)
}

/// A keep-alive connection.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    async fn connect(addresses: &[SocketAddr]) -> std::io::Result<Self> {
        let stream = TcpStream::connect(addresses).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        self.stream.write_all(request).await.context("sending a beacon")?;
        self.received.clear();
        self.received.reserve(1024);
        loop {
            let n = self.stream.read_buf(&mut self.received).await.context("reading an answer")?;
            anyhow::ensure!(n > 0, "the server closed the connection without an answer");
            if let Some(response) = parse_response(&self.received)? {
                // Bytes past the end belong to no request; the next response could not be trusted.
                anyhow::ensure!(self.received.len() == response.length_bytes, "the server sent more than one answer");
                return Ok(response);
            }
            self.received.reserve(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::month::beacons::{Form, Readers};

    const LIMITS: Limits = Limits { count: 40, time: Duration::from_secs(20), connections: 4, threads: 2, rate: None };

    fn scenario() -> Arc<dyn Beacons> {
        Arc::new(Readers::of_one(1, Form::Headcount))
    }

    /// A server that serves each connection with `answer` until the client leaves or `answer` is `None`.
    fn serve(answer: impl Fn(usize) -> Option<&'static [&'static str]> + Send + Sync + 'static) -> Target {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::at(listener.local_addr().unwrap());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, answer) = (stream.unwrap(), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    for n in 0.. {
                        // The client sends a request in one piece and nothing before its answer.
                        if stream.read(&mut buffer).unwrap_or(0) == 0 {
                            return;
                        }
                        let Some(pieces) = answer(n) else { return };
                        for piece in pieces {
                            stream.write_all(piece.as_bytes()).unwrap();
                        }
                    }
                });
            }
        });
        target
    }

    #[test]
    fn every_beacon_is_posted_once_and_statuses_are_kept() {
        let target = serve(|n| match n % 2 {
            0 => Some(&["HTTP/1.1 202 Accepted\r\ncontent-", "length: 2\r\n\r\no", "k"]),
            _ => Some(&["HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"]),
        });
        let seen = run(&scenario(), &target, 0, LIMITS).unwrap();
        assert_eq!(seen.answers.len(), 40);
        assert!(seen.answers.iter().any(|a| a.1 == 202) && seen.answers.iter().any(|a| a.1 == 429));
        assert_eq!((seen.transport_errors, seen.unanswered, seen.first_error), (0, 0, None));
    }

    #[test]
    fn a_server_that_hangs_up_is_counted_and_connected_again() {
        let target = serve(|n| (n == 0).then_some(&["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"]));
        let seen = run(&scenario(), &target, 0, LIMITS).unwrap();
        assert_eq!(seen.answers.len() as u64 + seen.transport_errors, 40);
        assert!(seen.transport_errors > 0 && seen.first_error.is_some());
    }

    #[test]
    fn a_polite_close_is_no_error() {
        let target = serve(|_| Some(&["HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"]));
        let seen = run(&scenario(), &target, 0, LIMITS).unwrap();
        assert_eq!((seen.answers.len(), seen.transport_errors), (40, 0));
    }

    #[test]
    fn an_open_loop_asks_at_its_rate_and_counts_the_wait_of_those_that_are_late() {
        let brisk = serve(|_| Some(&["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"]));
        let limits = Limits { rate: Some(100.0), ..LIMITS };
        let seen = run(&scenario(), &brisk, 0, limits).unwrap();
        // The last of forty is due after 390 ms.
        assert_eq!(seen.answers.len(), 40);
        assert!(seen.elapsed >= Duration::from_millis(389), "{:?}", seen.elapsed);

        // Each response takes 40 ms and there is one connection: beacon k is answered at 40 (k + 1) ms, and was due at 10 k.
        let slow = serve(|_| {
            std::thread::sleep(Duration::from_millis(40));
            Some(&["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"])
        });
        let limits = Limits { count: 10, connections: 1, threads: 1, ..limits };
        let seen = run(&scenario(), &slow, 0, limits).unwrap();
        assert!(seen.answers[9].0 >= 310_000, "{:?}", seen.answers);
        assert!(seen.answers.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", seen.answers);
        // The server causes this: except for the first beacons, the one connection was never free when a beacon was due.
        assert_eq!((seen.queued + seen.lags.len() as u64, seen.queued >= 8), (10, true));
    }

    #[test]
    fn what_was_due_and_never_sent_is_counted() {
        let slow = serve(|_| {
            std::thread::sleep(Duration::from_millis(100));
            Some(&["HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"])
        });
        let time = Duration::from_millis(300);
        let limits = Limits { time, connections: 1, rate: Some(100.0), ..LIMITS };
        // Thirty are due, and there is time for thirteen.
        let seen = run(&scenario(), &slow, 0, limits).unwrap();
        assert_eq!((seen.due, seen.answers.len() as u64 + seen.unsent), (30, 30));
        assert!((10..=14).contains(&seen.answers.len()), "{}", seen.answers.len());
        // Those that are only late are sent.
        let seen = run(&scenario(), &slow, 0, Limits { connections: 16, ..limits }).unwrap();
        assert_eq!((seen.due, seen.answers.len(), seen.unsent), (30, 30, 0));
        // A closed loop owes nothing.
        let seen = run(&scenario(), &slow, 0, Limits { rate: None, ..limits }).unwrap();
        assert_eq!((seen.due, seen.unsent), (seen.answers.len() as u64, 0));
    }

    #[test]
    fn what_is_due_is_counted_to_the_beacon() {
        for (rate, ms, due) in [(100.0, 300, 30), (3.0, 1_000, 3), (0.7, 10_000, 7), (47_258.0, 20_000, 945_160)] {
            assert_eq!(due_within(rate, Duration::from_millis(ms)), due, "{rate} for {ms} ms");
        }
        assert_eq!(due_within(1.0, Duration::from_millis(1)), 1, "the first is due at once");
    }

    #[test]
    fn an_absent_server_is_an_immediate_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::at(listener.local_addr().unwrap());
        drop(listener);
        let error = run(&scenario(), &target, 0, LIMITS).unwrap_err();
        assert!(format!("{error:#}").contains("opening connection 1 to 127.0.0.1"), "{error:#}");
    }
}
