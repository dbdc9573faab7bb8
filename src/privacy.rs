//! What `GET /privacy` says, from the running configuration.

use crate::config::Config;
use crate::keys;
use ingest::Ingest;
use ingest::sink::Sink;
use query::privacy::{Asked, KeyFacts, NEVER_RECORDED, NOT_PROMISED, PrivacyFacts, RECORDED, WITHOUT_THRESHOLD};
use std::sync::Arc;

fn facts(config: &Config) -> anyhow::Result<PrivacyFacts> {
    let rules = config.query()?.rules;
    Ok(PrivacyFacts {
        scopes: ["site", "page"],
        precision: schemas::sketch::PRECISION,
        // A rank of k has probability 2⁻ᵏ, which is two bits of entropy.
        coordinate_bits: schemas::sketch::PRECISION + 2,
        key: None,
        small_cell_floor: rules.floor.get(),
        without_threshold: WITHOUT_THRESHOLD,
        close_after_hours: config.close_after()?.as_secs() / 3600,
        log_retention_hours: config.log_retention_hours()?,
        retention_months: config.retention()?.months,
        opt_out: ["Sec-GPC: 1", "DNT: 1", "localStorage headcount-ignore = true"],
        country: country(config),
        robot_rules: ingest::agents::RULES_VERSION,
        recorded: RECORDED,
        never_recorded: NEVER_RECORDED,
        not_promised: NOT_PROMISED,
    })
}

/// Where countries come from.
fn country(config: &Config) -> String {
    let header =
        config.text("country_header").map(|name| format!("from the header {name}, if a trusted proxy sets it"));
    let database = config.text("country_database").map(|_| "from a file on the server, by IP address".to_owned());
    match (header, database) {
        (Some(header), Some(database)) => format!("{header}; else {database}"),
        (header, database) => header.or(database).unwrap_or_else(|| "not recorded".to_owned()),
    }
}

/// For a process that serves reports only.
pub fn of_reports(config: &Config) -> anyhow::Result<Asked> {
    let facts = facts(config)?;
    Ok(Arc::new(move || facts.clone()))
}

/// For an endpoint, with its key's age.
pub fn of_endpoint<S: Sink>(config: &Config, ingest: Arc<Ingest<S>>) -> anyhow::Result<Asked> {
    let facts = facts(config)?;
    Ok(Arc::new(move || {
        // A key that cannot be replaced is told by `/readyz`; nothing is said of it here.
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
