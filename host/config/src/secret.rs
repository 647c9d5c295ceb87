//! Secrets: values that can be used but not printed, and client keys that are only ever compared.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// More bytes are not a key.
pub const MAX_SECRET_BYTES: usize = 16 * 1024;

/// A value that must not reach a log, an error or a screen: its `Debug` and `Display` are `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// A secret with this value, which is never printed.
    pub fn new(value: impl Into<Box<str>>) -> Self {
        Self(value.into())
    }

    /// Takes in a value that is to be sent: it must be able to stand in a header.
    ///
    /// White space, byte order marks and invisible characters around it, which editors, shells and web pages leave there,
    /// are no part of it.
    pub fn for_header(value: &[u8]) -> Result<Self, Unusable> {
        let value = std::str::from_utf8(value).map_or(value, |text| trimmed(text).as_bytes());
        if value.is_empty() {
            return Err(Unusable::Empty);
        }
        if value.len() > MAX_SECRET_BYTES {
            return Err(Unusable::TooLong);
        }
        match str::from_utf8(value) {
            Ok(text) if value.iter().all(|byte| (b' '..=b'~').contains(byte)) => Ok(Self::new(text)),
            Ok(_) | Err(_) => Err(Unusable::NotForHeaders),
        }
    }

    /// The value itself; only for the place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in constant time with `presented`.
    pub fn matches(&self, presented: &str) -> bool {
        KeyDigest::of(&self.0).matches(&KeyDigest::of(presented))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A text without what stands invisibly around it.
pub fn trimmed(text: &str) -> &str {
    let is_invisible =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}');
    text.trim_matches(is_invisible)
}

/// The reason why a value cannot be sent, as a predicate of "the secret".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The value is empty.
    #[error("is empty")]
    Empty,
    /// The value is longer than [`MAX_SECRET_BYTES`].
    #[error("is too long")]
    TooLong,
    /// The value has characters other than printable ASCII.
    #[error("has characters that cannot stand in a header (a line break?)")]
    NotForHeaders,
}

/// The SHA-256 of a client key: enough to know the key when it comes, useless to whoever reads the memory.
#[derive(Clone, Copy)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    /// The digest of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Reads 64 hexadecimal digits; none when it is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }

    /// Its bytes, to find keys that are there twice; a key that was presented is compared by [`KeyDigest::matches`].
    pub(super) fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Compares in constant time with `other`.
    pub fn matches(&self, other: &KeyDigest) -> bool {
        self.ct_eq(other).into()
    }
}

impl ConstantTimeEq for KeyDigest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other)
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("sk-very-private");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(secret.expose(), "sk-very-private");
    }

    #[test]
    fn a_secret_knows_itself_and_nothing_else() {
        let secret = Secret::new("token");
        assert!(secret.matches("token"));
        assert!(!secret.matches("tokem"));
        assert!(!secret.matches("token "));
        assert!(!secret.matches(""));
    }

    #[test]
    fn what_is_sent_must_fit_into_a_header() {
        assert_eq!(Secret::for_header(b"sk-1 ~").unwrap().expose(), "sk-1 ~");
        assert!(Secret::for_header(&[b'k'; MAX_SECRET_BYTES]).is_ok());
        for around in ["\u{feff}sk-1\r\n", " sk-1\t", "\u{a0}sk-1\u{200b}", "sk-1\0"] {
            assert_eq!(Secret::for_header(around.as_bytes()).unwrap().expose(), "sk-1", "{around:?}");
        }
        for (value, why) in [
            (&b""[..], Unusable::Empty),
            (b" \n", Unusable::Empty),
            (&[b'k'; MAX_SECRET_BYTES + 1], Unusable::TooLong),
            (b"a\nb", Unusable::NotForHeaders),
            ("ké".as_bytes(), Unusable::NotForHeaders),
            (b"k\xff", Unusable::NotForHeaders),
            (b"k\x7fk", Unusable::NotForHeaders),
        ] {
            assert_eq!(Secret::for_header(value).unwrap_err(), why);
        }
    }

    #[test]
    fn a_digest_is_read_from_hex_in_either_case() {
        let hex = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"; // "alice"
        let digest = KeyDigest::from_hex(hex).unwrap();
        assert!(digest.matches(&KeyDigest::of("alice")));
        assert!(KeyDigest::from_hex(&hex.to_uppercase()).unwrap().matches(&digest));
        assert!(KeyDigest::from_hex(&hex[1..]).is_none());
        assert!(KeyDigest::from_hex(&hex.replace('2', "g")).is_none());
        assert!(KeyDigest::from_hex(&"é".repeat(32)).is_none());
    }
}
