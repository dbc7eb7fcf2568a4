//! What went wrong, as Glance says it in HTTP.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

/// A request that is not served.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    why: String,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    pub(crate) fn no_image(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no image {id}"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, self.why).into_response()
    }
}

/// Each variant names what a caller does about it, so this is all that an embedder has to decide.
impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        use store::Error::{AlreadyExists, InUse, Invalid, NotFound, SizeMismatch, StorageFull, Timeout};
        let status = match &error {
            NotFound(_) => StatusCode::NOT_FOUND,
            AlreadyExists(_) | InUse(_) => StatusCode::CONFLICT,
            StorageFull(_) => StatusCode::PAYLOAD_TOO_LARGE,
            SizeMismatch { .. } | Invalid(_) => StatusCode::BAD_REQUEST,
            Timeout(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let duplicate = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        let status = if duplicate { StatusCode::CONFLICT } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self::new(status, error.to_string())
    }
}
