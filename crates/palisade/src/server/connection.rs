//! One connection: TLS, the protocol that ALPN chose, requests, its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use palisade_h1::guard::{Guard, Handle as GuardHandle, InFlight};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::admission::{self, Admitted, Handshake};
use super::batch::{Batch, Valve};
use super::calm::{Calm, Times};
use super::framing::{self, Answering};
use super::handshake;
use super::linger::Linger;
use super::patience::Patience;
use super::proxy_protocol::{self, Failure};
use super::streams::{Streams, Taking, Tasks};
use super::tls::Certificates;
use super::{Phase, ServerState};
use crate::body::RequestBody;
use crate::context::{Connection, Listener, Tls};
use crate::controls::client_ip::PROXY_PROTOCOL;
use crate::live::Handle;
use crate::observe::event;
use crate::refusal::Code;

/// Below this hyper refuses to work.
const MIN_BUFFER: usize = 8192;
/// What a slow reader can pin in the TLS layer.
pub(super) const TLS_BUFFER: usize = 256 * 1024;
const NOT_THEIRS: &str = "a PROXY header from an address that `trusted_proxies` does not name";

/// What the connections of a listener have in common.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) kind: Listener,
    pub(super) handle: Arc<Handle>,
    pub(super) state: Arc<ServerState>,
    pub(super) tls: Option<Arc<Certificates>>,
}

impl Entrance {
    /// Serves a connection on a task of its own, where it may be. One that is turned away under TLS costs none.
    pub(super) fn take(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Self { handle, state, .. } = &**self;
        let live = handle.live();
        let admitted = match admission::admit(state, &live.policy, peer.ip()) {
            Ok(admitted) => admitted,
            Err(code) if self.tls.is_some() => return admission::note(handle, state, code, peer.ip(), None),
            Err(code) => {
                let this = Arc::clone(self);
                tokio::spawn(async move { this.refuse(code, peer.ip(), stream).await });
                return;
            }
        };
        let mut counted = None;
        // Of a proxy's clients it is not known yet who they are.
        if self.tls.is_some() && !admitted.is_proxy() {
            match admission::handshake(state, &live.policy, &admitted) {
                Ok(handshake) => counted = Some(handshake),
                Err(code) => return admission::note(handle, state, code, peer.ip(), None),
            }
        }
        tokio::spawn(serve(Arc::clone(self), stream, peer, admitted, counted));
    }

    async fn refuse(&self, code: &'static Code, client: IpAddr, plain: TcpStream) {
        admission::refuse(&self.handle, &self.state, code, client, plain).await;
    }
}

