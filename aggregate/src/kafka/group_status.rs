//! The status of the group's member.

use crate::progress::Progress;
use schemas::StreamId;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The status of one partition.
#[derive(Clone, Debug)]
pub struct PartitionStatus {
    /// Its stream, once known.
    pub stream: Option<StreamId>,
    /// The progress of its loop.
    pub progress: Arc<Progress>,
    /// End of the log that the client has last received; none before the first.
    pub end: Option<u64>,
}

/// The status of the group's member.
#[derive(Debug, Default)]
pub struct GroupStatus {
    joined: AtomicBool,
    partitions: Mutex<BTreeMap<i32, PartitionStatus>>,
    ends: Mutex<HashMap<i32, u64>>,
    rebalances: AtomicU64,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GroupStatus {
    /// Whether this member has joined the group (it may still have no partition).
    pub fn joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    /// Number of rebalances.
    pub fn rebalances(&self) -> u64 {
        self.rebalances.load(Ordering::Relaxed)
    }

    /// The partitions that this member folds.
    pub fn partitions(&self) -> BTreeMap<i32, PartitionStatus> {
        let mut partitions = locked(&self.partitions).clone();
        let ends = locked(&self.ends);
        for (partition, status) in &mut partitions {
            status.end = ends.get(partition).copied();
        }
        partitions
    }

    /// This member has joined the group.
    pub(super) fn set_joined(&self) {
        self.joined.store(true, Ordering::Relaxed);
    }

    /// Partitions were assigned or revoked.
    pub(super) fn rebalanced(&self) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the ends of partitions' logs.
    pub(super) fn set_ends(&self, ends: impl IntoIterator<Item = (i32, u64)>) {
        locked(&self.ends).extend(ends);
    }

    /// Adds a partition.
    pub(super) fn add(&self, partition: i32) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let status = PartitionStatus { stream: None, progress: Arc::clone(&progress), end: None };
        locked(&self.partitions).insert(partition, status);
        progress
    }

    /// Records a partition's stream.
    pub(super) fn set_stream(&self, partition: i32, stream: StreamId) {
        if let Some(status) = locked(&self.partitions).get_mut(&partition) {
            status.stream = Some(stream);
        }
    }

    /// Removes a partition.
    pub(super) fn remove(&self, partition: i32) {
        locked(&self.partitions).remove(&partition);
    }
}
