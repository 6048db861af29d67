//! What is known about a request so far.
//!
//! One shared value a request, made by the outermost layer. What is known at birth is a plain field. What is learned
//! later is set once, by one control, and has a stated default until then.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use http::header::{HeaderName, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, Uri, Version};
use palisade_base::Cidr;
use parking_lot::Mutex;

use crate::control::{ControlId, Mode};
use crate::controls::auth::Identity;
use crate::controls::{csrf, rate_limit, waf};
use crate::grpc;
use crate::observe::event;
use crate::observe::trace::TraceId;
use crate::policy::{Found, Policy, Rule};
use crate::refusal::{Code, Refusal};
use crate::server::admission::Admitted;
use crate::server::request_id::RequestId;
use crate::server::seats::Seat;

/// What is known about a connection: made once, shared by its requests.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// The peer's address as text, rendered once a connection.
    pub peer_text: AddressText,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// Facts of the TLS session, where there is one.
    pub tls: Option<Tls>,
    /// Which listener took it.
    pub listener: Listener,
    /// What a trusted proxy said before it passed bytes on; boxed, since few connections have it.
    pub introduced: Option<Box<Introduced>>,
    /// Its place among the connections that there may be, for what goes on when the connection is handed over: a WebSocket.
    /// Whoever else keeps this keeps no place.
    pub(crate) admitted: Weak<Admitted>,
}

/// What the PROXY protocol says of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduced {
    /// The client that the proxy connected for, also as text; none where it connected of its own accord, or cannot tell.
    pub client: Option<(IpAddr, AddressText)>,
    /// The client spoke TLS to the proxy.
    pub secure: bool,
}

impl Introduced {
    /// For a client.
    pub fn new(client: IpAddr, secure: bool) -> Self {
        Self { client: Some((client, AddressText::new(client))), secure }
    }

    /// For nobody: the peer stands for itself.
    pub fn nobody() -> Self {
        Self { client: None, secure: false }
    }
}

/// An IP address as text, rendered once: for logs, and as a header without a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressText(HeaderValue);

impl AddressText {
    /// The text of an address.
    pub fn new(address: IpAddr) -> Self {
        // An address in text is hexadecimal digits, dots and colons.
        Self(HeaderValue::try_from(address.to_string()).unwrap_or(HeaderValue::from_static("unknown")))
    }

    /// As bytes of ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// As a header's value.
    pub fn value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl std::ops::Deref for AddressText {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Facts of a TLS session.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The name the client asked for (SNI), in lower case.
    pub server_name: Option<Arc<str>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
}

/// The listener a connection came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// `server.https`.
    Https,
    /// `server.http`.
    Http,
    /// Inside somebody else's axum application.
    Embedded,
}

impl Connection {
    /// A connection of which only the peer is known, as inside an axum application.
    pub fn embedded(peer: SocketAddr) -> Self {
        Self::new(peer, SocketAddr::from(([0, 0, 0, 0], 0)), None, Listener::Embedded)
    }

    /// A connection as a listener took it.
    pub fn new(peer: SocketAddr, local: SocketAddr, tls: Option<Tls>, listener: Listener) -> Self {
        let peer = SocketAddr::new(palisade_base::canonical_ip(peer.ip()), peer.port());
        Self {
            peer,
            peer_text: AddressText::new(peer.ip()),
            local,
            tls,
            listener,
            introduced: None,
            admitted: Weak::new(),
        }
    }

    /// With its place among the connections.
    pub(crate) fn admitted(mut self, admitted: &Arc<Admitted>) -> Self {
        self.admitted = Arc::downgrade(admitted);
        self
    }

    /// With what a proxy said of it.
    pub fn introduced(mut self, by: Option<Introduced>) -> Self {
        self.introduced = by.map(Box::new);
        self
    }

    fn named(&self) -> Option<&(IpAddr, AddressText)> {
        self.introduced.as_deref()?.client.as_ref()
    }

    /// The address that bytes come from, as far as the connection says: whom the PROXY protocol names, or the peer.
    pub fn client_ip(&self) -> IpAddr {
        self.named().map_or(self.peer.ip(), |(address, _)| *address)
    }

    /// The same as text.
    pub fn client_text(&self) -> &AddressText {
        self.named().map_or(&self.peer_text, |(_, text)| text)
    }

