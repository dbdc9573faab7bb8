//! Turns: how many reports are computed concurrently, and in which order.
//!
//! A report costs work of ClickHouse and of this process. So a bounded number of reports is computed at a time. Turns are shared fairly
//! between *callers*, not between requests: a caller that sends twenty-four requests at a time delays its own requests, not those of other
//! callers.
//!
//! - Each caller holds at most a part of the turns, and has at most [`MAX_WAITING`] waiting requests; further ones are refused.
//! - Waiting callers are served round robin, each one request at a time. So a caller with one request waits for about one turn of each
//!   other caller at most.
//! - Callers without a token together hold at most half of the turns. An IP address costs nothing. However many such callers there are, the
//!   other half of the turns remains for callers with a token.
//! - The wait has a time limit ([`WAIT`]).
//!
//! A request that its caller gives up leaves the queue, or returns its turn, when its future is dropped.

use crate::access::token::TokenId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Most waiting requests of one caller.
const MAX_WAITING: usize = 8;

/// How long a request waits for its turn, unless [`TurnLimits`] say otherwise.
const WAIT: Duration = Duration::from_secs(5);

/// The sender of a request, by which limits and turns distinguish callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallerKey {
    /// A part of this program, by its name.
    Program(&'static str),
    /// The holder of a token, from any network.
    Token(TokenId),
    /// A client without a token: a hash of its network under a secret that is in memory only.
    Network(u64),
}

impl CallerKey {
    /// Whether the caller sent no valid token.
    pub(crate) fn is_anonymous(self) -> bool {
        matches!(self, CallerKey::Network(_))
    }
}

/// How many turns there are, and how many of them one caller may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnLimits {
    /// All turns.
    pub(crate) turns: usize,
    /// Held by one caller with a token, or by one part of the program.
    pub(crate) per_known: usize,
    /// Held by one network.
    pub(crate) per_network: usize,
    /// Held by all networks together.
    pub(crate) anonymous: usize,
    /// How long a request waits for its turn.
    pub(crate) wait: Duration,
}

impl TurnLimits {
    /// `turns`, of which a known caller holds at most half, one network at most a quarter, and all networks together at most half.
    pub(crate) const fn of(turns: usize) -> Self {
        TurnLimits { turns, per_known: turns / 2, per_network: turns / 4, anonymous: turns / 2, wait: WAIT }
    }
}

/// Why a request gets no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTurn {
    /// Its caller has [`MAX_WAITING`] waiting requests already.
    TooManyWaiting,
    /// No turn within the time limit.
    TooLong,
}

/// Turns of one kind of work.
pub(crate) struct Turns {
    limits: TurnLimits,
    state: Mutex<TurnState>,
}

#[derive(Default)]
struct TurnState {
    /// Turns held, by caller; no caller has 0.
    held: HashMap<CallerKey, usize>,
    held_in_all: usize,
    held_by_networks: usize,
    /// Requests that wait, by caller, oldest first; no caller has none.
    waiting: HashMap<CallerKey, VecDeque<Waiting>>,
    /// The callers of `waiting`, each once, in the order in which they are served.
    order: VecDeque<CallerKey>,
    last_id: u64,
}

struct Waiting {
    id: u64,
    notify: oneshot::Sender<Turn>,
}

/// A turn; dropping it returns it.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    caller: CallerKey,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.release(self.caller);
        self.turns.grant(state);
    }
}

impl TurnState {
    fn hold(&mut self, caller: CallerKey) {
        *self.held.entry(caller).or_default() += 1;
        self.held_in_all += 1;
        self.held_by_networks += usize::from(caller.is_anonymous());
    }

    fn release(&mut self, caller: CallerKey) {
        if let Some(held) = self.held.get_mut(&caller) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&caller);
            }
            self.held_in_all -= 1;
            self.held_by_networks -= usize::from(caller.is_anonymous());
        }
    }

    /// Whether `caller` may hold one more turn.
    fn may_hold(&self, caller: CallerKey, limits: TurnLimits) -> bool {
        let held = self.held.get(&caller).copied().unwrap_or(0);
        let is_anonymous = caller.is_anonymous();
        let most = if is_anonymous { limits.per_network } else { limits.per_known };
        let room = self.held_in_all < limits.turns && (!is_anonymous || self.held_by_networks < limits.anonymous);
        room && held < most
    }

    /// The next request that may have a turn, which then counts as held. Its caller goes to the end of the order.
    fn next(&mut self, limits: TurnLimits) -> Option<(CallerKey, Waiting)> {
        let at = self.order.iter().position(|&caller| self.may_hold(caller, limits))?;
        let caller = self.order.remove(at)?;
        let queue = self.waiting.get_mut(&caller)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&caller);
        } else {
            self.order.push_back(caller);
        }
        self.hold(caller);
        Some((caller, next?))
    }

    fn leave(&mut self, caller: CallerKey, id: u64) {
        let Some(queue) = self.waiting.get_mut(&caller) else { return };
        queue.retain(|waiting| waiting.id != id);
        if queue.is_empty() {
            self.waiting.remove(&caller);
            self.order.retain(|other| *other != caller);
        }
    }
}

/// Removes a request from the queue on drop.
struct PlaceInQueue<'a> {
    turns: &'a Turns,
    caller: CallerKey,
    id: u64,
}

impl Drop for PlaceInQueue<'_> {
    fn drop(&mut self) {
        self.turns.lock().leave(self.caller, self.id);
    }
}

impl Turns {
    pub(crate) fn new(limits: TurnLimits) -> Arc<Self> {
        Arc::new(Turns { limits, state: Mutex::default() })
    }

    /// Waits for a turn of `caller`.
    ///
    /// # Errors
    /// Too many requests of this caller wait, or the wait exceeds its limit.
    pub(crate) async fn take(self: &Arc<Self>, caller: CallerKey) -> Result<Turn, NoTurn> {
        let (id, notified) = {
            let mut state = self.lock();
            // No waiting caller may hold a turn at this point: `grant` has run after every change.
            if state.may_hold(caller, self.limits) {
                state.hold(caller);
                return Ok(Turn { turns: Arc::clone(self), caller });
            }
            if state.waiting.get(&caller).is_some_and(|queue| queue.len() >= MAX_WAITING) {
                return Err(NoTurn::TooManyWaiting);
            }
            state.last_id += 1;
            let (id, (notify, notified)) = (state.last_id, oneshot::channel());
            if !state.waiting.contains_key(&caller) {
                state.order.push_back(caller);
            }
            state.waiting.entry(caller).or_default().push_back(Waiting { id, notify });
            (id, notified)
        };
        let _place = PlaceInQueue { turns: self, caller, id };
        // A turn that is granted just after the limit stays in the channel, and is returned with it.
        tokio::time::timeout(self.limits.wait, notified).await.ok().and_then(Result::ok).ok_or(NoTurn::TooLong)
    }

    fn lock(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants free turns to waiting requests.
    fn grant(self: &Arc<Self>, mut state: MutexGuard<'_, TurnState>) {
        let next: Vec<_> = std::iter::from_fn(|| state.next(self.limits)).collect();
        // A turn whose request has just been dropped returns here, and its drop takes the lock.
        drop(state);
        for (caller, waiting) in next {
            let _ = waiting.notify.send(Turn { turns: Arc::clone(self), caller });
        }
    }
}

#[cfg(test)]
mod tests;
