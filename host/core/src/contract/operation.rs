//! Operations: the kinds of requests that backends serve.

vocabulary! {
    /// The kind of request, recognised by its path. The order is that of the contract's vocabulary; new ones join at the end.
    pub enum Operation: serde {
        /// OpenAI's `/chat/completions`.
        Chat = "chat",
        /// OpenAI's `/completions`, with a prompt in place of messages.
        Completion = "completion",
        /// OpenAI's `/responses`.
        Response = "response",
        /// Anthropic's `/messages`.
        Message = "message",
        /// OpenAI's `/embeddings`, which has no streams.
        Embedding = "embedding",
        /// Anything else under a version segment.
        Other = "other",
        /// Anthropic's `/messages/count_tokens`.
        CountTokens = "count_tokens",
        /// OpenAI's `/responses/input_tokens`.
        InputTokens = "input_tokens",
        /// Pictures: `/images/generations` and the like.
        Image = "image",
        /// Sound: `/audio/speech` and the like.
        Audio = "audio",
        /// OpenAI's `/moderations`.
        Moderation = "moderation",
        /// `/rerank` and `/score`, additions of servers compatible with OpenAI's.
        Rerank = "rerank",
        /// Things stored behind OpenAI's API: files, batches, responses, vector stores, threads.
        Stored = "stored",
        /// Things stored behind Anthropic's API, and whatever else its clients ask for.
        AnthropicOther = "anthropic_other",
        /// A path of no dialect's API; only backends of the dialect `plain` have it.
        Plain = "plain",
    }
}

impl Operation {
    /// Returns true if a stream of this operation has an end that can be told from a cut.
    pub const fn has_streams(self) -> bool {
        match self {
            Operation::Chat | Operation::Completion | Operation::Response | Operation::Message => true,
            Operation::Embedding
            | Operation::Other
            | Operation::CountTokens
            | Operation::InputTokens
            | Operation::Image
            | Operation::Audio
            | Operation::Moderation
            | Operation::Rerank
            | Operation::Stored
            | Operation::AnthropicOther
            | Operation::Plain => false,
        }
    }

    /// Returns true if the answer is a model's text or vectors, which are read: for errors, usage and their end.
    pub const fn is_read(self) -> bool {
        self.has_streams() || matches!(self, Operation::Embedding)
    }

    /// Returns true if it asks a model and changes nothing at the provider, so that it may be sent twice whatever its method.
    pub const fn is_question(self) -> bool {
        match self {
            Operation::Chat
            | Operation::Completion
            | Operation::Response
            | Operation::Message
            | Operation::Embedding
            | Operation::CountTokens
            | Operation::InputTokens
            | Operation::Image
            | Operation::Audio
            | Operation::Moderation
            | Operation::Rerank => true,
            Operation::Other | Operation::Stored | Operation::AnthropicOther | Operation::Plain => false,
        }
    }

    /// Returns true if answers have tokens of their own, beside those of the prompt.
    pub const fn has_answer_tokens(self) -> bool {
        !matches!(self, Operation::Embedding | Operation::Moderation | Operation::Rerank) && !self.counts_tokens()
    }

    /// Returns true if it asks how many tokens a prompt has, which can be estimated.
    pub const fn counts_tokens(self) -> bool {
        matches!(self, Operation::CountTokens | Operation::InputTokens)
    }

    /// Returns true if answers speak of things that the provider keeps: their ids, and addresses that lead to them.
    pub const fn is_about_stored_things(self) -> bool {
        matches!(self, Operation::Stored | Operation::AnthropicOther)
    }
}
