//! Neither a response nor its duration reveals whether a private project exists.

use super::forged::{AGENT, CLOCK};
use super::form;
use anyhow::{Context, Result, ensure};
use harness::http::{Answer, Connection};
use harness::service::{Service, eventually};
use std::time::{Duration, Instant};

/// Everything that an outsider sees of a response, except the clock.
fn seen(mut answer: Answer) -> String {
    answer.headers.remove("date");
    format!("{} {:?} {:?}", answer.status, answer.headers, answer.body)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_project_and_a_foreign_host_are_one_answer() -> Result<()> {
    let rounds: u32 = form(2_000, 10_000);
    // A median of fewer requests on a busy machine is less exact.
    let most = form(0.25, 0.05);
    let arguments = ["--clock-start", CLOCK, "--client-rate", "0"];
    let mut service = Service::new(&arguments)?;
    service.start(&[]).await?;
    service.done(&["project", "add", "secret", "--host", "secret.example"]).await?;
    let mut connection = Connection::open(service.address()).await?;
    eventually("the project to be known", async || {
        let answer = Connection::open(service.address())
            .await?
            .send("POST", "/v1/pageview", &[("user-agent", AGENT)], r#"{"url":"https://secret.example/"}"#)
            .await?;
        ensure!(answer.status == 202, "{answer:?}");
        Ok(())
    })
    .await?;

    one_answer(&mut connection).await?;
    let [foreign, unknown] = times(&mut connection, rounds).await?.map(median);
    let apart = foreign.as_secs_f64() / unknown.as_secs_f64() - 1.0;
    println!("medians of {rounds}: foreign host {foreign:?}, unknown project {unknown:?}, {:+.1} %", apart * 100.0);
    ensure!(apart.abs() <= most, "foreign host {foreign:?}, unknown project {unknown:?}");

    // The project's report shows the reason and the host.
    let refused = "SELECT sum(beacons) FROM rejection_daily FINAL \
                   WHERE project = 'secret' AND reason = 'foreign_host' AND host = 'guess.example'";
    let database = service.clickhouse()?;
    let expected = u64::from(rounds) + 3;
    eventually("the reasons in the project's rows", async || {
        let found: u64 = database.query(refused).fetch_one().await.context("rows")?;
        ensure!(found == expected, "{found} of {expected}");
        Ok(())
    })
    .await
}

async fn send(connection: &mut Connection, body: &str) -> Result<Answer> {
    connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body.to_owned()).await
}

/// Status, headers and body are the same for an existing and for an unknown project.
async fn one_answer(connection: &mut Connection) -> Result<()> {
    // Whatever the other fields of the beacon are.
    let first = seen(send(connection, r#"{"project":"nobody","url":"https://guess.example/"}"#).await?);
    ensure!(first.contains("not_counted_here") && first.starts_with("404"), "{first}");
    for rest in ["", r#","referrer":"no URL""#, r#","referrer":"https://secret.example/","id":"00f1e2d3c4b5a697""#] {
        for project in ["secret", "nobody"] {
            let body = format!(r#"{{"project":"{project}","url":"https://guess.example/"{rest}}}"#);
            let answer = seen(send(connection, &body).await?);
            ensure!(answer == first, "{body}\n{answer}\n{first}");
        }
    }
    Ok(())
}

/// Duration of each response: foreign host, unknown project.
async fn times(connection: &mut Connection, rounds: u32) -> Result<[Vec<Duration>; 2]> {
    let bodies =
        ["secret", "nobody"].map(|project| format!(r#"{{"project":"{project}","url":"https://guess.example/"}}"#));
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // In turns, and each first equally often, so that a slowdown of the machine affects both.
        for turn in 0..2 {
            let kind = ((round + turn) % 2) as usize;
            let begun = Instant::now();
            let answer = send(connection, &bodies[kind]).await?;
            times[kind].push(begun.elapsed());
            ensure!(answer.status == 404, "{answer:?}");
        }
    }
    Ok(times)
}
