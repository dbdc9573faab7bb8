//! Supervises the embedded ClickHouse: restarts an engine that ends, or that does not answer for a while.
//!
//! During a restart beacons are still written to the journal and reports are refused, so nothing is lost. The engine's URL stays the same over
//! restarts, so its clients need no change.

use super::engine::{Engine, ping};
use crate::shell::until;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Interval between two checks of a running engine. Together with [`ANSWER_WAIT`] it is below a second: a report may hang for that long.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the engine may take to answer a check before it counts as unavailable. It answers from a constant, on a separate thread.
const ANSWER_WAIT: Duration = Duration::from_millis(700);
/// An engine that has not answered for this long is killed and restarted. The limit is generous: an engine that is busy, or waits for its disk, still
/// answers.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Pause before the first restart; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two restarts.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After this uptime the pause is reset to [`FIRST_PAUSE`].
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The running supervisor of one engine.
pub struct Supervisor {
    state: Arc<State>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// The engine's state, shared with the code that reports it.
pub struct State {
    answers: watch::Sender<bool>,
    restarts: AtomicU64,
    supervised: bool,
}

impl State {
    /// Whether it answers now.
    pub fn answers(&self) -> bool {
        *self.answers.borrow()
    }

    /// Whether it is supervised. An operator's server is not, and counts as answering.
    pub fn is_supervised(&self) -> bool {
        self.supervised
    }

    /// Number of restarts since the start of the service.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Resolves when the engine has been unavailable for `time` without a break.
    pub async fn away_for(&self, time: Duration) {
        let mut answers = self.answers.subscribe();
        loop {
            let _ = answers.wait_for(|answers| !answers).await;
            if tokio::time::timeout(time, answers.wait_for(|answers| *answers)).await.is_err() {
                return;
            }
        }
    }
}

/// How a run of the engine ended.
enum Ended {
    Stopped,
    Itself(String),
    Silent,
}

impl Supervisor {
    /// Takes over an engine that answers. An operator's server is not supervised and counts as answering.
    pub fn start(engine: Engine) -> Self {
        let state = Arc::new(State {
            answers: watch::Sender::new(true),
            restarts: AtomicU64::new(0),
            supervised: engine.port().is_some(),
        });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(keep(engine, Arc::clone(&state), stopped));
        Supervisor { state, stop, task }
    }

    /// The engine's state.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Whether the engine answers; changes are seen by the receiver.
    pub fn answers(&self) -> watch::Receiver<bool> {
        self.state.answers.subscribe()
    }

    /// Stops the engine, or abandons its restart. Call it when no query is running any more.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the supervisor of ClickHouse failed");
        }
    }
}

async fn keep(mut engine: Engine, state: Arc<State>, stopped: watch::Receiver<bool>) {
    let (mut pause, port) = (FIRST_PAUSE, engine.port());
    loop {
        let started = Instant::now();
        let ended = tokio::select! {
            biased;
            () = until(stopped.clone()) => Ended::Stopped,
            status = engine.died() => Ended::Itself(status.to_string()),
            () = silent(port, &state) => Ended::Silent,
        };
        let happened = match ended {
            Ended::Stopped => return end(engine, state.answers()).await,
            Ended::Itself(status) => format!("ClickHouse ended by itself ({status})"),
            Ended::Silent => format!("ClickHouse has answered nothing for {} s", SILENCE_MAX.as_secs()),
        };
        state.answers.send_replace(false);
        tracing::error!(
            last_words = engine.last_words(),
            "{happened} and is started again. Nothing is lost: beacons go on into the journal and are counted afterwards; reports answer \
             503 meanwhile. If this comes again, check memory (the kernel's log names a process that it killed) and free disk space"
        );
        if started.elapsed() >= STABLE_AFTER {
            pause = FIRST_PAUSE;
        }
        let away_since = Instant::now();
        tokio::select! {
            biased;
            () = until(stopped.clone()) => return end(engine, false).await,
            () = restart(&mut engine, &mut pause) => {}
        }
        state.restarts.fetch_add(1, Ordering::Relaxed);
        state.answers.send_replace(true);
        tracing::info!("ClickHouse is back after {:.1} s", away_since.elapsed().as_secs_f64());
    }
}

/// Tries until the engine answers, with growing pauses.
async fn restart(engine: &mut Engine, pause: &mut Duration) {
    let mut logged = String::new();
    loop {
        sleep(*pause).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
        let Err(error) = engine.restart().await else { return };
        let error = error.to_string();
        if logged != error {
            tracing::warn!(error, "ClickHouse could not be started; it is tried again, at least once a minute");
            logged = error;
        }
    }
}

/// Resolves once the engine has not answered for [`SILENCE_MAX`]; updates `state` until then.
async fn silent(port: Option<u16>, state: &State) {
    let Some(port) = port else { return std::future::pending().await };
    let mut answered = Instant::now();
    while answered.elapsed() < SILENCE_MAX {
        let answers = ping(port, ANSWER_WAIT).await;
        if answers {
            answered = Instant::now();
        }
        state.answers.send_if_modified(|known| std::mem::replace(known, answers) != answers);
        sleep(CHECK_INTERVAL).await;
    }
}

/// Stops the engine; an unresponsive one is killed, since it would not end by itself.
async fn end(engine: Engine, answers: bool) {
    let ended = if answers { engine.stop().await } else { engine.kill().await };
    if let Err(error) = ended {
        tracing::warn!(%error, "the embedded ClickHouse did not end as asked; what it acknowledged is on disk");
    }
}
