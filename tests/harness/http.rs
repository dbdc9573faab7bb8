//! A small HTTP/1.1 client: one keep-alive connection that reports when it breaks. It retries nothing.

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use tokio::net::{TcpSocket, TcpStream};

/// One answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; the error shows the actual body.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: no JSON: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// One connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects to a service on loopback.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        Connection::over(TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?)
            .await
    }

    /// Connects from another loopback IP address, as another client.
    pub async fn open_from(source: IpAddr, address: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source, 0))?;
        Connection::over(socket.connect(address).await?).await
    }

    async fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender })
    }

    /// Whether the server has closed it, as it does with idle connections.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends one request and reads its answer.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(method).uri(path).header("host", "headcount.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body.into()))?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// One request with a token.
pub async fn get_as(address: SocketAddr, path: &str, token: &str) -> Result<Answer> {
    let authorization = format!("Bearer {token}");
    Connection::open(address).await?.send("GET", path, &[("authorization", &authorization)], Bytes::new()).await
}

/// One request whose response must not come from a cache: the current figures.
pub async fn get_now(address: SocketAddr, path: &str) -> Result<Answer> {
    Connection::open(address).await?.send("GET", path, &[("cache-control", "no-cache")], Bytes::new()).await
}

/// One request on a separate connection.
pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    Connection::open(address).await?.send("GET", path, &[], Bytes::new()).await
}
