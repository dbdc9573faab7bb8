//! Statement 18, and that `GET /privacy` is correct: it follows the running configuration, and includes what is not promised.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::Service;
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn the_running_service_shows_its_own_settings() -> Result<()> {
    let arguments = [
        "--clock-start",
        "2026-01-15T10:00:00Z",
        "--small-cell-floor",
        "7",
        "--close-after-hours",
        "48",
        "--retention-months",
        "13",
        "--visitor-period",
        "day",
    ];
    let service = Service::started(&arguments, &[]).await?;
    let mut connection = Connection::open(service.address()).await?;
    let answer = connection.send("GET", "/privacy", &[("accept", "application/json")], "").await?;
    let told = answer.json()?;
    for (field, expected) in [
        ("small_cell_floor", 7),
        ("close_after_hours", 48),
        ("retention_months", 13),
        ("robot_rules", u64::from(ingest::agents::RULES_VERSION)),
        ("log_retention_hours", 72),
        ("precision", 14),
        ("coordinate_bits", 16),
    ] {
        ensure!(told[field] == expected, "{field}: {told}");
    }
    ensure!(told["key"]["lives_for"] == "day" && told["key"]["period"] == "2026-01-15", "{told}");
    ensure!(told["key"]["ends"] == "2026-01-16T00:00:00Z" && told["key"]["last_destroyed"].is_null(), "{told}");
    ensure!(
        told["country"] == "not recorded" && told["recorded"].as_array().is_some_and(|all| all.len() > 10),
        "{told}"
    );
    let page = connection.send("GET", "/privacy", &[("accept", "text/html")], "").await?;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    for words in [
        "fewer than 7",
        "48 hours",
        "13 months",
        "Not promised",
        "who has its key, can test",
        "is a pseudonym",
        "consent",
    ] {
        ensure!(page.contains(words), "{words:?} is not on the page");
    }
    Ok(())
}

/// The document names a test for each statement, and every test that it names exists.
#[test]
fn the_document_names_a_test_for_every_statement() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(root.join("docs/privacy.md"))?;
    for number in 1..=18 {
        let row = document.lines().find(|line| line.starts_with(&format!("| {number} |")));
        let row = row.with_context(|| format!("statement {number} is not in the table"))?;
        let named: Vec<&str> = row.split('`').filter(|word| word.ends_with(".rs")).collect();
        ensure!(!named.is_empty(), "statement {number} names no test: {row}");
        for path in named {
            ensure!(root.join(path).exists(), "statement {number}: there is no {path}");
        }
    }
    let (_, limits) = document.split_once("## What is not promised").context("what is not promised")?;
    for words in ["living key", "pseudonym", "consent", "queried repeatedly", "Padding", "Membership"] {
        ensure!(limits.contains(words), "{words:?} is not said");
    }
    Ok(())
}
