//! Numbers of persons and things in a segment of a path: UUIDs, long hexadecimal and decimal numbers, telephone and card numbers.

/// Shortest hexadecimal number, with a letter and a decimal digit, that is masked.
const MIN_HEXADECIMAL_DIGITS: usize = 12;
/// Shortest decimal number that is masked.
const MIN_DECIMAL_DIGITS: usize = 9;

/// Whether the text contains an id.
pub(super) fn has_id(text: &str) -> bool {
    has_decimal(text)
        || super::runs(text).any(|(_, run)| is_hexadecimal(run) || is_iban(run))
        || has_pattern(text, 36, is_uuid)
        || has_pattern(text, 17, is_mac)
        || is_grouped_number(super::stem(text))
}

/// Only hexadecimal digits (or after `0x`), long, and neither a word nor a decimal number.
pub(super) fn is_hexadecimal(run: &str) -> bool {
    let digits = run.strip_prefix("0x").unwrap_or(run).as_bytes();
    digits.len() >= MIN_HEXADECIMAL_DIGITS
        && digits.iter().all(u8::is_ascii_hexdigit)
        && digits.iter().any(u8::is_ascii_digit)
        && digits.iter().any(u8::is_ascii_alphabetic)
}

/// A long decimal number between dots and characters that separate values. `-` and `_` do not count: pages of help centres are called
/// `360001234567-How-to`.
fn has_decimal(text: &str) -> bool {
    let separates = |c: char| ".;=:,~+ /(){}[]".contains(c);
    text.split(separates).any(|part| part.len() >= MIN_DECIMAL_DIGITS && part.bytes().all(|b| b.is_ascii_digit()))
}

/// Country, two check digits, and an account with 12 digits or more in all (ISO 13616).
fn is_iban(run: &str) -> bool {
    let bytes = run.as_bytes();
    (15..=34).contains(&bytes.len())
        && bytes[..2].iter().all(u8::is_ascii_uppercase)
        && bytes[2..4].iter().all(u8::is_ascii_digit)
        && bytes.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        && bytes.iter().filter(|b| b.is_ascii_digit()).count() >= 12
}

/// Whether a piece of that length matches and has no letter or digit beside it.
fn has_pattern(text: &str, len: usize, matches: impl Fn(&[u8]) -> bool) -> bool {
    let bytes = text.as_bytes();
    let free = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_none_or(|b| !b.is_ascii_alphanumeric());
    bytes.len() >= len
        && (0..=bytes.len() - len)
            .any(|at| matches(&bytes[at..at + len]) && free(at.checked_sub(1)) && free(Some(at + len)))
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(at, b)| match at {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    })
}

/// Six pairs of hexadecimal digits between colons or hyphens, as network cards are numbered.
fn is_mac(bytes: &[u8]) -> bool {
    let sign = bytes[2];
    let pairs = bytes
        .chunks(3)
        .all(|chunk| chunk[..2].iter().all(u8::is_ascii_hexdigit) && chunk.get(2).is_none_or(|b| *b == sign));
    pairs && (sign == b':' || (sign == b'-' && bytes.iter().any(u8::is_ascii_alphabetic)))
}

/// A number in groups, with nothing else in the segment: telephone numbers (`+49 151 …`, `(030) …`, `0151-…`), cards and others in groups of three or
/// four (`4111-1111-…`), social security numbers (`123-45-6789`). Dates and versions have other groups.
fn is_grouped_number(name: &str) -> bool {
    let name = name.strip_prefix("tel:").unwrap_or(name);
    let known = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | '(' | ')' | '_' | ' ');
    if !name.starts_with(['+', '(', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) || !name.chars().all(known) {
        return false;
    }
    let groups = || name.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty());
    let digits: usize = groups().map(str::len).sum();
    if name.starts_with(['+', '(']) {
        return digits >= MIN_DECIMAL_DIGITS - 1;
    }
    // The zero before an area code. Versions that start with zero contain dots.
    if name.starts_with('0') && !name.contains('.') {
        return digits >= MIN_DECIMAL_DIGITS;
    }
    let is_year = |group: &str| group.len() == 4 && (group.starts_with("19") || group.starts_with("20"));
    let three_or_four = groups().all(|group| matches!(group.len(), 3 | 4)) && !groups().all(is_year);
    let social_security = || name.contains('-') && groups().map(str::len).eq([3, 2, 4]);
    (digits >= MIN_DECIMAL_DIGITS && three_or_four) || social_security()
}
