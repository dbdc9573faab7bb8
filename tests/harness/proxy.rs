//! A TCP proxy with faults on demand: slow, cut, reset and held links, acknowledgements that never arrive, and inserts that are delivered again
//! later.

use anyhow::{Context, Result, bail, ensure};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Bytes passed on in one piece; small, so that a throttle is smooth.
const PIECE: usize = 16 << 10;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    ToServer,
    ToClient,
}

#[derive(Default)]
struct Faults {
    delay_ms: AtomicU64,
    /// Bytes a second, each way of each connection; 0 for no bound.
    throttle: AtomicU64,
    refuse: AtomicBool,
    /// No bytes pass in either direction, and no connection is closed.
    hold: AtomicBool,
    /// Only requests pass.
    hold_answers: AtomicBool,
    /// Responses to swallow; each ends its connection.
    swallow: AtomicU64,
    inspect: AtomicBool,
}

/// How often each fault took effect.
#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    cut: AtomicU64,
    swallowed: AtomicU64,
    refused: AtomicU64,
}

struct Shared {
    upstream: SocketAddr,
    /// Takes every second connection.
    second: Mutex<Option<SocketAddr>>,
    faults: Faults,
    counts: Counts,
    /// Incremented to cut all connections.
    cut: watch::Sender<u64>,
    /// Raised to end all connections.
    end: watch::Sender<u64>,
    healed: Notify,
    captured: Mutex<Vec<Vec<u8>>>,
}

/// A proxy on a free port of loopback. Dropping it cuts all connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Proxy {
    /// A proxy before `upstream`, on `port` or a free one.
    pub async fn start(upstream: SocketAddr, port: Option<u16>) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0))).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream,
            second: Mutex::default(),
            faults: Faults::default(),
            counts: Counts::default(),
            cut: watch::Sender::new(0),
            end: watch::Sender::new(0),
            healed: Notify::new(),
            captured: Mutex::default(),
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(serve(Arc::clone(&shared), client));
                }
            }
        });
        Ok(Proxy { address, shared, accepting })
    }

    /// Its listen address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects every second connection to another server from now on.
    pub fn alternate(&self, second: SocketAddr) {
        *locked(&self.shared.second) = Some(second);
    }

    /// Delays each piece of bytes.
    pub fn delay(&self, delay: Duration) {
        self.shared.faults.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Limits each connection to this many bytes a second each way; 0: no limit.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.shared.faults.throttle.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Resets new connections immediately.
    pub fn refuse(&self, refuse: bool) {
        self.shared.faults.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Holds all bytes without closing connections, until released.
    pub fn hold(&self, hold: bool) {
        self.shared.faults.hold.store(hold, Ordering::SeqCst);
        self.shared.healed.notify_waiters();
    }

    /// Requests pass, and responses are held until released: the server is slow, or seems so.
    pub fn hold_answers(&self, hold: bool) {
        self.shared.faults.hold_answers.store(hold, Ordering::SeqCst);
        self.shared.healed.notify_waiters();
    }

    /// Ends all open connections like a server that is stopped: an orderly end, no reset.
    pub fn end(&self) {
        self.shared.end.send_modify(|end| *end += 1);
    }

    /// Resets all open connections.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cut| *cut += 1);
    }

    /// Swallows the next responses, on whatever connection, and resets their connections: the requests were executed, and no client learns of it.
    pub fn swallow(&self, answers: u64) {
        self.shared.faults.swallow.store(answers, Ordering::SeqCst);
    }

    /// From the next connection on, whole HTTP requests whose head contains `INSERT` are remembered.
    pub fn inspect(&self) {
        self.shared.faults.inspect.store(true, Ordering::SeqCst);
    }

    /// The captured requests since the last call.
    pub fn captured(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *locked(&self.shared.captured))
    }

    /// Sends a captured request to the server again, past all faults; returns the status.
    pub async fn replay(&self, request: &[u8]) -> Result<u16> {
        let mut stream = TcpStream::connect(self.shared.upstream).await?;
        stream.write_all(request).await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        std::str::from_utf8(&head[9..12])?.parse().context("a status")
    }

    /// No faults.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
        self.throttle(0);
        self.refuse(false);
        self.swallow(0);
        self.hold(false);
        self.hold_answers(false);
    }

    /// Connections so far, connections cut or ended, responses swallowed, connections refused.
    pub fn counts(&self) -> [u64; 4] {
        let counts = &self.shared.counts;
        [&counts.connections, &counts.cut, &counts.swallowed, &counts.refused].map(|count| count.load(Ordering::SeqCst))
    }

    /// Fails unless a fault took effect: connections were cut, responses swallowed or connections refused.
    pub fn bit(&self) -> Result<()> {
        let [connections, cut, swallowed, refused] = self.counts();
        ensure!(cut + swallowed + refused > 0, "no fault bit any of {connections} connections");
        Ok(())
    }
}

