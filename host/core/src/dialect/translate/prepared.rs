//! The translations of one request, each made once.

use std::sync::Mutex;

use super::request::{Translated, translate};
use super::{Strictness, Translation, Untranslatable};

/// A request's translations, made when they are first needed and shared by its attempts.
#[derive(Debug, Default)]
pub struct Translations {
    strictness: Strictness,
    made: Mutex<Vec<(Translation, Result<Translated, Untranslatable>)>>,
}

impl Translations {
    /// Translations of a request that are still to be made.
    pub fn new(strictness: Strictness) -> Self {
        Self { strictness, made: Mutex::default() }
    }

    /// The treatment of what has no counterpart.
    pub const fn strictness(&self) -> Strictness {
        self.strictness
    }

    /// Checks that the request can be translated.
    ///
    /// # Errors
    /// The field that cannot.
    pub fn check(&self, translation: Translation, body: &[u8], model: &str) -> Result<(), Untranslatable> {
        self.with(translation, body, model, |_| ())
    }

    /// The request for the backend at this host, with its name for the model. `body` is the client's, which is read only
    /// the first time.
    ///
    /// # Errors
    /// The field that cannot be translated.
    pub fn translated(
        &self,
        translation: Translation,
        body: &[u8],
        model: &str,
        host: &str,
    ) -> Result<Translated, Untranslatable> {
        self.with(translation, body, model, |translated| translated.for_backend(model, host))
    }

    fn with<R>(
        &self,
        translation: Translation,
        body: &[u8],
        model: &str,
        use_it: impl FnOnce(&Translated) -> R,
    ) -> Result<R, Untranslatable> {
        let mut made = self.made.lock().expect("a translation does not panic");
        let at = match made.iter().position(|(of, _)| *of == translation) {
            Some(at) => at,
            None => {
                made.push((translation, translate(translation, self.strictness, body, model)));
                made.len() - 1
            }
        };
        made[at].1.as_ref().map(use_it).map_err(Clone::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;

    #[test]
    fn a_request_is_translated_once_for_a_dialect_and_adapted_to_each_backend() {
        let (translations, way) = (Translations::default(), Translation::MESSAGES_TO_CHAT);
        assert_eq!(translations.check(way, BODY, "m"), Ok(()));
        // Only the first look reads the client's body.
        for (model, host, body) in [
            ("m", "x", r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}"#),
            (
                "n",
                "api.openai.com",
                r#"{"model":"n","messages":[{"role":"user","content":"hi"}],"max_completion_tokens":5}"#,
            ),
        ] {
            let translated = translations.translated(way, b"not read again", model, host).unwrap();
            assert_eq!((&translated.body[..], &*translated.answers.model), (body.as_bytes(), model));
        }
        let refused = translations.check(Translation::CHAT_TO_MESSAGES, b"{", "m").unwrap_err();
        assert_eq!(translations.translated(Translation::CHAT_TO_MESSAGES, BODY, "m", "x"), Err(refused));
    }
}
