//! Errors of the admin interface: a status, and a sentence as JSON.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use pointsman_core::lifecycle::CannotGoBack;
use pointsman_core::lifecycle::promotion::CannotPromote;
use serde::Serialize;

use crate::control::CannotUpload;

/// A request that is not carried out.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    message: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        failure(self.status, self.message)
    }
}

impl From<CannotUpload> for Failure {
    fn from(error: CannotUpload) -> Self {
        let status = match &error {
            CannotUpload::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            CannotUpload::Superseded(_) => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<CannotGoBack> for Failure {
    fn from(error: CannotGoBack) -> Self {
        let status = match &error {
            CannotGoBack::Unknown { .. } => StatusCode::NOT_FOUND,
            CannotGoBack::InForce(_) | CannotGoBack::Nothing(_) | CannotGoBack::Superseded(_) => StatusCode::CONFLICT,
            CannotGoBack::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

impl From<CannotPromote> for Failure {
    fn from(error: CannotPromote) -> Self {
        let status = match &error {
            CannotPromote::UnderWay(_)
            | CannotPromote::InForce(_)
            | CannotPromote::Superseded(_)
            | CannotPromote::None => StatusCode::CONFLICT,
            CannotPromote::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, error.to_string())
    }
}

/// `{"error":{"message":"..."}}`
pub(super) fn failure(status: StatusCode, message: impl Into<String>) -> Response {
    #[derive(Serialize)]
    struct Body {
        error: Message,
    }
    #[derive(Serialize)]
    struct Message {
        message: String,
    }
    (status, axum::Json(Body { error: Message { message: message.into() } })).into_response()
}
