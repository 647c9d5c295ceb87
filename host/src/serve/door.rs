//! Refusals before an exchange begins: each is sent to the client in its dialect, and recorded.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use pointsman_core::contract::Operation;
use pointsman_core::denial::Denial;
use pointsman_core::dialect::Dialect;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::table::UNKNOWN_MODEL;
use pointsman_core::time::Timestamp;

use crate::proxy::{Denied, OwnError, Proxy, ProxyRequest, Reply};

/// Facts of a request that may still be refused, filled in while it is read.
pub(super) struct Door<'a> {
    proxy: &'a Proxy,
    id: String,
    arrived: Timestamp,
    operation: Operation,
    dialect: Dialect,
    uri: Uri,
    client: Option<Arc<str>>,
    request: Option<Arc<ProxyRequest>>,
}

impl<'a> Door<'a> {
    /// A request with this id has arrived.
    pub(super) fn new(proxy: &'a Proxy, id: String, operation: Operation, uri: &Uri, headers: &HeaderMap) -> Self {
        let arrived = proxy.clock.now();
        let dialect = Dialect::of_client(operation, headers);
        Self { proxy, id, arrived, operation, dialect, uri: uri.clone(), client: None, request: None }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Its client key is known, or none is configured.
    pub(super) fn identified(&mut self, client: Option<&Arc<str>>) {
        self.client = client.cloned();
    }

    /// Adds the facts read from the body.
    pub(super) fn read(&mut self, request: &Arc<ProxyRequest>) {
        self.request = Some(request.clone());
    }

    /// Counts the request as one for which there is no memory.
    pub(super) fn count_without_memory(&self) {
        self.proxy.memory.count_refusal();
    }

    /// Refuses the request, and records the refusal with its reason.
    pub(super) fn deny(&self, denial: Denial, kind: ErrorKind, message: &str) -> Reply {
        self.deny_with(denial, &OwnError::new(kind, message))
    }

    /// Refuses it with this error.
    pub(super) fn deny_with(&self, reason: Denial, error: &OwnError<'_>) -> Reply {
        let reply = error.reply(self.dialect, &self.id);
        self.proxy.denied(Denied {
            id: &self.id,
            arrived: self.arrived,
            reason,
            client: self.client.clone(),
            operation: self.operation,
            path: self.uri.path(),
            model: self.request.as_ref().map_or(UNKNOWN_MODEL, |request| &request.model),
            streaming: self.request.as_ref().is_some_and(|request| request.streaming),
            status: reply.status().as_u16(),
            error: error.message,
        });
        reply
    }
}
