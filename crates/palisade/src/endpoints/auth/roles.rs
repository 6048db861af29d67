//! Roles, by administrators.

use http::StatusCode;
use palisade_identity::service::{Role, RoleError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::At;
use super::answer::{self, Answer};
use super::call::Call;
use super::who::trouble;
use crate::controls::auth::codes;
use crate::refusal::Refusal;

fn shown(role: &Role) -> Value {
    json!({ "name": role.name, "permissions": role.permissions })
}

fn refused(error: RoleError) -> Refusal {
    let field = |name, must| codes::INVALID.refuse("a role that cannot be").field(name, must);
    match error {
        RoleError::Name => field("name", "1 to 64 letters, digits, `.`, `_`, `-` and `:`"),
        RoleError::Permission => {
            field("permissions", "at most 500 of 1 to 100 letters, digits, `.`, `_`, `-`, `:` and `/`")
        }
        RoleError::Exists => codes::TAKEN.refuse("there is a role of that name"),
        RoleError::NoRole => codes::NOT_FOUND.refuse("no such role"),
        RoleError::BuiltIn => codes::FORBIDDEN.refuse("the roles `user` and `admin` stay"),
        RoleError::TooMany => codes::FULL.refuse("as many roles as there may be"),
        RoleError::Trouble(why) => trouble(why),
        _ => codes::INVALID.refuse("a role that cannot be"),
    }
}

/// `GET roles`.
pub(super) async fn list(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.administrator()?;
    let roles = at.ready.identity.list_roles().await.map_err(trouble)?;
    Ok(answer::json(StatusCode::OK, &roles.iter().map(shown).collect()))
}

/// The body of `POST roles`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Make {
    name: String,
    #[serde(default)]
    permissions: Vec<String>,
}

/// `POST roles`: makes a role, or says what one permits that is there.
pub(super) async fn make(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.administrator()?;
    at.own_page(call, None)?;
    let body: Make = call.json().await?;
    let identity = &at.ready.identity;
    let (status, role) = match identity.add_role(&body.name, &body.permissions).await {
        Err(RoleError::Exists) => {
            (StatusCode::OK, identity.set_permissions(&body.name, &body.permissions).await.map_err(refused)?)
        }
        made => (StatusCode::CREATED, made.map_err(refused)?),
    };
    at.note_id("role set", &role.name);
    Ok(answer::json(status, &shown(&role)))
}

/// `DELETE roles/{id}`.
pub(super) async fn delete(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.administrator()?;
    at.own_page(call, None)?;
    if !at.ready.identity.delete_role(&call.id).await.map_err(refused)? {
        return Err(codes::NOT_FOUND.refuse("no such role"));
    }
    at.note_id("role deleted", &call.id);
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
