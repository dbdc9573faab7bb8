//! The ClickHouse server of a process, and the check that every connection leads to it.
//!
//! `clickhouse_url` may silently lead to another server: through a load balancer over several servers, or if another server replaced the
//! first. Figures would then depend on the server that answers. So a process records the database and the server with which it started
//! ([`DatabaseId`]). It queries this id on each new connection before it sends anything else there, and stops if the answer differs.
//!
//! A balancer that distributes requests instead of connections is detected by [`Server::bind`], which queries repeatedly, and by
//! [`Server::watch`].

use crate::layout;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service;

/// Time for which an idle connection is reused: less than ClickHouse keeps it open.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// Longest time of a new connection and its check. It equals the default limit of a statement: a busy server is slow, not wrong.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of checks on a new connection while the process runs.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Connections that [`Server::bind`] opens, and requests on each. The number of requests is odd, so that each of two alternating servers is
/// the first of a connection.
const PROBES: (usize, usize) = (4, 3);
/// Most bytes of an answer, which is one line.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Settings of every statement. Neither affects a single server. With a table that turns out to be distributed, they make ClickHouse fail
/// instead of reading or writing only a part.
const ALWAYS: [(&str, &str); 2] = [("parallel_distributed_insert_select", "0"), ("skip_unavailable_shards", "0")];

/// A TCP connection, ready for HTTP.
type Stream = TokioIo<TcpStream>;
type Connecting = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;
/// Opens a connection to the host and port of a URL.
pub type Connect = Arc<dyn Fn(Uri) -> Connecting + Send + Sync>;

/// Identifies a database on a server: the server's UUID, and the UUID that ClickHouse gave headcount's first table at its creation. Both
/// are random and stored with the data. The second is empty if the table does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DatabaseId {
    server: String,
    table: String,
}

impl std::fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.table.as_str() {
            "" => write!(f, "none (server {})", self.server),
            table => write!(f, "{table} (server {})", self.server),
        }
    }
}

/// `clickhouse_url` does not lead to a single server that headcount can use. A retry does not help.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongServer(String);

impl WrongServer {
    pub(crate) fn new(message: String) -> Self {
        WrongServer(message)
    }

    fn several(database: &str, first: &DatabaseId, other: &DatabaseId) -> Self {
        WrongServer(format!(
            "`clickhouse_url` does not lead to one ClickHouse server: the id of the database {database} was {first}, and is {other} on \
             another connection. Either a load balancer or a DNS name stands for several servers, or the server or its data were \
             replaced. headcount needs one server, and gives no figures of another one: set `clickhouse_url` to that server itself; \
             after data were replaced on purpose, start again"
        ))
    }
}

/// Server and credentials of a connection.
pub struct ServerConfig {
    /// URL without query.
    pub url: String,
    /// User; if none, ClickHouse's default user.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// ClickHouse settings for every statement.
    pub settings: Vec<(String, String)>,
    /// The database of headcount.
    pub database: String,
    /// Whether this is the embedded engine: only its own process answers on its port, so one connection is probed.
    pub is_embedded: bool,
}

/// One ClickHouse server. Clones share its state.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    checked: clickhouse::Client,
    unchecked: clickhouse::Client,
}

struct Shared {
    config: ServerConfig,
    connect: Connect,
    state: Mutex<State>,
    wrong: watch::Sender<Option<WrongServer>>,
}

#[derive(Default)]
struct State {
    bound: Option<DatabaseId>,
    /// Why the last attempt to bind failed.
    failure: Option<String>,
}

