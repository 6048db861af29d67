//! How much a request may be: its body, its target, its headers.
//!
//! Guide section 2. Sizes that no correct client reaches are refused before a byte of the body is read.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode, request};
use palisade_base::ByteSize;
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::control::{Asked, Check, Control, Info, Remedy, Routes};
use crate::policy::Env;
use crate::policy::config::HARD_HEADER_BYTES;
use crate::refusal::{Code, Stop};

/// The largest body where a policy says nothing, in bytes.
pub(crate) const STRICT_BODY: u64 = 1 << 20;

/// `[limits]`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The largest body, whatever its type. A route that takes more says so.
    pub body: ByteSize,
    /// Bodies that the API does not parse as JSON, XML or a form (files, octet streams, multipart) may be of any size.
    /// They stream. The starter policy says so; with a written policy `body` holds for every body.
    pub unparsed_unlimited: bool,
    /// All header fields of a request together.
    pub header_bytes: ByteSize,
    /// The target of a request: path and query.
    pub url_bytes: ByteSize,
    /// Connections at once, over all listeners.
    #[schemars(range(min = 1))]
    pub connections: u32,
    /// Connections at once from one address (IPv6: one /64). Does not hold for trusted proxies.
    #[schemars(range(min = 1))]
    pub connections_per_address: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body: ByteSize::mib(1),
            unparsed_unlimited: false,
            header_bytes: ByteSize::kib(32),
            url_bytes: ByteSize::kib(8),
            connections: 10_000,
            connections_per_address: 100,
        }
    }
}

/// What a route may say.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// The largest body of this route.
    pub body: Option<ByteSize>,
}

/// The body is too large.
pub static BODY: Code =
    Code::client("limits.body", StatusCode::PAYLOAD_TOO_LARGE, 2, "the body of this request is too large")
        .owasp("input_validation_fail");
/// The header fields are too large.
pub static HEADERS: Code = Code::client(
    "limits.headers",
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    2,
    "the headers of this request are too large",
)
.owasp("input_validation_fail");
/// The target is too long.
pub static URL: Code =
    Code::client("limits.url", StatusCode::URI_TOO_LONG, 2, "the target of this request is too long")
        .owasp("input_validation_fail");

/// The control.
#[derive(Debug)]
pub struct Limits {
    body: Vec<Option<u64>>,
    standard: u64,
    unparsed_unlimited: bool,
    header_bytes: usize,
    url_bytes: usize,
}

impl Control for Limits {
    type Config = Config;
    type Route = Route;
    const INFO: Info = Info {
        name: "limits",
        section: 2,
        codes: &[&BODY, &HEADERS, &URL],
        judges: true,
        about: "How much a request may be. Header limits are hard ceilings and always enforce.",
    };

    fn compile(section: &Config, routes: &Routes<'_, Route>, _: &Env, problems: &mut Problems) -> Option<Self> {
        if section.header_bytes > HARD_HEADER_BYTES {
            problems.error(
                "limits.header_bytes",
                format!("heads are never larger than {HARD_HEADER_BYTES}"),
                format!("write at most `{HARD_HEADER_BYTES}`"),
            );
        }
        Some(Self {
            body: routes.map(|route| route.and_then(|route| route.body).map(ByteSize::bytes)),
            standard: section.body.bytes(),
            unparsed_unlimited: section.unparsed_unlimited,
            header_bytes: section.header_bytes.len(),
            url_bytes: section.url_bytes.len(),
        })
    }
}

impl Check for Limits {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        if ctx.target.path_and_query().is_some_and(|target| target.as_str().len() > self.url_bytes) {
            return Err(URL.refuse("longer than `limits.url_bytes`").into());
        }
        let header_bytes: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if header_bytes > self.header_bytes {
            return Err(HEADERS.refuse("more than `limits.header_bytes`").into());
        }
        let limit = self.body_limit(ctx, &parts.headers);
        if let Some(length) =
            parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok())
            && length > limit
        {
            let refusal = BODY.refuse("`Content-Length` is larger than `limits.body`").close();
            return Err(refusal.with("bytes", length.to_string()).with("limit", limit.to_string()).into());
        }
        // The rest of the judgement falls while the body streams: see `stack.rs`.
        ctx.set_body_limit(limit);
        Ok(())
    }

    fn remedy(&self, asked: &Asked<'_>) -> Option<Remedy> {
        let judged = asked.judged;
        if *judged.code == BODY {
            // A body that streamed was cut at the limit: how large it would have become is not known.
            let said = judged.field("bytes").and_then(|bytes| bytes.parse::<u64>().ok());
            let limit = self.body.get(usize::from(asked.rule.id)).copied().flatten().unwrap_or(self.standard);
            let wanted = round_up(said.unwrap_or(limit.saturating_mul(2)));
            return Some(Remedy::Route(format!("limits = {{ body = \"{wanted}\" }}")));
        }
        if *judged.code == URL {
            let wanted = (self.url_bytes as u64).saturating_mul(2).div_ceil(1024);
            return Some(Remedy::Section(format!("[limits]\nurl_bytes = \"{wanted}KiB\"")));
        }
        if *judged.code != HEADERS {
            let text =
                "the limits on connections hold for all requests: see `[limits]`; a head arrives within its time";
            return Some(Remedy::Elsewhere(text.into()));
        }
        let wanted = (self.header_bytes as u64).saturating_mul(2).min(HARD_HEADER_BYTES.bytes()).div_ceil(1024);
        Some(Remedy::Section(format!("[limits]\nheader_bytes = \"{wanted}KiB\"")))
    }
}

impl Limits {
    fn body_limit(&self, ctx: &Context, headers: &HeaderMap) -> u64 {
        match self.body[usize::from(ctx.rule().id)] {
            Some(limit) => limit,
            None if self.unparsed_unlimited && !is_parsed(headers) => u64::MAX,
            None => self.standard,
        }
    }
}

/// The next whole KiB, or MiB from one on.
fn round_up(bytes: u64) -> ByteSize {
    if bytes < STRICT_BODY { ByteSize::kib(bytes.div_ceil(1024)) } else { ByteSize::mib(bytes.div_ceil(STRICT_BODY)) }
}

/// Whether an API would parse a body of this type whole, in memory: JSON, XML, a URL-encoded form, text, or no type at
/// all, which FastAPI reads as JSON.
fn is_parsed(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return true };
    let Ok(text) = value.to_str() else { return true };
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.is_empty()
        || kind.starts_with("text/")
        || ["json", "xml", "x-www-form-urlencoded", "yaml", "graphql", "javascript"]
            .iter()
            .any(|word| kind.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_api_parses() {
        let parsed = |kind: &'static str| {
            is_parsed(&HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(kind))]))
        };
        for kind in [
            "application/json",
            "application/vnd.api+json; charset=utf-8",
            "text/xml",
            "application/x-www-form-urlencoded",
            "",
            "TEXT/plain",
        ] {
            assert!(parsed(kind), "{kind}");
        }
        for kind in ["application/octet-stream", "multipart/form-data; boundary=x", "video/mp4", "image/png"] {
            assert!(!parsed(kind), "{kind}");
        }
        assert!(is_parsed(&HeaderMap::new()));
    }
}
