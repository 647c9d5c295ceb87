//! A request of one API as a request of another.

use std::sync::Arc;

use bytes::Bytes;

use super::mend::mend;
use super::{Answers, LeftOut, LongNames, MadeUpIds, Strictness, Translation, Untranslatable};
pub use crate::dialect::format::DEFAULT_MAX_TOKENS;
use crate::dialect::format::edit::without_member;

/// A translated request, and what is needed to translate its answer back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The body for the backend.
    pub body: Bytes,
    /// Facts for translating its answer.
    pub answers: Answers,
    /// The treatment of fields without a counterpart.
    pub strictness: Strictness,
    /// Fields of the client's request that were left out or said otherwise; none where translation is strict.
    pub left_out: Arc<[Untranslatable]>,
}

/// Translates a request, and asks for this model.
///
/// # Errors
/// [`Untranslatable`]: the client's request says something that the other API cannot; another backend may.
pub fn translate(
    translation: Translation,
    strictness: Strictness,
    body: &[u8],
    model: &str,
) -> Result<Translated, Untranslatable> {
    let target = translation.target();
    let left_out = match strictness {
        Strictness::Lenient => LeftOut::lenient(),
        Strictness::Strict => LeftOut::strict(),
    };
    let mut request = translation.source().read_request(body, target.api(), &left_out)?;
    mend(&mut request, target.api(), &left_out)?;
    request.model = model.into();
    let names = LongNames::shorten(&mut request, target.api().max_tool_name_chars);
    let ids = MadeUpIds::of_request(body);
    let body = target.write_request(&request);
    let (stream, include_usage) = (request.stream, request.include_usage);
    let answers = Answers { translation, stream, include_usage, model: model.to_owned(), ids, names };
    Ok(Translated { body, answers, strictness, left_out: left_out.take().into() })
}

impl Translated {
    /// The same for the backend at this host, with its name for the model, and without what that model is known to refuse.
    pub fn for_backend(&self, model: &str, host: &str) -> Self {
        let (source, target) = (self.answers.translation.source(), self.answers.translation.target());
        let mut body = target.adapt_request(&self.body, model, host);
        let mut left_out = Arc::clone(&self.left_out);
        if self.strictness == Strictness::Lenient
            && !target.takes_effort(model)
            && let Some(without) = without_member(&body, target.effort_path())
        {
            body = without;
            let effort = Untranslatable::new(source.effort_path().join("."), format!("is not taken by {model}"));
            left_out = left_out.iter().cloned().chain([effort]).collect();
        }
        let answers = Answers { model: model.to_owned(), ..self.answers.clone() };
        Self { body, answers, strictness: self.strictness, left_out }
    }
}