async fn serve(
    entrance: Arc<Entrance>,
    mut stream: TcpStream,
    peer: SocketAddr,
    mut admitted: Admitted,
    counted: Option<Handshake>,
) {
    let Entrance { kind, handle, state, tls } = &*entrance;
    let kind = *kind;
    let live = handle.live();
    let Ok(local) = stream.local_addr() else { return };
    let limits = &live.policy.config().limits.config;
    let opening = tokio::time::Instant::now() + limits.head_time.duration();
    let asks = live.policy.env().server.proxy_protocol;
    let is_proxy = asks && admitted.is_proxy();
    let mut introduced = None;
    if is_proxy {
        let reading = Box::pin(proxy_protocol::read(&mut stream));
        let heard = match tokio::time::timeout_at(opening, reading).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(Failure::Nothing)) => return,
            Ok(Err(Failure::Wrong(why))) => return unintroduced(handle, state, peer, why),
            Err(_) => return unintroduced(handle, state, peer, "the PROXY header took too long"),
        };
        // The proxy holds the connections of everybody: its clients are counted for themselves.
        if let Some((client, _)) = &heard.client
            && !admission::is_proxy(&live.policy, *client)
            && let Err(code) = admitted.count(&live.policy, *client)
        {
            return match tls {
                None => entrance.refuse(code, *client, stream).await,
                Some(_) => admission::note(handle, state, code, *client, None),
            };
        }
        introduced = Some(heard);
    }
    let client = introduced.as_ref().and_then(|heard| heard.client.as_ref()).map_or(peer.ip(), |(client, _)| *client);
    let watches = asks && !is_proxy;
    let admitted = Arc::new(admitted);
    let stream = Patience::new(stream, limits.answer_time.duration());
    match tls {
        None => {
            drop(live);
            if watches && is_foreign(stream.get_ref(), opening).await {
                return unintroduced(handle, state, peer, NOT_THEIRS);
            }
            let connection = Connection::new(peer, local, None, kind).introduced(introduced);
            let connection = Arc::new(connection.admitted(&admitted));
            Box::pin(http1(stream, connection, handle, state)).await;
        }
        Some(certificates) => {
            let Some(config) = certificates.public() else { return };
            let counted = match counted.map_or_else(|| admission::handshake(state, &live.policy, &admitted), Ok) {
                Ok(counted) => counted,
                Err(code) => return admission::note(handle, state, code, client, None),
            };
            // A connection may last for days; the policy it began under need not.
            drop(live);
            if watches && is_foreign(stream.get_ref(), opening).await {
                return unintroduced(handle, state, peer, NOT_THEIRS);
            }
            let _ = stream.get_ref().set_nodelay(true);
            let secured = handshake::secure(config, Valve::new(stream));
            // Boxed: its memory is given back when the handshake is over.
            let mut stream = match tokio::time::timeout_at(opening, Box::pin(secured)).await {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) => return failed(handle, peer, &error.to_string()),
                Err(_) => return failed(handle, peer, "the TLS handshake took too long"),
            };
            drop(counted);
            let session = stream.get_mut().1;
            // Reading what a client sends is bounded by rustls; what a slow one makes us keep, by this.
            session.set_buffer_limit(Some(TLS_BUFFER));
            let http2 = session.alpn_protocol() == Some(b"h2");
            let facts = Tls {
                server_name: session.server_name().map(|name| name.to_ascii_lowercase().into()),
                version: match session.protocol_version() {
                    Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                    _ => "TLSv1.2",
                },
            };
            let connection = Connection::new(peer, local, Some(facts), kind).introduced(introduced);
            let connection = Arc::new(connection.admitted(&admitted));
            // Boxed: an idle connection needs the memory of its own protocol only.
            if http2 {
                Box::pin(http2_requests(stream, connection, handle, state)).await;
            } else {
                Box::pin(http1(stream, connection, handle, state)).await;
            }
        }
    }
    drop(admitted);
}

/// Whether a client whose header would not be believed sends one. Who says nothing in time is for those who come next.
async fn is_foreign(stream: &TcpStream, opening: tokio::time::Instant) -> bool {
    tokio::time::timeout_at(opening, proxy_protocol::is_sent(stream)).await.unwrap_or(false)
}

/// Counts and logs a connection that is closed for its PROXY header, or for having none.
fn unintroduced(handle: &Handle, state: &ServerState, peer: SocketAddr, why: &str) {
    admission::note(handle, state, &PROXY_PROTOCOL, peer.ip(), Some(why));
}

fn failed(handle: &Handle, peer: SocketAddr, reason: &str) {
    event::CONNECTION.line(handle.log()).show("peer", palisade_base::canonical_ip(peer.ip())).str("reason", reason);
}

/// A request over HTTP/1, with what its connection has to know about the answer.
async fn request_http1(
    handle: Arc<Handle>,
    connection: Arc<Connection>,
    request: Request<RequestBody>,
    token: InFlight,
    guarded: &GuardHandle,
    state: &ServerState,
) -> Result<Response<Answering>, Infallible> {
    let live = handle.live();
    let mut answer = live.serve(&connection, request).await;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        guarded.open_tunnel();
    } else if state.is_draining() {
        // Nothing is accepted any more: each connection ends with this answer.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer.map(|body| Answering::new(body, token)))
}

