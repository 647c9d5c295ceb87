//! Model discovery: asks the backends that take any model which ones they have, when a client wants the list.
//!
//! Each backend's list is cached by itself and refreshed in the background. A client waits for a list that nobody has yet,
//! and only once: while a provider keeps silent, the others' lists are given without it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use pointsman_config::BackendConfig;
use pointsman_core::dialect::{ApiPath, ListedModel};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::proxy::{Snapshot, Target};
use crate::upstream::{Answer, Reuse, SendError};

/// A list that was fetched is good for this long.
const FRESH_FOR: Duration = Duration::from_secs(600);

/// A provider whose list could not be fetched is asked again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(15);

/// Time that clients wait for a list that nobody has yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time for all of a provider's list.
const FETCH_LIMIT: Duration = Duration::from_secs(20);

/// Largest page of a list, in bytes.
const MAX_PAGE_BYTES: usize = 4 << 20;

/// Pages of one list.
const MAX_PAGES: usize = 8;

/// Models taken from one provider.
const MAX_MODELS: usize = 5_000;

/// Model lists of the providers, cached for a while.
#[derive(Default)]
pub(super) struct Discovery {
    lists: Mutex<HashMap<Arc<str>, Arc<Cached>>>,
    /// Fetches under way; they end with the listener.
    fetches: Mutex<JoinSet<()>>,
}

/// Everything that can be asked for by name.
pub(super) struct Models {
    /// In alphabetical order.
    pub listed: Vec<ListedModel>,
    /// Indices of the backends that take any model and whose lists are not known.
    pub unlisted: Vec<usize>,
}

/// The list of one backend.
struct Cached {
    target: Arc<Target>,
    state: watch::Sender<State>,
}

#[derive(Clone)]
struct State {
    models: Option<Arc<[ListedModel]>>,
    /// Time at which it is fetched next, if a client wants it.
    due_at: Instant,
    fetching_since: Option<Instant>,
}

impl Discovery {
    /// Everything that can be asked for by name: what is configured, and what the backends that take any model have.
    pub(super) async fn models(&self, snapshot: &Snapshot) -> Models {
        let takes_any = |b: &BackendConfig| b.backend.any_model() && !b.backend.dialect.is_opaque();
        let backends = snapshot.config.backends.iter().zip(&snapshot.targets).enumerate();
        let asked: Vec<_> = backends.filter(|(_, (b, _))| takes_any(b)).collect();
        let lists: Vec<_> = asked.iter().map(|(_, (b, target))| self.list(b, target)).collect();
        futures_util::future::join_all(lists.iter().map(|list| list.settled())).await;
        let lists: Vec<_> = lists.iter().map(|list| list.state.borrow().models.clone()).collect();
        let owner = |name: &str| {
            let first = snapshot.config.backends.iter().find(|b| b.backend.serves(name));
            first.map(|b| b.backend.id.to_string())
        };
        let mut listed: BTreeMap<String, ListedModel> = BTreeMap::new();
        for ((_, (b, _)), list) in asked.iter().zip(&lists) {
            for model in list.iter().flat_map(|list| list.iter()) {
                for id in b.backend.asked_for(&model.id) {
                    let owner = model.owner.clone().or_else(|| owner(&id));
                    listed.entry(id.clone()).or_insert_with(|| ListedModel { id, owner, ..model.clone() });
                }
            }
        }
        for name in &snapshot.view.table.models {
            let known = || {
                asked.iter().zip(&lists).find_map(|((_, (b, _)), list)| {
                    let sent = b.backend.sent_model(name)?;
                    list.iter().flat_map(|list| list.iter()).find(|model| model.id == sent).cloned()
                })
            };
            listed.entry(name.clone()).or_insert_with(|| {
                let known = known().unwrap_or_default();
                let owner = known.owner.or_else(|| owner(name));
                ListedModel { id: name.clone(), owner, created: known.created, display_name: None }
            });
        }
        let unlisted = asked.iter().zip(&lists).filter(|(_, list)| list.is_none()).map(|((index, _), _)| *index);
        Models { listed: listed.into_values().collect(), unlisted: unlisted.collect() }
    }

