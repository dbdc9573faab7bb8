//! The day of each token's last use, so that a maintainer sees which tokens are no longer needed. Best effort, and no finer than a day, for
//! the privacy of those who read reports.

use super::token::TokenId;
use chrono::{DateTime, Utc};
use clickhouse::Client;
use clickhouse::error::Error as ClickHouseError;
use schemas::tables::TokenUseRow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Days that this process has noted, each written once.
#[derive(Default)]
pub(super) struct Uses(Mutex<Days>);

#[derive(Default)]
struct Days {
    written: HashMap<TokenId, u32>,
    waiting: BTreeMap<TokenId, u32>,
}

impl Uses {
    /// Notes that the token was used at `now`.
    pub(super) fn note(&self, token: TokenId, now: DateTime<Utc>) {
        let day = u32::try_from(now.timestamp() / DAY * DAY).unwrap_or(0);
        let mut days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if days.written.get(&token) != Some(&day) {
            days.waiting.insert(token, day);
        }
    }

    fn take(&self) -> BTreeMap<TokenId, u32> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting)
    }

    /// Writes what is not written yet: at most one row per token and day.
    pub(super) async fn write(&self, client: &Client) -> Result<(), ClickHouseError> {
        let waiting = self.take();
        if waiting.is_empty() {
            return Ok(());
        }
        let row = |(token, &used): (&TokenId, &u32)| TokenUseRow { id: token.to_string(), used };
        let rows: Vec<TokenUseRow> = waiting.iter().map(row).collect();
        let stored = storage::insert(client, "token_use", &rows).await;
        let mut days = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match stored {
            Ok(()) => days.written.extend(waiting),
            Err(_) => {
                for (token, used) in waiting {
                    // A use noted meanwhile is newer.
                    days.waiting.entry(token).or_insert(used);
                }
            }
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_day_is_noted_once_and_kept_until_it_is_written() {
        let (uses, token) = (Uses::default(), "00000000000000ab".parse().unwrap());
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        uses.note(token, at(3 * DAY + 5));
        uses.note(token, at(3 * DAY + 50_000));
        // Nothing listens on port 1.
        let away = Client::default().with_url("http://127.0.0.1:1");
        assert!(uses.write(&away).await.is_err());
        assert_eq!(uses.take(), BTreeMap::from([(token, 3 * DAY as u32)]));
        uses.0.lock().unwrap().written.insert(token, 3 * DAY as u32);
        uses.note(token, at(3 * DAY + 60_000));
        assert!(uses.take().is_empty());
        uses.note(token, at(4 * DAY));
        assert_eq!(uses.take().len(), 1);
    }
}
