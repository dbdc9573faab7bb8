//! Estimates how random a run of letters and digits is: tokens are random, names consist of words.
//!
//! The score sums over neighbouring characters. A pair of letters that is common in words adds up to 4, a rare one subtracts up to 5 ([`PAIRS`]). A
//! new word within the name (`aB`), a capital after a capital, and a change between letters and digits each subtract a fixed number.
//!
//! Names score above zero, or little below: the lowest of 88,000 identifiers of code are at −22. Random text loses about two points a letter. A score
//! of [`RANDOM_POINTS`] or less therefore counts as random.

/// Sum of points at and below which a run counts as random.
const RANDOM_POINTS: i32 = -20;
/// Shorter runs are never scored alone: they have too few letters.
const MIN_RUN_BYTES: usize = 12;
/// Shortest name that is scored as a whole, including its `-` and `_`.
const MIN_NAME_BYTES: usize = 16;
/// A run without a digit is scored only if it changes between capital and small letters this often.
const MIN_CASE_CHANGES: usize = 4;

/// Points for `aB`, where a new word starts.
const NEW_WORD: i32 = -2;
/// Points for a capital after a capital.
const CAPITAL: i32 = -1;
/// Points for a digit after a letter.
const TO_DIGIT: i32 = -4;
/// Points for a letter after a digit.
const FROM_DIGIT: i32 = -2;

/// Points of letter pairs plus 5: row is the first letter, column the second, `a` to `z`.
///
/// Counted over 8,577 names of folders and pages of 96 documentation sites, each once, for pairs whose second letter is a small one; case does not
/// count. The points are the rounded base-2 logarithm of how much more often the pair occurs than with a random second letter, from −5 to 4.
const PAIRS: [&[u8; 26]; 26] = [
    b"05650150402656050677331340",
    b"62328120540721620451701040",
    b"60307006405820710447550020",
    b"74348441724433730543521030",
    b"52654340400566443866143520",
    b"62536621801524720554611430",
    b"51148444500634530747500030",
    b"51105000400030410309200020",
    b"54655450001658740466030404",
    b"72468422423433742473542222",
    b"51249332610733400454313053",
    b"82157530700500620045540040",
    b"66017010400931550030300000",
    b"61667470502224520067440010",
    b"34561340412658460754644300",
    b"71447125500611750746530050",
    b"12422232232671424357921211",
    b"70647330603344620475531050",
    b"40657245604222652277434030",
    b"60416004605180521644411040",
    b"55656430500657150767000100",
    b"71238112700232531138210120",
    b"70326124800225620664102700",
    b"54746205700061470128100250",
    b"33426261300657681275213002",
    b"72329224522332642362322254",
];

/// Whether one of the runs of letters and digits in `text`, or the text as a whole, seems random. Runs of hexadecimal digits only are left to the
/// rule for ids.
pub(super) fn has_random_run(text: &str) -> bool {
    super::runs(text).any(|(start, run)| {
        let run = without_doxygen_escape(text, start, run);
        is_judged(run) && !super::id_segments::is_hexadecimal(run) && points(run) <= RANDOM_POINTS
    }) || is_random_name(super::stem(text))
}

/// A name whose `-` and `_` may be part of the token (base64url), or separate its groups (licence keys). Only with a digit, and with
/// capital letters: names in small letters have short parts of all kinds (`gfx9_vdst_3d7dcf`).
fn is_random_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() >= MIN_NAME_BYTES
        && bytes.iter().any(u8::is_ascii_digit)
        && bytes.iter().any(u8::is_ascii_uppercase)
        && bytes.iter().any(|&b| b == b'-' || b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        && super::runs(name).map(|(start, run)| points(without_doxygen_escape(name, start, run))).sum::<i32>()
            <= RANDOM_POINTS
}

