//! Stories with the real engine. They need it from `HEADCOUNT_CHDB` or one of the default paths (`scripts/engine` fetches it), and the built program
//! beside the test (`cargo build`).

use std::io::pipe;
use std::os::unix::fs::PermissionsExt;
use std::process::Command as StdCommand;

use clickhouse::{Client, Row};

use super::*;

#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
struct Hour {
    project: String,
    /// Seconds since 1970.
    hour: u32,
    views: u64,
    #[serde(with = "serde_bytes")]
    sketch: Vec<u8>,
    next_offset: u64,
}

fn hour(project: &str, hour: u32, next_offset: u64, views: u64) -> Hour {
    // Bytes that are not UTF-8, like a sketch's.
    Hour { project: project.to_owned(), hour, views, sketch: vec![0xff, 0x00, 0xfe, 0x01], next_offset }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let program = test.ancestors().nth(2).expect("target/PROFILE").join("headcount");
    assert!(program.is_file(), "{} is missing: run `cargo build -p headcount` first", program.display());
    program
}

fn config(dir: &Path) -> EngineConfig {
    EngineConfig {
        library: std::env::var_os("HEADCOUNT_CHDB").map(PathBuf::from),
        executable: Some(program()),
        ..EngineConfig::new(dir.join("clickhouse"))
    }
}

async fn start(dir: &Path) -> Engine {
    match Engine::start(&config(dir)).await {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    }
}

fn client(engine: &Engine) -> Client {
    Client::default()
        .with_url(engine.url())
        .with_database("headcount")
        .with_setting("async_insert", "0")
        .with_setting("deduplicate_insert", "disable")
}

async fn create(engine: &Engine) -> Client {
    let client = client(engine);
    let database = client.clone().with_database("default");
    run(&database, "CREATE DATABASE IF NOT EXISTS headcount ENGINE = Atomic").await;
    run(
        &client,
        "CREATE TABLE IF NOT EXISTS site_hourly (project LowCardinality(String), hour DateTime('UTC'), views UInt64, \
         sketch String CODEC(ZSTD(1)), next_offset UInt64) ENGINE = ReplacingMergeTree(next_offset) \
         PARTITION BY toYYYYMM(hour) ORDER BY (project, hour)",
    )
    .await;
    client
}

