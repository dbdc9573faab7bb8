//! ClickHouse as headcount uses it: what a failed call means, by ClickHouse's error code.

mod failure;

pub use failure::{CallError, DAMAGED, FailureKind, UNAVAILABLE, code_of, failure_kind};
