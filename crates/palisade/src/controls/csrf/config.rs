//! What the policy may say of it.

use palisade_base::SecretRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::values::PathPattern;

/// `[csrf]`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Paths that take requests of other sites' pages although the browser adds its cookies: where a payment provider or
    /// an identity provider sends its visitors back to with a form.
    pub exempt: Vec<PathPattern>,
    /// Paths where the application begins a session, such as `/login`. They are judged also where the request carries no
    /// cookie yet, so that no page can log its visitors in as somebody else.
    pub login: Vec<PathPattern>,
    /// The application's own session cookie. Tokens are bound to its value, so that those of another session are worth
    /// nothing. Default: to a random cookie of Palisade's.
    pub session_cookie: Option<String>,
    /// Hands each HTML page a token: to the application in the request header `X-CSRF-Token`, for its templates, and to
    /// scripts in the cookie `__Host-palisade-csrf`. Needed only for browsers of before 2020, and for programs that log in
    /// with a cookie.
    pub tokens: bool,
    /// Puts the token into the forms of the application's HTML pages that post to this origin. Implies `tokens`.
    pub inject: bool,
    /// The key that tokens are signed with, at least 32 bytes. Default: with `[auth]` the secret `mac-key`, which Palisade
    /// makes and replaces itself; without it a random one, new at each start. Several instances need the same.
    pub key: Option<SecretRef>,
}

/// What a route may say: its `mode`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {}
