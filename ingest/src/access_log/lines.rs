//! All lines of one file: guess, grammar and decision.

use super::files::{LineReader, RawLine, reason_of};
use super::line::NotRead;
use super::view::{Outcome, Views};
use super::{Format, GUESS_LINES, NotGuessed, Parser, guess};
use std::io::{self, BufRead};

/// Why the lines of a file are not read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// The source, such as damaged compressed data. Lines before it were read.
    #[error("line {line}: {error}")]
    Io {
        /// Number of the last line that was read.
        line: u64,
        /// What failed.
        error: io::Error,
    },
    /// The format is not known. No line was read.
    #[error(transparent)]
    Format(#[from] NotGuessed),
}

/// A line that is kept until the format is known.
struct HeldLine {
    bytes: Vec<u8>,
    is_torn: bool,
    is_too_long: bool,
}

/// Reads a file to its end and calls `each` with the number (from 1) and the outcome of every line. Without a `format` it is guessed from the
/// first lines. Returns the format.
///
/// # Errors
/// The format is not known, or the source fails.
pub fn read_lines(
    source: impl BufRead,
    format: Option<&Format>,
    utc_offset_seconds: Option<i32>,
    views: &Views<'_>,
    mut each: impl FnMut(u64, Outcome),
) -> Result<Format, LinesError> {
    let mut reader = LineReader::new(source);
    let held = if format.is_some() { Vec::new() } else { hold(&mut reader)? };
    let format = match format {
        Some(format) => format.clone(),
        None if held.iter().all(|line| line.bytes.trim_ascii().is_empty() && !line.is_too_long) => Format::Combined,
        None => guess(held.iter().map(|line| line.bytes.as_slice()))?,
    };
    let mut parser = Parser::new(format.clone(), utc_offset_seconds);
    let mut decide = |bytes: &[u8], is_torn| match parser.parse(bytes) {
        Ok(line) => views.outcome(&line),
        Err(reason) => Outcome::NotRead(reason_of(reason, is_torn)),
    };
    for (index, line) in held.iter().enumerate() {
        let too_long = line.is_too_long.then_some(Outcome::NotRead(NotRead::TooLong));
        each(index as u64 + 1, too_long.unwrap_or_else(|| decide(&line.bytes, line.is_torn)));
    }
    loop {
        let before = reader.number();
        match reader.next_line() {
            Ok(None) => return Ok(format),
            Ok(Some(RawLine::Text { bytes, is_torn })) => each(before + 1, decide(bytes, is_torn)),
            Ok(Some(RawLine::TooLong)) => each(before + 1, Outcome::NotRead(NotRead::TooLong)),
            Err(error) => return Err(LinesError::Io { line: before, error }),
        }
    }
}

/// The first lines, of which as many as the guess takes are not blank. Blank lines do not count, up to a limit.
fn hold(reader: &mut LineReader<impl BufRead>) -> Result<Vec<HeldLine>, LinesError> {
    let (mut held, mut texts) = (Vec::new(), 0);
    while texts < GUESS_LINES && held.len() < 10 * GUESS_LINES {
        let before = reader.number();
        match reader.next_line().map_err(|error| LinesError::Io { line: before, error })? {
            None => break,
            Some(RawLine::Text { bytes, is_torn }) => {
                texts += usize::from(!bytes.trim_ascii().is_empty());
                held.push(HeldLine { bytes: bytes.to_vec(), is_torn, is_too_long: false });
            }
            Some(RawLine::TooLong) => held.push(HeldLine { bytes: Vec::new(), is_torn: false, is_too_long: true }),
        }
    }
    Ok(held)
}
