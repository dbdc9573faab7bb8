//! The content of `GET /privacy`, from the running configuration.

use crate::config::privacy_settings::PrivacySettings;
use crate::keys;
use ingest::Ingest;
use ingest::sink::Sink;
use query::privacy::{FactsSource, KeyFacts, NEVER_RECORDED, NOT_PROMISED, PrivacyFacts, RECORDED, WITHOUT_THRESHOLD};
use std::sync::Arc;

fn facts(settings: &PrivacySettings) -> anyhow::Result<PrivacyFacts> {
    let rules = settings.rules.query()?.rules;
    Ok(PrivacyFacts {
        scopes: ["site", "page"],
        precision: schemas::sketch::PRECISION,
        // A rank of k has probability 2⁻ᵏ, which is two bits of entropy.
        coordinate_bits: schemas::sketch::PRECISION + 2,
        key: None,
        small_cell_floor: rules.floor.get(),
        without_threshold: WITHOUT_THRESHOLD,
        close_after_hours: settings.lifetimes.close.close_after_hours.as_secs() / 3600,
        log_retention_hours: settings.log.log_retention_hours,
        retention_months: settings.lifetimes.retention().months,
        opt_out: ["Sec-GPC: 1", "DNT: 1", "localStorage headcount-ignore = true"],
        country: settings.country_source(),
        robot_rules: ingest::agents::RULES_VERSION,
        recorded: RECORDED,
        never_recorded: NEVER_RECORDED,
        not_promised: NOT_PROMISED,
    })
}

/// For a process that only serves reports.
pub fn of_reports(settings: &PrivacySettings) -> anyhow::Result<FactsSource> {
    let facts = facts(settings)?;
    Ok(Arc::new(move || facts.clone()))
}

/// For an endpoint, with its key's age.
pub fn of_endpoint<S: Sink>(settings: &PrivacySettings, ingest: Arc<Ingest<S>>) -> anyhow::Result<FactsSource> {
    let facts = facts(settings)?;
    Ok(Arc::new(move || {
        // `/readyz` reports a key that cannot be replaced; this page does not.
        let key = ingest.key().ok().map(|(period, key)| KeyFacts {
            lives_for: period.name(),
            period: keys::period_of(period, &key),
            began: key.begins().start(),
            ends: key.ends().start(),
            last_destroyed: ingest.key_destroyed(),
        });
        PrivacyFacts { key, ..facts.clone() }
    }))
}
