//! Maps a user agent to coarse classes: device, browser family, system family, and whether it is a robot and which. Versions never leave this module.
//!
//! Precedence: the operator's literals (`never_robots`, `robots_extra`); names of robots listed here, PyPI's crawler-user-agents and names of
//! libraries (the longest literal wins); words that are signs of a robot; the form of the agent.

mod browsers;
mod own;
mod robots;
mod signs;
pub(crate) mod switch;

#[cfg(test)]
mod rules_tests;

pub use robots::{AUTOMATED_BROWSER, RULES_VERSION, Robot, kind_named, kind_of_robot};

use crate::client::UserAgent;
use schemas::classes::{BotClass, Browser, Device, System};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::str::FromStr;
use std::sync::{PoisonError, RwLock};
use switch::{Rule, is_on};

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

impl Classes {
    /// A reader whose agent is not known, as in access logs without a column of it. This is not a robot without an agent.
    pub const UNKNOWN: Classes = Classes {
        device: Device::Unknown,
        browser: Browser::Unknown,
        system: System::Unknown,
        bot_class: BotClass::Person,
        bot: "",
    };

    /// The classes of a robot: its device, browser and system are unknown.
    pub const fn robot((bot, bot_class): Robot) -> Self {
        Classes { device: Device::Unknown, browser: Browser::Unknown, system: System::Unknown, bot_class, bot }
    }
}

/// A robot in the operator's settings.
///
/// ```
/// use headcount_ingest::agents::RobotRule;
/// let rule: RobotRule = "acmebot=Acme=seo".parse().unwrap();
/// assert_eq!((&*rule.literal, &*rule.name), ("acmebot", "Acme"));
/// assert!("acmebot=Acme=shop".parse::<RobotRule>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RobotRule {
    /// Text that the robot's agent contains.
    pub literal: String,
    /// Its name in reports.
    pub name: String,
    /// Its kind.
    pub kind: BotClass,
}

/// A rule that is not written as `literal=name=kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected literal=name=kind")]
pub struct MalformedRule;

impl FromStr for RobotRule {
    type Err = MalformedRule;

    fn from_str(text: &str) -> Result<Self, MalformedRule> {
        // A literal may contain `=`.
        let mut parts = text.rsplitn(3, '=').map(str::trim);
        let (Some(kind), Some(name), Some(literal)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MalformedRule);
        };
        let kind = kind_named(kind).ok_or(MalformedRule)?;
        let is_usable = !literal.is_empty() && (1..=64).contains(&name.len()) && !name.contains(char::is_control);
        is_usable.then(|| RobotRule { literal: literal.to_owned(), name: name.to_owned(), kind }).ok_or(MalformedRule)
    }
}

/// The operator's literals, which take precedence over all tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnRules {
    never_robots: Vec<String>,
    robots_extra: Vec<(String, Robot)>,
}

impl OwnRules {
    /// Agents that contain one of `never_robots` count as humans. Other agents that contain a literal of `robots_extra` (literal, name, kind) count
    /// as that robot. Matching ignores case. Names live until the process ends.
    pub fn new(never_robots: Vec<String>, robots_extra: Vec<RobotRule>) -> Self {
        let named = |RobotRule { literal, name, kind }: RobotRule| {
            let name: &'static str = Box::leak(name.into_boxed_str());
            (literal.to_lowercase(), (name, kind))
        };
        OwnRules {
            never_robots: never_robots.into_iter().map(|literal| literal.to_lowercase()).collect(),
            robots_extra: robots_extra.into_iter().map(named).collect(),
        }
    }

    fn is_never_robot(&self, agent: &str) -> bool {
        is_on(Rule::NeverRobots) && self.never_robots.iter().any(|literal| agent.contains(literal))
    }

    fn robot(&self, agent: &str) -> Option<Robot> {
        let mut of_operator = self.robots_extra.iter().filter(|_| is_on(Rule::RobotsExtra));
        of_operator.find(|(literal, _)| agent.contains(literal)).map(|(_, robot)| *robot)
    }
}

/// User agents in the cache of [`Classifier`]; a docs host sees a few thousand in a day.
const REMEMBERED: usize = 8192;

/// [`classify`] with a cache. An entry is a 64-bit hash under a random secret that exists in memory only, and three class numbers. No agent can be
/// recovered from it, and it is never written.
#[derive(Default)]
pub struct Classifier {
    rules: OwnRules,
    secret: foldhash::quality::RandomState,
    answers: RwLock<HashMap<u64, Classes, foldhash::fast::RandomState>>,
}

impl Classifier {
    /// A classifier with the operator's rules.
    pub fn new(rules: OwnRules) -> Self {
        Classifier { rules, ..Self::default() }
    }

    /// The classes of one reader.
    pub fn classify(&self, agent: UserAgent<'_>) -> Classes {
        let hash = self.secret.hash_one(agent.bytes());
        if let Some(&classes) = self.answers.read().unwrap_or_else(PoisonError::into_inner).get(&hash) {
            return classes;
        }
        let classes = classify(agent, &self.rules);
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= REMEMBERED {
            // A flood of invented agents costs time, not memory.
            answers.clear();
        }
        answers.insert(hash, classes);
        classes
    }
}

/// Classifies a reader. A missing user agent counts as a robot, because every browser sends one.
pub fn classify(agent: UserAgent<'_>, rules: &OwnRules) -> Classes {
    let text = agent.text().to_ascii_lowercase();
    let robot = if rules.is_never_robot(&text) { None } else { rules.robot(&text).or_else(|| robots::robot(&text)) };
    if let Some(robot) = robot {
        return Classes::robot(robot);
    }
    let (device, browser, system) = browsers::families(&text);
    Classes { device, browser, system, bot_class: BotClass::Person, bot: "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn class(agent: &str) -> Classes {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", agent.parse().unwrap());
        classify(UserAgent::of(&headers), &OwnRules::default())
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
            assert_eq!(classifier.classify(agent), classify(agent, &classifier.rules));
            assert_eq!(classifier.classify(agent), classify(agent, &classifier.rules));
        }
        assert!(classifier.answers.read().unwrap().len() <= REMEMBERED);
    }

    #[test]
    fn the_operators_rules_decide_first() {
        let extra = ["GPTBot=Own name=monitor".parse().unwrap(), "chrome/=Everything=other_bot".parse().unwrap()];
        let rules = OwnRules::new(vec!["KioskApp".to_owned()], extra.to_vec());
        let kind = |agent: &str| {
            let headers = HeaderMap::from_iter([(http::header::USER_AGENT, agent.parse().unwrap())]);
            let found = classify(UserAgent::of(&headers), &rules);
            (found.bot, found.bot_class)
        };
        assert_eq!(kind("gptbot/1.0"), ("Own name", BotClass::Monitor));
        assert_eq!(kind("Mozilla/5.0 (X11; Linux) Chrome/142"), ("Everything", BotClass::OtherBot));
        assert_eq!(kind("Mozilla/5.0 (X11; Linux) Chrome/142 kioskapp/1"), ("", BotClass::Person));
        assert_eq!(kind("kioskapp/1"), ("", BotClass::Person));
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
