//! Attacks from outside on a real process, each with honest readers at the same time. Figures are printed. `HEADCOUNT_ABUSE=long` runs the long
//! forms.

#[path = "abuse/engine.rs"]
mod engine;
#[path = "abuse/existence.rs"]
mod existence;
#[path = "abuse/files.rs"]
mod files;
#[path = "abuse/forged.rs"]
mod forged;
#[path = "abuse/honest.rs"]
mod honest;
#[path = "abuse/journal.rs"]
mod journal;
#[path = "abuse/names.rs"]
mod names;
#[path = "abuse/pipelining.rs"]
mod pipelining;
#[path = "abuse/proxy.rs"]
mod proxy;
#[path = "abuse/rates.rs"]
mod rates;
#[path = "abuse/reports.rs"]
mod reports;
#[path = "abuse/settings.rs"]
mod settings;
#[path = "abuse/slow_clients.rs"]
mod slow_clients;

use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// `short`, or `long` if the long forms were requested.
fn form<T>(short: T, long: T) -> T {
    if std::env::var("HEADCOUNT_ABUSE").is_ok_and(|form| form == "long") { long } else { short }
}

/// One of the loopback IP addresses 127.0.x.y, which the service counts as different clients.
fn client(x: u8, y: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, x, y))
}

/// Connects from `client`, with kernel buffers of `buffer` bytes if set.
async fn connect(client: IpAddr, service: SocketAddr, buffer: Option<u32>) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes)?;
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(SocketAddr::new(client, 0))?;
    let connected = tokio::time::timeout(Duration::from_secs(10), socket.connect(service)).await;
    Ok(connected.context("no connection within 10 s")??)
}

/// Raises the limit of open files of this process and its children to `files`, if it is lower.
fn allow_files(files: u64) -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        limit.current = Some(files);
        setrlimit(Resource::Nofile, limit)
            .with_context(|| format!("this story needs {files} open files; raise the hard limit (ulimit -Hn)"))?;
    }
    Ok(())
}

/// Resident memory of a process, MiB.
fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Held by stories that measure latencies or memory, so that attacks run one after another.
static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
