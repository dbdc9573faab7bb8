//! Ensures that a query goes to an engine of this user.
//!
//! The engine's port and URL stay the same when it is restarted. During the restart another user of the machine could listen on the port. That user
//! would learn the URL, which is the password, and could acknowledge rows that nothing stores. Therefore each new connection is checked: the socket
//! that listens there must belong to this user.
//!
//! Connections to an operator's server are not checked.

use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower::Service;

/// How long an idle connection is pooled: less than the engine's own limit.
const IDLE: Duration = Duration::from_secs(2);

fn connector() -> HttpConnector {
    let mut http = HttpConnector::new();
    http.set_keepalive(Some(Duration::from_secs(60)));
    http
}

/// Opens connections: to engines of this user only, if `own_engine`, or else to any server.
pub fn connect(own_engine: bool) -> crate::database::Connect {
    let http = connector();
    Arc::new(move |url| {
        let mut http = http.clone();
        if own_engine {
            return OwnEngine { http }.call(url);
        }
        Box::pin(async move { http.call(url).await.map_err(io::Error::other) })
    })
}

/// A client without URL that connects only to engines of this user.
pub(super) fn client() -> clickhouse::Client {
    let http = connector();
    let http = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build(OwnEngine { http });
    clickhouse::Client::with_http_client(http)
}

/// Connects, then checks, so that a stranger who listens by then is detected before anything is sent.
#[derive(Clone)]
struct OwnEngine {
    http: HttpConnector,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

impl Service<Uri> for OwnEngine {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.http.poll_ready(context).map_err(io::Error::other)
    }

    fn call(&mut self, url: Uri) -> Connecting {
        let port = url.port_u16();
        let connecting = self.http.call(url);
        Box::pin(async move {
            let stream = connecting.await.map_err(io::Error::other)?;
            match port {
                Some(port) if is_ours(port) => Ok(stream),
                _ => Err(io::Error::other("the program on the engine's port belongs to another user")),
            }
        })
    }
}

/// Whether a socket of this user listens on 127.0.0.1:`port`. Systems without `/proc/net/tcp` are trusted.
pub(super) fn is_ours(port: u16) -> bool {
    match std::fs::read_to_string("/proc/net/tcp") {
        Ok(table) => listens(&table, port, rustix::process::geteuid().as_raw()),
        Err(_) => true,
    }
}

/// Columns of proc_net_tcp (Linux, Documentation/networking/proc_net_tcp.rst): local address, remote address, state, queues, timer, retransmits,
/// user.
fn listens(table: &str, port: u16, user: u32) -> bool {
    const LISTEN: &str = "0A";
    let address = format!("{:08X}:{port:04X}", u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()));
    table.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.len() > 7 && columns[1] == address && columns[3] == LISTEN && columns[7].parse() == Ok(user)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn only_a_listener_of_this_user_counts() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_ours(port));
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert!(listens(&table, port, user) && !listens(&table, port, user + 1));
        drop(listener);
        assert!(!is_ours(port));
        // A listener on all IP addresses is not the engine.
        let all = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert!(!is_ours(all.local_addr().unwrap().port()));
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_stranger() {
        // A listener on all IP addresses represents another user, since a test cannot run as one.
        let stranger = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = stranger.local_addr().unwrap().port();
        let client = client().with_url(format!("http://127.0.0.1:{port}/secret"));
        let (asked, connection) = tokio::join!(client.query("SELECT 1").execute(), stranger.accept());
        let error = asked.unwrap_err();
        assert!(format!("{:?}", std::error::Error::source(&error)).contains("another user"), "{error:?}");
        let mut bytes = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut connection.unwrap().0, &mut bytes).await.unwrap();
        assert_eq!(bytes, b"");
    }
}
