//! The SQL files that create ClickHouse's tables, and the order in which they are applied to a database.
//!
//! [`FILES`] are applied to a new database. To a database of an earlier version, [`BEFORE`] are applied from its version on, which result
//! in the same tables, and then the files after the first. Every file may be applied again after a kill, and by two processes concurrently.

/// Versions of the schema before the first of [`FILES`].
pub const BEFORE_VERSION: u32 = BEFORE.len() as u32;

/// The version that this program writes and reads.
pub const SCHEMA_VERSION: u32 = BEFORE_VERSION + FILES.len() as u32;

/// Files for a new database: (name, statements separated by `;`). File `n` reaches version `BEFORE_VERSION + n`. They are frozen: every
/// change needs a new file.
pub const FILES: &[(&str, &str)] = &[
    ("0001_tables.sql", include_str!("../sql/0001_tables.sql")),
    ("0002_packed_breakdowns.sql", include_str!("../sql/0002_packed_breakdowns.sql")),
    ("0003_rules_and_reported_pages.sql", include_str!("../sql/0003_rules_and_reported_pages.sql")),
    ("0004_imports.sql", include_str!("../sql/0004_imports.sql")),
];

/// Files for databases that were created before [`FILES`]; file `n` reaches version `n`.
pub const BEFORE: &[(&str, &str)] = &[
    ("old/0001_first_tables.sql", include_str!("../sql/old/0001_first_tables.sql")),
    ("old/0002_streams.sql", include_str!("../sql/old/0002_streams.sql")),
    ("old/0003_privacy.sql", include_str!("../sql/old/0003_privacy.sql")),
    ("old/0004_reports.sql", include_str!("../sql/old/0004_reports.sql")),
    ("old/0005_finished_numbers.sql", include_str!("../sql/old/0005_finished_numbers.sql")),
    ("old/0006_path_endings.sql", include_str!("../sql/old/0006_path_endings.sql")),
    ("old/0007_ignored_networks.sql", include_str!("../sql/old/0007_ignored_networks.sql")),
    ("old/0008_lost.sql", include_str!("../sql/old/0008_lost.sql")),
    ("old/0009_close_waits.sql", include_str!("../sql/old/0009_close_waits.sql")),
];

/// Migrates a database of version 9 to the tables of the first of [`FILES`], except new tables.
pub const FROM_BEFORE: (&str, &str) =
    ("old/0010_to_0001_tables.sql", include_str!("../sql/old/0010_to_0001_tables.sql"));

/// [`FROM_BEFORE`] and then the first of [`FILES`], which creates the missing tables.
const FROM_BEFORE_TO_FILES: &str =
    concat!(include_str!("../sql/old/0010_to_0001_tables.sql"), "\n", include_str!("../sql/0001_tables.sql"));

/// One step: the version that it reaches, and its statements separated by `;`.
pub type Step = (u32, &'static str);

/// The steps that bring a database of version `found` to [`SCHEMA_VERSION`]; 0 is a database without tables.
pub fn steps_from(found: u32) -> Vec<Step> {
    let is_new = found == 0;
    let before = if is_new { [].iter() } else { BEFORE.iter() };
    let first = if is_new { FILES[0].1 } else { FROM_BEFORE_TO_FILES };
    let rest = FILES[1..].iter().map(|(_, sql)| *sql);
    let before = (1..).zip(before.map(|(_, sql)| *sql));
    let after = (BEFORE_VERSION + 1..).zip(std::iter::once(first).chain(rest));
    before.chain(after).filter(|(version, _)| *version > found).collect()
}

/// The statements of one step, without comments.
pub fn statements(sql: &str) -> impl Iterator<Item = String> {
    let code: String =
        sql.lines().filter(|line| !line.trim_start().starts_with("--")).map(|line| format!("{line}\n")).collect();
    code.split(';')
        .map(|statement| statement.trim().to_owned())
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .into_iter()
}

/// The statements of a new database.
pub fn all_statements() -> impl Iterator<Item = String> {
    FILES.iter().flat_map(|(_, sql)| statements(sql))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that has applied a file does not get later changes to it. `sql/b3sums` has the format of `b3sum`.
    #[test]
    fn files_are_frozen() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/b3sums");
        let expected = std::fs::read_to_string(path).expect("sql/b3sums can be read");
        let files = FILES.iter().chain(BEFORE).chain([&FROM_BEFORE]);
        let found: String = files.map(|(name, sql)| format!("{}  {name}\n", blake3::hash(sql.as_bytes()))).collect();
        assert_eq!(
            found, expected,
            "a file of SQL has changed: databases that have applied it stay as they are. Add a new file instead"
        );
    }

    #[test]
    fn every_version_has_a_way_to_the_newest_one() {
        let versions = |found| steps_from(found).into_iter().map(|(version, _)| version).collect::<Vec<_>>();
        let newest: Vec<u32> = (BEFORE_VERSION + 1..=SCHEMA_VERSION).collect();
        assert_eq!(versions(0), newest, "a new database gets no old file");
        for found in 1..=SCHEMA_VERSION {
            assert_eq!(versions(found), (found + 1..=SCHEMA_VERSION).collect::<Vec<_>>(), "from {found}");
        }
    }
}
