//! Accounts, by administrators. Passwords are their users' own: nobody sets or sees one here.

use http::StatusCode;
use palisade_identity::service::{Account, Edit, UserId};
use serde::Deserialize;

use super::At;
use super::account::user_error;
use super::answer::{self, Answer};
use super::call::Call;
use super::who::trouble;
use crate::controls::auth::codes;
use crate::refusal::Refusal;

fn id(call: &Call) -> Result<UserId, Refusal> {
    UserId::parse(&call.id).ok_or_else(|| codes::NOT_FOUND.refuse("no such user"))
}

/// `GET users`.
pub(super) async fn list(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.administrator()?;
    let query = call.query()?;
    let unfit = |name, must| codes::INVALID.refuse("a parameter of the list").field(name, must);
    let after = match query.get("after") {
        None => None,
        Some(after) => Some(UserId::parse(after).ok_or_else(|| unfit("after", "the id of a user"))?),
    };
    let limit = match query.get("limit") {
        None => 50,
        Some(limit) => limit
            .parse::<u64>()
            .ok()
            .filter(|limit| (1..=200).contains(limit))
            .ok_or_else(|| unfit("limit", "a number from 1 to 200"))?,
    };
    let users = at.ready.identity.list_users(after, limit).await.map_err(trouble)?;
    Ok(answer::json(StatusCode::OK, &users.iter().map(Account::to_json).collect()))
}

/// `GET users/{id}`.
pub(super) async fn show(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    at.administrator()?;
    let user = at.ready.identity.user(id(call)?).await.map_err(trouble)?;
    let user = user.ok_or_else(|| codes::NOT_FOUND.refuse("no such user"))?;
    Ok(answer::json(StatusCode::OK, &user.to_json()))
}

/// The body of `PATCH users/{id}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    roles: Option<Vec<String>>,
    disabled: Option<bool>,
}

/// `PATCH users/{id}`.
pub(super) async fn change(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let administrator = at.administrator()?.id;
    at.own_page(call, None)?;
    let id = id(call)?;
    let body: Change = call.json().await?;
    if id == administrator && (body.disabled == Some(true) || body.roles.is_some()) {
        // The last one would lock everybody out; another administrator can do it.
        return Err(codes::FORBIDDEN.refuse("an administrator's own roles and state"));
    }
    let edit =
        Edit { roles: body.roles.as_deref(), enabled: body.disabled.map(|disabled| !disabled), ..Edit::default() };
    let account = at.ready.identity.edit_user(id, edit).await.map_err(user_error)?;
    at.note("changed", &account);
    Ok(answer::json(StatusCode::OK, &account.to_json()))
}

/// `DELETE users/{id}`.
pub(super) async fn delete(call: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let administrator = at.administrator()?;
    at.own_page(call, None)?;
    let id = id(call)?;
    if id == administrator.id {
        return Err(codes::FORBIDDEN.refuse("an administrator's own account"));
    }
    if !at.ready.identity.delete_user(id).await.map_err(trouble)? {
        return Err(codes::NOT_FOUND.refuse("no such user"));
    }
    at.note_id("deleted", &id.to_string());
    Ok(answer::empty(StatusCode::NO_CONTENT))
}
