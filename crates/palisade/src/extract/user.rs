//! Who sends the request.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use palisade_identity::service::Account;

use super::context;
use crate::State;
use crate::context::Context;
use crate::controls::auth::needs::Needs;
use crate::controls::auth::{By, Caller, codes};
use crate::refusal::Refusal;

/// Whoever sends the request, if they meet what is asked: the same judgement as that of a route's keys.
pub(super) fn judged(parts: &Parts, needs: Needs) -> Result<Arc<Context>, Refusal> {
    let ctx = context(parts)?;
    let Some(caller) = ctx.identity().caller() else {
        let refusal = codes::REQUIRED.refuse("a handler asks for a login");
        let auth = ctx.policy.controls().auth.control.as_ref();
        let challenge = auth.map_or(HeaderValue::from_static("Bearer"), |auth| auth.challenge(None));
        return Err(refusal.header(WWW_AUTHENTICATE, challenge));
    };
    let mut needs = needs;
    // A scope that the route names, or that an extractor before this one has asked for, is what a narrow credential
    // passes with (threat 4).
    needs.scopes.extend(ctx.rule().needs.scopes.iter().cloned());
    if let Some(Shown(scopes)) = parts.extensions.get() {
        needs.scopes.extend(scopes.iter().cloned());
    }
    if (!needs.roles.is_empty() || !needs.permissions.is_empty())
        && ctx.policy.controls().auth.control.as_ref().is_some_and(|auth| auth.is_unsure())
    {
        return Err(codes::AWAY.refuse("a role may have been taken away meanwhile").retry_after(1));
    }
    needs.judge(caller, ctx.policy.clock().now())?;
    Ok(ctx)
}

/// The scopes that extractors of this request have asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown(pub(super) Vec<Box<str>>);

/// A person's account, by a session or token that stands for all that they may do, or by a narrower credential where the
/// route or a [`HasScope`](super::HasScope) before this argument names a scope that it has.
#[derive(Debug, Clone)]
pub struct User(Arc<Context>);

impl User {
    fn new(ctx: Arc<Context>) -> Result<Self, Refusal> {
        match ctx.identity().caller().and_then(Caller::account) {
            Some(_) => Ok(Self(ctx)),
            None => Err(codes::FORBIDDEN.refuse("a client that acts for itself, and a handler asks for a user")),
        }
    }

    pub(super) fn of(parts: &Parts, needs: Needs) -> Result<Self, Refusal> {
        Self::new(judged(parts, Needs { user: true, ..needs })?)
    }

    /// The account, with its roles and permissions as they are now.
    pub fn account(&self) -> &Account {
        let account = self.0.identity().caller().and_then(Caller::account);
        account.unwrap_or_else(|| unreachable!("a `User` is made of one"))
    }

    /// Its id, which is never given to anybody else.
    pub fn id(&self) -> String {
        self.account().id.to_string()
    }

    /// The id that the application gave it before it moved here.
    pub fn app_id(&self) -> Option<&str> {
        self.account().app_id.as_deref()
    }

    /// Its name, as it was typed.
    pub fn name(&self) -> &str {
        &self.account().name
    }

    /// Its e-mail address, if its owner proved to have it.
    pub fn email(&self) -> Option<&str> {
        self.account().verified_email()
    }

    /// Whether it has a role. What a narrow credential may do is said by its scopes, not by this.
    pub fn has_role(&self, role: &str) -> bool {
        self.account().has_role(role)
    }

    /// Whether one of its roles holds a permission.
    pub fn may(&self, permission: &str) -> bool {
        self.account().may(permission)
    }

    /// By which credential.
    pub fn by(&self) -> By {
        self.0.identity().caller().map_or(By::Session, Caller::by)
    }
}

impl<S> FromRequestParts<S> for User
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Self::of(parts, Needs::default())
    }
}

/// A user, or nobody. A credential that is not a user's (a client's own, one that is too narrow) refuses.
#[derive(Debug, Clone)]
pub struct OptionalUser(pub Option<User>);

impl<S> FromRequestParts<S> for OptionalUser
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        if context(parts)?.identity().caller().is_none() {
            return Ok(Self(None));
        }
        User::of(parts, Needs::default()).map(|user| Self(Some(user)))
    }
}
