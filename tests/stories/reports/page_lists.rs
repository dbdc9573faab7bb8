//! Lists of pages: each page once in every order, prefixes, and pages that were not found.

use super::THRESHOLD;
use super::client::{ReportClient, number, same};
use super::known::{MONTHS, Truth};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

type Pages = BTreeMap<(String, u16), u64>;

/// The sort key of a list: descending, and then by path and status.
fn key(sort: &str, page: &Value) -> (f64, f64, String, u64) {
    let figure = |value: &Value| value.as_f64().unwrap_or(f64::NEG_INFINITY);
    let path = page["path"].as_str().unwrap_or_default().to_owned();
    let status = page["status"].as_u64().unwrap_or_default();
    let views = figure(&page["views"]);
    match sort {
        "views" => (-views, 0.0, path, status),
        // Withheld figures are ordered by path only.
        "visitors" => (-figure(&page["visitors"]["estimate"]).max(0.0), 0.0, path, status),
        "change" => {
            let before = figure(&page["views_before"]);
            let growth = if before > 0.0 { (views - before) / before } else { -2.0 };
            (-growth, -views, path, status)
        }
        _ => (0.0, 0.0, path, status),
    }
}

/// The lists of pages of `span` equal `truth`.
pub async fn every_page_once(reader: &mut ReportClient, span: &str, truth: &Pages) -> Result<()> {
    let list = format!("/v1/projects/docs/reports/{span}/pages");
    let single = !span.contains("..");
    for (sort, limit) in
        [("views", 7), ("views", 1000), ("path", 31), ("visitors", 13), ("visitors", 1000), ("change", 10)]
    {
        if sort == "change" && (!single || span == MONTHS[3]) {
            let refused = reader.get(&format!("{list}?sort=change"), &[]).await?;
            ensure!(refused.status == 400 && refused.json()?["field"] == "sort", "{span}: {refused:?}");
            continue;
        }
        let found = reader.all(&list, &format!("&sort={sort}"), limit).await?;
        let views: Pages = found
            .iter()
            .map(|page| {
                let path = page["path"].as_str().context("path")?.to_owned();
                Ok(((path, u16::try_from(number(&page["status"])?)?), number(&page["views"])?))
            })
            .collect::<Result<_>>()?;
        ensure!(views.len() == found.len(), "{span} {sort}: a page came twice");
        ensure!(views == *truth, "{span} {sort}: {} pages, {} there are", views.len(), truth.len());
        for pair in found.windows(2) {
            let (a, b) = (key(sort, &pair[0]), key(sort, &pair[1]));
            ensure!(a < b, "{span} {sort}: {} comes before {}", pair[0], pair[1]);
        }
        for page in &found {
            let visitors = &page["visitors"];
            let told = visitors["estimate"].as_u64().is_some_and(|estimate| estimate >= THRESHOLD);
            ensure!(told || visitors["fewer_than"] == THRESHOLD, "{span}: {page}");
            ensure!(visitors["unit"] == if single { "visitors" } else { "visitor-months" }, "{span}: {page}");
        }
        if sort != "visitors" {
            let (rows, next) = reader.csv(&format!("{list}.csv?sort={sort}")).await?;
            ensure!(next.is_none(), "{span} {sort}: a whole list goes on");
            same(&found, &rows).with_context(|| format!("{span} {sort}: the whole list"))?;
        }
        let withheld = found.iter().filter(|page| page["visitors"]["estimate"].is_null()).count();
        ensure!(withheld > 10 && withheld < found.len() - 10, "{span}: {withheld} withheld, so the order is tried");
    }
    prefixes_are_text(reader, span, truth).await?;
    missing_pages_once(reader, span, truth).await
}

/// Prefixes are text, not patterns; and they narrow, not reorder.
async fn prefixes_are_text(reader: &mut ReportClient, span: &str, truth: &Pages) -> Result<()> {
    let list = format!("/v1/projects/docs/reports/{span}/pages");
    for prefix in ["/en/", "/100%_", "/%", "/x_", "/ünï", "/nothing"] {
        let encoded: String = prefix.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = reader.all(&list, &format!("&prefix={encoded}"), 40).await?;
        let expected = truth.keys().filter(|(path, _)| path.starts_with(prefix)).count();
        same(&found, &reader.csv(&format!("{list}.csv?prefix={encoded}")).await?.0).context(prefix)?;
        ensure!(found.len() == expected, "{span} {prefix}: {} found, {expected} there are", found.len());
    }
    Ok(())
}

async fn missing_pages_once(reader: &mut ReportClient, span: &str, truth: &Pages) -> Result<()> {
    let single = !span.contains("..");
    let list = format!("/v1/projects/docs/reports/{span}/not-found");
    let missing = reader.all(&list, "", 9).await?;
    for query in ["", "&sort=path", "&prefix=%2fen%2f"] {
        let (part, next) = reader.csv(&format!("{list}.csv?limit=1000{query}")).await?;
        let (whole, _) = reader.csv(&format!("{list}.csv?{query}")).await?;
        // Referrers, too.
        ensure!(next.is_none() && part == whole, "{span} {query}: {part:?} in parts, {whole:?}");
    }
    for sort in ["views", "path", "visitors", "change"] {
        if sort == "change" && (!single || span == MONTHS[3]) {
            ensure!(
                reader.get(&format!("{list}?sort=change"), &[]).await?.status == 400,
                "{span}: not found by change"
            );
            continue;
        }
        let found = reader.all(&list, &format!("&sort={sort}"), 5).await?;
        ensure!(found.len() == missing.len(), "{span} {sort}: {} not found", found.len());
        ensure!(found.windows(2).all(|pair| key(sort, &pair[0]) < key(sort, &pair[1])), "{span} {sort}: {found:?}");
    }
    let truly: BTreeSet<&str> =
        truth.keys().filter(|(_, status)| *status == 404).map(|(path, _)| path.as_str()).collect();
    ensure!(missing.iter().filter_map(|page| page["path"].as_str()).collect::<BTreeSet<_>>() == truly, "{span}");
    for page in &missing {
        let referrers = page["referrers"].as_array().context("referrers")?;
        let sum: u64 = referrers.iter().filter_map(|item| item["views"].as_u64()).sum();
        ensure!(sum == number(&page["views"])?, "{span}: {page}");
        // Views from own pages have no threshold.
        let sites: Vec<&Value> = referrers.iter().filter(|item| item["value"] != ":internal").collect();
        let small = sites.iter().filter(|item| item["views"].as_u64() < Some(THRESHOLD)).count();
        ensure!(small == 0 || sites.len() == 1 || !single, "{span}: {page}");
    }
    Ok(())
}

/// The pages of several months.
pub fn added_up<'a>(truths: impl Iterator<Item = &'a Truth>) -> Pages {
    let mut sum = BTreeMap::new();
    for (page, views) in truths.flat_map(|truth| &truth.pages) {
        *sum.entry(page.clone()).or_default() += views;
    }
    sum
}
