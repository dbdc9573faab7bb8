//! The cache with paused time: what it computes, what it serves, and for how long.

use super::*;
use axum::http::{HeaderMap, HeaderValue, header};
use clock::advance;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use tokio::sync::Notify;

const SECOND: Duration = Duration::from_secs(1);
const READER: CallerKey = CallerKey::Network(7);

/// A cache, the generation that invalidates it, and a report. The report's computations are numbered.
struct Bed {
    cache: ReportCache,
    generation: Generation,
    computed: Arc<AtomicU64>,
    outcome: Arc<Mutex<Result<(), Problem>>>,
}

impl Bed {
    fn new(config: CacheConfig) -> Self {
        let generation = Generation::default();
        let cache = ReportCache::of(config, generation.clone());
        Bed { cache, generation, computed: Arc::default(), outcome: Arc::new(Mutex::new(Ok(()))) }
    }

    fn fails(&self, problem: Option<Problem>) {
        *self.outcome.lock().unwrap() = problem.map_or(Ok(()), Err);
    }

    async fn answer(&self, slug: &str) -> Result<Answer, Problem> {
        let (computed, outcome) = (Arc::clone(&self.computed), Arc::clone(&self.outcome));
        let compute = async move |_| {
            let number = computed.fetch_add(1, Ordering::Relaxed) + 1;
            outcome.lock().unwrap().clone().map(|()| rendered(&number.to_string()))
        };
        self.cache.answer(key(slug), READER, false, compute).await
    }

    /// The body and its state.
    async fn served(&self) -> Result<(String, State), Problem> {
        let answer = self.answer("docs").await?;
        Ok((text(&answer), answer.state))
    }

    fn polled(&self, registry: u64) {
        self.generation.polled(Fingerprint { registry, closes: 0 }, clock::now());
    }
}

fn key(slug: &str) -> Key {
    Key { project: slug.parse().unwrap(), what: "2026-10".to_owned() }
}

fn rendered(body: &str) -> Rendered {
    let (headers, file_name) = (Vec::new(), None);
    Rendered { content_type: "text/plain", body: body.into(), headers, file_name, is_cacheable: true }
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.entry.plain.body.to_vec()).unwrap()
}

fn body(number: u64, state: State) -> Result<(String, State), Problem> {
    Ok((number.to_string(), state))
}

const MISS: State = State::Miss { collapsed: false };
const STALE: State = State::Stale { storage_fails: false };
const FAILS: State = State::Stale { storage_fails: true };

/// Polls once.
fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Lets background tasks run until they wait; the clock is paused meanwhile.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_answer_is_fresh_then_stale_and_refreshed_then_computed() {
    let bed = Bed::new(CacheConfig::default());
    assert_eq!(bed.served().await, body(1, MISS));
    advance(10 * SECOND - Duration::from_millis(1));
    assert_eq!(bed.served().await, body(1, State::Hit));
    advance(Duration::from_millis(1));
    assert_eq!(bed.served().await, body(1, STALE));
    settle().await;
    assert_eq!(bed.served().await, body(2, State::Hit), "the first stale answer refreshed it");
    advance(70 * SECOND - Duration::from_millis(1));
    assert_eq!(bed.served().await, body(2, STALE));
    settle().await;
    advance(70 * SECOND);
    assert_eq!(bed.served().await, body(4, MISS), "too old, so it is computed");
    let figures = bed.cache.figures();
    assert_eq!((figures.hits, figures.misses, figures.stale, figures.refreshes), (2, 2, 2, 2));
    assert_eq!((figures.computations, figures.stale_if_error), (4, 0));
}

#[tokio::test]
async fn concurrent_requests_share_one_computation_and_its_failure() {
    let bed = Bed::new(CacheConfig::default());
    let (go, computed) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    for (round, failure) in [(1, Some(Problem::storage_unavailable())), (2, None)] {
        let ask = || {
            let (go, computed, failure) = (Arc::clone(&go), Arc::clone(&computed), failure.clone());
            let compute = async move |_| {
                computed.fetch_add(1, Ordering::Relaxed);
                go.notified().await;
                failure.map_or_else(|| Ok(rendered("shared")), Err)
            };
            let cache = bed.cache.clone();
            tokio::spawn(async move { cache.answer(key("docs"), READER, false, compute).await })
        };
        let waiting: Vec<_> = (0..16).map(|_| ask()).collect();
        settle().await;
        go.notify_one();
        let mut own = 0;
        for answer in waiting {
            match answer.await.unwrap() {
                Ok(answer) => own += u64::from(answer.state == MISS),
                Err(problem) => assert_eq!(Some(problem), failure),
            }
        }
        assert_eq!(own, u64::from(failure.is_none()), "the others joined");
        assert_eq!(computed.load(Ordering::Relaxed), round);
    }
}

