//! What a view is of, by whom, and its record.

use std::io::Write as _;

use prost::Message as _;
use schemas::proto::{BotClass, LogRecord, PageView, log_record::Body};
use schemas::record::FORMAT;
use schemas::{Coordinate, Hour};

use super::facts::{BOTS, DEVICES, LANGUAGES, READERS, REFERRERS, REGIONS, VERSIONS, by_share};
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
        push_number(path, rank);
        path.push_str("-page.html");
    }

    /// Its path.
    #[must_use]
    pub fn path(self) -> String {
        let mut path = String::new();
        self.write_path(&mut path);
        path
    }
}

fn push_number(text: &mut String, mut number: u32) {
    let mut digits = [0_u8; 10];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    digits[at..].iter().for_each(|&digit| text.push(char::from(digit)));
}

/// Shares as a table of 1,000 places, for a pick without a search.
#[derive(Debug, Clone)]
struct Table(Vec<u8>);

impl Table {
    /// Of 1,000, each index with its share.
    fn of(shares: impl Iterator<Item = u32>) -> Self {
        let places = shares.enumerate().flat_map(|(index, share)| std::iter::repeat_n(index as u8, share as usize));
        Self(places.collect())
    }

    fn pick(&self, rng: &mut SplitMix64) -> usize {
        usize::from(self.0[rng.below(self.0.len() as u64) as usize])
    }
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
    /// The reader's user agent among [`READERS`], or the bot among [`BOTS`].
    pub agent: usize,
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

/// The shares, ready to pick from.
#[derive(Debug, Clone)]
pub struct Shares {
    readers: Table,
    referrers: Table,
    languages: Table,
    versions: Table,
    bots: Table,
}

/// Makes views of places.
#[derive(Debug, Clone, Copy)]
pub struct Views<'a> {
    plan: &'a Plan,
    shares: &'a Shares,
}

impl Default for Shares {
    fn default() -> Self {
        let of_device = |device| DEVICES.iter().find(|(_, found)| *found == device).map_or(0, |(share, _)| *share);
        Self {
            // In ten thousandths, or the rare ones would vanish.
            readers: Table::of(READERS.iter().map(|reader| (reader.share * of_device(reader.device)).div_ceil(100))),
            referrers: Table::of(REFERRERS.iter().map(|(share, _)| *share)),
            languages: Table::of(LANGUAGES.iter().map(|(share, _)| *share)),
            versions: Table::of(VERSIONS.iter().map(|(share, _)| *share)),
            bots: Table::of(BOTS.iter().map(|bot| bot.share)),
        }
    }
}

impl<'a> Views<'a> {
    /// Of this month.
    #[must_use]
    pub fn new(plan: &'a Plan, shares: &'a Shares) -> Self {
        Self { plan, shares }
    }

