//! Errors as the API server words them.

use serde_json::{Value, json};

use crate::kinds::Kind;

/// A request the API server refused; becomes a `Status` body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details` of the `Status`.
    pub details: Value,
}

impl Refusal {
    /// A refusal by code alone, with the reason the API server uses for that code.
    pub fn of(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self { code, reason, message: message.into(), details: json!({}) }
    }

    fn about(kind: &Kind, name: &str, code: u16, message: String) -> Self {
        Self { details: json!({ "name": name, "group": kind.group, "kind": kind.plural }), ..Self::of(code, message) }
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::about(kind, name, 404, format!("{} \"{name}\" not found", kind.resource()))
    }

    pub(crate) fn exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.resource());
        Self { reason: "AlreadyExists", ..Self::about(kind, name, 409, message) }
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.resource());
        Self::about(kind, name, 409, message)
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        Self::about(kind, name, 403, format!("{} \"{name}\" is forbidden: {why}", kind.resource()))
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, field: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is invalid: {field}: {why}", kind.qualified());
        let mut refusal = Self::about(kind, name, 422, message);
        refusal.details["kind"] = kind.kind.clone().into();
        refusal.details["causes"] = json!([{ "reason": "FieldValueInvalid", "field": field, "message": why }]);
        refusal
    }

    /// The `Status` object of the answer.
    pub(crate) fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code,
        })
    }
}
