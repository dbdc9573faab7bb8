//! What no well-behaved client sends, written to the socket by hand.

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
        // Ends when the service has closed its side.
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

/// A head that is never finished: the service hangs up.
pub async fn half_a_head(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(HEAD.as_bytes()).await?;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    ended.with_context(|| format!("the connection is still open; it said {:?}", String::from_utf8_lossy(&rest)))??;
    ensure!(!rest.starts_with(b"HTTP/1.1 2"), "half a head is no request: {:?}", String::from_utf8_lossy(&rest));
    Ok(())
}

async fn read(mut stream: impl AsyncReadExt + Unpin) -> Result<Answer> {
    let mut bytes = Vec::new();
    let mut piece = [0u8; 4096];
    // A service that hangs up on unread bytes resets the connection; what it said before still counts.
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
