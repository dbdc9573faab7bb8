//! Statements 11 and 18: every text describes the threshold correctly. It counts views, not readers; its number is that of the settings; figures
//! without a threshold are named, and so are the limits of the promise.

use anyhow::{Context, Result, ensure};
use harness::http;
use harness::service::Service;
use std::path::Path;

/// Phrases that claim more than a threshold of views guarantees.
const TOO_MUCH: [&str; 7] = [
    "few readers",
    "few people",
    "about fewer than",
    "fewer readers",
    "ten readers",
    "about somebody",
    "small enough to be about",
];

/// Fails if `text` describes the threshold as anything but "fewer than `threshold` views", or does not mention it.
fn says_views(text: &str, threshold: u64) -> Result<()> {
    let text = text.replace('*', "");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let claims: Vec<&str> = text.split("fewer than ").skip(1).collect();
    ensure!(!claims.is_empty(), "no word of the threshold");
    for claim in claims {
        let mut words = claim.split([' ', ',', '.', ';', ':', '<']);
        let (number, noun) = (words.next().context("a number")?, words.next().context("a noun")?);
        ensure!(
            number == threshold.to_string() && noun == "views",
            "“fewer than {number} {noun}”, not {threshold} views"
        );
    }
    for phrase in TOO_MUCH {
        ensure!(!text.contains(phrase), "“{phrase}” claims more than a threshold of views holds");
    }
    ensure!(text.contains("counts views, not readers"), "that the threshold counts views is not said");
    ensure!(
        text.contains("Page views, hours, days and totals have none")
            || text.contains("Page views, hours, days and totals have no threshold"),
        "which figures have no threshold is not said"
    );
    Ok(())
}

#[test]
fn the_check_finds_what_claims_too_much() {
    let honest = "Values with fewer than 10 views are suppressed. The threshold counts *views*, not readers. Page views, hours, days \
                  and totals have none.";
    assert!(says_views(honest, 10).is_ok());
    for (right, wrong) in [
        ("10 views", "10 readers"),
        ("10 views", "9 views"),
        ("fewer than 10 views", "few views"),
        ("are suppressed", "are about few readers"),
        ("The threshold counts *views*, not readers.", ""),
        ("Page views, hours, days and totals have none.", ""),
    ] {
        let text = honest.replace(right, wrong);
        assert!(text != honest && says_views(&text, 10).is_err(), "{text}");
    }
}

#[test]
fn the_documents_say_views_and_the_default() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let threshold = query::small_cells::Floor::default().get();
    for name in ["README.md", "docs/privacy.md"] {
        let text = std::fs::read_to_string(root.join(name)).with_context(|| name.to_owned())?;
        says_views(&text, threshold).with_context(|| name.to_owned())?;
        for words in ["Padding", "Membership", &format!("`ChromeOS {}`", 12)] {
            ensure!(text.contains(words), "{name} does not name {words}");
        }
    }
    let privacy = std::fs::read_to_string(root.join("docs/privacy.md"))?;
    let (_, limits) = privacy.split_once("## What is not promised").context("what is not promised")?;
    for words in ["**Padding.**", "**Membership.**", "**The threshold counts views.**"] {
        ensure!(limits.contains(words), "docs/privacy.md: {words} is not promised, and is not said");
    }
    let sql = std::fs::read_to_string(root.join("docs/sql.md"))?;
    ensure!(TOO_MUCH.iter().all(|phrase| !sql.contains(phrase)), "docs/sql.md claims more than holds");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_says_views_and_its_own_setting() -> Result<()> {
    let arguments = ["--clock-start", "2026-01-15T10:00:00Z", "--small-cell-floor", "7"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    let beacon = r#"{"project":"docs","url":"https://docs.example/"}"#;
    let agent = [("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")];
    let mut connection = http::Connection::open(service.address()).await?;
    let answer = connection.send("POST", "/v1/pageview", &agent, beacon).await?;
    ensure!(answer.status == 202, "{}", answer.status);
    service.counted("docs", "2026-01", 1).await?;

    let page = connection.send("GET", "/projects/docs/2026-01", &[("accept", "text/html")], "").await?;
    let privacy = connection.send("GET", "/privacy", &[("accept", "text/html")], "").await?;
    // A mail consists of these two.
    let report = async |format| {
        service.done(&["report", "docs", "2026-01", "--format", format, "--small-cell-floor", "7"]).await
    };
    for (name, text) in [
        ("the page", String::from_utf8_lossy(&page.body).into_owned()),
        ("/privacy", String::from_utf8_lossy(&privacy.body).into_owned()),
        ("Markdown", report("md").await?),
        ("HTML", report("html").await?),
    ] {
        says_views(&text, 7).with_context(|| format!("{name}: {text}"))?;
    }
    let facts = connection.send("GET", "/privacy", &[("accept", "application/json")], "").await?.json()?;
    let without = facts["without_threshold"].to_string();
    for words in ["page views", "hour", "day", "totals"] {
        ensure!(without.contains(words), "{words} have no threshold: {without}");
    }
    let not_promised = facts["not_promised"].to_string();
    for words in ["Padding", "Membership", "counts views, not readers"] {
        ensure!(not_promised.contains(words), "{words}: {not_promised}");
    }
    Ok(())
}
