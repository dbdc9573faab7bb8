//! Scripts in pages and caches outlive code: a beacon as the first release's script sends it is always read.

use headcount_schemas::Beacon;

#[test]
fn the_beacon_of_version_1_is_read() {
    let beacon = Beacon::from_json(include_bytes!("../fixtures/beacon/v1.json")).unwrap();
    let expected = Beacon {
        project: Some("sphinx".to_owned()),
        url: Some("https://docs.example.org/en/stable/?q=x#top".to_owned()),
        referrer: Some("https://www.python.org/".to_owned()),
        status: Some(404),
        version: Some("stable".to_owned()),
        language: Some("en".to_owned()),
        id: Some(0xfedc_ba98_7654_3210),
        ..Beacon::default()
    };
    assert_eq!(beacon, expected);
}
