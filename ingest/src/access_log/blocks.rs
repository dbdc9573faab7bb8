//! Recognises files of earlier imports by their content, whatever they are called and however they are compressed.
//!
//! The text of a file is cut into blocks of at least 1 MiB. A block ends after a line whose keyed hash is a multiple of `BOUNDARY_LINES`: a
//! property of the line, so that the same lines have the same blocks, soon after their beginning, wherever they are in a file. Of each block only
//! a keyed hash is kept. The key is in a file of mode 0600 and never in ClickHouse. A file shorter than its first block is one block.

use crate::private_file;
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Least bytes of a block, after decompression.
pub const BLOCK_BYTES_MIN: usize = 1 << 20;
/// Most bytes of a block: without the boundaries of lines, such as in a file of one line.
const BLOCK_BYTES_MAX: usize = 8 << 20;
/// Mean number of lines from the least length of a block to its end.
const BOUNDARY_LINES: u64 = 4096;

const FINGERPRINT_CONTEXT: &str = "headcount key of imported files: fingerprint, version 1";

/// The key of the hashes of blocks. Not printable; wiped when dropped.
pub struct RecognitionKey(Zeroizing<[u8; 32]>);

/// Why there is no usable key.
#[derive(Debug, thiserror::Error)]
pub enum RecognitionKeyError {
    /// Reading or writing the file failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The content is not a key.
    #[error("{} is no key of imported files: expected 64 hexadecimal digits", .0.display())]
    Malformed(PathBuf),
    /// Other users may read the file.
    #[error("{} may be read by others; run: chmod 600 {}", .0.display(), .0.display())]
    Permissions(PathBuf),
}

impl RecognitionKey {
    /// The key of the file at `path`; none if there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, is no key, or may be read by others.
    pub fn read(path: &Path) -> Result<Option<Self>, RecognitionKeyError> {
        let failed = |source| RecognitionKeyError::Io { action: "read", path: path.to_owned(), source };
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            if fs::metadata(path).map_err(failed)?.permissions().mode() & 0o077 != 0 {
                return Err(RecognitionKeyError::Permissions(path.to_owned()));
            }
        }
        let key = blake3::Hash::from_hex(text.trim()).map_err(|_| RecognitionKeyError::Malformed(path.to_owned()))?;
        Ok(Some(RecognitionKey(Zeroizing::new(*key.as_bytes()))))
    }

    /// Draws a key and writes it to `path`, with its directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path) -> Result<Self, RecognitionKeyError> {
        let mut key = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *key).expect("the operating system's generator");
        let mut text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let written = private_directory(path.parent()).and_then(|()| private_file::replace(path, text.as_bytes()));
        text.zeroize();
        written.map_err(|source| RecognitionKeyError::Io { action: "write", path: path.to_owned(), source })?;
        Ok(RecognitionKey(key))
    }

    /// Tells keys apart without revealing them.
    pub fn fingerprint(&self) -> u64 {
        first_bytes(&blake3::derive_key(FINGERPRINT_CONTEXT, &*self.0))
    }

    fn hash(&self, bytes: &[u8]) -> u64 {
        first_bytes(blake3::keyed_hash(&self.0, bytes).as_bytes())
    }
}

fn private_directory(directory: Option<&Path>) -> io::Result<()> {
    let Some(directory) = directory.filter(|directory| !directory.as_os_str().is_empty()) else { return Ok(()) };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn first_bytes(hash: &[u8; 32]) -> u64 {
    u64::from_le_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}

/// A file whose lines are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// The name for messages, such as `access.log.1 (import 00c0ffee00c0ffee)`.
    pub name: String,
    /// Bytes of its text.
    pub bytes: u64,
    /// Hashes of its blocks in their order. The rest after the last block has none, except in a file that is shorter than a block.
    pub blocks: Vec<u64>,
}

/// Files whose lines are counted.
#[derive(Default)]
pub struct KnownFiles {
    files: Vec<KnownFile>,
    /// Index of a file by the hash of a block.
    by_block: HashMap<u64, usize>,
}

impl KnownFiles {
    /// Adds a file.
    pub fn add(&mut self, file: KnownFile) {
        self.by_block.extend(file.blocks.iter().map(|&block| (block, self.files.len())));
        self.files.push(file);
    }

    fn with_block(&self, block: u64) -> Option<&KnownFile> {
        self.by_block.get(&block).map(|&index| &self.files[index])
    }

