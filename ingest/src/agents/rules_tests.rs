//! Each rule of the classification decides a case: the case has another result while the rule is switched off. The rules for headers and for
//! `navigator.webdriver` have theirs in the tests of the endpoint.

use super::signs::{BROWSER_PARTS, BROWSER_STARTS, COMPATIBLE, ENGINES, HINTS, PLATFORMS, TAILS, WORDS};
use super::switch::{Rule, without};
use super::*;
use http::HeaderMap;

const PHONE: &str =
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36";
const DESKTOP: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
const WHATSAPP: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                        Chrome/120.0.0.0 Safari/537.36 WhatsApp/2.23";
const OKHTTP: &str = "Mozilla/5.0 (Linux; Android 11; wv) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 \
                      Mobile Safari/537.36 okhttp/4.9";

/// Texts with a word that is a sign, and with no other sign.
const SIGNS: &[(&str, &str)] = &[
    ("bot", "AcmeBot/1.0"),
    ("robot", "acmerobotic"),
    ("http://", "http://a.example"),
    ("https://", "https://a.example"),
    ("www.", "www.a.example"),
    ("@", "a.b@mail.example"),
    ("scanner", "acmescanner"),
    ("scan", "scan"),
    ("feed", "feeder"),
    ("rss", "AcmeRSS/1"),
    ("agent", "acmeagent"),
    ("select ", "select 1"),
    ("test", "testing"),
    ("proxy", "proxy"),
    ("audit", "acmeaudit"),
    ("-user/", "Acme-User/1"),
    ("anonymous, ", "anonymous, x"),
];

/// Agents of people with a word that would be a sign in another context.
const CONTEXTS: &[(&str, &[&str])] = &[
    (
        "bot",
        &[
            "Mozilla/5.0 (Linux; Android 10; CUBOT_X19) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 9; CUBOT) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari/537.36",
        ],
    ),
    (
        "spider",
        &[
            "Mozilla/5.0 (Linux; Android 5.1; Spider X5 Build/LMY47D) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/61.0.3163.98 Mobile Safari/537.36",
        ],
    ),
    (
        "http://",
        &["Mozilla/5.0 (Windows NT 10.0; rv:68.0) Goanna/5.1 Firefox/68.0 PaleMoon/31.0 (http://palemoon.example)"],
    ),
    (
        "https://",
        &["Mozilla/5.0 (Windows NT 10.0; rv:68.0) Goanna/5.1 Firefox/68.0 PaleMoon/31.0 (https://palemoon.example)"],
    ),
    ("www.", &["Mozilla/5.0 (Windows NT 10.0; rv:68.0) Goanna/5.1 Firefox/68.0 PaleMoon/31.0 (www.palemoon.example)"]),
    ("@", &["phone acme@home"]),
    ("scanner", &["phone CamScanner/4.5"]),
    ("scan", &["phone scandic"]),
    ("feed", &["phone offeed"]),
    ("rss", &["phone acmerssacme"]),
    ("agent", &["phone agents"]),
    ("select ", &["phone preselect 1"]),
    ("test", &["phone latest"]),
    ("proxy", &["phone proxyacme"]),
    ("audit", &["phone auditor"]),
];

fn class(agent: &str, rules: &OwnRules) -> Classes {
    let headers = HeaderMap::from_iter([(http::header::USER_AGENT, agent.parse().unwrap())]);
    classify(UserAgent::of(&headers), rules)
}

fn operators() -> OwnRules {
    let extra = "GPTBot=Own name=monitor".parse().unwrap();
    OwnRules::new(vec!["KioskBot".to_owned()], vec![extra])
}

/// The text behind the word in a list, or the word itself.
fn listed<'a>(list: &[(&'a str, &'a str)], word: &'a str) -> &'a str {
    list.iter().find(|(of, _)| *of == word).map_or(word, |(_, text)| text)
}

