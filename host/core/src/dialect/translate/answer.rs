//! A whole answer of one API as an answer of the other. Read leniently: what nobody asked for is left out, or refused
//! when a client would miss it.

pub(in crate::dialect) use crate::dialect::anthropic::messages::read_answer::{
    stop as messages_stop, usage as messages_usage,
};
pub(in crate::dialect) use crate::dialect::anthropic::messages::write_answer::{
    stop_reason, usage as usage_for_messages,
};
pub(in crate::dialect) use crate::dialect::openai::chat::read_answer::{
    matched, stop as chat_stop, usage as chat_usage,
};
pub(in crate::dialect) use crate::dialect::openai::chat::write_answer::{finish_reason, usage as usage_for_chat};

use bytes::Bytes;

use super::request::json;
use super::{Answers, Untranslatable, Way};
use crate::dialect::anthropic::messages::{read_answer as from_messages, write_answer as to_messages};
use crate::dialect::openai::chat::{read_answer as from_chat, write_answer as to_chat};
use crate::time::Timestamp;

pub(in crate::dialect) fn translate(answers: &Answers, body: &[u8], now: Timestamp) -> Result<Bytes, Untranslatable> {
    Ok(match answers.way {
        Way::ChatToMessages => json(&to_chat::write(&from_messages::read(body)?, &answers.model, now)),
        Way::MessagesToChat => json(&to_messages::write(&from_chat::read(body)?, &answers.model)),
    })
}
