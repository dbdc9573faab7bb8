//! Interruptions of a run: Ctrl-C, SIGTERM, or a closed terminal. Child processes are in separate process groups, so a terminal signals the load test
//! alone, and the load test decides what ends when.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that request an end. Once this exists, none of them ends the process by itself.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    /// Starts to listen.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hangup: of(SignalKind::hangup())?,
        })
    }

    /// The next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// Runs `work` until it is done, interrupted, or takes longer than `within`. In the latter two cases `work` is dropped, and its child processes end.
///
/// # Errors
/// Those of `work`; an interruption; the time limit.
pub async fn bounded<T>(within: Duration, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupts = Interrupts::listen()?;
    tokio::select! {
        outcome = tokio::time::timeout(within, work) => match outcome {
            Ok(outcome) => outcome,
            Err(_) => bail!("given up after {} s", within.as_secs()),
        },
        () = interrupts.next() => bail!("interrupted"),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn work_ends_by_itself_by_a_signal_or_by_the_clock() {
        // One test, since signals concern the whole process: listening must precede sending.
        let mut interrupts = Interrupts::listen().unwrap();
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            kill_process(getpid(), signal).unwrap();
            tokio::time::timeout(Duration::from_secs(10), interrupts.next()).await.expect("a signal is heard");
        }
        let minute = Duration::from_secs(60);
        assert_eq!(bounded(minute, async { Ok(7) }).await.unwrap(), 7);
        let work = async {
            kill_process(getpid(), Signal::TERM)?;
            std::future::pending::<anyhow::Result<()>>().await
        };
        assert_eq!(bounded(minute, work).await.unwrap_err().to_string(), "interrupted");
        let slow = bounded(Duration::from_millis(1), std::future::pending::<anyhow::Result<()>>()).await;
        assert_eq!(slow.unwrap_err().to_string(), "given up after 0 s");
    }
}
