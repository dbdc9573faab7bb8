//! Whether a due month may be closed: only when the ledger has all records that the logs had accepted when the month became due.
//!
//! The first aggregator that finds a month due records the end of each live stream (table `month_due`). Every record that was accepted
//! before `close_after_hours` had passed is below these ends. The month may be closed when the ledger has counted each stream up to its
//! recorded end. An idle stream is already counted up to its end; a busy one passes its recorded end with the next flush.

use crate::close::{CloseError, CloseStore, Closer};
use schemas::{Month, StreamId};
use std::collections::BTreeMap;
use std::fmt;

/// The range of a live stream that its log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// The stream.
    pub stream: u64,
    /// Offset of the oldest record.
    pub start: u64,
    /// Offset after the newest record.
    pub end: u64,
}

/// How far a stream is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The stream.
    pub stream: u64,
    /// The ledger has counted the records below this offset; none for a stream without a row in the ledger.
    pub counted: Option<u64>,
    /// Offset of the oldest record that the log holds.
    pub start: u64,
    /// Offset after the last record that the close waits for.
    pub end: u64,
}

/// Records of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamRecords {
    /// The stream.
    pub stream: u64,
    /// Number of records.
    pub records: u64,
}

/// The decision from the positions of all live streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Close the month. The log no longer holds these uncounted records, so no close can contain them.
    Close {
        /// Streams with such records.
        lost: Vec<StreamRecords>,
    },
    /// These records are accepted and not counted yet.
    Wait(Vec<StreamRecords>),
}

impl fmt::Display for StreamRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records of stream {}", self.records, StreamId(self.stream))
    }
}

/// `3 records of stream …, 5 records of stream …`.
pub fn listed(streams: &[StreamRecords]) -> String {
    streams.iter().map(StreamRecords::to_string).collect::<Vec<_>>().join(", ")
}

/// Decides whether a due month may be closed.
pub fn decide(positions: &[StreamPosition]) -> Decision {
    let (mut waits, mut lost) = (Vec::new(), Vec::new());
    for &StreamPosition { stream, counted, start, end } in positions {
        let waits_for = end.saturating_sub(counted.unwrap_or(0).max(start));
        if waits_for > 0 {
            waits.push(StreamRecords { stream, records: waits_for });
        }
        // The ledger's rows of a stream expire, so a stream without a row may have been counted long ago.
        let gone = counted.map_or(0, |counted| start.min(end).saturating_sub(counted));
        if gone > 0 {
            lost.push(StreamRecords { stream, records: gone });
        }
    }
    if waits.is_empty() { Decision::Close { lost } } else { Decision::Wait(waits) }
}

impl Closer {
    /// Decides whether a month may be closed. `logs` are the ranges of all live streams, read after the month was found to be due; their
    /// ends are recorded the first time. Streams that are not among them are retired and do not delay the close.
    ///
    /// # Errors
    /// ClickHouse refused or went away.
    pub async fn decide(&self, month: Month, logs: &[LogRange]) -> Result<Decision, CloseError> {
        decide_for(self, month, logs).await
    }

    /// The same without access to the logs, by the ends that an aggregator recorded; none if no aggregator has.
    ///
    /// # Errors
    /// ClickHouse refused or went away.
    pub async fn decide_by_recorded_ends(&self, month: Month) -> Result<Option<Decision>, CloseError> {
        let Some(recorded) = self.recorded_ends(month).await? else { return Ok(None) };
        let counted = self.counted().await?;
        let position = |(&stream, &end): (&u64, &u64)| StreamPosition {
            stream,
            counted: counted.get(&stream).copied(),
            start: 0,
            end,
        };
        Ok(Some(decide(&recorded.iter().map(position).collect::<Vec<_>>())))
    }
}

/// [`Closer::decide`].
pub(crate) async fn decide_for(
    store: &impl CloseStore,
    month: Month,
    logs: &[LogRange],
) -> Result<Decision, CloseError> {
    let recorded = store.recorded_ends(month).await?;
    let ends: BTreeMap<u64, u64> = logs
        .iter()
        .map(|log| {
            let recorded = recorded.as_ref().and_then(|recorded| recorded.get(&log.stream));
            (log.stream, recorded.map_or(log.end, |&recorded| recorded.min(log.end)))
        })
        .collect();
    if recorded.as_ref() != Some(&ends) {
        store.record_ends(month, &ends).await?;
    }
    let counted = store.counted().await?;
    let position = |log: &LogRange| StreamPosition {
        stream: log.stream,
        counted: counted.get(&log.stream).copied(),
        start: log.start,
        end: ends[&log.stream],
    };
    Ok(decide(&logs.iter().map(position).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(stream: u64, counted: Option<u64>, start: u64, end: u64) -> StreamPosition {
        StreamPosition { stream, counted, start, end }
    }

    fn close() -> Decision {
        Decision::Close { lost: Vec::new() }
    }

    #[test]
    fn a_month_closes_when_every_stream_is_counted_up_to_its_noted_end() {
        assert_eq!(decide(&[]), close());
        // Idle, busy (counted past its recorded end), never used.
        assert_eq!(decide(&[at(1, Some(40), 0, 40), at(2, Some(90), 20, 40), at(3, None, 0, 0)]), close());
    }

    #[test]
    fn a_stream_that_lags_delays_it() {
        let lagging = [at(1, Some(40), 0, 40), at(2, Some(39), 0, 40), at(3, None, 0, 7)];
        let waits = [StreamRecords { stream: 2, records: 1 }, StreamRecords { stream: 3, records: 7 }];
        assert_eq!(decide(&lagging), Decision::Wait(waits.to_vec()));
    }

    #[test]
    fn records_that_the_log_no_longer_holds_do_not_delay_it_and_are_stated() {
        let lost = vec![StreamRecords { stream: 1, records: 20 }];
        assert_eq!(decide(&[at(1, Some(40), 60, 60)]), Decision::Close { lost: lost.clone() });
        assert_eq!(decide(&[at(1, Some(40), 90, 60)]), Decision::Close { lost });
        // The close waits for the uncounted records that the log still has.
        let waits = vec![StreamRecords { stream: 1, records: 10 }];
        assert_eq!(decide(&[at(1, Some(40), 50, 60)]), Decision::Wait(waits));
        // Its rows of the ledger have expired, and its records with them.
        assert_eq!(decide(&[at(1, None, 60, 60)]), close());
    }
}
