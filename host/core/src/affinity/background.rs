//! Responses that their provider makes in the background: what they used is told only to who asks for them again.

use std::collections::VecDeque;

use crate::usage::Usage;

/// Responses that are remembered at a time; the oldest is forgotten first.
const MAX_PENDING: usize = 4_096;

/// A response that was begun in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundResponse {
    /// Its key among stored things.
    pub key: u64,
    /// Model name sent upstream.
    pub model_sent: String,
    /// Usage that was counted when it was begun.
    pub counted: Usage,
}

/// Responses whose usage is not yet known, the oldest first.
#[derive(Debug, Default)]
pub struct BackgroundResponses(VecDeque<BackgroundResponse>);

impl BackgroundResponses {
    /// Remembers a response that was begun.
    pub fn insert(&mut self, begun: BackgroundResponse) {
        self.take(begun.key);
        if self.0.len() == MAX_PENDING {
            self.0.pop_front();
        }
        self.0.push_back(begun);
    }

    /// The response of this key, if its usage is not yet known.
    pub fn get(&self, key: u64) -> Option<&BackgroundResponse> {
        self.0.iter().find(|begun| begun.key == key)
    }

    /// The same, whose usage is known from now on.
    pub fn take(&mut self, key: u64) -> Option<BackgroundResponse> {
        self.0.remove(self.0.iter().position(|begun| begun.key == key)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(key: u64) -> BackgroundResponse {
        BackgroundResponse { key, model_sent: "m".to_owned(), counted: Usage::NONE }
    }

    #[test]
    fn a_response_is_settled_once_and_the_oldest_is_forgotten_first() {
        let mut pending = BackgroundResponses::default();
        (0..MAX_PENDING as u64 + 1).for_each(|key| pending.insert(begun(key)));
        assert_eq!((pending.get(0), pending.get(1)), (None, Some(&begun(1))));
        assert_eq!((pending.take(1), pending.take(1)), (Some(begun(1)), None));
        pending.insert(begun(2));
        assert_eq!(pending.0.len(), MAX_PENDING - 1, "once each");
    }
}
