use super::*;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

const ADMIN: CallerKey = CallerKey::Program("admin");
const OTHER: CallerKey = CallerKey::Program("other");

fn network(number: u64) -> CallerKey {
    CallerKey::Network(number)
}

type Request = Pin<Box<dyn Future<Output = Result<Turn, NoTurn>>>>;

/// A request that has been polled once: it holds a turn, or it waits.
fn request(turns: &Arc<Turns>, caller: CallerKey) -> (Request, Option<Result<Turn, NoTurn>>) {
    let turns = Arc::clone(turns);
    let mut request: Request = Box::pin(async move { turns.take(caller).await });
    let outcome = poll(&mut request);
    (request, outcome)
}

fn poll(request: &mut Request) -> Option<Result<Turn, NoTurn>> {
    match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

fn held(turns: &Arc<Turns>, caller: CallerKey) -> Turn {
    let Some(Ok(turn)) = request(turns, caller).1 else { panic!("expected a turn without a wait") };
    turn
}

fn waiting(turns: &Arc<Turns>, caller: CallerKey) -> Request {
    let (request, outcome) = request(turns, caller);
    assert!(outcome.is_none(), "it does not wait");
    request
}

/// No turn is held, and no request waits.
fn is_empty(turns: &Turns) -> bool {
    let state = turns.lock();
    state.held.is_empty()
        && (state.held_in_all, state.held_by_networks) == (0, 0)
        && state.waiting.is_empty()
        && state.order.is_empty()
}

#[tokio::test]
async fn one_caller_holds_a_part_and_its_ninth_request_that_waits_is_refused() {
    let turns = Turns::new(TurnLimits::of(8));
    for (caller, most) in [(ADMIN, 4), (network(1), 2)] {
        let mine: Vec<Turn> = (0..most).map(|_| held(&turns, caller)).collect();
        let queue: Vec<Request> = (0..MAX_WAITING).map(|_| waiting(&turns, caller)).collect();
        assert_eq!(request(&turns, caller).1.map(|outcome| outcome.err()), Some(Some(NoTurn::TooManyWaiting)));
        // Other callers are not affected.
        drop(held(&turns, OTHER));
        drop(held(&turns, network(2)));
        drop((mine, queue));
        assert!(is_empty(&turns));
    }
}

#[tokio::test]
async fn networks_never_take_the_turns_of_callers_with_a_token() {
    let turns = Turns::new(TurnLimits::of(8));
    let anonymous: Vec<Turn> = (0..4).map(|number| held(&turns, network(number))).collect();
    let queue: Vec<Request> = (4..1000).map(|number| waiting(&turns, network(number))).collect();
    let known: Vec<Turn> = [ADMIN, ADMIN, OTHER, OTHER].map(|caller| held(&turns, caller)).into();
    let mut late = waiting(&turns, ADMIN);
    // A network's turn goes to the next network, and a known caller's turn to a known caller, though networks waited longer.
    drop(anonymous);
    assert!(poll(&mut late).is_none());
    drop(known);
    assert!(matches!(poll(&mut late), Some(Ok(_))));
    drop(queue);
    drop(late);
    assert!(is_empty(&turns));
}

#[tokio::test]
async fn callers_that_wait_are_served_round_robin() {
    let turns = Turns::new(TurnLimits { turns: 1, per_known: 1, per_network: 1, anonymous: 1, wait: WAIT });
    let mut turn = Some(held(&turns, network(9)));
    let mut order = Vec::new();
    let mut queue: Vec<(u64, Request)> = Vec::new();
    for caller in [1, 1, 1, 1, 2, 2, 3] {
        queue.push((caller, waiting(&turns, network(caller))));
    }
    while !queue.is_empty() {
        turn.take();
        let served = queue.iter_mut().position(|(_, request)| match poll(request) {
            Some(outcome) => {
                turn = outcome.ok();
                true
            }
            None => false,
        });
        order.push(queue.remove(served.expect("one is served")).0);
    }
    assert_eq!(order, [1, 2, 3, 1, 2, 1, 1]);
    drop(turn);
    assert!(is_empty(&turns));
}

#[tokio::test]
async fn a_wait_ends_after_its_bound() {
    let wait = Duration::from_millis(20);
    let turns = Turns::new(TurnLimits { wait, ..TurnLimits::of(8) });
    let _held = [held(&turns, network(1)), held(&turns, network(1))];
    let begun = Instant::now();
    assert_eq!(turns.take(network(1)).await.err(), Some(NoTurn::TooLong));
    assert!(begun.elapsed() >= wait);
    assert!(turns.lock().waiting.is_empty() && turns.lock().order.is_empty());
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_its_place_or_gives_its_turn_back() {
    let turns = Turns::new(TurnLimits::of(8));
    let mine = [held(&turns, network(1)), held(&turns, network(1))];
    let (first, mut second) = (waiting(&turns, network(1)), waiting(&turns, network(1)));
    drop(first);
    let [one, two] = mine;
    drop(one);
    // The turn was granted to `second`, which has not been polled since, and both are dropped now.
    assert_eq!(turns.lock().held_in_all, 2);
    let mut third = waiting(&turns, network(1));
    drop(two);
    assert!(matches!(poll(&mut third), Some(Ok(_))));
    assert!(matches!(poll(&mut second), Some(Ok(_))), "it was granted in time");
    let (_kept, fourth) = ([held(&turns, network(1)), held(&turns, network(1))], waiting(&turns, network(1)));
    drop(_kept);
    drop(fourth);
    assert!(is_empty(&turns), "a turn that was granted to a request that is gone");
}
