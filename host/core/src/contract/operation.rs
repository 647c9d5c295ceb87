//! Operations: the kinds of requests that backends serve.

use serde::{Deserialize, Serialize};

/// The kind of request, recognised by its path.
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
}
