//! An axum application with Palisade's layers round it: `cargo run -p example-axum`, from this folder.
//!
//! The router is ordinary axum. The policy in `palisade.toml` decides what reaches it.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::Extension;
use palisade::prelude::*;

/// A note.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Note {
    text: String,
}

type Notes = Arc<Mutex<Vec<Note>>>;

fn router() -> Router<palisade::State> {
    Router::new()
        .route("/notes", get(list).post(create))
        .route("/admin/count", get(count))
        .route("/me", get(me))
        .layer(Extension(Notes::default()))
}

async fn list(Extension(notes): Extension<Notes>) -> Json<Vec<Note>> {
    Json(notes.lock().map(|notes| notes.clone()).unwrap_or_default())
}

async fn create(Extension(notes): Extension<Notes>, Json(note): Json<Note>) -> Json<Note> {
    if let Ok(mut notes) = notes.lock() {
        // Bounded, as everything that strangers can fill.
        notes.truncate(999);
        notes.push(note.clone());
    }
    Json(note)
}

async fn count(Extension(notes): Extension<Notes>) -> String {
    notes.lock().map_or(0, |notes| notes.len()).to_string()
}

/// What the stack knows of the request: here, who the client is.
async fn me(ClientIp(address): ClientIp) -> String {
    address.to_string()
}

#[tokio::main]
async fn main() -> palisade::Result<()> {
    Palisade::from_file("palisade.toml")?.serve(router()).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(method: &str, path: &str, body: &'static str) -> (StatusCode, String) {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/palisade.toml");
        let app = Palisade::from_file(file).unwrap().protect(router()).unwrap().into_router();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json");
        let answer = app.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = answer.status();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn the_policy_decides_what_reaches_the_router() {
        assert_eq!(ask("POST", "/notes", r#"{"text":"hi"}"#).await, (StatusCode::OK, r#"{"text":"hi"}"#.into()));
        assert_eq!(ask("GET", "/me", "").await, (StatusCode::OK, "0.0.0.0".into()));
        let (status, body) = ask("DELETE", "/notes", "").await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["code"], "access.method");
        assert_eq!(ask("GET", "/admin/count", "").await.0, StatusCode::FORBIDDEN);
        assert_eq!(ask("GET", "/.env", "").await.0, StatusCode::NOT_FOUND);
    }
}