async fn run(client: &Client, sql: &str) {
    client.query(sql).execute().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn one<T: clickhouse::RowOwned + clickhouse::RowRead>(client: &Client, sql: &str) -> T {
    client.query(sql).fetch_one().await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn insert(client: &Client, rows: &[Hour]) {
    let mut insert = client.insert::<Hour>("site_hourly").await.unwrap();
    for row in rows {
        insert.write(row).await.unwrap();
    }
    insert.end().await.unwrap();
}

fn kill_9(pid: u32) {
    let status = StdCommand::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -9 {pid}");
}

/// Midnight of 1 October 2026.
const OCTOBER: u32 = 1_790_812_800;

#[tokio::test]
async fn an_acknowledged_insert_outlives_kill_9_of_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = start(dir.path()).await;
    let client = create(&engine).await;
    insert(&client, &[hour("attrs", OCTOBER, 10, 3), hour("attrs", OCTOBER + 3_600, 10, 1)]).await;
    // The larger fact first, then a late smaller one: the larger must win.
    insert(&client, &[hour("attrs", OCTOBER, 30, 9)]).await;
    insert(&client, &[hour("attrs", OCTOBER, 20, 5)]).await;
    kill_9(engine.pid().expect("a child"));
    let status = timeout(Duration::from_secs(10), engine.died()).await.expect("the engine dies");
    assert!(!status.success());

    let engine = start(dir.path()).await;
    let client = self::client(&engine);
    let found: Vec<Hour> = client
        .query("SELECT ?fields FROM site_hourly FINAL PREWHERE project = {project:String} WHERE hour >= {hour:UInt32} ORDER BY hour")
        .param("project", "attrs")
        .param("hour", OCTOBER)
        .fetch_all()
        .await
        .unwrap();
    assert_eq!(found, [hour("attrs", OCTOBER, 30, 9), hour("attrs", OCTOBER + 3_600, 10, 1)]);
    let views: u64 = one(
        &client,
        "SELECT sum(v) FROM (SELECT argMax(views, next_offset) AS v FROM site_hourly GROUP BY project, hour)",
    )
    .await;
    assert_eq!(views, 10);
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn parameters_arrive_as_they_are_and_codes_have_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let client = client(&engine).with_database("default");
    let long = "/very-long".repeat(6_000);
    let texts = [
        "",
        "it's",
        r"a\b\'c\\",
        "tab\there",
        "two\r\nlines\n",
        "'; DROP TABLE x --",
        "{a:String} ? ??",
        "ü 漢 🦀",
        "\\N",
        "[]",
        "%27&x=1+2",
        &long,
    ];
    for text in texts {
        let query = client.query("SELECT {text:String}, length({text:String})").param("text", text);
        let found: (String, u64) = query.fetch_one().await.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((found.0.as_str(), found.1), (text, text.len() as u64));
    }
    let query = client.query("SELECT arrayJoin({texts:Array(String)})").param("texts", &texts[..]);
    assert_eq!(query.fetch_all::<String>().await.unwrap(), texts);
    let query = client.query("SELECT {a:UInt64}, {b:Int32}, {c:UInt16}");
    let query = query.param("a", u64::MAX).param("b", i32::MIN).param("c", u16::MAX);
    assert_eq!(query.fetch_one::<(u64, i32, u16)>().await.unwrap(), (u64::MAX, i32::MIN, u16::MAX));
    let query = client.query("SELECT arrayJoin({list:Array(UInt64)})").param("list", vec![0, u64::MAX]);
    assert_eq!(query.fetch_all::<u64>().await.unwrap(), [0, u64::MAX]);
    // As with a closed month without streams.
    let query = client.query("SELECT length({list:Array(UInt64)})").param("list", Vec::<u64>::new());
    assert_eq!(query.fetch_one::<u64>().await.unwrap(), 0);

    let listed: Vec<(u16, &str)> = storage::UNAVAILABLE.into_iter().chain(storage::DAMAGED).collect();
    let codes: Vec<u16> = listed.iter().map(|(code, _)| *code).collect();
    let query =
        client.query("SELECT toString(errorCodeToName(arrayJoin({codes:Array(UInt32)})))").param("codes", codes);
    let names = query.fetch_all::<String>().await.unwrap();
    let wrong: Vec<_> = listed.iter().zip(&names).filter(|((_, name), found)| name != found).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for (sql, kind) in [
        ("SELECT missing FROM system.one", storage::FailureKind::Bug),
        ("SELECT 1 FROM missing", storage::FailureKind::Bug),
        ("SELEC 1", storage::FailureKind::Bug),
        ("SELECT 1 + [1]", storage::FailureKind::Bug),
        ("SELECT sleep(0.2) SETTINGS max_execution_time = 0.05", storage::FailureKind::Unavailable),
        (
            "SELECT uniqExact(number) FROM numbers(1000000) SETTINGS max_memory_usage = 1000000",
            storage::FailureKind::Unavailable,
        ),
        // After rows were inserted.
        (
            "SELECT throwIf(number = 200000) FROM numbers(300000) SETTINGS max_block_size = 1000",
            storage::FailureKind::Bug,
        ),
    ] {
        let error = client.query(sql).fetch_all::<u8>().await.map(|_| ()).expect_err(sql);
        assert_eq!(storage::failure_kind(&error), kind, "{sql}: {error}");
    }
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn it_comes_back_under_its_url_once_the_port_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = start(dir.path()).await;
    let client = create(&engine).await;
    insert(&client, &[hour("attrs", OCTOBER, 10, 3)]).await;
    let (url, pid) = (engine.url().to_owned(), engine.pid());
    kill_9(pid.expect("a child"));
    let _ = engine.died().await;
    // Another program may have the port by then; it must not be taken for the engine.
    let port = engine.port().expect("a port");
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let error = engine.restart().await.unwrap_err();
    assert!(matches!(error, EngineError::PortInUse { port: taken } if taken == port), "{error}");
    drop(other);
    engine.restart().await.unwrap();
    assert!(engine.url() == url && engine.pid() != pid);
    assert_eq!(one::<u64>(&client, "SELECT sum(views) FROM site_hourly FINAL").await, 3);
    engine.kill().await.unwrap();
    assert!(running(&dir.path().join("clickhouse")).await.is_none());
}

#[tokio::test]
async fn the_engine_ends_with_the_holder_of_its_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    // The library is found as `start` would find it.
    let EngineKind::Library(library) = locate::locate(&config(dir.path())).unwrap() else {
        panic!("this story is about the library; set HEADCOUNT_CHDB")
    };
    let (reader, writer) = pipe().unwrap();
    let mut parent = StdCommand::new("sleep").arg("600").stdout(writer).spawn().unwrap();
    let port = free_port().unwrap();
    let mut engine = StdCommand::new(program())
        .arg("engine-child")
        .args(["--lib".as_ref(), library.as_os_str()])
        .args(["--data".as_ref(), dir.path().as_os_str()])
        .args(["--port", &port.to_string()])
        .stdin(reader)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + START_WAIT;
    while !ping(port, Duration::from_secs(1)).await {
        assert!(Instant::now() < deadline, "no answer; ended: {:?}", engine.try_wait());
        sleep(Duration::from_millis(50)).await;
    }
    parent.kill().unwrap(); // SIGKILL
    parent.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while engine.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "process {} is still there 10 s after its parent's death", engine.id());
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_second_engine_waits_for_the_first_and_names_it_if_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path()).await;
    let first_pid = first.pid().expect("a child");
    let error = Engine::start(&config(dir.path())).await.expect_err("the directory is taken");
    assert!(matches!(&error, EngineError::Locked { pid, .. } if *pid == first_pid.to_string()), "{error}");
    assert_eq!(running(&dir.path().join("clickhouse")).await.map(|engine| engine.pid), Some(first_pid));

    // The second one starts to wait, and takes the lock when the first one ends.
    let directory = dir.path().to_owned();
    let second = tokio::spawn(async move { start(&directory).await });
    sleep(Duration::from_millis(500)).await;
    assert!(!second.is_finished());
    first.stop().await.unwrap();
    let second = second.await.unwrap();
    assert_eq!(running(&dir.path().join("clickhouse")).await.map(|engine| engine.pid), second.pid());
    second.stop().await.unwrap();
    assert!(running(&dir.path().join("clickhouse")).await.is_none());
}

