//! Statement 15: while the key is secret, a number of forged beacons raises an estimate by about that number, and a forger cannot choose a register
//! or rank.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, eventually};

const MONTH: &str = "2026-01";

#[tokio::test(flavor = "multi_thread")]
async fn forged_beacons_count_as_what_they_are() -> Result<()> {
    let arguments = ["--clock-start", "2026-01-15T10:00:00Z", "--trusted-proxy", "127.0.0.1"];
    let projects = [("docs", "docs.example"), ("forged", "forged.example"), ("alone", "alone.example")];
    let service = Service::started(&[&arguments[..], &["--client-rate", "0"]].concat(), &projects).await?;
    let mut connection = Connection::open(service.address()).await?;
    // A forger with many IP addresses and agents forges many visitors, one each.
    let forged = 1_500u32;
    for number in 0..forged {
        let agent = format!("Mozilla/5.0 (X11; Linux x86_64; rv:{number}.0) Gecko/20100101 Firefox/{number}.0");
        let from = format!("198.51.{}.{}", number / 250, number % 250);
        let headers = [("user-agent", agent.as_str()), ("x-forwarded-for", from.as_str())];
        // A client may send any coordinates: they are ignored.
        let body = format!(
            r#"{{"project":"forged","url":"https://forged.example/","site_coordinate":{},"register":7,"rank":51}}"#,
            (number << 6) | 51
        );
        let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
        ensure!(matches!(answer.status.as_u16(), 202 | 400 | 422), "{}", String::from_utf8_lossy(&answer.body));
        if answer.status != 202 {
            let body = r#"{"project":"forged","url":"https://forged.example/"}"#;
            let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
            ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
        }
    }
    let report = service.counted("forged", MONTH, u64::from(forged)).await?;
    let visitors = &report["totals"]["visitors"];
    let (estimate, error) =
        (visitors["estimate"].as_f64().context("estimate")?, visitors["error"].as_f64().context("error")?);
    println!("15: {forged} forged visitors, estimated {estimate} ± {:.0}", estimate * error);
    // Five deviations: the service's key differs in each run, and chance exceeds that once in two million runs.
    ensure!((estimate - f64::from(forged)).abs() <= 5.0 * error * f64::from(forged), "{visitors}");
    one_network(&service, &mut connection).await?;
    // A forger with one IP address and one agent is one visitor, however many beacons it sends.
    for _ in 0..300 {
        let headers = [
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            ("x-forwarded-for", "203.0.113.9"),
        ];
        let body = r#"{"project":"docs","url":"https://docs.example/"}"#;
        ensure!(connection.send("POST", "/v1/pageview", &headers, body).await?.status == 202, "accepted");
    }
    let report = service.counted("docs", MONTH, 300).await?;
    ensure!(report["totals"]["visitors"]["estimate"] == 1, "{}", report["totals"]);
    Ok(())
}

/// A forger with one IP address and many agents is at most `agents_per_network` visitors, and one more for all the others.
async fn one_network(service: &Service, connection: &mut Connection) -> Result<()> {
    let (agents, most) = (3_000, 512.0 + 1.0);
    for number in 0..agents {
        let agent = format!("Mozilla/5.0 (X11; Linux x86_64; rv:{number}.0) Gecko/20100101 Firefox/{number}.0");
        let headers = [("user-agent", agent.as_str()), ("x-forwarded-for", "203.0.113.9")];
        let body = r#"{"project":"alone","url":"https://alone.example/"}"#;
        ensure!(connection.send("POST", "/v1/pageview", &headers, body).await?.status == 202, "accepted");
    }
    let report = service.counted("alone", MONTH, agents).await?;
    let visitors = &report["totals"]["visitors"];
    let (estimate, error) =
        (visitors["estimate"].as_f64().context("estimate")?, visitors["error"].as_f64().context("error")?);
    println!("15: one IP address with {agents} agents, estimated {estimate} visitors of at most {most}");
    ensure!((estimate - most).abs() <= 5.0 * error * most, "{visitors}");
    let limited = "SELECT sum(beacons) FROM rejection_daily FINAL WHERE project = 'alone' AND reason = 'limited_agent'";
    let limited: u64 = eventually("the views beyond the limit in the project's rows", async || {
        let found: u64 = service.clickhouse()?.query(limited).fetch_one().await?;
        ensure!(found >= agents - 512, "{found} so far");
        Ok(found)
    })
    .await?;
    ensure!(limited == agents - 512, "{limited} views beyond the limit");
    Ok(())
}
