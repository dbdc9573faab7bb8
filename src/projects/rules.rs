//! `headcount project rules`: the path rules of a project, changed rule by rule.

use anyhow::{Context, bail};
use clap::ArgMatches;
use ingest::path_rules::PathPattern;
use schemas::tables::ProjectRow;
use std::fmt;

/// The changes of a command: rules to add and to remove, of each list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChange {
    clear: bool,
    mask: ListChange,
    keep: ListChange,
    query: ListChange,
    strip_trailing_slash: Option<bool>,
    strip_html: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ListChange {
    add: Vec<String>,
    remove: Vec<String>,
}

impl ListChange {
    /// Appends, as order matters: of several patterns the first that matches is applied.
    fn apply(&self, list: &mut Vec<String>) {
        list.retain(|text| !self.remove.contains(text));
        for text in &self.add {
            if !list.contains(text) {
                list.push(text.clone());
            }
        }
    }
}

impl RuleChange {
    /// Reads and checks the flags; a command without them changes nothing.
    ///
    /// # Errors
    /// A rule to add is not a pattern or not a parameter's name. Rules to remove are not checked, so that any can be removed.
    pub fn from_arguments(matches: &ArgMatches) -> anyhow::Result<Self> {
        let list = |name: &str, remove: &str| {
            let texts = |name: &str| -> Vec<String> {
                matches.try_get_many::<String>(name).ok().flatten().into_iter().flatten().cloned().collect()
            };
            ListChange { add: texts(name), remove: texts(remove) }
        };
        let ending = |name: &str| matches.try_get_one::<String>(name).ok().flatten().map(|text| text == "strip");
        let change = RuleChange {
            clear: matches.try_get_one::<bool>("clear").ok().flatten().copied().unwrap_or(false),
            mask: list("mask", "remove-mask"),
            keep: list("keep", "remove-keep"),
            query: list("query-parameter", "remove-query-parameter"),
            strip_trailing_slash: ending("trailing-slash"),
            strip_html: ending("html"),
        };
        for text in change.mask.add.iter().chain(&change.keep.add) {
            text.parse::<PathPattern>().with_context(|| format!("{text:?} is no pattern of paths"))?;
        }
        for name in &change.query.add {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
                bail!(
                    "{name:?} is no name of a query parameter: expected up to 64 letters, digits, dots, underscores and hyphens"
                );
            }
        }
        Ok(change)
    }

    /// Whether it changes nothing.
    pub fn is_nothing(&self) -> bool {
        *self == RuleChange::default()
    }

    /// Changes the row: first removes everything if the command says so, then removes single rules, then adds.
    pub fn apply(&self, row: &mut ProjectRow) {
        if self.clear {
            clear(row);
        }
        self.mask.apply(&mut row.mask);
        self.keep.apply(&mut row.keep);
        self.query.apply(&mut row.query);
        if let Some(strip) = self.strip_trailing_slash {
            row.strip_trailing_slash = u8::from(strip);
        }
        if let Some(strip) = self.strip_html {
            row.strip_html = u8::from(strip);
        }
    }
}

/// Removes all rules.
pub fn clear(row: &mut ProjectRow) {
    (row.mask, row.keep, row.query) = Default::default();
    (row.strip_trailing_slash, row.strip_html) = (0, 0);
}

/// One kind of rules or settings with its values: `mask: /users/*, /download/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    kind: &'static str,
    value: String,
    is_set: bool,
}

impl Rule {
    /// One value, and whether it differs from a new project's.
    pub fn of(kind: &'static str, value: impl Into<String>, is_set: bool) -> Self {
        Rule { kind, value: value.into(), is_set }
    }

    /// Several values, or `nothing`.
    pub fn list(kind: &'static str, texts: &[String]) -> Self {
        let value = if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") };
        Rule { kind, value, is_set: !texts.is_empty() }
    }

    /// Whether it differs from a project without rules.
    pub fn is_set(&self) -> bool {
        self.is_set
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.value)
    }
}

/// The rules of a project, one line for each kind.
pub fn described(row: &ProjectRow) -> Vec<Rule> {
    let ending = |kind, strip: u8| Rule {
        kind,
        value: if strip == 1 { "strip" } else { "keep" }.to_owned(),
        is_set: strip == 1,
    };
    vec![
        Rule::list("mask", &row.mask),
        Rule::list("keep", &row.keep),
        Rule::list("query-parameter", &row.query),
        ending("trailing-slash", row.strip_trailing_slash),
        ending("html", row.strip_html),
    ]
}

/// Each kind of rules, with the previous values if they changed: `mask: nothing → /users/*`.
pub fn differences(before: &[Rule], after: &[Rule]) -> Vec<String> {
    let line = |(before, after): (&Rule, &Rule)| match before == after {
        true => after.to_string(),
        false => format!("{}: {} → {}", after.kind, before.value, after.value),
    };
    before.iter().zip(after).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, ArgAction, Command};

    fn change(arguments: &[&str]) -> anyhow::Result<RuleChange> {
        let texts = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
        let lists = ["mask", "remove-mask", "keep", "remove-keep", "query-parameter", "remove-query-parameter"];
        let command = Command::new("rules")
            .args(lists.map(texts))
            .args(["trailing-slash", "html"].map(|name| Arg::new(name).long(name)))
            .arg(Arg::new("clear").long("clear").action(ArgAction::SetTrue));
        RuleChange::from_arguments(&command.try_get_matches_from(std::iter::once(&"rules").chain(arguments))?)
    }

    /// The lines that a series of commands prints, the last command's.
    fn printed(commands: &[&[&str]]) -> Vec<String> {
        let mut row = crate::projects::new_row("docs");
        let mut lines = Vec::new();
        for arguments in commands {
            let before = described(&row);
            change(arguments).unwrap().apply(&mut row);
            lines = differences(&before, &described(&row));
        }
        lines
    }

    #[test]
    fn rules_are_changed_one_by_one() {
        let first: &[&str] = &["--mask", "/users/*", "--mask", "/a/*", "--html", "strip", "--query-parameter", "page"];
        assert_eq!(
            printed(&[first]),
            [
                "mask: nothing → /users/*, /a/*",
                "keep: nothing",
                "query-parameter: nothing → page",
                "trailing-slash: keep",
                "html: keep → strip"
            ]
        );
        let second: &[&str] =
            &["--remove-mask", "/a/*", "--mask", "/b/*", "--mask", "/users/*", "--trailing-slash", "strip"];
        assert_eq!(
            printed(&[first, second]),
            [
                "mask: /users/*, /a/* → /users/*, /b/*",
                "keep: nothing",
                "query-parameter: page",
                "trailing-slash: keep → strip",
                "html: strip"
            ]
        );
        assert_eq!(
            printed(&[first, &["--clear", "--keep", "/c/*"]]),
            [
                "mask: /users/*, /a/* → nothing",
                "keep: nothing → /c/*",
                "query-parameter: page → nothing",
                "trailing-slash: keep",
                "html: strip → keep"
            ]
        );
    }

    #[test]
    fn without_flags_nothing_changes() {
        assert!(change(&[]).unwrap().is_nothing());
        assert!(!change(&["--clear"]).unwrap().is_nothing());
        assert!(!change(&["--remove-keep", "/a/*"]).unwrap().is_nothing());
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, expected) in [
            (["--mask", "users/*"], "is no pattern of paths"),
            (["--keep", "/a?b"], "is no pattern of paths"),
            (["--query-parameter", "a=b"], "is no name of a query parameter"),
        ] {
            let error = change(&arguments).expect_err("refused").to_string();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }
}
