//! Settings from flags, file and environment; mistakes name the setting, its origin and what is expected.

use super::commands::ServeCommand;
use super::*;
use std::ffi::OsString;
use std::time::Duration;

fn parsed(arguments: &[&str]) -> anyhow::Result<CommandLine> {
    let arguments: Vec<OsString> = std::iter::once(&"t").chain(arguments).map(OsString::from).collect();
    parse(with::<AllSettings>(Command::new("t")), arguments)
}

/// The settings of `headcount serve`.
pub(super) fn load(arguments: &[&str]) -> anyhow::Result<ServeCommand> {
    let settings = take::<AllSettings>(&parsed(arguments)?.matches)?.serve;
    settings.check()?;
    Ok(settings)
}

#[test]
fn a_flag_wins_over_the_file_and_both_have_their_origin() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("headcount.toml"),
        "flush_ms = 700\nlisten = \"127.0.0.1:1\"\ntrusted_proxy = [\"10.0.0.0/8\", \"::1\"]\nclickhouse_password = \"hunter2\"\nclickhouse_url = \"http://ch:8123/?max_threads=hunter2\"\n",
    )
    .unwrap();
    let arguments = ["--data", dir.path().to_str().unwrap(), "--listen", "127.0.0.1:2"];
    let settings = load(&arguments).unwrap();
    assert_eq!(settings.listen.listen.port(), 2);
    assert_eq!(settings.aggregation.aggregate().flush_every, Duration::from_millis(700));
    let shown = describe(&parsed(&arguments).unwrap());
    assert!(shown.contains("# flag --listen") && shown.contains("headcount.toml"), "{shown}");
    assert!(shown.contains("= [\"10.0.0.0/8\", \"::1\"]"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn no_secret_is_shown() {
    let secrets = [
        ["--smtp-url", "smtps://me:hunter2@mail.example.org"],
        ["--clickhouse-password", "hunter2"],
        ["--kafka-property", "sasl.password=hunter2"],
        ["--public-url", "https://me:hunter2@stats.example.org"],
    ];
    let arguments = secrets.concat();
    let shown = describe(&parsed(&[&arguments[..], &["--mail-from", "docs@example.org"]].concat()).unwrap());
    assert!(!shown.contains("hunter2") && shown.contains("sasl.password=(not shown)"), "{shown}");
}

#[test]
fn the_empty_text_removes_a_value() {
    let operator =
        |arguments: &[&str]| load(arguments).unwrap().operator.metrics_listen.0.map(|address| address.port());
    assert_eq!(operator(&[]), Some(9017));
    assert_eq!(operator(&["--metrics-listen", ""]), None);
    assert_eq!(operator(&["--metrics-listen", "127.0.0.1:0"]), Some(0));
    let server = |arguments: &[&str]| load(arguments).unwrap().store.engine().clickhouse_url;
    assert_eq!(server(&["--clickhouse-url", "http://ch:8123"]), Some("http://ch:8123".to_owned()));
    assert_eq!(server(&["--clickhouse-url", ""]), None);
}

#[test]
fn a_command_ignores_settings_of_others() {
    let project = with::<commands::ProjectCommand>(Command::new("t"));
    let arguments = ["t", "--kafka-bootstrap", "broker:9092", "--flush-ms", "soon", "--log-retention-hours", "7"];
    let line = parse(project, arguments.map(OsString::from).into()).unwrap();
    let settings: commands::ProjectCommand = take(&line.matches).unwrap();
    assert_eq!(settings.log.log_retention_hours, 7);
    let token = with::<commands::StoreCommand>(Command::new("t"));
    let line = parse(token, ["t", "--script-path", "wrong", "--clickhouse-user", "me"].map(OsString::from).into());
    assert!(take::<commands::StoreCommand>(&line.unwrap().matches).is_ok());
    let salvage = parse(Command::new("t"), vec![OsString::from("t")]).unwrap();
    assert_eq!(salvage.origins.of("listen"), "default");
}

#[test]
fn mistakes_name_the_setting_and_its_origin() {
    for (arguments, expected) in [
        (&["--listen", "nowhere"][..], "setting `listen` is \"nowhere\" (flag --listen)"),
        (&["--metrics-listen", "9017"], "setting `metrics_listen` is \"9017\" (flag --metrics-listen)"),
        (&["--trusted-proxy", "10.0.0.0/99"], "setting `trusted_proxy`"),
        (
            &["--ignore-networks", "10.0.0.0/99"],
            "setting `ignore_networks` is \"10.0.0.0/99\" (flag --ignore-networks): expected a network such as 192.0.2.0/24",
        ),
        (&["--flush-ms", "soon"], "setting `flush_ms`"),
        (
            &["--stall-after-seconds", "0"],
            "setting `stall_after_seconds` is \"0\" (flag --stall-after-seconds): expected a number of seconds of at least 1",
        ),
        (&["--visitor-period", "year"], "setting `visitor_period`"),
        (&["--connections-per-network", "few"], "setting `connections_per_network` is \"few\""),
        (&["--report-rate", "often"], "setting `report_rate` is \"often\" (flag --report-rate)"),
        (&["--session-seconds", "0"], "setting `session_seconds`"),
        (&["--report-cache-bytes", "lots"], "setting `report_cache_bytes` is \"lots\" (flag --report-cache-bytes)"),
        (&["--report-cache-mib", "lots"], "setting `report_cache_mib` is \"lots\" (flag --report-cache-mib)"),
        (
            &["--report-fresh-seconds", "86401"],
            "setting `report_fresh_seconds` is \"86401\" (flag --report-fresh-seconds): expected a number of seconds from 0 to 86400",
        ),
        (&["--record-format", "2"], "setting `record_format` is \"2\" (flag --record-format): expected 3 or 4"),
        (&["--record-format", "new"], "setting `record_format`"),
        (
            &["--script-path", "a.js"],
            "setting `script_path` is \"a.js\" (flag --script-path): expected a path that begins with /",
        ),
        (&["--script-path", "/a b"], "setting `script_path` is \"/a b\" (flag --script-path): expected segments of"),
        (
            &["--beacon-path", "/projects/x"],
            "setting `beacon_path` is \"/projects/x\" (flag --beacon-path): expected a path that no other",
        ),
        (
            &["--beacon-path", "/page.js"],
            "settings `script_path` (default) and `beacon_path` (flag --beacon-path): the script and the beacons would share the path /page.js",
        ),
        (&["--host-pattern", "docs.example.org"], "setting `host_pattern`"),
        // Its value may be a password.
        (&["--kafka-property", "ssl"], "setting `kafka_property` (flag --kafka-property): expected NAME=VALUE"),
        (&["--kafka-property", "acks=1"], "headcount sets `acks` itself"),
        (&["--kafka-group-protocol", "eager"], "setting `kafka_group_protocol`"),
        (&["--kafka-times", "now"], "setting `kafka_times`"),
        (&["--kafka-topic", "page views"], "setting `kafka_topic`"),
        (&["--kafka-partitions", "0"], "setting `kafka_partitions`"),
        (&["--spill-bytes", "lots"], "setting `spill_bytes`"),
        (
            &["--journal-bytes", "1000"],
            "setting `journal_bytes` is \"1000\" (flag --journal-bytes): expected a number of bytes of at least 1048576",
        ),
        (&["--new-projects-per-network", "few"], "setting `new_projects_per_network` is \"few\""),
        (&["--paths-per-network", "some"], "setting `paths_per_network` is \"some\""),
        (&["--agents-per-network", "many"], "setting `agents_per_network` is \"many\""),
        (&["--config", "/nonexistent/headcount.toml"], "cannot read the settings"),
        (
            &["--country-header", "x country"],
            "setting `country_header` is \"x country\" (flag --country-header): expected the name",
        ),
        // It may contain a password.
        (&["--public-url", "nonsense"], "setting `public_url` (flag --public-url): expected a URL such as"),
    ] {
        let error = load(arguments).err().expect("refused");
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_error_of_the_file_repeats_no_line_of_it() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("headcount.toml");
    std::fs::write(&file, "log = \"info\"\nclickhouse_password = \"hunter2\n").unwrap();
    let error = load(&["--config", file.to_str().unwrap()]).err().expect("refused");
    let error = format!("{error:#}");
    assert!(error.contains("line 2, column") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_list_in_the_file_for_a_single_value_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("headcount.toml"), "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n").unwrap();
    let error = parsed(&["--data", dir.path().to_str().unwrap()]).err().expect("refused").to_string();
    assert!(error.ends_with("setting `listen`: expected one value, not a list"), "{error}");
}
