//! A mail server with faults on demand, which a real one does not have: it closes every connection, or delays a mail.

use crate::send;
use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, eventually};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

const MONTH: &str = "2026-01";
const FIRST: &str = "a@example.org";
const SECOND: &str = "b@example.org";

#[derive(Clone)]
struct Told {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// The recipients of completely received mails.
    recipients: Arc<Mutex<Vec<String>>>,
    /// Number of mails that it accepts; further ones wait.
    takes: Arc<Semaphore>,
}

impl Told {
    /// A server that answers, or one that accepts connections and closes them.
    async fn start(speaks: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Told {
            address: listener.local_addr()?,
            connections: Arc::default(),
            recipients: Arc::default(),
            takes: Arc::new(Semaphore::new(0)),
        };
        let of_task = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                of_task.connections.fetch_add(1, Ordering::Relaxed);
                if speaks {
                    tokio::spawn(of_task.clone().speak(stream));
                }
            }
        });
        Ok(server)
    }

    /// The part of RFC 5321 that a mail needs.
    async fn speak(self, mut stream: TcpStream) -> Result<()> {
        let (read, mut write) = stream.split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 told\r\n").await?;
        let mut recipient = String::new();
        while let Some(line) = lines.next_line().await? {
            let answer = match line.split(' ').next().unwrap_or_default() {
                "EHLO" | "MAIL" | "NOOP" | "RSET" => "250 told\r\n",
                "RCPT" => {
                    recipient = line.split(['<', '>']).nth(1).context("a recipient")?.to_owned();
                    "250 told\r\n"
                }
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await?;
                    while lines.next_line().await?.is_some_and(|line| line != ".") {}
                    self.recipients.lock().await.push(recipient.clone());
                    self.takes.acquire().await?.forget();
                    "250 taken\r\n"
                }
                _ => "221 told\r\n",
            };
            write.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }
}

/// A service in the month after, with a view each of `docs` and `later` in the month.
async fn service(server: &Told) -> Result<Service> {
    let url = format!("smtp://{}", server.address);
    let mut service =
        Service::new(&["--trusted-proxy", "127.0.0.1", "--smtp-url", &url, "--mail-from", "counts@headcount.example"])?;
    service.start(&["--clock-start", "2026-01-15T10:00:00Z"]).await?;
    service.register(&[("docs", "docs.example"), ("later", "later.example")]).await?;
    service.done(&["project", "set", "docs", "--mail", FIRST, "--mail", SECOND]).await?;
    service.done(&["project", "set", "later", "--mail", "c@example.org"]).await?;
    let mut connection = Connection::open(service.address()).await?;
    for project in ["docs", "later"] {
        let beacon = json!({"project": project, "url": format!("https://{project}.example/")});
        send(&mut connection, 0, "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", beacon, 202).await?;
        service.counted(project, MONTH, 1).await?;
    }
    service.stop().await?;
    service.start(&["--clock-start", "2026-02-01T06:00:30Z"]).await?;
    Ok(service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_asked_once_a_pass() -> Result<()> {
    let server = Told::start(false).await?;
    let mut service = service(&server).await?;
    eventually("the failure to be told", async || {
        let asked = server.connections.load(Ordering::Relaxed);
        ensure!(asked > 0 && service.log().contains("could not be sent by mail"), "{asked}: {}", service.log());
        Ok(())
    })
    .await?;
    // The pass would continue immediately, and the next one comes after a minute.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let connections = server.connections.load(Ordering::Relaxed);
    ensure!(connections == 1, "{connections} connections for three mails");
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_recipient_gets_nothing_from_a_running_pass() -> Result<()> {
    let server = Told::start(true).await?;
    let mut service = service(&server).await?;
    let recipients = async || server.recipients.lock().await.clone();
    eventually("the first mail", async || {
        let recipients = recipients().await;
        ensure!(recipients == [FIRST], "{recipients:?}; {}", service.log());
        Ok(())
    })
    .await?;
    service.done(&["project", "set", "docs", "--no-mail", SECOND]).await?;
    service.done(&["project", "erase", "later", "--yes"]).await?;
    server.takes.add_permits(9);
    eventually("the end of the pass", async || {
        ensure!(service.log().contains("reports went out by mail"), "{}", service.log());
        Ok(())
    })
    .await?;
    ensure!(recipients().await == [FIRST], "{:?}", recipients().await);
    service.stop().await
}
