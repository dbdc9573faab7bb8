//! The only function that writes rows.

use crate::Work;
use clickhouse::error::Error;
use clickhouse::{Client, Row, RowOwned, RowWrite};

/// Inserts all rows, and returns when they are stored. Does nothing without rows.
///
/// Insert deduplication and asynchronous inserts are switched off: the first may drop rows that differ, the second acknowledges before they
/// are stored. The tables themselves fsync each part (see `schemas/sql`), so that an acknowledged row survives a power cut. Every row has
/// its key once, so ClickHouse has nothing to replace within one insert.
///
/// # Errors
/// ClickHouse refused or went away; which rows are stored is unknown.
pub async fn insert<T>(client: &Client, table: &str, rows: &[T]) -> Result<(), Error>
where
    T: RowOwned + RowWrite + for<'a> Row<Value<'a> = T>,
{
    if rows.is_empty() {
        return Ok(());
    }
    let mut insert = Work::Write.client(client.clone()).insert::<T>(table).await?;
    for row in rows {
        insert.write(row).await?;
    }
    insert.end().await
}
