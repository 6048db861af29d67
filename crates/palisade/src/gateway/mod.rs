//! Inner service one: a proxy to the application behind.
//!
//! One exchange is one connection, polled in the task of the request: no channel, no spawn. Sources: RFC 9110 §7.6.

pub(crate) mod connect;
mod fetch;
mod forward;
mod frame_ends;
mod http2;
pub(crate) mod in_process;
mod pipe;
mod pool;
pub(crate) mod prefix;
pub(crate) mod tls;
mod tunnel;

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use palisade_h1::client::{Connection, Error, MoreFields, Outcome, ResponseBody as H1Body, Upgraded};
use tokio::sync::oneshot;

use crate::body::{BodyError, RequestBody, ResponseBody};
use crate::context::{Context, UpstreamFacts};
use crate::controls::integrity;
use crate::observe::access::micros;
use crate::policy::State;
use crate::policy::config::Upstream as Config;
use crate::policy::request_headers::MISSING_VALUE;
use crate::policy::values::UpstreamUrl;
use crate::refusal::{Code, Refusal};
use crate::server::supervise::{self, AppStatus, Patience};
use crate::server::{descriptors, seats};

use connect::{Io, NotConnected, Protocol, Stream};
use pool::{Pool, Return};

pub(crate) use forward::X_REQUEST_ID;
pub use forward::forwarded_headers;
pub(crate) use tunnel::Tunnels;

/// How often a request that waits for a supervised application looks again.
const POLL: Duration = Duration::from_millis(20);
/// How often a request tries to reach a supervised application that should answer: for a second.
const TRIES: u32 = 50;

/// The body of an upstream's answer.
pub(crate) type UpstreamBody = H1Body<Io, RequestBody, Return>;

/// No connection to the application can be made.
pub static UNREACHABLE: Code = Code::upstream(
    "upstream.unreachable",
    StatusCode::BAD_GATEWAY,
    21,
    "the application behind this gateway cannot be reached",
);
/// The application's certificate is not what the policy asks for, or it does not accept Palisade's.
pub static TLS: Code = Code::upstream(
    "upstream.tls",
    StatusCode::BAD_GATEWAY,
    6,
    "no trusted connection to the application behind this gateway can be made",
);
/// The supervised application is starting, or could not be started.
pub static STARTING: Code = Code::upstream(
    "upstream.starting",
    StatusCode::SERVICE_UNAVAILABLE,
    21,
    "the application behind this gateway is starting",
);
/// The application took too long. The key is `upstream.response_timeout`.
pub static TIMEOUT: Code = Code::upstream(
    "upstream.timeout",
    StatusCode::GATEWAY_TIMEOUT,
    21,
    "the application behind this gateway took too long (`upstream.response_timeout`)",
);
/// The application's answer is not correct HTTP.
pub static BAD_ANSWER: Code = Code::upstream(
    "upstream.bad_answer",
    StatusCode::BAD_GATEWAY,
    20,
    "the application behind this gateway answered incorrectly",
);
/// The application closed the connection before it answered.
pub static CLOSED: Code = Code::upstream(
    "upstream.closed",
    StatusCode::BAD_GATEWAY,
    21,
    "the application behind this gateway closed the connection",
);
/// The application's answer broke off.
pub static BROKEN: Code = Code::upstream(
    "upstream.broken",
    StatusCode::BAD_GATEWAY,
    21,
    "the answer of the application behind this gateway broke off",
);
/// The client's body broke off.
pub static CLIENT_GONE: Code =
    Code::client("upstream.client_gone", StatusCode::BAD_REQUEST, 20, "the body of this request broke off");

/// Every code of the gateway.
pub static CODES: &[&Code] = &[
    &UNREACHABLE,
    &TLS,
    &STARTING,
    &TIMEOUT,
    &BAD_ANSWER,
    &CLOSED,
    &BROKEN,
    &CLIENT_GONE,
    &MISSING_VALUE,
    &in_process::NOT_FOUND,
    &in_process::METHOD,
];

/// One application behind.
#[derive(Debug)]
pub struct Gateway {
    name: Arc<str>,
    target: UpstreamUrl,
    tls: Option<Arc<tls::Client>>,
    pool: Arc<Pool>,
    shared: Arc<http2::Shared>,
    connect_timeout: Duration,
    response_timeout: Option<Duration>,
    tunnels: Arc<Tunnels>,
    /// Where descriptors are counted.
    state: Arc<State>,
    /// How the application is doing, where it is supervised.
    app: Option<Arc<AppStatus>>,
}

