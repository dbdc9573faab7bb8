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
    assert_eq!((site.views, site.visits, site.bots_search, site.next_offset), (2, 1, 1, 17));
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

/// Whoever asks for a page that is not there may say that anybody led there. The first are named, the others are counted together,
/// and however often rows are written on the way, the last ones are the same.
#[test]
fn few_referrers_of_a_page_not_found_are_named() {
    use schemas::referrer::{INTERNAL, MORE, NAMED};
    let led = |index: u64| {
        // Every host twice, and in between readers from the project and from nowhere.
        let host = index / 4;
        proto::PageView {
            status: if index % 4 == 3 { 200 } else { 404 },
            arrival: index % 4 != 1,
            referrer_host: if index % 4 == 2 { String::new() } else { format!("{}.example", host % 50) },
            ..view("a", "/gone", index, index + 1)
        }
    };
    let run = |freeze_every: u64| {
        let mut state = window();
        let mut last = BTreeMap::new();
        for index in 0..400 {
            let referrer = if index % 4 == 1 { String::new() } else { led(index).referrer_host };
            state.apply(10 + index, &encoded(proto::PageView { referrer_host: referrer, ..led(index) })).unwrap();
            if index % freeze_every == 0 || index == 399 {
                let changed = state.dirty();
                let rows = state.freeze();
                assert_eq!(rows.len(), changed + 1);
                last.extend(rows.not_found.into_iter().map(|row| ((row.path, row.referrer), row.views)));
            }
        }
        last
    };
    let rows = run(1);
    assert_eq!(rows, run(97));
    let of = |referrer: &str| rows.get(&("/gone".to_owned(), referrer.to_owned())).copied();
    assert_eq!((of(INTERNAL), of("")), (Some(100), Some(100)));
    assert_eq!((of("0.example"), of("31.example"), of("32.example")), (Some(2), Some(2), None));
    assert_eq!(of(MORE), Some(2 * (50 - NAMED as u64)));
    assert_eq!((rows.len(), rows.values().sum::<u64>()), (NAMED + 3, 300));
}

#[test]
fn few_hosts_of_refused_beacons_are_named() {
    use schemas::referrer::NAMED;
    let mut state = window();
    for index in 0..200_u64 {
        let (host, reason) = (format!("{}.example", index % 50), RejectionReason::ForeignHost as u32);
        let tally =
            proto::RejectionTally { project: "a".to_owned(), hour: 500_000, reason, count: 2, id: index + 1, host };
        state.apply(10 + index, &refused(tally)).unwrap();
    }
    let rows = state.freeze().rejection;
    let of = |host: &str| rows.iter().find(|row| row.host == host).map(|row| row.beacons);
    assert_eq!((of("0.example"), of("31.example"), of("32.example")), (Some(8), Some(8), None));
    assert_eq!((of(""), rows.len()), (Some(8 * (50 - NAMED as u64)), NAMED + 1));
    assert_eq!(rows.iter().map(|row| row.beacons).sum::<u64>(), state.outcomes().rejected_beacons);
}

/// Everything that rows are told apart by, and what they say.
type Sums = BTreeMap<String, (Vec<u64>, Vec<u8>)>;

fn remember(rows: Rows, sums: &mut Sums) {
    let mut keep = |key: String, counts: Vec<u64>, sketch: Vec<u8>| sums.insert(key, (counts, sketch));
    for row in rows.site {
        let bots = [row.bots_search, row.bots_ai_crawler, row.bots_preview, row.bots_monitor];
        let counts = [&[row.views, row.visits][..], &bots, &[row.bots_automation, row.bots_other]].concat();
        keep(format!("site {} {}", row.project, row.hour / 3600), counts, row.sketch);
    }
    for row in rows.page {
        let key = format!("page {} {} {} {}", row.project, row.day, row.path, row.status);
        keep(key, vec![row.views], row.sketch);
    }
    for row in rows.breakdown {
        let key = format!("breakdown {} {} {} {:?}", row.project, row.day, row.dimension, row.value);
        keep(key, vec![row.views], vec![]);
    }
    for row in rows.not_found {
        keep(format!("not found {} {} {} {:?}", row.project, row.day, row.path, row.referrer), vec![row.views], vec![]);
    }
    for row in rows.rejection {
        let key = format!("rejection {} {} {} {:?}", row.project, row.day, row.reason, row.host);
        keep(key, vec![row.beacons], vec![]);
    }
    if let Some(row) = rows.ledger {
        let counts = vec![row.seen, row.accepted, row.duplicate, row.tallies, row.rejected_beacons, row.undecodable];
        keep("ledger".to_owned(), counts, vec![]);
    }
}

