//! The credentials in a request: a token in `Authorization`, or a session cookie.

use super::token::Token;
use axum::http::{HeaderMap, header};
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// Session cookie of clients that came over TLS. Browsers accept the prefix `__Host-` only with `Secure`, `Path=/` and without `Domain`, so
/// no neighbouring host can set such a cookie.
const COOKIE_TLS: &str = "__Host-headcount";
/// Session cookie of clients without TLS.
const COOKIE: &str = "headcount_session";

/// The session cookie's name.
pub(super) fn cookie_name(https: bool) -> &'static str {
    if https { COOKIE_TLS } else { COOKIE }
}

/// The credentials found.
pub(super) enum Credentials {
    Nothing,
    /// An `Authorization` header without a well-formed token.
    NoToken,
    Token(Token),
    Cookie(Zeroizing<String>),
}

impl Credentials {
    /// `Authorization` takes precedence over the cookie: a program sends it on purpose.
    pub(super) fn by(headers: &HeaderMap, https: bool) -> Self {
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        match (sent.next(), sent.next()) {
            (None, _) => session_cookie(headers, https).map_or(Credentials::Nothing, Credentials::Cookie),
            (Some(one), None) => one.to_str().ok().and_then(token).map_or(Credentials::NoToken, Credentials::Token),
            (Some(_), Some(_)) => Credentials::NoToken,
        }
    }
}

/// `Bearer TOKEN`, or `Basic` with the token as password (or as name, if there is no password), for tools that support only a name and a
/// password.
fn token(authorization: &str) -> Option<Token> {
    let (scheme, value) = authorization.split_once(' ')?;
    let value = value.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return Token::parse(value);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(BASE64.decode(value.as_bytes()).ok()?);
    let (name, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Token::parse(if password.is_empty() { name } else { password })
}

/// The session's id.
pub(super) fn session_cookie(headers: &HeaderMap, https: bool) -> Option<Zeroizing<String>> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == cookie_name(https)).map(|(_, value)| Zeroizing::new(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(headers: &[(&'static str, String)], https: bool) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        match Credentials::by(&map, https) {
            Credentials::Nothing => "nothing".to_owned(),
            Credentials::NoToken => "no token".to_owned(),
            Credentials::Token(token) => token.id().to_string(),
            Credentials::Cookie(value) => format!("cookie {}", *value),
        }
    }

    #[test]
    fn a_token_comes_in_one_of_three_ways_and_wins_over_a_cookie() {
        let (id, token) = ("ab".repeat(8), format!("hc_{}_{}", "ab".repeat(8), "cd".repeat(20)));
        let basic = |pair: String| format!("Basic {}", BASE64.encode(pair.as_bytes()));
        let cookie = ("cookie", "a=b; headcount_session=xyz; __Host-headcount=tls".to_owned());
        for value in [
            format!("Bearer {token}"),
            format!("bearer  {token}"),
            basic(format!("anyone:{token}")),
            basic(format!("{token}:")),
        ] {
            assert_eq!(shown(&[("authorization", value), cookie.clone()], false), id);
        }
        for value in [
            token.clone(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Bearer {token}x"),
            format!("Token {token}"),
            basic(token.clone()),
            format!("Basic {token}"),
            basic(format!("{token}:x")),
        ] {
            assert_eq!(shown(&[("authorization", value.clone()), cookie.clone()], false), "no token", "{value}");
        }
        let twice = ("authorization", format!("Bearer {token}"));
        assert_eq!(shown(&[twice.clone(), twice], false), "no token");
        assert_eq!(shown(std::slice::from_ref(&cookie), false), "cookie xyz");
        assert_eq!(shown(std::slice::from_ref(&cookie), true), "cookie tls");
        assert_eq!(shown(&[("cookie", "other=1".to_owned())], false), "nothing");
        assert_eq!(shown(&[], false), "nothing");
    }
}
