//! An operator's story: a failed start reports its cause and advice, and a stopped service continues where it was.

#[path = "operator/commands.rs"]
mod commands;
#[path = "operator/health.rs"]
mod health;
#[path = "operator/import.rs"]
mod import;
#[path = "operator/imports.rs"]
mod imports;

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, binary};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// Runs a command that must fail, and returns its message.
async fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
    let child = Command::new(binary()?)
        .args(arguments)
        .env("HEADCOUNT_METRICS_LISTEN", "127.0.0.1:0")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output: Output = tokio::time::timeout(harness::service::PATIENCE, child.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "{arguments:?} succeeded: {said}");
    Ok(said)
}

/// Arguments, variables, and parts of the message.
type Refused<'a> = (Vec<&'a str>, Vec<(&'a str, &'a str)>, &'a [&'a str]);

async fn refused_with(cases: &[Refused<'_>]) -> Result<()> {
    for (arguments, environment, expected) in cases {
        let said = refused(arguments, environment).await?;
        for part in *expected {
            ensure!(said.contains(part), "{arguments:?}: expected {part:?} in:\n{said}");
        }
    }
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_start_says_why_and_what_to_do() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example.org")]).await?;
    let taken = service.address().to_string();
    let fresh = tempfile::tempdir()?;
    let path = |name: &str| fresh.path().join(name);
    let (data, file, newer) = (path("data"), path("file"), path("newer"));
    std::fs::write(&file, "")?;
    std::fs::create_dir(&newer)?;
    std::fs::write(newer.join("version"), "99\n")?;
    let exposed = path("exposed");
    std::fs::create_dir_all(exposed.join("keys"))?;
    std::fs::write(exposed.join("keys/visitor.key"), "{}")?;
    let settings = path("settings.toml");
    std::fs::write(&settings, "listne = \"127.0.0.1:1\"\n")?;

    let running = service.data();
    let starts: [Refused<'_>; 6] = [
        (
            vec!["serve", "--data", text(&data), "--listen", &taken],
            vec![],
            &["cannot listen on", &taken, "another program has this port", "--listen"][..],
        ),
        (
            vec!["serve", "--data", text(&running), "--listen", "127.0.0.1:0"],
            vec![],
            &["another headcount runs on the data directory", "--data"],
        ),
        (
            vec!["serve", "--data", text(&newer), "--listen", "127.0.0.1:0"],
            vec![],
            &["has version \"99\"", "newer headcount"],
        ),
        (
            vec!["serve", "--data", text(&file), "--listen", "127.0.0.1:0"],
            vec![],
            &["cannot create the data directory", "--data"],
        ),
        (
            vec!["serve", "--data", text(&exposed), "--listen", "127.0.0.1:0"],
            vec![],
            &["may be read by others", "chmod 600"],
        ),
        (
            vec!["serve", "--data", text(&data), "--listen", "127.0.0.1:0"],
            vec![("HEADCOUNT_CLICKHOUSE_LIBRARY", "/nonexistent/libchdb.so")],
            &["/nonexistent/libchdb.so", "scripts/engine"],
        ),
    ];
    let commands: [Refused<'_>; 6] = [
        (vec!["serve", "--config", text(&settings)], vec![], &["there is no setting `listne`", "headcount config"]),
        (
            vec!["config"],
            vec![("HEADCOUNT_LISTEN", "everywhere")],
            &["setting `listen` is \"everywhere\" (environment HEADCOUNT_LISTEN)", "expected a listen address"],
        ),
        (
            vec!["project", "add", "Not A Slug", "--host", "docs.example.org", "--data", text(&running)],
            vec![],
            &["\"Not A Slug\" cannot be a project", "expected a project slug"],
        ),
        (
            vec!["project", "add", "docs", "--host", "https://docs.example.org/", "--data", text(&running)],
            vec![],
            &["cannot be a host", "without scheme or path"],
        ),
        (vec!["project", "list", "--data", text(&data)], vec![], &["no headcount runs on", "headcount serve --data"]),
        (vec!["project", "remove", "nobody", "--data", text(&running)], vec![], &["there is no project nobody"]),
    ];
    refused_with(&starts).await?;
    refused_with(&commands).await?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_comes_and_goes_and_its_figures_stay() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example.org")]).await?;
    let month = schemas::Hour::of(chrono::Utc::now()).month();
    let send = async |address, expected: u16| -> Result<()> {
        let mut connection = Connection::open(address).await?;
        let body = r#"{"url":"https://docs.example.org/a.html"}"#;
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
        ensure!(answer.status.as_u16() == expected, "{}: {:?}", answer.status, answer.body);
        Ok(())
    };
    send(service.address(), 202).await?;
    // A stop does not lose beacons that were acknowledged right before it.
    service.stop().await?;
    service.start(&[]).await?;
    service.counted("docs", &month.to_string(), 1).await?;

    let removed =
        Command::new(binary()?).args(["project", "remove", "docs", "--data", text(&service.data())]).output().await?;
    ensure!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    harness::service::eventually("the removal to take effect", async || send(service.address(), 404).await).await?;
    service.counted("docs", &month.to_string(), 1 + month_extra(&service).await?).await?;
    service.stop().await
}

/// Views that were accepted between the removal and its effect, by the ledger.
async fn month_extra(service: &Service) -> Result<u64> {
    let client = service.clickhouse()?;
    harness::service::eventually("everything acknowledged to be counted", async || {
        let sums = client.query("SELECT sum(accepted), sum(seen) FROM ledger FINAL");
        let (accepted, seen) = sums.fetch_one::<(u64, u64)>().await?;
        // The refusal that ended the wait is in the log as a tally, after every view.
        ensure!(seen > accepted, "{accepted} of {seen}");
        Ok(accepted - 1)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_beacons_and_loses_none() -> Result<()> {
    let arguments = ["--client-rate", "0"];
    let mut service = Service::started(&arguments, &[("docs", "docs.example.org")]).await?;
    let month = schemas::Hour::of(chrono::Utc::now()).month().to_string();
    service.limit_files(Some(400_000)).await?;
    let mut connection = Connection::open(service.address()).await?;
    let mut send = async |number: u64| -> Result<u16> {
        let body = format!(r#"{{"url":"https://docs.example.org/{}.html","id":"{number:016x}"}}"#, number % 50);
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
        if answer.status == 503 {
            ensure!(answer.headers.contains_key("retry-after"), "a 503 says when to come back");
            ensure!(answer.json()?["error"]["reason"] == "log_unavailable", "{:?}", answer.body);
        }
        Ok(answer.status.as_u16())
    };
    let mut refused = 0;
    for number in 1..=20_000 {
        match send(number).await? {
            202 => {}
            503 => {
                refused = number;
                break;
            }
            other => anyhow::bail!("{other}"),
        }
    }
    ensure!(refused > 1, "the limit bit: first refusal at {refused}");
    // The service reports that it is not ready, and stays alive: reading the journal continues.
    harness::service::eventually("the service to say that it cannot write", async || {
        let ready = harness::http::get(service.address(), "/readyz").await?;
        ensure!(ready.status == 503, "{}", ready.status);
        Ok(())
    })
    .await?;
    service.limit_files(None).await?;
    harness::service::eventually("the service to be ready again, without a beacon having come", async || {
        let ready = harness::http::get(service.address(), "/readyz").await?;
        ensure!(ready.status == 200, "{}", ready.status);
        Ok(())
    })
    .await?;
    // The refused beacon is sent again with its id; whether or not it had reached the disk, it counts once.
    for number in refused..refused + 10 {
        ensure!(send(number).await? == 202, "{number}\n{}", service.log());
    }
    service.counted("docs", &month, refused + 9).await?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_pattern_admitted_outlive_a_kill() -> Result<()> {
    let arguments = ["--host-pattern", "{project}.docs.example.org", "--new-projects-per-hour", "2"];
    let mut service = Service::started(&arguments, &[]).await?;
    let month = schemas::Hour::of(chrono::Utc::now()).month().to_string();
    let send = async |address, project: &str, named: &str| -> Result<u16> {
        let mut connection = Connection::open(address).await?;
        let body = format!(r#"{{"url":"https://{project}.docs.example.org/a.html","project":"{named}"}}"#);
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
        Ok(answer.status.as_u16())
    };
    let address = service.address();
    ensure!(send(address, "spent", "No Slug").await? == 400, "a beacon that is refused spends no name");
    ensure!(send(address, "first", "").await? == 202 && send(address, "second", "").await? == 202);
    ensure!(send(address, "third", "").await? == 404, "the hour's names are used up");
    // An unregistered project has a report, which an administrator may read.
    service.read_as_admin().await?;
    service.counted("first", &month, 1).await?;
    service.counted("second", &month, 1).await?;
    harness::service::eventually("the admitted names to be on disk", async || {
        let names = std::fs::read_to_string(service.data().join("admitted.json"))?;
        ensure!(names.contains("first") && names.contains("second"), "{names}");
        Ok(())
    })
    .await?;
    service.kill().await?;
    service.start(&[]).await?;
    ensure!(send(address, "stranger", "").await? == 202 && send(address, "another", "").await? == 202);
    ensure!(send(address, "second", "").await? == 202, "strangers do not push out who was there before");
    service.stop().await
}

/// Of a process, by its `stat`: the 17th field after its name.
fn niceness(stat: &str) -> Result<i32> {
    let stat = std::fs::read_to_string(stat)?;
    let field = stat.rsplit(')').next().and_then(|fields| fields.split_whitespace().nth(16));
    Ok(field.context("no niceness")?.parse()?)
}

/// The child process of the process `of`.
fn child_of(of: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"))?;
    Ok(children.split_whitespace().next().context("no child yet")?.parse()?)
}

/// A process that works off a backlog yields to report users. If the kernel first divides processor time between sessions, the aggregator's session
/// yields, provided that it is the session's leader, as in a service. A terminal's session does not yield, nor does one through which a container was
/// entered.
#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_lets_others_go_first() -> Result<()> {
    let nowhere = harness::process::free_address()?;
    let (bootstrap, clickhouse) = (nowhere.to_string(), format!("http://{nowhere}"));
    let arguments = ["aggregate", "--kafka-bootstrap", &bootstrap, "--clickhouse-url", &clickhouse, "--metrics-listen"];
    let binary = binary()?;
    let (own, foreign) =
        (["setsid"].as_slice(), ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"].as_slice());
    // A namespace of process ids needs rights that not every user has.
    let may_enter = Command::new(foreign[0]).args(&foreign[1..]).arg("true").status().await?.success();
    if !may_enter {
        println!("not tried in a container of its own: unshare may not");
    }
    let session_of = |id: u32| std::fs::read_to_string(format!("/proc/{id}/autogroup"));
    for through in [&[][..], own, foreign].into_iter().take(if may_enter { 3 } else { 2 }) {
        // A kernel without autogroups has none.
        let ours = session_of(std::process::id()).ok();
        let words = through.iter().map(AsRef::as_ref).chain([binary.as_os_str()]).collect::<Vec<&OsStr>>();
        let listen = harness::process::free_address()?.to_string();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).arg(listen).kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let id = child.id().context("it has ended")?;
        let id = harness::service::eventually("the aggregator to yield", async || {
            let id = if through == foreign { child_of(id)? } else { id };
            let (its, ours) = (niceness(&format!("/proc/{id}/stat"))?, niceness("/proc/self/stat")?);
            ensure!(its == (ours + 15).min(19), "{through:?}: its niceness is {its}, ours {ours}");
            if through == own
                && let Ok(session) = session_of(id)
            {
                ensure!(session.ends_with("nice 15\n"), "{through:?}: its session is {session}");
            }
            Ok(id)
        })
        .await?;
        // The session's priority is set after the niceness. The search for partitions takes longer than this; a process that ended has failed, not
        // yielded.
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(child.try_wait()?.is_none(), "{through:?}: it has ended");
        if through != own {
            let session = session_of(id).ok();
            ensure!(session == ours, "{through:?}: its session is {session:?}, ours was {ours:?}");
        }
        child.kill().await?;
    }
    Ok(())
}
