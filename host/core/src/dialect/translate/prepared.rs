//! The translations of one request, each made once.

use std::sync::Mutex;

use super::request::{Translated, translate};
use super::{Translation, Untranslatable};

/// A request's translations, made when they are first needed and shared by its attempts.
#[derive(Debug, Default)]
pub struct Translations {
    made: Mutex<Vec<(Translation, Result<Translated, Untranslatable>)>>,
}

impl Translations {
    /// Whether the request can be translated.
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
                made.push((translation, translate(translation, body, model)));
                made.len() - 1
            }
        };
        made[at].1.as_ref().map(use_it).map_err(Clone::clone)
    }
}
