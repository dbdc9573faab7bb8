//! Settings of access to reports, and of their cache.

use super::listen::ConnectionSettings;
use super::values::{Bytes, Optional, Parsed, bytes, mebibytes, optional, rate, seconds, text};
use ingest::client::TrustedProxies;
use query::CacheConfig;
use query::access::{AccessConfig, Edge};
use schemas::rate_limit::Rate;
use std::sync::Arc;
use std::time::Duration;

/// Settings that this release still accepts, and what replaces each.
pub(super) const REMOVED: [(&str, &str); 2] = [
    ("report_cache_mib", "its value is used; set `report_cache_bytes` instead"),
    ("report_patience", "it has no effect; `report_fresh_seconds` and `report_max_stale_seconds` replace it"),
];

/// Access to reports.
#[derive(clap::Args)]
pub struct AccessSettings {
    /// Report requests a second of one token or client; 0: no limit
    #[arg(long, value_name = "N", default_value = "20", value_parser = rate)]
    report_rate: Rate,
    /// Seconds that a browser stays signed in
    #[arg(long, value_name = "SECONDS", default_value = "43200", value_parser = seconds::<1, 604_800>)]
    session_seconds: Duration,
}

impl AccessSettings {
    /// Bounds of the guard. `make_one` is the command that makes a token for this service.
    pub fn access(&self, connections: &ConnectionSettings, make_one: &str) -> AccessConfig {
        let no_token = format!(
            "no caller can read reports that are not public: there is no token yet; create one with `{make_one}`"
        );
        AccessConfig {
            report_rate: self.report_rate.per_second,
            session_seconds: self.session_seconds.as_secs(),
            edge: edge(connections.trusted_proxies()),
            no_token,
        }
    }
}

fn edge(proxies: TrustedProxies) -> Edge {
    let proxies = Arc::new(proxies);
    let secret = ingest::client::ClientSecret::default();
    let known = Arc::clone(&proxies);
    Edge {
        client: Arc::new(move |peer, headers| proxies.client(peer, headers).hashed(&secret)),
        https: Arc::new(move |peer, headers| known.says_https(peer, headers)),
    }
}

/// The cache of reports.
#[derive(clap::Args)]
pub struct CacheSettings {
    /// Memory for cached reports; 0: no cache
    #[arg(long, value_name = "BYTES", default_value = "67108864", value_parser = bytes::<0, { u64::MAX }>)]
    report_cache_bytes: Bytes,
    /// Age up to which a cached report is served as fresh
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds::<0, 86_400>)]
    report_fresh_seconds: Duration,
    /// Further seconds in which it is served stale
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds::<0, 86_400>)]
    report_max_stale_seconds: Duration,
    /// Age up to which it is served if ClickHouse does not answer
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds::<0, 86_400>)]
    stale_if_error_seconds: Duration,
    /// Replaced by report_cache_bytes
    #[arg(long, value_name = "N", default_value = "", hide = true, value_parser = optional_mebibytes)]
    report_cache_mib: Optional<Bytes>,
    /// Replaced by report_fresh_seconds
    #[arg(long, value_name = "N", default_value = "", hide = true, value_parser = text)]
    report_patience: Optional<String>,
}

fn optional_mebibytes(text: &str) -> Parsed<Optional<Bytes>> {
    optional(text, mebibytes::<0, 65_536>)
}

impl CacheSettings {
    /// How long reports are served from the cache, and its size.
    pub fn cache(&self) -> CacheConfig {
        let given = self.report_cache_bytes;
        // The old setting counts only where the new one has its default.
        let Bytes(bytes) = if given == DEFAULT { self.report_cache_mib.0.unwrap_or(given) } else { given };
        CacheConfig {
            fresh: self.report_fresh_seconds,
            max_stale: self.report_max_stale_seconds,
            stale_if_error: self.stale_if_error_seconds,
            bytes,
        }
    }
}

/// The default of `report_cache_bytes`.
const DEFAULT: Bytes = Bytes(64 << 20);

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    #[test]
    fn the_old_size_of_the_cache_holds_unless_the_new_one_is_set() {
        let bytes = |given: &[&str]| load(given).unwrap().cache.cache().bytes;
        assert_eq!(bytes(&[]), 64 << 20);
        assert_eq!(bytes(&["--report-cache-mib", "0"]), 0);
        assert_eq!(bytes(&["--report-cache-mib", "3", "--report-patience", "9"]), 3 << 20);
        assert_eq!(bytes(&["--report-cache-mib", "3", "--report-cache-bytes", "77"]), 77);
    }
}
