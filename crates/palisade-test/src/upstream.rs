//! An upstream in the test's own process: answers with any bytes, and says exactly what arrived.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::ca::{Authority, Identity};
use crate::ports;
use crate::wire::{Message, Reader};

/// What is recorded of one connection.
const RECORDED_BYTES: usize = 64 << 20;

/// A server on a port of its own. Dropping it ends it and its connections.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    /// With the number that finds each again, since several connections add to it.
    requests: Mutex<Vec<(usize, Message)>>,
    read: AtomicUsize,
    bytes: Mutex<Vec<Vec<u8>>>,
}

/// What is sent back.
#[derive(Debug, Clone)]
pub struct Reply {
    steps: Vec<Step>,
}

/// One thing that an upstream does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends these bytes, as they are.
    Send(Bytes),
    /// Waits this long: an upstream that is slow.
    Pause(Duration),
    /// Reads a request's head, without its body.
    ReadHead,
    /// Reads the body of the request whose head was read last.
    ReadBody,
    /// Reads at least this many bytes more, whatever they mean.
    ReadBytes(usize),
    /// Closes.
    Close,
    /// Closes with a reset (RST), as a crashed process may.
    Reset,
    /// Holds the connection open and does nothing, until the other side closes.
    Hold,
}

impl Reply {
    /// These bytes, as they are; the connection stays open.
    pub fn raw(bytes: impl Into<Bytes>) -> Reply {
        Reply { steps: vec![Step::Send(bytes.into())] }
    }

    /// A whole 200 with a text.
    pub fn text(text: &str) -> Reply {
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        ))
    }

    /// Steps.
    pub fn steps(steps: impl IntoIterator<Item = Step>) -> Reply {
        Reply { steps: steps.into_iter().collect() }
    }

    /// Closes afterwards.
    #[must_use]
    pub fn close(mut self) -> Reply {
        self.steps.push(Step::Close);
        self
    }
}

type Served = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
type Serve = dyn Fn(Conversation) -> Served + Send + Sync;

impl Upstream {
    /// Reads each request whole and answers what `answer` makes of it.
    ///
    /// # Errors
    /// When no port is left.
    pub async fn answering(answer: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Result<Upstream> {
        Upstream::start(None, Upstream::each(answer)).await
    }

    /// The same with TLS, under this certificate.
    ///
    /// # Errors
    /// When the certificate and its key are none, or no port is left.
    pub async fn answering_tls(
        identity: &Identity,
        answer: impl Fn(&Message) -> Reply + Send + Sync + 'static,
    ) -> Result<Upstream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(identity.chain()?, identity.private_key()?)?;
        Upstream::start(Some(TlsAcceptor::from(Arc::new(config))), Upstream::each(answer)).await
    }

