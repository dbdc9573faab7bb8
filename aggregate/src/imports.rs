//! Imports of access logs in ClickHouse: staged, published, removed.
//!
//! An import writes its rows to the same tables in a database of its own, which no report reads. Once all of them are there, its state is *staged*,
//! and they are attached to the tables that reports read: details first, totals after them, the ledger last. Attaching twice changes nothing, since
//! rows are absolute. So an import that dies before is staged is dropped, and one that dies later is finished by the next command.
//!
//! The ledger is last because a close counts the windows that the ledger has. A close in the meantime counts none of the import's rows, and
//! reports then add them to the closed figures.

use crate::close::{CloseStore, Closer, FIGURES, first_day};
use crate::failpoint::{self, Failpoint, Step};
use crate::sink::RowSink;
use crate::store::SummaryStore;
use clickhouse::{Client, Row};
use schemas::close::Frontier;
use schemas::tables::{ImportMonthRow, ImportRow};
use schemas::{Day, Month, StreamId};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use storage::{CallError, Work, in_time};

/// Longest time of one statement. An import's windows have many months, and its last window may be large.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);

/// The tables in the order in which an import is published, with the failpoint after each that has one.
const PUBLISHED: [(&str, Option<Step>); 10] = [
    ("page_daily", Some(Step::Page)),
    ("breakdown_window", Some(Step::Breakdown)),
    ("not_found_daily", Some(Step::NotFound)),
    ("rejection_daily", Some(Step::Rejection)),
    ("reported_missing_daily", None),
    ("rules_daily", None),
    ("robot_page_daily", Some(Step::RobotPage)),
    ("robot_daily", Some(Step::Robot)),
    ("site_hourly", Some(Step::Site)),
    ("ledger", Some(Step::Ledger)),
];

/// How far an import is, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImportState {
    /// Its files are read. Nothing of it counts.
    Running,
    /// All its rows are written, and are being published.
    Staged,
    /// All its rows count. Its months may not be closed yet.
    Published,
    /// Nothing is left to do.
    Complete,
    /// Its rows are being removed.
    Removing,
}

impl ImportState {
    const ALL: [ImportState; 5] = [
        ImportState::Running,
        ImportState::Staged,
        ImportState::Published,
        ImportState::Complete,
        ImportState::Removing,
    ];

    /// The only spelling.
    pub const fn name(self) -> &'static str {
        match self {
            ImportState::Running => "running",
            ImportState::Staged => "staged",
            ImportState::Published => "published",
            ImportState::Complete => "complete",
            ImportState::Removing => "removing",
        }
    }

    /// The state of a row; none if a later version wrote it.
    pub fn of(row: &ImportRow) -> Option<Self> {
        ImportState::ALL.into_iter().find(|state| state.name() == row.state)
    }

    /// The same import in this state.
    #[must_use]
    pub fn set(self, row: ImportRow) -> ImportRow {
        ImportRow { revision: self as u8, state: self.name().to_owned(), ..row }
    }
}

/// Why an import cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// ClickHouse refused, or did not answer in time.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The database of its rows is gone: a backup does not have it, or it was removed.
    #[error("its rows were not in the backup (or were removed): import the files again")]
    NoRows,
}

/// Why an import cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// ClickHouse refused, or did not answer in time.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The close of a month cannot be read.
    #[error(transparent)]
    Close(#[from] crate::close::CloseError),
    /// Closed months are numbers, from which only all views of a project can be removed.
    #[error(
        "these months were closed with the import's views and other figures of the same project, and the figures of a closed month cannot be \
         divided: {}",
        .0.join(", ")
    )]
    Mixed(Vec<String>),
}

/// Months of projects that have figures, and closed months.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Projects with figures, by month.
    pub projects: BTreeMap<Month, BTreeSet<String>>,
    /// Months that are closed.
    pub closed: BTreeSet<Month>,
}

impl Figures {
    /// Whether an import now would give a project's month its first figures, so that they can have visitors.
    pub fn are_first(&self, project: &str, month: Month) -> bool {
        !self.closed.contains(&month) && !self.projects.get(&month).is_some_and(|projects| projects.contains(project))
    }

    /// The first month with visitors of an import that would not have visitors now.
    pub fn changed<'m>(&self, months: &'m [ImportMonthRow]) -> Option<&'m ImportMonthRow> {
        months.iter().find(|of| of.has_visitors == 1 && !self.are_first(&of.project, month_of(of.month)))
    }
}

/// The imports of one database.
pub struct Imports {
    client: Client,
    database: String,
    failpoint: Option<Arc<Failpoint>>,
}

#[derive(Row, Deserialize)]
struct ProjectMonth {
    project: String,
    month: u16,
}