impl Server {
    /// Does not connect yet.
    pub fn new(config: ServerConfig, connect: Connect) -> Self {
        let wrong = watch::Sender::new(None);
        let shared = Arc::new(Shared { config, connect, state: Mutex::default(), wrong });
        let client = |is_checked| {
            let connector = Connector { shared: Arc::clone(&shared), is_checked };
            let http = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_MAX).build(connector);
            shared.config.set_up(clickhouse::Client::with_http_client(http))
        };
        let (checked, unchecked) = (client(true).with_database(&shared.config.database), client(false));
        Server { shared, checked, unchecked }
    }

    /// A client of the database. Its connections fail until [`Self::bind`] has succeeded, and whenever they lead to another database.
    pub fn client(&self) -> clickhouse::Client {
        self.checked.clone()
    }

    /// A client of the server for use before the database exists; its connections are not checked.
    pub fn unchecked(&self) -> clickhouse::Client {
        self.unchecked.clone()
    }

    /// Whether the URL turned out not to lead to a single server: no new connection succeeds from then on.
    pub fn is_wrong(&self) -> bool {
        self.shared.wrong.borrow().is_some()
    }

    /// Whether the first id is recorded.
    fn is_bound(&self) -> bool {
        self.shared.state().bound.is_some()
    }

    /// Checks on several connections that there is one server, with tables that headcount supports. Returns its id.
    ///
    /// # Errors
    /// [`WrongServer`], or the server did not answer.
    async fn examine(&self) -> anyhow::Result<DatabaseId> {
        let shared = &self.shared;
        let (connections, requests) = if shared.config.is_embedded { (1, 1) } else { PROBES };
        let mut known: Option<DatabaseId> = None;
        for _ in 0..connections {
            let answers = in_time(shared.converse(shared.open().await?, requests)).await?.1;
            for found in answers {
                // Another process may create the database meanwhile. If there are two servers, a later request finds none on one of them,
                // too.
                let is_created = |known: &DatabaseId| known.table.is_empty() && known.server == found.server;
                if let Some(known) = known.as_ref().filter(|known| **known != found && !is_created(known)) {
                    return Err(WrongServer::several(&shared.config.database, known, &found).into());
                }
                known = Some(found);
            }
        }
        let table_engines = in_time(shared.ask_once(&layout::question(&shared.config.database))).await?;
        layout::check(&shared.config.database, &table_engines)?;
        Ok(known.expect("at least one request was answered"))
    }

    /// Refuses several servers, and tables that are not supported, before anything is written.
    ///
    /// # Errors
    /// [`WrongServer`], or the server did not answer.
    pub async fn check(&self) -> anyhow::Result<()> {
        let examined = self.examine().await;
        self.shared.note(&examined);
        examined.map(|_| ())
    }

    /// Checks the server and records the id of its database, which every later connection must have.
    ///
    /// # Errors
    /// [`WrongServer`], the server did not answer, or the database is not prepared yet.
    pub async fn bind(&self) -> anyhow::Result<()> {
        let bound = self.examine().await.and_then(|found| self.shared.bind(found));
        self.shared.note(&bound);
        bound
    }

    /// Binds, then checks a new connection regularly. Resolves with the cause when the process must stop.
    pub async fn watch(&self) -> WrongServer {
        let mut wrong = self.shared.wrong.subscribe();
        let check = async {
            loop {
                // A failure here is either recorded or temporary; statements fail for the same cause, and their callers log it.
                if !self.is_bound() {
                    let _ = self.bind().await;
                } else if self.shared.config.is_embedded {
                    std::future::pending::<()>().await;
                } else if let Ok(stream) = self.shared.open().await {
                    let _ = in_time(self.shared.verified(stream)).await;
                }
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            cause = wrong.wait_for(Option::is_some) => match cause.as_deref() {
                Ok(Some(cause)) => cause.clone(),
                _ => WrongServer("the check of `clickhouse_url` ended".to_owned()),
            },
            () = check => unreachable!("it has no end"),
        }
    }
}

async fn in_time<T>(call: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(CHECK_TIMEOUT, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::other("ClickHouse did not answer the check of its id in time")),
    }
}

impl ServerConfig {
    fn set_up(&self, client: clickhouse::Client) -> clickhouse::Client {
        let mut client = client.with_url(&self.url);
        if let Some(user) = &self.user {
            client = client.with_user(user);
        }
        if let Some(password) = &self.password {
            client = client.with_password(password);
        }
        let settings = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        settings.chain(ALWAYS).fold(client, |client, (name, value)| client.with_setting(name, value))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self) -> Option<WrongServer> {
        self.wrong.borrow().clone()
    }

    fn note<T>(&self, outcome: &anyhow::Result<T>) {
        let Err(error) = outcome else { return };
        self.state().failure = Some(format!("{error:#}"));
        if let Some(wrong) = error.downcast_ref::<WrongServer>() {
            self.wrong.send_replace(Some(wrong.clone()));
        }
    }

    fn bind(&self, found: DatabaseId) -> anyhow::Result<()> {
        if found.table.is_empty() {
            anyhow::bail!(
                "the database {} is not prepared yet: `headcount serve` or `headcount aggregate` does that at its start",
                self.config.database
            );
        }
        match &mut self.state().bound {
            Some(bound) if *bound != found => {
                return Err(WrongServer::several(&self.config.database, bound, &found).into());
            }
            bound => *bound = Some(found),
        }
        Ok(())
    }

