//! The server of one listener: bounded connections, bounded requests, graceful shutdown. Roles supply the routers.
//!
//! [`networks`] bounds the connections of one client, [`stream`] and [`pace`] the memory and time of one connection. [`request`] refuses requests
//! that no route may receive, and [`connection`] makes sure that the client can read every refusal.

mod connection;
mod networks;
mod pace;
mod request;
mod stream;

use anyhow::Context;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use ingest::client::TrustedProxies;
use networks::Networks;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};

/// EMFILE: this process has no file descriptor left.
const PROCESS_FILES: i32 = rustix::io::Errno::MFILE.raw_os_error();

/// ENFILE: the machine has none left.
const SYSTEM_FILES: i32 = rustix::io::Errno::NFILE.raw_os_error();

/// Limits of the listener.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Open connections; more wait in the kernel's queue.
    pub connections: usize,
    /// Open connections of one client network (IPv4 address, IPv6 /56); further ones are closed. 0: no limit.
    pub connections_per_network: usize,
    /// Proxies, whose connections are those of many clients: not limited by network.
    pub trusted_proxies: TrustedProxies,
    /// How long a request's head may take.
    pub header_timeout: Duration,
}

/// How long open requests may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// Connections that wait in the kernel's queue; Linux takes no more than `net.core.somaxconn`. A queue that is full costs a
/// client a second, until it tries again.
const BACKLOG: u32 = 4096;

/// Bytes of each connection's buffer in the kernel, which doubles them. Without a bound a connection has several MiB.
const SEND_BUFFER_BYTES: u32 = 64 << 10;

/// Bytes that the kernel accepts beyond those that it may send now. A client that does not read blocks its connection after these, whatever the
/// buffer's size. So few of its requests are answered, and a client that does not read is detected early.
const UNSENT_BYTES: u32 = 16 << 10;

/// Listens on the listen address `address`.
///
/// # Errors
/// The port is taken or not allowed, or the machine has no such IP address.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    listener(address).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => "; another program has this port: stop it, or choose one with --listen",
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
            std::io::ErrorKind::AddrNotAvailable => "; this machine has no such IP address",
            _ => "",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}{advice}")
    })
}

fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit both.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` resolves, then lets open requests finish.
///
/// # Errors
/// None that a client can cause.
pub async fn serve(
    config: HttpConfig,
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let permits = Arc::new(Semaphore::new(config.connections));
    let networks = Networks::new(config.connections_per_network, config.trusted_proxies);
    let (stop, stopping) = watch::channel(());
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).max_buf_size(request::MAX_HEAD_BYTES);
    tokio::pin!(shutdown);
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit.context("the listener's permits were closed")?,
            () = &mut shutdown => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a peer that disconnected immediately: neither ends the service.
                    if matches!(error.raw_os_error(), Some(PROCESS_FILES | SYSTEM_FILES)) {
                        tracing::warn!(
                            %error,
                            "cannot accept connections: the limit on open files is reached; clients wait and try again. Raise the limit (`ulimit -n`, \
                             or LimitNOFILE= in a systemd unit), or lower `connections`"
                        );
                    } else {
                        tracing::warn!(%error, "cannot accept a connection");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        // Over the limit: the stream is dropped, which closes it.
        let Some(of_network) = networks.admit(peer.ip(), Instant::now()) else { continue };
        let _ = stream.set_nodelay(true);
        let connection = connection::serve(builder.clone(), stream, peer, router.clone(), stopping.clone());
        tokio::spawn(async move {
            connection.await;
            drop((permit, of_network));
        });
    }
    drop((listener, stopping));
    let _ = stop.send(());
    if tokio::time::timeout(DRAIN, stop.closed()).await.is_err() {
        tracing::warn!("some requests were still open {} s after the stop and were closed", DRAIN.as_secs());
    }
    Ok(())
}
