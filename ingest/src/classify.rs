//! From a user agent to coarse classes: device, browser family, system family, and whether it is a bot and which.
//! Versions never leave this module.

use crate::client::UserAgent;
use aho_corasick::{AhoCorasick, MatchKind};
use schemas::classes::{BOTS, BotClass, Browser, Device, System};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{LazyLock, PoisonError, RwLock};

/// The classes of one reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Device class.
    pub device: Device,
    /// Browser family.
    pub browser: Browser,
    /// System family.
    pub system: System,
    /// Kind of bot, or a person.
    pub bot_class: BotClass,
    /// Name of the bot from our list; empty for people.
    pub bot: &'static str,
}

static BOT_TOKENS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .build(BOTS.iter().map(|(token, _, _)| token))
        .expect("the list of bots is a valid set of patterns")
});

/// User agents remembered by [`Classifier`]; a docs host sees a few thousand in a day.
const REMEMBERED: usize = 8192;

/// [`classify`], remembering its answers. What is remembered is a 64-bit hash under a random secret that lives in
/// memory only, and three class numbers: no agent can be read from it, and nothing of it is ever written.
#[derive(Default)]
pub struct Classifier {
    secret: foldhash::quality::RandomState,
    answers: RwLock<HashMap<u64, Classes, foldhash::fast::RandomState>>,
}

impl Classifier {
    /// The classes of one reader.
    pub fn classify(&self, agent: UserAgent<'_>) -> Classes {
        let hash = self.secret.hash_one(agent.bytes());
        if let Some(&classes) = self.answers.read().unwrap_or_else(PoisonError::into_inner).get(&hash) {
            return classes;
        }
        let classes = classify(agent);
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            // A flood of made-up agents costs time, not memory.
            answers.clear();
        }
        answers.insert(hash, classes);
        classes
    }
}

/// Classifies a reader. An absent user agent is a bot's: every browser sends one.
pub fn classify(agent: UserAgent<'_>) -> Classes {
    let text = agent.text();
    let bot = if text.trim().is_empty() {
        Some(("No user agent", BotClass::OtherBot))
    } else {
        let first = BOT_TOKENS.find_overlapping_iter(text).map(|found| found.pattern().as_usize()).min();
        first.map(|index| (BOTS[index].1, BOTS[index].2))
    };
    if let Some((bot, bot_class)) = bot {
        let (device, browser, system) = (Device::Unknown, Browser::Unknown, System::Unknown);
        return Classes { device, browser, system, bot_class, bot };
    }
    let parsed = woothee::parser::Parser::new().parse(text);
    let (name, category, os) = parsed.as_ref().map_or(("", "", ""), |found| (found.name, found.category, found.os));
    if category == "crawler" {
        let (device, browser, system) = (Device::Unknown, Browser::Unknown, System::Unknown);
        return Classes { device, browser, system, bot_class: BotClass::OtherBot, bot: "Other bot" };
    }
    let tablet = os == "iPad" || (text.contains("Android") && !text.contains("Mobile")) || text.contains("Tablet");
    let device = match category {
        _ if tablet => Device::Tablet,
        "pc" => Device::Desktop,
        "smartphone" | "mobilephone" => Device::Mobile,
        "appliance" | "misc" => Device::OtherDevice,
        _ => Device::Unknown,
    };
    let browser = match name {
        _ if text.contains("SamsungBrowser") => Browser::SamsungInternet,
        _ if text.contains("Edg/") || text.contains("EdgA/") || text.contains("EdgiOS/") => Browser::Edge,
        "Chrome" => Browser::Chrome,
        "Firefox" => Browser::Firefox,
        "Safari" => Browser::Safari,
        "Edge" => Browser::Edge,
        "Opera" => Browser::Opera,
        "" | "UNKNOWN" => Browser::Unknown,
        _ => Browser::OtherBrowser,
    };
    let system = match os {
        "Mac OSX" | "Mac OS Classic" => System::Macos,
        "Linux" => System::Linux,
        "Android" => System::Android,
        "iPhone" | "iPad" | "iPod" | "iOS" => System::Ios,
        "ChromeOS" => System::ChromeOs,
        "" | "UNKNOWN" => System::Unknown,
        windows if windows.starts_with("Windows") => System::Windows,
        _ => System::OtherSystem,
    };
    Classes { device, browser, system, bot_class: BotClass::Person, bot: "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn class(agent: &str) -> Classes {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", agent.parse().unwrap());
        classify(UserAgent::of(&headers))
    }

    #[test]
    fn people_fall_into_coarse_classes() {
        for (agent, device, browser, system) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
                Device::Desktop,
                Browser::Chrome,
                System::Linux,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
                Device::Desktop,
                Browser::Firefox,
                System::Windows,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                 Version/18.1 Mobile/15E148 Safari/604.1",
                Device::Mobile,
                Browser::Safari,
                System::Ios,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 \
                 Safari/537.36 Edg/142.0.0.0",
                Device::Desktop,
                Browser::Edge,
                System::Windows,
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; SM-X910) AppleWebKit/537.36 (KHTML, like Gecko) \
                 SamsungBrowser/27.0 Chrome/125.0.0.0 Safari/537.36",
                Device::Tablet,
                Browser::SamsungInternet,
                System::Android,
            ),
        ] {
            let found = class(agent);
            assert_eq!((found.device, found.browser, found.system), (device, browser, system), "{agent}");
            assert_eq!((found.bot_class, found.bot), (BotClass::Person, ""), "{agent}");
        }
    }

    #[test]
    fn remembered_answers_are_the_same_and_bounded() {
        let classifier = Classifier::default();
        for number in 0..REMEMBERED * 2 {
            let mut headers = HeaderMap::new();
            headers.insert("user-agent", format!("curl/{number}").parse().unwrap());
            let agent = UserAgent::of(&headers);
            assert_eq!(classifier.classify(agent), classify(agent));
            assert_eq!(classifier.classify(agent), classify(agent));
        }
        assert!(classifier.answers.read().unwrap().len() <= REMEMBERED);
    }

    #[test]
    fn bots_are_named_and_kept_apart() {
        for (agent, bot, bot_class) in [
            (
                "Mozilla/5.0 AppleWebKit/537.36 (compatible; GPTBot/1.2; +https://openai.com/gptbot)",
                "GPTBot",
                BotClass::AiTraining,
            ),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "Googlebot", BotClass::Search),
            (
                "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/142.0.0.0 Safari/537.36",
                "Headless Chrome",
                BotClass::Automation,
            ),
            ("somethingbot/1.0", "Other bot", BotClass::OtherBot),
            ("curl/8.5.0", "curl", BotClass::Automation),
            ("", "No user agent", BotClass::OtherBot),
        ] {
            let found = class(agent);
            assert_eq!((found.bot, found.bot_class), (bot, bot_class), "{agent}");
        }
    }
}