/// Makes the other end see a reset, not an orderly end.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn serve(shared: Arc<Shared>, mut client: TcpStream) {
    let number = shared.counts.connections.fetch_add(1, Ordering::SeqCst);
    reset(&client);
    if shared.faults.refuse.load(Ordering::SeqCst) {
        shared.counts.refused.fetch_add(1, Ordering::SeqCst);
        return;
    }
    let upstream = locked(&shared.second).filter(|_| number % 2 == 1).unwrap_or(shared.upstream);
    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut cut = shared.cut.subscribe();
    cut.mark_unchanged();
    let mut end = shared.end.subscribe();
    end.mark_unchanged();
    let inspector = shared.faults.inspect.load(Ordering::SeqCst).then(Inspector::default);
    let orderly = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pass(&shared, Way::ToServer, from_client, to_server, inspector);
        let down = pass(&shared, Way::ToClient, from_server, to_client, None);
        tokio::select! {
            // Whichever direction ends first ends the other one, once the remaining requests have been answered.
            _ = async { tokio::join!(up, down) } => false,
            _ = cut.changed() => {
                shared.counts.cut.fetch_add(1, Ordering::SeqCst);
                false
            }
            _ = end.changed() => {
                shared.counts.cut.fetch_add(1, Ordering::SeqCst);
                true
            }
        }
    };
    if orderly {
        let _ = socket2::SockRef::from(&client).set_linger(None);
        // Closing with unread bytes would also cause a reset.
        let mut unread = vec![0; PIECE];
        while client.try_read(&mut unread).is_ok_and(|read| read > 0) {}
    }
}