async fn http1<S>(stream: S, connection: Arc<Connection>, handle: &Arc<Handle>, state: &ServerState)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = framing::config(&handle.live().policy);
    // Innermost: a client that still sends what nobody reads gets its answer before the connection is closed.
    let abandoned = Arc::<AtomicBool>::default();
    let stream = Linger::new(stream, Arc::clone(&abandoned));
    let mut guard = Guard::new(stream, config, framing::answers(handle, &connection));
    let guarded = guard.handle();
    let service = service_fn(|incoming: Request<Incoming>| {
        let token = guarded.begin();
        // Who waits for a word first gets it when somebody wants the body (RFC 9110 §10.1.1).
        let waits = !incoming.body().is_end_stream() && incoming.headers().contains_key(EXPECT);
        let incoming = incoming.map(|body| {
            let body = RequestBody::incoming(body).tell_abandoned(&abandoned);
            if waits { body } else { body.asked_for() }
        });
        request_http1(Arc::clone(handle), Arc::clone(&connection), incoming, token, &guarded, state)
    });
    // Not with `pipeline_flush`: hyper then buffers an answer without bound for a client that does not read, and forgets
    // the 101 before a client's first frame.
    let mut builder = hyper::server::conn::http1::Builder::new();
    // The guard has one timer for heads and idle connections, which costs less than one a request.
    builder.header_read_timeout(None).max_buf_size(config.limits.head_bytes.max(MIN_BUFFER) * 2);
    let mut draining = pin!(state.reached(Phase::Draining));
    let mut drains = false;
    let mut served = loop {
        // What hyper keeps for a connection is three times what the rest needs: none of it for one that is idle.
        let stirred = poll_fn(|cx| {
            drains = draining.as_mut().poll(cx).is_ready();
            if drains { Poll::Ready(Ok(())) } else { guard.poll_stir(cx) }
        });
        if stirred.await.is_err() {
            return;
        }
        let mut served = builder.serve_connection(TokioIo::new(guard), &service).with_upgrades();
        if drains {
            break served;
        }
        let parked = poll_fn(|cx| {
            // How a connection ends is the client's business.
            if Pin::new(&mut served).poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            drains = draining.as_mut().poll(cx).is_ready();
            if drains || guarded.may_park() { Poll::Ready(Some(!drains)) } else { Poll::Pending }
        });
        match parked.await {
            None => return,
            Some(false) => break served,
            Some(true) => {
                let Some(parts) = served.into_parts() else { return };
                guard = parts.io.into_inner();
                guard.give_back(&parts.read_buf);
            }
        }
    };
    // Every answer ends its connection now. One that is idle stays a moment, for the request that may be on its way.
    let grace = Duration::from_millis(state.idle_grace_ms.load(Ordering::Relaxed));
    tokio::select! {
        _ = &mut served => return,
        () = tokio::time::sleep(grace) => Pin::new(&mut served).graceful_shutdown(),
    }
    let _ = served.await;
}

async fn http2_requests(
    stream: Box<TlsStream<Valve<Patience<TcpStream>>>>,
    connection: Arc<Connection>,
    handle: &Arc<Handle>,
    state: &ServerState,
) {
    let batch = Batch::new(*stream);
    let (handle, connection) = (Arc::clone(handle), Arc::clone(&connection));
    let live = handle.live();
    let limits = &live.policy.config().limits.config;
    let (most_streams, answer_time) = (limits.streams, limits.answer_time.duration());
    let most_fields = framing::most_fields(&live.policy);
    let times = Times { head: limits.head_time.duration(), idle: limits.idle_time.duration() };
    drop(live);
    let streams = Arc::<Streams>::default();
    // Innermost: what ends with a word to the client is not reset before that word is read.
    let stream = Linger::new(batch.clone(), Arc::new(AtomicBool::new(true)));
    let stream = Calm::new(stream, Arc::clone(&streams), times, framing::refusals(&handle, &connection));
    let service = service_fn(move |incoming: Request<Incoming>| {
        let running = streams.begin();
        let (handle, connection) = (Arc::clone(&handle), Arc::clone(&connection));
        // Boxed: each stream becomes a task, and a task moves its future several times on the way.
        Box::pin(async move {
            running.turn().await;
            let request = incoming.map(|body| RequestBody::incoming(body).drain_when_dropped());
            let answer = handle.live().serve(&connection, request).await;
            running.answered();
            Ok::<_, Infallible>(answer.map(|body| Taking::new(body, running)))
        })
    });
    let served = hyper::server::conn::http2::Builder::new(Tasks(answer_time))
        .timer(TokioTimer::new())
        .max_concurrent_streams(most_streams)
        .max_header_list_size(most_fields)
        // The guard counts resets too, also those that come after the request was begun.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(100)
        .max_send_buf_size(256 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    tokio::select! {
        _ = poll_fn(|cx| batch.poll(cx, served.as_mut())) => return,
        () = state.reached(Phase::Draining) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = poll_fn(|cx| batch.poll(cx, served.as_mut())).await;
}
