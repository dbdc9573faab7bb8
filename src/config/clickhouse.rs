//! The URL of a ClickHouse server: its host and path, and ClickHouse settings in its query part.

use super::values::{InvalidValue, Optional, Parsed, optional};
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

/// A ClickHouse server and the settings that are sent with every statement.
#[derive(Clone)]
pub struct ServerUrl {
    /// The URL as the operator wrote it.
    pub url: String,
    /// ClickHouse settings in its query part, by name and value.
    pub settings: Vec<(String, String)>,
}

/// The server of `clickhouse_url`. The URL may have a password, so no error repeats it.
pub(super) fn server_url(text: &str) -> Parsed<Optional<ServerUrl>> {
    optional(text, |url| Ok(ServerUrl { url: url.to_owned(), settings: settings(url)? }))
}

fn settings(text: &str) -> Parsed<Vec<(String, String)>> {
    let expected = "a URL such as http://clickhouse:8123";
    let url: Uri = text.parse().map_err(|_| InvalidValue::expected(expected))?;
    if url.scheme_str() != Some("http") || url.host().is_none() {
        return Err(InvalidValue::expected(format!("{expected}; https is not supported")));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(InvalidValue::because(
            "it names a user before the host: set `clickhouse_user` and `clickhouse_password` instead",
        ));
    }
    let pairs: Query<Vec<(String, String)>> =
        Query::try_from_uri(&url).map_err(|_| InvalidValue::because("its query part cannot be read"))?;
    match pairs.0.iter().find_map(|(name, _)| refusal(name).map(|why| (name, why))) {
        Some((name, why)) => {
            Err(InvalidValue::because(format!("it has the parameter `{name}`, which is refused: {why}")))
        }
        None => Ok(pairs.0),
    }
}

/// Why a parameter is refused, if it is.
fn refusal(name: &str) -> Option<String> {
    let is_limit =
        LIMITS.iter().any(|start| name.starts_with(start)) || LIMIT_ENDS.iter().any(|end| name.ends_with(end));
    match name {
        "user" | "password" | "database" => Some(format!("set `clickhouse_{name}` instead")),
        name if OWN.contains(&name) => Some("headcount sets it itself".to_owned()),
        name if PARAMETERS.contains(&name) || name.starts_with("param_") => {
            Some("it is no setting of ClickHouse".to_owned())
        }
        _ if !is_limit => Some(
            "it can change figures; set it for the user in ClickHouse's own configuration if you need it".to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    #[test]
    fn settings_in_the_url_are_applied_or_refused_by_name() {
        let url = |url: &'static str| load(&["--clickhouse-url", url]);
        let settings = super::settings("http://ch:8123/?max_threads=2&max_memory_usage=1%30").unwrap();
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
