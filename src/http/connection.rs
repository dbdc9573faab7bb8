//! One connection, from the first byte to an end at which the client can read the last response.

use super::request;
use super::stream::{BoundedStream, CaughtUp};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;

/// Time and bytes to read and drop after the last response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Serves the requests of one connection until it ends, or until `stopping` changes and the request in progress is answered.
pub(super) async fn serve(
    builder: http1::Builder,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<()>,
) {
    let caught_up = CaughtUp::new();
    let bounded = BoundedStream::new(stream, caught_up.clone());
    let service = service_fn(move |request| {
        let (router, is_pipelined) = (router.clone(), !caught_up.next_request());
        async move {
            if is_pipelined {
                // hyper would answer up to 16 in a row while requests of other connections wait.
                tokio::task::yield_now().await;
            }
            answer(router, peer, request).await
        }
    });
    let mut connection = builder.serve_connection(TokioIo::new(bounded), service);
    let ended = tokio::select! {
        biased;
        outcome = &mut connection => Some(outcome),
        _ = stopping.changed() => None,
    };
    let outcome = match ended {
        Some(outcome) => outcome,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let parts = connection.into_parts();
    let bounded = parts.io.into_inner();
    let (is_pending, is_shut_down) = (bounded.is_pending(), bounded.is_shut_down());
    let mut stream = bounded.into_inner();
    if is_pending {
        // The client does not read. A reset frees the kernel's buffer; an orderly close would hold it for minutes.
        let _ = stream.set_zero_linger();
        return;
    }
    if let Err(error) = &outcome
        && !is_shut_down
        && !parts.read_buf.is_empty()
        && let Some(status) = unanswered(error)
    {
        // The socket's buffer is empty, so it takes these few bytes.
        let _ = stream.try_write(last_answer(status).as_bytes());
    }
    drop((parts.read_buf, parts.service, outcome, stopping));
    let _ = timeout(LINGER_TIMEOUT, linger(&mut stream)).await;
}

async fn answer(router: Router, peer: SocketAddr, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
    if let Some(refusal) = request::refusal(&request) {
        return Ok(refusal);
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}

/// The status for a request head that hyper rejected without a response: too slow, incomplete, or HTTP/2.
fn unanswered(error: &hyper::Error) -> Option<StatusCode> {
    match () {
        () if error.is_timeout() => Some(StatusCode::REQUEST_TIMEOUT),
        () if error.is_incomplete_message() || error.is_parse() => Some(StatusCode::BAD_REQUEST),
        () => None,
    }
}

fn last_answer(status: StatusCode) -> String {
    let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: {date}\r\n\r\n")
}

/// Shuts the output down, and reads what the client still sends. Closing a socket with unread bytes resets the connection, and the reset may reach
/// the client before the response does (RFC 9112, section 9.6).
async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut dropped = 0;
    while dropped < LINGER_BYTES && stream.readable().await.is_ok() {
        match drop_bytes(stream) {
            Ok(0) => return,
            Ok(bytes) => dropped += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// A separate function: a buffer in the future would stay allocated while the connection is open.
fn drop_bytes(stream: &TcpStream) -> std::io::Result<usize> {
    stream.try_read(&mut [0; 4096])
}
