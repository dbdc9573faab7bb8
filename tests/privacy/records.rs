//! Page views as the log has them, of known readers.

use harness::random::mix;
use schemas::Coordinate;
use schemas::proto::PageView;
use schemas::record::{self, RecordFormat};

/// A view of one of 900 readers, on one of 40 pages of a project, in this hour.
pub fn view(index: u64, project: &str, hour: u32) -> Vec<u8> {
    encoded(page_view(index, project, hour))
}

/// The same as [`view`], of one page that is not there, and led to from three places.
pub fn not_found(index: u64, project: &str, hour: u32) -> Vec<u8> {
    let view = page_view(index, project, hour);
    let bot = view.bot_class != 0;
    let (arrival, host) = [(false, ""), (true, "blog.example"), (true, "")][(mix(index) >> 40) as usize % 3];
    encoded(PageView {
        path: "/gone.html".to_owned(),
        status: 404,
        arrival: arrival && !bot,
        referrer_host: if bot { String::new() } else { host.to_owned() },
        ..view
    })
}

fn encoded(view: PageView) -> Vec<u8> {
    record::encode_page_view(view, RecordFormat::V4)
}

fn page_view(index: u64, project: &str, hour: u32) -> PageView {
    let chance = mix(index);
    let coordinate = |chance: u64| Coordinate::from_hash(mix(chance)).packed();
    let bot = chance.is_multiple_of(17);
    let arrival = !bot && chance.is_multiple_of(3);
    // A reader is counted, a bot is not.
    let coordinate = |chance: u64| if bot { 0 } else { coordinate(chance) };
    PageView {
        project: project.to_owned(),
        hour,
        path: format!("/page-{}.html", chance >> 8 & 39),
        status: if chance.is_multiple_of(11) { 404 } else { 200 },
        version: "stable".to_owned(),
        language: ["en", "de", "fr", "ja"][(chance >> 20 & 3) as usize].to_owned(),
        referrer_host: if arrival { "search.example".to_owned() } else { String::new() },
        country: String::new(),
        device: 1,
        browser: 1 + (chance >> 30 & 1) as i32,
        system: 3,
        bot_class: i32::from(bot),
        arrival,
        site_coordinate: coordinate(chance % 900),
        page_coordinate: coordinate(chance % 901 + 10_000),
        event_id: mix(chance) | 1,
        bot: if bot { "Googlebot".to_owned() } else { String::new() },
        ..PageView::default()
    }
}
