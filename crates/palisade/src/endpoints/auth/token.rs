//! `POST token`: every grant. Sources: RFC 6749, 7636, 9068.

use http::StatusCode;
use palisade_identity::refresh::RefreshToken;
use palisade_identity::service::{Client, GrantError, GrantKind, NewGrant, TokenRequest, Tokens};
use serde_json::json;

use super::answer::{self, Answer};
use super::call::{Call, Form};
use super::who::{login, trouble};
use super::{At, client};
use crate::controls::auth::codes;
use crate::observe::event;
use crate::refusal::{Code, Refusal};

/// An OAuth error: its code, and its name on the wire.
pub(super) fn oauth(code: &'static Code, why: &'static str) -> Refusal {
    let error = code.name.strip_prefix("auth.").unwrap_or("invalid_request");
    code.refuse(why).oauth(if error == "unsupported_grant" { "unsupported_grant_type" } else { error })
}

/// `POST token`.
pub(super) async fn token(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    in_shape(serve(call, at).await)
}

/// Everything that this endpoint says is in the shape of RFC 6749.
pub(super) fn in_shape(answer: Result<Answer, Refusal>) -> Result<Answer, Refusal> {
    answer.map_err(|refusal| match refusal.code().status {
        _ if refusal.is_oauth() => refusal,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => refusal.oauth("temporarily_unavailable"),
        _ => refusal.oauth("invalid_request"),
    })
}

async fn serve(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let form = call.form().await?;
    let issued = match form.required("grant_type")? {
        "password" => password(call, at, &form).await?,
        "refresh_token" => refresh(call, at, &form).await?,
        other => client::grant(call, at, &form, other).await?,
    };
    Ok(issued)
}

/// The scopes that are asked for.
pub(super) fn scopes(form: &Form) -> Result<Vec<String>, Refusal> {
    let mut scopes: Vec<String> = Vec::new();
    for scope in form.get("scope").unwrap_or_default().split(' ').filter(|scope| !scope.is_empty()) {
        let fits =
            (1..=100).contains(&scope.len()) && scope.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if !fits || scopes.len() == 100 {
            return Err(oauth(&codes::OAUTH_SCOPE, "a scope that is none, or too many"));
        }
        if !scopes.iter().any(|known| known == scope) {
            scopes.push(scope.to_owned());
        }
    }
    Ok(scopes)
}

/// The resources that are asked for (RFC 8707).
pub(super) fn resources(form: &Form) -> Vec<String> {
    form.all("resource").map(str::to_owned).collect()
}

/// The scopes and the audience of a new grant: within what a registered client may ask for.
pub(super) fn asked(at: &At<'_>, form: &Form, client: Option<&Client>) -> Result<NewGrant, Refusal> {
    let scopes = scopes(form)?;
    let scopes = match client {
        Some(client) => client
            .grantable(&scopes)
            .ok_or_else(|| oauth(&codes::OAUTH_SCOPE, "a scope that the client may not ask for"))?,
        None => scopes,
    };
    let own = client.map_or(&[][..], |client| &client.audience);
    let audience = (at.ready.identity.target(own, &resources(form)))
        .ok_or_else(|| oauth(&codes::OAUTH_TARGET, "a resource that the client may not ask tokens for"))?;
    Ok(NewGrant { scopes, audience, ..NewGrant::default() })
}

async fn password(call: &mut Call, at: &At<'_>, form: &Form) -> Result<Answer, Refusal> {
    if !at.auth.config().password_grant {
        return Err(oauth(&codes::OAUTH_GRANT_TYPE, "`password_grant` is off"));
    }
    let client = client::of_password_grant(call, at, form).await?;
    client.as_deref().map_or(Ok(()), |client| client::may(client, GrantKind::Password))?;
    let (name, secret) = (form.required("username")?, form.secret("password"));
    let secret = secret.map_or("", |secret| secret.expose());
    let NewGrant { scopes, audience, .. } = asked(at, form, client.as_deref())?;
    let origin = at.origin(call);
    let identity = &at.ready.identity;
    let checked = identity
        .check_password(name, secret, &origin)
        .await
        .map_err(|error| as_grant(login(at.failed(error), &codes::OAUTH_GRANT)))?;
    let confidential = client.as_ref().is_some_and(|client| client.is_confidential());
    let client = client.map(|client| client.id.clone());
    let grant = NewGrant { client, confidential, scopes, audience };
    let tokens = identity.grant(&checked, grant, &origin).await.map_err(|error| failed(at, error))?;
    Ok(tokens_answer(&tokens, true))
}

async fn refresh(call: &mut Call, at: &At<'_>, form: &Form) -> Result<Answer, Refusal> {
    let client = client::of_password_grant(call, at, form).await?;
    client.as_deref().map_or(Ok(()), |client| client::may(client, GrantKind::RefreshToken))?;
    let text = form.required("refresh_token")?;
    let token = RefreshToken::parse(text).ok_or_else(|| oauth(&codes::OAUTH_GRANT, "not a refresh token"))?;
    let origin = at.origin(call);
    let confidential = client.as_ref().is_some_and(|client| client.is_confidential());
    let id = client.as_ref().map(|client| client.id.as_str());
    let request = TokenRequest { scopes: scopes(form)?, resources: resources(form) };
    let refreshed = at.ready.identity.refresh(&token, id, confidential, &request, &origin).await;
    let tokens = refreshed.map_err(|error| failed(at, error))?;
    Ok(tokens_answer(&tokens, true))
}

/// A login that failed, in OAuth's terms; what is not about the password keeps its own.
pub(super) fn as_grant(refusal: Refusal) -> Refusal {
    if *refusal.code() == codes::OAUTH_GRANT { refusal.oauth("invalid_grant") } else { refusal }
}

/// Why there are no tokens.
pub(super) fn failed(at: &At<'_>, error: GrantError) -> Refusal {
    match error {
        GrantError::NotValid(_) => oauth(&codes::OAUTH_GRANT, "unknown, over, or the account is not enabled"),
        GrantError::Replayed { how, user, grant } => {
            event::REPLAYED
                .line(&at.ctx.policy.env().log)
                .str("owasp", "authn_token_reuse")
                .str("user", &user.to_string())
                .str("grant", &grant.to_string())
                .str("how", &format!("{how:?}"))
                .str("client", at.ctx.client_text())
                .str("request_id", at.ctx.request_id().as_str());
            oauth(&codes::OAUTH_GRANT, "a spent refresh token: all tokens of its login have ended")
        }
        GrantError::Scope => oauth(&codes::OAUTH_SCOPE, "a scope that was not granted"),
        GrantError::Target => oauth(&codes::OAUTH_TARGET, "a resource that was not granted"),
        GrantError::Trouble(why) => trouble(why),
    }
}

/// The answer of RFC 6749 section 5.1.
pub(super) fn tokens_answer(tokens: &Tokens, refreshable: bool) -> Answer {
    let mut body = json!({
        "access_token": tokens.access.text.expose(),
        "token_type": "Bearer",
        "expires_in": tokens.access.expires_in.as_secs(),
    });
    if refreshable {
        body["refresh_token"] = tokens.refresh.reveal().expose().as_str().into();
    }
    if !tokens.scopes.is_empty() {
        body["scope"] = tokens.scopes.join(" ").into();
    }
    answer::json(StatusCode::OK, &body)
}
