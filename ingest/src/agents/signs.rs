//! Signs of a robot that no list contains: words that occur in robots' agents, and the form of an agent.

use super::switch::{Rule, is_on};
use aho_corasick::AhoCorasick;
use schemas::classes::BotClass;
use std::sync::LazyLock;

/// Decides whether a word is a sign, given the text before and after it in lower case.
type WordContext = fn(&str, &str) -> bool;

/// Words that are a sign of a robot, in lower case.
pub(super) const WORDS: &[(&str, WordContext)] = &[
    // CUBOT is a make of phones.
    ("bot", |before, after| !before.ends_with("cu") && !is_letter_next(after.strip_prefix('s').unwrap_or(after))),
    ("robot", anywhere),
    ("crawl", anywhere),
    // Spider X5 and Spider 8 are phones.
    ("spider", |_, after| !after.starts_with(" x5") && !after.starts_with("x5") && !after.starts_with(" 8")),
    ("scrap", anywhere),
    ("slurp", anywhere),
    ("http://", |before, _| !before.contains("palemoon")),
    ("https://", |before, _| !before.contains("palemoon")),
    ("www.", |before, _| !is_letter_before(before) && !before.contains("palemoon")),
    ("@", is_mail),
    ("headless", anywhere),
    ("fetch", anywhere),
    ("monitor", anywhere),
    ("scanner", |before, _| !before.ends_with("cam")),
    ("scanning", anywhere),
    ("scan", |before, after| !is_letter_before(before) && !is_letter_next(after)),
    ("security", anywhere),
    ("validator", anywhere),
    ("checker", anywhere),
    ("archiver", anywhere),
    ("preview", anywhere),
    ("feed", |before, _| !is_letter_before(before)),
    ("rss", |before, after| after.starts_with(['/', ' ']) || !is_letter_before(before) && !is_letter_next(after)),
    ("indexer", anywhere),
    ("agent", |_, after| !is_letter_next(after)),
    ("synthetic", anywhere),
    ("observatory", anywhere),
    ("diagnostic", anywhere),
    ("transcoder", anywhere),
    ("pagespeed", anywhere),
    ("page speed", anywhere),
    ("select ", |before, _| !is_letter_before(before)),
    ("/*", anywhere),
    ("lighthouse", anywhere),
    ("test", |before, _| !is_letter_before(before)),
    ("uptime", anywhere),
    ("thumbnail", anywhere),
    ("screenshot", anywhere),
    ("sitemap", anywhere),
    ("webhook", anywhere),
    ("harvest", anywhere),
    ("extractor", anywhere),
    ("analyzer", anywhere),
    ("inspector", anywhere),
    ("python", anywhere),
    ("node.js", anywhere),
    ("automation", anywhere),
    ("proxy", |before, after| !is_letter_before(before) && !is_letter_next(after)),
    ("audit", |_, after| !is_letter_next(after)),
    ("research", anywhere),
    ("-user/", anywhere),
    ("anonymous, ", anywhere),
];

fn anywhere(_: &str, _: &str) -> bool {
    true
}

fn is_letter_next(after: &str) -> bool {
    after.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_letter_before(before: &str) -> bool {
    before.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Whether an `@` is part of an e-mail address: a name before it, and a host with a dot after it.
fn is_mail(before: &str, after: &str) -> bool {
    let host = after.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))).next().unwrap_or("");
    let domain = host.trim_end_matches('.').rsplit_once('.').map_or("", |(_, domain)| domain);
    before.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+'))
        && domain.len() >= 2
        && domain.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Prefixes of browsers' agents. Any other form does not occur in browsers.
pub(super) const BROWSER_STARTS: &[&str] = &[
    "mozilla/",
    "opera/",
    "lynx",
    "w3m",
    "links (",
    "elinks",
    "dillo",
    "url/",
    "ncsa mosaic",
    "dalvik/",
    "ucweb",
    "nokia",
    "samsung",
    "blackberry",
    "sonyericsson",
    "lg-",
    "mot-",
    "docomo",
    "ibrowse",
    "amigavoyager",
    "roku",
    "ps4application",
    "outlook-express",
    "microsoft office/",
];

