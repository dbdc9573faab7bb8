//! Settings of who may read reports.

use super::Config;
use anyhow::bail;
use ingest::client::TrustedProxies;
use query::access::{AccessConfig, Edge};
use std::sync::Arc;

impl Config {
    /// Bounds of the guard. `make_one` is the command that makes a token for this service.
    pub fn access(&self, make_one: &str) -> anyhow::Result<AccessConfig> {
        let report_rate: f64 = self.parse("report_rate", "requests a second")?;
        if !(0.0..=1e9).contains(&report_rate) {
            bail!(
                "setting `report_rate` ({}): expected requests a second, or 0 for no limit",
                self.origin("report_rate")
            );
        }
        let session_seconds: u64 = self.parse("session_seconds", "a number of seconds from 1 to 604800")?;
        if !(1..=604_800).contains(&session_seconds) {
            bail!("setting `session_seconds` ({}): expected 1 to 604800", self.origin("session_seconds"));
        }
        let no_token =
            format!("nobody can read reports that are not public: there is no token yet; make one with `{make_one}`");
        Ok(AccessConfig { report_rate, session_seconds, edge: edge(TrustedProxies::new(self.proxies()?)), no_token })
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
