//! One configuration and one policy in force: what an exchange is pinned to, and where its attempts can go.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use pointsman_config::secret::Secret;
use pointsman_config::{BackendConfig, Config};
use pointsman_core::attempt::{Additions, Endpoint};
use pointsman_core::exchange::{Budgets, StreamDefaults};
use pointsman_core::http::path_template::PathTemplate;
use pointsman_core::http::redact::Secrets;
use pointsman_core::http::url::BaseUrl;
use pointsman_core::lifecycle::promotion::Side;
use pointsman_core::view::View;
use pointsman_engine::Revision;
use pointsman_store::BodyRules;

use super::fault_stats::FaultStats;
use super::promotion::TrafficSplit;
use super::request::ProxyRequest;
use crate::upstream::{BadOutbound, Connector, Origin};

/// One configuration and one policy revision; an exchange keeps the one it started with.
#[derive(Clone)]
pub struct Snapshot {
    /// Configuration in force at that moment.
    pub config: Arc<Config>,
    /// The table, as the fleet knows it.
    pub view: Arc<View>,
    /// Revision of the policy in force at that moment.
    pub policy: Arc<Revision>,
    /// Fault statistics of the policy, kept when only the configuration changes.
    pub fault_stats: Arc<FaultStats>,
    /// The policy's revision as the client is told it.
    pub policy_header: HeaderValue,
    /// Targets of requests, in the table's order.
    pub targets: Vec<Arc<Target>>,
    /// Budgets of an exchange, from the configuration.
    pub budgets: Budgets,
    /// Treatment of streams where the policy does not decide.
    pub streams: StreamDefaults,
    /// The promotion under way, which assigns exchanges to this policy or to the candidate.
    pub split: Option<Arc<TrafficSplit>>,
    /// The side of that promotion this snapshot is; without a promotion `Control`.
    pub side: Side,
    /// The other side, of the policy in force: what a share of the exchanges is pinned to instead.
    pub candidate: Option<Arc<Snapshot>>,
    /// All of the configuration that decides, as the journal keeps it.
    pub setup: Arc<str>,
    /// Rules for recording bodies; `None`: not recorded.
    pub bodies: Option<Arc<BodyRules>>,
}

/// Azure's deployments want the key here; in `Authorization` they expect a token of another kind.
const AZURE_KEY: HeaderName = HeaderName::from_static("api-key");

/// A backend as something that can be sent to.
pub struct Target {
    /// Its address, key and wire format.
    pub endpoint: Endpoint,
    /// Connections to its origin.
    pub origin: Arc<Origin>,
}

/// The reason why a configured backend cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Its base URL cannot be used.
    #[error("backend {id:?}: base_url {reason}")]
    BaseUrl {
        /// The backend.
        id: String,
        /// Fault of the setting, as the end of a sentence.
        reason: String,
    },
    /// Its proxy or certificates cannot be used.
    #[error("backend {id:?}: {reason}")]
    Outbound {
        /// The backend.
        id: String,
        /// Fault of the settings.
        reason: BadOutbound,
    },
    /// Its key cannot be sent in a header.
    #[error("backend {id:?}: api_key has characters that cannot stand in a header")]
    Key {
        /// The backend.
        id: String,
    },
}

impl Target {
    /// The targets of a configuration; connections to places that stay are taken over from `before`.
    pub fn all(
        config: &Config,
        connector: &Connector,
        before: Option<&Snapshot>,
    ) -> Result<Vec<Arc<Target>>, TargetError> {
        let known = |id: &str| {
            let before = before?;
            let i = before.config.backends.iter().position(|b| &*b.backend.id == id)?;
            Some(&*before.targets[i])
        };
        let target = |b: &BackendConfig| Target::new(b, connector, known(&b.backend.id)).map(Arc::new);
        config.backends.iter().map(target).collect()
    }

    /// A target; the connections of `known`, a target of the same place, are kept.
    pub fn new(config: &BackendConfig, connector: &Connector, known: Option<&Target>) -> Result<Self, TargetError> {
        let id = || config.backend.id.to_string();
        let base = BaseUrl::parse(&config.base_url.to_string())
            .map_err(|e| TargetError::BaseUrl { id: id(), reason: e.to_string() })?;
        let dialect = config.backend.dialect;
        let key = config.api_key.as_ref().map(|key| {
            let text = format!("{}{}", dialect.format().key_prefix(), key.expose());
            let mut value = HeaderValue::try_from(text).map_err(|_| TargetError::Key { id: id() })?;
            value.set_sensitive(true);
            Ok(value)
        });
        let same_place = |t: &&Target| t.origin.is_at(&config.base_url, &config.outbound);
        let origin = match known.filter(same_place) {
            Some(known) => known.origin.clone(),
            None => {
                let origin = Origin::new(&config.base_url, &config.outbound, connector);
                Arc::new(origin.map_err(|reason| TargetError::Outbound { id: id(), reason })?)
            }
        };
        // What was learned of the backend stays with its place.
        let additions = match known.filter(same_place).map(|known| &known.endpoint.additions) {
            Some(additions) if additions.setting() == config.stream_options => additions.clone(),
            Some(_) | None => Arc::new(Additions::new(config.stream_options)),
        };
        let mut headers = config.headers.clone();
        let is_of_azure =
            base.is_deployment() || config.path_template.as_ref().is_some_and(PathTemplate::is_of_deployments);
        if let Some(key) = config.api_key.as_ref().filter(|_| is_of_azure) {
            let mut value = HeaderValue::try_from(key.expose()).map_err(|_| TargetError::Key { id: id() })?;
            value.set_sensitive(true);
            headers.insert(0, (AZURE_KEY, value));
        }
        let endpoint = Endpoint {
            dialect,
            base,
            path_template: config.path_template.clone(),
            query: config.query.clone(),
            key: key.transpose()?,
            headers,
            secrets: secrets(config),
            may_be_empty: config.empty_answers,
            additions,
        };
        Ok(Self { endpoint, origin })
    }
}

