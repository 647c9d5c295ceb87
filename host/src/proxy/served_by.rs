//! The backend that served an exchange.

use std::sync::Arc;

use http::HeaderValue;
use pointsman_core::table::Lane;

/// The backend that responded, and the lane of its attempt.
pub struct ServedBy {
    /// The lane.
    pub lane: Lane,
    /// The backend.
    pub backend: Arc<str>,
    /// Fields that were left out of a translated request, for the client to see.
    pub left_out: Option<HeaderValue>,
}
