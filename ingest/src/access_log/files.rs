//! Files of access logs: decompression by content, lines with a limit, and rotated files in the order of their lines.

use super::line::NotRead;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use std::cmp::Reverse;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest line in bytes. Longer ones are skipped.
pub const MAX_LINE_BYTES: usize = 64 << 10;

const BUFFER_BYTES: usize = 256 << 10;

/// Why a file cannot be read. The caller adds its name.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system, or damaged compressed data.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Recognised, and not read.
    #[error("it is {0}, which is not read; expected text, gzip, bzip2 or zstd")]
    Unknown(&'static str),
}

/// Bytes of files that were read, before decompression; for the progress.
#[derive(Clone, Debug, Default)]
pub struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct Counted<R> {
    inner: R,
    bytes: BytesRead,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.bytes.0.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

/// Opens a file, or standard input where `path` is `-`.
///
/// # Errors
/// The file cannot be opened, or has a form that is not read.
pub fn open(path: &Path, bytes: &BytesRead) -> Result<Box<dyn BufRead>, FileError> {
    let source: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    decompressed(source, bytes)
}

/// The text of what may be compressed: by its first bytes, whatever it is called.
///
/// # Errors
/// The source cannot be read, or has a form that is not read.
pub fn decompressed(source: impl Read + 'static, bytes: &BytesRead) -> Result<Box<dyn BufRead>, FileError> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, Counted { inner: source, bytes: bytes.clone() });
    let mut start = [0_u8; 6];
    let len = peek(&mut source, &mut start)?;
    let source = io::Cursor::new(start[..len].to_vec()).chain(source);
    let buffered = |reader: Box<dyn Read>| Box::new(BufReader::with_capacity(BUFFER_BYTES, reader)) as Box<dyn BufRead>;
    match &start[..len] {
        [0x1f, 0x8b, ..] => Ok(buffered(Box::new(MultiGzDecoder::new(source)))),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Ok(buffered(Box::new(MultiBzDecoder::new(source)))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Ok(buffered(Box::new(ZstdFrames::new(source))))
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(FileError::Unknown("xz")),
        [b'P', b'K', 3, 4, ..] => Err(FileError::Unknown("a zip archive")),
        [b'7', b'z', 0xbc, 0xaf, ..] => Err(FileError::Unknown("a 7z archive")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(FileError::Unknown("UTF-16 text")),
        _ => Ok(Box::new(source)),
    }
}

/// Fills `start` as far as the source goes.
fn peek(source: &mut impl Read, start: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < start.len() {
        match source.read(&mut start[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// All frames of a zstd file, as `zstd` and `cat` write them one after the other.
struct ZstdFrames<R: Read> {
    /// The source between two frames.
    source: Option<Pushback<R>>,
    frame: Option<StreamingDecoder<Pushback<R>, FrameDecoder>>,
}

/// A source with the magic number of a frame put back.
struct Pushback<R> {
    start: [u8; 4],
    /// Bytes of `start` that are not read again yet.
    left: usize,
    inner: R,
}

impl<R: Read> Read for Pushback<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return self.inner.read(buffer);
        }
        let len = self.left.min(buffer.len());
        let from = self.start.len() - self.left;
        buffer[..len].copy_from_slice(&self.start[from..from + len]);
        self.left -= len;
        Ok(len)
    }
}

impl<R: Read> ZstdFrames<R> {
    fn new(source: R) -> Self {
        ZstdFrames { source: Some(Pushback { start: [0; 4], left: 0, inner: source }), frame: None }
    }
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let len = frame.read(buffer)?;
                if len > 0 || buffer.is_empty() {
                    return Ok(len);
                }
                self.source = self.frame.take().map(StreamingDecoder::into_inner);
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            let mut magic = [0; 4];
            match peek(&mut source, &mut magic)? {
                0 => return Ok(0),
                4 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            if is_skipped_frame(&magic) {
                let mut length = [0; 4];
                source.read_exact(&mut length)?;
                io::copy(&mut source.by_ref().take(u32::from_le_bytes(length).into()), &mut io::sink())?;
                self.source = Some(source);
                continue;
            }
            let source = Pushback { start: magic, left: magic.len(), inner: source.inner };
            let frame =
                StreamingDecoder::new(source).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.frame = Some(frame);
        }
    }
}

/// Whether a frame of zstd has other data than the file's (RFC 8878, 3.1.2).
fn is_skipped_frame(magic: &[u8; 4]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

/// A line as it is in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum RawLine<'b> {
    /// Without its line break. `is_torn`: the file ends without one, so that the line may be incomplete.
    Text {
        /// The bytes of the line.
        bytes: &'b [u8],
        /// Whether the line break is missing.
        is_torn: bool,
    },
    /// Longer than [`MAX_LINE_BYTES`]; skipped.
    TooLong,
}

/// The lines of a file: LF or CR LF, a byte order mark removed, each at most [`MAX_LINE_BYTES`].
pub struct LineReader<R> {
    source: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> LineReader<R> {
    /// The lines of a source.
    pub fn new(source: R) -> Self {
        LineReader { source, buffer: Vec::new(), number: 0 }
    }

    /// Number of the line that was read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next line.
    ///
    /// # Errors
    /// The source cannot be read, or its compressed data are damaged or end too early.
    pub fn next_line(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.buffer.clear();
        // One byte more shows that it is longer, and one is the line break.
        let limit = MAX_LINE_BYTES as u64 + 2;
        if self.source.by_ref().take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let is_torn = self.buffer.last() != Some(&b'\n');
        if is_torn && self.buffer.len() as u64 == limit {
            self.skip_line()?;
            return Ok(Some(RawLine::TooLong));
        }
        let mut bytes = self.buffer.as_slice();
        if self.number == 1 {
            bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        }
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        Ok(Some(if bytes.len() > MAX_LINE_BYTES { RawLine::TooLong } else { RawLine::Text { bytes, is_torn } }))
    }

    /// Skips to the next line in pieces, so that a line of any length takes no memory.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let read = self.source.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut self.buffer)?;
            if read == 0 || self.buffer.last() == Some(&b'\n') {
                return Ok(());
            }
        }
    }
}

/// What is said of a line that was not read: of the last one without a line break, that it is incomplete.
pub fn reason_of(reason: NotRead, is_torn: bool) -> NotRead {
    match reason {
        NotRead::Malformed | NotRead::InvalidTime | NotRead::NoRequest | NotRead::NoVersion if is_torn => NotRead::Torn,
        reason => reason,
    }
}

/// The files of paths of which some are directories, oldest first within each directory. Of a directory with files that are called
/// `access…`, the others are left out.
///
/// # Errors
/// A directory cannot be read.
pub fn files(paths: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && entry.path().is_file() {
                inside.push((name, entry.path()));
            }
        }
        if inside.iter().any(|(name, _)| name.contains("access")) {
            inside.retain(|(name, _)| name.contains("access"));
        }
        inside.sort_by_cached_key(|(name, _)| Rotated::of(name));
        files.extend(inside.into_iter().map(|(_, path)| path));
    }
    Ok(files)
}

