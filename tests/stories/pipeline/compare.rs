//! What is stored against what the log says.

use anyhow::{Context, Result, ensure};
use harness::oracle;
use harness::service::Service;
use schemas::tables::{BreakdownDailyRow, LedgerRow, PageDailyRow, RejectionDailyRow, SiteHourlyRow};

/// Every row of all five tables against the log.
pub async fn compare(service: &Service, truth: &oracle::Truth) -> Result<()> {
    let client = service.clickhouse()?;
    let site = client.query("SELECT ?fields FROM site_hourly FINAL").fetch_all::<SiteHourlyRow>().await?;
    ensure!(site.len() == truth.site.len(), "site_hourly: {} rows, {} expected", site.len(), truth.site.len());
    for row in site {
        let key = (row.window_start, row.project.clone(), row.hour / 3600);
        let expected = truth.site.get(&key).with_context(|| format!("no such cell in the log: {key:?}"))?;
        ensure!((row.views, row.visits) == (expected.views, expected.visits), "{key:?}: {row:?}");
        let bots = [
            0,
            row.bots_search,
            row.bots_ai_crawler,
            row.bots_preview,
            row.bots_monitor,
            row.bots_automation,
            row.bots_other,
        ];
        ensure!(bots == expected.bots, "{key:?}: bots {bots:?}, {:?} expected", expected.bots);
        ensure!(row.sketch == expected.sketch()?, "{key:?}: the sketch differs from the rebuild");
    }
    let page = client.query("SELECT ?fields FROM page_daily FINAL").fetch_all::<PageDailyRow>().await?;
    ensure!(page.len() == truth.page.len(), "page_daily: {} rows, {} expected", page.len(), truth.page.len());
    for row in page {
        let key = (row.window_start, row.project.clone(), row.day, row.path.clone(), row.status);
        let expected = truth.page.get(&key).with_context(|| format!("no such cell in the log: {key:?}"))?;
        ensure!(row.views == expected.views, "{key:?}: {} views, {} expected", row.views, expected.views);
        ensure!(row.sketch == expected.sketch()?, "{key:?}: the sketch differs from the rebuild");
    }
    let rows = client.query("SELECT ?fields FROM breakdown_daily FINAL").fetch_all::<BreakdownDailyRow>().await?;
    ensure!(rows.len() == truth.breakdown.len(), "breakdown_daily: {} rows, not {}", rows.len(), truth.breakdown.len());
    for row in rows {
        let key = (row.window_start, row.project, row.day, row.dimension, row.value);
        let expected = truth.breakdown.get(&key).with_context(|| format!("no such cell in the log: {key:?}"))?;
        ensure!(row.views == *expected, "{key:?}: {} views, {expected} expected", row.views);
    }
    let rows = client.query("SELECT ?fields FROM rejection_daily FINAL").fetch_all::<RejectionDailyRow>().await?;
    ensure!(rows.len() == truth.rejection.len(), "rejection_daily: {} rows, not {}", rows.len(), truth.rejection.len());
    for row in rows {
        let key = (row.window_start, row.project, row.day, row.reason);
        let expected = truth.rejection.get(&key).with_context(|| format!("no such cell in the log: {key:?}"))?;
        ensure!(row.beacons == *expected, "{key:?}: {} beacons, {expected} expected", row.beacons);
    }
    let ledger = client.query("SELECT ?fields FROM ledger FINAL").fetch_all::<LedgerRow>().await?;
    ensure!(ledger.len() == truth.ledger.len(), "ledger: {ledger:?}");
    for row in ledger {
        let expected = truth.ledger.get(&row.window_start).with_context(|| format!("no such window: {row:?}"))?;
        let found = oracle::Ledger {
            seen: row.seen,
            accepted: row.accepted,
            duplicate: row.duplicate,
            tallies: row.tallies,
            rejected_beacons: row.rejected_beacons,
        };
        ensure!(found == *expected, "{row:?}, expected {expected:?}");
        ensure!(row.seen == row.next_offset - row.window_start, "the ledger adds up to the log: {row:?}");
        ensure!(row.seen == row.accepted + row.duplicate + row.tallies + row.undecodable, "{row:?}");
    }
    Ok(())
}
