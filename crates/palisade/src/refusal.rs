//! Why a request is refused, and the one renderer of refusals.
//!
//! Guide section 13. A [`Code`] is public and for ever: clients, alert rules and reports lean on it. The sentence a
//! client reads is fixed with the code; what happened in this request goes to the log and nowhere else.
//! Sources: RFC 9457 (problem details), RFC 9110 §15.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode, Version};

use crate::body::ResponseBody;
use crate::context::Context;
use crate::grpc;
use crate::observe::json;

/// Whose fault a refusal is: decides the level of its log line and whether it counts against an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client sent something that is not allowed.
    Client,
    /// The application behind did not answer, or not correctly.
    Upstream,
    /// The policy or the machine is not in order.
    Operator,
    /// A defect of ours.
    Palisade,
}

/// A kind of refusal: `control.reason`, its status and its public sentence.
#[derive(Debug)]
pub struct Code {
    /// `control.reason`, stable.
    pub name: &'static str,
    /// The HTTP status.
    pub status: StatusCode,
    /// The section of the guide that the rule comes from.
    pub section: u8,
    /// The public sentence: fixed, with nothing of the request in it.
    pub sentence: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
    /// The term of OWASP's logging vocabulary for the security event.
    pub owasp: &'static str,
}

/// Codes are told apart by their names.
impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Code {}

impl Code {
    /// A refusal that the client can avoid.
    pub const fn client(name: &'static str, status: StatusCode, section: u8, sentence: &'static str) -> Self {
        Self { name, status, section, sentence, fault: Fault::Client, owasp: "malicious_direct_reference" }
    }

    /// A refusal because of the application behind.
    pub const fn upstream(name: &'static str, status: StatusCode, section: u8, sentence: &'static str) -> Self {
        Self { name, status, section, sentence, fault: Fault::Upstream, owasp: "sys_monitor_disabled" }
    }

    /// A refusal because of the policy or the machine.
    pub const fn operator(name: &'static str, status: StatusCode, section: u8, sentence: &'static str) -> Self {
        Self { name, status, section, sentence, fault: Fault::Operator, owasp: "sys_monitor_disabled" }
    }

    /// A refusal because of a defect of ours.
    pub const fn palisade(name: &'static str, status: StatusCode, section: u8, sentence: &'static str) -> Self {
        Self { name, status, section, sentence, fault: Fault::Palisade, owasp: "sys_crash" }
    }

    /// The same code under another term of OWASP's logging vocabulary.
    pub const fn owasp(mut self, term: &'static str) -> Self {
        self.owasp = term;
        self
    }

    /// Refuses a request. `why` is for the log: static text, no value of the request.
    #[track_caller]
    pub fn refuse(&'static self, why: &'static str) -> Refusal {
        Refusal(Box::new(Inner {
            code: self,
            why,
            fields: Vec::new(),
            headers: Vec::new(),
            close: false,
            status: None,
            watched: false,
            oauth: None,
            errors: Vec::new(),
        }))
    }

    /// The control that the code belongs to: what stands before the dot.
    pub fn control(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(control, _)| control)
    }
}

/// A refused request: a code for the client, and what the log should know.
#[derive(Debug, Clone)]
pub struct Refusal(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: &'static Code,
    why: &'static str,
    fields: Vec<(&'static str, Cow<'static, str>)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    close: bool,
    status: Option<StatusCode>,
    watched: bool,
    oauth: Option<&'static str>,
    errors: Vec<(&'static str, &'static str)>,
}

