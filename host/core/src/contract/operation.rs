//! What a request asks for.

use serde::{Deserialize, Serialize};

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `/chat/completions`
    Chat,
    /// `/completions`
    Completion,
    /// `/responses`
    Response,
    /// `/messages`
    Message,
    /// `/embeddings`
    Embedding,
    /// Anything else.
    Other,
}

impl Operation {
    /// Every operation, in the order of the contract's vocabulary. New ones join at the end.
    pub const ALL: [Operation; 6] = [
        Operation::Chat,
        Operation::Completion,
        Operation::Response,
        Operation::Message,
        Operation::Embedding,
        Operation::Other,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::Completion => "completion",
            Operation::Response => "response",
            Operation::Message => "message",
            Operation::Embedding => "embedding",
            Operation::Other => "other",
        }
    }

    /// What this path asks for, whatever stands before its last segments.
    pub fn of_path(path: &str) -> Self {
        let path = path.trim_end_matches('/');
        if path.ends_with("/chat/completions") {
            Operation::Chat
        } else if path.ends_with("/completions") {
            Operation::Completion
        } else if path.ends_with("/responses") {
            Operation::Response
        } else if path.ends_with("/messages") {
            Operation::Message
        } else if path.ends_with("/embeddings") {
            Operation::Embedding
        } else {
            Operation::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_come_from_the_end_of_the_path() {
        assert_eq!(Operation::of_path("/v1/chat/completions"), Operation::Chat);
        assert_eq!(Operation::of_path("/v1/completions/"), Operation::Completion);
        assert_eq!(Operation::of_path("/openai/v1/responses"), Operation::Response);
        assert_eq!(Operation::of_path("/v1/files"), Operation::Other);
    }
}
