//! Model discovery: asks the backends that take any model which ones they have, when a client wants the list.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Uri};
use pointsman_config::BackendConfig;
use pointsman_core::http::url::BaseUrl;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::proxy::Snapshot;

/// A list that was fetched is good for this long.
const FRESH_FOR: Duration = Duration::from_secs(600);

/// A list that misses a provider is completed after this long.
const RETRY_AFTER: Duration = Duration::from_secs(15);

/// A provider that does not answer within this adds nothing to the list.
const PATIENCE: Duration = Duration::from_secs(3);

/// Models taken from one provider.
const MAX_MODELS: usize = 5_000;

/// Model lists of the providers, cached for a while.
pub(super) struct Discovery {
    client: reqwest::Client,
    known: Mutex<Option<Known>>,
}

struct Known {
    config: Arc<str>,
    fresh_until: Instant,
    models: Arc<Vec<String>>,
}

impl Discovery {
    /// Nothing is asked until somebody wants to know.
    pub(super) fn new() -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(crate::upstream::tls_config())
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, known: Mutex::new(None) })
    }

    /// Everything that can be asked for by name: what is configured, and what the backends that take any model have.
    pub(super) async fn models(&self, snapshot: &Snapshot) -> Arc<Vec<String>> {
        let mut known = self.known.lock().await;
        if let Some(k) = known.as_ref()
            && k.config == snapshot.config.revision
            && crate::timer::now() < k.fresh_until
        {
            return k.models.clone();
        }
        let asked = snapshot.config.backends.iter().filter(|b| b.backend.any_model() && !b.backend.dialect.is_opaque());
        let lists = futures_util::future::join_all(asked.map(|b| self.ask(b))).await;
        let complete = lists.iter().all(Option::is_some);
        let mut models: BTreeSet<String> = snapshot.view.table.models.iter().cloned().collect();
        models.extend(lists.into_iter().flatten().flatten());
        let models = Arc::new(models.into_iter().collect::<Vec<_>>());
        let fresh_for = if complete { FRESH_FOR } else { RETRY_AFTER };
        let config = snapshot.config.revision.clone();
        *known = Some(Known { config, fresh_until: crate::timer::now() + fresh_for, models: models.clone() });
        models
    }

    /// Asks one backend for its models; keeps those that it serves under the same name.
    async fn ask(&self, backend: &BackendConfig) -> Option<Vec<String>> {
        let format = backend.backend.dialect.format();
        let base = BaseUrl::parse(&backend.base_url.to_string()).ok()?;
        let url = base.join(&Uri::from_static(format.models_path())).ok()?;
        let mut headers = HeaderMap::new();
        format.add_headers(&mut headers);
        let mut request = self.client.get(url.to_string()).headers(headers);
        if let Some(key) = &backend.api_key {
            request = request.header(format.key_header(), format!("{}{}", format.key_prefix(), key.expose()));
        }
        let id = &backend.backend.id;
        let body = async { request.send().await?.error_for_status()?.bytes().await };
        match body.await {
            Ok(body) => {
                let Some(names) = format.listed_models(&body) else {
                    tracing::debug!(backend = %id, "the backend's list of models could not be read");
                    return None;
                };
                let served = |name: &String| backend.backend.serves(name);
                Some(names.into_iter().take(MAX_MODELS).filter(served).collect())
            }
            Err(error) => {
                tracing::debug!(backend = %id, error = %error.without_url(), "the backend's list of models could not be fetched");
                None
            }
        }
    }
}
