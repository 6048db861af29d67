//! Plain HTTP: browsers are sent to HTTPS, API calls with credentials are refused.
//!
//! Guide sections 6 and 7. A credential that came in clear is already known to whoever listens; a redirect would hide
//! that, so the call is refused and says so.

use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode, request};
use palisade_policy::Problems;

use crate::body::ResponseBody;
use crate::context::{Context, Listener};
use crate::control::{Check, Control, Info, NoRoute, Routes};
use crate::policy::Env;
use crate::refusal::{Code, Stop};

/// A call with a credential, or with a body, over plain HTTP.
pub static REQUIRED: Code = Code::client(
    "https_redirect.required",
    StatusCode::FORBIDDEN,
    6,
    "this API is served over HTTPS only; what was sent went over the network in clear, so change the credential",
);

/// The control. Its keys are `server.plaintext`, `server.http` and `server.https`.
#[derive(Debug)]
pub struct HttpsRedirect {
    port: Option<u16>,
}

impl Control for HttpsRedirect {
    type Config = NoRoute;
    type Route = NoRoute;
    const INFO: Info = Info {
        name: "https_redirect",
        section: 6,
        codes: &[&REQUIRED],
        judges: false,
        about: "Plain HTTP is redirected, or refused where it carried a credential.",
    };

    fn compile(_: &NoRoute, _: &Routes<'_, NoRoute>, env: &Env, _: &mut Problems) -> Option<Self> {
        let https = env.server.https().address().map(|address| address.port()).filter(|port| *port != 443);
        (!env.server.plaintext()).then_some(Self { port: https })
    }
}

impl Check for HttpsRedirect {
    fn request(&self, ctx: &Context, parts: &mut request::Parts) -> Result<(), Stop> {
        if ctx.is_secure() || ctx.connection.listener == Listener::Embedded {
            return Ok(());
        }
        let carries = parts.headers.contains_key(AUTHORIZATION)
            || parts.headers.contains_key("x-api-key")
            || parts.headers.contains_key(COOKIE);
        let navigates = matches!(parts.method, Method::GET | Method::HEAD);
        let from_browser_page = Context::single(&parts.headers, "sec-fetch-mode") == Some("navigate");
        if !navigates || (carries && !from_browser_page) {
            return Err(REQUIRED.refuse("a credential or a body over plain HTTP").into());
        }
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let target = format!("https://{}{port}{path}", ctx.host());
        let location =
            HeaderValue::from_str(&target).map_err(|_| REQUIRED.refuse("the target cannot be written as a URL"))?;
        let mut answer = Response::new(ResponseBody::empty());
        *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
        answer.headers_mut().insert(LOCATION, location);
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Err(Stop::Answer(Box::new(answer)))
    }
}
