//! What a token is: a public half that names it, and a secret half of which only a hash is stored.

use blake3::Hash;
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;
use zeroize::Zeroizing;

/// What every token begins with, so that scanners for leaked secrets can know one.
const PREFIX: &str = "hc_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 20;

/// Context of the hash; another one would make all tokens void.
const CONTEXT: &str = "headcount 2026 token of reports v1";

/// A token's public half. It may be listed, logged and told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_BYTES]);

/// Text that is no token's id.
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

/// A whole token, for as long as a request or a command needs it. Neither printable nor serialisable, and gone from
/// memory when dropped.
pub struct Token {
    id: TokenId,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, …)", self.id)
    }
}

/// What is stored of a token's secret.
///
/// A plain BLAKE3, not a slow hash: the secret is 160 random bits, not a password, so whoever has the hash cannot try
/// them all, however fast each try is. And a slow hash at every request would be a way to keep the service busy.
/// Comparing takes the same time wherever the two differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(Hash);

impl TokenHash {
    /// As the table has it.
    pub fn to_hex(self) -> String {
        self.0.to_hex().to_string()
    }

    /// What [`TokenHash::to_hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        Hash::from_hex(text).ok().map(TokenHash)
    }
}

impl Token {
    /// A new one, from the operating system's generator.
    ///
    /// # Errors
    /// The generator does not answer.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; ID_BYTES], Zeroizing::new([0; SECRET_BYTES]));
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut *secret)?;
        Ok(Token { id: TokenId(id), secret })
    }

    /// Reads `hc_ID_SECRET`. There is one way to write a token: lower case, nothing around it.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        if secret.len() != 2 * SECRET_BYTES {
            return None;
        }
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        HEXLOWER.decode_mut(secret.as_bytes(), &mut *bytes).ok()?;
        Some(Token { id: id.parse().ok()?, secret: bytes })
    }

    /// The text that is shown once.
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(HEXLOWER.encode(&*self.secret));
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id, *secret))
    }

    /// Its public half.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What is stored of it.
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
        // Stored hashes outlive this code.
        assert_eq!(hash(&zeros), "dc6e7446c1247585aa7d0dbf1394a7a71f44d68b30910a63f836de81b1cc4406");
    }

    #[test]
    fn a_token_does_not_print_its_secret() {
        let token = Token::parse(&format!("hc_{}_{}", "ab".repeat(8), "cd".repeat(20))).unwrap();
        assert_eq!(format!("{token:?}"), format!("Token({}, …)", "ab".repeat(8)));
    }
}
