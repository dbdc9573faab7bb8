//! Folds windows of the log into summaries and writes them to ClickHouse.
//!
//! # Delivery
//!
//! A log delivers at least once, and counters double under redelivery. So no row is a delta: each row states the sum of the records of its
//! window below `next_offset`. Any process may write such a fact twice, late, or after it was replaced; queries use the row with the
//! highest `next_offset`.
//!
//! The steps, at each of which the process may be killed:
//!
//! 1. *fold* records into the open [`window`]'s accumulators, which are empty at its first record ([`fold`]);
//! 2. *flush*: freeze at an offset, insert all changed rows, the ledger's last ([`sink`]);
//! 3. *commit* that offset together with the window's start, only after every insert was acknowledged ([`source`]);
//! 4. *restart*: read again from the window's start. Nothing is read back from ClickHouse.

mod aggregate_error;
pub mod agreement;
pub mod close;
pub mod commit;
#[cfg(test)]
mod doubles;
pub mod due;
pub mod failpoint;
pub mod finished;
mod flush_policy;
pub mod fold;
pub mod imports;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod metrics;
pub mod progress;
mod run;
pub mod sink;
pub mod source;
pub mod start;
pub mod store;
pub mod window;
pub mod writes;

pub use aggregate_error::AggregateError;
pub use run::{AggregateConfig, run};
