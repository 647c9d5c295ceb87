//! Backends: addresses, models, limits.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pointsman_core::dialect::Dialect;
use pointsman_core::table::Timeouts;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::price::RawPrice;
use crate::defaults::{self, millis};

/// A backend: one place to send requests to.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Backend")]
pub(crate) struct RawBackend {
    /// Name of the backend, unique.
    #[schemars(required, with = "String")]
    pub(crate) id: Option<String>,
    /// Cost class: primaries are preferred, fallbacks cost money.
    #[schemars(extend("default" = "primary"))]
    pub(crate) tier: Option<RawTier>,
    /// http:// or https://, with the provider's path prefix.
    #[schemars(required, with = "String")]
    pub(crate) base_url: Option<String>,
    /// Paths behind base_url, with {model} for the name sent and {path} for the path of the operation behind its version:
    /// "/deployments/{model}/{path}". A request without a model goes to the path alone. Default: the paths of the dialect.
    pub(crate) path_template: Option<String>,
    /// Query parameters of every request, such as api-version; values may be env:NAME, file:PATH or sealed:...
    pub(crate) query: Option<RawQuery>,
    /// Wire format of the provider's API.
    #[schemars(extend("default" = Dialect::default().as_str()))]
    pub(crate) dialect: Option<RawDialect>,
    /// env:NAME, env:NAME#2 (the second of a comma-separated list), file:PATH, file:PATH#2 (its second line), sealed:...
    /// (what `pointsman config seal` prints), or the key itself.
    pub(crate) api_key: Option<String>,
    /// Headers sent with every request; values may be env:NAME, file:PATH or sealed:...
    pub(crate) headers: BTreeMap<String, String>,
    /// Requests in any 60 seconds; all that are left may be sent at once.
    pub(crate) rpm: Option<u32>,
    /// For a provider that smooths its limit: requests that may be sent at once, the rest spaced evenly. Default: all
    /// that rpm leaves.
    pub(crate) burst: Option<u32>,
    /// Tokens in any 60 seconds.
    pub(crate) tpm: Option<u32>,
    /// Requests in any 24 hours.
    pub(crate) rpd: Option<u32>,
    /// Tokens in any 24 hours.
    pub(crate) tpd: Option<u32>,
    /// Requests under way at a time. Without it a ceiling is learned where the provider refuses more.
    pub(crate) max_concurrency: Option<u32>,
    /// Limits of single models beside the backend's own, by the model name sent, one * each; a * counts each model by itself.
    pub(crate) limits: BTreeMap<String, RawModelLimits>,
    /// Forward proxy: http://[USER:PASSWORD@]HOST:PORT, https://..., socks5://..., env:NAME; or "none". Default: HTTPS_PROXY,
    /// HTTP_PROXY (only where no key is sent), ALL_PROXY and NO_PROXY of the environment.
    pub(crate) proxy: Option<String>,
    /// PEM file of the certificate authorities that its certificate may be of, in place of the machine's.
    pub(crate) ca_file: Option<String>,
    /// PEM file of the certificate, with its chain, that is shown to it.
    pub(crate) client_cert: Option<String>,
    /// PEM file of that certificate's private key, or env:NAME.
    pub(crate) client_key: Option<String>,
    /// Share of traffic among its tier.
    #[schemars(extend("default" = 1))]
    pub(crate) weight: Option<u32>,
    /// Labels that the policy can read.
    pub(crate) labels: BTreeMap<String, String>,
    /// Optional capabilities: prefill. embeddings = false: `*` of models does not stand for embedding models.
    pub(crate) capabilities: BTreeMap<String, bool>,
    /// Ask for the usage at the end of streams (stream_options), where the client does not. Without it: asked for, and left
    /// out for a model whose requests are refused with it.
    pub(crate) stream_options: Option<bool>,
    /// An answer with nothing in it (no content, no tool call, no tokens) is delivered. By default it is a failed attempt.
    #[schemars(extend("default" = defaults::EMPTY_ANSWERS))]
    pub(crate) empty_answers: Option<bool>,
    /// Names asked = names sent, one * each; or a list of names. true: sent as asked; false: not served, where a shorter
    /// pattern would take it. Without any: every request.
    pub(crate) models: Option<RawModels>,
    pub(crate) timeouts: RawTimeouts,
    /// Off by default, because it costs tokens: once a cooldown is over, ask for one token instead of trying with a
    /// client's request.
    pub(crate) health_check: Option<RawHealthCheck>,
    /// By the model name sent; "*" is the price of all others.
    pub(crate) price: BTreeMap<String, RawPrice>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Tier")]
pub(crate) enum RawTier {
    Primary,
    Fallback,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct RawDialect(pub(crate) Dialect);

impl JsonSchema for RawDialect {
    fn schema_name() -> Cow<'static, str> {
        "Dialect".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "enum": Dialect::NAMES})
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "invalid type: expected a table of parameters, or a query such as \"api-version=1\"")]
#[schemars(rename = "Query")]
pub(crate) enum RawQuery {
    Named(BTreeMap<String, String>),
    Text(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "invalid type: expected a table of names asked = names sent, or a list of names")]
