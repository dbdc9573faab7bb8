//! A real ClickHouse beside the service: finds, starts, watches and stops it.
//!
//! The engine is one of three: a configured server, a `clickhouse` program, or the library libchdb.so in a child process of this executable (see
//! [`child`]). In each case the rest of headcount sees a URL. The child runs exactly as long as this process holds its standard input open.
//!
//! The child listens on 127.0.0.1 only, and answers queries only below a random path. The path is drawn at every start of the service, or at the
//! first one if a port is configured. It stays the same when the child is restarted, and is kept from other users of the machine. The URL is the
//! password, so it must not be logged.
//!
//! Files below [`EngineConfig::data_dir`]: `store/` belongs to ClickHouse, `engine.lock` to the running child. `engine.json` records where it
//! listens, `engine.version` which ClickHouse last used the directory, and `engine*.xml` is its configuration.

mod child;
mod error;
mod locate;
mod owner;
mod server_settings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

pub use child::{ChildArgs, child_main};
pub use error::EngineError;

/// How long the engine may take to answer; opening many tables after a crash takes its time.
const START_WAIT: Duration = Duration::from_secs(60);
/// How long it may take to end once its standard input is closed, before it is killed. Killing loses nothing.
const STOP_WAIT: Duration = Duration::from_secs(15);
/// Time limit of one request to the engine.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// How many of the child's last lines an error includes.
const LAST_LINES: usize = 20;
/// A free port may be taken between picking and listening; how often to pick again.
const PORT_PICKS: usize = 3;

/// Where to find the engine, and where it stores its data.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The engine's own directory, `DIR/clickhouse`; created if missing.
    pub data_dir: PathBuf,
    /// A server's base URL; if set, no engine is started.
    pub clickhouse_url: Option<String>,
    /// Path of libchdb.so, if it must be loaded from there (and before a `clickhouse` program).
    pub library: Option<PathBuf>,
    /// The port on 127.0.0.1; none: a free one is picked. With a port the whole URL is the same at every start, so that other programs can be
    /// configured with it once.
    pub port: Option<u16>,
    /// The program that implements `engine-child`; none: this executable. For tests.
    pub executable: Option<PathBuf>,
}

impl EngineConfig {
    /// Where the embedded engine's `BACKUP` writes to, and `RESTORE` reads from.
    #[must_use]
    pub fn backups_dir(&self) -> PathBuf {
        self.data_dir.join(server_settings::BACKUPS)
    }

    /// The default configuration for a directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), clickhouse_url: None, library: None, port: None, executable: None }
    }
}

/// The kind of engine that runs the queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineKind {
    /// The operator's server at `clickhouse_url`.
    External,
    /// A `clickhouse` program, run as `clickhouse local`.
    Binary(PathBuf),
    /// libchdb.so in a child process.
    Library(PathBuf),
}

/// A running engine: the content of `engine.json`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningEngine {
    /// Its base URL.
    pub url: String,
    /// Its process id.
    pub pid: u32,
}

/// A ClickHouse that answers. Dropping it kills the child; [`Engine::stop`] is the polite way.
pub struct Engine {
    url: String,
    kind: EngineKind,
    data_dir: PathBuf,
    /// How to start and restart its child; none for an operator's server.
    launch: Option<Launch>,
    process: Option<Process>,
}

/// Settings that are the same at every start of the child, so that its URL is, too.
#[derive(Clone)]
struct Launch {
    executable: Option<PathBuf>,
    settings: PathBuf,
    port: u16,
}