impl Gateway {
    /// A gateway to `target`; its pool of connections outlives the policy.
    pub(crate) fn new(
        name: &str,
        target: UpstreamUrl,
        tls: Option<Arc<tls::Client>>,
        config: &Config,
        env: &crate::policy::Env,
    ) -> Self {
        // A connection that was made for one identity is none for another.
        let key = match &tls {
            Some(tls) => format!("upstream {target} {}", tls.digest()),
            None => format!("upstream {target}"),
        };
        let pool = env.state.get(&key, Pool::default);
        pool.set_idle_timeout(config.idle_timeout.duration());
        let shared = env.state.get(&key, http2::Shared::default);
        shared.set_idle_timeout(config.idle_timeout.duration());
        Self {
            name: name.into(),
            pool,
            shared,
            connect_timeout: config.connect_timeout.duration(),
            response_timeout: config.response_timeout.duration(),
            tunnels: Tunnels::of(&env.state),
            state: Arc::clone(&env.state),
            target,
            tls,
            app: None,
        }
    }

    /// The same to an application that is supervised: requests wait while it starts.
    pub(crate) fn supervised(mut self, app: Arc<AppStatus>) -> Self {
        self.app = Some(app);
        self
    }

    /// Its name: that of the policy's section, and `upstream` in logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the application listens.
    pub fn target(&self) -> &UpstreamUrl {
        &self.target
    }

    /// Whether a connection can be made just now.
    pub async fn is_reachable(&self) -> bool {
        matches!(tokio::time::timeout(self.connect_timeout, self.open(Protocol::Http1)).await, Ok(Ok(_)))
    }

