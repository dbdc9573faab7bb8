//! Rules of the classification. A test can switch one off, to show that the result of a case depends on it.

/// A rule. Rules that are rows of a list carry the row's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// The operator's `never_robots` come first.
    NeverRobots,
    /// The operator's `robots_extra` come before all tables.
    RobotsExtra,
    /// An agent that is empty is a robot.
    NoAgent,
    /// Names of our list come before the table of crawlers and the names of libraries.
    OwnNamesFirst,
    /// Of the table and the libraries, the longest literal decides.
    LongestLiteral,
    /// The table of crawlers.
    Crawlers,
    /// `^` and `$` anchor a literal.
    Anchors,
    /// A word is a sign.
    Word(&'static str),
    /// A word is a sign only in a certain context.
    Context(&'static str),
    /// An agent that does not begin like a browser's is a program.
    Start,
    /// Exempt from [`Rule::Start`]: other prefixes of browsers.
    OtherStart(&'static str),
    /// Exempt from [`Rule::Start`]: parts of browsers' agents with any prefix.
    BrowserPart(&'static str),
    /// An agent of today's form names no system in its brackets.
    NoPlatform,
    /// Exempt from [`Rule::NoPlatform`]: a system or device.
    Platform(&'static str),
    /// An agent with a desktop's system names no engine.
    NoEngine,
    /// Exempt from [`Rule::NoEngine`]: an engine.
    Engine(&'static str),
    /// `(compatible; X)`.
    CompatibleProgram,
    /// Exempt from [`Rule::CompatibleProgram`]: browsers that used this form.
    CompatibleBrowser(&'static str),
    /// A desktop's agent has the name of a program after that of the browser.
    ProgramAfterBrowser,
    /// Exempt from [`Rule::ProgramAfterBrowser`]: a name that browsers have there.
    Tail(&'static str),
    /// The kind of a robot without a name follows from a word.
    Hint(&'static str),
    /// Prefetches are not counted.
    Prefetch,
    /// `HeadlessChrome` in `Sec-CH-UA` is a robot.
    HeadlessBrand,
    /// `navigator.webdriver`, as the script reports it, is a robot.
    Webdriver,
}

/// Always, outside of tests.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn is_on(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use of_tests::{is_on, without};

#[cfg(test)]
mod of_tests {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static OFF: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Whether no test on this thread has switched the rule off.
    pub(crate) fn is_on(rule: Rule) -> bool {
        OFF.get() != Some(rule)
    }

    /// The result of `classify` while the rule is switched off on this thread.
    pub(crate) fn without<T>(rule: Rule, classify: impl FnOnce() -> T) -> T {
        OFF.set(Some(rule));
        let result = classify();
        OFF.set(None);
        result
    }
}