impl fmt::Debug for Engine {
    /// Without the URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("kind", &self.kind).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

/// The child and its output.
#[derive(Debug)]
struct Process {
    child: Child,
    /// The engine's lifeline. Stored apart from `child`, whose `wait` would close it.
    stdin: Option<ChildStdin>,
    pid: u32,
    last_lines: LastLines,
    reader: JoinHandle<()>,
}

type LastLines = Arc<Mutex<VecDeque<String>>>;

/// The child ended although a free port had been picked for it: another process took the port first.
enum StartError {
    PortTaken,
    Other(EngineError),
}

impl From<EngineError> for StartError {
    fn from(error: EngineError) -> Self {
        Self::Other(error)
    }
}

impl Engine {
    /// Finds an engine in the documented order and starts it, unless it is an operator's server; returns once it answers.
    ///
    /// # Errors
    /// [`EngineError`]. A configured server is not queried here, so it may be unavailable.
    pub async fn start(config: &EngineConfig) -> Result<Self, EngineError> {
        let kind = locate::locate(config)?;
        if let (EngineKind::External, Some(url)) = (&kind, &config.clickhouse_url) {
            let (url, data_dir) = (url.clone(), config.data_dir.clone());
            return Ok(Self { url, kind, data_dir, launch: None, process: None });
        }
        let data_dir = prepare(&config.data_dir)?;
        let secret = match config.port {
            Some(_) => kept_secret(&data_dir)?,
            None => secret(),
        };
        let settings = server_settings::write(&data_dir, &secret)?;
        let mut picks = PORT_PICKS;
        loop {
            picks -= 1;
            let port = match config.port {
                Some(port) => port,
                None => free_port().map_err(EngineError::Wait)?,
            };
            let url = format!("http://127.0.0.1:{port}/{secret}");
            let launch = Launch { executable: config.executable.clone(), settings: settings.clone(), port };
            let (kind, data_dir) = (kind.clone(), data_dir.clone());
            let mut engine = Self { url, kind, data_dir, launch: Some(launch), process: None };
            match engine.restart().await {
                Ok(()) => return Ok(engine),
                Err(EngineError::PortInUse { .. }) if config.port.is_none() && picks > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts the child with the URL that it had before; returns once it answers. A child that still runs is killed first, which loses nothing. Does
    /// nothing for an operator's server.
    ///
    /// # Errors
    /// [`EngineError`]; in particular [`EngineError::PortInUse`] if another program has taken the port in between.
    pub async fn restart(&mut self) -> Result<(), EngineError> {
        let Some(launch) = self.launch.clone() else { return Ok(()) };
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        self.process = Some(Process::spawn(&launch, &self.kind, &self.data_dir)?);
        match self.ready(launch.port).await {
            Ok(()) => Ok(()),
            Err(StartError::PortTaken) => Err(EngineError::PortInUse { port: launch.port }),
            Err(StartError::Other(error)) => Err(error),
        }
    }

    /// The base URL for the `clickhouse` crate. The URL of an embedded engine is `http://127.0.0.1:PORT/SECRET`: keep it out of logs.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The kind of engine that was found.
    #[must_use]
    pub fn kind(&self) -> &EngineKind {
        &self.kind
    }

    /// The port that it listens on; none for an operator's server.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.launch.as_ref().map(|launch| launch.port)
    }

    /// The child's process id; none for an operator's server.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Resolves with the exit status when the child ends; never for an operator's server. Cancel-safe.
    pub async fn died(&mut self) -> ExitStatus {
        let Some(process) = &mut self.process else {
            return std::future::pending().await;
        };
        match process.child.wait().await {
            Ok(status) => status,
            Err(error) => {
                tracing::error!(%error, "waiting for the engine's process");
                std::future::pending().await
            }
        }
    }

    /// The last lines that the child wrote to its standard error; for the message when it has [`died`](Self::died).
    #[must_use]
    pub fn last_words(&self) -> String {
        self.process.as_ref().map(Process::last_words).unwrap_or_default()
    }

    /// Closes the child's standard input, waits for its end and kills it if it takes longer than 15 s. Call it when no
    /// query is running any more.
    ///
    /// # Errors
    /// [`EngineError::Wait`] if the process cannot be waited for.
    pub async fn stop(mut self) -> Result<(), EngineError> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        drop(process.stdin.take());
        match timeout(STOP_WAIT, process.child.wait()).await {
            Ok(status) => {
                let status = status.map_err(EngineError::Wait)?;
                if !status.success() {
                    tracing::warn!(%status, last_words = process.last_words(), "the engine did not end cleanly");
                }
            }
            Err(_) => {
                tracing::warn!(waited = ?STOP_WAIT, "the engine did not end by itself and is killed");
                process.child.kill().await.map_err(EngineError::Wait)?;
            }
        }
        remove(&self.data_dir.join("engine.json"));
        Ok(())
    }

    /// Kills the child. No acknowledged data are lost.
    ///
    /// # Errors
    /// [`EngineError::Wait`] if the process cannot be waited for.
    pub async fn kill(mut self) -> Result<(), EngineError> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
            remove(&self.data_dir.join("engine.json"));
        }
        Ok(())
    }

