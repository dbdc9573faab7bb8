//! Classes of work in ClickHouse: settings, timeout and priority of each.

use crate::CallError;
use clickhouse::Client;
use std::borrow::Cow;
use std::time::Duration;

/// The kind of a statement's work, which determines its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Reads of one project's report for which a client waits.
    Report,
    /// Reads of a report for which no client waits: they have lower priority.
    Background,
    /// Inserts, and the aggregator's own reads.
    Write,
    /// Removal and rewriting of stored rows: a statement returns when it is finished.
    Maintenance,
    /// Reads of the registry: projects and tokens.
    Registry,
}

/// Each key is in one partition, so partitions need not be compared with each other. The columns of the key are read before the sketches.
/// The rows of one project are too few for several threads, and to compile expressions: compiling takes 25 to 60 ms of a processor for each
/// kind of query after a start, and saves nothing measurable.
const READ: [(&str, &str); 6] = [
    ("do_not_merge_across_partitions_select_final", "1"),
    ("optimize_move_to_prewhere_if_final", "1"),
    ("max_threads", "2"),
    ("compile_expressions", "0"),
    ("compile_aggregate_expressions", "0"),
    ("compile_sort_description", "0"),
];
const WRITE: [(&str, &str); 3] = [("async_insert", "0"), ("insert_deduplicate", "0"), ("optimize_on_insert", "0")];
const MAINTENANCE: [(&str, &str); 3] = [("async_insert", "0"), ("insert_deduplicate", "0"), ("mutations_sync", "2")];

/// Niceness of the threads that run a statement. A server without `CAP_SYS_NICE` ignores it, and older servers do not have it.
const NICENESS: &str = "os_threads_nice_value_query";

impl Work {
    const fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Work::Report | Work::Background => &READ,
            Work::Write => &WRITE,
            Work::Maintenance => &MAINTENANCE,
            Work::Registry => &[],
        }
    }

    /// Longest time of one statement, unless the operator configures another.
    #[must_use]
    pub const fn timeout(self) -> Duration {
        match self {
            Work::Report | Work::Background | Work::Registry => Duration::from_secs(10),
            Work::Write | Work::Maintenance => Duration::from_secs(30),
        }
    }

    /// Niceness, if the work has lower priority.
    const fn niceness(self) -> Option<&'static str> {
        match self {
            Work::Background => Some("5"),
            Work::Write => Some("15"),
            Work::Report | Work::Maintenance | Work::Registry => None,
        }
    }

    /// A client with the settings of this work.
    #[must_use]
    pub fn client(self, client: Client) -> Client {
        self.settings().iter().fold(client, |client, (name, value)| client.with_setting(*name, *value))
    }

    /// A client with the settings and the priority of this work. The priority is left out if the server does not have the setting, or does
    /// not answer within `timeout`.
    pub async fn client_with_priority(self, client: Client, timeout: Duration) -> Client {
        let client = self.client(client);
        let Some(niceness) = self.niceness() else { return client };
        let known =
            client.query("SELECT count() FROM system.settings WHERE name = {name:String}").param("name", NICENESS);
        match in_time(timeout, "reading its settings", known.fetch_one::<u64>()).await {
            Ok(1..) => client.with_setting(NICENESS, niceness),
            Ok(0) | Err(_) => client,
        }
    }
}

/// The outcome of a call with the time limit `timeout`.
///
/// # Errors
/// ClickHouse refused, or did not answer in time.
pub async fn in_time<T>(
    timeout: Duration,
    action: impl Into<Cow<'static, str>>,
    call: impl Future<Output = Result<T, clickhouse::error::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(outcome) => outcome.map_err(|cause| CallError::ClickHouse { action: action.into(), cause }),
        Err(_) => Err(CallError::Timeout { action: action.into(), timeout }),
    }
}