    /// Whether the client speaks TLS, to us or to a proxy that said so.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some() || self.introduced.as_deref().is_some_and(|introduced| introduced.secure)
    }

    /// Whether the PROXY protocol says whose connection it is.
    pub fn is_introduced(&self) -> bool {
        self.introduced.is_some()
    }

    /// Whether one of these proxies wrote the forwarding headers of its requests. One that only passes bytes on writes
    /// none: then they are those of the client that it named.
    pub fn is_from(&self, proxies: &[Cidr]) -> bool {
        let known = self.introduced.is_none() || self.named().is_some();
        !proxies.is_empty() && known && proxies.iter().any(|network| network.contains(self.client_ip()))
    }
}

/// Which of the headers that controls ask for a request had when it arrived: one pass over what is there, instead of a
/// look-up for each that might be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen(u16);

impl Seen {
    /// `Accept`.
    pub const ACCEPT: Self = Self(1);
    /// Whatever says who asks: `Authorization`, `Cookie`, `X-API-Key`, or what applications with tokens of their own call it.
    pub const CREDENTIAL: Self = Self(1 << 1 | Self::COOKIE.0 | Self::AUTHORIZATION.0 | Self::API_KEY.0);
    /// `Cookie`.
    pub const COOKIE: Self = Self(1 << 2);
    /// `Origin`.
    pub const ORIGIN: Self = Self(1 << 3);
    /// `Connection`, `Expect`, `Upgrade` or `TE`: what says how the rest is read.
    pub const CONNECTION: Self = Self(1 << 4);
    /// `Content-Length` or `Transfer-Encoding`.
    pub const BODY: Self = Self(1 << 5);
    /// `X-Forwarded-For`.
    pub const FORWARDED: Self = Self(1 << 6);
    /// `Content-Type`.
    pub const TYPED: Self = Self(1 << 7);
    /// `Authorization`.
    pub const AUTHORIZATION: Self = Self(1 << 8);
    /// `X-API-Key`.
    pub const API_KEY: Self = Self(1 << 9);
    /// `traceparent`.
    pub const TRACE: Self = Self(1 << 10);

    /// What is among these headers.
    pub fn new(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self(0), |seen, name| Self(seen.0 | Self::of(name).0))
    }

    fn of(name: &HeaderName) -> Self {
        match name.as_str() {
            "accept" => Self::ACCEPT,
            "authorization" => Self::AUTHORIZATION,
            "cookie" => Self::COOKIE,
            "x-api-key" => Self::API_KEY,
            "api-key" | "apikey" | "x-access-token" | "x-auth-token" | "x-session-token" | "x-token" => Self(1 << 1),
            "origin" => Self::ORIGIN,
            "connection" | "expect" | "upgrade" | "te" => Self::CONNECTION,
            "content-length" | "transfer-encoding" => Self::BODY,
            "x-forwarded-for" => Self::FORWARDED,
            "content-type" => Self::TYPED,
            "traceparent" => Self::TRACE,
            _ => Self(0),
        }
    }

    /// Whether any of them was there.
    pub const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }
}

/// One would-be refusal: what a control in `detect` would have refused.
#[derive(Debug)]
pub struct Verdict {
    /// The control.
    pub control: ControlId,
    /// The mode in which it ran.
    pub mode: Mode,
    /// What it said.
    pub refusal: Refusal,
}

/// What is known about a request so far. Shared: handlers, body and access log hold the same value.
#[derive(Debug)]
pub struct Context {
    /// The policy this request began under; it ends under the same.
    pub policy: Arc<Policy>,
    /// The connection it came by.
    pub connection: Arc<Connection>,
    /// When its head had arrived.
    pub start: Instant,
    /// The method as sent.
    pub method: Method,
    /// The target as sent.
    pub target: Uri,
    /// The protocol as sent.
    pub version: Version,
    /// The headers it came with.
    pub seen: Seen,
    /// Whether it came with a body.
    pub has_body: bool,
    /// It says that it is gRPC. `integrity` lets it pass on routes that say `grpc = true`.
    pub grpc: bool,
    host_header: Option<HeaderValue>,
    /// `Origin`, where the request has it exactly once.
    pub origin: Option<HeaderValue>,
    /// The trace of its `traceparent`, where it has one, once and valid.
    pub trace: Option<TraceId>,
    request_id: RequestId,
    path: OnceLock<Box<str>>,
    app_path: OnceLock<Box<str>>,
    host: OnceLock<Box<str>>,
    client: OnceLock<Client>,
    rule: OnceLock<u16>,
    other_methods: OnceLock<Box<str>>,
    behind_proxy: OnceLock<()>,
    identity: OnceLock<Identity>,
    rate: OnceLock<rate_limit::Facts>,
    rate_below_login: OnceLock<rate_limit::Facts>,
    csp_nonce: OnceLock<Box<HeaderValue>>,
    permit: OnceLock<rate_limit::Permit>,
    seat: OnceLock<Seat>,
    inspection: Mutex<Option<Box<waf::Inspection>>>,
    authenticated_by: OnceLock<csrf::AuthenticatedBy>,
    session_secret: OnceLock<Box<[u8]>>,
    session_cookie: OnceLock<Box<HeaderValue>>,
    csrf: OnceLock<csrf::Facts>,
    body_refusal: Mutex<Option<Refusal>>,
    answered: AtomicBool,
    verdicts: Mutex<Vec<Verdict>>,
    pub(crate) upstream: OnceLock<UpstreamFacts>,
}

