//! A few clients forge names by the thousand: paths, referrers, versions, projects under a host pattern. The number of clients bounds what they may
//! add, and honest readers' pages keep their names.

use super::forged::{AGENT, CLOCK, Forged, accepted, send_all};
use super::form;
use anyhow::{Context, Result, ensure};
use harness::service::{Service, eventually};
use std::collections::BTreeSet;

const MONTH: &str = "2026-03";

#[tokio::test(flavor = "multi_thread")]
async fn forged_paths_do_not_crowd_out_real_pages() -> Result<()> {
    // Number of IP addresses, and of forged paths from each.
    let (clients, paths) = form((5, 4_000), (50, 4_000));
    let (paths_each, values_each, real) = (2_000, 200, 500);
    let arguments = ["--clock-start", CLOCK, "--trusted-proxy", "127.0.0.1", "--client-rate", "0"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    accepted(service.address(), clients * paths, move |number| Forged {
        from: format!("198.51.100.{}", number % clients),
        agent: AGENT.to_owned(),
        body: format!(
            r#"{{"url":"https://docs.example/forged-page-{number}","referrer":"https://site{number}.example/","version":"v-{number}"}}"#
        ),
    })
    .await?;
    accepted(service.address(), real, |number| Forged {
        from: format!("203.0.113.{}", number % 100),
        agent: AGENT.to_owned(),
        body: format!(r#"{{"url":"https://docs.example/real-page-{number}","version":"stable"}}"#),
    })
    .await?;
    let sent = (clients * paths + real) as u64;
    let database = service.clickhouse()?;
    eventually(&format!("{sent} views"), async || {
        let views: u64 = database.query("SELECT sum(views) FROM page_daily FINAL").fetch_one().await?;
        ensure!(views == sent, "{views} so far");
        Ok(())
    })
    .await?;
    let pages: Vec<(String, u64)> =
        database.query("SELECT path, sum(views) FROM page_daily FINAL GROUP BY path").fetch_all().await?;
    let named = pages.iter().filter(|(path, views)| path.starts_with("/real-page-") && *views == 1).count();
    let more = pages.iter().find(|(path, _)| path == "/:more").context("/:more")?.1;
    let values = "SELECT CAST(dimension AS String), uniqExact(value) FROM breakdown_window FINAL ARRAY JOIN dimensions AS dimension, values AS value \
                  GROUP BY dimension ORDER BY dimension";
    let values: Vec<(String, u64)> = database.query(values).fetch_all().await?;
    println!("{sent} views, {} page rows, {named} real pages named, /:more {more}; values {values:?}", pages.len());
    ensure!(named == real, "{named} of {real} real pages are named");
    ensure!(pages.len() <= clients * paths_each + 1_000, "{} page rows", pages.len());
    ensure!(more == (clients * (paths - paths_each)) as u64, "/:more has {more}");
    for dimension in ["referrer", "version"] {
        let found = values.iter().find(|(name, _)| name == dimension).map_or(0, |(_, values)| *values);
        ensure!((1..=(clients * values_each) as u64 + 2).contains(&found), "{dimension}: {found} values");
    }
    // The project's rows show how many views were counted without a name.
    let limited = (clients * (paths - paths_each)) as u64;
    eventually("the tally of views without their path", async || {
        let tally = "SELECT sum(beacons) FROM rejection_daily FINAL WHERE project = 'docs' AND reason = 'limited_path'";
        let found: u64 = database.query(tally).fetch_one().await?;
        ensure!(found == limited, "{found} of {limited}");
        Ok(())
    })
    .await?;
    // Rows of totals are written after those of pages.
    eventually("the total to have them all", async || {
        let report = service.report("docs", MONTH).await?;
        ensure!(report["totals"]["views"] == sent, "{}", report["totals"]);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_projects_do_not_use_up_the_new_names_of_an_hour() -> Result<()> {
    let arguments =
        ["--clock-start", CLOCK, "--trusted-proxy", "127.0.0.1", "--host-pattern", "{project}.docs.example"];
    let service = Service::started(&arguments, &[]).await?;
    let named = |name: &'static str, network: &'static str, networks: usize| {
        move |number: usize| Forged {
            from: format!("{network}.{}", number % networks),
            agent: AGENT.to_owned(),
            body: format!(r#"{{"url":"https://{name}{number}.docs.example/"}}"#),
        }
    };
    let forged = send_all(service.address(), 100, named("forged", "198.51.100", 10)).await?;
    let real = send_all(service.address(), 20, named("real", "203.0.113", 20)).await?;
    println!("100 forged names from 10 networks: {forged:?}; 20 real names from others: {real:?}");
    ensure!(forged.get(&202) == Some(&50) && forged.get(&404) == Some(&50), "{forged:?}");
    ensure!(real.keys().copied().collect::<BTreeSet<u16>>() == BTreeSet::from([202]), "{real:?}");
    Ok(())
}
