//! Which robot an agent is: names listed here, then the table of crawlers, then signs.

use super::own::{FIRST, LIBRARIES, NamedRobot};
use super::signs::{self, WORDS};
use super::switch::{Rule, is_on};
use aho_corasick::{AhoCorasick, AhoCorasickKind};
use schemas::classes::{BotClass, ClassName as _};
use std::collections::HashMap;
use std::sync::LazyLock;

/// The table that `scripts/agents --update` generates: literal, name, kind.
pub(super) const CRAWLERS: &str = include_str!("crawler-user-agents.tsv");

/// Version of the rules by which robots are found, in every record. Raised with each change of a table: a test compares the checksum.
pub const RULES_VERSION: u32 = 1;

/// A robot: its name in reports and its kind.
pub type Robot = (&'static str, BotClass);

/// A browser that looks like a person's, but reports that a program drives it.
pub const AUTOMATED_BROWSER: Robot = ("Automated browser", BotClass::Automation);

/// What a matched literal of the automaton refers to.
enum Meaning {
    /// Index into [`FIRST`].
    First(usize),
    /// Of the table or of [`LIBRARIES`]: the longest wins.
    Longest(Robot, From),
    /// Index into [`WORDS`].
    Sign(usize),
}

/// The list that a literal is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Libraries,
    Crawlers,
}

struct Literal {
    at_start: bool,
    at_end: bool,
    meaning: Meaning,
}

struct Table {
    automaton: AhoCorasick,
    literals: Vec<Literal>,
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// Rows of the table of crawlers.
fn crawlers() -> impl Iterator<Item = NamedRobot<'static>> {
    let rows = CRAWLERS.lines().filter(|line| !line.starts_with('#'));
    rows.filter_map(|row| {
        let mut fields = row.split('\t');
        Some((fields.next()?, fields.next()?, kind_named(fields.next()?)?))
    })
}

/// The kind with this name, such as `ai_training`. Kinds that only old records contain have none.
pub fn kind_named(name: &str) -> Option<BotClass> {
    let kinds = (1..=12).filter_map(|number| BotClass::try_from(number).ok());
    kinds.filter(|kind| *kind != BotClass::AiCrawler).find(|kind| kind.class_name() == name)
}

impl Table {
    fn new() -> Self {
        let first = FIRST.iter().enumerate().map(|(place, (literal, ..))| (*literal, Meaning::First(place)));
        let libraries = LIBRARIES.iter().copied().map(|named| (named, From::Libraries));
        let longest = libraries.chain(crawlers().map(|named| (named, From::Crawlers)));
        let longest = longest.map(|((literal, name, kind), from)| (literal, Meaning::Longest((name, kind), from)));
        let signs = WORDS.iter().enumerate().map(|(place, (word, _))| (*word, Meaning::Sign(place)));
        let (mut texts, mut literals) = (Vec::new(), Vec::new());
        for (literal, meaning) in first.chain(longest).chain(signs) {
            let (at_start, at_end) = (literal.starts_with('^'), literal.ends_with('$'));
            texts.push(literal.trim_start_matches('^').trim_end_matches('$'));
            literals.push(Literal { at_start, at_end, meaning });
        }
        // Some megabytes for the fastest search.
        let automaton = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(texts);
        let automaton = automaton.expect("the tables are a valid set of patterns");
        Table { automaton, literals }
    }
}

/// The robot that sends this agent, in lower case; none if it is a person's browser.
pub(super) fn robot(agent: &str) -> Option<Robot> {
    if agent.trim().is_empty() && is_on(Rule::NoAgent) {
        return Some(("No user agent", BotClass::OtherBot));
    }
    let (mut first, mut longest, mut is_sign) = (None::<usize>, None::<(usize, Robot)>, false);
    for found in TABLE.automaton.find_overlapping_iter(agent) {
        let literal = &TABLE.literals[found.pattern().as_usize()];
        let is_elsewhere = literal.at_start && found.start() != 0 || literal.at_end && found.end() != agent.len();
        if is_elsewhere && is_on(Rule::Anchors) {
            continue;
        }
        match literal.meaning {
            Meaning::First(place) => first = Some(first.map_or(place, |best| best.min(place))),
            Meaning::Longest(_, From::Crawlers) if !is_on(Rule::Crawlers) => {}
            Meaning::Longest(robot, _) => {
                let len = found.end() - found.start();
                if longest.is_none_or(|(best, _)| len > best && is_on(Rule::LongestLiteral)) {
                    longest = Some((len, robot));
                }
            }
            Meaning::Sign(place) => is_sign |= signs::is_sign(place, &agent[..found.start()], &agent[found.end()..]),
        }
    }
    let first = first.map(|place| (FIRST[place].1, FIRST[place].2));
    let longest = longest.map(|(_, robot)| robot);
    let named = if is_on(Rule::OwnNamesFirst) { first.or(longest) } else { longest.or(first) };
    named.or_else(|| (is_sign || signs::is_foreign_form(agent)).then(|| unnamed(signs::kind_by_words(agent))))
}

