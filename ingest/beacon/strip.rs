//! Makes a script small for the wire, and changes nothing that it does: comments and needless blanks go, and the names
//! that the script declares for itself become letters.
//!
//! Shared by `build.rs` (which makes the served script) and the tests. A crate that minifies would bring a whole parser
//! to save some dozen bytes more. Where a slash could be either a division or a regular expression, this refuses
//! instead of guessing; and a name that might also be a property keeps its length.

use std::collections::BTreeMap;

/// The small script. Errors name what could not be read with certainty.
pub fn strip(source: &str) -> Result<String, String> {
    let tokens = tokens(source)?;
    let short = short_names(&tokens);
    let mut out = String::new();
    for (at, token) in tokens.iter().enumerate() {
        let text = short.get(token.text.as_str()).unwrap_or(&token.text);
        if token.gap != Gap::None && at > 0 {
            separate(&mut out, text, token.gap);
        }
        out.push_str(text);
    }
    Ok(out)
}

/// What stood before a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    None,
    Blank,
    Newline,
}

/// A word, a literal, or a single character.
struct Token {
    gap: Gap,
    text: String,
}

fn tokens(source: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = source.chars().collect();
    let mut tokens: Vec<Token> = Vec::new();
    let mut at = 0;
    let mut gap = Gap::None;
    while let Some(&c) = chars.get(at) {
        if c.is_whitespace() {
            gap = gap.max(if c == '\n' { Gap::Newline } else { Gap::Blank });
            at += 1;
        } else if chars[at..].starts_with(&['/', '/']) {
            at = find(&chars, at, |rest| rest[0] == '\n').unwrap_or(chars.len());
        } else if chars[at..].starts_with(&['/', '*']) {
            let end = find(&chars, at + 2, |rest| rest.starts_with(&['*', '/'])).ok_or("a comment does not end")?;
            gap = gap.max(if chars[at..end].contains(&'\n') { Gap::Newline } else { Gap::Blank });
            at = end + 2;
        } else {
            let end = token_end(&chars, at, tokens.last().map_or("", |token| &token.text))?;
            tokens.push(Token { gap, text: chars[at..end].iter().collect() });
            gap = Gap::None;
            at = end;
        }
    }
    Ok(tokens)
}

/// Letters for the names that follow a `const` or `let` or stand before a `=>`. Every use of such a name is renamed alike, whatever its scope,
/// so scopes keep their meaning; hence none may be a property anywhere (`.name`, `{name: …}`, `{name}`), nor hide in a
/// template, and no letter may be in use already.
fn short_names(tokens: &[Token]) -> BTreeMap<&str, String> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    // `name(…) {`, which a call cannot be.
    let is_method = |at: usize| {
        let mut depth = 0;
        for at in at + 1..tokens.len() {
            match text(at) {
                "(" => depth += 1,
                ")" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return text(at) == ")" && text(at + 1) == "{";
            }
        }
        false
    };
    let may_be_property = |name: &str| {
        (0..tokens.len()).any(|at| {
            let (before, after) = (if at == 0 { "" } else { text(at - 1) }, text(at + 1));
            let listed = matches!(before, "{" | "," | "get" | "set" | "async" | "static" | "*");
            let property = before == "." || (listed && (matches!(after, ":" | "," | "}") || is_method(at)));
            (text(at) == name && property) || (text(at).starts_with('`') && text(at).contains(name))
        })
    };
    let mut letters = ('a'..='z').map(String::from).filter(|letter| tokens.iter().all(|token| token.text != *letter));
    let mut short = BTreeMap::new();
    for at in 1..tokens.len() {
        let name = text(at);
        let parameter = text(at + 1) == "=" && text(at + 2) == ">";
        let declared = (parameter || matches!(text(at - 1), "const" | "let")) && name.chars().all(is_word);
        if declared && !short.contains_key(name) && !may_be_property(name) {
            let Some(letter) = letters.next() else { break };
            short.insert(name, letter);
        }
    }
    short
}

fn find(chars: &[char], from: usize, matches: impl Fn(&[char]) -> bool) -> Option<usize> {
    (from..chars.len()).find(|&at| matches(&chars[at..]))
}

/// Puts a newline or a space before the token `text` if leaving it out could change the meaning.
fn separate(out: &mut String, text: &str, gap: Gap) {
    let (Some(last), Some(c)) = (out.chars().last(), text.chars().next()) else {
        return;
    };
    // A newline may stand for a semicolon, except where the line before cannot end or the next cannot begin a
    // statement. (`}` takes its semicolon with or without a newline before it.)
    let open = "{([,;=&|?:<>!".contains(last) || ")]},;=&|?:.".contains(c);
    if gap == Gap::Newline && !open {
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
    c.is_alphanumeric() || matches!(c, '_' | '$' | '#') || !c.is_ascii()
}

/// Where the token that begins at `at` ends; `before` is the token before it.
fn token_end(chars: &[char], at: usize, before: &str) -> Result<usize, String> {
    match chars[at] {
        quote @ ('"' | '\'') => string_end(chars, at, quote),
        '`' => template_end(chars, at),
        '/' if regex_may_follow(before)? => regex_end(chars, at),
        '.' if chars.get(at + 1).is_some_and(char::is_ascii_digit) => Err("a number begins with its point".into()),
        c if is_word(c) => Ok(find(chars, at, |rest| !is_word(rest[0])).unwrap_or(chars.len())),
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
    Ok(match before.chars().last() {
        None => true,
        Some(')' | '}') if before.len() == 1 => {
            return Err(format!("a slash after `{before}` may be a division or a regular expression"));
        }
        Some(c) if is_word(c) => {
            matches!(before, "return" | "typeof" | "case" | "in" | "of" | "delete" | "void" | "throw" | "await")
        }
        Some(c) => !matches!(c, ']' | '"' | '\'' | '`' | '/') || before == "/",
    })
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
