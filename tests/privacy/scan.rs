//! Searches for data that must not exist: in files, in the memory of processes, in every table, in every encoding.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes searched in one piece; pieces overlap, so a match across two pieces is found.
const PIECE: usize = 8 << 20;

/// A searched value, in all its encodings.
pub struct Needles {
    forms: Vec<(String, Vec<u8>)>,
    finder: aho_corasick::AhoCorasick,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Every encoding of these bytes: unchanged, as hexadecimal digits, in base64 (at any offset in a longer text), percent-encoded.
fn forms_of(name: &str, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut forms = vec![
        (format!("{name}, as it is"), bytes.to_vec()),
        (format!("{name}, in hexadecimal"), hex(bytes).into_bytes()),
        (
            format!("{name}, percent-encoded"),
            bytes.iter().map(|byte| format!("%{byte:02x}")).collect::<String>().into_bytes(),
        ),
    ];
    for shift in 0..3 {
        let mut padded = vec![0; shift];
        padded.extend(bytes);
        let text = data_encoding::BASE64_NOPAD.encode(&padded);
        // The first and last digits depend on the neighbours.
        let (from, to) = ([0, 2, 3][shift], text.len() - usize::from(padded.len() % 3 != 0));
        forms.push((format!("{name}, in base64"), text.as_bytes()[from..to].to_vec()));
        let url = text.replace('+', "-").replace('/', "_");
        forms.push((format!("{name}, in base64url"), url.as_bytes()[from..to].to_vec()));
    }
    forms
}

impl Needles {
    /// Searches for `texts` regardless of case, and for `bytes` unchanged and encoded. Each has a name for the report.
    pub fn new(texts: &[(&str, &str)], bytes: &[(&str, &[u8])]) -> Result<Self> {
        let mut forms = Vec::new();
        for (name, text) in texts {
            for text in BTreeSet::from([(*text).to_owned(), text.to_lowercase(), text.to_uppercase()]) {
                forms.extend(forms_of(name, text.as_bytes()));
            }
        }
        for (name, bytes) in bytes {
            forms.extend(forms_of(name, bytes));
        }
        for (name, form) in &forms {
            ensure!(form.len() >= 6, "{name} is so short that it is found by chance");
        }
        let finder = aho_corasick::AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(forms.iter().map(|(_, form)| form))?;
        Ok(Needles { forms, finder })
    }

    /// The number of searched encodings.
    pub fn len(&self) -> usize {
        self.forms.len()
    }

    /// The names of the matches in these bytes.
    pub fn found_in(&self, bytes: &[u8]) -> BTreeSet<String> {
        self.finder.find_overlapping_iter(bytes).map(|found| self.forms[found.pattern().as_usize()].0.clone()).collect()
    }

    fn longest(&self) -> usize {
        self.forms.iter().map(|(_, form)| form.len()).max().unwrap_or(0)
    }

    /// The matches in a file, and its number of bytes.
    fn found_in_file(&self, path: &Path) -> Result<(BTreeSet<String>, u64)> {
        let mut file = File::open(path)?;
        let (mut piece, mut kept, mut all, mut found) = (vec![0; PIECE], 0, 0, BTreeSet::new());
        loop {
            let read = file.read(&mut piece[kept..])?;
            all += read as u64;
            if read == 0 {
                return Ok((found, all));
            }
            let end = kept + read;
            found.extend(self.found_in(&piece[..end]));
            kept = self.longest().min(end);
            piece.copy_within(end - kept..end, 0);
        }
    }

    /// The matches in all files below a directory: (file, name). Also returns the number of searched bytes.
    pub fn found_below(&self, directory: &Path) -> Result<(Vec<String>, u64)> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut waiting = vec![directory.to_owned()];
        while let Some(directory) = waiting.pop() {
            // Entries that disappear during the search are ignored.
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let Ok(kind) = entry.file_type() else { continue };
                let path = entry.path();
                if kind.is_dir() {
                    waiting.push(path);
                } else if kind.is_file()
                    && let Ok((names, read)) = self.found_in_file(&path)
                {
                    bytes += read;
                    found.extend(names.into_iter().map(|name| format!("{name} in {}", path.display())));
                    found.extend(
                        self.found_in(path.as_os_str().as_encoded_bytes())
                            .into_iter()
                            .map(|name| format!("{name} in a file's name")),
                    );
                }
            }
        }
        Ok((found, bytes))
    }

    /// The matches in a process's memory, and its number of bytes. Only root may read the memory of a process that is not dumpable.
    pub fn found_in_memory(&self, pid: u32) -> Result<(BTreeSet<String>, u64)> {
        let maps = BufReader::new(File::open(format!("/proc/{pid}/maps"))?);
        let memory = File::open(format!("/proc/{pid}/mem")).context("the memory cannot be read")?;
        let (mut found, mut bytes) = (BTreeSet::new(), 0);
        let mut piece = vec![0; PIECE];
        for line in maps.lines() {
            let line = line?;
            let (range, rest) = line.split_once(' ').context("a line of maps")?;
            // Only writable mappings are searched: others are mapped from files, or are the kernel's pages, which cannot be read.
            if !rest.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').context("a range")?;
            let (mut from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
            while from < to {
                let length = (to - from).min(PIECE as u64) as usize;
                if memory.read_exact_at(&mut piece[..length], from).is_ok() {
                    found.extend(self.found_in(&piece[..length]));
                    bytes += length as u64;
                }
                let step = if length == PIECE { PIECE - self.longest() } else { length };
                from += step as u64;
            }
        }
        Ok((found, bytes))
    }

    /// The matches in all tables of a ClickHouse, its logs included, as ClickHouse decompresses them. Also returns the number of searched tables.
    pub async fn found_in_tables(&self, client: &clickhouse::Client) -> Result<(Vec<String>, usize)> {
        let _ = client.query("SYSTEM FLUSH LOGS").execute().await;
        let sql = "SELECT concat('`', database, '`.`', name, '`') FROM system.tables \
                   WHERE database NOT IN ('information_schema', 'INFORMATION_SCHEMA') AND (engine LIKE '%MergeTree' OR name LIKE '%log%')";
        let tables: Vec<String> = client.query(sql).fetch_all().await?;
        let mut found = Vec::new();
        for table in &tables {
            let mut rows = client.query(&format!("SELECT * FROM {table}")).fetch_bytes("RowBinary")?;
            let (mut kept, mut piece) = (Vec::new(), Vec::new());
            loop {
                // A table without data on this engine has nothing to search.
                let Ok(Some(bytes)) = rows.next().await else { break };
                piece.clear();
                piece.append(&mut kept);
                piece.extend_from_slice(&bytes);
                found.extend(self.found_in(&piece).into_iter().map(|name| format!("{name} in {table}")));
                kept.extend_from_slice(&piece[piece.len() - self.longest().min(piece.len())..]);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok((found, tables.len()))
    }
}
