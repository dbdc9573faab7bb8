//! Sessions of the page: after a sign-in with a token the browser stores a random id in a cookie, not the token.
//!
//! Sessions are in memory only. They end with a restart, and with the revocation of their token. (Several processes behind one host name
//! each know only their own sessions; route a browser to the same process, or let programs use their token.)

use super::token::TokenId;
use data_encoding::HEXLOWER;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Most open sessions. Beyond that, the session that expires first is dropped.
const AT_ONCE: usize = 10_000;
const ID_BYTES: usize = 16;
const CONTEXT: &str = "headcount 2026 session of a page v1";

struct Session {
    token: TokenId,
    ends_ms: i64,
}

/// The open sessions, by the hash of their id: the time of a map lookup depends on the keys, and a hash reveals nothing about the id.
pub(super) struct Sessions {
    lifetime_ms: i64,
    open: Mutex<HashMap<[u8; 32], Session>>,
}

/// The hash of an id as the cookie has it.
fn hash(cookie: &str) -> Option<[u8; 32]> {
    // Ids of another length are not from this service and need no hash.
    (cookie.len() == 2 * ID_BYTES).then(|| blake3::derive_key(CONTEXT, cookie.as_bytes()))
}

impl Sessions {
    pub(super) fn new(lifetime_ms: i64) -> Self {
        Sessions { lifetime_ms, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a session of `token` and returns the cookie's value.
    pub(super) fn begin(&self, token: TokenId, now_ms: i64) -> Result<Zeroizing<String>, getrandom::Error> {
        let mut id = Zeroizing::new([0; ID_BYTES]);
        getrandom::fill(&mut *id)?;
        let cookie = Zeroizing::new(HEXLOWER.encode(&*id));
        let mut open = self.open();
        if open.len() >= AT_ONCE {
            open.retain(|_, session| session.ends_ms > now_ms);
        }
        if open.len() >= AT_ONCE {
            let first = open.iter().min_by_key(|(_, session)| session.ends_ms).map(|(hash, _)| *hash);
            first.and_then(|hash| open.remove(&hash));
        }
        if let Some(hash) = hash(&cookie) {
            open.insert(hash, Session { token, ends_ms: now_ms + self.lifetime_ms });
        }
        Ok(cookie)
    }

    /// The token of the session, until it expires.
    pub(super) fn token_of(&self, cookie: &str, now_ms: i64) -> Option<TokenId> {
        let hash = hash(cookie)?;
        self.open().get(&hash).filter(|session| session.ends_ms > now_ms).map(|session| session.token)
    }

    /// Ends one session.
    pub(super) fn end(&self, cookie: &str) {
        if let Some(hash) = hash(cookie) {
            self.open().remove(&hash);
        }
    }

    /// Removes expired sessions, and sessions of tokens that are not `in_force`.
    pub(super) fn sweep(&self, now_ms: i64, in_force: impl Fn(TokenId) -> bool) {
        self.open().retain(|_, session| session.ends_ms > now_ms && in_force(session.token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> TokenId {
        text.parse().unwrap()
    }

    #[test]
    fn a_session_lasts_until_its_time_its_end_or_its_tokens_end() {
        let sessions = Sessions::new(1000);
        let (one, other) = (token("0000000000000001"), token("0000000000000002"));
        let cookie = sessions.begin(one, 0).unwrap();
        assert_eq!(cookie.len(), 32);
        assert_eq!(sessions.token_of(&cookie, 999), Some(one));
        assert_eq!(sessions.token_of(&cookie, 1000), None);
        assert_eq!(sessions.token_of("", 0), None);
        assert_eq!(sessions.token_of(&"0".repeat(32), 0), None);
        let second = sessions.begin(other, 0).unwrap();
        sessions.sweep(0, |token| token != one);
        assert_eq!((sessions.token_of(&cookie, 0), sessions.token_of(&second, 0)), (None, Some(other)));
        sessions.end(&second);
        assert_eq!(sessions.token_of(&second, 0), None);
    }

    #[test]
    fn their_number_is_bounded_and_the_oldest_goes_first() {
        let sessions = Sessions::new(1_000_000);
        let one = token("0000000000000001");
        let first = sessions.begin(one, 0).unwrap();
        for at in 1..=AT_ONCE as i64 {
            sessions.begin(one, at).unwrap();
        }
        assert_eq!(sessions.open().len(), AT_ONCE);
        assert_eq!(sessions.token_of(&first, 1), None);
    }
}
