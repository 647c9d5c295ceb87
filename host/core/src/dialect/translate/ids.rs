//! Ids that an upstream left out, made up for clients that need them.
//!
//! They come from the conversation: a later turn of it has others, and the same request has the same ones, whether it is
//! answered in one body or as a stream, and by whichever attempt.

use std::borrow::Cow;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::dialect::format::neutral::{Answer, News};
use crate::http::json;

/// Made-up ids of the answer to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeUpIds(u64);

/// Members of a request that say how it is to be answered, and nothing of the conversation.
const MANNERS: [&[u8]; 2] = [b"stream", b"stream_options"];

impl MadeUpIds {
    /// The ids of the answer to the request with this body.
    pub fn of_request(body: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        for member in json::members(body).filter(|(name, _)| !MANNERS.contains(name)) {
            member.hash(&mut hasher);
        }
        Self(hasher.finish())
    }

    fn answer(self, prefix: &str) -> String {
        format!("{prefix}{:016x}", self.0)
    }

    fn call(self, number: usize) -> String {
        format!("call_{:016x}{number:02}", self.0)
    }

    /// Fills in the ids that an answer lacks; its own begins with `prefix`.
    pub(super) fn fill(self, answer: &mut Answer<'_>, prefix: &str) {
        if answer.head.id.is_empty() {
            answer.head.id = self.answer(prefix).into();
        }
        for (number, call) in answer.calls.iter_mut().enumerate().filter(|(_, call)| call.id.is_empty()) {
            call.id = self.call(number).into();
        }
    }

    /// The same for a piece of a stream.
    pub(super) fn filled<'a>(self, mut news: News<'a>, prefix: &str) -> News<'a> {
        match &mut news {
            News::Start(head) if head.id.is_empty() => head.id = Cow::Owned(self.answer(prefix)),
            News::Call { number, id, .. } if id.is_empty() => *id = Cow::Owned(self.call(*number)),
            _ => {}
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_belong_to_the_turn_of_a_conversation() {
        let ids = |body: &str| MadeUpIds::of_request(body.as_bytes());
        let plain = ids(r#"{"model":"m","messages":[1]}"#);
        assert_eq!(plain, ids(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[1]}"#));
        assert_ne!(plain, ids(r#"{"model":"m","messages":[1,2]}"#));
        assert_ne!(plain.call(0), plain.call(1));
    }
}
