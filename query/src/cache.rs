//! The cache of reports: rendered answers, each with its gzip form and a validator for each form.
//!
//! The guard has checked the caller's rights before a request reaches the cache, on every request. An answer passes through these states
//! ([`CacheConfig`] has the bounds):
//!
//! | age of the entry | answer |
//! |---|---|
//! | up to `fresh` | the entry |
//! | then up to `max_stale` longer | the entry, marked as stale; the first such answer starts a refresh in the background |
//! | then | computed; the entry only if ClickHouse does not answer or there is no turn, up to an age of `stale_if_error` |
//!
//! Concurrent requests for the same answer share one computation. It ends when the last of its clients leaves. Turns are taken by the
//! computation, so a cached answer never waits for one.
//!
//! Each entry belongs to the `Generation` in which its computation started. A change to the registry or to the closed months starts a new
//! generation, and no entry of an earlier one is served.

use crate::problem::Problem;
use crate::turns::CallerKey;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use schemas::ProjectSlug;
use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

mod cache_figures;
mod clock;
mod entry;
mod generation;
mod response;

#[cfg(test)]
mod tests;

pub use cache_figures::CacheFigures;
pub(crate) use entry::{Entry, Rendered};
pub(crate) use generation::{Fingerprint, Generation};
pub(crate) use response::{Answer, State, is_no_cache};

/// The caller whose turns refreshes in the background take.
pub(crate) const REFRESH: CallerKey = CallerKey::Program("refresh");

/// Refreshes that run concurrently. If none is free, the refresh is left to the next stale response.
const REFRESHES: usize = 2;

/// Bytes of a typical entry; determines the initial capacity of the cache.
const TYPICAL_BYTES: u64 = 32 << 10;

/// How long answers are served from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Age up to which an answer is fresh.
    pub fresh: Duration,
    /// How much longer it is served stale while it is refreshed in the background.
    pub max_stale: Duration,
    /// Age up to which it is served if it cannot be computed.
    pub stale_if_error: Duration,
    /// Most bytes of entries; 0: no cache.
    pub bytes: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        CacheConfig {
            fresh: Duration::from_secs(10),
            max_stale: Duration::from_secs(60),
            stale_if_error: Duration::from_secs(3_600),
            bytes: 64 << 20,
        }
    }
}

impl CacheConfig {
    /// Age up to which an entry may be served at all.
    fn longest(&self) -> Duration {
        self.stale_if_error.max(self.fresh + self.max_stale)
    }
}

/// What an answer depends on: the project, and everything in the request that changes the answer (form, span, parameters).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) project: ProjectSlug,
    pub(crate) what: String,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Arc<Entry>> for ByBytes {
    fn weight(&self, key: &Key, entry: &Arc<Entry>) -> u64 {
        (size_of::<Key>() + key.project.as_str().len() + key.what.len() + entry.bytes()) as u64
    }
}

type Outcome = Result<Arc<Entry>, Problem>;

/// A running computation. Callers without a token do not share one with callers that have one, since their turns differ.
type FlightKey = (Key, bool);

struct Flight {
    shared: WeakShared<BoxFuture<'static, Outcome>>,
    generation: u64,
}

/// The cache; a clone is the same cache.
#[derive(Clone)]
pub struct ReportCache(Arc<CacheState>);

struct CacheState {
    config: CacheConfig,
    /// None if nothing is cached.
    entries: Option<Cache<Key, Arc<Entry>, ByBytes>>,
    flights: Mutex<HashMap<FlightKey, Flight>>,
    refreshes: Arc<Semaphore>,
    generation: Generation,
    counters: cache_figures::Counters,
}

impl ReportCache {
    /// An empty cache, whose entries are invalidated by the changes that `access` polls.
    pub fn new(config: CacheConfig, access: &crate::access::Access) -> Self {
        Self::of(config, access.generation())
    }

    /// A cache that stores nothing.
    pub(crate) fn off() -> Self {
        Self::of(CacheConfig { bytes: 0, ..CacheConfig::default() }, Generation::default())
    }

