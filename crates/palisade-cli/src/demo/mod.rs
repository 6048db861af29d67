//! The sample API of `palisade demo`: the guide's example, as an application that knows nothing of a gateway.
//!
//! It checks what only an application can (a note has a title); methods, sizes, addresses and everything else are the
//! business of `policy.toml`, which stands in front of it.

mod form;
mod notes;
mod pages;
mod uploads;

use axum::Router;
use axum::extract::Path;
use axum::response::Json;
use axum::routing::{delete, get, put};

/// The policy of the demo: strict, on loopback.
const POLICY: &str = include_str!("policy.toml");

/// Writes the static files into a directory for them, and returns the policy that serves them from there.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn policy(files: &std::path::Path) -> std::io::Result<String> {
    std::fs::write(files.join("about.html"), pages::about())?;
    Ok(POLICY.replace("\"static/\"", &serde_json::to_string(&files.to_string_lossy())?))
}

/// The API.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/", get(pages::welcome))
        .route("/docs", get(pages::docs))
        .route("/openapi.json", get(pages::openapi))
        .route("/form", get(form::show).post(form::submit))
        .route("/notes", get(notes::list).post(notes::create))
        .route("/notes/{id}", get(notes::read).delete(notes::delete))
        .route("/uploads/{name}", put(uploads::count))
        .route("/admin/users/{id}", delete(delete_user))
        .with_state(notes::Notes::sample())
}

/// What the guide's administrator may do. The policy lets nobody in as long as nobody can log in.
async fn delete_user(Path(id): Path<u64>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "message": format!("user {id} deleted") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_of_the_document_is_in_the_policy() {
        let document: serde_json::Value = serde_json::from_str(pages::OPENAPI).unwrap();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                assert!(pages::DOCS.contains(path.as_str()), "{path} is not on the page");
                let named = format!("\"{}\"", method.to_uppercase());
                let section = POLICY.split("[[route]]").find(|route| {
                    let pattern = route.lines().find_map(|line| line.strip_prefix("path = \"")?.split('"').next());
                    let covers = pattern.is_some_and(|pattern| {
                        let pattern = pattern.replace("{id:int}", "{id}");
                        pattern == *path || pattern.strip_suffix('*').is_some_and(|start| path.starts_with(start))
                    });
                    covers && route.contains(&named)
                });
                assert!(section.is_some(), "{method} {path} has no route");
            }
        }
    }

    #[test]
    fn the_policy_is_in_order() {
        let files = tempfile::tempdir().unwrap();
        let text = policy(files.path()).unwrap();
        assert!(text.contains(files.path().to_str().unwrap()));
        let sources = palisade_policy::Sources::new().builtin("demo policy", text);
        let (_, problems) = palisade::live::check(&sources).map_err(|problems| problems.render(false)).unwrap();
        assert!(problems.is_empty(), "{}", problems.render(false));
    }
}
