//! The endpoints of `[auth]`: tokens, logins, accounts, and what describes them.
//!
//! Guide sections 1, 4 and 10. They are reached through the whole stack, like any other path, and say themselves whom they
//! are for: [`At::user`], [`At::fresh`] and [`At::administrator`] are the only ways to an account. OAuth endpoints refuse
//! in the shape of RFC 6749, everything else as problem documents.

mod account;
mod admin;
pub(crate) mod answer;
mod authorize;
pub(crate) mod call;
mod client;
mod forms;
mod links;
mod mail;
mod metadata;
mod page;
mod pages;
mod revoke;
mod roles;
mod sessions;
pub(crate) mod setup;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_access;
#[cfg(test)]
mod tests_everyone;
#[cfg(test)]
mod tests_handover;
#[cfg(test)]
mod tests_links;
#[cfg(test)]
mod tests_oauth;
#[cfg(test)]
mod tests_sessions;
mod token;
pub(crate) mod who;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{Method, Response, request};
use palisade_base::Timestamp;
use palisade_identity::service::Account;

use self::answer::Answer;
use self::call::Call;
use crate::body::{RequestBody, ResponseBody};
use crate::context::Context;
use crate::control::Mode;
use crate::controls::auth::{Auth, Ready, codes};
use crate::endpoints::fits;
use crate::observe::event;
use crate::refusal::Refusal;

type Handler =
    for<'a> fn(&'a mut Call, &'a At<'a>) -> Pin<Box<dyn Future<Output = Result<Answer, Refusal>> + Send + 'a>>;

/// What a call is served with.
pub(crate) struct At<'a> {
    /// `[auth]`.
    pub(crate) auth: &'a Auth,
    /// Keys and caches.
    pub(crate) ready: &'a Ready,
    /// The request.
    pub(crate) ctx: &'a Arc<Context>,
}

impl At<'_> {
    /// The time of day.
    pub(crate) fn now(&self) -> Timestamp {
        self.ctx.policy.clock().now()
    }

    /// The path of the endpoints: `/auth`.
    pub(crate) fn base(&self) -> &str {
        self.auth.config().path.as_str()
    }

    /// The URL of the endpoints.
    pub(crate) fn base_url(&self) -> String {
        format!("{}{}", self.ready.origin(), self.base())
    }

    /// Says in the log what became of an account or a credential of it, and by whom.
    pub(crate) fn note(&self, what: &str, account: &Account) {
        self.note_id(what, &account.id.to_string());
    }

    /// The same for an account that is gone.
    pub(crate) fn note_id(&self, what: &str, id: &str) {
        let by = self.ctx.identity().caller().map_or("", |caller| caller.subject());
        event::ACCOUNT
            .line(&self.ctx.policy.env().log)
            .str("what", what)
            .str("user", id)
            .str("by", by)
            .str("client", self.ctx.client_text())
            .str("request_id", self.ctx.request_id().as_str());
    }

    /// Says in the log that something was refused that a page shows to a person instead of a problem document.
    pub(crate) fn log_refused(&self, refusal: &Refusal) {
        event::refused(self.ctx, None, Mode::Block, refusal);
    }

    /// What every page has.
    pub(crate) fn frame(&self) -> page::Frame<'_> {
        page::Frame { service: self.ctx.host(), base: self.base() }
    }
}

macro_rules! endpoints {
    ($($method:ident $path:literal => $($function:ident)::+,)*) => {
        /// Every endpoint: its method, its path behind `[auth] path`, and what serves it.
        static ENDPOINTS: &[(Method, &str, Handler)] =
            &[$((Method::$method, $path, |call, at| Box::pin($($function)::+(call, at)))),*];
    };
}

