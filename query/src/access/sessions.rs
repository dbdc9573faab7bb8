//! Sessions of the page: who signed in with a token has a cookie with a random number, so that the token itself is not
//! kept in the browser.
//!
//! In memory only. A restart ends all of them, and so does a token's end. (Several processes behind one address each know
//! their own; send a browser to the same one, or let programs use their token.)

use super::token::TokenId;
use data_encoding::HEXLOWER;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// Sessions kept at once. With more, the one that ends first makes room.
const AT_ONCE: usize = 10_000;
const ID_BYTES: usize = 16;
const CONTEXT: &str = "headcount 2026 session of a page v1";

struct Session {
    token: TokenId,
    ends_ms: i64,
}

/// The open sessions, by the hash of their number: what is looked up in a table takes time by what is in it, and a hash
/// tells nothing of the number.
pub(super) struct Sessions {
    lifetime_ms: i64,
    open: Mutex<HashMap<[u8; 32], Session>>,
}

/// The number as the cookie has it.
fn hash(cookie: &str) -> Option<[u8; 32]> {
    // Other lengths are not ours, and need not be hashed.
    (cookie.len() == 2 * ID_BYTES).then(|| blake3::derive_key(CONTEXT, cookie.as_bytes()))
}

impl Sessions {
    pub(super) fn new(lifetime_ms: i64) -> Self {
        Sessions { lifetime_ms, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session of `token`'s and returns the cookie's value.
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

    /// Whose session the cookie is, while it lasts.
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

    /// Ends the sessions that are over, and those of tokens that `in_force` does not know.
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