impl Refusal {
    /// The kind of refusal.
    pub fn code(&self) -> &'static Code {
        self.0.code
    }

    /// What happened, for the log.
    pub fn why(&self) -> &'static str {
        self.0.why
    }

    /// Typed fields for the log; they never reach the client.
    pub fn fields(&self) -> &[(&'static str, Cow<'static, str>)] {
        &self.0.fields
    }

    /// Adds a field for the log.
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.0.fields.push((name, value.into()));
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Another status than the code's: the application's own, where its body is replaced.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.0.status = Some(status);
        self
    }

    /// Only noted, also where the control enforces: as if the control were in `detect`, for this rule of its.
    pub fn watched(mut self) -> Self {
        self.0.watched = true;
        self
    }

    /// Answered in the shape of OAuth (RFC 6749 section 5.2), with this `error`.
    pub(crate) fn oauth(mut self, error: &'static str) -> Self {
        self.0.oauth = Some(error);
        self
    }

    /// Whether it is answered in the shape of OAuth.
    pub(crate) fn is_oauth(&self) -> bool {
        self.0.oauth.is_some()
    }

    /// Names a field of the request and what it must be, for the client: static text, nothing of the request.
    pub(crate) fn field(mut self, name: &'static str, must: &'static str) -> Self {
        self.0.errors.push((name, must));
        self
    }

    /// What it says of fields.
    pub(crate) fn said(&self) -> &[(&'static str, &'static str)] {
        &self.0.errors
    }

    /// The one sentence that a page shows: what it says of the first field, or of the whole.
    pub(crate) fn sentence(&self) -> &'static str {
        self.said().first().map_or(self.code().sentence, |(_, must)| *must)
    }

    /// Whether it is noted and does not end the request.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watched
    }

    /// The status of the answer.
    pub(crate) fn answer_status(&self) -> StatusCode {
        self.0.status.unwrap_or(self.0.code.status)
    }

    /// Tells the client when to come back.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Names the methods that would be answered (405, RFC 9110 §15.5.6).
    pub fn allow(self, methods: &str) -> Self {
        match HeaderValue::from_str(methods) {
            Ok(value) => self.header(ALLOW, value),
            Err(_) => self,
        }
    }

    /// Closes the connection after the answer: what follows on it cannot be trusted.
    pub fn close(mut self) -> Self {
        self.0.close = true;
        self
    }

    /// The answer for the client: gRPC's status for a call, HTML where the client prefers it (a browser that navigates), a problem document
    /// otherwise.
    pub(crate) fn render(&self, ctx: &Context, accept: Option<&HeaderValue>) -> Response<ResponseBody> {
        if ctx.grpc && ctx.version == Version::HTTP_2 {
            let mut answer = grpc::answer(self.0.code, self.answer_status());
            answer.extensions_mut().insert(self.0.code);
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            self.add_headers(answer.headers_mut());
            return answer;
        }
        let html = self.0.oauth.is_none() && prefers_html(accept);
        let text = if html { self.html(ctx) } else { self.problem(ctx) };
        let mut response = Response::new(ResponseBody::fixed(Bytes::from(text)));
        *response.status_mut() = self.answer_status();
        // What changes answers (CORS, headers) can tell whose refusal this is.
        response.extensions_mut().insert(self.0.code);
        let content_type = match (html, self.0.oauth) {
            (true, _) => "text/html; charset=utf-8",
            (false, None) => "application/problem+json",
            (false, Some(_)) => "application/json",
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.add_headers(headers);
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0.headers {
            headers.append(name, value.clone());
        }
        if self.0.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn problem(&self, ctx: &Context) -> Vec<u8> {
        let (code, request_id) = (self.0.code, ctx.request_id().as_str());
        if let Some(error) = self.0.oauth {
            let mut out = b"{".to_vec();
            json::field_str(&mut out, "error", error);
            // The first field brings its comma.
            out.remove(1);
            json::field_str(&mut out, "error_description", code.sentence);
            // What clients of FastAPI read.
            json::field_str(&mut out, "detail", code.sentence);
            json::field_str(&mut out, "code", code.name);
            json::field_str(&mut out, "request_id", request_id);
            out.push(b'}');
            return out;
        }
        let mut out = problem_document(code, self.answer_status(), request_id);
        if !self.0.errors.is_empty() {
            out.pop();
            out.extend_from_slice(b",\"errors\":[");
            for (place, (field, must)) in self.0.errors.iter().enumerate() {
                out.extend_from_slice(if place == 0 { b"{\"field\":" } else { b",{\"field\":" });
                json::string(&mut out, field);
                json::field_str(&mut out, "detail", must);
                out.push(b'}');
            }
            out.extend_from_slice(b"]}");
        }
        out
    }

    fn html(&self, ctx: &Context) -> Vec<u8> {
        let code = self.0.code;
        let mut page = String::with_capacity(512);
        // Everything here is our own static text or a request id of our own alphabet: nothing to escape.
        let _ = write!(
            page,
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {title}</title>\
             <h1>{title}</h1><p>{sentence}</p><p>Request <code>{id}</code>, reason <code>{name}</code>.</p></html>",
            status = self.answer_status().as_u16(),
            title = title(self.answer_status()),
            sentence = code.sentence,
            id = ctx.request_id().as_str(),
            name = code.name,
        );
        page.into_bytes()
    }
}

/// The problem document of a code (RFC 9457). `detail` is what clients of FastAPI read.
pub(crate) fn problem_document(code: &Code, status: StatusCode, request_id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(320);
    out.extend_from_slice(b"{\"type\":\"/.palisade/problems/");
    out.extend_from_slice(code.name.as_bytes());
    out.push(b'"');
    json::field_str(&mut out, "title", title(status));
    json::field_u64(&mut out, "status", u64::from(status.as_u16()));
    json::field_str(&mut out, "detail", code.sentence);
    json::field_str(&mut out, "code", code.name);
    json::field_str(&mut out, "request_id", request_id);
    out.push(b'}');
    out
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Refused")
}

/// Whether `Accept` names HTML before anything else that we could answer with (RFC 9110 §12.5.1, with the order
/// standing in for equal weights).
pub(crate) fn prefers_html(accept: Option<&HeaderValue>) -> bool {
    let Some(Ok(accept)) = accept.map(HeaderValue::to_str) else { return false };
    let weight = |wanted: &[&str]| {
        accept
            .split(',')
            .filter_map(|item| {
                let mut parts = item.split(';').map(str::trim);
                let name = parts.next().unwrap_or_default();
                let quality = parts.find_map(|p| p.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok())?;
                wanted.iter().any(|w| w.eq_ignore_ascii_case(name)).then_some(quality)
            })
            .fold(0.0_f32, f32::max)
    };
    let html = weight(&["text/html", "application/xhtml+xml"]);
    html > 0.0 && html > weight(&["application/json", "application/problem+json", "application/*"])
}

/// A control that wants to end a request: with a refusal, or with an answer of its own (a preflight, a redirect).
#[derive(Debug)]
pub enum Stop {
    /// The request is refused; what that means depends on the control's mode.
    Refuse(Refusal),
    /// The control has answered.
    Answer(Box<Response<ResponseBody>>),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_only_for_those_who_prefer_it() {
        let cases = [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("application/json", false),
            ("*/*", false),
            ("application/json, text/html;q=0.5", false),
            ("text/html;q=0", false),
            ("text/html, application/json", false),
            ("", false),
        ];
        for (accept, html) in cases {
            assert_eq!(prefers_html(Some(&HeaderValue::from_static(accept))), html, "{accept}");
        }
        assert!(!prefers_html(None));
    }

    #[test]
    fn the_problem_document_is_json_with_the_promised_members() {
        static CODE: Code =
            Code::client("hosts.unknown", StatusCode::MISDIRECTED_REQUEST, 7, "this host is not served here");
        let document: serde_json::Value = serde_json::from_slice(&problem_document(&CODE, CODE.status, "abc")).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "/.palisade/problems/hosts.unknown", "title": "Misdirected Request", "status": 421,
                "detail": "this host is not served here", "code": "hosts.unknown", "request_id": "abc",
            })
        );
    }
}