    /// How it is just now, for people: the reason where no connection can be made.
    pub async fn state(&self) -> Result<(), String> {
        match tokio::time::timeout(self.connect_timeout, self.open(Protocol::Http1)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(NotConnected::Io(error) | NotConnected::Tls(error))) => Err(error.to_string()),
            Err(_) => Err("no answer within `connect_timeout`".to_owned()),
        }
    }

    /// Sends a request and answers with what comes back.
    ///
    /// # Errors
    /// When the application cannot be reached, does not answer, or not correctly.
    pub(crate) async fn call(
        &self,
        ctx: &Arc<Context>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if ctx.grpc {
            return Box::pin(self.call_http2(ctx, request)).await;
        }
        let upgrade = forward::prepare(&mut request);
        if upgrade.is_some() {
            // A tunnel outlives the exchange that it began with.
            ctx.keep_seat(seats::take(ctx)?);
        }
        let start = ctx.policy.clock().instant();
        let answer_timeout = if upgrade.is_some() { None } else { self.response_timeout };
        let mut fresh = false;
        let outcome = loop {
            let seat = if upgrade.is_some() { None } else { Some(seats::take(ctx)?) };
            let connection = match self.pool.take().filter(|_| !fresh) {
                Some(idle) => idle,
                None => Connection::new(Box::pin(self.connect(Protocol::Http1)).await?),
            };
            let back = Return::new(Arc::clone(&self.pool), seat);
            // Straight onto the wire: a table would hash each of them.
            let host = forward::client_host(ctx, request.headers());
            let more = |fields: &mut MoreFields<'_>| {
                forward::forwarded(ctx, host, |name, value| fields.add(&name, &value));
            };
            match connection.send_with(request, more, answer_timeout, back).await {
                Ok(outcome) => break outcome,
                Err(failure) => match (retry(&failure.error, fresh), failure.request) {
                    // The idle connection had been closed; nothing was sent, or the method says that twice is once.
                    (Some(only_idempotent), Some(again)) if !only_idempotent || again.method().is_idempotent() => {
                        request = *again;
                        fresh = true;
                    }
                    _ => return Err(refusal(&failure.error)),
                },
            }
        };
        let waited = ctx.policy.clock().instant().saturating_duration_since(start);
        let _ = ctx.upstream.set(UpstreamFacts { name: Arc::clone(&self.name), micros: micros(waited) });
        match outcome {
            Outcome::Response(answer) => {
                let mut answer = answer.map(ResponseBody::upstream);
                integrity::strip_answer(answer.headers_mut());
                Ok(answer)
            }
            Outcome::Upgraded(theirs) => upgraded(&self.tunnels, upgrade, theirs, ctx),
        }
    }

    /// The same over HTTP/2, which gRPC needs. Nothing is buffered in either direction.
    async fn call_http2(
        &self,
        ctx: &Arc<Context>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, Refusal> {
        forward::prepare_http2(ctx, &mut request, self.target.is_https())
            .ok_or_else(|| BAD_ANSWER.refuse("a request that cannot be sent on"))?;
        let seat = seats::take(ctx)?;
        let start = ctx.policy.clock().instant();
        let (mut request, http2::Ends { sent, cut }) = http2::Upload::new(ctx, request);
        let mut fresh = false;
        let (answer, place) = {
            let mut late = pin!(late(sent, self.response_timeout));
            loop {
                let (mut sender, place) = match self.shared.take().filter(|_| !fresh) {
                    Some(open) => open,
                    None => {
                        let io = Box::pin(self.connect(Protocol::Http2)).await?;
                        self.shared.add(io).await.map_err(|error| refusal_http2(&error))?
                    }
                };
                let answer = tokio::select! {
                    answer = sender.try_send_request(request) => answer,
                    () = &mut late => {
                        place.was_silent();
                        return Err(TIMEOUT.refuse("no answer within `upstream.response_timeout`"));
                    }
                };
                match answer {
                    Ok(answer) => break (answer, place),
                    Err(mut failure) => match failure.take_message() {
                        // The connection was closed while it was shared; nothing was sent.
                        Some(again) if !fresh => {
                            request = again;
                            fresh = true;
                        }
                        _ => return Err(refusal_http2(failure.error())),
                    },
                }
            }
        };
        let waited = ctx.policy.clock().instant().saturating_duration_since(start);
        let _ = ctx.upstream.set(UpstreamFacts { name: Arc::clone(&self.name), micros: micros(waited) });
        let mut answer = answer.map(|body| ResponseBody::boxed(http2::Download::new(body, ctx, cut, place, seat)));
        integrity::strip_answer(answer.headers_mut());
        Ok(answer)
    }

    async fn connect(&self, protocol: Protocol) -> Result<Io, Refusal> {
        match (self.connect_now(protocol).await, &self.app) {
            (Err(refusal), Some(app)) => self.connect_when_up(protocol, app, refusal).await,
            (outcome, _) => outcome,
        }
    }

    /// Waits for a supervised application that is starting, or is about to be started again.
    async fn connect_when_up(&self, protocol: Protocol, app: &AppStatus, mut last: Refusal) -> Result<Io, Refusal> {
        let Some(_place) = app.queue() else {
            return Err(STARTING.refuse("too many requests wait for the application").retry_after(1));
        };
        let start = tokio::time::Instant::now();
        let mut tried = 0;
        loop {
            match app.patience(start.elapsed()) {
                Patience::Wait => {}
                // It has just ended, and the supervisor is about to notice; or it does not accept, for all it runs.
                Patience::Try if tried == TRIES => return Err(last),
                Patience::Try => {
                    tried += 1;
                    match self.connect_now(protocol).await {
                        Ok(io) => return Ok(io),
                        Err(refusal) => last = refusal,
                    }
                }
                Patience::GiveUp(seconds) => {
                    return Err(STARTING.refuse("the supervised application does not run").retry_after(seconds));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn open(&self, protocol: Protocol) -> Result<Stream, NotConnected> {
        match (&self.app, &self.target) {
            (Some(app), UpstreamUrl::Unix(path)) => {
                supervise::socket::connect(path, app.owner()).await.map(Stream::Unix).map_err(NotConnected::Io)
            }
            _ => connect::connect(&self.target, self.tls.as_deref(), protocol).await,
        }
    }

    async fn connect_now(&self, protocol: Protocol) -> Result<Io, Refusal> {
        let Some(descriptor) = descriptors::take(&self.state) else {
            return Err(seats::REQUESTS.refuse("no descriptor for a connection to the application").retry_after(1));
        };
        match tokio::time::timeout(self.connect_timeout, self.open(protocol)).await {
            Ok(Ok(stream)) => Ok(Io::counted(stream, descriptor)),
            Ok(Err(NotConnected::Tls(error))) => Err(tls_failed(&error)),
            // With the address: in most cases it is the wrong one.
            Ok(Err(NotConnected::Io(error))) => Err(UNREACHABLE
                .refuse("connecting failed")
                .with("url", self.target.to_string())
                .with("reason", error.to_string())
                .retry_after(1)),
            Err(_) => Err(UNREACHABLE
                .refuse("connecting took longer than `upstream.connect_timeout`")
                .with("url", self.target.to_string())
                .retry_after(1)),
        }
    }
}

/// Closes the connections to all applications that nobody uses just now: somebody else needs their descriptors.
pub(crate) fn close_idle(state: &State) {
    state.all::<Pool>().iter().for_each(|pool| pool.close_idle());
    state.all::<http2::Shared>().iter().for_each(|shared| shared.close_idle());
}

/// Once the answer is late, of which the time is counted from the end of the request.
async fn late(sent: oneshot::Receiver<Infallible>, limit: Option<Duration>) {
    let _ = sent.await;
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => pending().await,
    }
}

fn refusal_http2(error: &hyper::Error) -> Refusal {
    let code = if error.is_canceled() || error.is_closed() { &CLOSED } else { &BAD_ANSWER };
    code.refuse("the exchange over HTTP/2 failed").with("reason", http2::reason(error))
}

/// Whether the same request may go out once more, and whether only if its method is idempotent (RFC 9110 §9.2.2).
fn retry(error: &Error, fresh: bool) -> Option<bool> {
    match error {
        _ if fresh => None,
        Error::NothingSent(_) => Some(false),
        Error::ClosedBeforeAnswer { reused: true } => Some(true),
        _ => None,
    }
}

/// Whether the application agreed to what it was asked (RFC 9110 §7.8).
fn is_websocket(answer: &Response<()>) -> bool {
    let mut protocols = answer.headers().get_all(http::header::UPGRADE).iter();
    protocols.next().is_some_and(|one| one.as_bytes().eq_ignore_ascii_case(b"websocket")) && protocols.next().is_none()
}

/// Whether an answer broke off because the request it belongs to did.
pub(crate) fn is_clients_fault(error: &BodyError) -> bool {
    matches!(error.downcast_ref(), Some(Error::RequestBody(_) | Error::RequestLength))
}

/// The handshake failed, or the application ended the connection by a TLS alert.
fn tls_failed(error: &std::io::Error) -> Refusal {
    TLS.refuse("TLS to the application failed").with("reason", error.to_string())
}

/// With TLS 1.3 an application says only after the handshake that it does not accept our certificate.
fn is_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Joins both sides once the application has changed the protocol, to the one that there is.
fn upgraded(
    tunnels: &Arc<Tunnels>,
    upgrade: Option<OnUpgrade>,
    theirs: Upgraded<Io>,
    ctx: &Arc<Context>,
) -> Result<Response<ResponseBody>, Refusal> {
    match upgrade {
        Some(upgrade) if is_websocket(&theirs.head) => Ok(tunnels.open(upgrade, theirs, ctx)),
        Some(_) => Err(BAD_ANSWER.refuse("101 to another protocol than `websocket`")),
        None => Err(BAD_ANSWER.refuse("101 without a request to upgrade")),
    }
}

fn refusal(error: &Error) -> Refusal {
    match error {
        Error::Io(error) | Error::NothingSent(error) if is_tls(error) => tls_failed(error),
        Error::Timeout => TIMEOUT.refuse("no answer within `upstream.response_timeout`"),
        Error::BadAnswer(violation) => {
            BAD_ANSWER.refuse("the framing of the answer").with("reason", violation.to_string())
        }
        Error::NothingSent(_) | Error::ClosedBeforeAnswer { .. } => CLOSED.refuse("closed before an answer"),
        // Where a control ended the body, the stack answers with that control's refusal.
        Error::RequestBody(cause) => match palisade_h1::Violation::in_error(&**cause) {
            Some(violation) => {
                integrity::FRAMING.refuse("the framing of the body").with("violation", violation.name()).close()
            }
            None => CLIENT_GONE.refuse("the client's body failed").close(),
        },
        Error::RequestLength => CLIENT_GONE.refuse("the body is not as long as announced").close(),
        Error::Unsendable => BAD_ANSWER.refuse("a request that cannot be sent on"),
        Error::Truncated | Error::Io(_) => BROKEN.refuse("the answer broke off").with("reason", error.to_string()),
        other => BROKEN.refuse("the exchange failed").with("reason", other.to_string()),
    }
}