/// Parts of browsers' agents with other prefixes: phones before Android, and apps.
pub(super) const BROWSER_PARTS: &[&str] = &[
    "applewebkit",
    "midp",
    "up.browser",
    "wap browser",
    "webview/",
    "dalvik/",
    "cfnetwork/",
    "cronet/",
    " (iphone; ios ",
];

/// Words for a system or a device in the first brackets of a browser's agent.
pub(super) const PLATFORMS: &[&str] = &[
    "windows",
    "linux",
    "mac",
    "x11",
    "android",
    "iphone",
    "ipad",
    "ipod",
    "cros",
    "bsd",
    "sunos",
    "playstation",
    "nintendo",
    "xbox",
    "tizen",
    "web0s",
    "webos",
    "symbian",
    "series",
    "s60",
    "bb10",
    "blackberry",
    "playbook",
    "meego",
    "mobile",
    "tablet",
    "tv",
    "msie",
    "konqueror",
    "haiku",
    "os/2",
    "amiga",
    "beos",
    "risc",
    "morphos",
    "aros",
    "kaios",
    "harmony",
    "phone",
    "fuchsia",
    "syllable",
    "smart",
    "bada",
    "maui",
    "plan 9",
    "qnx",
    "irix",
    "aix",
    "hp-ux",
    "dragonfly",
    "nook",
    "kindle",
    "maemo",
    "watch",
    "vision",
    "crkey",
    "nokia",
    "darwin",
    "solaris",
    "en-us",
    "u;",
];

/// Words that desktop browsers have after `Safari/…` or `Firefox/…`. Another word there is the name of a program.
pub(super) const TAILS: &[&str] = &[
    "edg",
    "opr",
    "opx",
    "opt",
    "opera",
    "brave",
    "ddg",
    "duckduckgo",
    "vivaldi",
    "yabrowser",
    "yowser",
    "samsung",
    "ecosia",
    "qqbrowser",
    "ucbrowser",
    "ubrowser",
    "miui",
    "whale",
    "mobile",
    "version",
    "safari",
    "chrome",
    "chromium",
    "electron",
    "avast",
    "avg",
    "ccleaner",
    "norton",
    "puffin",
    "sleipnir",
    "iron",
    "maxthon",
    "mxnitro",
    "2345",
    "lbbrowser",
    "metasr",
    "sogou",
    "se 2",
    "360",
    "coc_coc",
    "epiphany",
    "falkon",
    "konqueror",
    "qutebrowser",
    "qtwebengine",
    "otter",
    "gsa",
    "seamonkey",
    "waterfox",
    "palemoon",
    "pale moon",
    "basilisk",
    "iceweasel",
    "icecat",
    "librewolf",
    "floorp",
    "camino",
    "k-meleon",
    "ubuntu",
    "debian",
    "fedora",
    "gentoo",
    "suse",
    "mint",
    ".net",
    "webview",
    "teams",
    "slack",
    "discord",
    "code/",
    "cursor",
    "zotero",
    "obsidian",
    "notion",
    "thunderbird",
    "postbox",
    "hbbtv",
    "tv",
    "webos",
    "netcast",
    "lge",
    "lg ",
    "wv",
    "fb",
    "instagram",
    "line",
    "wechat",
    "micromessenger",
    "wxwork",
    "dingtalk",
    "naver",
    "kakao",
    "viber",
    "pinterest",
    "snapchat",
    "tiktok",
    "musical",
    "bytedance",
    "linkedin",
    "flipboard",
    "yahoo",
    "atom/",
    "honorlock",
    "silk",
    "baidu",
    "bidu",
    "theworld",
    "tesla",
    "wolvic",
    "vr",
    "aol",
    "ask",
    "swing",
    "coolnovo",
    "comodo",
    "dragon",
    "torch",
    "rockmelt",
    "flock",
    "orca",
    "arora",
    "midori",
    "epic",
    "sputnik",
    "cyberfox",
    "avant",
    "lunascape",
    "tobbrowser",
    "webkit",
    "gecko",
    "firefox",
    "navigator",
    "namoroka",
    "minefield",
    "shiretoko",
    "phoenix",
    "firebird",
    "omniweb",
    "fennec",
    "kaios",
    "sznprohlizec",
    "kazehakase",
    "sailfish",
    "mms/",
    "swiftfox",
    "tablet",
    "novarra",
    "fink",
    "cheshire",
    "whatsapp",
    "okhttp",
    "palemoon",
    "linux",
    "gnome",
    "kde",
    "browser",
    "wolf",
    "fox",
    "webex",
    "zoom",
    "signal",
    "element",
    "figma",
    "joplin",
    "mail",
    "arkweb",
    "quark",
    "lark",
    "feishu",
    "mypal",
    "serpent",
    "ghostery",
];

