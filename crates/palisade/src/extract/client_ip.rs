//! The client's address.

use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;

use super::context;
use crate::State;
use crate::refusal::Refusal;

/// The client's address as the policy sees it: the connection's, or what the proxies that it trusts say. Never a header
/// that somebody else sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientIp(pub IpAddr);

impl<S> FromRequestParts<S> for ClientIp
where
    State: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(context(parts)?.client_ip()))
    }
}
