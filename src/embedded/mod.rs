//! The one-machine default: the engine beside the service.

mod chdb;
pub mod engine;
