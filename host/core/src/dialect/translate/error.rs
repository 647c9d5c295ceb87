//! An error of one API as an error of another.

use bytes::Bytes;
use http::HeaderMap;

use super::Translation;
use crate::dialect::classify::classify;
use crate::dialect::format::{Opened, Told};
use crate::outcome::{Kind, Outcome};
use crate::time::Timestamp;

/// The status and body that the client gets for an upstream's refusal of a translated request.
///
/// The status stays, but for that of an overloaded provider, which dialects have different ones for.
pub fn refusal(translation: Translation, status: u16, body: &[u8], request_id: &str) -> (u16, Bytes) {
    let outcome = classify(translation.upstream().0, status, &HeaderMap::new(), body, Timestamp::default());
    let translated = match status {
        503 | 529 => translation.downstream().format().overloaded_status(),
        status => status,
    };
    (translated, error_body(translation, outcome.kind, status, body, request_id).to_string().into())
}

/// The event that the client gets for an error inside a stream.
pub(super) fn event(translation: Translation, outcome: &Outcome, data: &[u8]) -> Bytes {
    let body = error_body(translation, outcome.kind, 0, data, "");
    // Only read again here, and told in the names of the client's stream when it goes out.
    let told = Told { request_id: "", model: "", now_s: 0, opened: &Opened::default() };
    translation.downstream().format().error_event(translation.source().operation(), body, &told)
}

fn error_body(translation: Translation, kind: Kind, status: u16, body: &[u8], request_id: &str) -> serde_json::Value {
    let details = translation.upstream().0.format().error_details(body);
    let message = match details.message.trim() {
        "" => format!("the upstream answered {status} without a message"),
        message => message.to_owned(),
    };
    let client = translation.downstream().format();
    let (name, code) = client.translated_error(kind, status);
    client.error_body(name, code, &message, request_id)
}
