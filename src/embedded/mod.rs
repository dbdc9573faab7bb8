//! The one-machine default: the engine beside the service, and the journal as the aggregator's log.

mod chdb;
pub mod engine;
pub mod journal_socket;
pub mod journal_source;
pub mod supervisor;