#[tokio::test]
async fn a_computation_ends_with_its_last_client_and_no_earlier() {
    struct Dropped(Arc<AtomicU64>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let bed = Bed::new(CacheConfig::default());
    let dropped = Arc::new(AtomicU64::new(0));
    let ask = || {
        let dropped = Dropped(Arc::clone(&dropped));
        let compute = async move |_| {
            let _dropped = dropped;
            std::future::pending::<Result<Rendered, Problem>>().await
        };
        let cache = bed.cache.clone();
        tokio::spawn(async move { cache.answer(key("docs"), READER, false, compute).await })
    };
    let [first, second] = [ask(), ask()];
    settle().await;
    first.abort();
    settle().await;
    assert_eq!(dropped.load(Ordering::Relaxed), 0, "the second client still waits");
    second.abort();
    settle().await;
    // The second request's unused closure, and the computation.
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    assert_eq!(bed.served().await, body(1, MISS));
}

#[tokio::test]
async fn a_caller_does_not_inherit_that_another_had_no_turn() {
    let bed = Bed::new(CacheConfig::default());
    let go = Arc::new(Notify::new());
    let first = {
        let (cache, go) = (bed.cache.clone(), Arc::clone(&go));
        let compute = async move |_| {
            go.notified().await;
            Err(Problem::too_many_waiting())
        };
        tokio::spawn(async move { cache.answer(key("docs"), CallerKey::Network(1), false, compute).await })
    };
    settle().await;
    // A caller with a token does not even wait for it.
    let known = CallerKey::Program("test");
    let answer = bed.cache.answer(key("docs"), known, true, async |_| Ok(rendered("own"))).await.unwrap();
    assert_eq!((text(&answer), answer.state), ("own".to_owned(), MISS));
    bed.cache.0.entries.as_ref().unwrap().clear();
    let mut second = Box::pin(bed.served());
    assert!(is_pending(&mut second), "it joined");
    go.notify_one();
    assert_eq!(second.await, body(1, MISS));
    assert_eq!(first.await.unwrap().err(), Some(Problem::too_many_waiting()));
}

#[tokio::test]
async fn what_cannot_be_computed_is_served_stale_for_an_hour() {
    let bed = Bed::new(CacheConfig::default());
    bed.polled(1);
    assert_eq!(bed.served().await, body(1, MISS));
    bed.fails(Some(Problem::storage_unavailable()));
    advance(20 * SECOND);
    assert_eq!(bed.served().await, body(1, STALE), "no failure is known yet");
    settle().await;
    assert_eq!(bed.served().await, body(1, FAILS));
    let tried = bed.computed.load(Ordering::Relaxed);
    for _ in 0..50 {
        assert_eq!(bed.served().await, body(1, FAILS));
        settle().await;
    }
    assert_eq!(bed.computed.load(Ordering::Relaxed), tried, "not at every request");
    for _ in 0..59 {
        advance(60 * SECOND);
        bed.polled(1);
        let served = bed.served().await.map(|(_, state)| state);
        assert!(served == Ok(FAILS) || served == Ok(STALE), "{served:?}");
        settle().await;
    }
    assert_eq!(bed.computed.load(Ordering::Relaxed), tried + 59, "once a minute");
    advance(60 * SECOND);
    assert_eq!(bed.served().await, Err(Problem::storage_unavailable()), "an hour is over");
    bed.fails(None);
    assert!(matches!(bed.served().await, Ok((_, MISS))));
}

#[tokio::test]
async fn a_failure_of_long_ago_serves_no_old_answer() {
    let bed = Bed::new(CacheConfig::default());
    bed.polled(1);
    assert_eq!(bed.served().await, body(1, MISS));
    bed.fails(Some(Problem::storage_unavailable()));
    advance(15 * SECOND);
    assert_eq!(bed.served().await, body(1, STALE));
    settle().await;
    bed.fails(None);
    advance(3_000 * SECOND);
    bed.polled(1);
    assert_eq!(bed.served().await, body(3, MISS), "ClickHouse has answered for long");
}

#[tokio::test]
async fn a_panic_in_a_computation_ends_it_for_all_its_callers() {
    let bed = Bed::new(CacheConfig::default());
    let go = Arc::new(Notify::new());
    let ask = || {
        let (go, cache) = (Arc::clone(&go), bed.cache.clone());
        let compute = async move |_| {
            go.notified().await;
            panic!("an unexpected figure")
        };
        tokio::spawn(async move { cache.answer(key("docs"), READER, false, compute).await.map(|answer| text(&answer)) })
    };
    let callers = [ask(), ask()];
    settle().await;
    go.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Err(Problem::unreadable_figures()));
    }
    assert_eq!(bed.served().await, body(1, MISS), "the next request computes");
}

