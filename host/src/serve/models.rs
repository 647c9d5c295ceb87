//! `/v1/models`: what can be asked for, in the dialect of whoever asks.

use http::{HeaderMap, Method};
use pointsman_core::contract::Operation;
use pointsman_core::dialect::envelope::ErrorKind;
use serde_json::json;

use super::service;
use crate::drive::{OwnError, Reply, Snapshot};

/// Part of the model list that is requested.
pub enum Listed<'a> {
    /// The whole list.
    All,
    /// One entry, by name.
    One(&'a str),
}

/// Recognises a request for the model list, or for one of its entries.
pub fn listed_at<'a>(method: &Method, path: &'a str) -> Option<Listed<'a>> {
    if method != Method::GET && method != Method::HEAD {
        return None;
    }
    let path = path.strip_prefix("/v1").unwrap_or(path);
    match path.strip_prefix("/models")? {
        "" | "/" => Some(Listed::All),
        name => name.strip_prefix('/').map(Listed::One),
    }
}

/// The list, or one entry of it.
pub fn reply(
    listed: Listed<'_>,
    models: &[String],
    headers: &HeaderMap,
    snapshot: &Snapshot,
    request_id: &str,
) -> Reply {
    let anthropic = headers.contains_key("anthropic-version");
    match listed {
        Listed::All => {
            let entries: Vec<_> = models.iter().map(|name| entry(name, snapshot, anthropic)).collect();
            let body = if anthropic {
                json!({"data": entries, "has_more": false, "first_id": models.first(), "last_id": models.last()})
            } else {
                json!({"object": "list", "data": entries})
            };
            service::json(body.to_string(), request_id)
        }
        Listed::One(name) => {
            let wanted = name.replace("%2F", "/").replace("%2f", "/");
            if models.contains(&wanted) {
                return service::json(entry(&wanted, snapshot, anthropic).to_string(), request_id);
            }
            let message =
                format!("The model {wanted:?} is not listed here; GET /v1/models lists what can be asked for");
            let operation = if anthropic { Operation::Message } else { Operation::Other };
            OwnError::new(ErrorKind::ModelNotFound, &message).reply(operation, request_id)
        }
    }
}

fn entry(name: &str, snapshot: &Snapshot, anthropic: bool) -> serde_json::Value {
    if anthropic {
        return json!({"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"});
    }
    let owner = snapshot.config.backends.iter().find(|b| b.backend.serves(name)).map(|b| &*b.backend.id);
    json!({"id": name, "object": "model", "created": 0, "owned_by": owner})
}
