//! The server behind the gateway while tests run: it answers as the request or the test asks.
//!
//! Tests of rules over answers send what the answer shall be to `/reflect` (version 4), or expect to get back what they
//! sent to `/anything` (before that). Everything else is answered with 200 and nothing.

use std::sync::Arc;

use anyhow::Context as _;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::Value;

/// Longest request body that is read.
const LONGEST: usize = 16 << 20;

/// An answer that a test asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    /// Reads `status`, `headers`, `body` and the body in base64, under either of its names.
    pub(super) fn read(value: &Value) -> anyhow::Result<Self> {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let status = match &value["status"] {
            Value::Null => 200,
            status => status
                .as_u64()
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| (200..600).contains(n))
                .context("a status")?,
        };
        let headers =
            value["headers"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value)));
        let encoded = [&value["encoded_body"], &value["encodedBody"]].into_iter().find_map(Value::as_str);
        let body = match encoded.filter(|text| !text.is_empty()) {
            Some(encoded) => {
                let compact: String = encoded.split_whitespace().collect();
                data_encoding::BASE64.decode(compact.as_bytes()).context("the body is base64")?
            }
            None => value["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        Ok(Self { status, headers: headers.collect(), body })
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    fn response(&self) -> Response {
        let mut response = axum::http::Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        let typed = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if !typed && !self.body.is_empty() {
            response = response.header("content-type", guess(&self.body));
        }
        response.body(Body::from(self.body.clone())).unwrap_or_else(|error| {
            let mut response = Response::new(Body::from(error.to_string()));
            *response.status_mut() = axum::http::StatusCode::BAD_REQUEST;
            response
        })
    }
}

/// The type that servers guess for a body without one.
fn guess(body: &[u8]) -> &'static str {
    let start = body.trim_ascii_start();
    let begins = |word: &[u8]| start.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
    if begins(b"<?xml") {
        "text/xml; charset=utf-8"
    } else if [
        &b"<!doctype html"[..],
        b"<html",
        b"<head",
        b"<body",
        b"<script",
        b"<h1",
        b"<div",
        b"<title",
        b"<p",
        b"<!--",
    ]
    .iter()
    .any(|word| begins(word))
    {
        "text/html; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    }
}

/// The answer that the test at hand asks for.
pub(super) type Asked = Arc<Mutex<Option<Reply>>>;

/// The server.
pub(super) fn router(asked: Asked) -> axum::Router {
    axum::Router::new().fallback(move |request: Request| {
        let asked = asked.lock().clone();
        async move {
            if let Some(reply) = asked {
                return reply.response();
            }
            let path = request.uri().path().to_owned();
            let body = axum::body::to_bytes(request.into_body(), LONGEST).await.unwrap_or_default();
            match path.as_str() {
                "/reflect" => {
                    let wanted: Value = serde_json::from_slice(&body).unwrap_or_default();
                    Reply::read(&wanted)
                        .unwrap_or(Reply { status: 400, headers: Vec::new(), body: Vec::new() })
                        .response()
                }
                path if path == "/anything" || path.starts_with("/anything/") => {
                    let echo = serde_json::json!({ "data": String::from_utf8_lossy(&body) }).to_string();
                    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                    Reply { status: 200, headers, body: echo.into_bytes() }.response()
                }
                _ => Response::new(Body::empty()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_what_tests_ask_for() {
        let read = |value: Value| Reply::read(&value).unwrap().response();
        let html = read(serde_json::json!({ "body": " <HTML>x", "status": 500, "headers": { "X-A": 1 } }));
        assert_eq!((html.status().as_u16(), html.headers()["x-a"].to_str().unwrap()), (500, "1"));
        assert_eq!(html.headers()["content-type"], "text/html; charset=utf-8");
        let coded = read(serde_json::json!({ "encodedBody": "b2s=", "headers": { "Content-Type": "a/b" } }));
        assert_eq!((coded.status().as_u16(), coded.headers()["content-type"].to_str().unwrap()), (200, "a/b"));
        assert!(Reply::read(&serde_json::json!({ "encoded_body": "!" })).is_err());
        assert!(Reply::read(&serde_json::json!({ "status": 99 })).is_err());
        assert_eq!(read(serde_json::json!({ "headers": { "bad name": "x" } })).status().as_u16(), 400);
    }
}