/// What a closed month of a project has.
#[derive(Row, Deserialize)]
struct ClosedFigures {
    views: u64,
    robots: u64,
    /// Reasons of refused beacons, and reported pages.
    others: u64,
}

impl ClosedFigures {
    /// Whether they are those of an import alone. None: an earlier removal that did not end has removed them.
    fn are_of(&self, import: &ImportMonthRow) -> bool {
        let views = (self.views, self.robots);
        self.others == 0 && (views == (import.views, import.robots) || views == (0, 0))
    }
}

fn month_of(day: u16) -> Month {
    Day(day).first_hour().month()
}

/// A fallible call to ClickHouse, with its time limit.
async fn call<T>(
    action: &'static str,
    call: impl Future<Output = Result<T, clickhouse::error::Error>>,
) -> Result<T, CallError> {
    in_time(STATEMENT_TIMEOUT, action, call).await
}

impl Closer {
    /// Imports of which the tables may have only some rows: they are being published or removed, or were when a process ended. A close now
    /// would count a part of their views. A removal whose ledger is gone has removed all rows.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn unfinished_imports(&self) -> Result<Vec<StreamId>, CallError> {
        let sql = "SELECT stream FROM import FINAL \
                   WHERE state = {staged:String} OR (state = {removing:String} AND stream IN (SELECT stream FROM ledger)) ORDER BY stream";
        let query = self.client.query(sql).param("staged", ImportState::Staged.name());
        let query = query.param("removing", ImportState::Removing.name());
        let streams = call("reading which imports are unfinished", query.fetch_all::<u64>()).await?;
        Ok(streams.into_iter().map(StreamId).collect())
    }
}

impl Imports {
    /// `client` has URL, `database` and credentials.
    pub fn new(client: Client, database: &str, failpoint: Option<Arc<Failpoint>>) -> Self {
        Imports { client: Work::Maintenance.client(client), database: database.to_owned(), failpoint }
    }

    /// The database of an import whose rows are not published yet.
    fn staging(&self, stream: StreamId) -> String {
        format!("{}_import_{stream}", self.database)
    }

