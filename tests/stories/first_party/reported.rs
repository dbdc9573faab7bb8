//! Pages that Plausible's script reports as missing, and versions of the rules for robots, in the report of an open and of a closed month.

use anyhow::{Context, Result, ensure};
use harness::http::{Connection, get};
use harness::service::{Service, eventually};
use serde_json::{Value, json};

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";
/// When the month is due to be closed.
const AFTER_CLOSE: &str = "2026-04-04T00:00:30Z";
const PERSON: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// Rows of another stream, whose window is over: views by robots that the next version of the rules classified.
const NEWER: [&str; 3] = [
    "INSERT INTO rules_daily VALUES ('docs', '2026-03-20', 2, 9, 77, 0, 9)",
    "INSERT INTO robot_daily (project, day, kind, name, views, stream, window_start, next_offset) VALUES \
     ('docs', '2026-03-20', 'ai_training', 'GPTBot', 4, 77, 0, 9), ('docs', '2026-03-20', 'ai_training', 'GPTBot 2', 5, 77, 0, 9)",
    "INSERT INTO ledger (stream, window_start, next_offset, appended, fold_version) VALUES (77, 0, 9, now(), 6), (77, 9, 10, now(), 6)",
];

/// Sends an event of Plausible's script on the page.
async fn event(connection: &mut Connection, name: &str, path: &str, agent: &str) -> Result<()> {
    let body = json!({"n": name, "d": "docs.example", "u": format!("https://docs.example{path}"), "r": null});
    let answer = connection.send("POST", "/api/event", &[("user-agent", agent)], body.to_string()).await?;
    ensure!(answer.status == 202, "{}", answer.status);
    Ok(())
}

/// The figures of this story in JSON.
fn check(report: &Value) -> Result<()> {
    let reported = json!([{"path": "/gone", "reports": 3}, {"path": "/gone/too", "reports": 1}]);
    ensure!(report["reported_missing"] == reported, "{}", report["reported_missing"]);
    ensure!(report["not_found"]["items"] == json!([]), "the view has its status: {}", report["not_found"]);
    let changes = json!([{"day": "2026-03-20", "from": 1, "to": 2}]);
    ensure!(report["robots"]["rules_changes"] == changes, "{}", report["robots"]);
    // Rows of the old rules keep their name, and no name has two rows.
    let names = json!([{"value": "GPTBot", "views": 8}, {"value": "GPTBot 2", "views": 5}]);
    let [kind] = &report["robots"]["kinds"].as_array().context("kinds")?[..] else {
        anyhow::bail!("{}", report["robots"]);
    };
    ensure!(kind["kind"] == "ai_training" && kind["names"] == names, "{kind}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reported_pages_and_versions_of_the_rules_are_in_every_form_and_survive_the_close() -> Result<()> {
    let mut service = Service::new(&["--small-cell-floor", "3"])?;
    service.start(&["--clock-start", CLOCK]).await?;
    service.register(&[("docs", "docs.example")]).await?;
    let mut connection = Connection::open(service.address()).await?;
    for path in ["/gone", "/gone", "/gone/too", "/gone"] {
        event(&mut connection, "pageview", path, PERSON).await?;
        event(&mut connection, "404", path, PERSON).await?;
        event(&mut connection, "pageview", "/a", "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)")
            .await?;
    }
    service.counted("docs", MONTH, 4).await?;
    for sql in NEWER {
        service.clickhouse()?.query(sql).execute().await?;
    }
    eventually("reports and versions", async || check(&service.report("docs", MONTH).await?)).await?;
    let csv = get(service.address(), &format!("/v1/projects/docs/reports/{MONTH}.csv")).await?;
    let csv = String::from_utf8_lossy(&csv.body).into_owned();
    for row in [
        "reported_missing,/gone,,reports,3,,",
        "robot_rules,2026-03-20,,version_before,1,,",
        "robot_rules,2026-03-20,,version,2,,",
    ] {
        ensure!(csv.contains(&format!("\r\n{row}\r\n")), "{row}: {csv}");
    }
    let page = get(service.address(), &format!("/projects/docs/{MONTH}")).await?;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    let sentence = "Since 20 March 2026 robots are recognised by version 2 of the rules, before that by version 1.";
    ensure!(
        page.contains("Reported missing by the page itself: <bdi>/gone</bdi> 3, <bdi>/gone/too</bdi> 1. "),
        "{page}"
    );
    ensure!(page.contains(sentence), "{page}");
    service.stop().await?;
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    service.start(&["--clock-start", AFTER_CLOSE]).await?;
    let closed = eventually("the month to be closed", async || {
        let report = service.report("docs", MONTH).await?;
        ensure!(report["period"]["closed"] == true, "{}", report["period"]);
        Ok(report)
    })
    .await?;
    check(&closed)?;
    let left = "SELECT count() FROM rules_daily WHERE stream = 77";
    eventually("the closed month's rows to be removed", async || {
        let left: u64 = service.clickhouse()?.query(left).fetch_one().await?;
        ensure!(left == 0, "{left} rows of the versions");
        Ok(())
    })
    .await?;
    check(&service.report("docs", MONTH).await?)?;
    let markdown = service.done(&["report", "docs", MONTH, "--format", "md", "--clock-start", AFTER_CLOSE]).await?;
    let rows = "\n## Pages reported missing\n\n| Path | Reports |\n|---|---:|\n| /gone | 3 |\n| /gone/too | 1 |\n";
    ensure!(markdown.contains(rows) && markdown.contains(sentence), "{markdown}");
    Ok(())
}
