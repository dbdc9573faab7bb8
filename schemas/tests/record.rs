//! The closed schema: a log record carries the documented fields and nothing else, whoever wrote it.

use headcount_schemas::record::{self, DecodeError, FORMAT, MAX_LABEL_BYTES, MAX_PATH_BYTES, Record, RecordFormat};
use headcount_schemas::{Coordinate, RejectionReason, proto};
use proptest::prelude::*;
use prost::Message;
use proto::log_record::Body;

/// The last hour that ClickHouse's `DateTime` holds.
const LAST_HOUR: u32 = u32::MAX / 3600;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;

/// The documented fields of each message: number and wire type.
const LOG_RECORD: &[(u32, u32)] = &[(1, VARINT), (2, BYTES), (3, BYTES), (4, BYTES), (5, BYTES)];
const TALLY: &[(u32, u32)] = &[(1, BYTES), (2, VARINT), (3, VARINT), (4, VARINT), (5, FIXED64), (6, BYTES)];
const DROPPED: &[(u32, u32)] = &[(1, BYTES), (2, VARINT), (3, VARINT), (4, VARINT), (5, VARINT), (6, FIXED64)];
const MISSING: &[(u32, u32)] = &[(1, BYTES), (2, VARINT), (3, BYTES), (4, VARINT), (5, FIXED64)];
const PAGE_VIEW: &[(u32, u32)] = &[
    (1, BYTES),
    (2, VARINT),
    (3, BYTES),
    (4, VARINT),
    (5, BYTES),
    (6, BYTES),
    (7, BYTES),
    (8, BYTES),
    (9, VARINT),
    (10, VARINT),
    (11, VARINT),
    (12, VARINT),
    (13, VARINT),
    (14, VARINT),
    (15, VARINT),
    (16, FIXED64),
    (17, BYTES),
    (18, VARINT),
    (19, VARINT),
    (20, BYTES),
    (21, VARINT),
    (22, BYTES),
];

/// A person's view with every field that a person's view can have.
fn person() -> proto::PageView {
    proto::PageView {
        project: "sphinx".to_owned(),
        hour: 497_951,
        path: "/en/stable/größe.html".to_owned(),
        status: 404,
        version: "stable".to_owned(),
        language: "en".to_owned(),
        referrer_host: "www.python.org".to_owned(),
        country: "DE".to_owned(),
        device: proto::Device::Tablet as i32,
        browser: proto::Browser::SamsungInternet as i32,
        system: proto::System::Android as i32,
        bot_class: proto::BotClass::Person as i32,
        arrival: true,
        site_coordinate: Coordinate::new(16_383, 51).unwrap().packed(),
        page_coordinate: Coordinate::new(0, 1).unwrap().packed(),
        event_id: 0xfedc_ba98_7654_3210,
        bot: String::new(),
        source: proto::Source::Readthedocs as i32,
        rules: 7,
        title: "Größe — Sphinx".to_owned(),
        marks: 0xffff,
        version_meant: "8.2".to_owned(),
    }
}

fn bot() -> proto::PageView {
    proto::PageView {
        bot_class: proto::BotClass::AiAssistant as i32,
        bot: "GPTBot".to_owned(),
        site_coordinate: 0,
        page_coordinate: 0,
        ..person()
    }
}

fn tally() -> proto::RejectionTally {
    let reason = RejectionReason::ForeignHost as u32;
    let (project, host) = ("sphinx".to_owned(), "docs.example.org:8443".to_owned());
    proto::RejectionTally { project, hour: 497_951, reason, count: 300, id: 0x0123_4567_89ab_cdef, host }
}

fn dropped() -> proto::DroppedFacts {
    let (fact, cause) = (proto::Fact::Agent as i32, proto::Cause::Limit as i32);
    let id = 0x0123_4567_89ab_cdf0;
    proto::DroppedFacts { project: "sphinx".to_owned(), hour: 497_951, fact, cause, count: 300, id }
}

fn missing() -> proto::ReportedMissing {
    let (project, path) = ("sphinx".to_owned(), "/en/stable/größe.html".to_owned());
    proto::ReportedMissing { project, hour: 497_951, path, count: 300, id: 0x0123_4567_89ab_cdf1 }
}

/// The view without what came with format 4.
fn of_format_3(view: proto::PageView) -> proto::PageView {
    proto::PageView {
        bot_class: if view.bot_class == 0 { 0 } else { proto::BotClass::AiCrawler as i32 },
        source: 0,
        rules: 0,
        title: String::new(),
        marks: 0,
        version_meant: String::new(),
        ..view
    }
}

