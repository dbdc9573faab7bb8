//! The closed schema: a log record carries the documented fields and nothing else, whoever wrote it.

use headcount_schemas::record::{self, DecodeError, FORMAT, MAX_LABEL_BYTES, MAX_PATH_BYTES, Record};
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
const LOG_RECORD: &[(u32, u32)] = &[(1, VARINT), (2, BYTES), (3, BYTES)];
const TALLY: &[(u32, u32)] = &[(1, BYTES), (2, VARINT), (3, VARINT), (4, VARINT), (5, FIXED64), (6, BYTES)];
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
    }
}

fn bot() -> proto::PageView {
    proto::PageView {
        bot_class: proto::BotClass::AiCrawler as i32,
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
        }),
        Record::Rejections(tally) => Body::Rejections(proto::RejectionTally {
            project: tally.project.to_owned(),
            hour: tally.hour.0,
            reason: tally.reason as u32,
            count: tally.count,
            id: tally.id,
            host: tally.host.to_owned(),
        }),
    }
}

fn encode(body: Body) -> Vec<u8> {
    match body {
        Body::PageView(view) => record::encode_page_view(view),
        Body::Rejections(tally) => record::encode_rejections(tally),
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
    for (name, hex, body) in [
        ("person of format 1", include_str!("../fixtures/record/v1-person.hex"), Body::PageView(person())),
        ("bot of format 1", include_str!("../fixtures/record/v1-bot.hex"), Body::PageView(bot())),
        ("tally of format 1", include_str!("../fixtures/record/v1-tally.hex"), Body::Rejections(nameless)),
        ("person of format 2", include_str!("../fixtures/record/v2-person.hex"), Body::PageView(person())),
        ("bot of format 2", include_str!("../fixtures/record/v2-bot.hex"), Body::PageView(bot())),
        ("tally of format 2", include_str!("../fixtures/record/v2-tally.hex"), Body::Rejections(hostless.clone())),
    ] {
        let bytes = unhex(hex);
        let decoded = record::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(body_of(&decoded), body, "{name}");
    }
    let mut with_host = encode(Body::Rejections(tally()));
    assert_eq!(with_host[1], 3, "the format");
    with_host[1] = 2;
    assert_eq!(record::decode(&with_host), Err(DecodeError::UnknownField(6)), "format 2 has no hosts");
    let mut with_id = encode(Body::Rejections(hostless));
    with_id[1] = 1;
    assert_eq!(record::decode(&with_id), Err(DecodeError::UnknownField(5)), "format 1 has no ids");
}

fn fixtures() -> [(&'static str, &'static str, Body); 3] {
    [
        ("person", include_str!("../fixtures/record/v3-person.hex"), Body::PageView(person())),
        ("bot", include_str!("../fixtures/record/v3-bot.hex"), Body::PageView(bot())),
        ("tally", include_str!("../fixtures/record/v3-tally.hex"), Body::Rejections(tally())),
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

#[test]
fn an_undocumented_field_is_refused_in_every_message() {
    let bot = record_of_view(&bot());
    assert!(record::decode(&bot).is_ok());
    for number in (0..=40).chain([1000, (1 << 29) - 1]) {
        for wire_type in 0..8 {
            let extra = field(number, wire_type);
            let known = |fields: &[(u32, u32)]| fields.iter().any(|&(known, _)| known == number);
            for (message, fields) in [(2, PAGE_VIEW), (3, TALLY)] {
                let mut bytes = if message == 2 { person().encode_to_vec() } else { tally().encode_to_vec() };
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
    for (message, fields) in [(2, PAGE_VIEW), (3, TALLY)] {
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
    for &(number, wire_type) in TALLY {
        let mut bytes = tally().encode_to_vec();
        bytes.extend(field(number, wire_type));
        assert_eq!(record::decode(&record_of(3, &bytes)), Err(DecodeError::RepeatedField(number)));
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
fn a_record_cut_short_is_refused() {
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
    assert_eq!(record::decode(&[&[8, 4], body].concat()), Err(DecodeError::UnknownFormat(4)));
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
    assert_eq!(refusal(|view| view.device = 5), Some(OutOfRange(9)));
    assert_eq!(refusal(|view| view.browser = 8), Some(OutOfRange(10)));
    assert_eq!(refusal(|view| view.system = 8), Some(OutOfRange(11)));
    assert_eq!(refusal(|view| view.bot_class = 7), Some(OutOfRange(12)));
    // Rank 0, rank 52, register 16,384, a whole hash.
    for packed in [5 << 6, 5 << 6 | 52, 16_384 << 6 | 1, u32::MAX] {
        assert_eq!(refusal(|view| view.site_coordinate = packed), Some(OutOfRange(14)), "{packed}");
        assert_eq!(refusal(|view| view.page_coordinate = packed), Some(OutOfRange(15)), "{packed}");
    }
    // Values wider than the field's type, which prost would cut off.
    let without_hour = proto::PageView { hour: 0, ..person() }.encode_to_vec();
    let wide = [&without_hour[..], &[2 << 3], &varint((1 << 32) + 497_951)].concat();
    assert_eq!(record::decode(&record_of(2, &wide)), Err(OutOfRange(2)));
    let without_arrival = proto::PageView { arrival: false, ..person() }.encode_to_vec();
    for arrival in [0, 2] {
        let odd = [&without_arrival[..], &[13 << 3, arrival]].concat();
        assert_eq!(record::decode(&record_of(2, &odd)), Err(OutOfRange(13)), "{arrival}");
    }

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

fn refusal_with_host(host: &str) -> Option<DecodeError> {
    let tally = proto::RejectionTally { host: host.to_owned(), ..tally() };
    record::decode(&record_of(3, &tally.encode_to_vec())).err()
}

#[test]
fn text_is_utf8() {
    for number in [1, 3, 5, 6, 7, 17] {
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
        (device, browser, system, bot_class) in (0..5i32, 0..8i32, 0..8i32, 0..7i32),
        (site, page) in (coordinates(), coordinates()),
        (arrival, event_id, bot) in (any::<bool>(), any::<u64>(), "\\PC{1,60}"),
    ) -> proto::PageView {
        let person = bot_class == 0;
        proto::PageView {
            project, hour, path, status, version, language, referrer_host, country, device, browser, system, bot_class,
            arrival, event_id,
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

proptest! {
    #[test]
    fn what_is_written_reads_back(
        body in prop_oneof![page_views().prop_map(Body::PageView), tallies().prop_map(Body::Rejections)],
    ) {
        let bytes = encode(body.clone());
        let decoded = record::decode(&bytes).map(|record| body_of(&record));
        prop_assert_eq!(decoded, Ok(body));
    }

    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), body in 1..4u32) {
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
