//! Secrets in what a backend sends: what can be one, and how it is replaced before it leaves.
//!
//! A key such as `none` or `x` is no secret, and to replace it would damage every text that has the word. So only values
//! that are long and varied enough are looked for.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use memchr::memmem::Finder;

use super::url::percent_encoded;

/// A shorter value is not looked for.
const MIN_SECRET_BYTES: usize = 8;

/// A value of letters alone is a word, unless it is at least this long.
const MIN_WORD_BYTES: usize = 10;

/// The least information of a value, in bits, by the frequencies of its own characters.
const MIN_SECRET_BITS: f64 = 20.0;

/// Values that stand for no key at servers that need none, in lower case.
const NO_SECRETS: [&str; 16] = [
    "anonymous",
    "anything",
    "api-key-not-set",
    "api-key",
    "dummy-key",
    "lm-studio",
    "lmstudio",
    "no-api-key",
    "no-key-needed",
    "no-key-required",
    "not-needed",
    "not-required",
    "not-used",
    "placeholder",
    "sk-no-key-required",
    "unspecified",
];

/// Text in the place of a secret.
const MASK: &[u8] = b"***";

/// The secrets of one backend, in every spelling that is looked for. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Arc<[Finder<'static>]>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

/// Returns true if a value is long and varied enough to be a secret that no other text holds by chance.
pub fn can_be_secret(value: &str) -> bool {
    let is_word = value.bytes().all(|byte| byte.is_ascii_alphabetic()) && value.len() < MIN_WORD_BYTES;
    value.len() >= MIN_SECRET_BYTES
        && !is_word
        && !NO_SECRETS.contains(&value.to_ascii_lowercase().as_str())
        && bits(value.as_bytes()) >= MIN_SECRET_BITS
}

/// Shannon's information of a text by the frequencies of its own bytes, in bits.
fn bits(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    value.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let length = value.len() as f64;
    let of = |count: &u32| f64::from(*count) * (length / f64::from(*count)).log2();
    counts.iter().filter(|count| **count > 0).map(of).sum()
}

/// A header's value without the scheme before its secret (`Bearer`, `Basic`, `Token`).
pub fn without_scheme(value: &str) -> &str {
    match value.trim().split_once(' ') {
        Some((scheme, rest)) if ["bearer", "basic", "token", "key", "apikey"].contains(&&*scheme.to_lowercase()) => {
            rest.trim_start()
        }
        Some(_) | None => value.trim(),
    }
}

impl Secrets {
    /// The values among these that can be secrets, each also as a JSON string and a URL would have it.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut spellings: Vec<String> = Vec::new();
        for value in values.into_iter().map(without_scheme).filter(|value| can_be_secret(value)) {
            spellings.extend([
                value.to_owned(),
                value.replace('/', "\\/"),
                json_escaped(value),
                percent_encoded(value),
            ]);
        }
        // The longest first, so that of two that begin alike the whole of it goes.
        spellings.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        spellings.dedup();
        Self(spellings.iter().map(|text| Finder::new(text.as_bytes()).into_owned()).collect())
    }

    /// Returns true if nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is looked for, as text.
    pub fn spellings(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|finder| std::str::from_utf8(finder.needle()).ok())
    }

    /// Returns true if one of them is in the text.
    pub fn are_in(&self, text: &[u8]) -> bool {
        self.0.iter().any(|finder| finder.find(text).is_some())
    }

    /// The text with `***` in the place of each secret; as it came where it has none.
    pub fn redacted(&self, text: Bytes) -> Bytes {
        self.replaced(text, |_| MASK.len())
    }

    /// Replaces the secrets of a text by `***`.
    pub fn redact(&self, text: &mut String) {
        for finder in self.0.iter().filter(|finder| finder.find(text.as_bytes()).is_some()).collect::<Vec<_>>() {
            if let Ok(secret) = std::str::from_utf8(finder.needle()) {
                *text = text.replace(secret, "***");
            }
        }
    }

    /// Removes the headers that hold a secret.
    pub fn clean(&self, headers: &mut HeaderMap) {
        if self.is_empty() {
            return;
        }
        while let Some(name) = headers
            .iter()
            .find(|(name, value)| self.are_in(value.as_bytes()) || self.are_in(name.as_str().as_bytes()))
            .map(|(name, _)| name)
        {
            let name = name.clone();
            headers.remove(name);
        }
    }

    fn replaced(&self, mut text: Bytes, mask_length: impl Fn(usize) -> usize) -> Bytes {
        for finder in self.0.iter() {
            let Some(first) = finder.find(&text) else { continue };
            let length = finder.needle().len();
            let mut clean = BytesMut::with_capacity(text.len());
            let (mut rest, mut next) = (&text[..], Some(first));
            while let Some(at) = next {
                clean.extend_from_slice(&rest[..at]);
                clean.resize(clean.len() + mask_length(length), b'*');
                rest = &rest[at + length..];
                next = finder.find(rest);
            }
            clean.extend_from_slice(rest);
            text = clean.freeze();
        }
        text
    }

    /// Bytes at the end of a text with which a secret may begin.
    fn begun_at_end(&self, text: &[u8]) -> usize {
        let begun = |finder: &Finder<'_>| {
            let secret = finder.needle();
            let tail = &text[text.len().saturating_sub(secret.len() - 1)..];
            let starts = memchr::memchr_iter(secret[0], tail);
            starts.map(|at| &tail[at..]).find(|part| secret.starts_with(part)).map_or(0, <[u8]>::len)
        };
        self.0.iter().map(begun).max().unwrap_or(0)
    }
}

