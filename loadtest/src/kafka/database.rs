//! Databases of the load test in a ClickHouse on this machine.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clickhouse::Client;

use crate::target::loopback;

/// Without a merge for this long, ClickHouse is at rest.
const QUIET: Duration = Duration::from_secs(2);
/// How long its merges are waited for.
const REST: Duration = Duration::from_secs(60);
/// Between two checks of that.
const MERGES_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Refuses a ClickHouse that is not on this machine, and returns its port.
///
/// # Errors
/// When the URL is none of `http://HOST:PORT[/PATH]`, does not resolve, or resolves to somewhere else.
pub fn only_loopback(url: &str) -> anyhow::Result<u16> {
    // The path of an embedded engine is its password, so errors omit the URL.
    let uri: http::Uri = url.parse().context("--clickhouse-url is not a URL")?;
    ensure!(uri.scheme_str() == Some("http"), "--clickhouse-url must begin with http://");
    let authority = uri.authority().context("--clickhouse-url has no host")?;
    let port = authority.port_u16().unwrap_or(8123);
    loopback(authority.host(), port)?;
    Ok(port)
}

/// One database of the load test.
#[derive(Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    client: Client,
}

/// The content of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Rows that queries return, after replacements and merges.
    pub rows: u64,
    /// Bytes on disk, as merged so far.
    pub disk_bytes: u64,
}

impl Database {
    /// The database `name` of the server at `url`; nothing is created.
    #[must_use]
    pub fn new(url: &str, name: String) -> Self {
        Self { client: Client::default().with_url(url).with_validation(false), name }
    }

    /// A client of the database.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone().with_database(&self.name)
    }

    /// Runs a statement. It may contain question marks.
    ///
    /// # Errors
    /// ClickHouse refuses it.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        // The `clickhouse` crate takes a single question mark for a parameter.
        let attempt = sql.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
        let query = self.client.query(&sql.replace('?', "??"));
        query.execute().await.with_context(|| format!("asking ClickHouse to {attempt} …"))
    }

    /// One number.
    ///
    /// # Errors
    /// When ClickHouse refuses, or the answer is not one UInt64.
    pub async fn number(&self, sql: &str) -> anyhow::Result<u64> {
        self.client.query(sql).fetch_one::<u64>().await.with_context(|| format!("asking ClickHouse {sql}"))
    }

    /// All rows of an answer.
    ///
    /// # Errors
    /// When ClickHouse refuses, or the rows are of another form.
    pub async fn rows<T>(&self, sql: &str) -> anyhow::Result<Vec<T>>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        self.client.query(sql).fetch_all::<T>().await.with_context(|| format!("asking ClickHouse {sql}"))
    }

    /// Each row of an answer, one after another.
    ///
    /// # Errors
    /// When ClickHouse refuses, or the rows are of another form.
    pub async fn each<T>(&self, sql: &str, mut of: impl FnMut(T)) -> anyhow::Result<()>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let mut cursor = self.client.query(sql).fetch::<T>().with_context(|| format!("asking ClickHouse {sql}"))?;
        while let Some(row) = cursor.next().await.with_context(|| format!("reading ClickHouse's answer to {sql}"))? {
            of(row);
        }
        Ok(())
    }

    /// One text.
    ///
    /// # Errors
    /// When ClickHouse refuses, or the answer is not one String.
    pub async fn text(&self, sql: &str) -> anyhow::Result<String> {
        self.client.query(sql).fetch_one::<String>().await.with_context(|| format!("asking ClickHouse {sql}"))
    }

    /// Rows of `tables` as queries return them, and the bytes of all tables.
    ///
    /// # Errors
    /// ClickHouse refuses.
    pub async fn held(&self, tables: &[&str]) -> anyhow::Result<Held> {
        let name = &self.name;
        let mut rows = 0;
        for table in tables {
            rows += self.number(&format!("SELECT count() FROM {name}.{table} FINAL")).await?;
        }
        let sql = format!("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{name}'");
        Ok(Held { rows, disk_bytes: self.number(&sql).await? })
    }

    /// Waits until none of its merges has run for two seconds, a minute at most. Returns the time until the last one finished.
    ///
    /// # Errors
    /// ClickHouse refuses.
    pub async fn rest(&self) -> anyhow::Result<Duration> {
        let merges = format!("SELECT count() FROM system.merges WHERE database = '{}'", self.name);
        let begun = Instant::now();
        let mut busy = begun;
        while busy.elapsed() < QUIET && begun.elapsed() < REST {
            tokio::time::sleep(MERGES_CHECK_INTERVAL).await;
            if self.number(&merges).await? > 0 {
                busy = Instant::now();
            }
        }
        Ok(busy.duration_since(begun))
    }

    /// Drops the database. Prints a failure on stderr.
    pub async fn remove(&self) {
        if let Err(error) = self.execute(&format!("DROP DATABASE IF EXISTS {} SYNC", self.name)).await {
            eprintln!("database {} is left behind: {error:#}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clickhouse_elsewhere_is_refused_and_its_path_is_not_logged() {
        assert_eq!(only_loopback("http://127.0.0.1:8124/secret").unwrap(), 8124);
        let refused = format!("{:#}", only_loopback("http://192.0.2.7:8123/secret").unwrap_err());
        assert!(refused.contains("192.0.2.7") && !refused.contains("secret"), "{refused}");
        assert!(only_loopback("https://127.0.0.1:8123").is_err());
    }
}