#[tokio::test]
async fn a_failure_in_the_foreground_falls_back_too_and_a_recovery_ends_it() {
    let bed = Bed::new(CacheConfig::default());
    assert_eq!(bed.served().await, body(1, MISS));
    bed.fails(Some(Problem::storage_unavailable()));
    advance(100 * SECOND);
    assert_eq!(bed.served().await, body(1, FAILS), "computed, which failed");
    bed.fails(None);
    advance(2 * SECOND);
    assert_eq!(bed.served().await, body(1, FAILS), "refreshed in the background");
    settle().await;
    assert_eq!(bed.served().await, body(3, State::Hit));
    // Without a turn it is stale, too, but ClickHouse is not to blame.
    bed.fails(Some(Problem::too_many_reports()));
    advance(100 * SECOND);
    assert_eq!(bed.served().await, body(3, STALE));
    // Failures other than an absent ClickHouse are errors.
    bed.fails(Some(Problem::unreadable_figures()));
    assert_eq!(bed.served().await, Err(Problem::unreadable_figures()));
    // An unknown project removes its entry.
    bed.fails(Some(Problem::unknown_project()));
    assert_eq!(bed.served().await, Err(Problem::unknown_project()));
    bed.fails(Some(Problem::storage_unavailable()));
    assert_eq!(bed.served().await, Err(Problem::storage_unavailable()));
}

#[tokio::test]
async fn a_new_generation_ends_every_entry_and_every_computation_of_an_earlier_one() {
    let bed = Bed::new(CacheConfig::default());
    bed.polled(1);
    assert_eq!(bed.served().await, body(1, MISS));
    bed.polled(1);
    assert_eq!(bed.served().await, body(1, State::Hit), "nothing changed");
    bed.polled(2);
    bed.fails(Some(Problem::storage_unavailable()));
    assert_eq!(bed.served().await, Err(Problem::storage_unavailable()), "not even as a stale answer");
    bed.fails(None);
    assert_eq!(bed.served().await, body(3, MISS));
    bed.generation.polled(Fingerprint { registry: 2, closes: 1 }, clock::now());
    assert_eq!(bed.served().await, body(4, MISS), "a month was closed");

    // A computation that started before the change serves the requests of that time, and is not stored.
    let go = Arc::new(Notify::new());
    let compute = {
        let go = Arc::clone(&go);
        async move |_| {
            go.notified().await;
            Ok(rendered("before"))
        }
    };
    let mut before = Box::pin(bed.cache.answer(key("late"), READER, false, compute));
    assert!(is_pending(&mut before));
    bed.polled(3);
    let after = bed.answer("late").await.unwrap();
    assert_eq!((text(&after), after.state), ("5".to_owned(), MISS), "it did not join");
    go.notify_one();
    assert_eq!(text(&before.await.unwrap()), "before");
    assert_eq!(text(&bed.answer("late").await.unwrap()), "5");
}

#[tokio::test]
async fn without_an_answered_poll_nothing_is_served_for_longer_than_an_hour() {
    let bed = Bed::new(CacheConfig::default());
    bed.polled(1);
    advance(3_599 * SECOND);
    assert_eq!(bed.served().await, body(1, MISS));
    assert_eq!(bed.served().await, body(1, State::Hit));
    advance(SECOND);
    assert_eq!(bed.served().await, body(2, MISS), "the last poll is an hour ago");
    assert_eq!(bed.served().await, body(3, MISS), "and nothing is stored");
    bed.polled(1);
    assert_eq!(bed.served().await, body(4, MISS));
    assert_eq!(bed.served().await, body(4, State::Hit));
}

