//! Where browsers report what a `Content-Security-Policy` blocked, or would have: `/.palisade/csp-reports`.
//!
//! Anybody can send these, so that they are events in the log and nothing else: few of a request, few of a minute, none
//! of their values is believed. Sources: W3C CSP Level 3 §5, the Reporting API.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode, request};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::Value;

use super::REPORT;
use crate::body::{RequestBody, ResponseBody};
use crate::context::Context;
use crate::observe::{event, redact};
use crate::policy::Env;
use crate::refusal::Refusal;

/// The path of the endpoint.
pub(crate) const PATH: &str = "/.palisade/csp-reports";
/// A browser sends what it has gathered in a minute.
const MAX_BYTES: usize = 64 << 10;
/// Of one request.
const MAX_REPORTS: usize = 8;
/// Of all requests in a minute; further ones are counted.
const A_MINUTE: u32 = 120;
const MAX_TEXT: usize = 200;

/// What goes with a policy whose violations are to be reported: the older directive, and the one of the Reporting API.
pub(super) fn directives() -> String {
    format!("; report-uri {PATH}; report-to palisade")
}

/// `Reporting-Endpoints`, in which `report-to` finds its name.
pub(super) fn endpoints() -> HeaderValue {
    HeaderValue::from_static("palisade=\"/.palisade/csp-reports\"")
}

/// What was logged in the current minute, over all requests and policies.
#[derive(Debug, Default)]
struct Minute {
    number: i64,
    logged: u32,
    /// Reports that were only counted since the last one that was logged.
    suppressed: u64,
}

/// Takes reports.
#[derive(Debug)]
pub(super) struct Reports {
    minute: Arc<Mutex<Minute>>,
}

impl Reports {
    pub(super) fn new(env: &Env) -> Self {
        Self { minute: env.state.get("headers.reports", Mutex::<Minute>::default) }
    }

    /// Whether a request is for the endpoint.
    pub(super) fn wants(ctx: &Context) -> bool {
        ctx.method == Method::POST && ctx.path() == PATH
    }

    /// Reads a body, logs what it reports, and answers.
    ///
    /// # Errors
    /// When it is no report.
    pub(super) async fn take(
        &self,
        ctx: &Context,
        parts: &request::Parts,
        mut body: RequestBody,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !["application/csp-report", "application/reports+json", "application/json"].contains(&kind) {
            return Err(REPORT.refuse("another type than `application/csp-report` and `application/reports+json`"));
        }
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(ctx.take_body_refusal().unwrap_or_else(|| REPORT.refuse("the body broke off")));
            };
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > MAX_BYTES {
                return Err(REPORT.refuse("more than 64 KiB").close());
            }
            bytes.extend_from_slice(data);
        }
        let report: Value = serde_json::from_slice(&bytes).map_err(|_| REPORT.refuse("not JSON"))?;
        let found = violations(&report);
        if found.is_empty() {
            return Err(REPORT.refuse("no violation of a policy"));
        }
        for violation in found {
            self.log(ctx, &violation);
        }
        let mut answer = Response::new(ResponseBody::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        Ok(answer)
    }

    fn log(&self, ctx: &Context, violation: &Violation) {
        let minute = ctx.policy.clock().now().0.div_euclid(60_000);
        let suppressed = {
            let mut now = self.minute.lock();
            if now.number != minute {
                (now.number, now.logged) = (minute, 0);
            }
            if now.logged >= A_MINUTE {
                now.suppressed += 1;
                return;
            }
            now.logged += 1;
            std::mem::take(&mut now.suppressed)
        };
        event::CSP_VIOLATION
            .line(&ctx.policy.env().log)
            .str("request_id", ctx.request_id().as_str())
            .str("client", ctx.client_text())
            .str("page", &violation.page)
            .str("directive", &violation.directive)
            .str("blocked", &violation.blocked)
            .str("disposition", violation.disposition)
            .u64("suppressed", suppressed);
    }
}

/// What one report says, cut and without what may be a secret.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    page: String,
    directive: String,
    blocked: String,
    disposition: &'static str,
}

