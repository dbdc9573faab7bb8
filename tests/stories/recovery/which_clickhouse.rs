//! A `clickhouse_url` that does not lead to one ClickHouse server: no figure of another server is served, and the cause is reported.

use crate::{MONTH, PROJECT, START, at, send};
use anyhow::{Context, Result, ensure};
use harness::clickhouse::Engine;
use harness::http::{self, Connection};
use harness::process::{Process, free_port};
use harness::proxy::Proxy;
use harness::roles::{Deployment, Role};
use harness::service::{Service, eventually};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

const CAUSE: &str = "does not lead to one ClickHouse server";
/// Time limit for the refusal.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A service over the ClickHouse at `url`, which its commands use too.
fn service_over(url: &str) -> Result<Service> {
    let service = Service::new(&[])?;
    std::fs::create_dir_all(service.data())?;
    std::fs::write(service.data().join("headcount.toml"), format!("clickhouse_url = \"{url}\"\n"))?;
    Ok(service)
}

/// Two servers with a database each, of 30 and of 50 views.
async fn two_servers() -> Result<[Engine; 2]> {
    let first = Engine::start().await?;
    let second = Engine::start_beside(&first).await?;
    for (engine, views) in [(&first, 30), (&second, 50)] {
        let mut service = service_over(&engine.url()?)?;
        service.start(&at(START)).await?;
        service.register(&PROJECT).await?;
        send(&service, "docs", views).await?;
        service.counted("docs", MONTH, views).await?;
        service.stop().await?;
    }
    Ok([first, second])
}

/// Roles over the ClickHouse at `url`; Kafka is unreachable.
fn roles_over(url: &str) -> Result<Deployment> {
    let mut deployment = Deployment::new("127.0.0.1:1", url)?;
    "headcount".clone_into(&mut deployment.database);
    Ok(deployment)
}

fn was_refused(log: &str, status: ExitStatus, took: Duration, cause: &str) -> Result<()> {
    ensure!(!status.success() && log.contains(cause), "{status}\n{log}");
    println!("refused after {took:?}");
    // A machine that is busy with other tests is slower.
    let is_long = std::env::var("HEADCOUNT_FAULTS").is_ok_and(|form| form == "long");
    ensure!(took < REFUSED_WITHIN || !is_long, "{took:?}\n{log}");
    Ok(())
}

