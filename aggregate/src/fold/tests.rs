use super::*;
use proptest::prelude::*;
use schemas::proto;
use schemas::record::{RecordFormat, ReportedMissingRef};
use std::collections::{BTreeMap, BTreeSet};

fn view(project: &str, path: &str, visitor: u64, id: u64) -> proto::PageView {
    proto::PageView {
        project: project.to_owned(),
        hour: 500_000,
        path: path.to_owned(),
        status: 200,
        device: proto::Device::Desktop as i32,
        arrival: visitor.is_multiple_of(2),
        site_coordinate: schemas::Coordinate::from_hash(visitor.wrapping_mul(0x9e37_79b9_7f4a_7c15)).packed(),
        page_coordinate: schemas::Coordinate::from_hash(visitor.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)).packed(),
        event_id: id,
        ..proto::PageView::default()
    }
}

fn encoded(view: proto::PageView) -> Vec<u8> {
    record::encode_page_view(view, RecordFormat::V4)
}

fn refused(tally: proto::RejectionTally) -> Vec<u8> {
    record::encode_rejections(tally, RecordFormat::V4).unwrap()
}

fn window() -> WindowState {
    WindowState::new(StreamId(7), WindowStart { offset: 10, appended_hour: 500_000 })
}

#[test]
fn rows_are_absolute_and_the_ledger_adds_up() {
    let mut state = window();
    let mut offset = 10;
    let mut apply = |state: &mut WindowState, bytes: &[u8]| {
        let outcome = state.apply(offset, bytes);
        offset += 1;
        outcome
    };
    apply(&mut state, &encoded(view("a", "/x", 1, 5))).unwrap();
    apply(&mut state, &encoded(view("a", "/x", 1, 5))).unwrap();
    apply(&mut state, &encoded(view("b", "/x", 1, 5))).unwrap();
    assert!(apply(&mut state, b"rubbish").is_err());
    let first = state.freeze();
    assert_eq!(first.site.len(), 2, "the same id in another project is another view");
    assert!(state.freeze().is_empty(), "nothing changed, nothing is written");
    apply(&mut state, &encoded(view("a", "/y", 2, 6))).unwrap();
    let bot = proto::PageView {
        bot_class: proto::BotClass::Search as i32,
        bot: "Googlebot".to_owned(),
        site_coordinate: 0,
        page_coordinate: 0,
        ..view("a", "/x", 3, 7)
    };
    apply(&mut state, &encoded(bot)).unwrap();
    let tally = proto::RejectionTally {
        project: "a".to_owned(),
        hour: 500_000,
        reason: 7,
        count: 12,
        id: 77,
        ..Default::default()
    };
    apply(&mut state, &refused(tally)).unwrap();
    let second = state.freeze();
    let site = second.site.iter().find(|row| row.project == "a").unwrap();
    assert_eq!((site.views, site.visits, site.next_offset), (2, 1, 17));
    let [robot] = &second.robot[..] else { panic!("{:?}", second.robot) };
    assert_eq!((robot.kind.as_str(), robot.name.as_str(), robot.views), ("search", "Googlebot", 1));
    let [page] = &second.robot_page[..] else { panic!("{:?}", second.robot_page) };
    assert_eq!((page.path.as_str(), page.robot_group.as_str(), page.views), ("/x", "search", 1));
    assert_eq!(VisitorSketch::decode(&site.sketch).unwrap().occupied(), 2);
    assert_eq!(second.page.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["/y"]);
    assert_eq!((second.rejection[0].reason.as_str(), second.rejection[0].beacons), ("unknown_project", 12));
    let ledger = second.ledger.unwrap();
    assert_eq!((ledger.seen, ledger.accepted, ledger.duplicate, ledger.tallies, ledger.undecodable), (7, 4, 1, 1, 1));
    assert_eq!(ledger.seen, ledger.next_offset - ledger.window_start);
}

#[test]
fn folding_again_gives_the_same_bytes() {
    let records: Vec<Vec<u8>> = (0..3000).map(|i| encoded(view("a", &format!("/{}", i % 7), i, i + 1))).collect();
    let run = |freeze_every: usize| {
        let mut state = window();
        let mut last = std::collections::BTreeMap::new();
        for (index, bytes) in records.iter().enumerate() {
            state.apply(10 + index as u64, bytes).unwrap();
            if index % freeze_every == 0 || index + 1 == records.len() {
                for row in state.freeze().page {
                    last.insert(row.path.clone(), (row.views, row.sketch));
                }
            }
        }
        last
    };
    assert_eq!(run(1), run(997));
}