    /// The file of one block that `text` begins with, and is longer than.
    fn beginning_of(&self, text: &[u8], key: &RecognitionKey) -> Option<&KnownFile> {
        let is_shorter = |file: &&KnownFile| file.blocks.len() == 1 && file.bytes < text.len() as u64;
        let mut short: Vec<&KnownFile> = self.files.iter().filter(is_shorter).collect();
        short.sort_by_key(|file| file.bytes);
        let (mut hasher, mut hashed) = (blake3::Hasher::new_keyed(&key.0), 0);
        short.into_iter().find(|file| {
            let end = file.bytes as usize;
            hasher.update(&text[hashed..end]);
            hashed = end;
            first_bytes(hasher.finalize().as_bytes()) == file.blocks[0]
        })
    }
}

/// Lines of a file were counted before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {start} to {end} of its text are in {name}, which is imported already")]
pub struct Overlap {
    /// First byte of the known lines.
    pub start: u64,
    /// The byte after them, as far as they were read.
    pub end: u64,
    /// The known file.
    pub name: String,
}

/// What a file is.
pub enum Recognised<'k, R> {
    /// No block of it is known so far.
    New(NewFile<'k, R>),
    /// The same text as a known file's, whose name this is.
    Known(String),
}

/// The text of a file, which is compared with the known files while it is read. A known block is an [`Overlap`], as the cause of the read's
/// error.
pub struct NewFile<'k, R> {
    source: R,
    key: &'k RecognitionKey,
    known: &'k KnownFiles,
    block: Vec<u8>,
    read: usize,
    /// Bytes of the blocks before this one.
    before: u64,
    blocks: Vec<u64>,
}

/// Reads the beginning of a file, and decides whether it is known.
///
/// # Errors
/// The source fails, or the file has lines of a known file and others; the cause of the latter is an [`Overlap`].
pub fn recognise<'k, R: BufRead>(
    source: R,
    key: &'k RecognitionKey,
    known: &'k KnownFiles,
) -> io::Result<Recognised<'k, R>> {
    let mut file = NewFile { source, key, known, block: Vec::new(), read: 0, before: 0, blocks: Vec::new() };
    file.read_block()?;
    if let Some(&first) = file.blocks.first()
        && let Some(same) = known.with_block(first)
    {
        return same_file(file, same).map(|()| Recognised::Known(same.name.clone()));
    }
    if let Some(shorter) = known.beginning_of(&file.block, key) {
        return Err(overlap(0, shorter.bytes, shorter));
    }
    Ok(Recognised::New(file))
}

fn overlap(start: u64, end: u64, file: &KnownFile) -> io::Error {
    io::Error::other(Overlap { start, end, name: file.name.clone() })
}

/// Reads the rest of a file whose first block is known. Ok if all of it is the same as `same`.
fn same_file<R: BufRead>(mut file: NewFile<'_, R>, same: &KnownFile) -> io::Result<()> {
    let end_of_first = file.block.len() as u64;
    while !file.block.is_empty() {
        file.read_block()?;
    }
    if file.before == same.bytes && file.blocks == same.blocks {
        return Ok(());
    }
    Err(overlap(0, end_of_first, same))
}

impl<R: BufRead> NewFile<'_, R> {
    /// The whole file's length and hashes. Call it after the last byte was read.
    pub fn end(self) -> (u64, Vec<u64>) {
        (self.before + self.block.len() as u64, self.blocks)
    }

    /// Reads the next block and its hash.
    fn read_block(&mut self) -> io::Result<()> {
        self.before += self.block.len() as u64;
        self.block.clear();
        self.read = 0;
        let is_whole = fill(&mut self.source, &mut self.block, self.key)?;
        let is_first = self.blocks.is_empty() && self.before == 0;
        if is_whole || (is_first && !self.block.is_empty()) {
            self.blocks.push(self.key.hash(&self.block));
        }
        Ok(())
    }
}

/// Fills a block. False if the source ended before the block did.
fn fill(source: &mut impl BufRead, block: &mut Vec<u8>, key: &RecognitionKey) -> io::Result<bool> {
    source.by_ref().take(BLOCK_BYTES_MIN as u64).read_to_end(block)?;
    if block.len() < BLOCK_BYTES_MIN {
        return Ok(false);
    }
    // The rest of the line in which the least length ends.
    let limit = |block: &Vec<u8>| (BLOCK_BYTES_MAX - block.len()) as u64;
    let mut read = source.by_ref().take(limit(block)).read_until(b'\n', block)?;
    while read > 0 && block.len() < BLOCK_BYTES_MAX {
        let start = block.len();
        read = source.by_ref().take(limit(block)).read_until(b'\n', block)?;
        if read > 0 && key.hash(&block[start..]).is_multiple_of(BOUNDARY_LINES) {
            break;
        }
    }
    Ok(read > 0)
}

