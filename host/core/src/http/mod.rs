//! Bytes of HTTP and JSON: framing, headers, addresses, events, and when an upstream wants to be asked again.

pub mod account_headers;
pub mod cors;
pub mod encoding;
pub mod framing;
pub mod headers;
pub(crate) mod json;
pub mod keyless;
pub mod links;
pub mod multipart;
pub(crate) mod path;
pub mod path_template;
pub mod query;
pub mod redact;
pub mod retry_after;
pub mod site;
pub mod sse;
pub mod url;
