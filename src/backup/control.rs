//! The socket by which `headcount backup` and `headcount import` make a running `serve` pause its writes to ClickHouse.
//!
//! A client connects to `control.sock` in the data directory. Once no write is in progress, `serve` sends the journal's position as one line of JSON.
//! It writes nothing to ClickHouse until the client disconnects, for whatever reason. Beacons are still written to the journal.

use crate::embedded::journal_source::JournalSource;
use aggregate::commit::Commit;
use aggregate::writes::Writes;
use anyhow::Context;
use ingest::journal::Journal;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// How long a flush or a close may take before a backup gives up.
const HOLD_WAIT: Duration = Duration::from_secs(120);

/// A position in a journal. Offsets count records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPosition {
    /// Id of the stream, in hexadecimal digits.
    pub stream: String,
    /// Offset of the oldest record.
    pub begin: u64,
    /// Offset after the newest record.
    pub end: u64,
    /// The aggregator's last commit.
    pub commit: Option<Commit>,
}

fn path(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// Serves the socket until dropped. Without the socket the service works, but its backups are not of one moment, so a failure is logged.
pub async fn serve(data: PathBuf, journal: Journal, writes: Writes) {
    let path = path(&data);
    // This process has locked the data directory, so a predecessor left this socket.
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "`headcount backup` and `import` cannot reach this service: no socket");
            return;
        }
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        // One client at a time.
        if let Err(error) = answer(stream, &journal, &writes).await {
            tracing::warn!(error = format!("{error:#}"), "writes could not be paused for a backup or an import");
        }
    }
}

async fn answer(mut stream: UnixStream, journal: &Journal, writes: &Writes) -> anyhow::Result<()> {
    let held = writes.hold().await;
    let journal = journal.clone();
    let position = tokio::task::spawn_blocking(move || position(&journal)).await??;
    let mut line = serde_json::to_vec(&position)?;
    line.push(b'\n');
    stream.write_all(&line).await.context("the client went away before it started")?;
    tracing::info!(end = position.end, "a backup or an import pauses the writes to ClickHouse");
    // Until the client disconnects.
    let mut byte = [0];
    while stream.read(&mut byte).await.is_ok_and(|read| read > 0) {}
    drop(held);
    tracing::info!("the pause has ended; rows are written again");
    Ok(())
}

fn position(journal: &Journal) -> anyhow::Result<JournalPosition> {
    let commit = journal.text(JournalSource::COMMIT)?.and_then(|text| serde_json::from_str(&text).ok());
    let end = *journal.end().borrow();
    Ok(JournalPosition { stream: journal.stream().to_string(), begin: journal.begin()?, end, commit })
}

/// `serve` pauses its writes to ClickHouse until this is dropped.
pub struct WritesPaused {
    /// The journal's position.
    pub position: JournalPosition,
    _stream: BufReader<UnixStream>,
}

/// Makes the service that runs on a data directory pause its writes. None if none runs there.
///
/// # Errors
/// The service does not answer in time.
pub async fn hold(data: &Path) -> anyhow::Result<Option<WritesPaused>> {
    let path = path(data);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", path.display())),
    };
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    tokio::time::timeout(HOLD_WAIT, stream.read_line(&mut line))
        .await
        .with_context(|| {
            format!(
                "rows that the service writes to ClickHouse were not written within {} s, or a backup or an import is running; try again",
                HOLD_WAIT.as_secs()
            )
        })?
        .context("the service ended")?;
    let position = serde_json::from_str(&line).context("the service ended, or is another version")?;
    Ok(Some(WritesPaused { position, _stream: stream }))
}
