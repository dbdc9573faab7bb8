//! Requests that no well-behaved client sends, written to the socket by hand.

use anyhow::{Context, Result, ensure};
use harness::http::Answer;
use harness::service::PATIENCE;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEAD: &str = "POST /v1/pageview HTTP/1.1\r\nhost: headcount.test\r\nconnection: close\r\n";

/// A body of one chunk, without its length in the head.
pub async fn chunked(address: SocketAddr, body: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()).await?;
    read(stream).await
}

/// A body that never ends, one byte after another.
pub async fn dribbled(address: SocketAddr) -> Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{HEAD}content-length: 10000\r\n\r\n").as_bytes()).await?;
    let (reader, mut writer) = stream.into_split();
    let drops = async {
        // Ends once the service has closed its side.
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = read(reader) => answer,
        () = drops => unreachable!(),
    }
}

/// A request, and whether the client then shuts its output down.
struct Sent {
    name: &'static str,
    bytes: Vec<u8>,
    ends: bool,
    status: u16,
}

fn sent(name: &'static str, status: u16, bytes: impl Into<Vec<u8>>) -> Sent {
    Sent { name, bytes: bytes.into(), ends: false, status }
}

fn cut_off(name: &'static str, status: u16, bytes: impl Into<Vec<u8>>) -> Sent {
    Sent { ends: true, ..sent(name, status, bytes) }
}

fn with_headers(headers: &str) -> String {
    format!("GET /healthz HTTP/1.1\r\nhost: headcount.test\r\nconnection: close\r\n{headers}\r\n")
}

fn heads() -> Vec<Sent> {
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let url = |bytes: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(bytes));
    vec![
        sent("a good head", 200, with_headers("")),
        sent("HTTP/1.0 without Host", 200, "GET /healthz HTTP/1.0\r\n\r\n"),
        sent("no Host", 400, "GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"),
        sent("two Hosts", 400, with_headers("host: other.test\r\n")),
        sent("Host with a path", 400, "GET /healthz HTTP/1.1\r\nhost: a/b\r\n\r\n"),
        sent("a TLS greeting", 400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        sent("a version that is not", 400, "GET / HTTP/3.0\r\nhost: a\r\n\r\n"),
        sent("HTTP/2", 400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        sent("a header without colon", 400, with_headers("nothing here\r\n")),
        sent("a header with NUL", 400, with_headers("x: a\0b\r\n")),
        sent("Content-Length is a word", 400, with_headers("content-length: many\r\n")),
        sent("two Content-Lengths", 400, with_headers("content-length: 1\r\ncontent-length: 2\r\n")),
        sent("Transfer-Encoding is not chunked", 400, with_headers("transfer-encoding: gzip\r\n")),
        sent("a URL of 17 KiB", 414, url(17 << 10)),
        sent("a URL longer than a head may be", 431, url(70 << 10)),
        sent("101 headers", 431, with_headers(&many)),
        sent("a header of 40 KiB", 431, with_headers(&format!("x: {}\r\n", "x".repeat(40 << 10)))),
        sent("a header of 512 KiB", 431, with_headers(&format!("x: {}\r\n", "x".repeat(512 << 10)))),
        sent("a head that never ends", 408, HEAD),
        cut_off("a head that is cut off", 400, HEAD),
    ]
}

fn bodies() -> Vec<Sent> {
    let posted = |headers: &str, body: &[u8]| [format!("{HEAD}{headers}\r\n").as_bytes(), body].concat();
    let large = vec![b' '; 512 << 10];
    let chunk = [b"80000\r\n".as_slice(), &large, b"\r\n0\r\n\r\n"].concat();
    vec![
        sent("a body of 512 KiB", 413, posted("content-length: 524288\r\n", &large)),
        sent("half of a body of 1 MiB", 413, posted("content-length: 1048576\r\n", &large)),
        sent("512 KiB in a chunk", 413, posted("transfer-encoding: chunked\r\n", &chunk)),
        sent("a chunk without its length", 400, posted("transfer-encoding: chunked\r\n", b"long\r\n{}\r\n0\r\n\r\n")),
        cut_off("a body that is cut off", 400, posted("content-length: 100\r\n", b"{}")),
        sent("a body that never comes", 408, posted("content-length: 100\r\n", b"")),
    ]
}

/// Everything is sent before the response is read, as simple clients do: bytes that the service does not read must not lose the response. Returns the
/// statuses of the beacons among the requests.
pub async fn malformed(address: SocketAddr) -> Result<Vec<u16>> {
    for case in heads() {
        status_of(address, &case).await?;
    }
    let mut beacons = Vec::new();
    for case in bodies() {
        status_of(address, &case).await?;
        beacons.push(case.status);
    }
    Ok(beacons)
}

async fn status_of(address: SocketAddr, case: &Sent) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&case.bytes).await.with_context(|| case.name)?;
    if case.ends {
        stream.shutdown().await?;
    }
    let answer = read(stream).await.with_context(|| case.name)?;
    ensure!(answer.status == case.status, "{}: {} instead of {}", case.name, answer.status, case.status);
    let closes = answer.headers.get("connection").is_some_and(|value| value == "close");
    ensure!(closes || answer.status == 200, "{}: says that it closes: {:?}", case.name, answer.headers);
    ensure!(answer.headers.contains_key("date"), "{}: has a date: {:?}", case.name, answer.headers);
    println!("{}: {}", case.status, case.name);
    Ok(())
}

async fn read(mut stream: impl AsyncReadExt + Unpin) -> Result<Answer> {
    let mut bytes = Vec::new();
    let mut piece = [0u8; 4096];
    // Closing a socket with unread bytes resets the connection; what the service sent before still counts.
    let reading = async {
        while let Ok(length @ 1..) = stream.read(&mut piece).await {
            bytes.extend_from_slice(&piece[..length]);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.context("an answer was not finished")?;
    let text = String::from_utf8(bytes)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("no answer: {text:?}"))?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status")?;
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(http::HeaderName::from_bytes(name.as_bytes())?, value.parse()?);
    }
    Ok(Answer { status: status.parse()?, headers, body: body.to_owned().into() })
}