    async fn open(&self) -> io::Result<Stream> {
        let url: Uri = self.config.url.parse().map_err(io::Error::other)?;
        in_time((self.connect)(url)).await
    }

    /// The connection, if it leads to the bound database.
    async fn verified(&self, stream: Stream) -> io::Result<Stream> {
        if let Some(wrong) = self.wrong() {
            return Err(io::Error::other(wrong));
        }
        let Some(bound) = self.state().bound.clone() else {
            let failure = self.state().failure.clone();
            return Err(io::Error::other(failure.unwrap_or_else(|| "ClickHouse is not checked yet".to_owned())));
        };
        let (stream, found) = self.converse(stream, 1).await?;
        if let Some(found) = found.into_iter().find(|found| *found != bound) {
            let wrong = WrongServer::several(&self.config.database, &bound, &found);
            self.wrong.send_replace(Some(wrong.clone()));
            return Err(io::Error::other(wrong));
        }
        stream.ok_or_else(|| {
            io::Error::other("`clickhouse_url` closes each connection after one request; expected one that stays open")
        })
    }

    /// Queries the id `requests` times on one connection, and returns the ids with the connection. No connection if the peer closes it.
    async fn converse(&self, stream: Stream, requests: usize) -> io::Result<(Option<Stream>, Vec<DatabaseId>)> {
        let sql = format!(
            "SELECT toString(serverUUID()), if(count() = 0, '', toString(any(uuid))) FROM system.tables \
             WHERE database = '{}' AND name = 'schema_version' FORMAT TabSeparated",
            self.config.database
        );
        let (mut sender, connection) = handshake(stream).await.map_err(io::Error::other)?;
        let talk = async move {
            let mut found = Vec::new();
            for _ in 0..requests {
                let (line, stays_open) = self.ask(&mut sender, &sql).await?;
                let (server, table) = line.trim_end_matches('\n').split_once('\t').ok_or_else(|| {
                    io::Error::other("the answer to the check of its id is none of ClickHouse: expected two columns")
                })?;
                found.push(DatabaseId { server: server.to_owned(), table: table.to_owned() });
                if !stays_open {
                    return Ok((false, found));
                }
            }
            io::Result::Ok((true, found))
        };
        // The connection ends when the sender is dropped, and returns the stream.
        let (found, connection) = tokio::join!(talk, connection.without_shutdown());
        let (stays_open, found) = found?;
        let stream = connection.ok().filter(|parts| stays_open && parts.read_buf.is_empty()).map(|parts| parts.io);
        Ok((stream, found))
    }

    /// The answer to one query on a new connection.
    async fn ask_once(&self, sql: &str) -> io::Result<String> {
        let (mut sender, connection) = handshake(self.open().await?).await.map_err(io::Error::other)?;
        let ask = async move { self.ask(&mut sender, sql).await };
        Ok(tokio::join!(ask, connection.without_shutdown()).0?.0)
    }

    /// The answer to one query, and whether the connection stays open.
    async fn ask(&self, sender: &mut SendRequest<Full<Bytes>>, sql: &str) -> io::Result<(String, bool)> {
        let url: Uri = self.config.url.parse().map_err(io::Error::other)?;
        let host = url.authority().map(ToString::to_string).unwrap_or_default();
        let mut request = Request::post(url.path()).header(header::HOST, host);
        for (name, value) in [("X-ClickHouse-User", &self.config.user), ("X-ClickHouse-Key", &self.config.password)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::from(sql.to_owned())).map_err(io::Error::other)?;
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let closes = response
            .headers()
            .get(header::CONNECTION)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
        let body =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status != StatusCode::OK {
            let line: String = text.lines().next().unwrap_or_default().chars().take(300).collect();
            return Err(io::Error::other(format!("ClickHouse answered {status} to the check of its id: {line}")));
        }
        Ok((text, !closes))
    }
}

/// Opens the connections of a client.
#[derive(Clone)]
struct Connector {
    shared: Arc<Shared>,
    is_checked: bool,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Connecting {
        let Connector { shared, is_checked } = self.clone();
        Box::pin(async move {
            let stream = (shared.connect)(url).await?;
            if is_checked { in_time(shared.verified(stream)).await } else { Ok(stream) }
        })
    }
}