/// All of a backend's secrets that its upstream gets to see.
fn secrets(config: &BackendConfig) -> Secrets {
    let key = config.api_key.iter().map(Secret::expose);
    let headers = config.headers.iter().filter(|(_, value)| value.is_sensitive());
    let headers = headers.filter_map(|(_, value)| value.to_str().ok());
    let login = config.outbound.proxy.iter().filter_map(|proxy| proxy.login.as_ref());
    let password = login.filter_map(|login| Some(login.expose().split_once(':')?.1));
    Secrets::new(key.chain(headers).chain(password).chain(config.query.secrets()))
}

impl Snapshot {
    /// Joins a configuration, its view, a policy, and the targets in the table's order.
    pub fn new(
        config: Arc<Config>,
        view: Arc<View>,
        policy: Arc<Revision>,
        fault_stats: Arc<FaultStats>,
        targets: Vec<Arc<Target>>,
    ) -> Self {
        let (budgets, streams) = (config.budgets(), config.stream_defaults());
        let policy_header = policy_header(&policy);
        let setup = setup(&config, &policy);
        let bodies = body_rules(&config, &targets);
        Self {
            config,
            view,
            policy,
            fault_stats,
            policy_header,
            targets,
            budgets,
            streams,
            setup,
            bodies,
            split: None,
            side: Side::Control,
            candidate: None,
        }
    }

    /// The same configuration under another policy, and no promotion.
    pub fn with_policy(&self, policy: Arc<Revision>) -> Self {
        self.under(policy, Arc::new(FaultStats::new(self.config.policy.rollback)))
    }

    /// The same configuration under a policy that decided before, and no promotion.
    pub fn under(&self, policy: Arc<Revision>, fault_stats: Arc<FaultStats>) -> Self {
        let (policy_header, setup) = (policy_header(&policy), setup(&self.config, &policy));
        Self {
            policy,
            fault_stats,
            policy_header,
            setup,
            split: None,
            side: Side::Control,
            candidate: None,
            ..self.clone()
        }
    }

    /// The same, with a share of the exchanges for a candidate.
    pub fn with_candidate(
        &self,
        policy: Arc<Revision>,
        fault_stats: Arc<FaultStats>,
        split: Arc<TrafficSplit>,
    ) -> Self {
        let split = Some(split);
        let candidate = Self { split: split.clone(), side: Side::Candidate, ..self.under(policy, fault_stats) };
        Self { split, side: Side::Control, candidate: Some(Arc::new(candidate)), ..self.clone() }
    }

    /// Returns the snapshot for this exchange: this one, or the candidate's, if it belongs to its share.
    pub fn for_exchange(self: Arc<Self>, request: &ProxyRequest) -> Arc<Self> {
        match (&self.split, &self.candidate) {
            (Some(split), Some(candidate)) if split.takes(request) => candidate.clone(),
            (Some(_) | None, Some(_) | None) => self,
        }
    }

    /// The policy in force, and the one that may become it.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Revision>> {
        std::iter::once(&self.policy).chain(self.candidate.as_ref().map(|candidate| &candidate.policy))
    }

    /// Returns true for the policy in force, false for a candidate.
    pub fn is_in_force(&self) -> bool {
        self.side == Side::Control
    }
}

/// Serialises the setup for the journal: the configuration, and the policy's settings.
fn setup(config: &Config, policy: &Revision) -> Arc<str> {
    serde_json::to_string(&config.setup_under(policy.offered())).expect("a setup has text keys only").into()
}

fn policy_header(policy: &Revision) -> HeaderValue {
    HeaderValue::from_str(policy.id()).unwrap_or(HeaderValue::from_static("unnamed"))
}

/// Returns the rules for recording bodies; `None`: bodies are not recorded. All keys are masked.
fn body_rules(config: &Config, targets: &[Arc<Target>]) -> Option<Arc<BodyRules>> {
    let kept = config.journal.bodies.as_ref()?;
    let secrets = targets.iter().flat_map(|target| target.endpoint.secrets.spellings()).map(Box::from).collect();
    let max_bytes = kept.max_body_kb as usize * 1_024;
    Some(Arc::new(BodyRules { max_bytes, redact: Arc::clone(&kept.redact), secrets }))
}