/// Doxygen and Texinfo encode characters that a file's name cannot contain as `_` and digits: `_1` for a colon, `_01` for a space, `_8` for a dot,
/// `_005f` for an underscore. These digits are not part of the word after them.
fn without_doxygen_escape<'a>(text: &str, start: usize, run: &'a str) -> &'a str {
    if start == 0 || text.as_bytes()[start - 1] != b'_' {
        return run;
    }
    let escape = match run.as_bytes() {
        [b'0', b'0', a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => 4,
        [b'0', b'0'..=b'9' | b'a'..=b'g', ..] => 2,
        [b'1'..=b'9', ..] => 1,
        _ => 0,
    };
    &run[escape..]
}

fn is_judged(run: &str) -> bool {
    if run.len() < MIN_RUN_BYTES {
        return false;
    }
    let bytes = run.as_bytes();
    let digits = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let case_changes =
        || bytes.windows(2).filter(|pair| CharacterKind::of(pair[0]) != CharacterKind::of(pair[1])).count();
    digits < bytes.len() && (digits > 0 || case_changes() >= MIN_CASE_CHANGES)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CharacterKind {
    Small,
    Capital,
    Digit,
}

impl CharacterKind {
    fn of(byte: u8) -> CharacterKind {
        match byte {
            b'0'..=b'9' => CharacterKind::Digit,
            b'A'..=b'Z' => CharacterKind::Capital,
            _ => CharacterKind::Small,
        }
    }
}

/// The sum of the points of a run of ASCII letters and digits. A run in capitals is scored as if it were in small letters.
fn points(run: &str) -> i32 {
    let bytes = run.as_bytes();
    let capitals_only = !bytes.iter().any(u8::is_ascii_lowercase);
    let kind = |byte: u8| match CharacterKind::of(byte) {
        CharacterKind::Capital if capitals_only => CharacterKind::Small,
        kind => kind,
    };
    let of_pair = |pair: &[u8]| match (kind(pair[0]), kind(pair[1])) {
        (CharacterKind::Digit, CharacterKind::Digit) => 0,
        (_, CharacterKind::Digit) => TO_DIGIT,
        (CharacterKind::Digit, _) => FROM_DIGIT,
        (CharacterKind::Small, CharacterKind::Capital) => NEW_WORD,
        (CharacterKind::Capital, CharacterKind::Capital) => CAPITAL,
        (_, CharacterKind::Small) => pair_points(pair[0], pair[1]),
    };
    bytes.windows(2).map(of_pair).sum()
}

fn pair_points(first: u8, second: u8) -> i32 {
    let letter = |byte: u8| usize::from(byte.to_ascii_lowercase() - b'a');
    i32::from(PAIRS[letter(first)][letter(second)] - b'0') - 5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_far_from_random_text() {
        for (run, lowest, highest) in [
            ("Wav2Vec2ForSequenceClassification", 0, 100),
            ("OAuth2AuthorizationServerConfigurer", 0, 100),
            ("vtkImageHSVToRGB", -12, 0),
            ("ROOTNAMESPACE", 0, 100),
            ("k0i1yzlc9g61in9kizhj6bwmpy", -100, -40),
            ("JTPUFzJlscbQ8S55qQVqSw", -100, -40),
            ("MUANN7UBYYZPWT2P", -100, -25),
        ] {
            let points = points(run);
            assert!((lowest..=highest).contains(&points), "{run}: {points}");
        }
    }

    #[test]
    fn escapes_of_generators_are_no_part_of_a_word() {
        for (text, run, word) in [
            ("Eigen_1SparseMatrix", "1SparseMatrix", "SparseMatrix"),
            ("Glib_01RefPtr", "01RefPtr", "RefPtr"),
            ("Glib_0gRefPtr", "0gRefPtr", "RefPtr"),
            ("XREFdoc_005fcache", "005fcache", "cache"),
            ("a-1SparseMatrix", "1SparseMatrix", "1SparseMatrix"),
            ("a_x", "x", "x"),
        ] {
            assert_eq!(without_doxygen_escape(text, text.len() - run.len(), run), word, "{text}");
        }
    }
}
