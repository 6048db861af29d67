//! Clients: how one proves who it is, and what it gets without a user.

use super::At;
use super::answer::Answer;
use super::call::{Call, Form};
use super::token::oauth;
use crate::controls::auth::codes;
use crate::refusal::Refusal;

/// A client that asks.
pub(super) struct Client {
    /// Its id.
    pub(super) id: String,
    /// Whether it proved who it is.
    pub(super) confidential: bool,
}

/// The client of a password grant, or of a refresh that follows one. None has to be registered: what FastAPI's
/// documentation pages send in its place is not looked at.
pub(super) async fn of_password_grant(_: &Call, _: &At<'_>, _: &Form) -> Result<Option<Client>, Refusal> {
    Ok(None)
}

/// The grants of registered clients.
pub(super) async fn grant(_: &Call, _: &At<'_>, _: &Form, _: &str) -> Result<Answer, Refusal> {
    Err(oauth(&codes::OAUTH_GRANT_TYPE, "no such grant"))
}