#[tokio::test]
async fn the_reason_for_a_failed_start_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let usual = config(dir.path());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = listener.local_addr().unwrap().port();
    let error = Engine::start(&EngineConfig { port: Some(taken), ..usual.clone() }).await.unwrap_err();
    assert!(matches!(error, EngineError::PortInUse { port } if port == taken), "{error}");

    let missing = Some(dir.path().join("missing.so"));
    let error = Engine::start(&EngineConfig { library: missing, ..usual.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("missing.so") && error.to_string().contains("scripts/engine"), "{error}");

    let damaged = dir.path().join("damaged.so");
    std::fs::write(&damaged, "half a download").unwrap();
    let error = Engine::start(&EngineConfig { library: Some(damaged), ..usual.clone() }).await.unwrap_err();
    assert!(matches!(error, EngineError::Library { .. }), "{error}");

    let nowhere = PathBuf::from("/proc/headcount");
    let error = Engine::start(&EngineConfig { data_dir: nowhere, ..usual.clone() }).await.unwrap_err();
    assert!(matches!(error, EngineError::NotWritable { .. }), "{error}");

    let url = Some("clickhouse.example.org:8123".to_owned());
    let error = Engine::start(&EngineConfig { clickhouse_url: url, ..usual.clone() }).await.unwrap_err();
    assert!(matches!(error, EngineError::Url { .. }), "{error}");

    std::fs::create_dir_all(&usual.data_dir).unwrap();
    std::fs::write(usual.data_dir.join("engine.version"), "99.1.1.1").unwrap();
    let error = Engine::start(&usual).await.unwrap_err();
    assert!(matches!(error, EngineError::Newer { .. }), "{error}");
}

#[tokio::test]
async fn it_keeps_no_log_of_queries_and_runs_with_our_settings() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let client = create(&engine).await;
    insert(&client, &[hour("attrs", OCTOBER, 10, 3)]).await;
    // Without log tables there is nothing to flush; this statement must not create one either.
    let _ = client.query("SYSTEM FLUSH LOGS").execute().await;
    let logs: u64 = one(
        &client,
        "SELECT count() FROM system.tables WHERE database = 'system' AND (name LIKE '%\\_log' OR engine LIKE '%MergeTree')",
    )
    .await;
    assert_eq!(logs, 0);
    let parts: u64 = one(&client, "SELECT count() FROM system.parts WHERE database != 'headcount'").await;
    assert_eq!(parts, 0);

    let server: Vec<(String, String)> = client
        .query(
            "SELECT name, value FROM system.server_settings WHERE name IN ('mark_cache_size', 'background_pool_size', \
             'max_server_memory_usage', 'uncompressed_cache_size') ORDER BY name",
        )
        .fetch_all()
        .await
        .unwrap();
    let expected = [
        ("background_pool_size", "2"),
        ("mark_cache_size", "33554432"),
        ("max_server_memory_usage", "1610612736"),
        ("uncompressed_cache_size", "0"),
    ];
    assert_eq!(server, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let fsync: u64 = one(
        &client,
        "SELECT count() FROM system.merge_tree_settings WHERE name IN ('fsync_after_insert', 'fsync_part_directory') \
         AND value = '1'",
    )
    .await;
    assert_eq!(fsync, 2);
    let limit: String = one(&client, "SELECT value FROM system.settings WHERE name = 'max_memory_usage'").await;
    assert_eq!(limit, "1073741824");
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn retention_deletes_what_is_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let client = create(&engine).await;
    let now: u32 = one(&client, "SELECT toUInt32(now())").await;
    let old = now - 800 * 86_400;
    insert(&client, &[hour("attrs", old, 10, 3), hour("attrs", now, 10, 4)]).await;
    run(&client, "ALTER TABLE site_hourly MODIFY TTL hour + INTERVAL 25 MONTH DELETE SETTINGS mutations_sync = 2")
        .await;
    run(&client, "ALTER TABLE site_hourly MATERIALIZE TTL SETTINGS mutations_sync = 2").await;
    let left: Vec<Hour> = client.query("SELECT ?fields FROM site_hourly").fetch_all().await.unwrap();
    assert_eq!(left, [hour("attrs", now, 10, 4)]);
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn only_users_who_may_read_the_directory_can_query() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path()).await;
    let origin = engine.url().rsplit_once('/').expect("a path").0.to_owned();
    for path in ["", "/", "/play", "/0123456789abcdef0123456789abcdef"] {
        let answer = greet(&format!("{origin}{path}")).await;
        assert!(answer.is_err(), "{path:?}: {answer:?}");
    }
    for file in ["engine.json", "engine.xml"] {
        let mode = dir.path().join("clickhouse").join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    engine.stop().await.unwrap();
}

