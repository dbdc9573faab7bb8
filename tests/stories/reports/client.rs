//! A client of the report API.

use anyhow::{Context, Result, ensure};
use harness::http::{Answer, Connection};
use harness::service::Service;
use serde_json::Value;
use std::collections::BTreeMap;

/// A client of one service on one connection.
pub struct ReportClient {
    address: std::net::SocketAddr,
    pub connection: Connection,
}

impl ReportClient {
    pub async fn of(service: &Service) -> Result<Self> {
        let address = service.address();
        Ok(ReportClient { address, connection: Connection::open(address).await? })
    }

    /// Uses the open connection, or a new one if the service has closed it during a long step of the story.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        if self.connection.is_closed() {
            self.connection = Connection::open(self.address).await?;
        }
        self.connection.send("GET", path, headers, "").await
    }

    pub async fn json(&mut self, path: &str) -> Result<Value> {
        let answer = self.get(path, &[]).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// The current figures, including rows that the story has just written.
    pub async fn computed_json(&mut self, path: &str) -> Result<Value> {
        let answer = self.get(path, &[("cache-control", "no-cache")]).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        ensure!(answer.headers["cache-status"] == "headcount; fwd=miss", "{path}: {:?}", answer.headers);
        answer.json()
    }

    /// A CSV's rows as (column, cell), and the cursor of the next page.
    pub async fn csv(&mut self, path: &str) -> Result<(Vec<BTreeMap<String, String>>, Option<String>)> {
        let answer = self.get(path, &[]).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        let text = String::from_utf8(answer.body.to_vec())?;
        ensure!(text.ends_with("\r\n"), "{path}: rows end with CR and LF");
        let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
        let header = reader.headers()?.clone();
        let mut rows = Vec::new();
        for row in reader.records() {
            rows.push(header.iter().map(str::to_owned).zip(row?.iter().map(str::to_owned)).collect());
        }
        let next = answer.headers.get("headcount-next").map(|next| next.to_str().map(str::to_owned)).transpose()?;
        Ok((rows, next))
    }

    /// All items of a list, `limit` at a time, as JSON and as CSV; both must be the same.
    pub async fn all(&mut self, list: &str, query: &str, limit: usize) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let query = format!("limit={limit}{query}{after}");
            let page = self.json(&format!("{list}?{query}")).await?;
            let items = page["items"].as_array().context("items")?;
            ensure!(items.len() <= limit, "{list}?{query}: {} items", items.len());
            let (rows, next) = self.csv(&format!("{list}.csv?{query}")).await?;
            ensure!(next.as_deref() == page["next"].as_str(), "{list}?{query}: CSV goes on elsewhere");
            same(items, &rows).with_context(|| format!("{list}?{query}"))?;
            found.extend(items.iter().cloned());
            match next {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(found),
            }
            ensure!(found.len() < 10_000, "{list}?{query} never ends");
        }
    }
}

/// A JSON list's figures and a CSV's.
pub fn same(items: &[Value], rows: &[BTreeMap<String, String>]) -> Result<()> {
    ensure!(items.len() == rows.len(), "{} items, {} rows", items.len(), rows.len());
    for (item, row) in items.iter().zip(rows) {
        let text = |value: &Value| match value {
            Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        for (column, cell) in row {
            let told = match column.as_str() {
                "visitors" => text(&item["visitors"]["estimate"]),
                "visitors_error" => text(&item["visitors"]["error"]),
                "visitors_unit" => text(&item["visitors"]["unit"]),
                "visitors_fewer_than" => text(&item["visitors"]["fewer_than"]),
                "rest" => (item["rest"] == true).to_string(),
                "referrers" => continue,
                column => text(&item[column]),
            };
            let number = |text: &str| text.parse::<f64>().ok();
            let alike = told == *cell || (number(&told).is_some() && number(&told) == number(cell));
            ensure!(alike, "{column}: {told:?} as JSON, {cell:?} as CSV");
        }
    }
    Ok(())
}

/// A number in JSON.
pub fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("a number, not {value}"))
}