/// What agents of desktop browsers contain besides the system: an engine, or a browser that omits it.
pub(super) const ENGINES: &[&str] = &[
    "applewebkit",
    "gecko",
    "khtml",
    "trident",
    "msie",
    "presto",
    "goanna",
    "servo",
    "ladybird",
    "ucbrowser",
    "firefox/",
    "chrome/",
    "safari/",
    "opera",
];

/// Browsers of people whose agents contained `compatible;`.
pub(super) const COMPATIBLE: &[&str] =
    &["msie", "trident", "konqueror", "ms-office", "ibrowse", "abrowse", "owb", "google desktop"];

/// Words in the agent of a robot without a name, each with the kind that it indicates; the first match in this order wins.
pub(super) const HINTS: &[(&str, BotClass)] = &[
    ("-user/", BotClass::AiAssistant),
    ("gpt", BotClass::AiTraining),
    ("llm", BotClass::AiTraining),
    ("-ai/", BotClass::AiTraining),
    ("-ai-", BotClass::AiTraining),
    ("openai", BotClass::AiTraining),
    ("headless", BotClass::Automation),
    ("monitor", BotClass::Monitor),
    ("uptime", BotClass::Monitor),
    ("synthetic", BotClass::Monitor),
    ("diagnostic", BotClass::Monitor),
    ("observatory", BotClass::Monitor),
    ("pagespeed", BotClass::Monitor),
    ("ping", BotClass::Monitor),
    ("probe", BotClass::Monitor),
    ("healthcheck", BotClass::Monitor),
    ("inspector", BotClass::Monitor),
    ("preview", BotClass::Preview),
    ("unfurl", BotClass::Preview),
    ("feed", BotClass::Feed),
    ("rss", BotClass::Feed),
    ("podcast", BotClass::Feed),
    ("archiv", BotClass::Archiver),
    ("scan", BotClass::Scanner),
    ("security", BotClass::Scanner),
    ("vulnerab", BotClass::Scanner),
    ("seo", BotClass::Seo),
    ("backlink", BotClass::Seo),
    ("search", BotClass::Search),
    ("linkcheck", BotClass::Automation),
    ("http_", BotClass::Automation),
    ("library", BotClass::Automation),
    ("python", BotClass::Automation),
    ("selenium", BotClass::Automation),
];

static PLATFORM_WORDS: LazyLock<AhoCorasick> = LazyLock::new(|| automaton(PLATFORMS));
static TAIL_WORDS: LazyLock<AhoCorasick> = LazyLock::new(|| automaton(TAILS));

fn automaton(words: &[&str]) -> AhoCorasick {
    AhoCorasick::new(words).expect("the words are a valid set of patterns")
}

/// Whether the word at this place in [`WORDS`] is a sign, given the text before and after it.
pub(super) fn is_sign(place: usize, before: &str, after: &str) -> bool {
    let (word, context) = WORDS[place];
    is_on(Rule::Word(word)) && (context(before, after) || !is_on(Rule::Context(word)))
}