/// A body on its way to the client in pieces, whose length stays: each character of a secret becomes a `*`.
#[derive(Debug, Default)]
pub struct Redactor {
    secrets: Secrets,
    /// The end of what came, where a secret may have begun.
    held: Bytes,
}

impl Redactor {
    /// A redactor for a body that may hold these.
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets, held: Bytes::new() }
    }

    /// Returns the secrets that it takes out.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Takes a piece; returns what can go out: the same bytes where nothing is to be replaced or held back.
    pub fn push(&mut self, data: Bytes) -> Bytes {
        if self.secrets.is_empty() || (data.is_empty() && self.held.is_empty()) {
            return data;
        }
        let whole = match std::mem::take(&mut self.held) {
            held if held.is_empty() => data,
            held => [&held[..], &data[..]].concat().into(),
        };
        let mut clean = self.secrets.replaced(whole, |length| length);
        let begun = self.secrets.begun_at_end(&clean);
        self.held = clean.split_off(clean.len() - begun);
        clean
    }

    /// Takes the last piece; returns all that is left.
    pub fn finish(&mut self, data: Bytes) -> Bytes {
        let clean = self.push(data);
        match std::mem::take(&mut self.held) {
            held if held.is_empty() => clean,
            held => [&clean[..], &held[..]].concat().into(),
        }
    }
}

fn json_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "sk-a/b+c9Zx7";

    #[test]
    fn only_what_is_long_and_varied_can_be_a_secret() {
        for secret in ["key-of-p1", "sk-proj-8fK2", "team-sealed", KEY, "3f7a9c1e2b8d4f60", "correct-horse-battery"] {
            assert!(can_be_secret(secret), "{secret}");
        }
        for word in ["", "x", "none", "EMPTY", "ollama", "research", "aaaaaaaaaaaaaaaa", "lm-studio", "not-needed"] {
            assert!(!can_be_secret(word), "{word}");
        }
    }

    #[test]
    fn a_short_key_damages_no_text() {
        let secrets = Secrets::new(["x", "none", "Bearer dummy"]);
        assert!(secrets.is_empty());
        let text = Bytes::from_static(b"none of the boxes");
        assert_eq!(secrets.redacted(text.clone()), text);
    }

    #[test]
    fn a_secret_is_found_in_every_spelling_and_without_its_scheme() {
        let secrets = Secrets::new(["Bearer sk-a/b+c9Zx7"]);
        for told in [
            "wrong key sk-a/b+c9Zx7 given",
            r#"{"key":"sk-a\/b+c9Zx7"}"#,
            "https://h/?key=sk-a%2Fb%2Bc9Zx7",
            "sk-a/b+c9Zx7sk-a/b+c9Zx7",
        ] {
            assert!(secrets.are_in(told.as_bytes()), "{told}");
            let clean = secrets.redacted(Bytes::from(told));
            assert!(!secrets.are_in(&clean) && clean.windows(3).any(|w| w == MASK), "{told}");
            let mut text = told.to_owned();
            secrets.redact(&mut text);
            assert_eq!(text.as_bytes(), clean);
        }
        assert_eq!(format!("{secrets:?}"), "Secrets(3)");
    }

    #[test]
    fn headers_that_hold_a_secret_are_removed() {
        let mut headers = HeaderMap::new();
        headers.append("x-echo", HeaderValue::from_static("a sk-a/b+c9Zx7"));
        headers.append("x-kept", HeaderValue::from_static("a"));
        Secrets::new([KEY]).clean(&mut headers);
        assert!(!headers.contains_key("x-echo") && headers.contains_key("x-kept"));
    }

    #[test]
    fn what_holds_no_secret_is_passed_on_without_a_copy() {
        let mut redactor = Redactor::new(Secrets::new([KEY]));
        let data = Bytes::from_static(b"data: {\"a\":1}\n\n");
        let out = redactor.push(data.clone());
        assert_eq!((out.as_ptr(), out.len()), (data.as_ptr(), data.len()));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_no_secret_leaves_and_the_length_stays(
            pieces in prop::collection::vec("[sk/ab+c9Zx7-]{0,6}|sk-a/b\\+c9Zx7|sk-a/b|\\+c9Zx7", 0..12),
            cuts in prop::collection::vec(0usize..40, 0..8),
        ) {
            let whole = pieces.concat().into_bytes();
            let secrets = Secrets::new([KEY]);
            let mut redactor = Redactor::new(secrets.clone());
            let (mut out, mut rest) = (Vec::new(), &whole[..]);
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                out.extend_from_slice(&redactor.push(Bytes::copy_from_slice(piece)));
                rest = more;
            }
            out.extend_from_slice(&redactor.finish(Bytes::copy_from_slice(rest)));
            prop_assert_eq!(out.len(), whole.len());
            prop_assert!(!secrets.are_in(&out));
            if !secrets.are_in(&whole) {
                prop_assert_eq!(out, whole);
            }
        }
    }
}
