//! Tokens: a public id, and a secret of which only a hash is stored.

use blake3::Hash;
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Prefix of every token, so that scanners for leaked secrets can recognise one.
const PREFIX: &str = "hc_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 20;

/// Context of the hash; changing it would invalidate all tokens.
const CONTEXT: &str = "headcount 2026 token of reports v1";

/// A token's public id. It may be listed, logged and displayed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_BYTES]);

/// The text is not a token's id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a token's id: 16 hexadecimal digits, as `headcount token list` shows them")]
pub struct InvalidTokenId;

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(text: &str) -> Result<Self, InvalidTokenId> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| InvalidTokenId)?;
        Ok(TokenId(bytes.try_into().map_err(|_| InvalidTokenId)?))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A whole token, for the duration of a request or a command. Neither printable nor serialisable; its memory is wiped on drop.
pub struct Token {
    id: TokenId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, …)", self.id)
    }
}

/// The stored hash of a token.
///
/// A plain BLAKE3, not a slow hash: the secret has 160 random bits, so an attacker with the hash cannot try them all, however fast each try
/// is. A slow hash at every request would let clients overload the service. Comparison takes constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(Hash);

impl TokenHash {
    /// As the table stores it.
    pub fn to_hex(self) -> String {
        self.0.to_hex().to_string()
    }

    /// Parses what [`TokenHash::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        Hash::from_hex(text).ok().map(TokenHash)
    }
}

impl Token {
    /// A new token, from the operating system's random number generator.
    ///
    /// # Errors
    /// The random number generator fails.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID_BYTES], Zeroizing::new([0; SECRET_BYTES]));
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut *secret)?;
        Ok(Token { id: TokenId(id), secret })
    }

    /// Parses `hc_ID_SECRET`. A token has exactly one text form: lower case, without surrounding characters.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        if secret.len() != 2 * SECRET_BYTES {
            return None;
        }
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        HEXLOWER.decode_mut(secret.as_bytes(), &mut *bytes).ok()?;
        Some(Token { id: id.parse().ok()?, secret: bytes })
    }

    /// The full text, displayed once.
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(HEXLOWER.encode(&*self.secret));
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id, *secret))
    }

    /// The public id.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// The hash to store.
    pub fn hash(&self) -> TokenHash {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&self.id.0).update(&*self.secret);
        TokenHash(hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_nothing_else_does() {
        let token = Token::draw().unwrap();
        let text = token.text();
        assert_eq!(text.len(), 3 + 16 + 1 + 40);
        let again = Token::parse(&text).unwrap();
        assert!(again.id() == token.id() && again.hash() == token.hash());
        assert!(TokenHash::from_hex(&token.hash().to_hex()) == Some(token.hash()));
        let (head, tail) = text.split_at(text.len() - 1);
        for wrong in [
            String::new(),
            "hc_".to_owned(),
            head.to_owned(),
            format!("{head}g"),
            format!("{}0", *text),
            format!(" {}", *text),
            text.to_uppercase(),
            text.replacen('_', "-", 1),
            text.replace("hc_", ""),
            format!("hc__{tail}"),
        ] {
            assert!(Token::parse(&wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_hash_is_of_id_and_secret_and_stays_as_it_is() {
        let zeros = format!("hc_{}_{}", "0".repeat(16), "0".repeat(40));
        let other = format!("hc_{}1_{}", "0".repeat(15), "0".repeat(40));
        let hash = |text: &str| Token::parse(text).unwrap().hash().to_hex();
        assert_ne!(hash(&zeros), hash(&other));
        // Stored hashes must stay valid in later versions.
        assert_eq!(hash(&zeros), "dc6e7446c1247585aa7d0dbf1394a7a71f44d68b30910a63f836de81b1cc4406");
    }

    #[test]
    fn a_token_does_not_print_its_secret() {
        let token = Token::parse(&format!("hc_{}_{}", "ab".repeat(8), "cd".repeat(20))).unwrap();
        assert_eq!(format!("{token:?}"), format!("Token({}, …)", "ab".repeat(8)));
    }
}