#[schemars(rename = "Models")]
pub(crate) enum RawModels {
    Named(BTreeMap<String, RawSent>),
    Plain(Vec<String>),
}

/// The name sent for a model.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Sent")]
pub(crate) enum RawSent {
    As(String),
    /// As asked, or not at all.
    Served(bool),
}

/// Limits of one model of a backend.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ModelLimits")]
pub(crate) struct RawModelLimits {
    /// Requests in any 60 seconds.
    pub(crate) rpm: Option<u32>,
    /// Requests that may be sent at once, the rest spaced evenly.
    pub(crate) burst: Option<u32>,
    /// Tokens in any 60 seconds.
    pub(crate) tpm: Option<u32>,
    /// Requests in any 24 hours.
    pub(crate) rpd: Option<u32>,
    /// Tokens in any 24 hours.
    pub(crate) tpd: Option<u32>,
    /// Requests under way at a time.
    pub(crate) max_concurrency: Option<u32>,
}

/// Time limits of one attempt. first_byte_ms, first_token_ms and idle_ms end it only where another backend is ready.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Timeouts")]
pub(crate) struct RawTimeouts {
    /// To have a connection, TLS included.
    #[schemars(extend("default" = millis(Timeouts::default().connect)))]
    pub(crate) connect_ms: Option<u64>,
    /// From sending to the response head.
    #[schemars(extend("default" = millis(Timeouts::default().first_byte)))]
    pub(crate) first_byte_ms: Option<u64>,
    /// Longest silence before the first content of a stream; whatever comes, comments too, is no silence.
    #[schemars(extend("default" = millis(Timeouts::default().first_token)))]
    pub(crate) first_token_ms: Option<u64>,
    /// Between two pieces of a body.
    #[schemars(extend("default" = millis(Timeouts::default().idle)))]
    pub(crate) idle_ms: Option<u64>,
    /// From sending to the end of the attempt. A stream that flows has no such limit unless this is written.
    #[schemars(extend("default" = millis(Timeouts::default().total)))]
    pub(crate) total_ms: Option<u64>,
}

/// A request of Pointsman's own for one token, sent only to a backend whose cooldown is over.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "HealthCheck")]
pub(crate) struct RawHealthCheck {
    /// Time between two checks, at least 1000.
    #[schemars(extend("default" = defaults::HEALTH_CHECK_INTERVAL_MS))]
    pub(crate) interval_ms: Option<u64>,
    /// Time limit of a check, beside the backend's total_ms.
    #[schemars(extend("default" = defaults::HEALTH_CHECK_TIMEOUT_MS))]
    pub(crate) timeout_ms: Option<u64>,
    /// The model to ask for, as a client would.
    #[schemars(required, with = "String")]
    pub(crate) model: Option<String>,
}