    pub(crate) fn of(config: CacheConfig, generation: Generation) -> Self {
        let places = usize::try_from(config.bytes / TYPICAL_BYTES).unwrap_or(usize::MAX).max(1);
        let entries = (config.bytes > 0).then(|| Cache::with_weighter(places, config.bytes, ByBytes));
        ReportCache(Arc::new(CacheState {
            config,
            entries,
            flights: Mutex::default(),
            refreshes: Arc::new(Semaphore::new(REFRESHES)),
            generation,
            counters: cache_figures::Counters::default(),
        }))
    }

    /// What the cache has done so far, for metrics.
    pub fn figures(&self) -> CacheFigures {
        let bytes = self.0.entries.as_ref().map_or(0, Cache::weight);
        self.0.counters.figures(bytes)
    }

    /// The answer of `key` for `caller`: from the cache, or by `compute`, which is given the caller whose turn it takes. `recompute`: the
    /// client requests an answer that is not from the cache.
    ///
    /// # Errors
    /// The computation failed, and no entry may be served instead.
    pub(crate) async fn answer<F, C>(
        &self,
        key: Key,
        caller: CallerKey,
        recompute: bool,
        compute: C,
    ) -> Result<Answer, Problem>
    where
        F: Future<Output = Result<Rendered, Problem>> + Send + 'static,
        C: FnOnce(CallerKey) -> F + Send,
    {
        let counters = &self.0.counters;
        let found = self.found(&key).filter(|_| !recompute);
        if let Some(entry) = &found {
            let (age, config) = (entry.age(), &self.0.config);
            if age < config.fresh {
                counters.hit();
                return Ok(Answer::of(entry, State::Hit));
            }
            let storage_fails = entry.storage_fails();
            if age < config.fresh + config.max_stale || storage_fails {
                self.refresh(key, entry, compute);
                counters.stale(storage_fails);
                return Ok(Answer::of(entry, State::Stale { storage_fails }));
            }
        }
        counters.miss();
        match self.computed(&key, caller, !recompute, compute).await {
            Ok((entry, collapsed)) => Ok(Answer::of(&entry, State::Miss { collapsed })),
            Err(problem) => match found.filter(|entry| problem.is_passing() && self.may_serve(entry)) {
                Some(entry) => {
                    let storage_fails = problem == Problem::storage_unavailable();
                    counters.stale(storage_fails);
                    Ok(Answer::of(&entry, State::Stale { storage_fails }))
                }
                None => Err(problem),
            },
        }
    }

    /// The entry, if it may be served at all.
    fn found(&self, key: &Key) -> Option<Arc<Entry>> {
        let entries = self.0.entries.as_ref()?;
        let entry = entries.get(key)?;
        if self.may_serve(&entry) {
            return Some(entry);
        }
        entries.remove(key);
        None
    }

    fn may_serve(&self, entry: &Entry) -> bool {
        let longest = self.0.config.longest();
        entry.age() < longest && self.0.generation.is_still(entry.generation, longest)
    }

    /// Computes the answer, or joins a running computation; returns whether it joined. A computation is not shared if `may_share` is false.
    async fn computed<F, C>(
        &self,
        key: &Key,
        caller: CallerKey,
        may_share: bool,
        compute: C,
    ) -> Result<(Arc<Entry>, bool), Problem>
    where
        F: Future<Output = Result<Rendered, Problem>> + Send + 'static,
        C: FnOnce(CallerKey) -> F + Send,
    {
        if !may_share || self.0.entries.is_none() {
            let outcome = self.computation(key.clone(), None, compute(caller)).await;
            return outcome.map(|entry| (entry, false));
        }
        let (flight, unused) = self.join(key, caller, move || compute(caller));
        match (flight.await, unused) {
            // The computing caller had no turn; this caller may have one.
            (Err(problem), Some(compute)) if problem.is_no_turn() => {
                let outcome = self.computation(key.clone(), None, compute()).await;
                outcome.map(|entry| (entry, false))
            }
            (outcome, unused) => outcome.map(|entry| (entry, unused.is_some())),
        }
    }

