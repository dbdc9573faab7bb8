//! Attacks on a running service, each with the bound that it must not pass, and the figures that were seen.
//!
//! A short form runs with every test run; `HEADCOUNT_ABUSE=long` runs all at length.

#[path = "abuse/rates.rs"]
mod rates;
#[path = "abuse/reports.rs"]
mod reports;

/// Held by stories that measure latencies or memory: one attack at a time.
static MEASURING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
