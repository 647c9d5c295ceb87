//! The contract's vocabularies: words that cross once, in `configure`, and are numbers afterwards; and states, which always are.

/// Makes an enum over a vocabulary; a word this version does not know becomes `Unknown`.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $case:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $case,)*
            /// A word that is newer than this SDK.
            Unknown,
        }

        impl $name {
            /// Every word, in the order of the contract's first version.
            pub const ALL: &[$name] = &[$($name::$case),*];

            /// The case for a word.
            pub fn of(word: &str) -> Self {
                match word {
                    $($word => $name::$case,)*
                    _ => $name::Unknown,
                }
            }

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$case => $word,)*
                    $name::Unknown => "unknown",
                }
            }
        }
    };
}

vocabulary! {
    /// Outcome of an attempt.
    Outcome {
        /// The backend gave the answer, whole.
        Answered = "answered",
        /// 429, or a body that says so.
        RateLimited = "rate_limited",
        /// The account behind the key has no money or quota left.
        OutOfCredit = "out_of_credit",
        /// The provider says it is overloaded.
        Overloaded = "overloaded",
        /// Any other 5xx.
        ServerError = "server_error",
        /// The request itself is wrong; no other try can succeed.
        Refused = "refused",
        /// The prompt does not fit the model's context.
        TooLong = "too_long",
        /// The backend does not know the model.
        ModelMissing = "model_missing",
        /// The backend refuses the key.
        Unauthorised = "unauthorised",
        /// No connection.
        ConnectFailed = "connect_failed",
        /// The connection broke before the response head.
        Reset = "reset",
        /// A time limit passed before the answer was committed.
        TimedOut = "timed_out",
        /// The connection broke inside the body.
        Cut = "cut",
        /// The body fell silent.
        Stalled = "stalled",
        /// The upstream sent something that is not HTTP, or not its dialect.
        Malformed = "malformed",
        /// The client went away.
        ClientGone = "client_gone",
        /// It answered, but not with the rest of the answer that it was to resume.
        NotResumed = "not_resumed",
    }
}

vocabulary! {
    /// Operation of the request.
    Operation {
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
        /// Anything else under a version segment.
        Other = "other",
        /// `/messages/count_tokens`
        CountTokens = "count_tokens",
        /// `/responses/input_tokens`
        InputTokens = "input_tokens",
        /// `/images/generations` and the like.
        Image = "image",
        /// `/audio/speech` and the like.
        Audio = "audio",
        /// `/moderations`
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

/// The state of a backend for the model of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Would be sent at once.
    Ready,
    /// A limit is reached; [`Row::ready_ms`](crate::Row::ready_ms) says when it is not.
    Throttled,
    /// In cooldown.
    Cooling,
    /// Its cooldown is over and one attempt is finding out whether it is well.
    Probing,
    /// Taken out by the operator.
    Drained,
    /// The backend does not serve this model or operation.
    Unsuited,
    /// A state newer than this SDK: better not to use it.
    Unknown,
}