/// The client as the policy sees it.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// The same as text.
    pub text: AddressText,
    /// Whether the request reached the outermost trusted hop over TLS.
    pub secure: bool,
    /// Whether it came through a trusted proxy.
    pub proxied: bool,
}

/// What the gateway learned from the application behind.
#[derive(Debug, Clone)]
pub struct UpstreamFacts {
    /// The upstream's name in the policy.
    pub name: Arc<str>,
    /// Time to the first byte of its answer, in microseconds.
    pub micros: u64,
}

impl Context {
    /// The context of a request that just arrived.
    pub(crate) fn new(
        policy: Arc<Policy>,
        connection: Arc<Connection>,
        request_id: RequestId,
        parts: &http::request::Parts,
        has_body: bool,
    ) -> Self {
        let seen = Seen::new(&parts.headers);
        Self {
            start: policy.clock().instant(),
            policy,
            connection,
            method: parts.method.clone(),
            target: parts.uri.clone(),
            version: parts.version,
            seen,
            has_body,
            grpc: seen.any(Seen::TYPED) && grpc::is_claimed(&parts.headers),
            host_header: parts.headers.get(http::header::HOST).cloned(),
            origin: if seen.any(Seen::ORIGIN) { once(&parts.headers, &ORIGIN) } else { None },
            trace: if seen.any(Seen::TRACE) { trace(&parts.headers) } else { None },
            request_id,
            path: OnceLock::new(),
            app_path: OnceLock::new(),
            host: OnceLock::new(),
            client: OnceLock::new(),
            rule: OnceLock::new(),
            other_methods: OnceLock::new(),
            behind_proxy: OnceLock::new(),
            identity: OnceLock::new(),
            rate: OnceLock::new(),
            rate_below_login: OnceLock::new(),
            csp_nonce: OnceLock::new(),
            permit: OnceLock::new(),
            seat: OnceLock::new(),
            inspection: Mutex::default(),
            authenticated_by: OnceLock::new(),
            session_secret: OnceLock::new(),
            session_cookie: OnceLock::new(),
            csrf: OnceLock::new(),
            body_refusal: Mutex::default(),
            answered: AtomicBool::new(false),
            verdicts: Mutex::default(),
            upstream: OnceLock::new(),
        }
    }

    /// The same request as another policy sees it, as far as it does not depend on headers and nobody was identified; none
    /// where its routes would not take it.
    pub(crate) fn under(&self, policy: &Arc<Policy>) -> Option<(Self, http::request::Parts)> {
        let mut parts = http::Request::new(()).into_parts().0;
        parts.method.clone_from(&self.method);
        parts.uri.clone_from(&self.target);
        let rule = match policy.rules().find(self.host(), self.path(), &self.method) {
            Found::Rule(rule) => rule,
            Found::OtherMethods(..) | Found::Respelled(_) => return None,
        };
        let connection = Arc::clone(&self.connection);
        let again = Self::new(Arc::clone(policy), connection, self.request_id, &parts, self.has_body);
        again.set_host(self.host().into());
        again.set_target(Some(self.path().into()), rule);
        if let Some(path) = self.stripped_path() {
            again.set_app_path(path.into());
        }
        if let Some(client) = self.client.get() {
            again.set_client(client.clone());
        }
        Some((again, parts))
    }

    /// Whether its head carries a credential: `Authorization`, `Cookie`, `X-API-Key` or the like.
    pub fn has_credential(&self) -> bool {
        self.seen.any(Seen::CREDENTIAL)
    }

    /// The id of this request, ours.
    pub fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// The path as decided on and forwarded: normalised once. Until then, the path as sent.
    pub fn path(&self) -> &str {
        self.path.get().map_or(self.target.path(), |path| path)
    }

    /// The path as the application sees it: without the prefix that the route takes off.
    pub fn app_path(&self) -> &str {
        self.stripped_path().unwrap_or(self.path())
    }

