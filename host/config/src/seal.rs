//! Sealed secrets: texts that may stand in a file others read, because only a private key opens them.
//!
//! One is a sealed box, the construction of libsodium's `crypto_box_seal`
//! (<https://doc.libsodium.org/public-key_cryptography/sealed_boxes>): a one-time X25519 key, and XSalsa20-Poly1305 under what it
//! shares with the recipient's, the nonce being the BLAKE2b of both public keys. The work is RustCrypto's `crypto_box`. It is
//! written `sealed:` and base64, so that libsodium makes one too, from the base64 of a public key. In Python, with PyNaCl:
//!
//! ```text
//! "sealed:" + b64encode(SealedBox(PublicKey(b64decode(key))).encrypt(secret)).decode()
//! ```

use std::fmt;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{DecodeError, Engine};
use crypto_box::aead::OsRng;
use crypto_box::{KEY_SIZE, SEALBYTES, SecretKey};
use zeroize::Zeroizing;

/// Prefix of a sealed secret.
pub const SEALED: &str = "sealed:";

/// Prefix of a private key; it differs from the public one, so that they are not mixed up.
pub const PRIVATE: &str = "seal-private:";

/// Prefix of a public key.
pub const PUBLIC: &str = "seal-public:";

/// RFC 4648 section 4. Who writes one by hand may leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The half of a pair that opens what was sealed for it. It is not printed, and wiped when it is dropped.
///
/// The library wipes only a part of its own type, so that one is made for the moment of use, and these bytes are kept.
pub struct PrivateKey(Zeroizing<[u8; KEY_SIZE]>);

/// The half of a pair that seals. Anybody may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(crypto_box::PublicKey);

/// A secret that only one private key opens.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Box<[u8]>);

/// The reason why a text is not the key wanted, as a predicate of "the key".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The other half stands where a private key belongs.
    #[error("is a public key, which seals and does not open")]
    IsPublic,
    /// The other half stands where a public key belongs.
    #[error("is a private key, which is to be shown to nobody; the public one begins with `{PUBLIC}`")]
    IsPrivate,
    /// It is anything at all.
    #[error("does not begin with `{begins_with}`")]
    NoPrefix {
        /// Prefix of the key wanted.
        begins_with: &'static str,
    },
    /// Behind the prefix stands something else.
    #[error("is not base64 behind `{begins_with}`")]
    NotBase64 {
        /// Prefix of the key wanted.
        begins_with: &'static str,
    },
    /// It was cut, or something was added.
    #[error("is not of {KEY_SIZE} bytes: a part of it is missing, or too much is there")]
    Length,
}

/// The reason why a sealed secret cannot be opened, as a predicate of "the secret".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// Behind `sealed:` stands something else.
    #[error("is not base64 behind `{SEALED}`")]
    NotBase64,
    /// It was cut: not even an empty secret is so short, or it ends in the middle of a byte.
    #[error("is too short: a part of it is missing")]
    TooShort,
    /// Sealed for another key, or damaged; a sealed box does not tell which.
    #[error("was sealed for another key, or is damaged")]
    NotForThisKey,
}

impl PrivateKey {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Self {
        Self(Zeroizing::new(SecretKey::generate(&mut OsRng).to_bytes()))
    }

    /// Reads one; white space around it does not count.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.trim().starts_with(PUBLIC) {
            return Err(KeyError::IsPublic);
        }
        key_bytes(text, PRIVATE).map(Self)
    }

    /// As [`PrivateKey::parse`] reads it; only for the place where it is kept.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(PRIVATE.len() + KEY_SIZE * 2));
        text.push_str(PRIVATE);
        BASE64.encode_string(self.0.as_slice(), &mut text);
        text
    }

    /// Returns the public key of the pair.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key().public_key())
    }

    /// Opens what was sealed for [`PrivateKey::public`], and is whole: any bit that was changed is noticed.
    pub fn open(&self, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealedError> {
        self.key().unseal(&sealed.0).map(Zeroizing::new).map_err(|_| SealedError::NotForThisKey)
    }

    fn key(&self) -> SecretKey {
        SecretKey::from_bytes(*self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PRIVATE}***")
    }
}

impl PublicKey {
    /// Reads one; white space around it does not count.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.trim().starts_with(PRIVATE) {
            return Err(KeyError::IsPrivate);
        }
        key_bytes(text, PUBLIC).map(|bytes| Self(crypto_box::PublicKey::from_bytes(*bytes)))
    }

    /// Seals a secret. Every time another text comes out, and of the secret it shows nothing but the length.
    pub fn seal(&self, secret: &[u8]) -> Sealed {
        let sealed = self.0.seal(&mut OsRng, secret).expect("a box holds whatever fits into memory");
        Sealed(sealed.into())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", BASE64.encode(self.0.as_bytes()))
    }
}

