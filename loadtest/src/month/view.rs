//! What a view is of, by whom, and its record.

use std::fmt::Write as _;
use std::io::Write as _;

use schemas::proto::PageView;
use schemas::record::{RecordFormat, encode_page_view};
use schemas::{Coordinate, Hour};

use super::facts::{BOTS, Bot, DEVICES, LANGUAGES, READERS, REFERRERS, REGIONS, Reader, VERSIONS, pick};
use super::plan::Plan;
use super::stream::{Kind, Place, Stretch};
use crate::random::{SplitMix64, mix};

/// One view in so many is of a page that is not there.
const MISSING: u64 = 50;
/// One view in so many reaches the log hours after it happened: it lay in a spill.
const LATE: u64 = 1_000;
/// How many hours, at most.
const LATE_HOURS: u64 = 3;
/// Home of a reader rather than anywhere: so many in eight.
const AT_HOME: u64 = 5;

/// A page of a project, as one number: rank, version, language, and whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Page(u32);

impl Page {
    fn new(rank: usize, version: usize, language: usize, there: bool) -> Self {
        Self((rank as u32) << 8 | (version as u32) << 5 | (language as u32) << 2 | u32::from(there))
    }

    /// The page that is flooded: the first one's.
    const FLOODED: Self = Self(1);

    fn rank(self) -> u32 {
        self.0 >> 8
    }

    /// Its version of the documentation.
    #[must_use]
    pub fn version(self) -> &'static str {
        VERSIONS[(self.0 >> 5 & 7) as usize].1
    }

    /// Its language.
    #[must_use]
    pub fn language(self) -> &'static str {
        LANGUAGES[(self.0 >> 2 & 7) as usize].1
    }

    /// 200, or 404.
    #[must_use]
    pub fn status(self) -> u16 {
        if self.0 & 1 == 1 { 200 } else { 404 }
    }

    /// Writes its path.
    pub fn write_path(self, path: &mut String) {
        const SECTIONS: [&str; 4] = ["guide", "reference", "tutorial", "api"];
        path.clear();
        for part in ["/", self.language(), "/", self.version(), "/"] {
            path.push_str(part);
        }
        let rank = self.rank();
        if self.0 & 1 == 0 {
            path.push_str("moved/");
        } else if rank == 0 {
            return;
        } else {
            path.push_str(SECTIONS[rank as usize % SECTIONS.len()]);
            path.push('/');
        }
        // Writing to a String cannot fail.
        let _ = write!(path, "{rank}-page.html");
    }

    /// Its path.
    #[must_use]
    pub fn path(self) -> String {
        let mut path = String::new();
        self.write_path(&mut path);
        path
    }
}

/// What requests a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Agent {
    /// A reader's browser.
    Reader(Reader),
    /// A bot.
    Bot(Bot),
}

/// A view, with all that is to be known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Number of the project.
    pub project: u32,
    /// When it happened.
    pub hour: Hour,
    /// What it is of.
    pub page: Page,
    /// Whose, among the visitors of the project; bots are none.
    pub visitor: Option<u32>,
    /// What requested it.
    pub agent: Agent,
    /// Where the reader is; empty for bots.
    pub country: &'static str,
    /// Where the reader came from, if from elsewhere; empty where that is not known.
    pub referrer: &'static str,
    /// Whether the reader came from elsewhere.
    pub arrival: bool,
    /// Unique in the month, but for repeats.
    pub id: u64,
    /// Chooses the partition, the same for all views of a project.
    pub key: u64,
    /// Coordinates: in the project's sketch and in the page's.
    pub coordinates: Option<(Coordinate, Coordinate)>,
}

impl Plan {
    /// The view at a place of `hour` (since the month's start).
    #[must_use]
    pub fn view(&self, place: &Place, hour: u32) -> View {
        let Place { project, ticket, index, kind, .. } = *place;
        let plan = &self.projects[project as usize];
        let hash = self.hash_of(project);
        // A bijection of what tells views apart, so that no two have one id. Zero means "no id".
        let place = u64::from(project) << 40 | u64::from(ticket) << 8 | u64::from(index) << 2 | kind as u64;
        let id = mix(place ^ mix(self.seed)).max(1);
        let mut rng = SplitMix64::new(mix(id ^ hash));
        let mut view = View {
            project,
            hour: self.hour(hour, &mut rng),
            page: Page::FLOODED,
            visitor: None,
            agent: Agent::Reader(READERS[0].1),
            country: "",
            referrer: "",
            arrival: false,
            id,
            key: hash,
            coordinates: None,
        };
        match kind {
            Kind::Bot => {
                view.agent = Agent::Bot(pick(&mut rng, &BOTS));
                let (version, language) = (index_of(&mut rng, &VERSIONS), index_of(&mut rng, &LANGUAGES));
                view.page = self.page(plan.pages, version, language, &mut rng);
                // Crawlers come to a page because they know it.
                view.arrival = true;
            }
            Kind::Reader => {
                let visitor = self.visits.owner(plan.visitors, ticket);
                view.visitor = Some(visitor);
                self.reader(&mut view, hash, visitor, plan.home);
                let mut of_reader = SplitMix64::new(mix(hash ^ 0x7ead ^ u64::from(visitor) << 8));
                let (version, language) = (index_of(&mut of_reader, &VERSIONS), index_of(&mut of_reader, &LANGUAGES));
                view.page = self.page(plan.pages, version, language, &mut rng);
                view.arrival = index == 0;
                if view.arrival {
                    view.referrer = pick(&mut rng, &REFERRERS);
                }
            }
            Kind::Flood => {
                // The first so many are by somebody new each, so that none of them is missing.
                let among = plan.flood_visitors;
                let flooder = if ticket < among { ticket } else { rng.below(u64::from(among)) as u32 };
                view.visitor = Some(plan.visitors + flooder);
                self.reader(&mut view, hash, plan.visitors + flooder, plan.home);
                view.arrival = true;
            }
        }
        if let Some(visitor) = view.visitor {
            let of = mix(hash ^ mix(u64::from(visitor) | 1 << 41));
            let of_page = mix(of ^ mix(u64::from(view.page.0) | 1 << 40));
            view.coordinates = Some((Coordinate::from_hash(of), Coordinate::from_hash(of_page)));
        }
        view
    }