#[tokio::test]
async fn signals_to_the_whole_service_do_not_end_it_before_the_last_flush() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = start(dir.path()).await;
    for signal in ["-TERM", "-INT"] {
        let pid = engine.pid().expect("a child").to_string();
        assert!(StdCommand::new("kill").args([signal, &pid]).status().unwrap().success());
    }
    let died = timeout(Duration::from_secs(2), engine.died()).await;
    assert!(died.is_err(), "{died:?}");
    greet(engine.url()).await.expect("it still answers");
    engine.stop().await.unwrap();
}

/// Figures for the documentation: `cargo test -p headcount measure -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures, decides nothing"]
async fn measure() {
    fn memory(engine: &Engine, when: &str) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid().unwrap())).unwrap();
        let line = |name: &str| {
            status.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap().to_owned()
        };
        let mib = |name: &str| line(name).parse::<u64>().unwrap() / 1024;
        println!("{when}: RssAnon {} MiB, VmRSS {} MiB, {} threads", mib("RssAnon"), mib("VmRSS"), line("Threads"));
    }
    let dir = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let began = Instant::now();
    let engine = start(dir.path()).await;
    println!("start: {:?}", began.elapsed());
    sleep(Duration::from_secs(3)).await;
    memory(&engine, "at rest");
    let client = create(&engine).await;
    let mut offset = 0;
    for (size, times) in [(1, 20), (1_000, 10), (100_000, 10)] {
        let mut took = Vec::new();
        for _ in 0..times {
            offset += 1;
            let rows: Vec<Hour> = (0..size)
                .map(|row: u32| hour(&format!("project-{}", row % 1_000), OCTOBER + row / 1_000 * 3_600, offset, 1))
                .collect();
            let began = Instant::now();
            insert(&client, &rows).await;
            took.push(began.elapsed());
        }
        took.sort();
        println!("insert of {size}: median {:?}, slowest {:?}", took[took.len() / 2], took[took.len() - 1]);
    }
    memory(&engine, "after 1M rows");
    for sql in [
        "SELECT 1",
        "SELECT sum(views) FROM site_hourly FINAL WHERE project = 'project-7'",
        "SELECT sum(v) FROM (SELECT argMax(views, next_offset) AS v FROM site_hourly WHERE project = 'project-7' GROUP BY project, hour)",
        "SELECT sum(views) FROM site_hourly FINAL",
    ] {
        let mut took = Vec::new();
        for _ in 0..10 {
            let began = Instant::now();
            let _: u64 = one(&client, &sql.replace("SELECT 1", "SELECT toUInt64(1)")).await;
            took.push(began.elapsed());
        }
        took.sort();
        println!("{sql}: median {:?}, slowest {:?}", took[5], took[9]);
    }
    memory(&engine, "after queries");
    sleep(Duration::from_secs(20)).await;
    memory(&engine, "20 s later");
    // Idle connections would delay the engine's end by 5 s.
    drop(client);
    let began = Instant::now();
    engine.stop().await.unwrap();
    println!("stop: {:?}", began.elapsed());
    let began = Instant::now();
    let engine = start(dir.path()).await;
    println!("start with data: {:?}", began.elapsed());
    sleep(Duration::from_secs(3)).await;
    memory(&engine, "at rest with data");
}
