//! The backend that served an exchange.

use std::sync::Arc;

use http::HeaderValue;
use pointsman_core::table::Lane;

/// The backend that responded, and the lane of its attempt.
pub struct ServedBy {
    /// Lane of the attempt that answered.
    pub lane: Lane,
    /// Id of the backend that answered.
    pub backend: Arc<str>,
    /// Fields that were left out of a translated request, for the client to see.
    pub left_out: Option<HeaderValue>,
}
