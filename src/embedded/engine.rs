//! A real ClickHouse beside the service: found, started, watched and stopped.
//!
//! The engine is a server that was named, a `clickhouse` program, or the library libchdb.so in a child process of this
//! very executable (see [`child`]). Either way the rest of headcount sees a URL. The child lives exactly as long as this
//! process holds its standard input. It listens on 127.0.0.1 only, and answers queries only below a path that is drawn
//! at every start of the service (at the first one, where a port was given), stays the same when the child is started again, and is kept from other users of the machine: the URL is the
//! password, so it is not to be logged.
//!
//! Below [`EngineConfig::data_dir`]: `store/` is ClickHouse's own, `engine.lock` the running child's, `engine.json`
//! says where it listens, `engine.version` which ClickHouse last had the directory, `engine*.xml` its configuration.

mod child;
mod error;
mod locate;
mod owner;
mod settings;
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
/// One question to the engine.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// How many of the child's last lines an error tells.
const LAST_LINES: usize = 20;
/// A free port may be taken between picking and listening; how often to pick again.
const PORT_PICKS: usize = 3;

/// Where the engine is to be found and to keep its data.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The engine's own directory, `DIR/clickhouse`; created if missing.
    pub data_dir: PathBuf,
    /// A server's base URL: nothing is started then.
    pub clickhouse_url: Option<String>,
    /// libchdb.so, if it is to be taken from one place only (and before a `clickhouse` program).
    pub library: Option<PathBuf>,
    /// The port on 127.0.0.1; a free one is picked if none is given. With a port the whole URL is the same at every start,
    /// so that others may be told of it once.
    pub port: Option<u16>,
    /// The program that understands `engine-child`; this very executable if none is given. For tests.
    pub executable: Option<PathBuf>,
}

impl EngineConfig {
    /// Where the embedded engine's `BACKUP` writes to, and `RESTORE` reads from.
    #[must_use]
    pub fn backups_dir(&self) -> PathBuf {
        self.data_dir.join(settings::BACKUPS)
    }

    /// The defaults for a directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), clickhouse_url: None, library: None, port: None, executable: None }
    }
}

/// What runs the queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineKind {
    /// A server of the operator's, at `clickhouse_url`.
    External,
    /// A `clickhouse` program, run as `clickhouse local`.
    Binary(PathBuf),
    /// libchdb.so in a child process.
    Library(PathBuf),
}

/// Where a running engine listens: the content of `engine.json`.
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
    /// How its child is started, again if need be; none for a server of the operator's.
    launch: Option<Launch>,
    process: Option<Process>,
}

/// What is the same at every start of the child, so that its URL is, too.
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

/// The child, and what it says.
#[derive(Debug)]
struct Process {
    child: Child,
    /// The engine's lifeline. Kept apart from `child`, whose `wait` would close it.
    stdin: Option<ChildStdin>,
    pid: u32,
    last_lines: LastLines,
    reader: JoinHandle<()>,
}

type LastLines = Arc<Mutex<VecDeque<String>>>;

/// The child ended although a free port had been picked for it: somebody was faster.
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
    /// Finds an engine by the documented order and starts it, if it is ours to start; returns once it answers.
    ///
    /// # Errors
    /// [`EngineError`]. A server that was named is not asked anything here, so it may be away.
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
        let settings = settings::write(&data_dir, &secret)?;
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

    /// Starts the child, under the URL that it had before; returns once it answers. A child that still runs is killed first, which loses
    /// nothing. Does nothing for a server of the operator's.
    ///
    /// # Errors
    /// [`EngineError`]; in particular [`EngineError::PortInUse`] where another program has taken the port meanwhile.
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

    /// The base URL for the `clickhouse` crate. An engine's own is `http://127.0.0.1:PORT/SECRET`: keep it out of logs.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What was found.
    #[must_use]
    pub fn kind(&self) -> &EngineKind {
        &self.kind
    }

    /// The port that it listens on; none for a server of the operator's.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.launch.as_ref().map(|launch| launch.port)
    }

    /// The child's process id; none for a server of the operator's.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Resolves when the child ends, with how it ended; never for a server of the operator's. Safe to cancel.
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

    /// Kills the child. That loses nothing that was acknowledged.
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

    /// Waits for the first answer, makes sure that it is our engine's, and notes where it is.
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
        // Somebody else may have the port; our own child is then about to find out and say so.
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

    /// An error if the child has ended, named by its exit code or its last words.
    async fn ended(&mut self) -> Result<(), StartError> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Some(status) = process.child.try_wait().map_err(EngineError::Wait)? else {
            return Ok(());
        };
        // Its last words may still be on their way.
        let _ = timeout(Duration::from_secs(1), &mut process.reader).await;
        let stderr = process.last_words();
        if let EngineKind::Library(library) = &self.kind
            && status.signal() == Some(rustix::process::Signal::BUS.as_raw())
        {
            // A page of the mapped file lies beyond its end.
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
            // Databases and tables are symbolic links of ClickHouse's own.
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
        // The child's working directory is its data directory: ClickHouse writes a few files into it, such as `__cache__` with
        // the Protobuf schemas of queries. So no path may be relative to ours.
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
        // A group of its own: Ctrl-C in a terminal reaches us alone, and the engine lives until our last flush.
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

/// A client of an embedded engine at its `url`. It refuses to talk to a program of another user on the engine's port.
#[must_use]
pub fn own_client(url: &str) -> clickhouse::Client {
    owner::client().with_url(url)
}

/// Where the engine of `data_dir` listens now, for commands beside the running service.
///
/// `None` if none was noted or the noted one does not answer (it was killed and left its note behind).
pub async fn running(data_dir: &Path) -> Option<RunningEngine> {
    let data_dir = data_dir.canonicalize().ok()?;
    let noted = std::fs::read(data_dir.join("engine.json")).ok()?;
    let engine: RunningEngine = serde_json::from_slice(&noted).ok()?;
    let (_, path) = greet(&engine.url).await.ok()?;
    (Path::new(&path) == data_dir.join("store")).then_some(engine)
}

/// Keeps the last lines and passes them on to our own log; on disk they exist nowhere else, so nothing grows.
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

/// `26.7.2.1` as numbers; what is no number counts as 0.
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

/// The engine's version and the path it has open, which tells it from any other on the same port.
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