    /// All imports, oldest first.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn all(&self) -> Result<Vec<ImportRow>, CallError> {
        let sql = "SELECT ?fields FROM import FINAL ORDER BY started, stream";
        call("reading the imports", self.client.query(sql).fetch_all()).await
    }

    /// What an import has of each project's month.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn months(&self, stream: StreamId) -> Result<Vec<ImportMonthRow>, CallError> {
        let sql = "SELECT ?fields FROM import_month FINAL WHERE stream = {stream:UInt64} ORDER BY month, project";
        call("reading an import's months", self.client.query(sql).param("stream", stream.0).fetch_all()).await
    }

    /// The figures there are.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn figures(&self) -> Result<Figures, CallError> {
        let sql = "SELECT DISTINCT project, toUInt16(toStartOfMonth(toDate(hour, 'UTC'))) AS month FROM site_hourly \
                   UNION DISTINCT SELECT project, toUInt16(month) AS month FROM month_closed";
        let rows =
            call("reading which months have figures", self.client.query(sql).fetch_all::<ProjectMonth>()).await?;
        let mut figures = Figures::default();
        for row in rows {
            figures.projects.entry(month_of(row.month)).or_default().insert(row.project);
        }
        let sql = "SELECT DISTINCT toUInt16(month) FROM month_close";
        let closed = call("reading which months are closed", self.client.query(sql).fetch_all::<u16>()).await?;
        figures.closed = closed.into_iter().map(month_of).collect();
        Ok(figures)
    }

    /// Whether a month has rows of other streams than those of imports.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn has_other_rows(&self, month: Month) -> Result<bool, CallError> {
        let sql = "SELECT count() > 0 FROM site_hourly WHERE toStartOfMonth(toDate(hour, 'UTC')) = toDate({month:UInt16}) \
                   AND stream NOT IN (SELECT stream FROM import)";
        let query = self.client.query(sql).param("month", first_day(month));
        call("reading whose rows a month has", query.fetch_one()).await
    }

    /// Starts an import. The returned store writes its rows, which no report reads.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn start(&self, row: ImportRow) -> Result<SummaryStore, CallError> {
        let stream = StreamId(row.stream);
        // First, so that the database of a process that dies is found.
        self.put(ImportState::Running.set(row)).await?;
        let staging = self.staging(stream);
        self.run(&format!("CREATE DATABASE {staging} ENGINE = Atomic")).await?;
        for (table, _) in PUBLISHED {
            self.run(&format!("CREATE TABLE {staging}.{table} AS {}.{table}", self.database)).await?;
        }
        // A window of an import may have any number of months, which are partitions.
        let client = self.client.clone().with_database(staging).with_setting("max_partitions_per_insert_block", "0");
        let store = SummaryStore::new(client, STATEMENT_TIMEOUT);
        Ok(store.with_failpoint(self.failpoint.clone()))
    }

    /// States that all rows of an import are written.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn stage(&self, row: ImportRow, months: &[ImportMonthRow]) -> Result<ImportRow, CallError> {
        call("writing an import's months", storage::insert(&self.client, "import_month", months)).await?;
        self.set(row, ImportState::Staged).await
    }

    /// Attaches the rows of a staged import to the tables that reports read. Safe to call again.
    ///
    /// # Errors
    /// [`PublishError::NoRows`]: there is nothing to attach. ClickHouse refused, or did not answer in time.
    pub async fn publish(&self, row: ImportRow) -> Result<ImportRow, PublishError> {
        let staging = self.staging(StreamId(row.stream));
        // Every staged import has rows in its ledger, which were written last.
        let sql =
            "SELECT sum(rows) FROM system.parts WHERE active AND database = {database:String} AND table = 'ledger'";
        let query = self.client.query(sql).param("database", &staging);
        if call("reading an import's ledger", query.fetch_one::<u64>()).await? == 0 {
            return Err(PublishError::NoRows);
        }
        for (table, step) in PUBLISHED {
            let sql = "SELECT DISTINCT partition_id FROM system.parts WHERE active AND database = {database:String} AND table = {table:String}";
            let query = self.client.query(sql).param("database", &staging).param("table", table);
            for partition in call("reading an import's rows", query.fetch_all::<String>()).await? {
                let from = format!("PARTITION ID '{partition}' FROM {staging}.{table}");
                self.run(&format!("ALTER TABLE {}.{table} ATTACH {from}", self.database)).await?;
            }
            if let Some(step) = step {
                failpoint::pass(self.failpoint.as_deref(), step);
            }
        }
        Ok(self.set(row, ImportState::Published).await?)
    }

    /// States that nothing is left to do for a published import.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn complete(&self, row: ImportRow) -> Result<ImportRow, CallError> {
        self.run(&format!("DROP DATABASE IF EXISTS {} SYNC", self.staging(StreamId(row.stream)))).await?;
        self.set(row, ImportState::Complete).await
    }

    /// Changes the state of an import.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn set(&self, row: ImportRow, state: ImportState) -> Result<ImportRow, CallError> {
        let row = state.set(row);
        self.put(row.clone()).await?;
        Ok(row)
    }

    /// Removes what is left of an import that was never staged.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn abandon(&self, stream: StreamId) -> Result<(), CallError> {
        self.run(&format!("DROP DATABASE IF EXISTS {} SYNC", self.staging(stream))).await?;
        self.forget(stream).await
    }

    /// Removes what is left of an import that was staged and cannot be published. No month was closed with its rows.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn discard(&self, stream: StreamId) -> Result<(), CallError> {
        self.remove_rows(stream).await?;
        self.abandon(stream).await
    }

    /// Removes the rows of an import from the tables that reports read.
    async fn remove_rows(&self, stream: StreamId) -> Result<(), CallError> {
        SummaryStore::new(self.client.clone(), STATEMENT_TIMEOUT).remove_from(stream, 0).await
    }

    /// Removes an import as a whole. Closed figures are removed where the project's month has no views but the import's; a month that has no
    /// figures then is no longer closed. Safe to call again.
    ///
    /// # Errors
    /// [`RemoveError::Mixed`]: nothing was removed by a first call. ClickHouse refused, or did not answer in time: the next call continues.
    pub async fn remove(&self, row: ImportRow) -> Result<(), RemoveError> {
        let stream = StreamId(row.stream);
        let months = self.months(stream).await?;
        if ImportState::of(&row) == Some(ImportState::Removing) {
            // Closes wait for these rows, even if the figures cannot be removed.
            self.remove_rows(stream).await?;
        }
        let closed = self.closed_with(stream, &months).await?;
        self.set(row, ImportState::Removing).await?;
        self.remove_rows(stream).await?;
        for of in &closed {
            for table in FIGURES {
                let sql = format!(
                    "ALTER TABLE {table} DELETE WHERE project = {{project:String}} AND month = toDate({})",
                    of.month
                );
                let query = self.client.query(&sql).param("project", &of.project);
                call("removing an import's figures", query.execute()).await?;
            }
        }
        for month in closed.iter().map(|of| of.month).collect::<BTreeSet<u16>>() {
            let any = FIGURES.map(|table| format!("SELECT count() AS rows FROM {table} WHERE month = toDate({month})"));
            let sql = format!("SELECT sum(rows) FROM ({})", any.join(" UNION ALL "));
            if call("reading which figures are left", self.client.query(&sql).fetch_one::<u64>()).await? == 0 {
                self.run(&format!("ALTER TABLE month_close DELETE WHERE month = toDate({month})")).await?;
            }
        }
        Ok(self.forget(stream).await?)
    }

    /// The months that were closed with views of the import.
    async fn closed_with(
        &self,
        stream: StreamId,
        months: &[ImportMonthRow],
    ) -> Result<Vec<ImportMonthRow>, RemoveError> {
        let closer = Closer::new(self.client.clone());
        let (mut closed, mut mixed) = (Vec::new(), Vec::new());
        for of in months {
            let Some(winner) = closer.winner(month_of(of.month)).await? else { continue };
            if !Frontier::of(&winner).0.contains_key(&stream.0) {
                continue;
            }
            let found = self.closed_figures(of, winner.run).await?;
            if !found.are_of(of) {
                mixed.push(format!("{} of {}", month_of(of.month), of.project));
            }
            closed.push(of.clone());
        }
        if mixed.is_empty() { Ok(closed) } else { Err(RemoveError::Mixed(mixed)) }
    }

    /// The closed figures of a project's month.
    async fn closed_figures(&self, of: &ImportMonthRow, run: u64) -> Result<ClosedFigures, CallError> {
        let month_of_run = "WHERE project = {project:String} AND month = toDate({month:UInt16}) AND run = {run:UInt64}";
        // No import has refused beacons or reported pages.
        let sql = format!(
            "SELECT sum(arraySum(hour_views)) AS views, sum(arraySum(day_bots)) AS robots, sum(length(rejected_reasons)) + \
             assumeNotNull((SELECT count() FROM month_closed_reported_missing {month_of_run})) AS others FROM month_closed FINAL {month_of_run}"
        );
        let query = self.client.query(&sql).param("project", &of.project).param("month", of.month).param("run", run);
        call("reading a closed month", query.fetch_one()).await
    }

    /// Removes the rows about an import.
    async fn forget(&self, stream: StreamId) -> Result<(), CallError> {
        for table in ["import_month", "import"] {
            self.run(&format!("ALTER TABLE {table} DELETE WHERE stream = {}", stream.0)).await?;
        }
        Ok(())
    }

    async fn put(&self, row: ImportRow) -> Result<(), CallError> {
        call("writing an import's state", storage::insert(&self.client, "import", &[row])).await
    }

    async fn run(&self, sql: &str) -> Result<(), CallError> {
        call("writing an import", self.client.query(sql).execute()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::DAILY;

    #[test]
    fn a_month_with_visitors_is_changed_by_figures_and_by_its_close() {
        let month = |number| Month::new(2026, number).unwrap();
        let row = |project: &str, number, has_visitors| ImportMonthRow {
            stream: 1,
            project: project.to_owned(),
            month: first_day(month(number)),
            views: 1,
            robots: 0,
            has_visitors,
        };
        let months = [row("docs", 8, 0), row("docs", 9, 1), row("other", 10, 1)];
        let figures = |of: &[(u8, &str)], closed: &[u8]| Figures {
            projects: of
                .iter()
                .map(|(number, project)| (month(*number), BTreeSet::from([(*project).to_owned()])))
                .collect(),
            closed: closed.iter().copied().map(month).collect(),
        };
        assert_eq!(figures(&[], &[]).changed(&months), None);
        assert_eq!(figures(&[(8, "docs"), (9, "other"), (10, "docs")], &[8, 11]).changed(&months), None);
        assert_eq!(figures(&[(9, "docs")], &[]).changed(&months), Some(&months[1]));
        assert_eq!(figures(&[], &[10]).changed(&months), Some(&months[2]));
    }

    #[test]
    fn closed_figures_are_an_imports_own_only_if_they_are_its_views() {
        let import =
            ImportMonthRow { stream: 1, project: "docs".to_owned(), month: 0, views: 3, robots: 2, has_visitors: 1 };
        for (views, robots, others, expected) in
            [(3, 2, 0, true), (0, 0, 0, true), (4, 2, 0, false), (3, 3, 0, false), (3, 2, 1, false), (0, 0, 1, false)]
        {
            assert_eq!(ClosedFigures { views, robots, others }.are_of(&import), expected, "{views} {robots} {others}");
        }
    }

    #[test]
    fn every_summary_is_published_with_the_ledger_last() {
        let mut tables: Vec<&str> = PUBLISHED.iter().map(|(table, _)| *table).collect();
        assert_eq!(tables.pop(), Some("ledger"));
        assert_eq!(tables.pop(), Some("site_hourly"));
        assert_eq!(tables.iter().collect::<BTreeSet<_>>(), DAILY.iter().collect());
    }
}
