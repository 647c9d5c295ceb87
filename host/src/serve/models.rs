//! `/v1/models`: what can be asked for, in the dialect of whoever asks.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Response};
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::envelope::ErrorKind;

use crate::proxy::{OwnError, ProxyBody, Reply, Snapshot};

/// Part of the model list that is requested.
pub(super) enum Listed<'a> {
    /// The whole list.
    All,
    /// One entry, by name.
    One(&'a str),
}

/// Recognises a request for the model list, or for one of its entries.
pub(super) fn listed_at<'a>(method: &Method, path: &'a str) -> Option<Listed<'a>> {
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
pub(super) fn reply(
    listed: Listed<'_>,
    models: &[String],
    headers: &HeaderMap,
    snapshot: &Snapshot,
    request_id: &str,
) -> Reply {
    let dialect = Dialect::of_headers(headers);
    let entry = |name: &str| {
        let owner = snapshot.config.backends.iter().find(|b| b.backend.serves(name)).map(|b| &*b.backend.id);
        dialect.format().model_entry(name, owner)
    };
    match listed {
        Listed::All => {
            let entries = models.iter().map(|name| entry(name)).collect();
            json(dialect.format().model_list(models, entries).to_string(), request_id)
        }
        Listed::One(name) => {
            let wanted = name.replace("%2F", "/").replace("%2f", "/");
            if models.contains(&wanted) {
                return json(entry(&wanted).to_string(), request_id);
            }
            let message =
                format!("The model {wanted:?} is not listed here; GET /v1/models lists what can be asked for");
            OwnError::new(ErrorKind::ModelNotFound, &message).reply(dialect, request_id)
        }
    }
}

/// A JSON response of our own.
fn json(body: String, request_id: &str) -> Reply {
    let mut reply = Response::new(ProxyBody::whole(body));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", id);
    }
    reply
}
