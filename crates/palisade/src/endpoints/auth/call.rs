//! One call of an endpoint: its path, its body, and where it comes from.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use http::request;
use http_body::Body as _;
use palisade_base::Secret;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::body::RequestBody;
use crate::context::Context;
use crate::controls::auth::codes;
use crate::refusal::Refusal;

/// The largest body that an endpoint reads, in bytes: two passwords of 5,000 characters of four bytes each, with all of
/// them escaped as a form does, fit.
const MAX_BODY: usize = 192 * 1024;
/// The most fields of a form.
const MAX_FIELDS: usize = 64;

/// One call.
pub(crate) struct Call {
    /// What is known of the request.
    pub(crate) ctx: Arc<Context>,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its query, as sent.
    pub(crate) query: String,
    /// The segment of the path that stands for `{id}`.
    pub(crate) id: String,
    /// Locked, so that the rest can be lent while something is waited for; nobody ever waits for it.
    body: Mutex<RequestBody>,
}

impl Call {
    /// A call of a request that has passed the stack.
    pub(crate) fn new(ctx: &Arc<Context>, parts: request::Parts, body: RequestBody, id: String) -> Self {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        Self { ctx: Arc::clone(ctx), headers: parts.headers, query, id, body: Mutex::new(body) }
    }

    async fn read(&mut self) -> Result<Secret<Vec<u8>>, Refusal> {
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(self.body.get_mut()).poll_frame(cx)).await {
            // A control that refused the body says so; else the client left.
            let frame = frame.map_err(|_| {
                self.ctx.take_body_refusal().unwrap_or_else(|| codes::BODY.refuse("the body broke off").close())
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > MAX_BODY {
                return Err(codes::BODY_SIZE.refuse("more than an endpoint reads").close());
            }
            whole.extend_from_slice(&data);
        }
        Ok(Secret::new(whole))
    }

    /// Reads a body of JSON. Unknown fields, and fields twice, are refused by the types.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        if !is_type(&self.headers, "application/json") {
            return Err(codes::BODY_TYPE.refuse("not `application/json`"));
        }
        let body = self.read().await?;
        serde_json::from_slice(body.expose()).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                codes::INVALID.refuse("a field is missing, unknown or of another type")
            }
            _ => codes::BODY.refuse("no JSON"),
        })
    }

    /// Reads a form.
    pub(crate) async fn form(&mut self) -> Result<Form, Refusal> {
        if !is_type(&self.headers, "application/x-www-form-urlencoded") {
            return Err(codes::BODY_TYPE.refuse("not a form"));
        }
        let body = self.read().await?;
        Form::parse(body.expose())
    }

    /// Reads the query as a form.
    pub(crate) fn query(&self) -> Result<Form, Refusal> {
        Form::parse(self.query.as_bytes())
    }

    /// Whether a body of JSON comes with it.
    pub(crate) fn is_json(&self) -> bool {
        is_type(&self.headers, "application/json")
    }

    /// Throws the body away unread, but for what is bounded.
    pub(crate) async fn no_body(&mut self) -> Result<(), Refusal> {
        self.read().await.map(drop)
    }

    /// Name and secret of `Authorization: Basic` (RFC 6749 section 2.3.1: both are form-encoded first).
    pub(crate) fn basic(&self) -> Result<Option<(String, Secret<String>)>, Refusal> {
        let mut values = self.headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let malformed = || codes::OAUTH_CLIENT.refuse("`Authorization` is malformed").oauth("invalid_client");
        let Some((scheme, rest)) = value.as_bytes().split_at_checked(6) else { return Ok(None) };
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return Ok(None);
        }
        if values.next().is_some() {
            return Err(malformed());
        }
        let decoded = data_encoding::BASE64.decode(rest.trim_ascii()).map_err(|_| malformed())?;
        let decoded = Secret::new(decoded);
        let text = std::str::from_utf8(decoded.expose()).map_err(|_| malformed())?;
        let (name, secret) = text.split_once(':').ok_or_else(malformed)?;
        let decode = |part: &str| decode(part.as_bytes()).ok_or_else(malformed);
        Ok(Some((decode(name)?, Secret::new(decode(secret)?))))
    }
}

