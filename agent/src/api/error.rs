//! What a client is told when an operation cannot be done: a status and a plain text (`spec/http-api.md` 1.4).

/// An error as the client sees it. Made by the families; the inside story goes to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Bare text, no JSON.
    pub text: String,
}

impl ApiError {
    /// An error with a text of its own.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}
