//! How ClickHouse is told that others go before a query.

/// The setting: niceness of the threads that answer. A server without `CAP_SYS_NICE` does not heed it.
pub const SETTING: &str = "os_threads_nice_value_query";

/// Asks whether the server has [`SETTING`], for older ones do not: a count, 0 or 1.
pub const IS_KNOWN: &str = "SELECT count() FROM system.settings WHERE name = 'os_threads_nice_value_query'";