async fn pass(
    shared: &Arc<Shared>,
    way: Way,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut inspector: Option<Inspector>,
) {
    let mut piece = vec![0; PIECE];
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            break;
        }
        let faults = &shared.faults;
        let take = |left: u64| left.checked_sub(1);
        if way == Way::ToClient && faults.swallow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            shared.counts.swallowed.fetch_add(1, Ordering::SeqCst);
            // The client sees an orderly end of the connection instead.
            break;
        }
        loop {
            let healed = shared.healed.notified();
            let answer_held = way == Way::ToClient && faults.hold_answers.load(Ordering::SeqCst);
            if !answer_held && !faults.hold.load(Ordering::SeqCst) {
                break;
            }
            healed.await;
        }
        let delay = faults.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let throttle = faults.throttle.load(Ordering::SeqCst);
        if throttle > 0 {
            tokio::time::sleep(Duration::from_secs_f64(read as f64 / throttle as f64)).await;
        }
        if let Some(inspector) = &mut inspector {
            locked(&shared.captured).extend(inspector.saw(&piece[..read]));
        }
        if to.write_all(&piece[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Takes the requests out of a client's bytes.
#[derive(Default)]
struct Inspector {
    seen: Vec<u8>,
}

impl Inspector {
    /// Complete requests with `INSERT` in their head that ended with these bytes.
    fn saw(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.seen.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Ok(length) = request_length(&self.seen) {
            let request: Vec<u8> = self.seen.drain(..length).collect();
            let head = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(0);
            if request[..head].windows(6).any(|word| word == b"INSERT") {
                found.push(request);
            }
        }
        found
    }
}

/// Length of the HTTP/1.1 request at the start of the bytes, if it is complete.
fn request_length(bytes: &[u8]) -> Result<usize> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").context("no whole head")? + 4;
    let text = std::str::from_utf8(&bytes[..head])?.to_ascii_lowercase();
    let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    if header("transfer-encoding") == Some("chunked") {
        let mut at = head;
        loop {
            let line = bytes[at..].windows(2).position(|end| end == b"\r\n").context("no whole chunk")?;
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line])?.trim(), 16)?;
            at += line + 2 + size + 2;
            if at > bytes.len() {
                bail!("no whole chunk");
            }
            if size == 0 {
                return Ok(at);
            }
        }
    }
    let body: usize = header("content-length").map_or(Ok(0), str::parse)?;
    ensure!(bytes.len() >= head + body, "no whole body");
    Ok(head + body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all bytes that it receives.
    async fn echo() -> Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        Ok(address)
    }

    async fn said(stream: &mut TcpStream, word: &[u8]) -> Result<()> {
        stream.write_all(word).await?;
        let mut back = vec![0; word.len()];
        tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut back)).await??;
        ensure!(back == word, "other bytes came back");
        Ok(())
    }

    #[tokio::test]
    async fn each_fault_bites_and_heals() -> Result<()> {
        let proxy = Proxy::start(echo().await?, None).await?;
        let mut stream = TcpStream::connect(proxy.address()).await?;
        said(&mut stream, b"hello").await?;
        let long: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
        let (mut read, mut write) = TcpStream::connect(proxy.address()).await?.into_split();
        let sent = long.clone();
        let sender = tokio::spawn(async move { write.write_all(&sent).await.map(|()| write) });
        let mut back = vec![0; long.len()];
        read.read_exact(&mut back).await?;
        ensure!(back == long, "long bytes come back as they went");
        drop(sender.await??);

        proxy.hold(true);
        stream.write_all(b"held").await?;
        let mut back = [0; 4];
        let waited = tokio::time::timeout(Duration::from_millis(100), stream.read_exact(&mut back)).await;
        ensure!(waited.is_err(), "nothing passes while it is held");
        proxy.hold(false);
        stream.read_exact(&mut back).await?;

        proxy.swallow(1);
        ensure!(said(&mut stream, b"lost").await.is_err(), "the answer is swallowed");
        let mut stream = TcpStream::connect(proxy.address()).await?;
        said(&mut stream, b"again").await?;

        proxy.cut();
        ensure!(said(&mut stream, b"cut").await.is_err(), "the connection is cut");
        proxy.refuse(true);
        let refused = async { said(&mut TcpStream::connect(proxy.address()).await?, b"refused").await };
        ensure!(refused.await.is_err(), "new ones are refused");
        proxy.heal();
        said(&mut TcpStream::connect(proxy.address()).await?, b"healed").await?;
        let [_, cut, swallowed, refused] = proxy.counts();
        ensure!(cut >= 1 && swallowed == 1 && refused == 1, "{:?}", proxy.counts());
        Ok(())
    }

    /// A client whose bytes went through, with nothing of it unread.
    async fn greeted(proxy: &Proxy) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(proxy.address()).await?;
        said(&mut stream, b"hello").await?;
        Ok(stream)
    }

    #[tokio::test]
    async fn an_end_is_orderly_and_an_abort_is_not() -> Result<()> {
        let proxy = Proxy::start(echo().await?, None).await?;
        let mut stream = greeted(&proxy).await?;
        proxy.end();
        ensure!(stream.read(&mut [0]).await? == 0, "the client is told of an end");
        let mut stream = greeted(&proxy).await?;
        proxy.cut();
        let told = stream.read(&mut [0]).await.err().map(|error| error.kind());
        ensure!(told == Some(std::io::ErrorKind::ConnectionReset), "the client is told {told:?}");
        ensure!(proxy.counts()[1] == 2, "{:?}", proxy.counts());
        Ok(())
    }

    #[tokio::test]
    async fn what_is_asked_passes_while_answers_are_held() -> Result<()> {
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let proxy = Proxy::start(upstream.local_addr()?, None).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        let (mut server, _) = upstream.accept().await?;
        proxy.hold_answers(true);
        client.write_all(b"asked").await?;
        let mut seen = [0; 5];
        server.read_exact(&mut seen).await?;
        server.write_all(b"told!").await?;
        let waited = tokio::time::timeout(Duration::from_millis(100), client.read_exact(&mut seen)).await;
        ensure!(waited.is_err(), "an answer passed");
        proxy.heal();
        client.read_exact(&mut seen).await?;
        ensure!(&seen == b"told!", "the answer comes as it was");
        Ok(())
    }

    #[test]
    fn whole_inserts_are_taken_out_of_a_stream() {
        let insert = b"POST /?query=INSERT+x HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let select = b"POST /?query=SELECT HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc";
        let stream = [&select[..], insert, select, insert].concat();
        for size in [1, 7, stream.len()] {
            let mut inspector = Inspector::default();
            let found: Vec<_> = stream.chunks(size).flat_map(|bytes| inspector.saw(bytes)).collect();
            assert_eq!(found, [insert.to_vec(), insert.to_vec()], "in pieces of {size}");
        }
    }
}
