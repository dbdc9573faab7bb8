//! Settings and commands that need a feature which this program may be built without.

/// The feature that a setting needs, if this program was built without it.
pub fn absent(setting: &str) -> Option<&'static str> {
    let (feature, is_present) = match setting {
        "smtp_url" | "mail_from" => ("mail", cfg!(feature = "mail")),
        name if name.starts_with("kafka_") => ("kafka", cfg!(feature = "kafka")),
        _ => return None,
    };
    Some(feature).filter(|_| !is_present)
}

/// The error of a command that needs a feature which this program was built without.
#[cfg(not(feature = "kafka"))]
#[must_use]
pub fn missing(command: &str, feature: &str) -> anyhow::Error {
    anyhow::anyhow!("`headcount {command}` needs the feature `{feature}`, and this program was built without it")
}