impl<R: BufRead> Read for NewFile<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let text = self.fill_buf()?;
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: BufRead> BufRead for NewFile<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read == self.block.len() && !self.block.is_empty() {
            let hashed = self.blocks.len();
            self.read_block()?;
            let found = self.blocks.get(hashed).and_then(|&block| self.known.with_block(block));
            if let Some(file) = found {
                return Err(overlap(self.before, self.before + self.block.len() as u64, file));
            }
        }
        Ok(&self.block[self.read..])
    }

    fn consume(&mut self, len: usize) {
        self.read += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key() -> RecognitionKey {
        RecognitionKey(Zeroizing::new([7; 32]))
    }

    /// Lines `from` to `to` of a log of any length.
    fn lines(from: u64, to: u64) -> Vec<u8> {
        (from..to).flat_map(|line| format!("line {line} {:064x}\n", line * 0x9e37_79b9).into_bytes()).collect()
    }

    /// The file's length and blocks if it is new; else what was found.
    fn read(text: &[u8], known: &KnownFiles) -> Result<KnownFile, String> {
        let key = key();
        let mut file = match recognise(text, &key, known) {
            Ok(Recognised::New(file)) => file,
            Ok(Recognised::Known(name)) => return Err(format!("same as {name}")),
            Err(error) => return Err(error.to_string()),
        };
        let mut found = Vec::new();
        file.read_to_end(&mut found).map_err(|error| error.to_string())?;
        assert!(found == text, "the text is read unchanged");
        let (bytes, blocks) = file.end();
        Ok(KnownFile { name: "old.log".to_owned(), bytes, blocks })
    }

    fn knowing(texts: &[&[u8]]) -> KnownFiles {
        let mut known = KnownFiles::default();
        for text in texts {
            let file = read(text, &KnownFiles::default()).unwrap();
            assert_eq!(file.bytes, text.len() as u64);
            known.add(file);
        }
        known
    }

    #[test]
    fn a_file_is_known_by_its_content_and_what_overlaps_is_refused() {
        let long = lines(0, 250_000);
        let known = knowing(&[&long]);
        assert!(known.files[0].blocks.len() > 4 && long.len() > 18 << 20);
        assert_eq!(read(&long, &known).unwrap_err(), "same as old.log");
        for (what, text) in [
            ("grown by a line", lines(0, 250_001)),
            ("grown", lines(0, 300_000)),
            ("without its end", lines(0, 200_000)),
            ("without its beginning", lines(1, 250_000)),
            ("its end and more", lines(100_000, 350_000)),
            ("behind others", [lines(900_000, 950_000), lines(0, 250_000)].concat()),
        ] {
            let found = read(&text, &known).unwrap_err();
            assert!(found.contains("of its text are in old.log, which is imported already"), "{what}: {found}");
        }
        read(&lines(250_000, 500_000), &known).unwrap();
    }

    #[test]
    fn a_file_shorter_than_a_block_is_one_block() {
        let short = lines(0, 100);
        let known = knowing(&[&lines(50, 70), &short]);
        assert_eq!(read(&short, &known).unwrap_err(), "same as old.log");
        for grown in [lines(0, 101), lines(0, 100_000)] {
            let found = read(&grown, &known).unwrap_err();
            let end = short.len();
            assert_eq!(found, format!("bytes 0 to {end} of its text are in old.log, which is imported already"));
        }
        read(&lines(1, 101), &known).unwrap();
        // A file that ended within its first block, however long that was.
        let most = lines(0, 20_000);
        assert!(most.len() > BLOCK_BYTES_MIN);
        let known = knowing(&[&most]);
        assert!(read(&lines(0, 100_000), &known).unwrap_err().contains("old.log"));
        assert_eq!(read(b"", &known).unwrap(), KnownFile { name: "old.log".to_owned(), bytes: 0, blocks: Vec::new() });
    }

    #[test]
    fn blocks_have_a_least_length_and_a_largest() {
        let text = vec![b'x'; 20 << 20];
        let file = read(&text, &KnownFiles::default()).unwrap();
        assert_eq!((file.blocks.len(), file.bytes), (2, 20 << 20));
        let mut block = Vec::new();
        assert!(fill(&mut text.as_slice(), &mut block, &key()).unwrap());
        assert_eq!(block.len(), BLOCK_BYTES_MAX);
    }

    #[test]
    fn the_key_is_private_and_stays_the_same() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys/imports.key");
        assert!(RecognitionKey::read(&path).unwrap().is_none());
        let created = RecognitionKey::create(&path).unwrap();
        let read = RecognitionKey::read(&path).unwrap().unwrap();
        assert!(created.fingerprint() == read.fingerprint() && created.hash(b"a") == read.hash(b"a"));
        assert_ne!(created.hash(b"a"), key().hash(b"a"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(RecognitionKey::read(&path), Err(RecognitionKeyError::Permissions(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "no key").unwrap();
        assert!(matches!(RecognitionKey::read(&path), Err(RecognitionKeyError::Malformed(_))));
    }
}
