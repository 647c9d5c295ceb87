//! The listeners of clients and of the operator.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::defaults;

/// The clients' listener and its limits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Server")]
pub(crate) struct RawServer {
    /// Address and port of the clients' listener.
    #[schemars(extend("default" = defaults::LISTEN))]
    pub(crate) listen: Option<String>,
    /// Largest request body in bytes.
    #[schemars(extend("default" = defaults::MAX_BODY_BYTES))]
    pub(crate) max_body_bytes: Option<u64>,
    /// Memory for requests that are received, wait or are answered, in MiB; each counts its body at least twice. A client gets at most as much
    /// as it leaves free; beyond it a request is refused with 503 and Retry-After. Default: half of the memory that the container, the
    /// machine and `ulimit` leave the process.
    pub(crate) memory_budget_mb: Option<u32>,
    /// Folder for the bodies of large requests for which there is no memory at the moment (an announced length of more than 64 KiB): they
    /// are kept there, in files without a name, until there is, instead of being refused. Default: none, they are refused.
    pub(crate) spill_dir: Option<String>,
    /// The most that they take there together, in MiB; a client gets at most as much as it leaves free.
    #[schemars(extend("default" = defaults::SPILL_MB))]
    pub(crate) spill_mb: Option<u32>,
    /// Largest request head in bytes.
    #[schemars(extend("default" = defaults::MAX_HEADER_BYTES))]
    pub(crate) max_header_bytes: Option<u32>,
    /// Largest number of open connections; beyond it the one that has been idle longest gives way to a new one. Default: 10000, or what
    /// the limit of open files leaves when the admin listener and connections to backends have theirs.
    pub(crate) max_connections: Option<u32>,
    /// Time that a shutdown waits for exchanges under way.
    #[schemars(extend("default" = defaults::DRAIN_TIMEOUT_MS))]
    pub(crate) drain_timeout_ms: Option<u64>,
    /// Time for a client to send the request head.
    #[schemars(extend("default" = defaults::HEADER_READ_TIMEOUT_MS))]
    pub(crate) header_read_timeout_ms: Option<u64>,
    /// Time after which a client that reads nothing of its answer is disconnected.
    #[schemars(extend("default" = defaults::UNREAD_TIMEOUT_MS))]
    pub(crate) unread_timeout_ms: Option<u64>,
    /// Treatment of fields that a backend of another provider's API cannot take and that only tune the answer: "lenient" leaves
    /// them out and says so in the header `x-pointsman-left-out` and in the record, "strict" refuses them. What would change the
    /// meaning is refused by either.
    #[schemars(extend("default" = "lenient"))]
    pub(crate) translation: Option<RawTranslation>,
    /// Status of a request that the limits of all backends exhausted: 503, as AllPoolsExhausted; common, the one that all
    /// backends have in common, 429 as a rate limit error.
    #[schemars(extend("default" = "503"))]
    pub(crate) exhausted_status: Option<RawExhaustedStatus>,
    /// Time that a client's connection may be idle between two requests.
    #[schemars(extend("default" = defaults::KEEP_ALIVE_MS))]
    pub(crate) keep_alive_ms: Option<u64>,
    /// Origins whose pages may send requests from a browser, such as "https://app.example"; one * each, or "*" for all.
    /// Requests of other pages are refused where no client key is required, and on a loopback address those for the host of any
    /// other name.
    pub(crate) allowed_origins: Vec<String>,
    /// Highest priority that a request may ask for with the header `x-pointsman-priority` where there is no [[client]], -100 to
    /// 100; a higher one counts as this.
    #[schemars(extend("default" = defaults::PRIORITY_MAX))]
    pub(crate) priority_max: Option<i32>,
    /// Serve everyone who reaches an address that is not loopback, without client keys.
    #[schemars(extend("default" = false))]
    pub(crate) allow_open: Option<bool>,
}

/// Treatment of fields that cannot be translated.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Translation")]
pub(crate) enum RawTranslation {
    /// They are left out, and it is said.
    Lenient,
    /// They are refused.
    Strict,
}

/// Status of a request that the limits of all backends exhausted.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[schemars(rename = "ExhaustedStatus")]
pub(crate) enum RawExhaustedStatus {
    #[serde(rename = "503")]
    Unavailable,
    #[serde(rename = "common")]
    Common,
}

/// The operator's listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Admin")]
pub(crate) struct RawAdmin {
    /// Address and port of the operator's listener.
    #[schemars(extend("default" = defaults::ADMIN_LISTEN))]
    pub(crate) listen: Option<String>,
    /// Bearer token: env:NAME, file:PATH, sealed:... or the token itself. Without one only a loopback address is allowed.
    pub(crate) token: Option<String>,
    /// Largest number of open connections; beyond it the one that has been idle longest gives way to a new one.
    #[schemars(extend("default" = defaults::ADMIN_MAX_CONNECTIONS))]
    pub(crate) max_connections: Option<u32>,
}
