//! One's own sessions and API keys.

use std::time::Duration;

use http::StatusCode;
use palisade_base::Interval;
use palisade_identity::opaque::ApiKey;
use palisade_identity::service::{ApiKeyInfo, KeyError, NewKey, SessionInfo, rfc3339};
use palisade_store::Uuid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::At;
use super::answer::{self, Answer};
use super::call::Call;
use super::who::trouble;
use crate::controls::auth::codes;
use crate::refusal::Refusal;

/// The sessions of whoever asks.
pub(super) async fn of(at: &At<'_>) -> Result<Vec<SessionInfo>, Refusal> {
    let (_, account) = at.user()?;
    at.ready.identity.sessions_of(account.id).await.map_err(trouble)
}

/// `GET sessions`.
pub(super) async fn list(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let current = at.caller()?.session_id();
    let sessions: Vec<Value> = of(at)
        .await?
        .into_iter()
        .map(|session| {
            json!({
                "id": session.id.to_string(),
                "created": rfc3339(session.created_at),
                "last_seen": rfc3339(session.seen_at),
                "address": session.address,
                "device": session.device,
                "current": Some(session.id) == current,
            })
        })
        .collect();
    Ok(answer::json(StatusCode::OK, &Value::from(sessions)))
}

/// `DELETE sessions/{id}`.
pub(super) async fn end(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.fresh()?;
    at.own_page(call, None)?;
    end_one(at, &call.id).await?;
    let mut answer = answer::empty(StatusCode::NO_CONTENT);
    if at.caller()?.session_id().is_some_and(|own| own.to_string() == call.id) {
        answer::clear_session(&mut answer, at.ctx);
        answer::clear_site_data(&mut answer);
    }
    Ok(answer)
}

/// Ends one of one's own sessions.
pub(super) async fn end_one(at: &At<'_>, id: &str) -> Result<(), Refusal> {
    let (_, account) = at.fresh()?;
    let nothing = || codes::NOT_FOUND.refuse("no such session");
    let id = Uuid::parse_str(id).map_err(|_| nothing())?;
    if !at.ready.identity.end_session_of(account.id, id).await.map_err(trouble)? {
        return Err(nothing());
    }
    at.note("session ended", account);
    Ok(())
}

/// `DELETE sessions`: all but this one.
pub(super) async fn end_all(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let (caller, account) = at.fresh()?;
    at.own_page(call, None)?;
    at.ready.identity.end_sessions_of(account.id, caller.session_id()).await.map_err(trouble)?;
    at.note("sessions ended", account);
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

fn key(info: &ApiKeyInfo) -> Value {
    json!({
        "id": info.id,
        "name": info.name,
        "scopes": info.scopes,
        "created": rfc3339(info.created_at),
        "expires_at": info.expires_at.map(rfc3339),
        "last_used": info.used_at.map(rfc3339),
    })
}

fn made((made, info): (ApiKey, ApiKeyInfo)) -> Answer {
    let mut body = key(&info);
    body["key"] = made.reveal().expose().as_str().into();
    answer::json(StatusCode::CREATED, &body)
}

/// The keys of whoever asks.
pub(super) async fn keys_of(at: &At<'_>) -> Result<Vec<ApiKeyInfo>, Refusal> {
    let (_, account) = at.user()?;
    at.ready.identity.keys_of(account.id).await.map_err(trouble)
}

/// `GET keys`.
pub(super) async fn keys(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let keys: Vec<Value> = keys_of(at).await?.iter().map(key).collect();
    Ok(answer::json(StatusCode::OK, &Value::from(keys)))
}

/// The body of `POST keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    name: String,
    #[serde(default)]
    scopes: Vec<String>,
    /// From now on; for ever where absent.
    #[serde(default)]
    expires_in: Option<Within>,
}

/// A time from now: in seconds, as OAuth has it, or as the policy and the command line write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Within {
    Seconds(u64),
    Text(Interval),
}

impl Within {
    fn duration(&self) -> Duration {
        match self {
            Self::Seconds(seconds) => Duration::from_secs(*seconds),
            Self::Text(text) => text.duration(),
        }
    }
}

/// `POST keys`.
pub(super) async fn make(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.fresh()?;
    at.own_page(call, None)?;
    let body: Make = call.json().await?;
    let expires_in = body.expires_in.as_ref().map(Within::duration);
    if expires_in.is_some_and(|time| time.is_zero()) {
        return Err(key_error(KeyError::Expiry));
    }
    make_one(at, body.name, body.scopes, expires_in).await.map(made)
}

/// Makes a key for whoever asks.
pub(super) async fn make_one(
    at: &At<'_>,
    name: String,
    scopes: Vec<String>,
    expires_in: Option<Duration>,
) -> Result<(ApiKey, ApiKeyInfo), Refusal> {
    let (_, account) = at.fresh()?;
    let new = NewKey { name, scopes, expires_in, rate: None };
    let made = at.ready.identity.create_key(account.id, new).await.map_err(key_error)?;
    at.note("key made", account);
    Ok(made)
}

fn key_error(error: KeyError) -> Refusal {
    let field = |name, must| codes::INVALID.refuse("a key that cannot be made").field(name, must);
    match error {
        KeyError::Name => field("name", "1 to 100 characters, without controls"),
        KeyError::Scopes => field("scopes", "1 to 100 scopes of visible ASCII, without quotes and backslashes"),
        KeyError::Expiry => {
            field("expires_in", "more than nothing, and 10 years at most: seconds, or a text such as `90d`")
        }
        KeyError::TooMany => codes::FULL.refuse("as many keys as an account may have"),
        KeyError::NoUser | KeyError::NoKey => codes::NOT_FOUND.refuse("no such key"),
        KeyError::Replaced => codes::FULL.refuse("the key was replaced already"),
        KeyError::Trouble(why) => trouble(why),
        _ => codes::INVALID.refuse("a key that cannot be made"),
    }
}

/// `DELETE keys/{id}`.
pub(super) async fn revoke(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.fresh()?;
    at.own_page(call, None)?;
    revoke_one(at, &call.id).await?;
    Ok(answer::empty(StatusCode::NO_CONTENT))
}

/// Revokes one of one's own keys.
pub(super) async fn revoke_one(at: &At<'_>, id: &str) -> Result<(), Refusal> {
    let (_, account) = at.fresh()?;
    if !at.ready.identity.revoke_key(Some(account.id), id).await.map_err(trouble)? {
        return Err(codes::NOT_FOUND.refuse("no such key"));
    }
    at.note("key revoked", account);
    Ok(())
}

/// `POST keys/{id}/rotate`.
pub(super) async fn rotate(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let (_, account) = at.fresh()?;
    at.own_page(call, None)?;
    let rotated = at.ready.identity.rotate_key(Some(account.id), &call.id).await.map_err(key_error)?;
    at.note("key rotated", account);
    Ok(made(rotated))
}