/// What the decoder read, as what the encoder takes.
fn body_of(record: &Record<'_>) -> Body {
    match record {
        Record::PageView(view) => Body::PageView(proto::PageView {
            project: view.project.to_owned(),
            hour: view.hour.0,
            path: view.path.to_owned(),
            status: u32::from(view.status),
            version: view.version.to_owned(),
            language: view.language.to_owned(),
            referrer_host: view.referrer_host.to_owned(),
            country: view.country.to_owned(),
            device: view.device as i32,
            browser: view.browser as i32,
            system: view.system as i32,
            bot_class: view.bot_class as i32,
            arrival: view.arrival,
            site_coordinate: view.site_coordinate.map_or(0, Coordinate::packed),
            page_coordinate: view.page_coordinate.map_or(0, Coordinate::packed),
            event_id: view.event_id,
            bot: view.bot.to_owned(),
            source: view.source as i32,
            rules: view.rules,
            title: view.title.to_owned(),
            marks: u32::from(view.marks),
            version_meant: view.version_meant.to_owned(),
        }),
        Record::Rejections(tally) => Body::Rejections(proto::RejectionTally {
            project: tally.project.to_owned(),
            hour: tally.hour.0,
            reason: tally.reason as u32,
            count: tally.count,
            id: tally.id,
            host: tally.host.to_owned(),
        }),
        Record::DroppedFacts(tally) => Body::DroppedFacts(proto::DroppedFacts {
            project: tally.project.to_owned(),
            hour: tally.hour.0,
            fact: tally.fact as i32,
            cause: tally.cause as i32,
            count: tally.count,
            id: tally.id,
        }),
        Record::ReportedMissing(tally) => Body::ReportedMissing(proto::ReportedMissing {
            project: tally.project.to_owned(),
            hour: tally.hour.0,
            path: tally.path.to_owned(),
            count: tally.count,
            id: tally.id,
        }),
    }
}

fn encode(body: Body) -> Vec<u8> {
    encode_as(body, RecordFormat::V4).unwrap()
}