/// The fold as one would write it on a blackboard.
fn by_the_book(records: &[Vec<u8>]) -> Sums {
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
                add(format!("rejection {project} {day} {cause}_{fact} \"\""), 0, 1, tally.count);
            }
            Ok(Record::ReportedMissing(_)) => ledger[3] += 1,
            Ok(Record::Rejections(tally)) => {
                if tally.id != 0 && !tally_ids.insert((tally.project.to_owned(), tally.id)) {
                    ledger[2] += 1;
                    continue;
                }
                ledger[3] += 1;
                ledger[4] += tally.count;
                let (project, day, reason, host) = (tally.project, tally.hour.day().0, tally.reason.name(), tally.host);
                let key = format!("rejection {project} {day} {reason} {host:?}");
                add(key, 0, 1, tally.count);
            }
            Ok(Record::PageView(view)) => {
                if view.event_id != 0 && !ids.insert((view.project.to_owned(), view.event_id)) {
                    ledger[2] += 1;
                    continue;
                }
                ledger[1] += 1;
                let day = view.hour.day().0;
                let site = format!("site {} {}", view.project, view.hour.0);
                let page = format!("page {} {day} {} {}", view.project, view.path, view.status);
                let mut value = |dimension: &str, value: &str| {
                    add(format!("breakdown {} {day} {dimension} {value:?}", view.project), 0, 1, 1);
                };
                if view.bot_class != BotClass::Person {
                    value("bot", view.bot);
                    add(site.clone(), 1 + view.bot_class.counted_as() as usize, 8, 1);
                    counts.get_mut(&site).unwrap().1.get_or_insert_default();
                    continue;
                }
                if view.arrival {
                    value("referrer", view.referrer_host);
                }
                value("country", view.country);
                value("device", view.device.class_name());
                value("browser", view.browser.class_name());
                value("os", view.system.class_name());
                value("version", view.version);
                value("language", view.language);
                add(site.clone(), 0, 8, 1);
                add(site.clone(), 1, 8, u64::from(view.arrival));
                add(page.clone(), 0, 1, 1);
                if view.status == 404 {
                    let led = if view.arrival { view.referrer_host } else { ":internal" };
                    add(format!("not found {} {day} {} {led:?}", view.project, view.path), 0, 1, 1);
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
    encoded.chain([("ledger".to_owned(), (ledger, vec![]))]).collect()
}

/// Records of a small world, in which all that can meet does: projects and paths of one name, repeated ids, two days.
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
                let host = if reason == 8 && arrival { format!("{}.example", visitor % 3) } else { String::new() };
                let tally = proto::RejectionTally { project, hour, reason, count: id, id, host };
                return refused(tally);
            }
            2 => {
                let (project, hour, fact, cause) =
                    (project.to_owned(), 500_014 + hour, 1 + page as i32, 1 + arrival as i32);
                let tally = proto::DroppedFacts { project, hour, fact, cause, count: 1 + id, id: 1 + id };
                return record::encode_dropped_facts(tally, RecordFormat::V4).unwrap();
            }
            3 => {
                let (project, hour, path) = (project.to_owned(), 500_014 + hour, "/gone".to_owned());
                let tally = proto::ReportedMissing { project, hour, path, count: 1, id: 1 + id };
                return record::encode_reported_missing(tally, RecordFormat::V4).unwrap();
            }
            _ => {}
        }
        let view = proto::PageView {
            hour: 500_014 + hour,
            status: if page == 5 { 404 } else { 200 },
            version: texts.0.to_owned(),
            language: texts.1.to_owned(),
            referrer_host: texts.2.to_owned(),
            country: if page % 2 == 0 { "DE".to_owned() } else { String::new() },
            device: classes.0,
            browser: classes.1,
            system: classes.2,
            arrival,
            ..view(project, ["/", "/a", "/b", "/en", "/a/b", "/"][page], visitor, id)
        };
        encoded(match classes.3 {
            0 => view,
            bot_class => {
                let bot = "Firefox".to_owned();
                proto::PageView { bot_class, bot, site_coordinate: 0, page_coordinate: 0, ..view }
            }
        })
    })
}

proptest! {
    /// However often it was frozen on the way, the last row of every key is what the records add up to.
    #[test]
    fn any_schedule_of_freezes_ends_in_the_same_rows(
        records in prop::collection::vec((some_record(), prop::bool::weighted(0.1)), 0..300),
    ) {
        let mut state = window();
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
