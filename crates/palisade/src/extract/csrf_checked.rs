//! Evidence that no page of another site made the browser send the request.

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::context;
use crate::State;
use crate::controls::csrf;
use crate::refusal::Refusal;

/// The request was made by an own page, or carries nothing that a browser would have added by itself. Also where `csrf`
/// only watches this route or its method is `GET`: a handler that takes this is never run by a page of another site.
#[derive(Debug, Clone, Copy)]
pub struct CsrfChecked(());

impl<S> FromRequestParts<S> for CsrfChecked
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        csrf::is_checked(&*context(parts)?, &parts.headers).map(|()| Self(()))
    }
}
