//! `/v1/models`: what can be asked for, in the dialect of whoever asks.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response};
use pointsman_config::BackendConfig;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::dialect::{Dialect, ListedModel};
use pointsman_core::http::url::percent_decoded;
use pointsman_core::suited::{served_models, shown};

use super::discovery::Models;
use crate::proxy::{OwnError, ProxyBody, Reply, Snapshot, insert_request_id};

/// Part of the model list that is requested.
pub(super) enum Listed {
    /// The list of all models.
    All,
    /// The entry of the model with this name.
    One(String),
}

/// Backends named in an error.
const SHOWN_BACKENDS: usize = 8;

/// Recognises a request for the model list, or for one of its entries.
pub(super) fn listed_at(method: &Method, path: &str) -> Option<Listed> {
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    let path = path.strip_prefix("/v1").unwrap_or(path);
    match path.strip_prefix("/models")? {
        "" | "/" => Some(Listed::All),
        name => {
            name.strip_prefix('/').map(|name| Listed::One(percent_decoded(name.trim_end_matches('/')).into_owned()))
        }
    }
}

/// The list, or one entry of it.
pub(super) fn reply(
    listed: &Listed,
    models: &Models,
    headers: &HeaderMap,
    snapshot: &Snapshot,
    request_id: &str,
) -> Reply {
    let dialect = Dialect::of_headers(headers);
    let format = dialect.format();
    match listed {
        Listed::All => {
            let entries = models.listed.iter().map(|model| format.model_entry(model)).collect();
            json(format.model_list(&models.listed, entries).to_string(), dialect, request_id)
        }
        // Some clients encode a name that their library encodes once more.
        Listed::One(name) => match entry(name, models, snapshot).or_else(|| encoded_twice(name, models, snapshot)) {
            Some(model) => json(format.model_entry(&model).to_string(), dialect, request_id),
            None => {
                let message = not_served(name, models, snapshot);
                OwnError::new(ErrorKind::ModelNotFound, &message).reply(dialect, request_id)
            }
        },
    }
}

fn encoded_twice(name: &str, models: &Models, snapshot: &Snapshot) -> Option<ListedModel> {
    match percent_decoded(name) {
        Cow::Owned(decoded) => entry(&decoded, models, snapshot),
        Cow::Borrowed(_) => None,
    }
}

/// A model that can be asked for: one that is listed, that a pattern stands for, or that a backend whose list is not known
/// may have.
fn entry(name: &str, models: &Models, snapshot: &Snapshot) -> Option<ListedModel> {
    if let Ok(at) = models.listed.binary_search_by(|model| model.id.as_str().cmp(name)) {
        return Some(models.listed[at].clone());
    }
    let takes = |(index, b): &(usize, &BackendConfig)| {
        b.backend.lists(name) || (b.backend.serves(name) && models.unlisted.contains(index))
    };
    let owner = snapshot.config.backends.iter().enumerate().find(takes)?.1.backend.id.to_string();
    Some(ListedModel { owner: Some(owner), ..ListedModel::named(name) })
}

/// The sentence of each backend; one that would be sent this name has it not in its own list.
fn not_served(name: &str, models: &Models, snapshot: &Snapshot) -> String {
    let backends = &snapshot.config.backends;
    let served = |(index, b): (usize, &BackendConfig)| {
        let by_list = b.backend.serves(name) && !models.unlisted.contains(&index);
        let but = if by_list { ", and its own list of models does not have this one" } else { "" };
        format!("{} serves {}{but}", b.backend.id, served_models(&b.backend))
    };
    let mut each: Vec<String> = backends.iter().enumerate().take(SHOWN_BACKENDS).map(served).collect();
    if backends.len() > SHOWN_BACKENDS {
        each.push(format!("and {} more", backends.len() - SHOWN_BACKENDS));
    }
    format!(
        "No backend serves the model {:?}: {}. GET /v1/models lists what can be asked for",
        shown(name),
        each.join("; ")
    )
}

/// A JSON response of our own.
fn json(body: String, dialect: Dialect, request_id: &str) -> Reply {
    let mut reply = Response::new(ProxyBody::whole(body));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    insert_request_id(headers, dialect, request_id);
    reply
}