    /// The view at a place of `hour` (since the month's start).
    #[must_use]
    pub fn view(&self, place: &Place, hour: u32) -> View {
        let Place { project, ticket, index, kind, .. } = *place;
        let plan = &self.plan.projects[project as usize];
        let hash = self.plan.hash_of(project);
        // A bijection of what tells views apart, so that no two have one id. Zero means "no id".
        let place = u64::from(project) << 40 | u64::from(ticket) << 8 | u64::from(index) << 2 | kind as u64;
        let id = mix(place ^ mix(self.plan.seed)).max(1);
        let mut rng = SplitMix64::new(mix(id ^ hash));
        let mut view = View {
            project,
            hour: self.hour(hour, &mut rng),
            page: Page::FLOODED,
            visitor: None,
            agent: 0,
            country: "",
            referrer: "",
            arrival: false,
            id,
            key: hash,
            coordinates: None,
        };
        match kind {
            Kind::Bot => {
                view.agent = self.shares.bots.pick(&mut rng);
                let (version, language) = (self.shares.versions.pick(&mut rng), self.shares.languages.pick(&mut rng));
                view.page = self.page(plan.pages, version, language, &mut rng);
                // Crawlers come to a page because they know it.
                view.arrival = true;
            }
            Kind::Reader => {
                let visitor = self.plan.visits.owner(plan.visitors, ticket);
                view.visitor = Some(visitor);
                self.reader(&mut view, hash, visitor, plan.home);
                let mut of_reader = SplitMix64::new(mix(hash ^ 0x7ead ^ u64::from(visitor) << 8));
                let (version, language) =
                    (self.shares.versions.pick(&mut of_reader), self.shares.languages.pick(&mut of_reader));
                view.page = self.page(plan.pages, version, language, &mut rng);
                view.arrival = index == 0;
                if view.arrival {
                    view.referrer = REFERRERS[self.shares.referrers.pick(&mut rng)].1;
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
        Hour(self.plan.month.first_hour().0 + hour.saturating_sub(late))
    }

    /// What stays with a reader.
    fn reader(&self, view: &mut View, hash: u64, visitor: u32, home: u8) {
        let mut rng = SplitMix64::new(mix(hash ^ u64::from(visitor) << 16));
        view.agent = self.shares.readers.pick(&mut rng);
        let region = match REGIONS.get(usize::from(home)) {
            Some(region) if rng.below(8) < AT_HOME => region,
            _ => {
                let mut at = rng.below(100) as u32;
                let found = REGIONS.iter().find(|region| {
                    let here = at < region.share;
                    at = at.saturating_sub(region.share);
                    here
                });
                found.unwrap_or(&REGIONS[0])
            }
        };
        view.country = by_share(region.countries, rng.below(100) as u32);
    }

    fn page(&self, pages: u32, version: usize, language: usize, rng: &mut SplitMix64) -> Page {
        let there = rng.below(MISSING) != 0;
        // What is missing is a tenth as many.
        let among = if there { pages } else { (pages / 10).max(2) };
        Page::new(self.plan.pages.sample_among(among as usize, rng), version, language, there)
    }
}

impl Plan {
    /// Hands out every view of these hours of the month, in the order of time, with its place and its hour.
    pub fn each(&self, hours: std::ops::Range<u32>, mut of: impl FnMut(&Place, &View, u32)) {
        let (shares, mut stretch) = (Shares::default(), Stretch::default());
        let views = Views::new(self, &shares);
        for (hour, part) in hours.flat_map(|hour| (0..self.parts(hour)).map(move |part| (hour, part))) {
            self.fill(hour, part, &mut stretch);
            stretch.views().iter().for_each(|place| of(place, &views.view(place, hour), hour));
        }
    }
}

/// Writes records, with one message that is filled anew for each.
pub struct Encoder {
    record: LogRecord,
    bytes: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        let view = PageView::default();
        Self { record: LogRecord { format: FORMAT, body: Some(Body::PageView(view)) }, bytes: Vec::new() }
    }
}

impl Encoder {
    /// The record of a view: the bytes that `schemas::record::encode_page_view` would make of it.
    pub fn encode(&mut self, plan: &Plan, view: &View) -> &[u8] {
        if let Some(Body::PageView(message)) = &mut self.record.body {
            fill(message, plan, view);
        }
        self.bytes.clear();
        // A vector takes whatever it is given.
        let _ = self.record.encode(&mut self.bytes);
        &self.bytes
    }
}

fn fill(message: &mut PageView, plan: &Plan, view: &View) {
    let set = |text: &mut String, to: &str| {
        text.clear();
        text.push_str(to);
    };
    set(&mut message.project, plan.slug(view.project));
    set(&mut message.version, view.page.version());
    set(&mut message.language, view.page.language());
    set(&mut message.referrer_host, view.referrer);
    set(&mut message.country, view.country);
    view.page.write_path(&mut message.path);
    message.hour = view.hour.0;
    message.status = view.page.status().into();
    message.arrival = view.arrival;
    message.event_id = view.id;
    if let Some((site, page)) = view.coordinates {
        let reader = &READERS[view.agent];
        (message.device, message.browser, message.system) =
            (reader.device as i32, reader.browser as i32, reader.system as i32);
        (message.site_coordinate, message.page_coordinate) = (site.packed(), page.packed());
        message.bot_class = BotClass::Person as i32;
        message.bot.clear();
    } else {
        let bot = &BOTS[view.agent];
        (message.device, message.browser, message.system) = (0, 0, 0);
        (message.site_coordinate, message.page_coordinate) = (0, 0);
        message.bot_class = bot.class as i32;
        set(&mut message.bot, bot.name);
    }
}

impl View {
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
        if self.visitor.is_some() { READERS[self.agent].agent } else { BOTS[self.agent].agent }
    }
}