/// Agents whose classes depend on the rule, and whether they are people.
fn cases(rule: Rule) -> (Vec<String>, bool) {
    let one = |agent: String, person: bool| (vec![agent], person);
    let robot = |agent: &str| (vec![agent.to_owned()], false);
    match rule {
        Rule::NeverRobots => one("KioskBot/1".to_owned(), true),
        Rule::RobotsExtra => robot("GPTBot/1.0"),
        Rule::NoAgent => robot(""),
        Rule::OwnNamesFirst => robot("Claude-User/1.0 python-requests/2.31"),
        Rule::LongestLiteral => robot("Python/3.9 aiohttp/3.7"),
        Rule::Crawlers => robot("360Spider"),
        Rule::Anchors => (vec![WHATSAPP.to_owned(), OKHTTP.to_owned()], true),
        Rule::Word(word) => one(format!("{PHONE} {}", listed(SIGNS, word)), false),
        Rule::Context(word) => {
            let agents = CONTEXTS.iter().find(|(of, _)| *of == word).map_or(&[][..], |(_, agents)| agents);
            (agents.iter().map(|agent| agent.replace("phone ", &format!("{PHONE} "))).collect(), true)
        }
        Rule::Start => (["-", "undefined", "acme/1.0", "Mozilla/5.0"].map(str::to_owned).to_vec(), false),
        Rule::OtherStart(start) => one(format!("{start}1"), true),
        Rule::BrowserPart(part) => one(format!("acme {part}1"), true),
        Rule::NoPlatform => robot("Mozilla/5.0 (Acme) AppleWebKit/537.36"),
        Rule::Platform(word) => one(format!("Mozilla/5.0 (q {word}) AppleWebKit/537.36"), true),
        Rule::NoEngine => robot("Mozilla/5.0 (Windows NT 10.0; Win64; x64)"),
        Rule::Engine(word) => one(format!("Mozilla/5.0 (X11; Linux x86_64) {word}1"), true),
        Rule::CompatibleProgram => (
            ["Mozilla/4.0 (compatible; Acme)".to_owned(), format!("{DESKTOP} (compatible; Safari Acme)")].to_vec(),
            false,
        ),
        Rule::CompatibleBrowser(name) => one(format!("Mozilla/4.0 (compatible; {name} 1)"), true),
        Rule::ProgramAfterBrowser => one(format!("{DESKTOP} Acme/1.0"), false),
        Rule::Tail(word) => one(format!("{DESKTOP} {word}1"), true),
        Rule::Hint(word) => one(format!("Qq (+http://a.example) {word}1"), false),
        Rule::Prefetch | Rule::HeadlessBrand | Rule::Webdriver => (Vec::new(), false),
    }
}

/// Whether another row of the list, or `others`, decides the cases of `row`, too.
fn is_covered(row: &str, list: &[&str], others: &[&str]) -> bool {
    list.iter().any(|other| *other != row && row.contains(other)) || others.iter().any(|other| row.contains(other))
}

fn every_rule() -> Vec<Rule> {
    let mut rules = vec![
        Rule::NeverRobots,
        Rule::RobotsExtra,
        Rule::NoAgent,
        Rule::OwnNamesFirst,
        Rule::LongestLiteral,
        Rule::Crawlers,
        Rule::Anchors,
        Rule::Start,
        Rule::NoPlatform,
        Rule::NoEngine,
        Rule::CompatibleProgram,
        Rule::ProgramAfterBrowser,
    ];
    rules.extend(WORDS.iter().map(|(word, _)| Rule::Word(word)));
    rules.extend(CONTEXTS.iter().map(|(word, _)| Rule::Context(word)));
    let starts = BROWSER_STARTS.iter().filter(|start| !is_covered(start, BROWSER_STARTS, BROWSER_PARTS));
    // Agents that begin like this never reach the list.
    rules.extend(starts.filter(|start| **start != "mozilla/").map(|start| Rule::OtherStart(start)));
    rules.extend(BROWSER_PARTS.iter().map(|part| Rule::BrowserPart(part)));
    rules.extend(PLATFORMS.iter().filter(|word| !is_covered(word, PLATFORMS, &[])).map(|word| Rule::Platform(word)));
    rules.extend(ENGINES.iter().map(|word| Rule::Engine(word)));
    rules.extend(COMPATIBLE.iter().map(|name| Rule::CompatibleBrowser(name)));
    rules.extend(TAILS.iter().filter(|word| !is_covered(word, TAILS, &[])).map(|word| Rule::Tail(word)));
    // Selenium is a name of our list, too, which comes first.
    rules.extend(HINTS.iter().filter(|(word, _)| *word != "selenium").map(|(word, _)| Rule::Hint(word)));
    rules
}

#[test]
fn no_rule_can_be_left_out() {
    let rules = operators();
    let mut wrong = Vec::new();
    for rule in every_rule() {
        let (agents, person) = cases(rule);
        if agents.is_empty() {
            wrong.push(format!("{rule:?} has no case"));
        }
        for agent in agents {
            let found = class(&agent, &rules);
            let left_out = without(rule, || class(&agent, &rules));
            if (found.bot_class == BotClass::Person) != person || found == left_out {
                wrong.push(format!("{rule:?}: {agent:?}: {found:?}, without the rule {left_out:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
