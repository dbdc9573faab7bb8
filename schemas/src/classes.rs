//! Coarse classes of readers. The numbers are those of `pageview.proto`; the names are what reports show.

use crate::proto::Fact;
pub use crate::proto::{BotClass, Browser, Device, Source, System};

/// What reports count page views by. No crossing of two dimensions is ever stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Dimension {
    /// Host of the page that led here (counts visits, not views).
    Referrer,
    /// ISO 3166-1 alpha-2.
    Country,
    /// Device class.
    Device,
    /// Browser family.
    Browser,
    /// Operating system family.
    System,
    /// Documentation version.
    Version,
    /// Documentation language.
    Language,
    /// Name of the robot (counts views by robots, which are no views by people). The fold counts them in `robot_daily`; schema versions
    /// before 10 counted them in `breakdown_daily`.
    Bot,
}

impl Dimension {
    /// All of them, in the order reports show them.
    pub const ALL: [Dimension; 8] = [
        Dimension::Referrer,
        Dimension::Country,
        Dimension::Device,
        Dimension::Browser,
        Dimension::System,
        Dimension::Version,
        Dimension::Language,
        Dimension::Bot,
    ];

    /// The name in ClickHouse and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Dimension::Referrer => "referrer",
            Dimension::Country => "country",
            Dimension::Device => "device",
            Dimension::Browser => "browser",
            Dimension::System => "os",
            Dimension::Version => "version",
            Dimension::Language => "language",
            Dimension::Bot => "bot",
        }
    }

    /// The dimension of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.name() == name)
    }
}

/// A class's name in reports. `""` stands for unknown everywhere.
pub trait ClassName {
    /// Such as `Firefox`.
    fn class_name(self) -> &'static str;
}

impl ClassName for Device {
    fn class_name(self) -> &'static str {
        match self {
            Device::Unknown => "",
            Device::Desktop => "Desktop",
            Device::Mobile => "Mobile",
            Device::Tablet => "Tablet",
            Device::OtherDevice => "Other",
            Device::Tv => "TV",
            Device::Console => "Console",
        }
    }
}

impl ClassName for Browser {
    fn class_name(self) -> &'static str {
        match self {
            Browser::Unknown => "",
            Browser::Chrome => "Chrome",
            Browser::Firefox => "Firefox",
            Browser::Safari => "Safari",
            Browser::Edge => "Edge",
            Browser::Opera => "Opera",
            Browser::SamsungInternet => "Samsung Internet",
            Browser::OtherBrowser => "Other",
            Browser::Duckduckgo => "DuckDuckGo",
            Browser::Brave => "Brave",
        }
    }
}

impl ClassName for System {
    fn class_name(self) -> &'static str {
        match self {
            System::Unknown => "",
            System::Windows => "Windows",
            System::Macos => "macOS",
            System::Linux => "Linux",
            System::Android => "Android",
            System::Ios => "iOS",
            System::ChromeOs => "ChromeOS",
            System::OtherSystem => "Other",
            System::Bsd => "BSD",
            System::Harmonyos => "HarmonyOS",
            System::Kaios => "KaiOS",
        }
    }
}

impl ClassName for BotClass {
    fn class_name(self) -> &'static str {
        match self {
            BotClass::Person => "person",
            BotClass::Search => "search",
            BotClass::AiCrawler => "ai_crawler",
            BotClass::Preview => "preview",
            BotClass::Monitor => "monitor",
            BotClass::Automation => "automation",
            BotClass::OtherBot => "other_bot",
            BotClass::AiTraining => "ai_training",
            BotClass::AiAssistant => "ai_assistant",
            BotClass::Feed => "feed",
            BotClass::Seo => "seo",
            BotClass::Archiver => "archiver",
            BotClass::Scanner => "scanner",
        }
    }
}

/// What views of one page by robots are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RobotGroup {
    /// Search engines.
    Search,
    /// Crawlers for AI training. The AI crawlers of records before format 4, some of which were assistants, are among them.
    AiTraining,
    /// AI assistants and their search.
    AiAssistant,
    /// All other robots.
    Other,
}

impl RobotGroup {
    /// All of them, by number.
    pub const ALL: [RobotGroup; 4] =
        [RobotGroup::Search, RobotGroup::AiTraining, RobotGroup::AiAssistant, RobotGroup::Other];

    /// The name in ClickHouse.
    pub const fn name(self) -> &'static str {
        match self {
            RobotGroup::Search => "search",
            RobotGroup::AiTraining => "ai_training",
            RobotGroup::AiAssistant => "ai_assistant",
            RobotGroup::Other => "other",
        }
    }
}

impl BotClass {
    /// The six classes of record format 3, which the sums of bots in reports have.
    pub const COUNTED: [BotClass; 6] = [
        BotClass::Search,
        BotClass::AiCrawler,
        BotClass::Preview,
        BotClass::Monitor,
        BotClass::Automation,
        BotClass::OtherBot,
    ];

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        (0..).map_while(|number| BotClass::try_from(number).ok()).find(|class| class.class_name() == name)
    }

    /// The group that views of one page by such robots are counted in.
    pub const fn group(self) -> RobotGroup {
        match self {
            BotClass::Search => RobotGroup::Search,
            BotClass::AiCrawler | BotClass::AiTraining => RobotGroup::AiTraining,
            BotClass::AiAssistant => RobotGroup::AiAssistant,
            BotClass::Person
            | BotClass::Preview
            | BotClass::Monitor
            | BotClass::Automation
            | BotClass::OtherBot
            | BotClass::Feed
            | BotClass::Seo
            | BotClass::Archiver
            | BotClass::Scanner => RobotGroup::Other,
        }
    }

    /// The class of [`BotClass::COUNTED`] that a bot is counted under; a person stays a person.
    pub const fn counted_as(self) -> BotClass {
        match self {
            BotClass::AiTraining | BotClass::AiAssistant => BotClass::AiCrawler,
            BotClass::Feed | BotClass::Seo | BotClass::Archiver | BotClass::Scanner => BotClass::OtherBot,
            BotClass::Person
            | BotClass::Search
            | BotClass::AiCrawler
            | BotClass::Preview
            | BotClass::Monitor
            | BotClass::Automation
            | BotClass::OtherBot => self,
        }
    }
}

impl Source {
    /// All of them, by number.
    pub const ALL: [Source; 7] = [
        Source::Beacon,
        Source::Plausible,
        Source::Umami,
        Source::Goatcounter,
        Source::Readthedocs,
        Source::Log,
        Source::Import,
    ];

    /// The name in ClickHouse and in reports, such as `plausible`; `headcount` for its own script and pixel.
    pub const fn name(self) -> &'static str {
        match self {
            Source::Beacon => "headcount",
            Source::Plausible => "plausible",
            Source::Umami => "umami",
            Source::Goatcounter => "goatcounter",
            Source::Readthedocs => "readthedocs",
            Source::Log => "log",
            Source::Import => "import",
        }
    }

    /// The source of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }
}

impl Fact {
    /// The fact's name in reasons of `rejection_daily`, such as `dropped_title`; see [`crate::rejection::reason_of_dropped_fact`].
    pub const fn name(self) -> &'static str {
        match self {
            Fact::Unspecified => "",
            Fact::Path => "path",
            Fact::Version => "version",
            Fact::Language => "language",
            Fact::Referrer => "referrer",
            Fact::Status => "status",
            Fact::Title => "title",
            Fact::Country => "country",
            Fact::Id => "id",
            Fact::Agent => "agent",
        }
    }
}
