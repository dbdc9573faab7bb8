//! The check that the journal and ClickHouse belong together.

use aggregate::sink::RowSink;
use anyhow::Context;
use ingest::journal::Journal;
use std::time::Duration;

/// Name of a text in the journal: the journal's end before a start accepted beacons without a check of the ledger; empty if there was none.
const UNCHECKED_END: &str = "unchecked_end";

/// Checks that the journal does not end before the last record that ClickHouse has counted of it. The aggregator checks this too. But beacons that
/// were accepted first would move the end of an older journal to an offset that is counted already, and the aggregator's check would pass.
pub struct JournalCheck {
    /// The journal.
    pub journal: Journal,
    /// The journal's end before any unchecked beacons were accepted.
    end: u64,
}

impl JournalCheck {
    /// Call this before beacons are accepted. The end is stored in the journal, because a start that accepts beacons while ClickHouse is unavailable
    /// may be followed by another one.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub fn open(journal: &Journal) -> anyhow::Result<Self> {
        let end = *journal.end().borrow();
        let earlier = journal.text(UNCHECKED_END).context("cannot read the journal")?;
        let end = earlier.and_then(|text| text.parse().ok()).map_or(end, |earlier: u64| earlier.min(end));
        journal.store_text(UNCHECKED_END, &end.to_string()).context("cannot write to the journal")?;
        Ok(JournalCheck { journal: journal.clone(), end })
    }

    /// # Errors
    /// [`aggregate::AggregateError::Behind`] if the journal is older than ClickHouse's data, or ClickHouse or the journal failed.
    pub async fn run(&self, client: clickhouse::Client, timeout: Duration) -> anyhow::Result<()> {
        let store = aggregate::store::SummaryStore::new(client, timeout);
        let ledger = store.ledger_end(self.journal.stream()).await.context("cannot read the ledger")?;
        let counted = ledger.map_or(0, |ledger| ledger.next_offset);
        if counted > self.end {
            return Err(aggregate::AggregateError::Behind { counted, log_end: self.end }.into());
        }
        self.journal.store_text(UNCHECKED_END, "").context("cannot write to the journal")
    }
}