    /// The running computation of `key`, with `compute` unused; or a new computation.
    fn join<F, C>(&self, key: &Key, caller: CallerKey, compute: C) -> (Shared<BoxFuture<'static, Outcome>>, Option<C>)
    where
        F: Future<Output = Result<Rendered, Problem>> + Send + 'static,
        C: FnOnce() -> F + Send,
    {
        let mut flights = self.flights();
        let generation = self.0.generation.number();
        let flight_key = (key.clone(), caller.is_anonymous());
        let runs = |flight: &Flight| flight.shared.upgrade().filter(|shared| shared.peek().is_none());
        if let Some(flight) = flights.get(&flight_key)
            && flight.generation == generation
            && let Some(shared) = runs(flight)
        {
            return (shared, Some(compute));
        }
        flights.retain(|_, flight| runs(flight).is_some());
        let shared = self.clone().computation(key.clone(), None, compute()).boxed().shared();
        if let Some(weak) = shared.downgrade() {
            flights.insert(flight_key, Flight { shared: weak, generation });
        }
        (shared, None)
    }

    /// Runs `rendering` and stores its result. `refreshed` is the entry that it replaces in the background.
    fn computation(
        &self,
        key: Key,
        refreshed: Option<Refreshing>,
        rendering: impl Future<Output = Result<Rendered, Problem>> + Send + 'static,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let (cache, generation, started) = (self.clone(), self.0.generation.number(), clock::now());
        let outcome = async move {
            let rendered = rendering.await;
            cache.0.counters.computed(clock::since(started));
            let _refreshed = refreshed;
            match rendered {
                Ok(rendered) => Ok(cache.store(key, Entry::new(rendered, generation, started))),
                Err(problem) => {
                    cache.failed(&key, started, &problem);
                    Err(problem)
                }
            }
        };
        // A panic must end here: a shared future that panicked never wakes its other waiters, and panics where it is looked up.
        AssertUnwindSafe(outcome)
            .catch_unwind()
            .map(|ended| ended.unwrap_or_else(|_| Err(Problem::unreadable_figures())))
    }

    fn store(&self, key: Key, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        if let Some(entries) = &self.0.entries
            && entry.is_cacheable
            && self.may_serve(&entry)
            // A longer computation may finish after one that started later.
            && entries.peek(&key).is_none_or(|stored| stored.computed <= entry.computed)
        {
            entries.insert(key, Arc::clone(&entry));
        }
        entry
    }

    /// Marks the entry if ClickHouse does not answer; removes it if the report no longer exists. `started` is the start of the failed
    /// computation: an entry that was computed later is not affected.
    fn failed(&self, key: &Key, started: Instant, problem: &Problem) {
        let Some(entries) = &self.0.entries else { return };
        if problem.status == 404 {
            entries.remove(key);
        } else if *problem == Problem::storage_unavailable()
            && let Some(entry) = entries.peek(key).filter(|entry| entry.computed <= started)
        {
            entry.note_storage_failure();
        }
    }

    /// Computes the answer in the background, unless that is done already or has just failed.
    fn refresh<F, C>(&self, key: Key, entry: &Arc<Entry>, compute: C)
    where
        F: Future<Output = Result<Rendered, Problem>> + Send + 'static,
        C: FnOnce(CallerKey) -> F + Send,
    {
        let Ok(permit) = Arc::clone(&self.0.refreshes).try_acquire_owned() else { return };
        if !entry.start_refresh() {
            return;
        }
        self.0.counters.refresh();
        let refreshing = Refreshing(Arc::clone(entry));
        let computation = self.computation(key, Some(refreshing), compute(REFRESH));
        tokio::spawn(async move {
            let _permit = permit;
            let _ = computation.await;
        });
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<FlightKey, Flight>> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry that is being refreshed. Dropping it lets another refresh start, however this one ends.
struct Refreshing(Arc<Entry>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.end_refresh();
    }
}