endpoints! {
    POST "/token" => token::token,
    POST "/revoke" => revoke::revoke,
    POST "/introspect" => revoke::introspect,
    GET "/authorize" => authorize::ask_user,
    POST "/authorize" => authorize::decide,
    POST "/register" => account::register,
    GET "/register" => pages::show_register,
    POST "/login" => account::log_in,
    GET "/login" => pages::login,
    POST "/logout" => account::log_out,
    GET "/account" => pages::account,
    POST "/account/end-session" => forms::end_session,
    POST "/account/revoke-key" => forms::revoke_key,
    POST "/account/revoke-consent" => forms::revoke_consent,
    POST "/account/password" => forms::password,
    POST "/account/email" => forms::email,
    POST "/account/verify" => forms::verify,
    POST "/account/create-key" => forms::create_key,
    GET "/me" => account::me,
    PATCH "/me" => account::change,
    GET "/csrf" => account::csrf,
    GET "/sessions" => sessions::list,
    DELETE "/sessions" => sessions::end_all,
    DELETE "/sessions/{id}" => sessions::end,
    GET "/keys" => sessions::keys,
    POST "/keys" => sessions::make,
    DELETE "/keys/{id}" => sessions::revoke,
    POST "/keys/{id}/rotate" => sessions::rotate,
    POST "/password" => account::password,
    POST "/password/reset" => links::ask_reset,
    GET "/password/reset" => links::show_reset,
    POST "/password/reset/confirm" => links::confirm,
    GET "/password/reset/confirm" => links::show_confirm,
    GET "/email/verify" => links::show_verify,
    POST "/email/verify" => links::verify,
    GET "/roles" => roles::list,
    POST "/roles" => roles::make,
    DELETE "/roles/{id}" => roles::delete,
    GET "/users" => admin::list,
    GET "/users/{id}" => admin::show,
    PATCH "/users/{id}" => admin::change,
    DELETE "/users/{id}" => admin::delete,
    GET "/jwks.json" => metadata::keys,
    GET "/openapi.json" => metadata::openapi,
    GET "/docs" => metadata::docs,
    GET "/style.css" => metadata::style,
}

/// What lies elsewhere, by what the path begins with (an issuer with a path puts it behind).
static WELL_KNOWN: &[(&str, Handler)] = &[
    ("/.well-known/oauth-authorization-server", |call, at| Box::pin(metadata::server(call, at))),
    ("/.well-known/oauth-protected-resource", |call, at| Box::pin(metadata::resource(call, at))),
];

/// Every endpoint by method and path behind `[auth] path`, for tests that try them all.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = (&'static Method, &'static str)> {
    ENDPOINTS.iter().map(|(method, path, _)| (method, *path))
}

/// Those that lie elsewhere.
#[cfg(test)]
pub(crate) fn well_known() -> impl Iterator<Item = &'static str> {
    WELL_KNOWN.iter().map(|(path, _)| *path)
}

/// Answers a request for an endpoint.
///
/// # Errors
/// The refusal.
pub(crate) async fn answer(
    auth: &Auth,
    ctx: &Arc<Context>,
    parts: request::Parts,
    body: RequestBody,
) -> Result<Response<ResponseBody>, Refusal> {
    let (handler, id) = find(auth, ctx.path(), &parts.method)?;
    let ready = auth.open(&ctx.policy).await?;
    let mut call = Call::new(ctx, parts, body, id);
    handler(&mut call, &At { auth, ready, ctx }).await
}

/// The endpoint of a path, and the segment that stands for `{id}`.
fn find(auth: &Auth, path: &str, method: &Method) -> Result<(Handler, String), Refusal> {
    let nothing = || codes::NOT_FOUND.refuse("no endpoint of this name");
    // HEAD is GET without the body, which the server leaves out.
    let asked = if *method == Method::HEAD { &Method::GET } else { method };
    if let Some((_, handler)) = WELL_KNOWN.iter().find(|(known, _)| path.starts_with(known)) {
        return if *asked == Method::GET { Ok((*handler, String::new())) } else { Err(other_method(&["GET", "HEAD"])) };
    }
    let rest = match auth.config().paths.find(path) {
        Some(endpoint) => endpoint,
        None => auth.config().path.strip(path).ok_or_else(nothing)?,
    };
    let rest = if rest == "/" { "/account" } else { rest.strip_suffix('/').unwrap_or(rest) };
    let mut allowed = Vec::new();
    for (method, pattern, handler) in ENDPOINTS {
        let Some(id) = fits(pattern, rest) else { continue };
        if method == asked {
            return Ok((*handler, id.to_owned()));
        }
        allowed.push(method.as_str());
        if *method == Method::GET {
            allowed.push("HEAD");
        }
    }
    Err(if allowed.is_empty() { nothing() } else { other_method(&allowed) })
}

fn other_method(allowed: &[&str]) -> Refusal {
    codes::METHOD.refuse("the endpoint answers to other methods").allow(&allowed.join(", "))
}
