//! A scenario file as it is written, less what `pointsman.toml` has too; nothing checked yet.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawScenario {
    pub title: Option<String>,
    pub start: Option<String>,
    pub seed: Option<RawSeed>,
    pub settings_of: Option<String>,
    pub backend: Vec<RawBackend>,
    pub client: Vec<RawClient>,
    pub request: Vec<RawRequest>,
    pub expect: RawExpect,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBackend {
    pub before: RawBefore,
    pub script: Option<Vec<RawAnswer>>,
    pub outages: Vec<RawOutage>,
}

/// TOML's numbers end at 2^63.
#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid type: expected a number, or a text such as \"0x1f\"")]
pub(super) enum RawSeed {
    Number(u64),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawBefore {
    pub cooling: Option<String>,
    pub reason: Option<String>,
    pub failures: Option<u32>,
    pub drained: bool,
    pub in_flight: Option<u32>,
    pub requests_left: Option<u32>,
    pub tokens_left: Option<u32>,
    pub full_for: Option<String>,
    pub emergency_in: Option<String>,
    pub latency: Option<String>,
    pub first_token: Option<String>,
    pub errors: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawClient {
    pub spent_usd: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAnswer {
    pub answer: Option<RawGives>,
    pub retry_after: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub after: Option<String>,
    pub first_token: Option<String>,
    pub tokens: Option<u32>,
}

/// An answer with a time of its own. (Serde cannot refuse unknown keys of a struct that is flattened into another.)
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawOutage {
    pub from: Option<String>,
    pub until: Option<String>,
    pub answer: Option<RawGives>,
    pub retry_after: Option<String>,
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
    pub after: Option<String>,
    pub first_token: Option<String>,
    pub tokens: Option<u32>,
}

impl RawOutage {
    /// Splits an entry into its time, its backend and its answer.
    pub(super) fn split(self) -> (Option<String>, Option<String>, RawAnswer) {
        let Self { from, until, answer, retry_after, headers, body, after, first_token, tokens } = self;
        (from, until, RawAnswer { answer, retry_after, headers, body, after, first_token, tokens })
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "invalid type: expected an HTTP status, or \"connect-failed\", \"reset\", \"silent\", \"cut\" or \"stall\""
)]
pub(super) enum RawGives {
    Status(u16),
    Word(String),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRequest {
    pub at: Option<String>,
    pub times: Option<u32>,
    pub every: Option<String>,
    pub model: Option<String>,
    pub path: Option<String>,
    pub stream: bool,
    pub prompt_tokens: Option<u32>,
    pub max_tokens: Option<u32>,
    pub priority: Option<i32>,
    pub client: Option<String>,
    pub session: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub decisions: Option<Vec<String>>,
    pub end: Option<String>,
    pub within: Option<String>,
    pub not_before: Option<String>,
    pub notes: Vec<String>,
    pub idempotent: Option<bool>,
    pub translatable: Option<bool>,
    pub leaves_after: Option<String>,
    pub question: Vec<RawQuestion>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawQuestion {
    pub at: Option<String>,
    pub seed: Option<RawSeed>,
    pub seen: BTreeMap<String, BTreeMap<String, RawCell>>,
    pub state: BTreeMap<String, RawStateValue>,
    pub decided: Option<String>,
    pub terms: Option<String>,
    pub then: Option<String>,
    pub from: Option<String>,
    pub committed: Option<String>,
    pub until: Option<String>,
    pub granted: Option<String>,
    pub outcome: Option<String>,
    pub status: Option<u16>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid type: expected a number, or a word")]
pub(super) enum RawCell {
    Number(u32),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid type: expected a number, or \"none\"")]
pub(super) enum RawStateValue {
    Number(i64),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawExpect {
    pub attempts: BTreeMap<String, RawCount>,
    pub lanes: BTreeMap<String, RawCount>,
    pub delivered: Option<RawCount>,
    pub rejected: Option<RawCount>,
    pub spend_usd: Option<RawCount>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "invalid type: expected a number, or a text such as \"<=6\", \">=2\" or \"3..5\"")]
pub(super) enum RawCount {
    Number(f64),
    Text(String),
}
