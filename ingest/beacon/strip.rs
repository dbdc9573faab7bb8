//! Takes comments and needless blanks out of a script, and changes nothing else.
//!
//! Shared by `build.rs` (which makes the served script) and the tests. It renames nothing and rearranges nothing, so
//! what a browser runs can be read against the source; gzip makes up for the long names. A crate that minifies would
//! bring a whole parser to save some hundred bytes. Where a slash could be either a division or a regular expression,
//! it refuses instead of guessing.

/// The script without comments and needless blanks. Errors name what could not be read with certainty.
pub fn strip(source: &str) -> Result<String, String> {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    let (mut blank, mut newline) = (false, false);
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        if c.is_whitespace() {
            blank = true;
            newline |= c == '\n';
            at += 1;
        } else if c == '/' && next == Some('/') {
            at = find(&chars, at, |rest| rest[0] == '\n').unwrap_or(chars.len());
        } else if c == '/' && next == Some('*') {
            let end = find(&chars, at + 2, |rest| rest.starts_with(&['*', '/'])).ok_or("a comment does not end")?;
            newline |= chars[at..end].contains(&'\n');
            blank = true;
            at = end + 2;
        } else {
            if blank && let Some(last) = out.chars().last() {
                separate(&mut out, last, c, next, newline);
            }
            (blank, newline) = (false, false);
            let end = token_end(&chars, at, &out)?;
            out.extend(&chars[at..end]);
            at = end;
        }
    }
    Ok(out)
}

fn find(chars: &[char], from: usize, matches: impl Fn(&[char]) -> bool) -> Option<usize> {
    (from..chars.len()).find(|&at| matches(&chars[at..]))
}

/// Puts a newline or a space between two tokens if leaving it out could change the meaning.
fn separate(out: &mut String, last: char, c: char, next: Option<char>, newline: bool) {
    // A newline may stand for a semicolon, except where the line before cannot end or the next cannot begin a
    // statement. (`}` takes its semicolon with or without a newline before it.)
    let open = "{([,;=&|?:<>!".contains(last) || ")]},;=&|?:".contains(c);
    let dot = c == '.' && !next.is_some_and(|next| next.is_ascii_digit());
    if newline && !open && !dot {
        out.push('\n');
        return;
    }
    let fused = (is_word(last) && is_word(c))
        || (last == c && "+-/".contains(c))
        || (last.is_ascii_digit() && c == '.')
        || (last == '/' && c == '*');
    if fused {
        out.push(' ');
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || c == '#' || !c.is_ascii()
}

/// Where the token that begins at `at` ends; `before` is what stands before it.
fn token_end(chars: &[char], at: usize, before: &str) -> Result<usize, String> {
    match chars[at] {
        quote @ ('"' | '\'') => string_end(chars, at, quote),
        '`' => template_end(chars, at),
        '/' if regex_may_follow(before)? => regex_end(chars, at),
        _ => Ok(at + 1),
    }
}

fn string_end(chars: &[char], at: usize, quote: char) -> Result<usize, String> {
    let mut end = at + 1;
    loop {
        match chars.get(end) {
            Some('\\') => end += 2,
            Some(&c) if c == quote => return Ok(end + 1),
            Some('\n') | None => return Err("a string does not end".into()),
            Some(_) => end += 1,
        }
    }
}

/// A template is copied as it stands, with all that is inserted into it.
fn template_end(chars: &[char], at: usize) -> Result<usize, String> {
    let mut end = at + 1;
    loop {
        match chars.get(end) {
            Some('\\') => end += 2,
            Some('`') => return Ok(end + 1),
            Some('$') if chars.get(end + 1) == Some(&'{') => {
                let mut depth = 1;
                end += 2;
                while depth > 0 {
                    match chars.get(end) {
                        Some('{') => depth += 1,
                        Some('}') => depth -= 1,
                        Some('/') => return Err("a slash within a template's insertion".into()),
                        None => return Err("a template does not end".into()),
                        Some(_) => {}
                    }
                    end = token_end(chars, end, "(")?;
                }
            }
            None => return Err("a template does not end".into()),
            Some(_) => end += 1,
        }
    }
}

fn regex_may_follow(before: &str) -> Result<bool, String> {
    let Some(last) = before.chars().last() else { return Ok(true) };
    if matches!(last, ')' | '}') {
        let tail: String = before.chars().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect();
        return Err(format!("a slash after `{tail}` may be a division or a regular expression"));
    }
    if is_word(last) {
        let word = before.rsplit(|c| !is_word(c)).next().unwrap_or_default();
        return Ok(matches!(word, "return" | "typeof" | "case" | "in" | "of" | "delete" | "void" | "throw" | "await"));
    }
    Ok(!matches!(last, ']' | '"' | '\'' | '`'))
}

fn regex_end(chars: &[char], at: usize) -> Result<usize, String> {
    let mut end = at + 1;
    let mut class = false;
    loop {
        match chars.get(end) {
            Some('\\') => end += 1,
            Some('[') => class = true,
            Some(']') => class = false,
            Some('/') if !class => return Ok(end + 1),
            Some('\n') | None => return Err("a regular expression does not end".into()),
            Some(_) => {}
        }
        end += 1;
    }
}
