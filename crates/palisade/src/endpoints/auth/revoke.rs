//! `POST revoke` (RFC 7009).

use http::StatusCode;
use palisade_identity::refresh::RefreshToken;

use super::answer::{self, Answer};
use super::call::Call;
use super::token::in_shape;
use super::who::trouble;
use super::{At, client};
use crate::refusal::Refusal;

/// `POST revoke`. A token that is none is as good as revoked (section 2.2).
pub(super) async fn revoke(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    in_shape(serve(call, at).await)
}

async fn serve(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
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
