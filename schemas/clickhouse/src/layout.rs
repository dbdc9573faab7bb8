//! The tables that headcount can use: those that it created itself, in a database on one server.

use crate::WrongServer;
use schemas::migrations::FILES;

/// Engines that the schema creates.
const SUPPORTED: [&str; 2] = ["ReplacingMergeTree", "View"];

/// A query for the engine of the database, without a name, and of each of its tables: one line each, separated by tabs.
pub(crate) fn question(database: &str) -> String {
    format!(
        "SELECT '' AS name, engine FROM system.databases WHERE name = '{database}' UNION ALL \
         SELECT name, engine FROM system.tables WHERE database = '{database}' FORMAT TabSeparated"
    )
}

/// Refuses a database or a table with one of headcount's names that is spread over several servers. A distributed table would never be
/// closed and never expire, and replicas answer with the rows that they have.
///
/// # Errors
/// [`WrongServer`], with the name and the engine.
pub(crate) fn check(database: &str, lines: &str) -> Result<(), WrongServer> {
    for (name, engine) in lines.lines().filter_map(|line| line.split_once('\t')) {
        let is_spread = ["Replicated", "Shared"].iter().any(|kind| engine.starts_with(kind));
        let found = match name {
            "" if is_spread => format!("the database {database} has the engine {engine}"),
            "" => continue,
            name if is_ours(name) && !SUPPORTED.contains(&engine) => {
                format!("the table {database}.{name} has the engine {engine}")
            }
            _ => continue,
        };
        return Err(WrongServer::new(format!(
            "{found}, which headcount does not support: it needs one ClickHouse server, a database of the engine Atomic, and the tables that it \
             creates there itself (ReplacingMergeTree). Distributed, Replicated and Shared tables are not supported. Name an empty \
             database by `clickhouse_database`, or remove these tables"
        )));
    }
    Ok(())
}

/// Whether the schema creates a table or view of this name.
fn is_ours(name: &str) -> bool {
    let created = FILES.iter().flat_map(|(_, sql)| sql.split("CREATE ").skip(1));
    let mut names = created.filter_map(|rest| rest.split_once("IF NOT EXISTS ")?.1.split([' ', '\n', '(']).next());
    names.any(|created| created == name)
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_own_tables_on_one_server_are_supported() {
        for (lines, refused) in [
            ("\tAtomic\nsite_hourly\tReplacingMergeTree\ndaily_traffic\tView\n", None),
            ("", None),
            // Tables of other programs are ignored.
            ("\tAtomic\nnotes\tDistributed\n", None),
            ("\tReplicated\n", Some("the database stats has the engine Replicated")),
            ("\tShared\n", Some("the database stats has the engine Shared")),
            ("\tAtomic\nsite_hourly\tDistributed\n", Some("the table stats.site_hourly has the engine Distributed")),
            (
                "\tAtomic\nledger\tReplicatedReplacingMergeTree\n",
                Some("the table stats.ledger has the engine Replicated"),
            ),
            ("\tAtomic\nmonthly_traffic\tDistributed\n", Some("the table stats.monthly_traffic")),
            ("\tAtomic\nmonth_due\tSharedReplacingMergeTree\n", Some("the table stats.month_due")),
        ] {
            let found = check("stats", lines).err().map(|error| error.to_string());
            match refused {
                None => assert_eq!(found, None, "{lines}"),
                Some(expected) => assert!(found.as_deref().is_some_and(|found| found.contains(expected)), "{found:?}"),
            }
        }
    }
}
