//! The URL of a ClickHouse server: its host and path, and ClickHouse settings in its query part.

use super::Config;
use crate::database::{Server, ServerConfig};
use anyhow::{Context, bail};
use axum::extract::Query;
use hyper::Uri;

/// Beginnings and ends of the names of settings that limit what a statement may use, and so change no figure: what is over a limit fails. All
/// others are refused: `limit`, `additional_result_filter` or `join_use_nulls` would change figures without an error.
const LIMITS: [&str; 3] = ["max_", "min_", "use_uncompressed_cache"];
const LIMIT_ENDS: [&str; 4] = ["_timeout", "_timeout_ms", "priority", "workload"];
/// Settings that decide whether an acknowledged row is stored, and how: headcount sets them itself.
const OWN: [&str; 7] = [
    "async_insert",
    "insert_deduplicate",
    "deduplicate_insert",
    "optimize_on_insert",
    "mutations_sync",
    "parallel_distributed_insert_select",
    "skip_unavailable_shards",
];
/// Parameters of ClickHouse's HTTP interface that are no settings.
const PARAMETERS: [&str; 12] = [
    "query",
    "query_id",
    "session_id",
    "session_timeout",
    "session_check",
    "default_format",
    "compress",
    "decompress",
    "quota_key",
    "role",
    "buffer_size",
    "wait_end_of_query",
];

impl Config {
    /// The server at `url`: the one of `clickhouse_url`, or else the embedded one.
    ///
    /// # Errors
    /// The URL names a parameter that is refused.
    pub fn clickhouse(&self, url: &str) -> anyhow::Result<Server> {
        let is_embedded = self.text("clickhouse_url").is_none();
        let settings = if is_embedded { Vec::new() } else { self.clickhouse_settings()? };
        let config = ServerConfig {
            url: url.split('?').next().unwrap_or(url).to_owned(),
            user: self.text("clickhouse_user").map(str::to_owned),
            password: self.text("clickhouse_password").map(str::to_owned),
            settings,
            database: self.database().to_owned(),
            is_embedded,
        };
        Ok(Server::new(config, crate::embedded::engine::connect(is_embedded)))
    }

    /// ClickHouse settings in the query part of `clickhouse_url`, by name and value. They are sent with every statement.
    ///
    /// # Errors
    /// Something in the URL cannot be applied; the message names it.
    pub(super) fn clickhouse_settings(&self) -> anyhow::Result<Vec<(String, String)>> {
        let Some(text) = self.text("clickhouse_url") else { return Ok(Vec::new()) };
        let origin = self.origin("clickhouse_url");
        // The URL may have a password, so it is not repeated.
        let expected = "expected a URL such as http://clickhouse:8123";
        let url: Uri = text.parse().ok().with_context(|| format!("setting `clickhouse_url` ({origin}): {expected}"))?;
        if url.scheme_str() != Some("http") || url.host().is_none() {
            bail!("setting `clickhouse_url` ({origin}): {expected}; https is not supported");
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            bail!(
                "setting `clickhouse_url` ({origin}) names a user before the host: set `clickhouse_user` and `clickhouse_password` instead"
            );
        }
        let pairs: Query<Vec<(String, String)>> = Query::try_from_uri(&url)
            .with_context(|| format!("setting `clickhouse_url` ({origin}): its query part cannot be read"))?;
        for (name, _) in &pairs.0 {
            let why = match name.as_str() {
                "user" | "password" | "database" => format!("set `clickhouse_{name}` instead"),
                name if OWN.contains(&name) => "headcount sets it itself".to_owned(),
                name if PARAMETERS.contains(&name) || name.starts_with("param_") => {
                    "it is no setting of ClickHouse".to_owned()
                }
                name if !LIMITS.iter().any(|start| name.starts_with(start))
                    && !LIMIT_ENDS.iter().any(|end| name.ends_with(end)) =>
                {
                    "it can change figures; set it for the user in ClickHouse's own configuration if you need it"
                        .to_owned()
                }
                _ => continue,
            };
            bail!("setting `clickhouse_url` ({origin}) has the parameter `{name}`, which is refused: {why}");
        }
        Ok(pairs.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    #[test]
    fn settings_in_the_url_are_applied_or_refused_by_name() {
        let url = |url: &'static str| load(&["--clickhouse-url", url]);
        let settings =
            url("http://ch:8123/?max_threads=2&max_memory_usage=1%30").unwrap().clickhouse_settings().unwrap();
        let expected = [("max_threads", "2"), ("max_memory_usage", "10")];
        assert_eq!(settings, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for (refused, expected) in [
            ("http://ch:8123/?user=me", "the parameter `user`, which is refused: set `clickhouse_user` instead"),
            ("http://ch:8123/?max_threads=2&async_insert=1", "the parameter `async_insert`, which is refused"),
            ("http://ch:8123/?limit=30", "the parameter `limit`, which is refused: it can change figures"),
            ("http://ch:8123/?result_overflow_mode=break", "the parameter `result_overflow_mode`, which is refused"),
            ("http://ch:8123/?session_id=1", "the parameter `session_id`, which is refused: it is no setting"),
            ("http://me:hunter2@ch:8123", "names a user before the host: set `clickhouse_user`"),
            ("https://ch:8443", "https is not supported"),
            ("ch:8123", "expected a URL such as http://clickhouse:8123"),
        ] {
            let error = url(refused).err().expect(refused).to_string();
            assert!(error.contains(expected) && error.contains("flag --clickhouse-url"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
