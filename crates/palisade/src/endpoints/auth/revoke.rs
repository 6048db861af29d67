//! `POST revoke` (RFC 7009) and `POST introspect` (RFC 7662).

use http::StatusCode;
use palisade_identity::refresh::RefreshToken;
use serde_json::json;

use super::answer::{self, Answer};
use super::call::Call;
use super::token::{in_shape, oauth};
use super::who::trouble;
use super::{At, client};
use crate::controls::auth::codes;
use crate::refusal::Refusal;

/// `POST revoke`. A token that is none is as good as revoked (section 2.2).
pub(super) async fn revoke(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    in_shape(revoked(call, at).await)
}

async fn revoked(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = call.form().await?;
    let client = client::of_password_grant(call, at, &form).await?;
    let client = client.as_ref().map(|client| client.id.as_str());
    let text = form.required("token")?;
    let identity = &at.ready.identity;
    match RefreshToken::parse(text) {
        // One that no client obtained is revoked by whoever holds it.
        Some(token) => identity.revoke_refresh(&token, client).await.map_err(trouble)?,
        None => identity.revoke_token(text, client).await.map_err(trouble)?,
    };
    Ok(answer::empty(StatusCode::OK))
}

/// `POST introspect`: for clients that prove who they are, about tokens for their audience. Threats 31.
pub(super) async fn introspect(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    in_shape(introspected(call, at).await)
}

async fn introspected(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = call.form().await?;
    let client = client::recognise(call, at, &form).await?;
    let client = client
        .filter(|client| client.is_confidential())
        .ok_or_else(|| oauth(&codes::OAUTH_CLIENT, "introspection needs a client that proves who it is"))?;
    let token = form.required("token")?;
    let found = at.ready.identity.introspect(token, &client.audience).await.map_err(trouble)?;
    let Some(found) = found else { return Ok(answer::json(StatusCode::OK, &json!({ "active": false }))) };
    let claims = &found.claims;
    let mut body = json!({
        "active": true,
        "token_type": "Bearer",
        "iss": claims.issuer,
        "sub": claims.subject,
        "aud": claims.audience,
        "exp": claims.expires_at,
        "iat": claims.issued_at,
        "jti": claims.id,
        "client_id": claims.client,
    });
    // What it is good for now, which may be less than it says of itself.
    if !found.caller.scopes().is_empty() {
        body["scope"] = found.caller.scopes().join(" ").into();
    }
    if let Some(account) = found.caller.account() {
        body["username"] = account.name.as_str().into();
    }
    Ok(answer::json(StatusCode::OK, &body))
}