    /// The same, where a prefix is taken off. Repeated slashes are in it where they are forwarded.
    pub(crate) fn stripped_path(&self) -> Option<&str> {
        self.app_path.get().map(AsRef::as_ref)
    }

    /// Set by `integrity`, once, where a prefix is taken off.
    pub(crate) fn set_app_path(&self, path: Box<str>) {
        let _ = self.app_path.set(path);
    }

    /// The host without port, in lower case; empty until it is known.
    pub fn host(&self) -> &str {
        self.host.get().map_or("", |host| host)
    }

    /// Host and port as the client wrote them; valid once [`Context::host`] is known.
    pub fn authority(&self) -> &str {
        let header = || self.host_header.as_ref().and_then(|value| value.to_str().ok());
        self.target.authority().map(http::uri::Authority::as_str).or_else(header).unwrap_or_default()
    }

    /// The client's address: the connection's until trusted proxies have been asked.
    pub fn client_ip(&self) -> IpAddr {
        self.client.get().map_or_else(|| self.connection.client_ip(), |client| client.address)
    }

    /// The client's address as text.
    pub fn client_text(&self) -> &AddressText {
        self.client.get().map_or(self.connection.client_text(), |client| &client.text)
    }

    /// Whether the client speaks TLS, to us or to a trusted proxy.
    pub fn is_secure(&self) -> bool {
        self.client.get().map_or_else(|| self.connection.is_secure(), |client| client.secure)
    }

    /// Whether the request came through a trusted proxy.
    pub fn is_proxied(&self) -> bool {
        self.client.get().is_some_and(|client| client.proxied)
    }

    /// The compiled rule of this request: the one of the route that matched, or the default.
    #[inline]
    pub fn rule(&self) -> &Rule {
        self.policy.rule(self.rule.get().copied().unwrap_or(0))
    }

    /// Whether its route is known: not where `integrity` refused it before it looked.
    pub(crate) fn is_routed(&self) -> bool {
        self.rule.get().is_some()
    }

    /// The mode of a control for this request.
    #[inline]
    pub fn mode(&self, control: ControlId) -> Mode {
        self.policy.mode(control, self)
    }