impl Sealed {
    /// Reads one, with or without its `sealed:`; that it can be opened is not known yet.
    pub fn parse(text: &str) -> Result<Self, SealedError> {
        let text = text.trim();
        let bytes = BASE64
            .decode(text.strip_prefix(SEALED).unwrap_or(text))
            .map_err(|error| if is_cut(error) { SealedError::TooShort } else { SealedError::NotBase64 })?;
        if bytes.len() < SEALBYTES { Err(SealedError::TooShort) } else { Ok(Self(bytes.into())) }
    }
}

/// As it is written; only for the one who wrote the secret.
impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEALED}{}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEALED}***")
    }
}

/// Returns true if the base64 ends too early.
fn is_cut(error: DecodeError) -> bool {
    match error {
        DecodeError::InvalidByte(..) => false,
        DecodeError::InvalidLength(_) | DecodeError::InvalidLastSymbol { .. } | DecodeError::InvalidPadding => true,
    }
}

fn key_bytes(text: &str, begins_with: &'static str) -> Result<Zeroizing<[u8; KEY_SIZE]>, KeyError> {
    let text = text.trim().strip_prefix(begins_with).ok_or(KeyError::NoPrefix { begins_with })?;
    let bytes = BASE64
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|error| if is_cut(error) { KeyError::Length } else { KeyError::NotBase64 { begins_with } })?;
    let mut key = Zeroizing::new([0; KEY_SIZE]);
    if bytes.len() != key.len() {
        return Err(KeyError::Length);
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pair, and two secrets sealed for it by libsodium (PyNaCl 1.6.2, `nacl.public.SealedBox`).
    const LIBSODIUM_PRIVATE: &str = "seal-private:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";
    const LIBSODIUM_PUBLIC: &str = "seal-public:B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=";
    const LIBSODIUM_SEALED: [(&str, &str); 2] = [
        (
            "sk-sealed-by-libsodium",
            "sealed:4kFsstsOroCFRuqeo7X0/C/PNfOJW3xgVD8GKuwcNgTJkT2jpkhEhe5uUjOj1MXsIcNFsyMiL1GCY0PRSSt8cg1fLPdfVQ==",
        ),
        ("x", "sealed:2ZUtcLmmGSdfICm5nvTnNgwLYcSLoxT8KNO5CEmMcXUcS/BzN+/0/KZa1U7hIPlAbg=="),
    ];

    fn libsodium_key() -> PrivateKey {
        PrivateKey::parse(LIBSODIUM_PRIVATE).unwrap()
    }

    fn opened(key: &PrivateKey, text: &str) -> Result<Vec<u8>, SealedError> {
        Sealed::parse(text).and_then(|sealed| key.open(&sealed)).map(|secret| secret.to_vec())
    }

    #[test]
    fn what_libsodium_sealed_is_opened_padded_or_not() {
        let key = libsodium_key();
        assert_eq!(key.public().to_string(), LIBSODIUM_PUBLIC);
        for (secret, sealed) in LIBSODIUM_SEALED {
            assert_eq!(opened(&key, sealed).unwrap(), secret.as_bytes());
            assert_eq!(opened(&key, sealed.trim_end_matches('=')).unwrap(), secret.as_bytes());
            assert_eq!(Sealed::parse(sealed).unwrap().to_string(), sealed);
        }
    }

    #[test]
    fn a_new_pair_seals_and_opens_and_is_read_as_it_is_written() {
        let key = PrivateKey::generate();
        let again = PrivateKey::parse(&format!(" {}\n", *key.to_text())).unwrap();
        let public = PublicKey::parse(&key.public().to_string()).unwrap();
        let (one, two) = (public.seal(b"sk-1"), public.seal(b"sk-1"));
        assert_ne!(one, two, "the same secret is never sealed to the same text");
        assert_eq!(again.open(&one).unwrap().as_slice(), b"sk-1");
        assert_eq!(again.open(&two).unwrap().as_slice(), b"sk-1");
        assert_ne!(*PrivateKey::generate().to_text(), *key.to_text());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let key = libsodium_key();
        let sealed = Sealed::parse(LIBSODIUM_SEALED[0].1).unwrap();
        assert_eq!(format!("{key:?} {sealed:?}"), "seal-private:*** sealed:***");
    }

    #[test]
    fn a_text_that_is_no_key_says_why() {
        let private = |text: &str| PrivateKey::parse(text).unwrap_err();
        let public = |text: &str| PublicKey::parse(text).unwrap_err();
        assert_eq!(private(LIBSODIUM_PUBLIC), KeyError::IsPublic);
        assert_eq!(public(LIBSODIUM_PRIVATE), KeyError::IsPrivate);
        for text in ["", "sk-live", &LIBSODIUM_PRIVATE[PRIVATE.len()..], LIBSODIUM_SEALED[0].1, "SEAL-PRIVATE:AA=="] {
            assert_eq!(private(text), KeyError::NoPrefix { begins_with: PRIVATE });
            assert_eq!(public(text), KeyError::NoPrefix { begins_with: PUBLIC });
        }
        assert_eq!(private("seal-private:a b"), KeyError::NotBase64 { begins_with: PRIVATE });
        assert_eq!(public("seal-public:_-__"), KeyError::NotBase64 { begins_with: PUBLIC });
        for end in PRIVATE.len()..LIBSODIUM_PRIVATE.len() - 1 {
            assert_eq!(private(&LIBSODIUM_PRIVATE[..end]), KeyError::Length);
        }
        assert_eq!(private(&LIBSODIUM_PRIVATE.replacen("AQID", "", 1)), KeyError::Length);
        assert_eq!(public(&LIBSODIUM_PUBLIC.replacen("B6N8", "B6N8B6N8", 1)), KeyError::Length);
    }

    #[test]
    fn a_text_that_is_not_opened_says_why() {
        let key = libsodium_key();
        for text in ["sealed:not base64!", "sealed:AAA-", "sealed:AA=A", "sealed:sealed:AAAA"] {
            assert_eq!(opened(&key, text), Err(SealedError::NotBase64), "{text}");
        }
        let (_, whole) = LIBSODIUM_SEALED[1];
        for text in ["", "sealed:", "sealed:A", "sealed:AA=", "sealed:AAAA", &whole[..67], &whole[..69], &whole[..70]] {
            assert_eq!(opened(&key, text), Err(SealedError::TooShort), "{text}");
        }
        let others = PrivateKey::generate().public().seal(b"sk-1");
        assert_eq!(key.open(&others), Err(SealedError::NotForThisKey));
        let zeros = Sealed(vec![0; SEALBYTES].into());
        assert_eq!(key.open(&zeros), Err(SealedError::NotForThisKey));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn any_secret_comes_back_as_it_was(secret in proptest::collection::vec(any::<u8>(), 0..300), seed in any::<[u8; 32]>()) {
            let key = PrivateKey(Zeroizing::new(seed));
            let text = key.public().seal(&secret).to_string();
            prop_assert_eq!(opened(&key, &text), Ok(secret));
        }

        #[test]
        fn any_flipped_bit_is_refused(secret in "[ -~]{0,60}", bit in any::<prop::sample::Index>()) {
            let key = libsodium_key();
            let mut sealed = key.public().seal(secret.as_bytes());
            let bit = bit.index(sealed.0.len() * 8);
            sealed.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(key.open(&sealed), Err(SealedError::NotForThisKey));
        }

        #[test]
        fn any_other_text_of_the_same_box_is_refused(at in any::<prop::sample::Index>(), new in "[A-Za-z0-9+/=_ é-]{0,3}") {
            let key = libsodium_key();
            let (secret, text) = LIBSODIUM_SEALED[0];
            let at = SEALED.len() + at.index(text.len() - SEALED.len());
            let other = format!("{}{new}{}", &text[..at], &text[at + 1..]);
            // Only the padding may be written in more than one way.
            let is_same = other.trim().trim_end_matches('=') == text.trim_end_matches('=');
            match opened(&key, &other) {
                Ok(found) => prop_assert!(is_same && found == secret.as_bytes(), "{other} was opened"),
                Err(_) => prop_assert!(!is_same || other.trim() != text),
            }
        }

        #[test]
        fn any_text_is_answered(text in "(sealed:|seal-private:|seal-public:)?[A-Za-z0-9+/=]{0,120}|\\PC{0,60}") {
            let _ = opened(&libsodium_key(), &text);
            let _ = PrivateKey::parse(&text);
            let _ = PublicKey::parse(&text);
        }
    }

    #[test]
    fn every_bit_of_a_box_counts() {
        let key = libsodium_key();
        let sealed = Sealed::parse(LIBSODIUM_SEALED[0].1).unwrap();
        for bit in 0..sealed.0.len() * 8 {
            let mut damaged = sealed.clone();
            damaged.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(&damaged), Err(SealedError::NotForThisKey), "bit {bit}");
        }
    }
}
