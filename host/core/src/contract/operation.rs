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