#[tokio::test]
async fn some_answers_are_not_stored() {
    let bed = Bed::new(CacheConfig::default());
    let empty = async |_| Ok(Rendered { is_cacheable: false, ..rendered("no views yet") });
    for _ in 0..2 {
        let answer = bed.cache.answer(key("docs"), READER, false, empty).await.unwrap();
        assert_eq!(answer.state, MISS);
    }
    // A client that requests a recomputed answer gets one, and it is stored for others.
    assert_eq!(bed.served().await, body(1, MISS));
    let recomputed = async |_| Ok(rendered("recomputed"));
    let answer = bed.cache.answer(key("docs"), READER, true, recomputed).await.unwrap();
    assert_eq!((text(&answer), answer.state), ("recomputed".to_owned(), MISS));
    assert_eq!(bed.served().await, Ok(("recomputed".to_owned(), State::Hit)));
    advance(20 * SECOND);
    let fails = async |_| Err(Problem::storage_unavailable());
    let answer = bed.cache.answer(key("docs"), READER, true, fails).await;
    assert_eq!(answer.err(), Some(Problem::storage_unavailable()));

    let off = Bed::new(CacheConfig { bytes: 0, ..CacheConfig::default() });
    assert_eq!(off.served().await, body(1, MISS));
    assert_eq!(off.served().await, body(2, MISS));
}

#[tokio::test]
async fn answers_differ_by_project_and_by_request_and_have_a_bound() {
    let bed = Bed::new(CacheConfig { bytes: 20_000, ..CacheConfig::default() });
    for number in 0..200 {
        let answer = bed.answer(&format!("docs-{number}")).await.unwrap();
        assert_eq!((text(&answer), answer.state), ((number + 1).to_string(), MISS));
    }
    let bytes = bed.cache.figures().bytes;
    assert!((10_000..=20_000).contains(&bytes), "{bytes}");
    let other = Key { what: "2026-11".to_owned(), ..key("docs-199") };
    let answer = bed.cache.answer(other, READER, false, async |_| Ok(rendered("other"))).await.unwrap();
    assert_eq!((text(&answer).as_str(), answer.state), ("other", MISS));
}

#[tokio::test]
async fn each_form_has_its_validator_and_a_stale_page_says_why() {
    let bed = Bed::new(CacheConfig::default());
    let html = format!("<main id=\"content\">{}</main>", "docs ".repeat(1_000));
    let page = async |html: &String| {
        let rendered = Rendered { content_type: "text/html", ..rendered(html) };
        bed.cache.answer(key("docs"), READER, false, async |_| Ok(rendered)).await.unwrap()
    };
    let asked = |headers: &[(header::HeaderName, &str)]| -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    };
    let answer = page(&html).await;
    let plain = answer.response(&asked(&[]));
    let gzip = answer.response(&asked(&[(header::ACCEPT_ENCODING, "br, gzip;q=0.5")]));
    assert_eq!(gzip.headers()[header::CONTENT_ENCODING], "gzip");
    assert_ne!(plain.headers()[header::ETAG], gzip.headers()[header::ETAG]);
    assert_eq!(plain.headers()["cache-status"], "headcount; fwd=miss");
    assert!(plain.headers().get(header::AGE).is_none() && plain.headers().get(header::CONTENT_ENCODING).is_none());
    let refused = answer.response(&asked(&[(header::ACCEPT_ENCODING, "gzip;q=0, *")]));
    assert!(refused.headers().get(header::CONTENT_ENCODING).is_none());
    let tag = gzip.headers()[header::ETAG].to_str().unwrap().to_owned();
    let known = asked(&[(header::ACCEPT_ENCODING, "gzip"), (header::IF_NONE_MATCH, &tag)]);
    assert_eq!(answer.response(&known).status(), 304);
    let body = axum::body::to_bytes(gzip.into_body(), 10_000).await.unwrap();
    let mut inflated = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&body[..]), &mut inflated).unwrap();
    assert_eq!(inflated, html);

    advance(9 * SECOND);
    let hit = page(&html).await.response(&asked(&[]));
    assert_eq!(
        (&hit.headers()["cache-status"], &hit.headers()[header::AGE]),
        (&HeaderValue::from_static("headcount; hit"), &HeaderValue::from_static("9"))
    );
    advance(200 * SECOND);
    let fails = async |_| Err(Problem::storage_unavailable());
    let stale = bed.cache.answer(key("docs"), READER, false, fails).await.unwrap();
    let stale = stale.response(&asked(&[(header::ACCEPT_ENCODING, "gzip"), (header::IF_NONE_MATCH, &tag)]));
    assert_eq!(stale.status(), 200);
    assert_eq!(stale.headers()["cache-status"], "headcount; hit; detail=stale");
    assert_eq!(stale.headers()[header::AGE], "209");
    let body = axum::body::to_bytes(stale.into_body(), 10_000).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains("ClickHouse does not answer. This report is 3 minutes old"), "{body}");
}
