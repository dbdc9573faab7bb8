//! Runs the member of the group on a thread of its own.

use super::group_config::GroupConfig;
use super::group_error::GroupError;
use super::member::Member;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;

/// Folds the partitions that the group assigns to this member. It ends when `shutdown` resolves, after writing and committing what is
/// folded.
///
/// # Errors
/// Continuing would give wrong figures.
pub async fn run_group(config: GroupConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), GroupError> {
    let runtime = Handle::current();
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, mut outcome_of_thread) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("kafka-group".to_owned())
        .spawn({
            let stop = Arc::clone(&stop);
            move || {
                let member = std::panic::AssertUnwindSafe(|| Member::start(config, runtime)?.serve(&stop));
                let outcome = std::panic::catch_unwind(member)
                    .unwrap_or_else(|_| Err(GroupError::Internal("the group's thread panicked".to_owned())));
                let _ = sender.send(outcome);
            }
        })
        .map_err(GroupError::Thread)?;
    tokio::pin!(shutdown);
    let gone = || Err(GroupError::Internal("the group's thread outcome_of_thread without a result".to_owned()));
    tokio::select! {
        outcome = &mut outcome_of_thread => outcome.unwrap_or_else(|_| gone()),
        () = &mut shutdown => {
            stop.store(true, Ordering::SeqCst);
            outcome_of_thread.await.unwrap_or_else(|_| gone())
        }
    }
}
