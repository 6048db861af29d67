//! The guide's examples of sections 1, 5, 10 and 18, as an axum application with Palisade's layers round it:
//! `cargo run -p example-axum`, from this folder.
//!
//! Nothing here issues a token, hashes a password or compares a key: `[auth]` in `palisade.toml` has the endpoints for that
//! (`/auth/register`, `/auth/token`, `/auth/keys`, …; described at `/auth/docs`). Handlers say whom they are for.

mod notes;

use axum::Json;
use axum::extract::Path;
use palisade::prelude::*;
use serde_json::{Value, json};

fn router() -> Router<palisade::State> {
    Router::new()
        .route("/secure-endpoint", get(secure_endpoint))
        .route("/form-submit", post(submit_form))
        .route("/with-key", get(with_key))
        .route("/admin/users/{user_id}", delete(delete_user))
        .route("/me", get(me))
        .merge(notes::router())
}

// Section 1. What the guide's `get_current_user` does is done before: a token, session or key that is none never comes here.
async fn secure_endpoint(user: User) -> Json<Value> {
    Json(json!({ "message": format!("Hello, {}!", user.name()) }))
}

// Section 5.
async fn submit_form(_: CsrfChecked, _: User) -> Json<Value> {
    Json(json!({ "message": "Form submitted successfully" }))
}

// Section 10 has no handler: tokens, their refreshing and their end are `/auth/token` and `/auth/revoke`.

// Section 18.
async fn with_key(key: ApiKey) -> Json<Value> {
    Json(json!({ "message": "the key is right", "scopes": key.scopes() }))
}

async fn delete_user(admin: HasRole<Admin>, Path(id): Path<Uuid>, db: Db) -> Result<Json<Value>, Refusal> {
    let there = db.identity().delete_user(UserId(id)).await?;
    Ok(Json(json!({ "deleted": there, "by": admin.user().name() })))
}

/// Who asks, as far as it is known.
async fn me(ClientIp(address): ClientIp, OptionalUser(user): OptionalUser) -> Json<Value> {
    Json(json!({ "address": address, "name": user.as_ref().map(User::name) }))
}

#[tokio::main]
async fn main() -> palisade::Result<()> {
    Palisade::from_file("palisade.toml")?.serve(router()).await
}

#[cfg(test)]
mod tests;
