//! The check that the journal and ClickHouse fit each other.

use anyhow::Context;
use ingest::journal::Journal;
use std::time::Duration;

/// The text of the journal that has its end before beacons were accepted that no check of the ledger preceded; empty if there are none.
const UNCHECKED_END: &str = "unchecked_end";

/// The check that the journal does not end before what ClickHouse has counted of it. The aggregator checks this too, but beacons that were
/// accepted first would move the end of an older journal to an offset that is counted already, and its check would pass.
pub struct JournalCheck {
    /// The journal.
    pub journal: Journal,
    /// Offset after the last record that was there before.
    end: u64,
}

impl JournalCheck {
    /// To be called before beacons are accepted. The end is stored in the journal: a start that accepts beacons while ClickHouse is away may
    /// be followed by another one.
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
            return Err(aggregate::AggregateError::Behind { counted, end: self.end }.into());
        }
        self.journal.store_text(UNCHECKED_END, "").context("cannot write to the journal")
    }
}
