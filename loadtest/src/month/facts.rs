//! Where the month's shares come from. What is measured elsewhere says where; what is assumed says so.

use schemas::proto::{BotClass, Browser, Device, System};

use crate::random::SplitMix64;

/// A browser as its requests tell it, and what becomes of that: the three classes that a record keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reader {
    /// Device class.
    pub device: Device,
    /// Browser family.
    pub browser: Browser,
    /// System family.
    pub system: System,
    /// The header.
    pub agent: &'static str,
}

macro_rules! readers {
    ($($share:literal $device:ident $browser:ident $system:ident $agent:literal;)*) => {[$((
        $share,
        Reader { device: Device::$device, browser: Browser::$browser, system: System::$system, agent: $agent },
    )),*]};
}

/// User agents and their shares of 1,000 among readers with the same device, from the data of npm's `user-agents` 2.1.198 (Intoli,
/// BSD-2-Clause), which collects them from live traffic: the most frequent of each device, without those of emulators, with
/// what is rarer left out. Firefox on Linux is raised from 0.2 to 4 %: readers of documentation have it more often.
pub const READERS: [(u32, Reader); 22] = readers! {
    480 Desktop Chrome Macos "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Safari/537.36";
    162 Desktop Chrome Windows "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/153.0.0.0 Safari/537.36";
    88 Desktop Chrome Windows "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/154.0.0.0 Safari/537.36";
    77 Desktop Chrome Macos "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/153.0.0.0 Safari/537.36";
    42 Desktop Edge Windows "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/154.0.0.0 Safari/537.36 Edg/154.0.0.0";
    40 Desktop Chrome Windows "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36";
    30 Desktop Safari Macos "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.6.2 Safari/605.1.15";
    14 Desktop Firefox Windows "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:156.0) Gecko/20100101 Firefox/156.0";
    40 Desktop Firefox Linux "Mozilla/5.0 (X11; Linux x86_64; rv:156.0) Gecko/20100101 Firefox/156.0";
    10 Desktop Chrome ChromeOs "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/152.0.0.0 Safari/537.36";
    12 Desktop Chrome Linux "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36";
    5 Desktop Firefox Macos "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:156.0) Gecko/20100101 Firefox/156.0";
    504 Mobile Safari Ios "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.6.1 Mobile/15E148 Safari/604.1";
    142 Mobile Chrome Android "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/153.0.0.0 Mobile Safari/537.36";
    84 Mobile Safari Ios "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/27.0 Mobile/15E148 Safari/604.1";
    96 Mobile Chrome Ios "Mozilla/5.0 (iPhone; CPU iPhone OS 26_6_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/154.0.8037.55 Mobile/15E148 Safari/604.1";
    63 Mobile Chrome Android "Mozilla/5.0 (Linux; Android 15; CPH2653) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/149.0.0.0 Mobile Safari/537.36";
    57 Mobile Chrome Android "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/151.0.0.0 Mobile Safari/537.36";
    54 Mobile Chrome Android "Mozilla/5.0 (Linux; Android 14; 23127PN0CC) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/147.0.0.0 Mobile Safari/537.36";
    362 Tablet Chrome Ios "Mozilla/5.0 (iPad; CPU OS 26_6_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/154.0.8037.55 Mobile/15E148 Safari/604.1";
    341 Tablet Chrome Android "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/153.0.0.0 Safari/537.36";
    297 Tablet Chrome Android "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/154.0.0.0 Safari/537.36";
};

/// Of 1,000 readers, those with each device. Assumed: the package's 56 % of phones are of all the web, and documentation is
/// mostly read where programs are written.
pub const DEVICES: [(u32, Device); 3] = [(840, Device::Desktop), (150, Device::Mobile), (10, Device::Tablet)];

/// A machine that runs scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bot {
    /// What it is counted as.
    pub class: BotClass,
    /// Its name, as headcount's list has it.
    pub name: &'static str,
    /// The header.
    pub agent: &'static str,
}

macro_rules! bots {
    ($($share:literal $class:ident $name:literal $agent:literal;)*) => {
        [$(($share, Bot { class: BotClass::$class, name: $name, agent: $agent })),*]
    };
}

