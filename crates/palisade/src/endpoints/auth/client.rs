//! Clients: how one proves who it is, and the grants of registered ones.
//!
//! Sources: RFC 6749 sections 2.3, 4.1.3 and 4.4; RFC 7523; RFC 7636; RFC 8707.

use std::sync::Arc;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use palisade_identity::opaque::Code;
use palisade_identity::service::{AccessToken, Client, GrantKind, NewGrant, NotClient, Proof};
use serde_json::json;

use super::At;
use super::answer::{self, Answer};
use super::call::{Call, Form};
use super::token::{asked, failed, oauth, resources, tokens_answer};
use super::who::trouble;
use crate::controls::auth::codes;
use crate::refusal::Refusal;

/// `client_assertion_type` of RFC 7523.
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Recognises the client of a call. None: it names none.
///
/// # Errors
/// `invalid_client`, also for one that is not registered; `invalid_request` for two proofs at once.
pub(super) async fn recognise(call: &Call, at: &At<'_>, form: &Form) -> Result<Option<Arc<Client>>, Refusal> {
    match proved(call, at, form).await {
        Ok(client) => Ok(client),
        Err(NotRecognised::Client(_)) => {
            let refusal = oauth(&codes::OAUTH_CLIENT, "the client is unknown, or its proof is wrong");
            // RFC 6749 section 5.2: whoever tried with `Authorization` is told of it.
            Err(if call.headers.contains_key(AUTHORIZATION) {
                refusal.header(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"palisade\""))
            } else {
                refusal
            })
        }
        Err(NotRecognised::Refused(refusal)) => Err(refusal),
    }
}

enum NotRecognised {
    /// `true`: nobody of that id is registered.
    Client(bool),
    Refused(Refusal),
}

impl From<Refusal> for NotRecognised {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

async fn proved(call: &Call, at: &At<'_>, form: &Form) -> Result<Option<Arc<Client>>, NotRecognised> {
    // Swagger UI sends the header also where no client was typed in: a colon and nothing round it.
    let basic = call.basic()?.filter(|(id, secret)| !id.is_empty() || !secret.expose().is_empty());
    let secret = form.secret("client_secret").filter(|secret| !secret.expose().is_empty());
    let assertion = form.get("client_assertion");
    let proofs = usize::from(basic.is_some()) + usize::from(secret.is_some()) + usize::from(assertion.is_some());
    if proofs > 1 {
        return Err(oauth(&codes::OAUTH_REQUEST, "two proofs of one client").into());
    }
    let named = form.get("client_id");
    let (id, proof) = match (&basic, secret, assertion) {
        (Some((id, secret)), _, _) => {
            if named.is_some_and(|named| named != id) {
                return Err(oauth(&codes::OAUTH_REQUEST, "two clients").into());
            }
            // Without a secret it is the name of one that has none.
            let proof = if secret.expose().is_empty() { Proof::None } else { Proof::Basic(secret.expose()) };
            (id.clone(), proof)
        }
        (None, Some(secret), _) => match named {
            Some(id) => (id.to_owned(), Proof::Post(secret.expose())),
            None => return Err(oauth(&codes::OAUTH_REQUEST, "a secret of nobody").into()),
        },
        (None, None, Some(token)) => {
            if form.get("client_assertion_type") != Some(ASSERTION) {
                return Err(oauth(&codes::OAUTH_REQUEST, "another kind of client assertion").into());
            }
            let id = named.map(str::to_owned).or_else(|| subject(token));
            (id.ok_or(NotRecognised::Client(false))?, Proof::Assertion(token))
        }
        (None, None, None) => match named {
            Some(id) => (id.to_owned(), Proof::None),
            None => return Ok(None),
        },
    };
    let endpoint = format!("{}/token", at.base_url());
    match at.ready.identity.authenticate_client(&id, proof, &endpoint).await {
        Ok(client) => Ok(Some(client)),
        Err(NotClient::Trouble(why)) => Err(trouble(why).into()),
        Err(why) => Err(NotRecognised::Client(why == NotClient::Unknown)),
    }
}

/// Whom a token claims to be about, for finding the keys that may prove it.
fn subject(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let bytes = data_encoding::BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// The client of a password grant, or of a refresh or revocation that follows one. None has to be registered: what
/// FastAPI's documentation pages send in its place is not looked at. One that is has to prove itself.
pub(super) async fn of_password_grant(call: &Call, at: &At<'_>, form: &Form) -> Result<Option<Arc<Client>>, Refusal> {
    match proved(call, at, form).await {
        Err(NotRecognised::Client(true)) => Ok(None),
        Ok(client) => Ok(client),
        Err(NotRecognised::Client(false)) => recognise(call, at, form).await,
        Err(NotRecognised::Refused(refusal)) => Err(refusal),
    }
}

/// Whether a client may use a grant.
pub(super) fn may(client: &Client, grant: GrantKind) -> Result<(), Refusal> {
    if client.may(grant) { Ok(()) } else { Err(oauth(&codes::OAUTH_UNAUTHORIZED, "not a grant of this client")) }
}

/// The grants of registered clients.
pub(super) async fn grant(call: &Call, at: &At<'_>, form: &Form, name: &str) -> Result<Answer, Refusal> {
    let kind = match GrantKind::named(name) {
        Some(kind @ (GrantKind::ClientCredentials | GrantKind::AuthorizationCode)) => kind,
        _ => return Err(oauth(&codes::OAUTH_GRANT_TYPE, "no such grant")),
    };
    let client = recognise(call, at, form).await?;
    let client = client.ok_or_else(|| oauth(&codes::OAUTH_CLIENT, "the request names no client"))?;
    may(&client, kind)?;
    if kind == GrantKind::AuthorizationCode { code(call, at, form, &client).await } else { itself(at, form, &client) }
}

async fn code(call: &Call, at: &At<'_>, form: &Form, client: &Client) -> Result<Answer, Refusal> {
    let code = Code::parse(form.required("code")?).ok_or_else(|| oauth(&codes::OAUTH_GRANT, "not a code"))?;
    let (redirect, verifier) = (form.get("redirect_uri"), form.required("code_verifier")?);
    let identity = &at.ready.identity;
    let redeemed = identity.redeem_code(&code, client, redirect, verifier, &resources(form), &at.origin(call)).await;
    let tokens = redeemed.map_err(|error| failed(at, error))?;
    Ok(tokens_answer(&tokens, client.may(GrantKind::RefreshToken)))
}

fn itself(at: &At<'_>, form: &Form, client: &Client) -> Result<Answer, Refusal> {
    let NewGrant { scopes, audience, .. } = asked(at, form, Some(client))?;
    let AccessToken { text, expires_in, .. } =
        at.ready.identity.client_token(client, &scopes, &audience).map_err(trouble)?;
    let body = json!({
        "access_token": text.expose(),
        "token_type": "Bearer",
        "expires_in": expires_in.as_secs(),
        "scope": scopes.join(" "),
    });
    Ok(answer::json(StatusCode::OK, &body))
}