/// Whether the one `Content-Type` is this, in UTF-8.
fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(Ok(value)) = values.next().map(http::HeaderValue::to_str) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let charset = |part: &str| match part.split_once('=') {
        Some((key, value)) if key.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    values.next().is_none() && name.eq_ignore_ascii_case(wanted) && parts.all(charset)
}

/// The fields of a form or query, each at most once.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, Secret<String>)>);

impl Form {
    /// Reads one.
    ///
    /// # Errors
    /// When it is malformed, or a parameter comes twice (`resource` may: RFC 8707 section 2).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut fields: Vec<(String, Secret<String>)> = Vec::new();
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let place = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let name = decode(&pair[..place]);
            let value = decode(pair.get(place + 1..).unwrap_or_default());
            let (Some(name), Some(value)) = (name, value.map(Secret::new)) else {
                return Err(codes::BODY.refuse("a form that is not UTF-8, or has a malformed escape"));
            };
            // RFC 6749 section 3.1: parameters must not be included more than once.
            if name != "resource" && fields.iter().any(|(known, _)| *known == name) {
                return Err(codes::OAUTH_REQUEST.refuse("a parameter twice").oauth("invalid_request"));
            }
            if fields.len() == MAX_FIELDS {
                return Err(codes::OAUTH_REQUEST.refuse("too many parameters").oauth("invalid_request"));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// A field that was sent with a value (RFC 6749 section 3.1: one without is as good as absent).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.secret(name).map(|value| value.expose().as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a field that may come several times.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(known, value)| known == name && !value.expose().is_empty())
            .map(|(_, v)| v.expose().as_str())
    }

    /// The same for a secret.
    pub(crate) fn secret(&self, name: &str) -> Option<&Secret<String>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        self.get(name).ok_or_else(|| {
            codes::OAUTH_REQUEST.refuse("a parameter is missing").with("parameter", name).oauth("invalid_request")
        })
    }
}

/// Decodes one name or value of a form (WHATWG URL, application/x-www-form-urlencoded), strictly.
fn decode(text: &[u8]) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                let digit = |byte: u8| char::from(byte).to_digit(16);
                out.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
                rest = tail;
            }
            other => out.push(*other),
        }
    }
    String::from_utf8(out).ok()
}

/// Text for a query: everything but unreserved characters is escaped.
pub(crate) fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_are_read_in_one_way() {
        let form = Form::parse(b"username=ann&password=%C3%A9+%2B&scope=&a").unwrap();
        assert_eq!(form.get("username"), Some("ann"));
        assert_eq!(form.get("password"), Some("é +"));
        assert_eq!((form.get("scope"), form.get("a"), form.get("b")), (None, None, None));
        for bad in ["a=1&a=2", "a=%", "a=%4", "a=%zz", "a=%ff", "%61=1&a=2"] {
            assert!(Form::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(encode("a b/é&="), "a%20b%2F%C3%A9%26%3D");
    }

    #[test]
    fn content_types_are_exact() {
        let judge = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(value));
            is_type(&headers, "application/json")
        };
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=\"UTF-8\""] {
            assert!(judge(good), "{good}");
        }
        for bad in ["text/plain", "application/json; charset=utf-16", "application/jsonx", ""] {
            assert!(!judge(bad), "{bad}");
        }
    }

    proptest! {
        /// Any bytes are read or refused, and what was encoded is read back.
        #[test]
        fn forms_of_strangers(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{1,40}") {
            let _read_or_refused = Form::parse(&bytes);
            let form = Form::parse(format!("a={}&b", encode(&text)).as_bytes()).unwrap();
            prop_assert_eq!(form.get("a"), Some(text.as_str()));
        }
    }
}