/// The values of one dimension in these rows, each with its source and views.
fn values_of(rows: &Rows, dimension: Dimension) -> impl Iterator<Item = (Source, &str, u64)> {
    let values = rows.breakdown.iter().flat_map(|row| row.counts().map(|count| (row.source, count)));
    values.filter(move |(_, (of, ..))| *of == dimension).map(|(source, (_, value, views))| (source, value, views))
}

/// A flush writes a day's row of a source once, with all its values, if one of them has changed.
#[test]
fn a_row_of_breakdowns_has_all_values_of_its_source() {
    let mut state = window();
    let mut offset = 9;
    let mut freeze_after = |views: &[proto::PageView]| {
        for view in views {
            offset += 1;
            state.apply(offset, &encoded(view.clone())).unwrap();
        }
        let rows = state.freeze().breakdown;
        let row = |row: &BreakdownWindowRow| {
            let version = |(dimension, value, views): (Dimension, &str, u64)| {
                (dimension == Dimension::Version).then(|| (value.to_owned(), views))
            };
            (row.day, row.source, row.next_offset, row.counts().filter_map(version).collect::<Vec<_>>())
        };
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let of = |source: Source, version: &str, id: u64| proto::PageView {
        source: source as i32,
        version: version.to_owned(),
        ..view("a", "/x", id, id)
    };
    let versions = |counts: &[(&str, u64)]| counts.iter().map(|(value, views)| ((*value).to_owned(), *views)).collect();
    let day = Hour(500_000).day().0;
    let (own, other) = (Source::Beacon, Source::Plausible);
    let both = freeze_after(&[of(own, "2.0", 1), of(other, "2.0", 2), of(own, "1.0", 3), of(own, "2.0", 4)]);
    let expected = [(day, own, 14, versions(&[("1.0", 1), ("2.0", 2)])), (day, other, 14, versions(&[("2.0", 1)]))];
    assert_eq!(both, expected);
    assert_eq!(freeze_after(&[of(own, "3.0", 5)]), [(day, own, 15, versions(&[("1.0", 1), ("2.0", 2), ("3.0", 1)]))]);
    assert_eq!(freeze_after(&[of(own, "3.0", 5)]), [], "a repeat changes nothing");
    let tomorrow = proto::PageView { hour: 500_024, ..of(own, "1.0", 6) };
    assert_eq!(freeze_after(&[tomorrow]), [(day + 1, own, 17, versions(&[("1.0", 1)]))], "only the day that changed");
    // A missing page's referrer takes a place among the values, but its views are in another table.
    assert_eq!(
        freeze_after(&[arrival("blog.example", 7)])[0].3,
        versions(&[("", 1), ("1.0", 1), ("2.0", 2), ("3.0", 1)])
    );
    let zero = state.project_days.values().flat_map(|day| day.counts.iter()).filter(|count| count.views == 0).count();
    assert_eq!(zero, 1);
}

fn small_window(limits: Limits) -> WindowState {
    WindowState::with_limits(StreamId(7), WindowStart { offset: 10, appended_hour: 500_000 }, limits)
}

/// An arrival at a missing page.
fn arrival(referrer: &str, id: u64) -> proto::PageView {
    let (status, referrer_host) = (404, referrer.to_owned());
    proto::PageView { status, arrival: true, referrer_host, ..view("a", "/gone", id, id) }
}

/// Referrers of a missing page in a log: `real` of `all` arrivals are from one host, the others are forged, each from another host.
fn forged_referrers(all: u64, real: u64) -> impl Iterator<Item = proto::PageView> {
    let every = all / real;
    (0..all).map(move |index| {
        let from_real = index % every == every - 1 && index / every < real;
        let host = if from_real { "real.example".to_owned() } else { format!("{index}.forged.example") };
        arrival(&host, index + 1)
    })
}

/// Forged referrers replace each other, but not a referrer that is as frequent as a slot. Whenever rows are written, a referrer with at
/// least N / 32 arrivals has a row, and names and overflow add up to N.
#[test]
fn a_frequent_referrer_is_named_among_any_number_of_forged_ones() {
    use schemas::referrer::NAMED;
    for (all, real) in [(3_200, 100), (32, 1), (6_400, 200), (1_000, 40)] {
        for flush_every in [1, 7, 97, all] {
            let (mut state, mut last) = (window(), BTreeMap::new());
            for (index, view) in (1..).zip(forged_referrers(all, real)) {
                state.apply(9 + index, &encoded(view)).unwrap();
                if index % flush_every != 0 && index != all {
                    continue;
                }
                let changed = state.dirty();
                let rows = state.freeze();
                assert_eq!(rows.len(), changed + 1);
                last.extend(rows.not_found.into_iter().map(|row| (row.referrer, row.views)));
                assert_eq!(last.values().sum::<u64>(), index, "names and overflow of {index}");
                let named = last.iter().filter(|(name, views)| **views > 0 && *name != ":more").count();
                assert!(named <= NAMED, "{named} names");
            }
            let found = last["real.example"];
            assert!(found > 0 && found <= real, "{found} of {real} in {all}, flushed every {flush_every}");
        }
    }
}

/// A row contains what was counted since its host was named, not the value that its counter took over.
#[test]
fn a_newcomer_does_not_inherit_a_count() {
    let mut state = small_window(Limits { names: 2, ..Limits::default() });
    let mut offset = 9;
    let mut rows_after = |hosts: &[&str]| {
        for host in hosts {
            offset += 1;
            state.apply(offset, &encoded(arrival(host, offset))).unwrap();
        }
        let rows = state.freeze().not_found.into_iter().map(|row| (row.referrer, row.views));
        rows.collect::<BTreeMap<_, _>>()
    };
    let rows = |rows: &[(&str, u64)]| rows.iter().map(|(host, views)| ((*host).to_owned(), *views)).collect();
    assert_eq!(rows_after(&["a", "a", "a", "b", "b"]), rows(&[("a", 3), ("b", 2)]));
    // b has the smaller counter; c takes it over as 3, and has 4 with its second arrival.
    assert_eq!(rows_after(&["c", "c"]), rows(&[("b", 0), ("c", 2), (":more", 2)]));
    // Of two counters of 4, that of a is the older one.
    assert_eq!(rows_after(&["a", "d"]), rows(&[("a", 0), ("d", 1), (":more", 6)]));
    // b returns, and counts from here on.
    assert_eq!(rows_after(&["e", "b", "b"]), rows(&[("c", 0), ("d", 0), ("e", 1), ("b", 2), (":more", 9)]));
    // f is named and replaced between two flushes; another process may have written its row.
    assert_eq!(rows_after(&["f", "g"]), rows(&[("e", 0), ("f", 0), ("g", 1), (":more", 11)]));
}

#[test]
fn the_real_host_of_refused_beacons_is_named() {
    use schemas::referrer::NAMED;
    let mut state = window();
    for index in 0..2_000_u64 {
        let host = if index % 20 == 19 { "real.example".to_owned() } else { format!("{index}.forged.example") };
        let (project, reason) = ("a".to_owned(), RejectionReason::ForeignHost as u32);
        let tally = proto::RejectionTally { project, hour: 500_000, reason, count: 2, id: index + 1, host };
        state.apply(10 + index, &refused(tally)).unwrap();
    }
    let rows = state.freeze().rejection;
    let of = |host: &str| rows.iter().find(|row| row.host == host).map(|row| row.beacons);
    assert_eq!(of("real.example"), Some(200));
    let named = rows.iter().filter(|row| row.beacons > 0 && !row.host.is_empty()).count();
    assert_eq!(named, NAMED);
    assert_eq!(rows.iter().map(|row| row.beacons).sum::<u64>(), state.outcomes().rejected_beacons);
}

/// Dropped facts are rows of `rejection_daily`, but not refused beacons.
#[test]
fn dropped_facts_are_no_refused_beacons() {
    let mut state = window();
    for (index, cause) in [(0, Cause::Unusable), (1, Cause::Limit), (2, Cause::Limit)] {
        let (project, fact, cause) = ("a".to_owned(), Fact::Path as i32, cause as i32);
        let tally = proto::DroppedFacts { project, hour: 500_000, fact, cause, count: 5, id: index + 1 };
        state.apply(10 + index, &record::encode_dropped_facts(tally, RecordFormat::V4).unwrap()).unwrap();
    }
    let rows = state.freeze();
    let found: Vec<_> =
        rows.rejection.iter().map(|row| (row.reason.as_str(), row.host.as_str(), row.beacons)).collect();
    assert_eq!(found, [("dropped_path", "", 5), ("limited_path", "", 10)]);
    let ledger = rows.ledger.unwrap();
    assert_eq!((ledger.tallies, ledger.rejected_beacons, ledger.seen), (3, 0, 3));
}

/// Forged paths and values end in one overflow row each; earlier names continue to count.
#[test]
fn pages_and_values_of_a_day_are_capped() {
    let mut state = small_window(Limits { names: 2, pages: 3, values: 2 });
    for index in 0..40_u64 {
        let view = proto::PageView {
            status: if index % 4 == 3 { 404 } else { 500 },
            version: format!("{}", index % 5),
            referrer_host: format!("{}.example", index % 10),
            arrival: true,
            ..view("a", &format!("/{}", index % 20), index, index + 1)
        };
        state.apply(10 + index, &encoded(view)).unwrap();
    }
    let rows = state.freeze();
    let pages: BTreeMap<_, _> = rows.page.iter().map(|row| ((row.path.as_str(), row.status), row.views)).collect();
    let expected = [(("/0", 500), 2), (("/1", 500), 2), (("/2", 500), 2), (("/:more", 200), 24), (("/:more", 404), 10)];
    assert_eq!(pages, BTreeMap::from(expected));
    let values = |dimension: Dimension| -> BTreeMap<&str, u64> {
        values_of(&rows, dimension).map(|(_, value, views)| (value, views)).collect()
    };
    assert_eq!(values(Dimension::Version), BTreeMap::from([("0", 8), ("1", 8), ("", 24)]));
    assert_eq!(values(Dimension::Referrer), BTreeMap::from([("0.example", 4), ("1.example", 2), ("", 24)]));
    let missing: BTreeMap<_, _> = rows.not_found.iter().map(|row| (row.referrer.as_str(), row.views)).collect();
    assert_eq!(
        missing,
        BTreeMap::from([("1.example", 2), (":more", 8)]),
        "referrers beyond the cap are in the overflow"
    );
    assert_eq!(rows.site[0].views, 40);
    // Each day has its own limit.
    let tomorrow = proto::PageView { hour: 500_024, ..view("a", "/new", 41, 41) };
    state.apply(50, &encoded(tomorrow)).unwrap();
    assert_eq!(state.freeze().page[0].path, "/new");
}

/// A reader whom two scripts count has rows of both. Their sketches are equal, so together they are one visitor.
#[test]
fn a_reader_of_two_sources_is_one_visitor() {
    let mut state = window();
    let of = |source: Source, arrival: bool, id: u64| {
        encoded(proto::PageView { source: source as i32, arrival, ..view("a", "/x", 1, id) })
    };
    for (offset, record) in
        (10..).zip([of(Source::Beacon, true, 1), of(Source::Plausible, false, 2), of(Source::Plausible, false, 3)])
    {
        state.apply(offset, &record).unwrap();
    }
    let rows = state.freeze();
    let site: Vec<_> = rows.site.iter().map(|row| (row.source, row.views, row.visits)).collect();
    assert_eq!(site, [(Source::Beacon, 1, 1), (Source::Plausible, 2, 0)]);
    let page: Vec<_> = rows.page.iter().map(|row| (row.source, row.path.as_str(), row.views)).collect();
    assert_eq!(page, [(Source::Beacon, "/x", 1), (Source::Plausible, "/x", 2)]);
    let devices = values_of(&rows, Dimension::Device);
    let devices: BTreeMap<_, _> = devices.map(|(source, value, views)| ((source, value), views)).collect();
    let expected = [((Source::Beacon, "Desktop"), 1), ((Source::Plausible, "Desktop"), 2)];
    assert_eq!(devices, BTreeMap::from(expected));
    for sketches in [[&rows.site[0].sketch, &rows.site[1].sketch], [&rows.page[0].sketch, &rows.page[1].sketch]] {
        let mut both = VisitorSketch::new();
        sketches.into_iter().for_each(|sketch| both.merge_encoded(sketch).unwrap());
        assert_eq!(both.occupied(), 1);
    }
}

/// A client chooses its source, so seven sources must not give a forger more rows than one.
#[test]
fn sources_share_the_caps() {
    use schemas::referrer::NAMED;
    let mut state = small_window(Limits { pages: 3, values: 100, ..Limits::default() });
    for index in 0..700_u64 {
        let source = Source::ALL[(index % 7) as usize] as i32;
        let version = format!("{index}");
        let missing = proto::PageView { source, version, ..arrival(&format!("{}.example", index % 40), index + 1) };
        let path = format!("/{}", index % 50);
        let found = proto::PageView { path, status: 200, event_id: index + 1_001, ..missing.clone() };
        state.apply(10 + 2 * index, &encoded(missing)).unwrap();
        state.apply(11 + 2 * index, &encoded(found)).unwrap();
    }
    let rows = state.freeze();
    let pages = rows.page.iter().filter(|row| row.path != MORE_PATH).count();
    let versions = values_of(&rows, Dimension::Version).filter(|(_, value, _)| !value.is_empty()).count();
    assert_eq!((pages, versions), (3, 100));
    let mut names = BTreeMap::<_, usize>::new();
    for row in rows.not_found.iter().filter(|row| row.views > 0 && !row.referrer.starts_with(':')) {
        *names.entry(row.path.as_str()).or_default() += 1;
    }
    assert!(!names.is_empty() && names.values().all(|names| *names <= NAMED), "{names:?}");
    assert_eq!(rows.not_found.iter().map(|row| row.views).sum::<u64>(), 700);
    assert_eq!(rows.page.iter().map(|row| row.views).sum::<u64>(), 1_400);
}

/// A referrer's arrivals at all pages, minus those at one missing page, would reveal a value below the threshold.
#[test]
fn arrivals_at_missing_pages_are_in_one_table_only() {
    let mut state = window();
    state.apply(10, &encoded(arrival("blog.example", 1))).unwrap();
    let found = proto::PageView { status: 500, path: "/broken".to_owned(), ..arrival("blog.example", 2) };
    state.apply(11, &encoded(found)).unwrap();
    let rows = state.freeze();
    let referrers: Vec<_> = values_of(&rows, Dimension::Referrer).map(|(.., views)| views).collect();
    assert_eq!((referrers, rows.not_found[0].views, rows.site[0].visits), (vec![1], 1, 2));
}

/// The keys of rows, and their values.
type Sums = BTreeMap<String, (Vec<u64>, Vec<u8>)>;

fn remember(rows: Rows, sums: &mut Sums) {
    let mut keep = |key: String, counts: Vec<u64>, sketch: Vec<u8>| sums.insert(key, (counts, sketch));
    for row in rows.site {
        let key = format!("site {} {} {}", row.project, row.hour / 3600, row.source.name());
        keep(key, vec![row.views, row.visits], row.sketch);
    }
    for row in rows.page {
        let key = format!("page {} {} {} {} {}", row.project, row.day, row.path, row.status, row.source.name());
        keep(key, vec![row.views], row.sketch);
    }
    for row in rows.breakdown {
        // A row replaces the earlier one as a whole, so it is compared as a whole.
        let mut values: Vec<_> =
            row.counts().map(|(dimension, value, views)| (dimension.name(), value, views)).collect();
        values.sort_unstable();
        let key = format!("breakdown {} {} {}", row.project, row.day, row.source.name());
        keep(key, vec![values.len() as u64], format!("{values:?}").into_bytes());
    }
    for row in rows.robot {
        keep(
            format!("robot {} {} {} {:?} {}", row.project, row.day, row.kind, row.name, row.source.name()),
            vec![row.views],
            vec![],
        );
    }
    for row in rows.robot_page {
        let (group, source) = (row.robot_group, row.source.name());
        let key = format!("robot page {} {} {} {group} {source}", row.project, row.day, row.path);
        keep(key, vec![row.views], vec![]);
    }
    for row in rows.not_found {
        let name = format!("{}|{}", row.referrer, row.source.name());
        keep(format!("not found {} {} {} {name:?}", row.project, row.day, row.path), vec![row.views], vec![]);
    }
    for row in rows.rejection {
        let name = format!("{}|", row.host);
        let key = format!("rejection {} {} {} {name:?}", row.project, row.day, row.reason);
        keep(key, vec![row.beacons], vec![]);
    }
    for row in rows.rules {
        keep(format!("rules {} {} {}", row.project, row.day, row.rules), vec![row.views], vec![]);
    }
    for row in rows.reported_missing {
        keep(format!("reported {} {} {}", row.project, row.day, row.path), vec![row.reports], vec![]);
    }
    if let Some(row) = rows.ledger {
        let counts = vec![row.seen, row.accepted, row.duplicate, row.tallies, row.rejected_beacons, row.undecodable];
        keep("ledger".to_owned(), counts, vec![]);
    }
}

/// Small enough that a few hundred records reach the limits.
const SMALL: Limits = Limits { names: 2, pages: 3, values: 3 };

/// Space-Saving's counters, by prefix of the rows' keys, in the order in which hosts were named. A name has its source after a `|`.
#[derive(Default)]
struct Names(BTreeMap<String, Vec<(String, u64)>>);

impl Names {
    /// The name that `name` replaces, if `name` has no counter and none is free.
    fn arrive(&mut self, prefix: &str, name: &str, by: u64) -> Option<String> {
        let counters = self.0.entry(prefix.to_owned()).or_default();
        if let Some((_, counter)) = counters.iter_mut().find(|(held, _)| held == name) {
            *counter += by;
            return None;
        }
        if name.starts_with(['|', ':']) {
            return None;
        }
        let (mut left, mut counter) = (None, by);
        if counters.len() == SMALL.names {
            let least = counters.iter().map(|(_, counter)| *counter).min().unwrap();
            let first = counters.iter().position(|(_, counter)| *counter == least).unwrap();
            left = Some(counters.remove(first).0);
            counter += least;
        }
        counters.push((name.to_owned(), counter));
        left
    }
}

/// Adds to a name's row; the row of the name that it replaces goes to the overflow.
fn name_row(
    counts: &mut BTreeMap<String, (Vec<u64>, Option<VisitorSketch>)>,
    names: &mut Names,
    (prefix, overflow): (&str, &str),
    (name, by): (&str, u64),
) {
    let mut add = |name: &str, by: u64| {
        let row = counts.entry(format!("{prefix} {name:?}")).or_insert_with(|| (vec![0], None));
        row.0[0] += by;
        row.0[0]
    };
    if let Some(left) = names.arrive(prefix, name, by) {
        let had = add(&left, 0);
        let (_, source) = left.split_once('|').unwrap();
        add(&format!("{overflow}|{source}"), had);
        counts.insert(format!("{prefix} {left:?}"), (vec![0], None));
        counts.entry(format!("{prefix} {name:?}")).or_insert_with(|| (vec![0], None)).0[0] += by;
    } else {
        add(name, by);
    }
}

/// The simplest implementation of the fold, with [`SMALL`] limits.
#[expect(clippy::too_many_lines, reason = "one pass over the log, in the order of the rules")]
fn by_the_book(records: &[Vec<u8>]) -> Sums {
    let (mut names, mut pages) = (Names::default(), BTreeMap::<_, BTreeSet<_>>::new());
    let mut values = BTreeMap::<_, BTreeSet<_>>::new();
    let mut breakdowns = BTreeMap::<String, BTreeMap<(String, String), u64>>::new();
    let mut robots = BTreeMap::<_, (BTreeSet<_>, BTreeSet<_>)>::new();
    let mut reported = BTreeMap::<_, BTreeSet<_>>::new();
    let mut counts = BTreeMap::<String, (Vec<u64>, Option<VisitorSketch>)>::new();
    let mut ledger = vec![0; 6];
    let (mut ids, mut tally_ids) = (BTreeSet::new(), BTreeSet::new());
    for bytes in records {
        ledger[0] += 1;
        let mut add = |key: String, slot: usize, slots: usize, by: u64| {
            counts.entry(key).or_insert_with(|| (vec![0; slots], None)).0[slot] += by;
        };
        match record::decode(bytes) {
            Err(_) => ledger[5] += 1,
            Ok(Record::DroppedFacts(DroppedFactsRef { project, id, .. }))
            | Ok(Record::ReportedMissing(ReportedMissingRef { project, id, .. }))
                if !tally_ids.insert((project.to_owned(), id)) =>
            {
                ledger[2] += 1;
            }
            Ok(Record::DroppedFacts(tally)) => {
                ledger[3] += 1;
                let (project, day, fact) = (tally.project, tally.hour.day().0, tally.fact.name());
                let cause = if tally.cause == Cause::Limit { "limited" } else { "dropped" };
                add(format!("rejection {project} {day} {cause}_{fact} \"|\""), 0, 1, tally.count);
            }
            Ok(Record::ReportedMissing(tally)) => {
                ledger[3] += 1;
                let (project, day) = (tally.project, tally.hour.day().0);
                let all = reported.entry((project.to_owned(), day)).or_default();
                let room = all.contains(tally.path) || all.len() < SMALL.pages as usize;
                let path = if room { tally.path } else { "/:more" };
                if room {
                    all.insert(tally.path.to_owned());
                }
                add(format!("reported {project} {day} {path}"), 0, 1, tally.count);
            }
            Ok(Record::Rejections(tally)) => {
                if tally.id != 0 && !tally_ids.insert((tally.project.to_owned(), tally.id)) {
                    ledger[2] += 1;
                    continue;
                }
                ledger[3] += 1;
                ledger[4] += tally.count;
                let (project, day, reason, host) = (tally.project, tally.hour.day().0, tally.reason.name(), tally.host);
                let prefix = format!("rejection {project} {day} {reason}");
                name_row(&mut counts, &mut names, (&prefix, ""), (&format!("{host}|"), tally.count));
            }
            Ok(Record::PageView(view)) => {
                if view.event_id != 0 && !ids.insert((view.project.to_owned(), view.event_id)) {
                    ledger[2] += 1;
                    continue;
                }
                ledger[1] += 1;
                let (day, source) = (view.hour.day().0, view.source.name());
                let site = format!("site {} {} {source}", view.project, view.hour.0);
                add(format!("rules {} {day} {}", view.project, view.rules), 0, 1, 1);
                let mut capped = |dimension: &str, value: &str| {
                    let all = values.entry((view.project.to_owned(), day, dimension.to_owned())).or_default();
                    let of_source = (value.to_owned(), source);
                    let room = all.contains(&of_source) || all.len() < SMALL.values as usize;
                    if room && !value.is_empty() {
                        all.insert(of_source);
                    }
                    if room { value.to_owned() } else { String::new() }
                };
                let mut value = |dimension: &str, value: &str| {
                    let value = capped(dimension, value);
                    let row = breakdowns.entry(format!("breakdown {} {day} {source}", view.project)).or_default();
                    *row.entry((dimension.to_owned(), value)).or_default() += 1;
                };
                if view.bot_class != BotClass::Person {
                    let kind = view.bot_class.class_name();
                    let group = match kind {
                        "search" | "ai_training" | "ai_assistant" => kind,
                        _ => "other",
                    };
                    let all = robots.entry((view.project.to_owned(), day)).or_default();
                    let known = |all: &BTreeSet<_>, of: &((&'static str, &str), String), most: u32| {
                        all.contains(of) || all.len() < most as usize
                    };
                    let mut robot = ((kind, source), view.bot.to_owned());
                    if known(&all.0, &robot, SMALL.values) {
                        all.0.insert(robot.clone());
                    } else {
                        robot.1.clear();
                    }
                    let mut page = ((group, source), view.path.to_owned());
                    if known(&all.1, &page, SMALL.pages) {
                        all.1.insert(page.clone());
                    } else {
                        page.1 = "/:more".to_owned();
                    }
                    add(format!("robot {} {day} {kind} {:?} {source}", view.project, robot.1), 0, 1, 1);
                    add(format!("robot page {} {day} {} {group} {source}", view.project, page.1), 0, 1, 1);
                    add(site.clone(), 0, 2, 0);
                    counts.get_mut(&site).unwrap().1.get_or_insert_default();
                    continue;
                }
                if view.arrival && view.status != 404 {
                    value("referrer", view.referrer_host);
                }
                value("country", view.country);
                value("device", view.device.class_name());
                value("browser", view.browser.class_name());
                value("os", view.system.class_name());
                value("version", view.version);
                value("language", view.language);
                add(site.clone(), 0, 2, 1);
                add(site.clone(), 1, 2, u64::from(view.arrival));
                let all = pages.entry((view.project.to_owned(), day)).or_default();
                let (mut path, mut status) = (view.path, view.status);
                if !all.contains(&(path.to_owned(), status, source)) && all.len() == SMALL.pages as usize {
                    (path, status) = ("/:more", if status == 404 { 404 } else { 200 });
                } else {
                    all.insert((path.to_owned(), status, source));
                }
                let page = format!("page {} {day} {path} {status} {source}", view.project);
                let mut referrer = ":internal".to_owned();
                if status == 404 && view.arrival {
                    referrer = capped("referrer", view.referrer_host);
                    if referrer.is_empty() && !view.referrer_host.is_empty() {
                        referrer = ":more".to_owned();
                    }
                }
                add(page.clone(), 0, 1, 1);
                if status == 404 {
                    let prefix = format!("not found {} {day} {path}", view.project);
                    let name = format!("{referrer}|{source}");
                    name_row(&mut counts, &mut names, (&prefix, ":more"), (&name, 1));
                }
                for (key, coordinate) in [(site, view.site_coordinate), (page, view.page_coordinate)] {
                    counts.get_mut(&key).unwrap().1.get_or_insert_default().insert(coordinate.unwrap());
                }
            }
        }
    }
    let encoded = counts
        .into_iter()
        .map(|(key, (counts, sketch))| (key, (counts, sketch.map_or(vec![], |sketch| sketch.encode()))));
    let packed = breakdowns.into_iter().map(|(key, row)| {
        let values: Vec<_> = row.iter().map(|((dimension, value), &views)| (dimension, value, views)).collect();
        (key, (vec![values.len() as u64], format!("{values:?}").into_bytes()))
    });
    encoded.chain(packed).chain([("ledger".to_owned(), (ledger, vec![]))]).collect()
}

/// Records of a small world, in which all collisions occur: equal names of projects and paths, repeated ids, two days.
fn some_record() -> impl Strategy<Value = Vec<u8>> {
    let names = || prop::sample::select(vec!["", "en", "Firefox", "stable", "Other"]);
    let word = prop::sample::select(vec!["a", "b", "en"]);
    let classes = (0..7i32, 0..10i32, 0..11i32, prop_oneof![8 => Just(0), 1 => Just(1), 1 => 3..13i32]);
    let parts = (word, 0..4u32, 0..6usize, 0..6u64, any::<bool>(), any::<u64>());
    (parts, (names(), names(), names()), classes, 0..30u32).prop_map(|(parts, texts, classes, kind)| {
        let (project, hour, page, id, arrival, visitor) = parts;
        match kind {
            0 => return b"rubbish".to_vec(),
            1 => {
                let (hour, reason) = (500_014 + hour, 5 + page as u32);
                let (project, id) = (project.to_owned(), 1 + id);
                let host = if reason == 8 && arrival { format!("{}.example", visitor % 5) } else { String::new() };
                let tally = proto::RejectionTally { project, hour, reason, count: id, id, host };
                return refused(tally);
            }
            2 => {
                let (project, hour, fact, cause) =
                    (project.to_owned(), 500_014 + hour, 1 + page as i32, 1 + i32::from(arrival));
                let tally = proto::DroppedFacts { project, hour, fact, cause, count: 1 + id, id: 1 + id };
                return record::encode_dropped_facts(tally, RecordFormat::V4).unwrap();
            }
            3 => {
                let (project, hour, path) = (project.to_owned(), 500_014 + hour, format!("/gone/{page}"));
                let tally = proto::ReportedMissing { project, hour, path, count: 1 + id, id: 1 + id };
                return record::encode_reported_missing(tally, RecordFormat::V4).unwrap();
            }
            _ => {}
        }
        let view = proto::PageView {
            hour: 500_014 + hour,
            status: if page >= 4 { 404 } else { 200 },
            version: texts.0.to_owned(),
            language: texts.1.to_owned(),
            referrer_host: if visitor % 2 == 0 { texts.2.to_owned() } else { format!("{}.example", visitor % 5) },
            source: if visitor % 3 == 0 { proto::Source::Umami as i32 } else { 0 },
            country: if page % 2 == 0 { "DE".to_owned() } else { String::new() },
            device: classes.0,
            browser: classes.1,
            system: classes.2,
            arrival,
            rules: (visitor % 3) as u32,
            ..view(project, ["/", "/a", "/b", "/en", "/a/b", "/"][page], visitor, id)
        };
        encoded(match classes.3 {
            0 => view,
            bot_class => {
                let bot = ["Firefox", "GPTBot"][page % 2].to_owned();
                proto::PageView { bot_class, bot, site_coordinate: 0, page_coordinate: 0, ..view }
            }
        })
    })
}

proptest! {
    /// However often the state was frozen meanwhile, the last row of every key equals the sum of the records.
    #[test]
    fn any_schedule_of_freezes_ends_in_the_same_rows(
        records in prop::collection::vec((some_record(), prop::bool::weighted(0.1)), 0..300),
    ) {
        let mut state = small_window(SMALL);
        let mut sums = Sums::from([("ledger".to_owned(), (vec![0; 6], vec![]))]);
        for (index, (bytes, freeze)) in records.iter().enumerate() {
            let _ = state.apply(10 + index as u64, bytes);
            if *freeze {
                let changed = state.dirty();
                let rows = state.freeze();
                prop_assert_eq!(rows.len(), changed + 1, "what changed and the ledger");
                prop_assert_eq!(state.dirty(), 0);
                remember(rows, &mut sums);
            }
        }
        remember(state.freeze(), &mut sums);
        let records: Vec<Vec<u8>> = records.into_iter().map(|(bytes, _)| bytes).collect();
        prop_assert_eq!(sums, by_the_book(&records));
    }
}