/// Whether the agent, in lower case, has a form that agents of browsers do not have.
pub(super) fn is_foreign_form(agent: &str) -> bool {
    if !agent.starts_with("mozilla/") {
        return is_on(Rule::Start) && !is_other_browser(agent);
    }
    let Some((_, rest)) = agent.split_once('(') else {
        // Android phones that lost their brackets.
        return is_on(Rule::Start) && (!agent.starts_with("mozilla/5.0 linux; ") || !agent.contains("applewebkit"));
    };
    let brackets = rest.split(')').next().unwrap_or(rest);
    if agent.starts_with("mozilla/5.0 (") && (names_no_platform(brackets) || is_desktop_without_engine(agent, brackets))
    {
        return true;
    }
    is_compatible_program(agent) || has_program_after_browser(agent)
}

/// Whether one of `words`, which `automaton` finds, is in `text`.
fn has_word(automaton: &AhoCorasick, words: &[&'static str], rule: fn(&'static str) -> Rule, text: &str) -> bool {
    automaton.find_overlapping_iter(text).any(|found| is_on(rule(words[found.pattern().as_usize()])))
}

fn names_no_platform(brackets: &str) -> bool {
    is_on(Rule::NoPlatform) && !has_word(&PLATFORM_WORDS, PLATFORMS, Rule::Platform, brackets)
}

/// Whether an agent without the prefix that all have today is that of a person: old browsers, text browsers, phones, and apps, which put their name
/// before that of the system's browser or network library.
fn is_other_browser(agent: &str) -> bool {
    BROWSER_STARTS.iter().any(|start| agent.starts_with(start) && is_on(Rule::OtherStart(start)))
        || BROWSER_PARTS.iter().any(|part| agent.contains(part) && is_on(Rule::BrowserPart(part)))
}

/// A desktop's system and no engine: agents of programs that pose as a browser.
fn is_desktop_without_engine(agent: &str, brackets: &str) -> bool {
    is_on(Rule::NoEngine)
        && ["windows nt", "x11", "macintosh"].iter().any(|system| brackets.contains(system))
        && !ENGINES.iter().any(|engine| agent.contains(engine) && is_on(Rule::Engine(engine)))
}

/// `(compatible; X)`. Konqueror, Internet Explorer and some of their contemporaries used this form.
fn is_compatible_program(agent: &str) -> bool {
    is_on(Rule::CompatibleProgram)
        && agent.contains("compatible;")
        && !COMPATIBLE.iter().any(|name| agent.contains(name) && is_on(Rule::CompatibleBrowser(name)))
}

/// A program's name after that of the browser, on a desktop: apps on phones have theirs there.
fn has_program_after_browser(agent: &str) -> bool {
    let engine = ["safari/", "firefox/"].iter().filter_map(|name| agent.find(name).map(|at| at + name.len())).min();
    let Some(version) = engine.filter(|_| is_on(Rule::ProgramAfterBrowser)) else { return false };
    let after = agent[version..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let tail = after.trim_start_matches([',', ';']).trim();
    if tail.is_empty() || tail.len() == after.len() || has_word(&TAIL_WORDS, TAILS, Rule::Tail, tail) {
        return false;
    }
    !["andr", "iphone", "ipad", "symbian", "mobile", "tv", "web0s"].iter().any(|word| agent[..version].contains(word))
}

/// The kind of a robot without a name.
pub(super) fn kind_by_words(agent: &str) -> BotClass {
    if let Some((_, kind)) = HINTS.iter().find(|(word, _)| agent.contains(word) && is_on(Rule::Hint(word))) {
        return *kind;
    }
    // Only a product and its version: the form of libraries and tools.
    let is_bare = !agent.contains("mozilla/")
        && !["bot", "crawl", "spider", "http:", "https:", "www."].iter().any(|word| agent.contains(word));
    if is_bare { BotClass::Automation } else { BotClass::OtherBot }
}