/// A robot of that kind that no list contains. Each kind has a separate name, so that a name has one kind.
fn unnamed(kind: BotClass) -> Robot {
    let name = match kind {
        BotClass::Search => "Other search engine",
        BotClass::AiTraining | BotClass::AiCrawler => "Other AI crawler",
        BotClass::AiAssistant => "Other AI assistant",
        BotClass::Preview => "Other link preview",
        BotClass::Monitor => "Other monitor",
        BotClass::Automation => "Other program",
        BotClass::Feed => "Other feed reader",
        BotClass::Seo => "Other SEO tool",
        BotClass::Archiver => "Other archiver",
        BotClass::Scanner => "Other scanner",
        BotClass::OtherBot | BotClass::Person => "Other bot",
    };
    (name, kind)
}

/// The kind of the robot that reports show under `name`. Names that earlier versions wrote are known, too.
pub fn kind_of_robot(name: &str) -> Option<BotClass> {
    static KINDS: LazyLock<HashMap<&'static str, BotClass>> = LazyLock::new(|| {
        let unnamed = (1..=12).filter_map(|number| BotClass::try_from(number).ok().map(unnamed));
        let others = crawlers().chain(LIBRARIES.iter().copied()).chain(FIRST.iter().copied());
        unnamed
            .chain([AUTOMATED_BROWSER])
            .chain(others.map(|(_, name, kind)| (name, kind)))
            .chain([("No user agent", BotClass::OtherBot)])
            .collect()
    });
    KINDS.get(name).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::ai_agents;

    /// The checksum of the rules for robots at [`RULES_VERSION`].
    const RULES_CHECKSUM: &str = "8e54d2259784e2a3";

    #[test]
    fn changed_rules_have_a_new_version() {
        let words: Vec<_> = WORDS.iter().map(|(word, _)| word).collect();
        let forms = (
            signs::BROWSER_STARTS,
            signs::BROWSER_PARTS,
            signs::PLATFORMS,
            signs::TAILS,
            signs::HINTS,
            signs::ENGINES,
            signs::COMPATIBLE,
        );
        let rules = format!("{CRAWLERS:?}{FIRST:?}{LIBRARIES:?}{words:?}{forms:?}");
        let checksum = blake3::hash(rules.as_bytes()).to_hex();
        assert_eq!(
            RULES_CHECKSUM,
            &checksum[..16],
            "the rules of version {RULES_VERSION} have changed: raise RULES_VERSION, and set the checksum to the one on the right"
        );
    }

    /// A phone's browser with `text` behind.
    fn with(text: &str) -> String {
        let browser = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36";
        format!("{browser}{text}").to_ascii_lowercase()
    }

    #[test]
    fn each_word_is_a_sign_of_its_own() {
        assert_eq!(robot(&with("")), None);
        for text in [
            "AcmeBot/1.0",
            "Acmebots",
            "acmerobotic",
            "acmecrawl",
            "acmespider",
            "acmescrape",
            "acmeslurp",
            "http://a.example",
            "https://a.example",
            "www.a.example",
            "a.b@mail.example",
            "Acmeheadless",
            "acmefetched",
            "acmemonitoring",
            "acmescanner",
            "acmescanning",
            "scan",
            "acmesecurity",
            "acmevalidator",
            "acmechecker",
            "acmearchiver",
            "acmepreview",
            "feeder",
            "AcmeRSS/1",
            "acmeindexer",
            "acmeagent",
            "acmesynthetic",
            "acmeobservatory",
            "acmediagnostics",
            "acmetranscoder",
            "acmepagespeed",
            "page speed",
            "select 1",
            "/*",
            "acmelighthouse",
            "testing",
            "acmeuptime",
            "acmethumbnails",
            "acmescreenshots",
            "acmesitemap",
            "acmewebhook",
            "acmeharvest",
            "acmeextractor",
            "acmeanalyzer",
            "acmeinspector",
            "acmepython",
            "acmenode.js",
            "acmeautomation",
            "proxy",
            "acmeaudit",
            "acmeresearch",
            "Acme-User/1",
            "anonymous, x",
        ] {
            assert!(robot(&with(&format!(" {text}"))).is_some(), "{text}");
        }
    }

    #[test]
    fn people_with_a_word_like_a_robots() {
        for agent in [
            "Mozilla/5.0 (Linux; Android 10; CUBOT_X19) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 9; CUBOT) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 5.1; Spider X5 Build/LMY47D) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/61.0.3163.98 Mobile Safari/537.36",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36 WhatsApp/2.23",
            "Mozilla/5.0 (Linux; Android 11; wv) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36 okhttp/4.9",
            "Mozilla/5.0 (Windows NT 10.0; rv:68.0) Goanna/5.1 Firefox/68.0 PaleMoon/31.0 (https://www.palemoon.org)",
            "Mozilla/5.0 (compatible; Konqueror/4.5; Linux) KHTML/4.5.4 (like Gecko) Safari/531",
            "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0)",
            "Opera/9.80 (Windows NT 6.1; U; en) Presto/2.12.388 Version/12.18",
            "Lynx/2.9.0 libwww-FM/2.14",
            "w3m/0.5.3",
            "Links (2.29; Linux)",
            "ELinks/0.13",
            "Dillo/3.1",
            "URL/Emacs Emacs/29.1",
            "IBrowse/2.5 (AmigaOS 3.9; 68K)",
            "MOT-ACME/1.0 UP.Browser/6.2 (GUI) MMP/2.0",
            "Acme/1.0 (MRE/3.1;MAUI;WAP Browser/MAUI)",
            "Outlook-Express/7.0 (MSIE 7.0; Windows NT 6.1)",
            "AcmeApp/3 CFNetwork/1220.1 Darwin/20.3.0",
            "AcmeApp/3 (iPhone; iOS 17.1; Scale/3.00)",
            "Acme app/3 Dalvik/2.1.0 (Linux; U; Android 5.1.1)",
            "AcmeWebView/1.5 Android/6.0.1",
            "Mozilla/5.0 (Linux; Android 13; wv) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0 Mobile Safari/537.36 CamScanner/4.5",
        ] {
            assert_eq!(robot(&agent.to_ascii_lowercase()), None, "{agent}");
        }
    }

    #[test]
    fn forms_that_no_browser_has() {
        let desktop =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        assert_eq!(robot(&desktop.to_ascii_lowercase()), None);
        for agent in ["-", "undefined", "acme/1.0", "Mozilla/5.0", "Mozilla/5.0 (Acme)", "Mozilla/5.0 Acme/1.0"] {
            assert!(robot(&agent.to_ascii_lowercase()).is_some(), "{agent}");
        }
        for agent in [
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64)",
            "Mozilla/5.0 (X11; Linux x86_64) Acme/2.0",
            "Mozilla/4.0 (compatible; Acme)",
            "Mozilla/5.0 (Windows NT 10.0; compatible; Acme/1.0)",
        ] {
            assert!(robot(&agent.to_ascii_lowercase()).is_some(), "{agent}");
        }
        for tail in [" QuarkPC/4.2.7.457", " ArkWeb/4.1.6.1", " Lark/7.20.0"] {
            assert_eq!(robot(&format!("{desktop}{tail}").to_ascii_lowercase()), None, "{tail}");
        }
        for tail in [" (compatible; Safari Acme)", " Acme/1.0"] {
            assert!(robot(&format!("{desktop}{tail}").to_ascii_lowercase()).is_some(), "{tail}");
        }
    }

    #[test]
    fn the_longest_literal_and_own_names_decide() {
        for (agent, name, kind) in [
            ("TelegramBot (like TwitterBot)", "TelegramBot", BotClass::Preview),
            ("Claude-User (claude-code/9.9)", "Claude-Code", BotClass::AiAssistant),
            ("FreshRSS/9.9 (Linux) like Googlebot", "FreshRSS", BotClass::Feed),
            ("Python/3.9 aiohttp/3.7", "aiohttp", BotClass::Automation),
            ("Acme Monitor/1.0", "Other monitor", BotClass::Monitor),
            ("", "No user agent", BotClass::OtherBot),
        ] {
            assert_eq!(robot(&agent.to_ascii_lowercase()), Some((name, kind)), "{agent}");
        }
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = CRAWLERS.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(crawlers().count(), rows);
    }

    #[test]
    fn ai_agents_are_those_that_reports_show_apart() {
        let named = FIRST.iter().chain(LIBRARIES).copied().chain(crawlers());
        let unnamed = [BotClass::AiTraining, BotClass::AiAssistant].map(unnamed);
        let robots = named.map(|(_, name, _)| name).chain(unnamed.map(|(name, _)| name));
        let is_ai = |kind: &BotClass| matches!(kind, BotClass::AiTraining | BotClass::AiAssistant);
        for name in robots {
            assert_eq!(
                ai_agents::kind_of(name),
                kind_of_robot(name).filter(is_ai),
                "{name}: see schemas/src/ai_agents.rs"
            );
        }
        assert!(ai_agents::AI_AGENTS.is_sorted());
    }
}
