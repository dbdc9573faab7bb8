//! The close of a month: figures stay, sketches are removed.
//!
//! A process that closes a month is a *run* with a random number. It
//! 1. records the open window of each stream: all windows below are closed, so their rows are final;
//! 2. adds up the rows of the closed windows, and estimates visitors from all existing sketches;
//! 3. writes the results to `month_closed…` under its number, and finally a row of `month_close`;
//! 4. waits, and reads which run finished first: only the figures of that run count;
//! 5. removes the rows that the figures contain from the tables of open months, and the sketches of all other rows.
//!
//! A run that dies during step 3 leaves rows that no query reads; the next run starts from step 1. Concurrent runs on any machines write
//! the same numbers, and only one counts.
//!
//! Nothing is removed before the first run has certainly finished. A run that read while rows were being removed therefore finished later,
//! and does not count. Rows can come back: an aggregator folds a window again, or an insert of a dead process arrives late. They are
//! recognised by their window, excluded from reports, and removed by the next sweep.

mod clickhouse_steps;
mod close_error;
mod close_store;
mod closer;
mod figures;
mod month_tables;
mod pages;
mod site_month;
mod sketches;
mod sweep;

use chrono::{DateTime, Utc};
pub use close_error::CloseError;
pub(crate) use close_error::failed;
pub(crate) use close_store::CloseStore;
use close_store::{MonthParts, Run};
pub use closer::Closer;
pub(crate) use month_tables::{FIGURES, first_day};
use schemas::Month;
use schemas::close::SETTLE;
use schemas::tables::MonthCloseRow;
pub(crate) use sketches::{estimate, merge};
use std::time::Duration;

/// Result of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The month.
    pub month: Month,
    /// Number of projects with figures.
    pub projects: u64,
    /// Views in these figures.
    pub views: u64,
    /// Whether the figures of this run count. If not, another run finished earlier.
    pub by_this_run: bool,
}

impl Closer {
    /// Months that ended `after` before `now` or earlier and are not closed yet. Closed months are swept. Months without rows need no
    /// close.
    ///
    /// # Errors
    /// ClickHouse refused or went away.
    pub async fn due(&self, now: DateTime<Utc>, after: Duration) -> Result<Vec<Month>, CloseError> {
        due(self, now, after).await
    }

    /// Whether the month is closed already.
    ///
    /// # Errors
    /// ClickHouse refused or went away.
    pub async fn is_closed(&self, month: Month) -> Result<bool, CloseError> {
        Ok(self.winner(month).await?.is_some())
    }

    /// Closes a month that has ended; the caller has verified that. If it is closed already, only sweeps.
    ///
    /// # Errors
    /// ClickHouse refused or went away, or a stored sketch is invalid.
    pub async fn close(&self, month: Month) -> Result<Closed, CloseError> {
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(CloseError::Random)?;
        close(self, month, u64::from_le_bytes(number)).await
    }
}

/// [`Closer::due`].
async fn due(store: &impl CloseStore, now: DateTime<Utc>, after: Duration) -> Result<Vec<Month>, CloseError> {
    let mut due = Vec::new();
    for MonthParts { month, has_rows } in store.months_with_parts().await? {
        if !is_due(month, now, after) {
            continue;
        }
        match settled(store, month).await? {
            Some(winner) => store.sweep(month, &winner).await?,
            // A close without rows would count nothing, for good.
            None if !has_rows => {}
            None => due.push(month),
        }
    }
    Ok(due)
}

/// The run that closed the month, if there is one. Returns once the result is certain, and reads that started without knowing of the
/// close have finished.
async fn settled(store: &impl CloseStore, month: Month) -> Result<Option<MonthCloseRow>, CloseError> {
    let Some(winner) = store.winner(month).await? else { return Ok(None) };
    let since = Duration::from_micros(u64::try_from(store.now_micros().await? - winner.finished).unwrap_or(0));
    let left = SETTLE.saturating_sub(since);
    if left.is_zero() {
        return Ok(Some(winner));
    }
    tokio::time::sleep(left).await;
    store.winner(month).await
}

/// [`Closer::close`] by the run with this number.
async fn close(store: &impl CloseStore, month: Month, number: u64) -> Result<Closed, CloseError> {
    if let Some(winner) = settled(store, month).await? {
        store.sweep(month, &winner).await?;
        return Ok(Closed { month, projects: winner.projects, views: winner.views, by_this_run: false });
    }
    let run = Run { month, number, frontier: store.open_windows().await? };
    let written = store.write_figures(&run).await?;
    store.finish(&run, written).await?;
    tokio::time::sleep(SETTLE).await;
    let Some(winner) = store.winner(month).await? else {
        // The retention period ended before the close: ClickHouse's retention removes the figures and the rows behind them.
        return Ok(Closed { month, projects: written.projects, views: written.views, by_this_run: true });
    };
    store.sweep(month, &winner).await?;
    Ok(Closed { month, projects: winner.projects, views: winner.views, by_this_run: winner.run == number })
}

/// Whether a month ended `after` before `now`, or earlier.
pub fn is_due(month: Month, now: DateTime<Utc>, after: Duration) -> bool {
    month.end_hour().start() + after <= now
}

#[cfg(test)]
mod tests;