    /// The list of a backend; a fetch of it is begun where it is due.
    fn list(&self, backend: &BackendConfig, target: &Arc<Target>) -> Arc<Cached> {
        let list = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            let known = lists.get(&backend.backend.id);
            match known.filter(|known| Arc::ptr_eq(&known.target, target)) {
                Some(known) => known.clone(),
                None => {
                    // The same place under another configuration: its list is good until the next one is here.
                    let before = known.filter(|known| Arc::ptr_eq(&known.target.origin, &target.origin));
                    let models = before.and_then(|known| known.state.borrow().models.clone());
                    let state = State { models, due_at: crate::timer::now(), fetching_since: None };
                    let list = Arc::new(Cached { target: target.clone(), state: watch::Sender::new(state) });
                    lists.insert(backend.backend.id.clone(), list.clone());
                    list
                }
            }
        };
        let now = crate::timer::now();
        let begins = list.state.send_if_modified(|state| {
            let begins = state.fetching_since.is_none() && now >= state.due_at;
            if begins {
                state.fetching_since = Some(now);
            }
            begins
        });
        if begins {
            let (list, id) = (list.clone(), backend.backend.id.clone());
            let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
            while fetches.try_join_next().is_some() {}
            fetches.spawn(async move { list.fetch(&id).await });
        }
        list
    }
}

impl Cached {
    /// Waits until there is a list, or none is to be had soon.
    async fn settled(&self) {
        let (is_known, since) = {
            let state = self.state.borrow();
            (state.models.is_some(), state.fetching_since)
        };
        if let Some(since) = since.filter(|_| !is_known) {
            let mut changes = self.state.subscribe();
            let settled = changes.wait_for(|state| state.fetching_since.is_none());
            let _ = tokio::time::timeout_at(since + PATIENCE, settled).await;
        }
    }

    async fn fetch(&self, id: &str) {
        let fetched = tokio::time::timeout(FETCH_LIMIT, self.pages()).await;
        let fetched = fetched.unwrap_or_else(|_| Err(format!("not within {FETCH_LIMIT:?}")));
        let now = crate::timer::now();
        self.state.send_modify(|state| {
            state.fetching_since = None;
            match fetched {
                Ok(models) => {
                    state.models = Some(models.into());
                    state.due_at = now + FRESH_FOR;
                }
                Err(error) => {
                    tracing::debug!(backend = id, error, "the backend's list of models could not be fetched");
                    state.due_at = now + RETRY_AFTER;
                }
            }
        });
    }

    async fn pages(&self) -> Result<Vec<ListedModel>, String> {
        let format = self.target.endpoint.dialect.format();
        let mut models: Vec<ListedModel> = Vec::new();
        let mut path = format.models_path().to_owned();
        for _ in 0..MAX_PAGES {
            let body = self.page(&path).await?;
            let page = format.listed_models(&body).ok_or("what came is no list of models")?;
            let is_new = |model: &ListedModel| !models.iter().any(|known| known.id == model.id);
            // Some say that there is more, and give the same page again.
            let has_new = page.models.iter().any(is_new);
            models.extend(page.models);
            models.truncate(MAX_MODELS);
            match page.last_id.filter(|_| has_new && models.len() < MAX_MODELS) {
                Some(last_id) => path = format.next_models_path(&last_id),
                None => break,
            }
        }
        Ok(models)
    }

    /// One page, without secrets.
    async fn page(&self, path: &str) -> Result<Bytes, String> {
        let Answer { response, mut lease } = match self.send(path, Reuse::Kept).await {
            Err(SendError::Reset { reused: true, .. }) => self.send(path, Reuse::Fresh).await,
            sent => sent,
        }
        .map_err(|error| error.to_string())?;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            return Err(format!("the upstream answered {}", head.status.as_u16()));
        }
        let mut page = BytesMut::new();
        while let Some(frame) = lease.frame(&mut body).await {
            let frame = frame.map_err(|error| crate::upstream::causes(&error))?;
            page.extend_from_slice(&frame.into_data().unwrap_or_default());
            if page.len() > MAX_PAGE_BYTES {
                return Err(format!("it is longer than {MAX_PAGE_BYTES} bytes"));
            }
        }
        lease.give_back();
        Ok(self.target.endpoint.secrets.redacted(page.freeze()))
    }

    async fn send(&self, path: &str, reuse: Reuse) -> Result<Answer, SendError> {
        let endpoint = &self.target.endpoint;
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        let usual = || PathAndQuery::from_static(endpoint.dialect.format().models_path());
        let asked = path.parse::<PathAndQuery>().unwrap_or_else(|_| usual());
        let url = endpoint.url(&asked, ApiPath::read(asked.path(), &HeaderMap::new()), None).unwrap_or_default();
        *request.uri_mut() = Uri::from(url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pointsman/", env!("CARGO_PKG_VERSION"))));
        endpoint.dialect.format().add_headers(headers);
        if let Some(key) = &endpoint.key {
            headers.insert(endpoint.dialect.format().key_header(), key.clone());
        }
        for (name, value) in &endpoint.headers {
            headers.insert(name.clone(), value.clone());
        }
        self.target.origin.send(request, PATIENCE, reuse, &AtomicBool::default()).await
    }
}
