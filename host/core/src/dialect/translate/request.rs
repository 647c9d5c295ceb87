//! A request of one API as a request of another.

use bytes::Bytes;

use super::{Answers, Translation, Untranslatable};
pub use crate::dialect::format::DEFAULT_MAX_TOKENS;

/// A translated request, and what is needed to translate its answer back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The body for the backend.
    pub body: Bytes,
    /// Facts for translating its answer.
    pub answers: Answers,
}

/// Translates a request, and asks for this model.
///
/// # Errors
/// [`Untranslatable`]: the client's request says something that the other API cannot; another backend may.
pub fn translate(translation: Translation, body: &[u8], model: &str) -> Result<Translated, Untranslatable> {
    let target = translation.target();
    let mut request = translation.source().read_request(body, target.api())?;
    request.model = model.into();
    let body = target.write_request(&request);
    let (stream, include_usage) = (request.stream, request.include_usage);
    Ok(Translated { body, answers: Answers { translation, stream, include_usage, model: model.to_owned() } })
}

impl Translated {
    /// The same for the backend at this host, with its name for the model.
    pub fn for_backend(&self, model: &str, host: &str) -> Self {
        let body = self.answers.translation.target().adapt_request(&self.body, model, host);
        Self { body, answers: Answers { model: model.to_owned(), ..self.answers.clone() } }
    }
}