    /// The same for clients that have a certificate of this authority, and for nobody else.
    ///
    /// # Errors
    /// As [`Upstream::answering_tls`].
    pub async fn answering_mutual_tls(
        identity: &Identity,
        clients: &Authority,
        answer: impl Fn(&Message) -> Reply + Send + Sync + 'static,
    ) -> Result<Upstream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.pem().as_bytes())?)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain()?, identity.private_key()?)?;
        Upstream::start(Some(TlsAcceptor::from(Arc::new(config))), Upstream::each(answer)).await
    }

    fn each(answer: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Box<Serve> {
        let answer = Arc::new(answer);
        Box::new(move |mut conversation| {
            let answer = answer.clone();
            Box::pin(async move {
                while conversation.read_head().await? {
                    conversation.read_body().await?;
                    let reply = answer(&conversation.request);
                    for step in reply.steps {
                        if !conversation.step(step).await? {
                            return Ok(());
                        }
                    }
                }
                Ok(())
            })
        })
    }

    /// Does the same steps on each connection, and then closes.
    ///
    /// # Errors
    /// When no port is left.
    pub async fn script(steps: impl IntoIterator<Item = Step>) -> Result<Upstream> {
        let steps: Arc<[Step]> = steps.into_iter().collect();
        let serve = Box::new(move |mut conversation: Conversation| -> Served {
            let steps = steps.clone();
            Box::pin(async move {
                for step in steps.iter() {
                    if !conversation.step(step.clone()).await? {
                        break;
                    }
                }
                Ok(())
            })
        });
        Upstream::start(None, serve).await
    }

    async fn start(tls: Option<TlsAcceptor>, serve: Box<Serve>) -> Result<Upstream> {
        let serve: Arc<Serve> = serve.into();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            // Ends its connections when it is dropped itself.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // What is sent in two steps shall arrive in two.
                let _ = stream.set_nodelay(true);
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                lock(&shared.bytes).push(Vec::new());
                let open = Open::new(shared.clone());
                let (seen, tls, serve) = (shared.clone(), tls.clone(), serve.clone());
                connections.spawn(async move {
                    let _open = open;
                    let stream = match tls {
                        None => Wire::Plain(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Wire::Tls(Box::new(stream)),
                            Err(_) => return,
                        },
                    };
                    let stream = Recorded { stream, seen: seen.clone(), number };
                    let (reader, request) = (Reader::default(), Message::default());
                    // What breaks here breaks for the other side, whose answer the test looks at.
                    let _ = serve(Conversation { stream, reader, request, number: 0, seen }).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Upstream { address, scheme, seen, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// How many connections to it the other side may still take for open: see [`ports::connected`].
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn connected(&self) -> Result<usize> {
        match self.address {
            SocketAddr::V4(address) => ports::connected(address),
            SocketAddr::V6(_) => bail!("upstreams listen on IPv4"),
        }
    }

    /// The requests so far: those of which the head arrived, with the body as far as it was read.
    pub fn requests(&self) -> Vec<Message> {
        lock(&self.seen.requests).iter().map(|(_, request)| request.clone()).collect()
    }

    /// The bytes that were read from each connection, at most 64 MiB of each.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        lock(&self.seen.bytes).clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.seen.requests).clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Conversation {
    stream: Recorded,
    reader: Reader,
    request: Message,
    number: usize,
    seen: Arc<Seen>,
}

impl Conversation {
    /// False: the connection is over.
    async fn step(&mut self, step: Step) -> Result<bool> {
        match step {
            Step::Send(bytes) => self.stream.stream.send(&bytes).await?,
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::ReadHead => return self.read_head().await,
            Step::ReadBody => self.read_body().await?,
            Step::ReadBytes(count) => {
                let mut left = vec![0; count];
                self.stream.read_exact(&mut left).await?;
            }
            Step::Close => return Ok(false),
            Step::Reset => {
                self.stream.stream.tcp().set_zero_linger()?;
                return Ok(false);
            }
            Step::Hold => while self.stream.read_buf(&mut Vec::with_capacity(4096)).await? > 0 {},
        }
        Ok(true)
    }

    async fn read_head(&mut self) -> Result<bool> {
        let Some(request) = self.reader.request_head(&mut self.stream).await? else { return Ok(false) };
        self.request = request;
        self.number = self.seen.read.fetch_add(1, Ordering::SeqCst);
        lock(&self.seen.requests).push((self.number, self.request.clone()));
        Ok(true)
    }

    async fn read_body(&mut self) -> Result<()> {
        let read = self.reader.request_body(&mut self.stream, &mut self.request).await;
        if let Some((_, request)) = lock(&self.seen.requests).iter_mut().find(|(number, _)| *number == self.number) {
            *request = self.request.clone();
        }
        read
    }
}

/// Counts a connection as open while it lives.
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: Arc<Seen>) -> Open {
        seen.open.fetch_add(1, Ordering::SeqCst);
        Open(seen)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection as it was accepted.
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Wire {
    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Wire::Plain(stream) => stream.write_all(bytes).await?,
            Wire::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// A stream that keeps what was read from it.
struct Recorded {
    stream: Wire,
    seen: Arc<Seen>,
    number: usize,
}

impl AsyncRead for Recorded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let poll = match &mut this.stream {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Some(new) = buf.filled().get(before..)
            && let Some(bytes) = lock(&this.seen.bytes).get_mut(this.number)
        {
            let room = RECORDED_BYTES.saturating_sub(bytes.len());
            bytes.extend(new.iter().take(room));
        }
        poll
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Authority;
    use crate::{Client, Trust, Wire, eventually};

    const SECONDS: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn it_says_what_arrived_to_the_byte() {
        let upstream = Upstream::answering(|request| Reply::text(request.target())).await.unwrap();
        let mut wire = Wire::plain(upstream.address()).await.unwrap();
        let request = "POST /a?b HTTP/1.1\r\nhOST:  x\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(wire.ask(request).await.unwrap().text(), "/a?b");
        assert_eq!(wire.ask("GET /second HTTP/1.1\r\n\r\n").await.unwrap().text(), "/second");
        let requests = upstream.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].headers[0], ("hOST".to_owned(), "x".to_owned()));
        assert_eq!(requests[0].body, b"abc");
        assert_eq!(upstream.bytes(), [format!("{request}GET /second HTTP/1.1\r\n\r\n").into_bytes()]);
        drop(wire);
        eventually(SECONDS, "it is seen as closed", async || upstream.open_connections() == 0).await.unwrap();
    }

    #[tokio::test]
    async fn a_script_breaks_off_where_it_says() {
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        for end in [Step::Close, Step::Reset] {
            let upstream = Upstream::script([Step::ReadHead, Step::Send(half.into()), end]).await.unwrap();
            let mut wire = Wire::plain(upstream.address()).await.unwrap();
            assert!(wire.ask("GET / HTTP/1.1\r\n\r\n").await.is_err());
        }
    }

    #[tokio::test]
    async fn tls_is_trusted_through_its_authority_alone() {
        let authority = Authority::new("ours").unwrap();
        let identity = authority.server(&["127.0.0.1", "api.example.com"]).unwrap();
        let upstream = Upstream::answering_tls(&identity, |_| Reply::text("ok")).await.unwrap();
        let ours = Trust::pem(authority.pem().as_bytes()).unwrap();
        let theirs = Trust::pem(Authority::new("theirs").unwrap().pem().as_bytes()).unwrap();
        let ask = async |trust: &Trust, host: &str| -> Result<String> {
            let client = Client::https(&upstream.url(), trust)?.host(host);
            client.get("/").send().await?.text().await
        };
        assert_eq!(ask(&ours, "127.0.0.1").await.unwrap(), "ok");
        assert_eq!(ask(&ours, "api.example.com").await.unwrap(), "ok");
        assert!(ask(&ours, "other.example.com").await.is_err());
        assert!(ask(&theirs, "127.0.0.1").await.is_err());
        let mut wire = Wire::tls(upstream.address(), "127.0.0.1", &ours).await.unwrap();
        assert_eq!(wire.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap().text(), "ok");
    }

    #[tokio::test]
    async fn dropping_it_closes_its_connections() {
        let upstream = Upstream::script([Step::Hold]).await.unwrap();
        let mut wire = Wire::plain(upstream.address()).await.unwrap();
        eventually(SECONDS, "accepted", async || upstream.connections() == 1).await.unwrap();
        drop(upstream);
        wire.closed(SECONDS).await.unwrap();
    }
}