/// The reports of a body, in either form.
fn violations(body: &Value) -> Vec<Violation> {
    if let Some(report) = body.get("csp-report") {
        return vec![Violation {
            page: address(&report["document-uri"]),
            directive: word(if report["effective-directive"].is_string() {
                &report["effective-directive"]
            } else {
                &report["violated-directive"]
            }),
            blocked: address(&report["blocked-uri"]),
            disposition: disposition(&report["disposition"]),
        }];
    }
    let list = body.as_array().map_or(std::slice::from_ref(body), Vec::as_slice);
    let ours = list.iter().filter(|report| report["type"] == "csp-violation" && report["body"].is_object());
    ours.take(MAX_REPORTS)
        .map(|report| &report["body"])
        .map(|report| Violation {
            page: address(&report["documentURL"]),
            directive: word(&report["effectiveDirective"]),
            blocked: address(&report["blockedURL"]),
            disposition: disposition(&report["disposition"]),
        })
        .collect()
}

fn disposition(value: &Value) -> &'static str {
    if value == "report" { "report" } else { "enforce" }
}

/// The name of a directive, and nothing else.
fn word(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect()
}

/// An address without its query and fragment, or a keyword such as `inline`.
fn address(value: &Value) -> String {
    let text = value.as_str().unwrap_or_default();
    let bare = text.split(['?', '#']).next().unwrap_or_default();
    // A name and password before the host.
    let bare = match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
            let host = authority.rsplit('@').next().unwrap_or_default();
            if path.is_empty() { format!("{scheme}://{host}") } else { format!("{scheme}://{host}/{path}") }
        }
        None => bare.to_owned(),
    };
    redact::path(&bare).chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::testing::Harness;

    #[test]
    fn both_forms_are_read_and_nothing_secret_is_kept() {
        let old = json!({ "csp-report": {
            "document-uri": "https://a.example/reset?token=hunter2", "violated-directive": "script-src-elem",
            "blocked-uri": "https://u:p@evil.example/x.js?k=1#f", "disposition": "report",
        } });
        let expected = Violation {
            page: "https://a.example/reset".into(),
            directive: "script-src-elem".into(),
            blocked: "https://evil.example/x.js".into(),
            disposition: "report",
        };
        assert_eq!(violations(&old), [expected]);
        let new = json!([
            { "type": "csp-violation", "body": { "documentURL": "https://a.example/", "effectiveDirective": "img-src x\u{1b}", "blockedURL": "inline" } },
            { "type": "deprecation", "body": {} },
        ]);
        let found = violations(&new);
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].directive, &*found[0].blocked, found[0].disposition), ("img-src", "inline", "enforce"));
        let many = Value::Array(vec![json!({ "type": "csp-violation", "body": {} }); 100]);
        assert_eq!(violations(&many).len(), MAX_REPORTS);
        for odd in [json!(null), json!([]), json!(7), json!({ "type": "csp-violation", "body": 7 })] {
            assert!(violations(&odd).is_empty(), "{odd}");
        }
    }

    #[tokio::test]
    async fn browsers_are_told_where_and_are_heard() {
        let router = axum::Router::new().fallback(|| async { axum::response::Html("<p>page</p>") });
        // A route that says nothing of POST has the endpoint all the same.
        let policy = "[headers]\ncsp_reports = true\ncsp_report_only = \"img-src 'self'\"\n[[route]]\npath = \"/*\"\nmethods = [\"GET\"]";
        let app = Harness::new(policy, router.clone());
        let page = app.get("/").await;
        for header in ["content-security-policy", "content-security-policy-report-only"] {
            assert!(page.header(header).ends_with(&directives()), "{header}: {}", page.header(header));
        }
        assert_eq!(page.header("reporting-endpoints"), "palisade=\"/.palisade/csp-reports\"");
        let report =
            json!({ "csp-report": { "document-uri": "https://a.example/", "blocked-uri": "inline" } }).to_string();
        let send = async |app: &Harness, kind: &str, body: String| {
            app.send(Method::POST, PATH, &[("content-type", kind)], body).await.status()
        };
        assert_eq!(send(&app, "application/csp-report", report.clone()).await, 204);
        for (kind, body) in [
            ("text/plain", report.clone()),
            ("application/csp-report", "{".to_owned()),
            ("application/csp-report", "{}".to_owned()),
            ("application/reports+json", "[]".to_owned()),
            ("application/reports+json", format!("[{}]", " ".repeat(MAX_BYTES))),
        ] {
            assert_eq!(send(&app, kind, body.clone()).await, 400, "{kind} {}", &body[..body.len().min(30)]);
        }
        assert_eq!(app.get(PATH).await.status(), 404);
        let without = Harness::new("", router);
        assert!(!without.get("/").await.header("content-security-policy").contains("report"));
        assert_eq!(send(&without, "application/csp-report", report).await, 404);
    }
}
