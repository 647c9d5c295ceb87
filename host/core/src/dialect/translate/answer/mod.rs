//! A whole answer of one API as an answer of the other. Read leniently: what nobody asked for is left out, or refused
//! when a client would miss it.

mod from_chat;
mod from_messages;
mod to_chat;
mod to_messages;

pub(super) use from_chat::{matched, stop as chat_stop, usage as chat_usage};
pub(super) use from_messages::{stop as messages_stop, usage as messages_usage};
pub(super) use to_chat::{finish_reason, usage as usage_for_chat};
pub(super) use to_messages::{stop_reason, usage as usage_for_messages};

use bytes::Bytes;

use super::request::json;
use super::{Answers, Untranslatable, Way};
use crate::time::Timestamp;

pub(super) fn translate(answers: &Answers, body: &[u8], now: Timestamp) -> Result<Bytes, Untranslatable> {
    Ok(match answers.way {
        Way::ChatToMessages => json(&to_chat::write(&from_messages::read(body)?, &answers.model, now)),
        Way::MessagesToChat => json(&to_messages::write(&from_chat::read(body)?, &answers.model)),
    })
}
