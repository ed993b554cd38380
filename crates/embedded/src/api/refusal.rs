//! Refusals: OpenAI's error object, with a status and a code that a program can act on.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An error answer. The code is for programs, the message for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    /// The request is wrong (400); the message names the field.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// The request asks for something that this engine does not do (400).
    pub(crate) fn unsupported(field: &str) -> Self {
        let message = format!("`{field}` is not supported by this engine; leave it out");
        Self::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message)
    }

    /// The prompt leaves no room for an answer (400).
    pub(crate) fn context_exceeded(prompt_tokens: usize, context_tokens: usize) -> Self {
        let message = format!(
            "the prompt has {prompt_tokens} tokens, and prompt and answer together have {context_tokens}; shorten it, \
             or start the engine with a greater `--ctx`"
        );
        Self::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message)
    }

    /// The body is too long (413).
    pub(crate) fn too_long(bytes_max: usize) -> Self {
        let message = format!("the request body has more than {bytes_max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    /// Another model is asked for (404).
    pub(crate) fn model_not_found(asked: &str, served: &str) -> Self {
        let message = format!("the model `{asked}` is not served here; this engine serves `{served}`");
        Self::new(StatusCode::NOT_FOUND, "model_not_found", message)
    }

    /// No such path (404).
    pub(crate) fn no_such_path() -> Self {
        let message = "no such path; there are /health, /v1/models, /v1/chat/completions and /v1/completions";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The path is right and the method is not (405).
    pub(crate) fn wrong_method() -> Self {
        let message =
            "this path does not know this method; ask with POST, and read /health and /v1/models with GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// The queue is full (429).
    pub(crate) fn queue_full() -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "queue_full",
            "too many requests are waiting; try again later",
        )
    }

    /// The model is not there yet (503).
    pub(crate) fn loading() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "model_loading",
            "the model is being loaded; try again soon",
        )
    }

    /// The program is ending (503).
    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the engine is stopping and takes nothing new")
    }

    /// The engine failed (500).
    pub(crate) fn failed(reason: &str) -> Self {
        let message = format!("failed to generate an answer: {reason}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed", message)
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// The error object, also the last event of a stream that breaks.
    pub(crate) fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "code": self.code } })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
