//! Attacks on a running service, each with the bound that it must not pass, and the figures that were seen.
//!
//! A short form runs with every test run; `HEADCOUNT_ABUSE=long` runs all at length.

#[path = "abuse/rates.rs"]
mod rates;
#[path = "abuse/reports.rs"]
mod reports;