    /// What controls in `detect` would have refused.
    pub fn verdicts(&self) -> parking_lot::MutexGuard<'_, Vec<Verdict>> {
        self.verdicts.lock()
    }

    /// Set by `integrity`, once, before anything about the path is judged, so that refusals are logged with it.
    pub(crate) fn set_host(&self, host: Box<str>) {
        let fresh = self.host.set(host).is_ok();
        debug_assert!(fresh, "the host of a request is decided once");
    }

    /// Set by `integrity`, once. `path`: where it differs from the one sent.
    pub(crate) fn set_target(&self, path: Option<Box<str>>, rule: u16) {
        let fresh = path.is_none_or(|path| self.path.set(path).is_ok()) & self.rule.set(rule).is_ok();
        debug_assert!(fresh, "the target of a request is decided once");
    }

    /// Where a route claims the path for other methods only: those, as `Allow` lists them.
    pub(crate) fn other_methods(&self) -> Option<&str> {
        self.other_methods.get().map(AsRef::as_ref)
    }

    /// Set by `integrity`, once.
    pub(crate) fn set_other_methods(&self, allow: String) {
        let _ = self.other_methods.set(allow.into());
    }

    /// Set by `client_ip`, once.
    pub(crate) fn set_client(&self, client: Client) {
        let fresh = self.client.set(client).is_ok();
        debug_assert!(fresh, "the client of a request is decided once");
    }

    /// Whether the peer seems to be a proxy that the policy doesn't name, so that its address stands for many clients.
    pub fn is_behind_unnamed_proxy(&self) -> bool {
        self.behind_proxy.get().is_some()
    }

    /// Set by `client_ip`, once.
    pub(crate) fn set_behind_unnamed_proxy(&self) {
        let _ = self.behind_proxy.set(());
    }

    /// Who sends this request; nobody until `auth` has proved somebody.
    pub fn identity(&self) -> &Identity {
        static NOBODY: Identity = Identity::Nobody;
        self.identity.get().unwrap_or(&NOBODY)
    }

    /// Set by `auth`, once.
    pub(crate) fn set_identity(&self, identity: Identity) {
        let fresh = self.identity.set(identity).is_ok();
        debug_assert!(fresh, "who sends a request is decided once");
    }

    /// How much of its limit is left to this client, where the route is limited: of the limit that has least.
    pub(crate) fn rate(&self) -> Option<&rate_limit::Facts> {
        // Of two that have as little, the one that decided last.
        self.rate_below_login.get().into_iter().chain(self.rate.get()).min_by_key(|facts| facts.left)
    }

    /// Set by `rate_limit`, once, for limits that take a login.
    pub(crate) fn set_rate_below_login(&self, facts: rate_limit::Facts) {
        let _ = self.rate_below_login.set(facts);
    }

    /// The nonce of this answer's `Content-Security-Policy`, where the policy has a place for one.
    pub(crate) fn csp_nonce(&self) -> Option<&HeaderValue> {
        self.csp_nonce.get().map(|nonce| &**nonce)
    }

    pub(crate) fn set_csp_nonce(&self, nonce: HeaderValue) {
        let again = self.csp_nonce.set(Box::new(nonce)).is_err();
        debug_assert!(!again, "set once");
    }

    /// Set by `rate_limit`, once.
    pub(crate) fn set_rate(&self, facts: rate_limit::Facts) {
        let _ = self.rate.set(facts);
    }

    /// Keeps a place among the requests in flight until this request has ended. Set by `rate_limit`, once.
    pub(crate) fn set_permit(&self, permit: rate_limit::Permit) {
        let _ = self.permit.set(permit);
    }

    /// Keeps a seat until this request has ended, and the tunnel that it opens. Set by the gateway, once.
    pub(crate) fn keep_seat(&self, seat: Seat) {
        let _ = self.seat.set(seat);
    }

    /// The inner service has begun to answer.
    pub(crate) fn set_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the inner service has begun to answer: what the client still sends is part of a conversation.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Why the body of this request ended before its end: a control refused it while it streamed.
    pub(crate) fn refuse_body(&self, refusal: Refusal) {
        self.body_refusal.lock().get_or_insert(refusal);
    }

    /// Takes that refusal, to answer with it, or to log it where the answer had already begun.
    pub(crate) fn take_body_refusal(&self) -> Option<Refusal> {
        self.body_refusal.lock().take()
    }

    /// What said who sends this request; none where nothing was accepted here, whatever the application makes of it.
    pub fn authenticated_by(&self) -> Option<csrf::AuthenticatedBy> {
        self.authenticated_by.get().copied()
    }

    /// Set by whatever identifies requests, once: the credential that was accepted.
    pub fn set_authenticated_by(&self, by: csrf::AuthenticatedBy) {
        let _ = self.authenticated_by.set(by);
    }

    /// Something that only this session has, such as the hash of its id: what CSRF tokens are bound to.
    pub fn session_secret(&self) -> Option<&[u8]> {
        self.session_secret.get().map(AsRef::as_ref)
    }

    /// Set by whatever identifies requests, once.
    pub fn set_session_secret(&self, secret: impl Into<Box<[u8]>>) {
        let _ = self.session_secret.set(secret.into());
    }

    /// The cookie under which the session of this request goes on, where it got another secret.
    pub(crate) fn session_cookie(&self) -> Option<&HeaderValue> {
        self.session_cookie.get().map(|cookie| &**cookie)
    }

    /// Set by `auth`, once.
    pub(crate) fn set_session_cookie(&self, cookie: HeaderValue) {
        let _ = self.session_cookie.set(Box::new(cookie));
    }

    /// What `csrf` knows of this request.
    pub(crate) fn csrf(&self) -> Option<&csrf::Facts> {
        self.csrf.get()
    }

    /// Set by `csrf`, once.
    pub(crate) fn set_csrf(&self, facts: csrf::Facts) {
        let _ = self.csrf.set(facts);
    }

    /// How far `waf` has come with this request, kept from one stage to the next.
    pub(crate) fn inspection(&self) -> parking_lot::MutexGuard<'_, Option<Box<waf::Inspection>>> {
        self.inspection.lock()
    }

    /// The code of that refusal, which stays.
    pub(crate) fn body_refused(&self) -> Option<&'static Code> {
        self.body_refusal.lock().as_ref().map(Refusal::code)
    }

    /// Logs and records what a control in `detect` would have refused. Bounded: a request has few controls.
    pub(crate) fn would_refuse(&self, control: ControlId, mode: Mode, refusal: Refusal) {
        event::refused(self, Some(control), mode, &refusal);
        let mut verdicts = self.verdicts.lock();
        if verdicts.len() < 32 {
            verdicts.push(Verdict { control, mode, refusal });
        }
    }

    /// A header of the request as text, where it is there once and is visible ASCII.
    pub fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }
}

/// A header that is there exactly once.
fn once(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.clone())
}

/// Of several traces none is believed.
fn trace(headers: &HeaderMap) -> Option<TraceId> {
    TraceId::parse(Context::single(headers, "traceparent")?.as_bytes())
}