fn encode_as(body: Body, format: RecordFormat) -> Option<Vec<u8>> {
    match body {
        Body::PageView(view) => Some(record::encode_page_view(view, format)),
        Body::Rejections(tally) => record::encode_rejections(tally, format),
        Body::DroppedFacts(tally) => record::encode_dropped_facts(tally, format),
        Body::ReportedMissing(tally) => record::encode_reported_missing(tally, format),
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// One field of any number and wire type, well formed: prost would skip it.
fn field(number: u32, wire_type: u32) -> Vec<u8> {
    let mut bytes = varint(u64::from(number << 3 | wire_type));
    match wire_type {
        VARINT => bytes.push(1),
        FIXED64 => bytes.extend([1; 8]),
        BYTES => bytes.extend([2, b'D', b'E']),
        3 => bytes.extend(varint(u64::from(number << 3 | 4))),
        5 => bytes.extend([1; 4]),
        _ => {}
    }
    bytes
}

/// A record around a message of our making.
fn record_of(number: u32, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1 << 3, FORMAT as u8];
    bytes.extend(varint(u64::from(number << 3 | BYTES)));
    bytes.extend(varint(message.len() as u64));
    bytes.extend(message);
    bytes
}

fn record_of_view(view: &proto::PageView) -> Vec<u8> {
    record_of(2, &view.encode_to_vec())
}

/// The error that `change` causes in a person's view.
fn refusal(change: impl FnOnce(&mut proto::PageView)) -> Option<DecodeError> {
    let mut view = person();
    change(&mut view);
    record::decode(&record_of_view(&view)).err()
}

#[test]
fn fixtures_read_and_write_as_they_were_written() {
    for (name, hex, body) in fixtures() {
        let bytes = unhex(hex);
        let decoded = record::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(body_of(&decoded), body, "{name}");
        assert_eq!(encode(body_of(&decoded)), bytes, "{name}");
    }
}

/// Formats 1 and 2 differ in tallies only, which had no id, and no host.
#[test]
fn fixtures_of_earlier_formats_still_read() {
    let hostless = proto::RejectionTally { host: String::new(), ..tally() };
    let nameless = proto::RejectionTally { id: 0, ..hostless.clone() };
    let (person, bot) = (Body::PageView(of_format_3(person())), Body::PageView(of_format_3(bot())));
    for (name, hex, body) in [
        ("person of format 1", include_str!("../fixtures/record/v1-person.hex"), person.clone()),
        ("bot of format 1", include_str!("../fixtures/record/v1-bot.hex"), bot.clone()),
        ("tally of format 1", include_str!("../fixtures/record/v1-tally.hex"), Body::Rejections(nameless)),
        ("person of format 2", include_str!("../fixtures/record/v2-person.hex"), person.clone()),
        ("bot of format 2", include_str!("../fixtures/record/v2-bot.hex"), bot.clone()),
        ("tally of format 2", include_str!("../fixtures/record/v2-tally.hex"), Body::Rejections(hostless.clone())),
        ("person of format 3", include_str!("../fixtures/record/v3-person.hex"), person),
        ("bot of format 3", include_str!("../fixtures/record/v3-bot.hex"), bot),
        ("tally of format 3", include_str!("../fixtures/record/v3-tally.hex"), Body::Rejections(tally())),
    ] {
        let bytes = unhex(hex);
        let decoded = record::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(body_of(&decoded), body, "{name}");
    }
    let with_host = as_format(encode(Body::Rejections(tally())), 2);
    assert_eq!(record::decode(&with_host), Err(DecodeError::UnknownField(6)), "format 2 has no hosts");
    let with_id = as_format(encode(Body::Rejections(hostless)), 1);
    assert_eq!(record::decode(&with_id), Err(DecodeError::UnknownField(5)), "format 1 has no ids");
}

/// The record, said to be of another format.
fn as_format(mut record: Vec<u8>, format: u8) -> Vec<u8> {
    assert_eq!(record[..2], [1 << 3, FORMAT as u8], "the format is first");
    record[1] = format;
    record
}

/// An endpoint that writes format 3 writes what earlier aggregators read: the very bytes of the fixtures.
#[test]
fn format_3_is_still_written() {
    for (hex, body) in [
        (include_str!("../fixtures/record/v3-person.hex"), Body::PageView(person())),
        (include_str!("../fixtures/record/v3-bot.hex"), Body::PageView(bot())),
        (include_str!("../fixtures/record/v3-tally.hex"), Body::Rejections(tally())),
    ] {
        assert_eq!(encode_as(body, RecordFormat::V3), Some(unhex(hex)));
    }
    assert_eq!(encode_as(Body::DroppedFacts(dropped()), RecordFormat::V3), None);
    assert_eq!(encode_as(Body::ReportedMissing(missing()), RecordFormat::V3), None);
    let prefetch = proto::RejectionTally { reason: RejectionReason::Prefetch as u32, host: String::new(), ..tally() };
    assert_eq!(encode_as(Body::Rejections(prefetch), RecordFormat::V3), None);
    for (number, counted_as) in
        [(1, 1), (3, 3), (4, 4), (5, 5), (6, 6), (7, 2), (8, 2), (9, 6), (10, 6), (11, 6), (12, 6)]
    {
        let view = proto::PageView { bot_class: number, device: 6, browser: 9, system: 10, ..bot() };
        let bytes = record::encode_page_view(view, RecordFormat::V3);
        let Ok(Record::PageView(read)) = record::decode(&bytes) else { panic!("bot class {number}") };
        let classes = (read.bot_class as i32, read.device as i32, read.browser as i32, read.system as i32);
        assert_eq!(classes, (counted_as, 4, 7, 7), "bot class {number}");
    }
}

/// No record of an earlier format has what came with format 4, and format 4 has no AI crawlers without a purpose.
#[test]
fn formats_have_only_their_own_fields_and_classes() {
    use DecodeError::{OutOfRange, UnknownField};
    let old = |change: fn(&mut proto::PageView), view: proto::PageView| {
        let mut view = of_format_3(view);
        change(&mut view);
        let mut errors = (1..=3).map(|format| record::decode(&as_format(record_of_view(&view), format)).err());
        let first = errors.next().unwrap();
        assert!(errors.all(|error| error == first), "formats 1 to 3 are alike");
        first
    };
    assert_eq!(old(|_| {}, person()), None);
    assert_eq!(old(|_| {}, bot()), None);
    assert_eq!(old(|view| view.source = 5, person()), Some(UnknownField(18)));
    assert_eq!(old(|view| view.rules = 1, person()), Some(UnknownField(19)));
    assert_eq!(old(|view| "A".clone_into(&mut view.title), person()), Some(UnknownField(20)));
    assert_eq!(old(|view| view.marks = 1, person()), Some(UnknownField(21)));
    assert_eq!(old(|view| "8".clone_into(&mut view.version_meant), person()), Some(UnknownField(22)));
    assert_eq!(old(|view| view.device = 5, person()), Some(OutOfRange(9)));
    assert_eq!(old(|view| view.browser = 8, person()), Some(OutOfRange(10)));
    assert_eq!(old(|view| view.system = 8, person()), Some(OutOfRange(11)));
    assert_eq!(old(|view| view.bot_class = 7, bot()), Some(OutOfRange(12)));
    let new = proto::PageView { bot_class: proto::BotClass::AiCrawler as i32, ..bot() };
    assert_eq!(record::decode(&record_of_view(&new)), Err(OutOfRange(12)));
    for (number, body) in [(4, Body::DroppedFacts(dropped())), (5, Body::ReportedMissing(missing()))] {
        for format in 1..=3 {
            let record = as_format(encode(body.clone()), format);
            assert_eq!(record::decode(&record), Err(UnknownField(number)), "format {format}");
        }
    }
    for reason in RejectionReason::ALL.iter().filter(|reason| reason.first_format() == 4) {
        let tally = proto::RejectionTally { reason: *reason as u32, host: String::new(), ..tally() };
        let record = encode(Body::Rejections(tally));
        assert!(record::decode(&record).is_ok(), "{reason:?}");
        assert_eq!(record::decode(&as_format(record, 3)), Err(OutOfRange(3)), "{reason:?}");
    }
}

fn fixtures() -> [(&'static str, &'static str, Body); 5] {
    [
        ("person", include_str!("../fixtures/record/v4-person.hex"), Body::PageView(person())),
        ("bot", include_str!("../fixtures/record/v4-bot.hex"), Body::PageView(bot())),
        ("tally", include_str!("../fixtures/record/v4-tally.hex"), Body::Rejections(tally())),
        ("dropped-facts", include_str!("../fixtures/record/v4-dropped-facts.hex"), Body::DroppedFacts(dropped())),
        (
            "reported-missing",
            include_str!("../fixtures/record/v4-reported-missing.hex"),
            Body::ReportedMissing(missing()),
        ),
    ]
}

#[test]
#[ignore = "writes fixtures/record; run by hand for a new version"]
fn write_fixtures() {
    for (name, _, body) in fixtures() {
        let hex: String = encode(body).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = format!("{}/fixtures/record/v{FORMAT}-{name}.hex", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, hex + "\n").unwrap();
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let text = text.trim();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Number in the record, documented fields, and a message with all of them that a message can have.
type Sample = (u32, &'static [(u32, u32)], Vec<u8>);

fn messages() -> [Sample; 4] {
    [
        (2, PAGE_VIEW, person().encode_to_vec()),
        (3, TALLY, tally().encode_to_vec()),
        (4, DROPPED, dropped().encode_to_vec()),
        (5, MISSING, missing().encode_to_vec()),
    ]
}

#[test]
fn an_undocumented_field_is_refused_in_every_message() {
    let bot = record_of_view(&bot());
    assert!(record::decode(&bot).is_ok());
    for number in (0..=40).chain([1000, (1 << 29) - 1]) {
        for wire_type in 0..8 {
            let extra = field(number, wire_type);
            let known = |fields: &[(u32, u32)]| fields.iter().any(|&(known, _)| known == number);
            for (message, fields, mut bytes) in messages() {
                bytes.extend(&extra);
                let refused = record::decode(&record_of(message, &bytes)).unwrap_err();
                if !known(fields) {
                    assert_eq!(refused, DecodeError::UnknownField(number), "wire type {wire_type} in {message}");
                }
            }
            let mut bytes = bot.clone();
            bytes.extend(&extra);
            let refused = record::decode(&bytes).unwrap_err();
            if !known(LOG_RECORD) {
                assert_eq!(refused, DecodeError::UnknownField(number), "wire type {wire_type} in the record");
            }
        }
    }
}

#[test]
fn a_documented_field_has_one_wire_type() {
    for (message, fields, _) in messages() {
        for &(number, right) in fields {
            for wire_type in (0..8).filter(|&wire_type| wire_type != right) {
                let refused = record::decode(&record_of(message, &field(number, wire_type))).unwrap_err();
                assert_eq!(refused, DecodeError::UnknownField(number), "wire type {wire_type} in {message}");
            }
        }
    }
    for &(number, right) in LOG_RECORD {
        for wire_type in (0..8).filter(|&wire_type| wire_type != right) {
            let refused = record::decode(&field(number, wire_type)).unwrap_err();
            assert_eq!(refused, DecodeError::UnknownField(number), "wire type {wire_type} in the record");
        }
    }
}

#[test]
fn a_field_comes_once() {
    for (view, absent) in [(person(), &[12, 17][..]), (bot(), &[14, 15])] {
        for &(number, wire_type) in PAGE_VIEW.iter().filter(|(number, _)| !absent.contains(number)) {
            let mut bytes = view.encode_to_vec();
            bytes.extend(field(number, wire_type));
            let refused = record::decode(&record_of(2, &bytes)).unwrap_err();
            assert_eq!(refused, DecodeError::RepeatedField(number));
        }
    }
    for (message, fields, bytes) in messages().into_iter().skip(1) {
        for &(number, wire_type) in fields {
            let bytes = [&bytes[..], &field(number, wire_type)].concat();
            assert_eq!(record::decode(&record_of(message, &bytes)), Err(DecodeError::RepeatedField(number)));
        }
    }
    let record = record_of_view(&person());
    for again in [1, 2] {
        let bytes = [&record[..], &field(again, if again == 1 { VARINT } else { BYTES })].concat();
        assert_eq!(record::decode(&bytes), Err(DecodeError::RepeatedField(again)));
    }
    let both = [&record[..], &record_of(3, &tally().encode_to_vec())[2..]].concat();
    assert_eq!(record::decode(&both), Err(DecodeError::RepeatedField(3)), "one body, of either kind");
}

#[test]
fn a_truncated_record_is_refused() {
    for (_, hex, _) in fixtures() {
        let bytes = unhex(hex);
        for length in 0..bytes.len() {
            assert!(record::decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        }
    }
    // The same within a body whose length is right: it may end after a field, never within one.
    let message = person().encode_to_vec();
    for length in 0..message.len() {
        let whole = proto::PageView::decode(&message[..length]).is_ok();
        let bytes = record_of(2, &message[..length]);
        let read = record::decode(&bytes);
        assert!(whole || read == Err(DecodeError::Malformed), "{length}: {read:?}");
    }
}

#[test]
fn other_formats_and_empty_records_are_refused() {
    assert_eq!(record::decode(b""), Err(DecodeError::UnknownFormat(0)));
    assert_eq!(record::decode(&[8, 1]), Err(DecodeError::NoBody));
    let body = &record_of_view(&person())[2..];
    assert_eq!(record::decode(body), Err(DecodeError::UnknownFormat(0)));
    assert_eq!(record::decode(&[&[8, 5], body].concat()), Err(DecodeError::UnknownFormat(5)));
    assert_eq!(record::decode(&[&[8][..], &[0xff; 10], body].concat()), Err(DecodeError::Malformed));
}

#[test]
fn values_outside_their_range_are_refused() {
    use DecodeError::OutOfRange;
    assert_eq!(refusal(|_| {}), None);
    for slug in ["", "Sphinx", "-a", "a-", "a/b", "é", &"a".repeat(64), &"a".repeat(256)] {
        assert_eq!(refusal(|view| view.project = slug.to_owned()), Some(OutOfRange(1)), "{slug:?}");
    }
    for hour in [0, LAST_HOUR + 1, u32::MAX] {
        assert_eq!(refusal(|view| view.hour = hour), Some(OutOfRange(2)), "{hour}");
    }
    assert_eq!(refusal(|view| view.hour = LAST_HOUR), None);
    for path in ["", "en/stable", "https://a/", &format!("/{}", "a".repeat(MAX_PATH_BYTES))] {
        assert_eq!(refusal(|view| view.path = path.to_owned()), Some(OutOfRange(3)), "{path:?}");
    }
    assert_eq!(refusal(|view| view.path = format!("/{}", "a".repeat(MAX_PATH_BYTES - 1))), None);
    for status in [0, 1, 99, 600, 65_536 + 200] {
        assert_eq!(refusal(|view| view.status = status), Some(OutOfRange(4)), "{status}");
    }
    let (longest, too_long) = ("a".repeat(MAX_LABEL_BYTES), "a".repeat(MAX_LABEL_BYTES + 1));
    assert_eq!(refusal(|view| view.version.clone_from(&longest)), None);
    assert_eq!(refusal(|view| view.version.clone_from(&too_long)), Some(OutOfRange(5)));
    assert_eq!(refusal(|view| view.language.clone_from(&too_long)), Some(OutOfRange(6)));
    assert_eq!(refusal(|view| view.referrer_host.clone_from(&too_long)), Some(OutOfRange(7)));
    for country in ["D", "de", "DEU", "D1", "É"] {
        assert_eq!(refusal(|view| view.country = country.to_owned()), Some(OutOfRange(8)), "{country}");
    }
    for class in [-1, i32::MAX] {
        assert_eq!(refusal(|view| view.device = class), Some(OutOfRange(9)));
        assert_eq!(refusal(|view| view.browser = class), Some(OutOfRange(10)));
        assert_eq!(refusal(|view| view.system = class), Some(OutOfRange(11)));
        assert_eq!(refusal(|view| view.bot_class = class), Some(OutOfRange(12)));
    }
    assert_eq!(refusal(|view| view.device = 7), Some(OutOfRange(9)));
    assert_eq!(refusal(|view| view.browser = 10), Some(OutOfRange(10)));
    assert_eq!(refusal(|view| view.system = 11), Some(OutOfRange(11)));
    assert_eq!(refusal(|view| view.bot_class = 13), Some(OutOfRange(12)));
    assert_eq!(refusal(|view| view.source = 7), Some(OutOfRange(18)));
    assert_eq!(refusal(|view| view.title.clone_from(&too_long)), Some(OutOfRange(20)));
    assert_eq!(refusal(|view| view.marks = 0x1_0000), Some(OutOfRange(21)));
    assert_eq!(refusal(|view| view.version_meant.clone_from(&too_long)), Some(OutOfRange(22)));
    // Rank 0, rank 52, register 16,384, a whole hash.
    for packed in [5 << 6, 5 << 6 | 52, 16_384 << 6 | 1, u32::MAX] {
        assert_eq!(refusal(|view| view.site_coordinate = packed), Some(OutOfRange(14)), "{packed}");
        assert_eq!(refusal(|view| view.page_coordinate = packed), Some(OutOfRange(15)), "{packed}");
    }
}

/// Prost would truncate them.
#[test]
fn values_wider_than_their_field_are_refused() {
    use DecodeError::OutOfRange;
    let without_hour = proto::PageView { hour: 0, ..person() }.encode_to_vec();
    let wide = [&without_hour[..], &[2 << 3], &varint((1 << 32) + 497_951)].concat();
    assert_eq!(record::decode(&record_of(2, &wide)), Err(OutOfRange(2)));
    let without_arrival = proto::PageView { arrival: false, ..person() }.encode_to_vec();
    for arrival in [0, 2] {
        let odd = [&without_arrival[..], &[13 << 3, arrival]].concat();
        assert_eq!(record::decode(&record_of(2, &odd)), Err(OutOfRange(13)), "{arrival}");
    }
}

#[test]
fn tallies_of_rejections_outside_their_range_are_refused() {
    use DecodeError::OutOfRange;
    let too_long = "a".repeat(MAX_LABEL_BYTES + 1);
    let refusal = |change: fn(&mut proto::RejectionTally)| {
        let mut tally = tally();
        change(&mut tally);
        record::decode(&record_of(3, &tally.encode_to_vec())).err()
    };
    assert_eq!(refusal(|_| {}), None);
    assert_eq!(refusal(|tally| tally.host.clear()), None, "the host is not known");
    assert_eq!(
        refusal(|tally| tally.project.clear()),
        Some(OutOfRange(6)),
        "the host of a beacon that named no project"
    );
    let nameless = |tally: &mut proto::RejectionTally| (tally.project, tally.host) = (String::new(), String::new());
    assert_eq!(refusal(nameless), None, "the beacon named no project");
    for host in ["a.example", "localhost:8000", "xn--bcher-kva.example"] {
        assert_eq!(refusal_with_host(host), None, "{host}");
    }
    for host in ["192.0.2.7", "192.0.2.7:80", "[2001:db8::7]", "jane@a.example", "A.example", "a b", "a/b", &too_long] {
        assert_eq!(refusal_with_host(host), Some(OutOfRange(6)), "{host}");
    }
    assert_eq!(
        refusal(|tally| tally.reason = RejectionReason::MissingField as u32),
        Some(OutOfRange(6)),
        "only where it is why"
    );
    assert_eq!(refusal(|tally| "A".clone_into(&mut tally.project)), Some(OutOfRange(1)));
    assert_eq!(refusal(|tally| tally.hour = 0), Some(OutOfRange(2)));
    assert_eq!(refusal(|tally| tally.hour = LAST_HOUR + 1), Some(OutOfRange(2)));
    assert_eq!(refusal(|tally| tally.reason = 0), Some(OutOfRange(3)));
    assert_eq!(refusal(|tally| tally.reason = 99), Some(OutOfRange(3)));
    assert_eq!(refusal(|tally| tally.count = 0), Some(OutOfRange(4)));
    assert_eq!(refusal(|tally| tally.id = 0), Some(OutOfRange(5)));
}

#[test]
fn other_tallies_have_all_their_fields_within_their_range() {
    use DecodeError::OutOfRange;
    let refusal = |change: fn(&mut proto::DroppedFacts)| {
        let mut tally = dropped();
        change(&mut tally);
        record::decode(&record_of(4, &tally.encode_to_vec())).err()
    };
    assert_eq!(refusal(|_| {}), None);
    assert_eq!(refusal(|tally| tally.project.clear()), Some(OutOfRange(1)));
    assert_eq!(refusal(|tally| "A".clone_into(&mut tally.project)), Some(OutOfRange(1)));
    assert_eq!(refusal(|tally| tally.hour = 0), Some(OutOfRange(2)));
    assert_eq!(refusal(|tally| tally.hour = LAST_HOUR + 1), Some(OutOfRange(2)));
    assert_eq!(refusal(|tally| tally.fact = 0), Some(OutOfRange(3)));
    assert_eq!(refusal(|tally| tally.fact = 10), Some(OutOfRange(3)));
    assert_eq!(refusal(|tally| tally.cause = 0), Some(OutOfRange(4)));
    assert_eq!(refusal(|tally| tally.cause = 3), Some(OutOfRange(4)));
    assert_eq!(refusal(|tally| tally.count = 0), Some(OutOfRange(5)));
    assert_eq!(refusal(|tally| tally.id = 0), Some(OutOfRange(6)));

    let refusal = |change: fn(&mut proto::ReportedMissing)| {
        let mut tally = missing();
        change(&mut tally);
        record::decode(&record_of(5, &tally.encode_to_vec())).err()
    };
    assert_eq!(refusal(|_| {}), None);
    assert_eq!(refusal(|tally| tally.project.clear()), Some(OutOfRange(1)));
    assert_eq!(refusal(|tally| tally.hour = 0), Some(OutOfRange(2)));
    assert_eq!(refusal(|tally| tally.path.clear()), Some(OutOfRange(3)));
    assert_eq!(refusal(|tally| "gone".clone_into(&mut tally.path)), Some(OutOfRange(3)));
    assert_eq!(refusal(|tally| tally.path = format!("/{}", "a".repeat(MAX_PATH_BYTES))), Some(OutOfRange(3)));
    assert_eq!(refusal(|tally| tally.count = 0), Some(OutOfRange(4)));
    assert_eq!(refusal(|tally| tally.id = 0), Some(OutOfRange(5)));
}

fn refusal_with_host(host: &str) -> Option<DecodeError> {
    let tally = proto::RejectionTally { host: host.to_owned(), ..tally() };
    record::decode(&record_of(3, &tally.encode_to_vec())).err()
}

#[test]
fn text_is_utf8() {
    for number in [1, 3, 5, 6, 7, 17, 20, 22] {
        let message = [&varint(u64::from(number << 3 | BYTES))[..], &[3, b'/', 0xff, b'a']].concat();
        assert_eq!(record::decode(&record_of(2, &message)), Err(DecodeError::NotUtf8(number)));
    }
    let message = [8 << 3 | 2, 2, 0xff, b'a'];
    assert_eq!(record::decode(&record_of(2, &message)), Err(DecodeError::OutOfRange(8)), "two letters, A to Z");
}

#[test]
fn people_have_coordinates_and_bots_have_a_name() {
    use DecodeError::OutOfRange;
    assert_eq!(refusal(|view| view.site_coordinate = 0), Some(OutOfRange(14)));
    assert_eq!(refusal(|view| view.page_coordinate = 0), Some(OutOfRange(15)));
    assert_eq!(refusal(|view| "GPTBot".clone_into(&mut view.bot)), Some(OutOfRange(17)));
    assert_eq!(refusal(|view| view.bot_class = 1), Some(OutOfRange(14)), "a bot is no visitor");
    let refused = |view| record::decode(&record_of_view(&view)).err();
    assert_eq!(refused(bot()), None);
    assert_eq!(refused(proto::PageView { bot: String::new(), ..bot() }), Some(OutOfRange(17)));
    assert_eq!(refused(proto::PageView { site_coordinate: 65, ..bot() }), Some(OutOfRange(14)));
    assert_eq!(refused(proto::PageView { page_coordinate: 65, ..bot() }), Some(OutOfRange(15)));
    // A web server's log may be too coarse for visitors; then a view has neither coordinate.
    let of_log = proto::PageView { source: proto::Source::Log as i32, ..person() };
    assert_eq!(refused(of_log.clone()), None);
    assert_eq!(refused(proto::PageView { site_coordinate: 0, page_coordinate: 0, ..of_log.clone() }), None);
    assert_eq!(refused(proto::PageView { site_coordinate: 0, ..of_log.clone() }), Some(OutOfRange(15)));
    assert_eq!(refused(proto::PageView { page_coordinate: 0, ..of_log }), Some(OutOfRange(15)));
    assert_eq!(refused(proto::PageView { source: 5, site_coordinate: 65, ..bot() }), Some(OutOfRange(14)));
}

fn slugs() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?"
}

fn coordinates() -> impl Strategy<Value = u32> {
    any::<u64>().prop_map(|hash| Coordinate::from_hash(hash).packed())
}

prop_compose! {
    fn page_views()(
        project in slugs(), hour in 1..=LAST_HOUR, path in "/\\PC{0,200}", status in 100..600u32,
    )(
        project in Just(project), hour in Just(hour), path in Just(path), status in Just(status),
        (version, language, referrer_host) in ("\\PC{0,60}", "\\PC{0,60}", "\\PC{0,60}"),
        country in "([A-Z]{2})?",
        (device, browser, system, bot_class) in (0..7i32, 0..10i32, 0..11i32, (0..12i32).prop_map(|class| if class < 2 { class } else { class + 1 })),
        (site, page) in (coordinates(), coordinates()),
        (arrival, event_id, bot) in (any::<bool>(), any::<u64>(), "\\PC{1,60}"),
        (source, rules, marks, title, version_meant) in
            (0..7i32, any::<u32>(), 0..=0xffffu32, "\\PC{0,60}", "\\PC{0,60}"),
    ) -> proto::PageView {
        let person = bot_class == 0;
        proto::PageView {
            project, hour, path, status, version, language, referrer_host, country, device, browser, system, bot_class,
            arrival, event_id, source, rules, marks, title, version_meant,
            site_coordinate: if person { site } else { 0 },
            page_coordinate: if person { page } else { 0 },
            bot: if person { String::new() } else { bot },
        }
    }
}

prop_compose! {
    fn tallies()(
        project in prop_oneof![Just(String::new()), slugs()], hour in 1..=LAST_HOUR,
        reason in prop::sample::select(RejectionReason::ALL), count in 1..=u64::MAX, id in 1..=u64::MAX,
        host in "[a-z][a-z0-9_-]{0,20}(\\.[a-z]{1,9}){0,3}(:[1-9][0-9]{0,3})?",
    ) -> proto::RejectionTally {
        let host = if project.is_empty() || !reason.is_about_host() { String::new() } else { host };
        proto::RejectionTally { project, hour, reason: reason as u32, count, id, host }
    }
}

prop_compose! {
    fn dropped_facts()(
        project in slugs(), hour in 1..=LAST_HOUR, fact in 1..10i32, cause in 1..3i32, count in 1..=u64::MAX, id in 1..=u64::MAX,
    ) -> proto::DroppedFacts {
        proto::DroppedFacts { project, hour, fact, cause, count, id }
    }
}

prop_compose! {
    fn reported_missing()(
        project in slugs(), hour in 1..=LAST_HOUR, path in "/\\PC{0,200}", count in 1..=u64::MAX, id in 1..=u64::MAX,
    ) -> proto::ReportedMissing {
        proto::ReportedMissing { project, hour, path, count, id }
    }
}

fn bodies() -> impl Strategy<Value = Body> {
    prop_oneof![
        page_views().prop_map(Body::PageView),
        tallies().prop_map(Body::Rejections),
        dropped_facts().prop_map(Body::DroppedFacts),
        reported_missing().prop_map(Body::ReportedMissing),
    ]
}

proptest! {
    #[test]
    fn what_is_written_reads_back(body in bodies()) {
        let bytes = encode(body.clone());
        let decoded = record::decode(&bytes).map(|record| body_of(&record));
        prop_assert_eq!(decoded, Ok(body));
    }

    /// Whatever an endpoint writes in format 3, aggregators of format 3 read; views from logs without visitors are not among it.
    #[test]
    fn format_3_reads_back(body in bodies()) {
        let Some(bytes) = encode_as(body, RecordFormat::V3) else { return Ok(()) };
        prop_assert_eq!(bytes[..2].to_vec(), vec![1 << 3, 3]);
        prop_assert!(record::decode(&bytes).is_ok());
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), body in 1..6u32) {
        let _ = record::decode(&bytes);
        let _ = record::decode(&record_of(body, &bytes));
    }

    /// Nearly right bytes get deeper than random ones. What passes is in the schema: it writes to bytes that read alike.
    #[test]
    fn a_damaged_record_reads_as_one_of_the_schema_or_not_at_all(
        view in page_views(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut message = view.encode_to_vec();
        let at = at.index(message.len());
        message[at] = byte;
        message.truncate(cut.index(message.len()) + 1);
        if let Ok(read) = record::decode(&record_of(2, &message)) {
            let written = encode(body_of(&read));
            prop_assert_eq!(record::decode(&written), Ok(read));
        }
    }
}
