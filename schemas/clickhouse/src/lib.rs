//! ClickHouse as headcount uses it, in one place: clients with settings, timeout and priority of their work, the insert, and what a failed
//! call means.

mod failure;
mod insert;
mod work;

pub use failure::{CallError, DAMAGED, FailureKind, UNAVAILABLE, code_of, failure_kind};
pub use insert::insert;
pub use work::{Work, in_time};