    /// Waits for the first answer, verifies that it comes from our engine, and writes down where it listens.
    async fn ready(&mut self, port: u16) -> Result<(), StartError> {
        let deadline = Instant::now() + START_WAIT;
        while !ping(port, Duration::from_secs(1)).await {
            self.ended().await?;
            if Instant::now() >= deadline {
                let stderr = self.last_words();
                return Err(EngineError::Silent { port, waited: START_WAIT, stderr }.into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        let store = self.data_dir.join("store");
        let message = match greet(&self.url).await {
            Ok((version, path)) if Path::new(&path) == store => return Ok(self.note(&version)?),
            Ok((_, path)) => format!("it has {path} open, not {}", store.display()),
            Err(message) => message,
        };
        // Another process may have the port; our child then soon reports that.
        let settled = Instant::now() + Duration::from_secs(5);
        while Instant::now() < settled {
            self.ended().await?;
            sleep(Duration::from_millis(50)).await;
        }
        Err(EngineError::Greeting { port, message }.into())
    }

    /// Compares versions and writes `engine.version` and `engine.json`.
    fn note(&self, version: &str) -> Result<(), EngineError> {
        let noted = self.data_dir.join("engine.version");
        let written = std::fs::read_to_string(&noted).unwrap_or_default();
        let written = written.trim();
        if numbers(written) > numbers(version) {
            let (path, written, running) = (self.data_dir.clone(), written.to_owned(), version.to_owned());
            return Err(EngineError::Newer { path, written, running });
        }
        let running = RunningEngine { url: self.url.clone(), pid: self.pid().unwrap_or_default() };
        let json = serde_json::to_vec(&running).expect("two plain fields");
        replace(&noted, version.as_bytes())?;
        replace(&self.data_dir.join("engine.json"), &json)
    }

    /// An error if the child has ended, chosen by its exit code or its last lines.
    async fn ended(&mut self) -> Result<(), StartError> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Some(status) = process.child.try_wait().map_err(EngineError::Wait)? else {
            return Ok(());
        };
        // Its last lines may not have arrived yet.
        let _ = timeout(Duration::from_secs(1), &mut process.reader).await;
        let stderr = process.last_words();
        if let EngineKind::Library(library) = &self.kind
            && status.signal() == Some(rustix::process::Signal::BUS.as_raw())
        {
            // A page of the mapped file is past the file's end.
            let message = format!("loading the ClickHouse library {}: the file ends early", library.display());
            return Err(StartError::Other(EngineError::Library { message }));
        }
        let path = self.data_dir.clone();
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Err(StartError::Other(match code {
            Some(child::EXIT_LOCKED) => {
                EngineError::Locked { pid: child::holder(&path.join("engine.lock")), path, waited: child::LOCK_WAIT }
            }
            Some(child::EXIT_LIBRARY) => EngineError::Library { message: stderr },
            Some(child::EXIT_DIRECTORY) => EngineError::NotWritable { path, cause: io::Error::other(stderr) },
            // ClickHouse itself creates symbolic links for databases and tables.
            _ if stderr.contains("FILE_ALREADY_EXISTS") && stderr.contains("Directory metadata/") => {
                EngineError::FollowedLinks { path }
            }
            _ if stderr.contains("Address already in use") => return Err(StartError::PortTaken),
            _ if stderr.contains("No space left on device") || stderr.contains("NOT_ENOUGH_SPACE") => {
                EngineError::DiskFull { path }
            }
            _ if stderr.contains("Permission denied") || stderr.contains("Read-only file system") => {
                EngineError::NotWritable { path, cause: io::Error::other(stderr) }
            }
            _ => EngineError::Ended { status, stderr },
        }))
    }
}

impl Process {
    fn spawn(launch: &Launch, kind: &EngineKind, data_dir: &Path) -> Result<Self, EngineError> {
        let program = match &launch.executable {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|source| EngineError::Spawn { program: PathBuf::from("headcount"), cause: source })?,
        };
        // The child's working directory is its data directory, because ClickHouse writes a few files into it, such as `__cache__` with the Protobuf
        // schemas of queries. Relative paths would resolve against that directory.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut command = Command::new(absolute(&program));
        command.arg("engine-child").current_dir(data_dir);
        match kind {
            EngineKind::Library(path) => command.arg("--lib").arg(absolute(path)),
            EngineKind::Binary(path) => command.arg("--binary").arg(absolute(path)),
            EngineKind::External => unreachable!("a server of the operator's is never started"),
        };
        command.arg("--data").arg(data_dir).arg("--config").arg(&launch.settings);
        command.arg("--port").arg(launch.port.to_string());
        // A separate process group: Ctrl-C in a terminal reaches only this process, and the engine runs until our last flush.
        command.process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| EngineError::Spawn { program, cause: source })?;
        let pid = child.id().unwrap_or_default();
        let last_lines = LastLines::default();
        let stderr = child.stderr.take().expect("piped above");
        let stdin = child.stdin.take();
        let reader = tokio::spawn(listen(stderr, Arc::clone(&last_lines)));
        Ok(Self { child, stdin, pid, last_lines, reader })
    }

