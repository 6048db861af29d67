//! What clients read before they ask for anything: metadata, keys, and the description of this API.
//!
//! Sources: RFC 8414 (authorization server), RFC 9728 (protected resource), RFC 7517 (JWK set).

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::call::Call;
use super::{At, page};
use crate::refusal::Refusal;

const OPENAPI: &str = include_str!("../../../templates/auth/openapi.json");
pub(super) const STYLE: &str = include_str!("../../../templates/auth/style.css");
/// How long metadata may be kept.
const KEPT: &str = "public, max-age=300";
/// How long keys may be kept at most, in seconds.
const KEYS_KEPT: u64 = 300;

/// `GET /.well-known/oauth-authorization-server`.
pub(super) async fn server(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let (issuer, base) = (at.ready.issuer(), at.base_url());
    let mut grants = vec!["authorization_code", "refresh_token", "client_credentials"];
    if at.auth.config().password_grant {
        grants.push("password");
    }
    let client_auth = ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];
    let confidential = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
    // Of keys that only the client has.
    let signatures = ["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let document = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "jwks_uri": format!("{base}/jwks.json"),
        "revocation_endpoint": format!("{base}/revoke"),
        "introspection_endpoint": format!("{base}/introspect"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grants,
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": client_auth,
        "token_endpoint_auth_signing_alg_values_supported": signatures,
        "revocation_endpoint_auth_methods_supported": client_auth,
        "revocation_endpoint_auth_signing_alg_values_supported": signatures,
        "introspection_endpoint_auth_methods_supported": confidential,
        "introspection_endpoint_auth_signing_alg_values_supported": signatures,
        "authorization_response_iss_parameter_supported": true,
        "service_documentation": format!("{base}/docs"),
    });
    Ok(answer::document("application/json", document.to_string(), KEPT))
}

/// `GET /.well-known/oauth-protected-resource`: where tokens for this API come from.
pub(super) async fn resource(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let issuer = at.ready.issuer();
    let resource = at.auth.config().audience.first().map_or(issuer, String::as_str);
    let document = json!({
        "resource": resource,
        "authorization_servers": [issuer],
        "bearer_methods_supported": ["header"],
    });
    Ok(answer::document("application/json", document.to_string(), KEPT))
}

/// `GET jwks.json`: also keys that do not sign yet. A shared secret is never in it.
pub(super) async fn keys(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let mut answer = answer::document("application/jwk-set+json", at.ready.rings().jwk_set().to_string(), KEPT);
    // No longer than a new key is published before it signs.
    let kept = format!("public, max-age={}", at.ready.published_for().min(KEYS_KEPT));
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::try_from(kept).unwrap_or(HeaderValue::from_static("no-store")));
    Ok(answer)
}

/// `GET openapi.json`.
pub(super) async fn openapi(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    Ok(answer::document("application/json", OPENAPI.replace("BASE", at.base()), "no-store"))
}

/// `GET style.css`.
pub(super) async fn style(_: &mut Call, _: &At<'_>) -> Result<Answer, Refusal> {
    Ok(answer::document("text/css; charset=utf-8", STYLE, "public, max-age=3600"))
}

/// `GET docs`: the same as `openapi.json`, for people, without a script.
pub(super) async fn docs(_: &mut Call, at: &At<'_>) -> Result<Answer, Refusal> {
    let document: Value = serde_json::from_str(OPENAPI).unwrap_or_default();
    let mut groups: Vec<page::Group> = Vec::new();
    for (path, operations) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            let name = operation["tags"][0].as_str().unwrap_or_default();
            let place = groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
                groups.push(page::Group { name: name.to_owned(), calls: Vec::new() });
                groups.len() - 1
            });
            groups[place].calls.push(described(path, method, operation));
        }
    }
    let html = page::render(&page::Docs { frame: at.frame(), groups });
    Ok(answer::page(StatusCode::OK, html, None))
}

fn described(path: &str, method: &str, operation: &Value) -> page::Described {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bodies = operation["requestBody"]["content"].as_object();
    let schema = bodies.and_then(|bodies| bodies.values().next()).map(|body| &body["schema"]);
    let fields = schema.and_then(|schema| schema["properties"].as_object());
    page::Described {
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&operation["summary"]),
        description: text(&operation["description"]),
        fields: fields.map(|fields| fields.keys().cloned().collect()).unwrap_or_default(),
        answers: operation["responses"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(status, _)| status.starts_with(['2', '3']))
            .map(|(status, said)| (status.clone(), text(&said["description"])))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_documented_is_there_and_what_is_there_for_programs_is_documented() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let documented: Vec<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                operations.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let there: Vec<String> = super::super::all().map(|(method, path)| format!("{method} {path}")).collect();
        for call in &documented {
            assert!(there.contains(call), "{call} is documented, and not there");
        }
        let pages = [
            "POST /authorize",
            "GET /register",
            "GET /login",
            "GET /account",
            "POST /account/end-session",
            "POST /account/revoke-key",
            "POST /account/revoke-consent",
            "POST /account/password",
            "POST /account/email",
            "POST /account/verify",
            "POST /account/create-key",
            "GET /password/reset",
            "GET /password/reset/confirm",
            "GET /email/verify",
            "GET /openapi.json",
            "GET /docs",
            "GET /style.css",
        ];
        for call in there {
            assert!(documented.contains(&call) != pages.contains(&&*call), "{call}");
        }
    }
}
