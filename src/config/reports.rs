//! Settings of the cache of reports.

use super::Config;
use anyhow::bail;
use query::CacheConfig;
use std::time::Duration;

/// Settings that this release still accepts, and what replaces each.
const REMOVED: [(&str, &str); 2] = [
    ("report_cache_mib", "its value is used; set `report_cache_bytes` instead"),
    ("report_patience", "it has no effect; `report_fresh_seconds` and `report_max_stale_seconds` replace it"),
];

impl Config {
    /// How long reports are served from the cache, and its size.
    pub fn report_cache(&self) -> anyhow::Result<CacheConfig> {
        let seconds = |name: &str| -> anyhow::Result<Duration> {
            let seconds: u64 = self.parse(name, "a number of seconds from 0 to 86400")?;
            if seconds > 86_400 {
                bail!("setting `{name}` ({}): expected 0 to 86400", self.origin(name));
            }
            Ok(Duration::from_secs(seconds))
        };
        Ok(CacheConfig {
            fresh: seconds("report_fresh_seconds")?,
            max_stale: seconds("report_max_stale_seconds")?,
            stale_if_error: seconds("stale_if_error_seconds")?,
            bytes: self.report_cache_bytes()?,
        })
    }

    fn report_cache_bytes(&self) -> anyhow::Result<u64> {
        let bytes = self.parse("report_cache_bytes", "a number of bytes, or 0 for no cache")?;
        if self.text("report_cache_mib").is_none() {
            return Ok(bytes);
        }
        let mib: u64 = self.parse("report_cache_mib", "a number of mebibytes from 0 to 65536")?;
        if mib > 65_536 {
            bail!("setting `report_cache_mib` ({}): expected 0 to 65536", self.origin("report_cache_mib"));
        }
        Ok(if self.origin("report_cache_bytes") == "default" { mib << 20 } else { bytes })
    }

    /// Logs a warning for each setting that the next release refuses.
    pub(super) fn warn_of_removed(&self) {
        for (name, instead) in REMOVED.into_iter().filter(|(name, _)| self.text(name).is_some()) {
            tracing::warn!("setting `{name}` ({}) is removed in the next release: {instead}", self.origin(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, arguments};

    #[test]
    fn the_old_size_of_the_cache_holds_unless_the_new_one_is_set() {
        let bytes = |given: &[&str]| {
            let command = clap::Command::new("t").args(arguments());
            let matches = command.try_get_matches_from(std::iter::once(&"t").chain(given)).unwrap();
            Config::load(&matches).unwrap().report_cache().unwrap().bytes
        };
        assert_eq!(bytes(&[]), 64 << 20);
        assert_eq!(bytes(&["--report-cache-mib", "0"]), 0);
        assert_eq!(bytes(&["--report-cache-mib", "3", "--report-patience", "9"]), 3 << 20);
        assert_eq!(bytes(&["--report-cache-mib", "3", "--report-cache-bytes", "77"]), 77);
    }
}
