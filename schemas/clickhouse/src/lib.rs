//! How headcount uses ClickHouse: clients with the settings, timeout and priority of their work, the insert, and the meaning of failed
//! calls.

mod conditions;
mod failure;
mod insert;
mod layout;
mod server;
mod work;

pub use conditions::{BREAKDOWNS, contained};
pub use failure::{CallError, DAMAGED, FailureKind, UNAVAILABLE, code_of, failure_kind, words_of};
pub use insert::insert;
pub use server::{Connect, Server, ServerConfig, WrongServer};
pub use work::{Work, in_time};
