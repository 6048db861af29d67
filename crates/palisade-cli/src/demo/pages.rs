//! Pages: the welcome, the list of endpoints, a static file, the OpenAPI document. No script and no style from elsewhere,
//! so that the strictest content policy fits them.

use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Json};

/// The document of the API.
pub(super) const OPENAPI: &str = include_str!("openapi.json");
/// The list of endpoints.
pub(super) const DOCS: &str = include_str!("docs.html");
const ABOUT: &str = include_str!("about.html");

pub(super) async fn welcome() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "message": "Welcome to the sample API", "docs": "/docs", "openapi": "/openapi.json" }))
}

pub(super) async fn docs() -> Html<String> {
    Html(page("The sample API", DOCS))
}

pub(super) fn about() -> String {
    page("About", ABOUT)
}

pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

/// A page with a title and a body of HTML.
pub(super) fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\
         <body><h1>{title}</h1>\n{body}\n</body></html>\n"
    )
}