    fn hour(&self, hour: u32, rng: &mut SplitMix64) -> Hour {
        let late = if rng.below(LATE) == 0 { 1 + rng.below(LATE_HOURS) as u32 } else { 0 };
        Hour(self.month.first_hour().0 + hour.saturating_sub(late))
    }

    /// What stays with a reader.
    fn reader(&self, view: &mut View, hash: u64, visitor: u32, home: u8) {
        let mut rng = SplitMix64::new(mix(hash ^ u64::from(visitor) << 16));
        let device = pick(&mut rng, &DEVICES);
        let readers = READERS.iter().position(|(_, reader)| reader.device == device).unwrap_or(0);
        let of_device = &READERS[readers..];
        let of_device = &of_device[..of_device.partition_point(|(_, reader)| reader.device == device)];
        view.agent = Agent::Reader(pick(&mut rng, of_device));
        let region = match REGIONS.get(usize::from(home)) {
            Some((_, region)) if rng.below(8) < AT_HOME => *region,
            _ => pick(&mut rng, &REGIONS),
        };
        view.country = pick(&mut rng, region.countries);
    }

    fn page(&self, pages: u32, version: usize, language: usize, rng: &mut SplitMix64) -> Page {
        let there = rng.below(MISSING) != 0;
        // What is missing is a tenth as many.
        let among = if there { pages } else { (pages / 10).max(2) };
        Page::new(self.pages.sample_among(among as usize, rng), version, language, there)
    }
}

impl Plan {
    /// Hands out every view of these hours of the month, in the order of time, with its place and its hour.
    pub fn each(&self, hours: std::ops::Range<u32>, mut of: impl FnMut(&Place, &View, u32)) {
        let mut stretch = Stretch::default();
        for (hour, part) in hours.flat_map(|hour| (0..self.parts(hour)).map(move |part| (hour, part))) {
            self.fill(hour, part, &mut stretch);
            stretch.views().iter().for_each(|place| of(place, &self.view(place, hour), hour));
        }
    }
}

/// The number of a version or a language among these.
fn index_of(rng: &mut SplitMix64, of: &[(u32, &'static str)]) -> usize {
    let picked = pick(rng, of);
    of.iter().position(|(_, name)| *name == picked).unwrap_or(0)
}

impl View {
    /// Its record, as an endpoint writes it.
    #[must_use]
    pub fn record(&self, plan: &Plan) -> Vec<u8> {
        let mut message = PageView {
            project: plan.slug(self.project).to_owned(),
            version: self.page.version().to_owned(),
            language: self.page.language().to_owned(),
            referrer_host: self.referrer.to_owned(),
            country: self.country.to_owned(),
            path: self.page.path(),
            hour: self.hour.0,
            status: self.page.status().into(),
            arrival: self.arrival,
            event_id: self.id,
            ..PageView::default()
        };
        match self.agent {
            Agent::Reader(reader) => {
                (message.device, message.browser, message.system) =
                    (reader.device as i32, reader.browser as i32, reader.system as i32);
            }
            Agent::Bot(bot) => (message.bot_class, message.bot) = (bot.class as i32, bot.name.to_owned()),
        }
        if let Some((site, page)) = self.coordinates {
            (message.site_coordinate, message.page_coordinate) = (site.packed(), page.packed());
        }
        encode_page_view(message, RecordFormat::V4)
    }

    /// The beacon's body, as the script writes it for a project whose pages are on `host`.
    pub fn write_body(&self, slug: &str, host: &str, path: &mut String, body: &mut Vec<u8>) {
        let status = self.page.status();
        self.page.write_path(path);
        body.clear();
        // Writing to a vector cannot fail.
        let _ = write!(body, r#"{{"project":"{slug}","url":"https://{host}{path}","#);
        let _ = match (self.referrer, self.arrival) {
            ("", true) => write!(body, r#""referrer":"","#),
            ("", false) => write!(body, r#""referrer":"https://{host}/","#),
            (referrer, _) => write!(body, r#""referrer":"https://{referrer}/","#),
        };
        let (version, language) = (self.page.version(), self.page.language());
        let _ = write!(body, r#""status":{status},"version":"{version}","language":"{language}","#);
        let _ = write!(body, r#""id":"{:016x}"}}"#, self.id);
    }

    /// The user agent.
    #[must_use]
    pub fn agent(&self) -> &'static str {
        match self.agent {
            Agent::Reader(reader) => reader.agent,
            Agent::Bot(bot) => bot.agent,
        }
    }
}
