//! Operations: the kinds of requests that backends serve.

vocabulary! {
    /// The kind of request, recognised by its path. The order is that of the contract's vocabulary; new ones join at the end.
    pub enum Operation: serde {
        /// `/chat/completions`
        Chat = "chat",
        /// `/completions`
        Completion = "completion",
        /// `/responses`
        Response = "response",
        /// `/messages`
        Message = "message",
        /// `/embeddings`
        Embedding = "embedding",
        /// Anything else.
        Other = "other",
    }
}

impl Operation {
    /// Returns true if a stream of this operation has an end that can be told from a cut.
    pub const fn has_streams(self) -> bool {
        match self {
            Operation::Chat | Operation::Completion | Operation::Response | Operation::Message => true,
            Operation::Embedding | Operation::Other => false,
        }
    }
}