/// A file's place among the rotated ones of one log: `access.log.2.gz` is older than `access.log.1`, which is older than `access.log`;
/// dates go upwards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rotated {
    /// The name without number, date and ending of the compression.
    log: String,
    age: Age,
}

/// In the order of the lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Numbered(Reverse<u64>),
    /// The digits of a date, and of a time or number behind it.
    Dated(String),
    /// The file that is written.
    Current,
}

impl Rotated {
    fn of(name: &str) -> Self {
        let endings = [".gz", ".bz2", ".zst", ".zstd", ".Z"];
        let name = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
        if let Some((log, number)) = name.rsplit_once('.')
            && number.len() < 6
            && let Ok(number) = number.parse()
        {
            return Rotated { log: log.to_owned(), age: Age::Numbered(Reverse(number)) };
        }
        match date_in(name) {
            Some((start, end)) => {
                let digits = name[start..end].chars().filter(char::is_ascii_digit).collect();
                let before = name[..start].trim_end_matches(['-', '.', '_']);
                Rotated { log: format!("{before}{}", &name[end..]), age: Age::Dated(digits) }
            }
            None => Rotated { log: name.to_owned(), age: Age::Current },
        }
    }
}

/// Where a date or a date with a time is in a name: at least six digits, with signs between them.
fn date_in(name: &str) -> Option<(usize, usize)> {
    let bytes = name.as_bytes();
    let is_of_date = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'T' | b':' | b'.');
    let mut start = 0;
    while start < bytes.len() {
        if !bytes[start].is_ascii_digit() {
            start += 1;
            continue;
        }
        let len = bytes[start..].iter().take_while(|&&byte| is_of_date(byte)).count();
        let end = start + bytes[start..start + len].iter().rposition(u8::is_ascii_digit).map_or(0, |at| at + 1);
        if bytes[start..end].iter().filter(|byte| byte.is_ascii_digit()).count() >= 6 {
            return Some((start, end));
        }
        start = end.max(start + 1);
    }
    None
}
