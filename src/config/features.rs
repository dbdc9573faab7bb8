//! Settings and commands that need a feature which this program may be built without.

use super::Config;
use anyhow::bail;

/// Whether this program has the feature that a setting needs, and that feature's name.
fn feature_of(setting: &str) -> Option<(&'static str, bool)> {
    match setting {
        "smtp_url" | "mail_from" => Some(("mail", cfg!(feature = "mail"))),
        name if name.starts_with("kafka_") => Some(("kafka", cfg!(feature = "kafka"))),
        _ => None,
    }
}

/// The error of a command that needs a feature which this program was built without.
#[cfg(not(feature = "kafka"))]
#[must_use]
pub fn missing(command: &str, feature: &str) -> anyhow::Error {
    anyhow::anyhow!("`headcount {command}` needs the feature `{feature}`, and this program was built without it")
}

impl Config {
    /// Whether brokers are named.
    pub fn names_kafka(&self) -> bool {
        self.text("kafka_bootstrap").is_some()
    }

    /// Checks that the program has the features that the settings need.
    ///
    /// # Errors
    /// A setting is set whose feature is absent.
    pub(super) fn require_features(&self) -> anyhow::Result<()> {
        for (name, value) in &self.values {
            if let Some((feature, false)) = feature_of(name)
                && value.origin != "default"
            {
                bail!(
                    "setting `{name}` ({}) needs the feature `{feature}`, and this program was built without it",
                    value.origin
                );
            }
        }
        Ok(())
    }
}
