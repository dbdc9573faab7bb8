//! ClickHouse, as a close uses it.

use super::close_error::{CloseError, failed};
use clickhouse::{Client, Row, RowOwned, RowWrite};
use storage::Work;

/// Closes months.
#[derive(Clone)]
pub struct Closer {
    pub(crate) client: Client,
}

impl Closer {
    /// `client` has URL, database and credentials.
    pub fn new(client: Client) -> Self {
        Closer { client: Work::Maintenance.client(client) }
    }

    pub(super) async fn any(&self, from: &str) -> Result<bool, CloseError> {
        let query = self.client.query(&format!("SELECT 1 FROM {from} LIMIT 1"));
        let found = query.fetch_optional::<u8>().await.map_err(failed("checking for rows of a closed month"))?;
        Ok(found.is_some())
    }

    pub(super) async fn insert<T>(&self, table: &str, rows: &[T]) -> Result<(), CloseError>
    where
        T: RowOwned + RowWrite + for<'a> Row<Value<'a> = T>,
    {
        storage::insert(&self.client, table, rows).await.map_err(failed("writing a month's figures"))
    }
}
