//! Requests that a web page of another site makes a browser send: refused where no client key is required.

use http::request::Parts;
use pointsman_core::denial::Denial;
use pointsman_core::dialect::envelope::ErrorKind;
use pointsman_core::http::keyless::{self, Exposure, Refused};
use pointsman_core::text::beginning;

use super::door::Door;
use crate::proxy::{Reply, Snapshot};

/// Bytes of a name that are shown.
const SHOWN_BYTES: usize = 80;

/// Refuses what a listener without client keys does not answer, and says what would let it in.
pub(super) fn refused(head: &Parts, snapshot: &Snapshot, exposure: Exposure, door: &Door<'_>) -> Option<Reply> {
    if !snapshot.config.clients.is_empty() {
        return None;
    }
    let allowed = &snapshot.config.server.allowed_origins;
    let (denial, message) = match keyless::refused(&head.uri, &head.headers, exposure, allowed)? {
        Refused::ForeignPage { origin: Some(origin) } => {
            let origin = beginning(&origin, SHOWN_BYTES);
            let message = format!(
                "A web page of {origin:?} sent this request, and Pointsman asks for no client key here; if the page is yours, add \
                 its origin to [server] allowed_origins, or configure keys under [[client]]"
            );
            (Denial::ForeignPage, message)
        }
        Refused::ForeignPage { origin: None } => {
            let message = "A web page of another site sent this request, and Pointsman asks for no client key here; if the page \
                           is yours, add its origin to [server] allowed_origins, or configure keys under [[client]]";
            (Denial::ForeignPage, message.to_owned())
        }
        Refused::ForeignHost { host } => {
            let setting = match keyless::origin_for(&host).filter(|origin| origin.len() <= SHOWN_BYTES) {
                Some(origin) => format!("add {origin:?} to [server] allowed_origins"),
                None => "add its origin to [server] allowed_origins".to_owned(),
            };
            let host = beginning(&host, SHOWN_BYTES);
            let message = format!(
                "The client asks for the host {host:?}, a name that another site may have pointed here, and Pointsman asks for no \
                 client key; let the client's base URL have localhost or an IP address, {setting}, or configure keys \
                 under [[client]]"
            );
            (Denial::ForeignHost, message)
        }
    };
    Some(door.deny(denial, ErrorKind::Forbidden, &message))
}
