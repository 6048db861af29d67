//! What a handler asks of whoever sends the request, as a type: a role, a permission, a scope, a key, a fresh login.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::user::{Shown, User, judged};
use crate::State;
use crate::context::Context;
use crate::controls::auth::Caller;
use crate::controls::auth::needs::Needs;
use crate::endpoints::auth::who::FRESH;
use crate::refusal::Refusal;

/// A role, permission or scope by its name:
///
/// ```
/// use palisade::extract::Named;
///
/// struct Editor;
/// impl Named for Editor {
///     const NAME: &'static str = "editor";
/// }
/// ```
pub trait Named: 'static {
    /// As in the policy and the database.
    const NAME: &'static str;
}

/// The role of those who manage accounts. It exists from the start.
#[derive(Debug, Clone, Copy)]
pub struct Admin;

impl Named for Admin {
    const NAME: &'static str = "admin";
}

fn one<N: Named>() -> Vec<Box<str>> {
    vec![N::NAME.into()]
}

macro_rules! of_a_user {
    ($(#[doc = $doc:literal])* $name:ident, $key:ident) => {
        $(#[doc = $doc])*
        pub struct $name<N>(User, PhantomData<fn() -> N>);

        impl<N> $name<N> {
            /// Whose it is.
            pub fn user(&self) -> &User {
                &self.0
            }
        }

        impl<N> fmt::Debug for $name<N> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0.account().id).finish()
            }
        }

        impl<S, N: Named> FromRequestParts<S> for $name<N>
        where
            State: FromRef<S>,
            S: Send + Sync,
        {
            type Rejection = Refusal;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
                User::of(parts, Needs { $key: one::<N>(), ..Needs::default() }).map(|user| Self(user, PhantomData))
            }
        }
    };
}

of_a_user! {
    /// A user with a role: `_: HasRole<Admin>`. As of now: one that was taken away a second ago is gone.
    HasRole, roles
}
of_a_user! {
    /// A user whose roles hold a permission.
    HasPermission, permissions
}

/// A credential with a scope; a session, and a token without scopes, stand for all that their user may do. Write it before
/// [`User`] and [`HasRole`], so that an API key or a third party's token with the scope passes those too.
pub struct HasScope<N>(Arc<Context>, PhantomData<fn() -> N>);

impl<N> fmt::Debug for HasScope<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HasScope")
    }
}

impl<N> HasScope<N> {
    /// What stands for the caller in logs: the user's id, or the client's.
    pub fn subject(&self) -> &str {
        self.0.identity().caller().map_or("", Caller::subject)
    }
}

impl<S, N: Named> FromRequestParts<S> for HasScope<N>
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let ctx = judged(parts, Needs { scopes: one::<N>(), ..Needs::default() })?;
        parts.extensions.get_or_insert_default::<Shown>().0.push(N::NAME.into());
        Ok(Self(ctx, PhantomData))
    }
}

/// An API key: the caller is a machine that somebody gave one to.
#[derive(Debug, Clone)]
pub struct ApiKey(Arc<Context>);

impl ApiKey {
    /// Its public id.
    pub fn id(&self) -> &str {
        self.0.identity().caller().and_then(Caller::key_id).unwrap_or_default()
    }

    /// What it is limited to.
    pub fn scopes(&self) -> &[String] {
        self.0.identity().caller().and_then(Caller::scopes).unwrap_or_default()
    }
}

impl<S> FromRequestParts<S> for ApiKey
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        judged(parts, Needs { key: true, ..Needs::default() }).map(Self)
    }
}

/// A user who logged in a few minutes ago, in a browser's session: for what a stolen token must not do.
#[derive(Debug, Clone)]
pub struct FreshLogin(User);

impl FreshLogin {
    /// Whose it is.
    pub fn user(&self) -> &User {
        &self.0
    }
}

impl<S> FromRequestParts<S> for FreshLogin
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        User::of(parts, Needs { max_age: Some(FRESH), ..Needs::default() }).map(Self)
    }
}