/// Bots that run scripts and so send beacons, with their shares of 100 views by bots. Assumed.
pub const BOTS: [(u32, Bot); 6] = bots! {
    34 Search "Googlebot" "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)";
    18 Search "bingbot" "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/136.0.0.0 Safari/537.36";
    22 AiTraining "GPTBot" "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.3; +https://openai.com/gptbot)";
    12 AiTraining "ClaudeBot" "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)";
    4 Preview "Slackbot" "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)";
    10 Automation "HeadlessChrome" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/143.0.0.0 Safari/537.36";
};

/// Of 100 arrivals, those from each host; empty is direct. Assumed: documentation is found by searching, or is known.
pub const REFERRERS: [(u32, &str); 12] = [
    (46, ""),
    (31, "www.google.com"),
    (6, "github.com"),
    (3, "www.bing.com"),
    (3, "duckduckgo.com"),
    (3, "stackoverflow.com"),
    (2, "chatgpt.com"),
    (2, "pypi.org"),
    (1, "www.baidu.com"),
    (1, "www.reddit.com"),
    (1, "news.ycombinator.com"),
    (1, "claude.ai"),
];

/// Of 100 readers, those whose documentation is in each language. Assumed.
pub const LANGUAGES: [(u32, &str); 5] = [(88, "en"), (5, "zh-cn"), (3, "ja"), (2, "de"), (2, "fr")];

/// Of 100 readers, those who read each version. Assumed.
pub const VERSIONS: [(u32, &str); 5] = [(56, "stable"), (30, "latest"), (6, "v3.1"), (5, "v2.4"), (3, "v1.9")];

/// A part of the world. Assumed, in the proportions in which developers live.
#[derive(Debug, Clone, Copy)]
pub struct Region {
    /// Hours that its clocks are before UTC.
    pub offset: i32,
    /// Countries and their shares in it.
    pub countries: &'static [(u32, &'static str)],
}

/// The parts of the world, with their shares of 100 readers.
pub const REGIONS: [(u32, Region); 4] = [
    (30, Region { offset: -6, countries: &[(74, "US"), (10, "CA"), (11, "BR"), (5, "MX")] }),
    (34, Region { offset: 1, countries: &[(26, "DE"), (20, "GB"), (17, "FR"), (11, "NL"), (12, "PL"), (14, "ES")] }),
    (14, Region { offset: 5, countries: &[(100, "IN")] }),
    (22, Region { offset: 8, countries: &[(52, "CN"), (22, "JP"), (12, "KR"), (8, "SG"), (6, "AU")] }),
];

/// Views of one hour of a working day on the spot, relative to one another: two humps with lunch between them. Assumed.
pub const DAY: [f64; 24] = [
    0.35, 0.25, 0.18, 0.15, 0.15, 0.2, 0.35, 0.6, 0.95, 1.35, 1.55, 1.6, 1.35, 1.4, 1.6, 1.65, 1.6, 1.4, 1.1, 0.95,
    0.95, 0.9, 0.75, 0.5,
];

/// Views of a day of the weekend for each one of a working day. Assumed.
pub const WEEKEND: f64 = 0.42;

/// Picks by share. The shares are of their sum.
pub fn pick<T: Copy>(rng: &mut SplitMix64, of: &[(u32, T)]) -> T {
    let mut at = rng.below(of.iter().map(|(share, _)| u64::from(*share)).sum()) as u32;
    for &(share, value) in of {
        if at < share {
            return value;
        }
        at -= share;
    }
    of[of.len() - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for (_, device) in DEVICES {
            let sum: u32 = READERS.iter().filter(|(_, reader)| reader.device == device).map(|(share, _)| share).sum();
            assert_eq!(sum, 1_000, "{device:?}");
        }
        assert_eq!(DEVICES.iter().map(|d| d.0).sum::<u32>(), 1_000);
        for sum in [
            BOTS.iter().map(|bot| bot.0).sum::<u32>(),
            REFERRERS.iter().map(|r| r.0).sum(),
            LANGUAGES.iter().map(|l| l.0).sum(),
            VERSIONS.iter().map(|v| v.0).sum(),
            REGIONS.iter().map(|r| r.0).sum(),
        ] {
            assert_eq!(sum, 100);
        }
        for (_, region) in &REGIONS {
            assert_eq!(region.countries.iter().map(|c| c.0).sum::<u32>(), 100);
        }
    }
}
