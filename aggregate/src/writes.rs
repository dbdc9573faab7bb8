//! Pauses writes to ClickHouse during a backup, so that all tables of the backup are of one moment.

use std::sync::Arc;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// A lock on writing rows. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Writes(Arc<RwLock<()>>);

impl Writes {
    /// Waits until no backup is running. Rows that belong together (a flush, a close) are written under one permit.
    pub async fn permit(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.0).read_owned().await
    }

    /// Waits until writes that have started are finished. No write starts while the returned guard lives.
    pub async fn hold(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.0).write_owned().await
    }
}
