//! Access to the journal of a running `serve`, for commands that read it (`headcount audit`, `headcount rebuild`). The service locks the file, so it
//! reads for them.
//!
//! The socket is in the data directory, which only its owner may enter. One connection carries one request: a line of JSON. The response is a status
//! byte (0: done, 1: an error's text), the body's length (4 bytes, little-endian), and the body.

use super::journal_source::JournalSource;
use anyhow::{Context, bail, ensure};
use ingest::journal::{Journal, JournalBatch, wire};
use schemas::StreamId;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

/// Name of the socket in the data directory.
const NAME: &str = "journal.sock";
/// Bytes of records in one response.
const READ_BYTES: usize = 4 << 20;
/// The longest request.
const QUESTION_BYTES: u64 = 1 << 10;
/// The longest response: one batch may be as long as the queue in front of the journal.
const ANSWER_BYTES: u64 = 512 << 20;
/// Concurrent requests.
const CONNECTIONS: usize = 4;
/// Time limit of one request, until its response is received.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Question {
    Range,
    Read { offset: u64 },
}

/// The identity of a log, and the range of its records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JournalRange {
    /// Its stream.
    stream: u64,
    /// Offset of the oldest record.
    pub begin: u64,
    /// Offset after the newest record.
    pub end: u64,
    /// The aggregator's commit.
    pub commit: Option<String>,
}

impl JournalRange {
    /// Of an open journal. Blocks.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn of(journal: &Journal) -> anyhow::Result<Self> {
        let end = *journal.end().borrow();
        Ok(JournalRange {
            stream: journal.stream().0,
            begin: journal.begin()?,
            end,
            commit: journal.text(JournalSource::COMMIT)?,
        })
    }

    /// Its stream.
    pub fn stream(&self) -> StreamId {
        StreamId(self.stream)
    }
}

/// The listening socket. Its file is removed with it.
pub struct JournalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for JournalSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl JournalSocket {
    /// Listens in a data directory that this process has locked.
    ///
    /// # Errors
    /// The socket cannot be created; a path of more than 107 bytes is too long for one.
    pub fn bind(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(&path).with_context(|| format!("cannot listen on the socket {}", path.display()))?;
        Ok(JournalSocket { listener, path })
    }

    /// Answers requests until dropped.
    pub async fn serve(self, journal: Journal) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let journal = journal.clone();
                    connections.spawn(async move {
                        let _permit = permit;
                        // A command that has disconnected needs no response.
                        let _ = tokio::time::timeout(CONNECTION_TIMEOUT, answer(stream, journal)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal's socket cannot accept a connection");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn answer(stream: tokio::net::UnixStream, journal: Journal) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(QUESTION_BYTES)).read_line(&mut line).await?;
    let found = tokio::task::spawn_blocking(move || found(&line, &journal)).await?;
    let (status, content) = match found {
        Ok(content) => (0, content),
        Err(error) => (1, crate::shell::chain(&error).into_bytes()),
    };
    writer.write_u8(status).await?;
    writer.write_u32_le(u32::try_from(content.len())?).await?;
    writer.write_all(&content).await?;
    Ok(writer.shutdown().await?)
}

fn found(line: &str, journal: &Journal) -> anyhow::Result<Vec<u8>> {
    match serde_json::from_str(line).context("this headcount does not know the question")? {
        Question::Range => Ok(serde_json::to_vec(&JournalRange::of(journal)?)?),
        Question::Read { offset } => {
            let mut content = Vec::new();
            wire::encode(&journal.read(offset, READ_BYTES)?, &mut content);
            Ok(content)
        }
    }
}

/// The journal of a running service.
#[derive(Debug)]
pub struct RunningJournal {
    path: PathBuf,
}

impl RunningJournal {
    /// The journal of the service that runs on a data directory, if there is one.
    pub fn find(data: &Path) -> Option<Self> {
        let path = data.join(NAME);
        UnixStream::connect(&path).is_ok().then_some(RunningJournal { path })
    }

    /// Its stream and the records that it has now. Blocks.
    ///
    /// # Errors
    /// The service stopped, or its journal cannot be read.
    pub fn range(&self) -> anyhow::Result<JournalRange> {
        serde_json::from_slice(&self.ask(Question::Range)?).context("the service's answer is not of this version")
    }

    /// Batches from the one that contains `offset` on, like [`Journal::read`]. Blocks.
    ///
    /// # Errors
    /// The service stopped, or its journal cannot be read there.
    pub fn read(&self, offset: u64) -> anyhow::Result<Vec<JournalBatch>> {
        wire::decode(&self.ask(Question::Read { offset })?).context("the service's answer is not of this version")
    }

    fn ask(&self, question: Question) -> anyhow::Result<Vec<u8>> {
        let asked = || -> anyhow::Result<(u8, Vec<u8>)> {
            let mut stream = UnixStream::connect(&self.path)?;
            stream.set_read_timeout(Some(CONNECTION_TIMEOUT))?;
            stream.write_all(format!("{}\n", serde_json::to_string(&question)?).as_bytes())?;
            stream.shutdown(Shutdown::Write)?;
            let mut head = [0; 5];
            stream.read_exact(&mut head)?;
            let length = u64::from(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
            ensure!(length <= ANSWER_BYTES, "its answer has {length} bytes");
            let mut content = Vec::new();
            stream.take(length).read_to_end(&mut content)?;
            ensure!(content.len() as u64 == length, "its answer ended early");
            Ok((head[0], content))
        };
        match asked()
            .with_context(|| format!("cannot read the running service's journal by {}", self.path.display()))?
        {
            (0, content) => Ok(content),
            (_, error) => bail!("the running service cannot read its journal: {}", String::from_utf8_lossy(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ingest::journal::JournalConfig;
    use ingest::sink::Sink;
    use schemas::Hour;

    #[tokio::test(flavor = "multi_thread")]
    async fn another_process_reads_what_the_service_has_appended() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().to_owned();
        assert!(RunningJournal::find(&path).is_none(), "no service listens");
        let journal = Journal::open(&path.join("journal.redb"), JournalConfig::default(), || Hour(9)).unwrap();
        for record in 0..5u8 {
            journal.append(0, vec![record; 3]).await.unwrap();
        }
        journal.store_text(JournalSource::COMMIT, "a commit").unwrap();
        // The file that a killed service left.
        drop(std::os::unix::net::UnixListener::bind(path.join(NAME)).unwrap());
        assert!(RunningJournal::find(&path).is_none(), "the listener is gone");
        let serving = tokio::spawn(JournalSocket::bind(&path).unwrap().serve(journal.clone()));
        let (stream, expected) = (journal.stream(), journal.read(2, READ_BYTES).unwrap());
        tokio::task::spawn_blocking(move || {
            let running = RunningJournal::find(&path).unwrap();
            let range = running.range().unwrap();
            assert_eq!((range.stream(), range.begin, range.end), (stream, 0, 5));
            assert_eq!(range.commit.as_deref(), Some("a commit"));
            assert_eq!(running.read(2).unwrap(), expected);
            let mut stream = UnixStream::connect(path.join(NAME)).unwrap();
            stream.write_all(b"\"erase\"\n").unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            assert!(said[0] == 1 && String::from_utf8_lossy(&said).contains("does not know"), "{said:?}");
        })
        .await
        .unwrap();
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!data.path().join(NAME).exists(), "its file is removed with it");
        journal.close();
    }
}
