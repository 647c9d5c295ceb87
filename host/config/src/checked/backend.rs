//! A backend with what only the host may know of it.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use pointsman_core::http::path_template::PathTemplate;
use pointsman_core::http::query::OwnQuery;
use pointsman_core::table::Backend;

use crate::outbound::Outbound;
use crate::secret::Secret;

/// One routable target, with what only the host may know.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// The backend as core and policy see it.
    pub backend: Backend,
    /// `http` or `https`, a host, and a path that does not end with a slash (or is `/`); nothing else.
    pub base_url: Uri,
    /// Template of the paths behind it; none: the dialect's.
    pub path_template: Option<PathTemplate>,
    /// Query parameters of every request.
    pub query: OwnQuery,
    /// API key of the provider.
    pub api_key: Option<Secret>,
    /// Sent with every request; values that may be secrets are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The usage of streams is asked for; `None`: it is, and left out where it is refused.
    pub stream_options: Option<bool>,
    /// An answer with nothing in it is delivered, and no failed attempt.
    pub empty_answers: bool,
    /// The way to it: a proxy, whose certificates are trusted, and which is shown.
    pub outbound: Outbound,
    /// Background check after a cooldown; `None`: the next request is the probe.
    pub health_check: Option<HealthCheck>,
}

/// A small request sent after a cooldown, in place of a client's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// Time between two tries, at least a second.
    pub interval: Duration,
    /// The longest one may take.
    pub timeout: Duration,
    /// The model, as a client would ask for it.
    pub model: Arc<str>,
}
