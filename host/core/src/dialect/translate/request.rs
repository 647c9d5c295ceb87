//! A request of one API as a request of the other.

pub(in crate::dialect) use crate::dialect::anthropic::messages::read_turns::call as message_call;
pub(in crate::dialect) use crate::dialect::openai::chat::read_turns::loose_call as chat_call;
pub(in crate::dialect) use crate::dialect::openai::chat::write_request::{CallOut, call as call_out};

use bytes::Bytes;
use serde::Serialize;

use super::{Answers, LimitName, Untranslatable, Way};
use crate::dialect::anthropic::messages::{read_request as from_messages, write_request as to_messages};
use crate::dialect::openai::chat::{read_request as from_chat, write_request as to_chat};

/// The most tokens of an answer where the chat client did not say: Anthropic's API demands a number, and this is one
/// that even small models behind that API take.
pub const DEFAULT_MAX_TOKENS: u64 = 8_192;

/// A translated request, and what is needed to translate its answer back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The body for the backend.
    pub body: Bytes,
    /// How its answer is to be translated.
    pub answers: Answers,
}

/// Translates a request, and asks for this model.
///
/// # Errors
/// [`Untranslatable`]: the client's request says something that the other API cannot; another backend may.
pub fn translate(way: Way, body: &[u8], model: &str, limit: LimitName) -> Result<Translated, Untranslatable> {
    let (request, body) = match way {
        Way::ChatToMessages => {
            let mut request = from_chat::read(body)?;
            request.model = model.into();
            let body = json(&to_messages::write(&request));
            (request, body)
        }
        Way::MessagesToChat => {
            let mut request = from_messages::read(body)?;
            request.model = model.into();
            let body = json(&to_chat::write(&request, limit));
            (request, body)
        }
    };
    let answers =
        Answers { way, stream: request.stream, include_usage: request.include_usage, model: model.to_owned() };
    Ok(Translated { body, answers })
}

pub(in crate::dialect) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("our own types are always JSON").into()
}