    /// Kills the child, unless it has ended already.
    async fn kill(&mut self) -> Result<(), EngineError> {
        match self.child.try_wait().map_err(EngineError::Wait)? {
            Some(_) => Ok(()),
            None => self.child.kill().await.map_err(EngineError::Wait),
        }
    }

    fn last_words(&self) -> String {
        let lines = self.last_lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

pub use owner::connect;

/// A client of an embedded engine at its `url`. It refuses to connect to a program of another user on the engine's port.
#[must_use]
pub fn own_client(url: &str) -> clickhouse::Client {
    owner::client().with_url(url)
}

/// Where the engine of `data_dir` listens now, for commands beside the running service.
///
/// `None` if `engine.json` is missing, or its engine does not answer (it was killed and left the file behind).
pub async fn running(data_dir: &Path) -> Option<RunningEngine> {
    let data_dir = data_dir.canonicalize().ok()?;
    let noted = std::fs::read(data_dir.join("engine.json")).ok()?;
    let engine: RunningEngine = serde_json::from_slice(&noted).ok()?;
    let (_, path) = greet(&engine.url).await.ok()?;
    (Path::new(&path) == data_dir.join("store")).then_some(engine)
}

/// Stores the last lines in memory and passes them on to our log; no file of them exists on disk, so nothing grows.
async fn listen(stderr: impl tokio::io::AsyncRead + Unpin, last_lines: LastLines) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(mut line)) = lines.next_line().await {
        if let Some((cut, _)) = line.char_indices().nth(2_000) {
            line.truncate(cut);
        }
        tracing::warn!(target: "headcount::engine", "{line}");
        let mut last_lines = last_lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last_lines.len() == LAST_LINES {
            last_lines.pop_front();
        }
        last_lines.push_back(line);
    }
}

/// Creates the directory, readable by its owner only, and returns its absolute path.
fn prepare(dir: &Path) -> Result<PathBuf, EngineError> {
    use std::os::unix::fs::DirBuilderExt;
    let attempt = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        dir.canonicalize()
    };
    attempt().map_err(|source| EngineError::write(dir, source))
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "removing the engine's note");
    }
}

/// Replaces a file of the engine.
fn replace(path: &Path, content: &[u8]) -> Result<(), EngineError> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    ingest::private_file::replace_by(path, Path::new(&fresh), content)
        .map_err(|source| EngineError::write(path, source))
}

/// The part of the URL that other users of the machine, and pages in its browsers, cannot guess.
fn secret() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system's generator");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The secret of `engine.secret`, drawn at the first start.
fn kept_secret(data_dir: &Path) -> Result<String, EngineError> {
    let path = data_dir.join("engine.secret");
    match std::fs::read_to_string(&path) {
        Ok(kept) if kept.len() == 32 && kept.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(kept),
        Ok(_) => {
            let fresh = secret();
            replace(&path, fresh.as_bytes())?;
            Ok(fresh)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let fresh = secret();
            replace(&path, fresh.as_bytes())?;
            Ok(fresh)
        }
        Err(source) => Err(EngineError::NotWritable { path, cause: source }),
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// `26.7.2.1` as numbers; a part that is not a number counts as 0.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Whether `GET /ping` is answered in time.
pub(super) async fn ping(port: u16, wait: Duration) -> bool {
    let attempt = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET /ping HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
        let mut answer = [0_u8; 12];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(&answer == b"HTTP/1.1 200")
    };
    matches!(timeout(wait, attempt).await, Ok(Ok(true)))
}

/// The engine's version and the path it has open, which distinguishes it from any other on the same port.
async fn greet(url: &str) -> Result<(String, String), String> {
    let client = own_client(url);
    let query = client
        .query("SELECT version(), trim(TRAILING '/' FROM value) FROM system.server_settings WHERE name = 'path'")
        .fetch_one::<(String, String)>();
    match timeout(ASK_WAIT, query).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {ASK_WAIT:?}")),
    }
}