async fn refused_at_start(role: &mut Role, cause: &str) -> Result<()> {
    let since = Instant::now();
    role.process.spawn(&[])?;
    let status = role.process.ended().await?;
    was_refused(&role.process.log(), status, since.elapsed(), cause)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_over_two_servers_gives_no_wrong_answer() -> Result<()> {
    let [mut first, mut second] = two_servers().await?;
    let proxy = Proxy::start(loopback(first.port()), None).await?;
    let deployment = roles_over(&first.url_at(proxy.address().port())?)?;
    let mut query = deployment.query("query", &["--report-cache-mib", "0"])?;
    query.start(&[]).await?;
    harness::roles::opened(query.address, "docs").await?;

    let (mut right, mut refused) = (0, 0);
    let (mut since, mut ended) = (None, None);
    for question in 0..1000 {
        if question == 300 {
            since = Some(Instant::now());
            proxy.alternate(loopback(second.port()));
        }
        let answer = http::get(query.address, &format!("/v1/projects/docs/reports/{MONTH}")).await;
        match answer {
            Ok(answer) if answer.status == 200 => {
                let report = answer.json()?;
                ensure!(report["totals"]["views"] == 30, "question {question}: {}", report["totals"]);
                right += 1;
            }
            _ => {
                refused += 1;
                if let (None, Some(since)) = (&ended, since) {
                    ended = query.process.try_ended()?.map(|status| (status, since.elapsed()));
                }
            }
        }
    }
    println!("1,000 questions: {right} right answers, {refused} refused, 0 wrong");
    ensure!(right >= 300, "{right} answers before there was a second server\n{}", query.process.log());
    let since = since.context("asked")?;
    let (status, took) = match ended {
        Some(ended) => ended,
        None => (query.process.ended().await?, since.elapsed()),
    };
    was_refused(&query.process.log(), status, took, CAUSE)?;

    // At the start of every role and command.
    refused_at_start(&mut deployment.query("query-2", &[])?, CAUSE).await?;
    refused_at_start(&mut deployment.aggregate("aggregate", &[])?, CAUSE).await?;
    for command in [&["project", "list"][..], &["report", "docs"], &["close"]] {
        let output = deployment.run(command).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(CAUSE), "{command:?}: {}\n{said}", output.status);
    }
    first.stop().await?;
    second.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_to_no_other_server() -> Result<()> {
    let [mut first, mut second] = two_servers().await?;
    let proxy = Proxy::start(loopback(first.port()), None).await?;
    let mut service = service_over(&first.url_at(proxy.address().port())?)?;
    service.start(&at(START)).await?;
    service.opened("docs").await?;
    let since = Instant::now();
    proxy.alternate(loopback(second.port()));
    let mut sent = 0;
    while send(&service, "docs", 1).await.is_ok() {
        sent += 1;
    }
    ensure!(sent > 0, "no beacon was accepted\n{}", service.log());
    service.ended_with_an_error(CAUSE).await?;
    println!("{sent} views were sent, refused after {:?}", since.elapsed());
    let client = clickhouse::Client::default().with_url(second.url()?).with_database("headcount");
    let views: u64 = client.query("SELECT sum(views) FROM site_hourly FINAL").fetch_one().await?;
    ensure!(views == 50, "{views} views on the second server");

    // The journal's records are counted once the URL leads to one server.
    std::fs::write(service.data().join("headcount.toml"), format!("clickhouse_url = \"{}\"\n", first.url()?))?;
    service.start(&at(START)).await?;
    service.counted("docs", MONTH, 30 + sent).await?;
    service.stop().await?;
    first.stop().await?;
    second.stop().await
}

/// A balancer that distributes requests, not connections.
#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_of_requests_is_refused_at_the_start() -> Result<()> {
    let [mut first, mut second] = two_servers().await?;
    let (directory, port) = (tempfile::tempdir()?, free_port()?);
    let path = directory.path().display();
    let config = format!(
        "daemon off; worker_processes 1; pid {path}/pid; error_log stderr;\nevents {{}}\nhttp {{\n access_log off;\n \
         client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; \
         scgi_temp_path {path}/s;\n upstream both {{ server 127.0.0.1:{}; server 127.0.0.1:{}; }}\n \
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://both; }} }}\n}}\n",
        first.port(),
        second.port()
    );
    let file = directory.path().join("nginx.conf");
    std::fs::write(&file, config)?;
    let arguments = ["-c", &file.display().to_string(), "-p", &path.to_string()].map(str::to_owned).to_vec();
    let mut nginx = Process::new("nginx", Path::new("nginx"), arguments, directory.path().join("log"));
    nginx.spawn(&[])?;
    nginx.wait_until("nginx to listen", async || Connection::open(loopback(port)).await.map(drop)).await?;

    let deployment = roles_over(&first.url_at(port)?)?;
    refused_at_start(&mut deployment.query("query", &[])?, CAUSE).await?;
    refused_at_start(&mut deployment.aggregate("aggregate", &[])?, CAUSE).await?;
    nginx.stop().await?;
    first.stop().await?;
    second.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_other_servers_are_refused() -> Result<()> {
    let mut engine = Engine::start().await?;
    let client = clickhouse::Client::default().with_url(engine.url()?);
    client.query("CREATE DATABASE headcount ENGINE = Atomic").execute().await?;
    // A table of the engine Distributed needs a cluster, which the library has not; this one reads from servers, too.
    let sql = "CREATE TABLE headcount.site_hourly AS remote('127.0.0.1', system.one)";
    client.query(sql).execute().await?;
    let deployment = roles_over(&engine.url()?)?;
    let cause = "the table headcount.site_hourly has the engine Proxy, which headcount does not support";
    refused_at_start(&mut deployment.query("query", &[])?, cause).await?;
    refused_at_start(&mut deployment.aggregate("aggregate", &[])?, cause).await?;
    engine.stop().await
}

/// A server that is unavailable at the start does not prevent beacons from being accepted, and does not hide that the journal is an older copy.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_journal_beside_a_server_is_refused() -> Result<()> {
    let mut engine = Engine::start().await?;
    let aside = tempfile::tempdir()?;
    let aside = aside.path().join("journal.redb");
    let mut service = service_over(&engine.url()?)?;
    service.start(&at(START)).await?;
    service.register(&PROJECT).await?;
    send(&service, "docs", 20).await?;
    service.counted("docs", MONTH, 20).await?;
    service.stop().await?;
    let journal = service.data().join("journal.redb");
    std::fs::copy(&journal, &aside)?;
    service.start(&at(START)).await?;
    send(&service, "docs", 2).await?;
    service.counted("docs", MONTH, 22).await?;
    service.stop().await?;

    engine.stop().await?;
    let newer = journal.with_extension("newer");
    std::fs::rename(&journal, &newer)?;
    std::fs::copy(&aside, &journal)?;
    service.spawn(&at(START))?;
    eventually("beacons to be accepted", async || send(&service, "docs", 5).await).await?;
    // More records than ClickHouse has counted: judged by its end, the journal seems current.
    service.kill().await?;
    service.spawn(&at(START))?;
    eventually("beacons to be accepted", async || send(&service, "docs", 1).await).await?;
    engine.launch().await?;
    let message = "has counted up to offset 22 of this log, but the log ends at 20";
    service.ended_with_an_error(message).await?;
    let log = service.refused(&at(START)).await?;
    ensure!(log.contains(message), "{log}");

    std::fs::rename(&newer, &journal)?;
    service.start(&at(START)).await?;
    service.counted("docs", MONTH, 22).await?;
    service.stop().await?;
    engine.stop().await
}
