//! An HTTP client that hides nothing: no redirects followed, no retries, no decompression, and of a body every chunk with
//! the time it came.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;

use crate::tls::{self, Trust};

/// How long one request, or one chunk of its answer, may take. The deadline of a test, not a pace.
const ANSWER: Duration = Duration::from_secs(60);
/// More than this is not collected into memory.
const COLLECTED_BYTES: usize = 256 << 20;

/// Where requests go. Each [`Client::send`] opens a connection; [`Client::connect`] gives one to keep.
#[derive(Debug, Clone)]
pub struct Client {
    base: Uri,
    address: SocketAddr,
    trust: Option<Trust>,
    version: Version,
    host: Option<String>,
    from: Option<IpAddr>,
}

impl Client {
    /// For a base such as `http://127.0.0.1:8000`; the host is an address or `localhost`.
    ///
    /// # Errors
    /// When the base has no port, or its host is not of loopback.
    pub fn http(base: &str) -> Result<Client> {
        Client::new(base, None)
    }

    /// For a base such as `https://127.0.0.1:8443`, with what to trust.
    ///
    /// # Errors
    /// As [`Client::http`].
    pub fn https(base: &str, trust: &Trust) -> Result<Client> {
        Client::new(base, Some(trust.clone()))
    }

    fn new(base: &str, trust: Option<Trust>) -> Result<Client> {
        let base: Uri = base.parse().with_context(|| format!("base {base:?}"))?;
        let address = address(&base)?;
        Ok(Client { base, address, trust, version: Version::HTTP_11, host: None, from: None })
    }

    /// Speaks HTTP/2: by ALPN over TLS, with prior knowledge without.
    #[must_use]
    pub fn http2(mut self) -> Client {
        self.version = Version::HTTP_2;
        self
    }

    /// Asks for this host (`Host`, `:authority` and the TLS name) at the same address.
    #[must_use]
    pub fn host(mut self, host: &str) -> Client {
        self.host = Some(host.to_owned());
        self
    }

    /// Connects from this address of loopback, such as 127.0.0.2: another client, to the server.
    #[must_use]
    pub fn from_address(mut self, address: IpAddr) -> Client {
        self.from = Some(address);
        self
    }

    /// Opens a connection to keep.
    ///
    /// # Errors
    /// When that fails.
    pub async fn connect(&self) -> Result<Connection> {
        let two = self.version == Version::HTTP_2;
        let stream = match &self.trust {
            None => tls::plain_from(self.from, self.address).await?,
            Some(trust) => {
                let authority: http::uri::Authority = self.authority()?.parse()?;
                let name = authority.host();
                let alpn: &[u8] = if two { b"h2" } else { b"http/1.1" };
                let stream = trust.connect_from(self.from, self.address, name, &[alpn]).await?;
                ensure!(!two || stream.alpn() == Some(b"h2"), "the server does not speak HTTP/2");
                stream
            }
        };
        let local = stream.tcp().local_addr()?;
        let io = TokioIo::new(stream);
        let sender = if two {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Sender::Two(sender)
        } else {
            let (sender, connection) = http1::Builder::new().preserve_header_case(true).handshake(io).await?;
            tokio::spawn(connection.with_upgrades());
            Sender::One(sender)
        };
        Ok(Connection { sender, client: self.clone(), local })
    }

    fn authority(&self) -> Result<&str> {
        let of_base = self.base.authority().map(http::uri::Authority::as_str);
        self.host.as_deref().or(of_base).context("a base without a host")
    }

    /// A request; [`Request::send`] sends it on a connection of its own.
    pub fn request(&self, method: Method, target: &str) -> Request<'_> {
        Request::new(Via::Client(self), method, target)
    }

    /// A GET request.
    pub fn get(&self, target: &str) -> Request<'_> {
        self.request(Method::GET, target)
    }

    /// A POST request.
    pub fn post(&self, target: &str) -> Request<'_> {
        self.request(Method::POST, target)
    }
}

/// The loopback address of a URL.
pub(crate) fn address(url: &Uri) -> Result<SocketAddr> {
    let host = url.host().context("a URL without a host")?;
    let port = url.port_u16().with_context(|| format!("a URL without a port: {url}"))?;
    let ip = if host == "localhost" { "127.0.0.1" } else { host.trim_matches(['[', ']']) };
    Ok(SocketAddr::new(ip.parse().with_context(|| format!("the host of {url} is no address"))?, port))
}

/// A connection that is kept: requests on it go one after the other (HTTP/1.1) or side by side (HTTP/2, by cloning).
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    client: Client,
    local: SocketAddr,
}

#[derive(Debug)]
enum Sender {
    One(http1::SendRequest<Body>),
    Two(http2::SendRequest<Body>),
}

impl Connection {
    /// A request on this connection.
    pub fn request(&mut self, method: Method, target: &str) -> Request<'_> {
        Request::new(Via::Connection(self), method, target)
    }

    /// A GET request.
    pub fn get(&mut self, target: &str) -> Request<'_> {
        self.request(Method::GET, target)
    }

    /// A POST request.
    pub fn post(&mut self, target: &str) -> Request<'_> {
        self.request(Method::POST, target)
    }

    /// Whether it has been closed by the other side.
    pub fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::One(sender) => sender.is_closed(),
            Sender::Two(sender) => sender.is_closed(),
        }
    }

    /// The address it comes from: what the server should see as the client's.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The same connection once more, for requests side by side.
    ///
    /// # Errors
    /// Over HTTP/1.1, where there is no such thing.
    pub fn share(&self) -> Result<Connection> {
        match &self.sender {
            Sender::One(_) => bail!("requests side by side need HTTP/2"),
            Sender::Two(sender) => {
                Ok(Connection { sender: Sender::Two(sender.clone()), client: self.client.clone(), local: self.local })
            }
        }
    }

    async fn send(&mut self, mut request: http::Request<Body>) -> Result<Answer> {
        let authority = self.client.authority()?.to_owned();
        let started = Instant::now();
        let answer = match &mut self.sender {
            Sender::One(sender) => {
                if !request.headers().contains_key(header::HOST) {
                    request.headers_mut().insert(header::HOST, HeaderValue::from_str(&authority)?);
                }
                let sent = async {
                    sender.ready().await?;
                    sender.send_request(request).await
                };
                tokio::time::timeout(ANSWER, sent).await
            }
            Sender::Two(sender) => {
                let scheme = self.client.base.scheme_str().unwrap_or("http");
                let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
                *request.uri_mut() =
                    Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build()?;
                *request.version_mut() = Version::HTTP_2;
                let sent = async {
                    sender.ready().await?;
                    sender.send_request(request).await
                };
                tokio::time::timeout(ANSWER, sent).await
            }
        };
        let answer = answer.with_context(|| format!("no answer within {ANSWER:?}"))?.context("no answer")?;
        let (head, body) = answer.into_parts();
        Ok(Answer { head, body, trailers: None, started, head_after: started.elapsed(), keep: None })
    }
}

enum Via<'a> {
    Client(&'a Client),
    Connection(&'a mut Connection),
}

/// A request that is being put together.
pub struct Request<'a> {
    via: Via<'a>,
    request: Result<http::Request<Body>>,
}

impl<'a> Request<'a> {
    fn new(via: Via<'a>, method: Method, target: &str) -> Request<'a> {
        let request = http::Request::builder().method(method).uri(target).body(Body::empty());
        Request { via, request: request.with_context(|| format!("target {target:?}")) }
    }

    /// Adds a header; one of the same name stays.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Ok(request) = &mut self.request {
            match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                (Ok(name), Ok(value)) => {
                    request.headers_mut().append(name, value);
                }
                _ => self.request = Err(anyhow::anyhow!("header {name:?}: {value:?}")),
            }
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        if let Ok(request) = &mut self.request {
            *request.body_mut() = body.into();
        }
        self
    }

    /// Sets the body to JSON, and its type.
    #[must_use]
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }

    /// Sends it and waits for the head of the answer.
    ///
    /// # Errors
    /// When the connection fails or no answer comes within a minute.
    pub async fn send(self) -> Result<Answer> {
        let request = self.request?;
        match self.via {
            Via::Connection(connection) => connection.send(request).await,
            Via::Client(client) => {
                let mut connection = client.connect().await?;
                let mut answer = connection.send(request).await?;
                // hyper ends an HTTP/2 connection when its last handle goes, also below a body that is still read.
                answer.keep = Some(connection);
                Ok(answer)
            }
        }
    }
}

/// A piece of a body.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Its bytes.
    pub data: Bytes,
    /// When it came, counted from the start of the request.
    pub after: Duration,
}

/// An answer: its head is there, its body comes.
#[derive(Debug)]
pub struct Answer {
    head: http::response::Parts,
    body: Incoming,
    trailers: Option<HeaderMap>,
    started: Instant,
    head_after: Duration,
    keep: Option<Connection>,
}

impl Answer {
    /// The status as a number, since that is how tests name it.
    pub fn status(&self) -> u16 {
        self.head.status.as_u16()
    }

    /// The status.
    pub fn status_code(&self) -> StatusCode {
        self.head.status
    }

    /// The version of HTTP it came by.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    /// All values of a header that are text.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    /// When the head came, counted from the start of the request.
    pub fn head_after(&self) -> Duration {
        self.head_after
    }

    /// The address the request came from, if it had a connection of its own.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.keep.as_ref().map(Connection::local_address)
    }

    /// The next piece of the body; `None` at its end, and then [`Answer::trailers`] are known.
    ///
    /// # Errors
    /// When the body breaks off, or nothing comes within a minute.
    pub async fn chunk(&mut self) -> Result<Option<Chunk>> {
        loop {
            let frame = tokio::time::timeout(ANSWER, self.body.frame()).await;
            let frame = frame.with_context(|| format!("nothing of the body within {ANSWER:?}"))?;
            let Some(frame) = frame.transpose().context("the body broke off")? else { return Ok(None) };
            match frame.into_data() {
                Ok(data) => return Ok(Some(Chunk { data, after: self.started.elapsed() })),
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// The trailers, once the body was read to its end and if there were any.
    pub fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The whole body, at most 256 MiB.
    ///
    /// # Errors
    /// As [`Answer::chunk`].
    pub async fn bytes(&mut self) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            ensure!(all.len() + chunk.data.len() <= COLLECTED_BYTES, "a body of over {COLLECTED_BYTES} bytes");
            all.extend_from_slice(&chunk.data);
        }
        Ok(all.freeze())
    }

    /// The whole body as text.
    ///
    /// # Errors
    /// As [`Answer::bytes`].
    pub async fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }

    /// The whole body as JSON.
    ///
    /// # Errors
    /// As [`Answer::bytes`], and when it is none.
    pub async fn json(&mut self) -> Result<serde_json::Value> {
        let text = self.text().await?;
        serde_json::from_str(&text).with_context(|| format!("not JSON ({}): {text:?}", self.head.status))
    }

    /// Reads the body to its end and counts its bytes, keeping none.
    ///
    /// # Errors
    /// As [`Answer::chunk`].
    pub async fn drain(&mut self) -> Result<u64> {
        let mut count = 0;
        while let Some(chunk) = self.chunk().await? {
            count += chunk.data.len() as u64;
        }
        Ok(count)
    }
}

/// The body of a request.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    Fixed(Option<Bytes>),
    Repeated { before: Option<Bytes>, pattern: Bytes, left: u64, after: Option<Bytes>, announced: bool },
    Fed(mpsc::Receiver<Frame<Bytes>>),
}

/// Feeds a body piece by piece; dropping it ends the body.
#[derive(Debug)]
pub struct Feed(mpsc::Sender<Frame<Bytes>>);

impl Body {
    /// No body.
    pub fn empty() -> Body {
        Body(Kind::Fixed(None))
    }

    /// This many bytes of a repeated pattern, with `Content-Length`.
    pub fn repeated(pattern: impl Into<Bytes>, length: u64) -> Body {
        Body::around("", pattern, length, "", true)
    }

    /// This many bytes of a repeated pattern, of unannounced length: chunked over HTTP/1.1.
    pub fn chunked(pattern: impl Into<Bytes>, length: u64) -> Body {
        Body::around("", pattern, length, "", false)
    }

    /// A file of a repeated pattern as `multipart/form-data`, with the value of `Content-Type` that goes with it.
    pub fn multipart(field: &str, file: &str, pattern: impl Into<Bytes>, length: u64) -> (Body, String) {
        let boundary = "palisade-boundary-7MA4YWxkTrZu0gW";
        let before = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let after = format!("\r\n--{boundary}--\r\n");
        (Body::around(before, pattern, length, after, true), format!("multipart/form-data; boundary={boundary}"))
    }

    /// A body that a test feeds piece by piece.
    pub fn fed() -> (Feed, Body) {
        let (sender, receiver) = mpsc::channel(1);
        (Feed(sender), Body(Kind::Fed(receiver)))
    }

    fn around(
        before: impl Into<Bytes>,
        pattern: impl Into<Bytes>,
        length: u64,
        after: impl Into<Bytes>,
        announced: bool,
    ) -> Body {
        // Large enough that the client's own work does not count.
        let mut pattern: Bytes = pattern.into();
        if !pattern.is_empty() && pattern.len() < 64 << 10 {
            pattern = pattern.repeat((64 << 10) / pattern.len() + 1).into();
        }
        let part = |bytes: Bytes| (!bytes.is_empty()).then_some(bytes);
        Body(Kind::Repeated {
            before: part(before.into()),
            pattern,
            left: length,
            after: part(after.into()),
            announced,
        })
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Body {
        let bytes = bytes.into();
        Body(Kind::Fixed((!bytes.is_empty()).then_some(bytes)))
    }
}

impl Feed {
    /// Gives the next piece, waiting until the one before was taken.
    ///
    /// # Errors
    /// When the request has ended.
    pub async fn send(&self, data: impl Into<Bytes>) -> Result<()> {
        self.0.send(Frame::data(data.into())).await.context("the request has ended")
    }

    /// Ends the body with trailers.
    ///
    /// # Errors
    /// When the request has ended.
    pub async fn trailers(self, trailers: HeaderMap) -> Result<()> {
        self.0.send(Frame::trailers(trailers)).await.context("the request has ended")
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = match &mut self.get_mut().0 {
            Kind::Fixed(bytes) => bytes.take(),
            Kind::Repeated { before, pattern, left, after, .. } => {
                if let Some(before) = before.take() {
                    Some(before)
                } else if *left > 0 && !pattern.is_empty() {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(pattern.len());
                    *left -= length as u64;
                    Some(pattern.slice(..length))
                } else {
                    after.take()
                }
            }
            Kind::Fed(receiver) => return receiver.poll_recv(cx).map(|frame| frame.map(Ok)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Fixed(None))
    }

    fn size_hint(&self) -> SizeHint {
        let length = |part: &Option<Bytes>| part.as_ref().map_or(0, |part| part.len() as u64);
        match &self.0 {
            Kind::Fixed(bytes) => SizeHint::with_exact(length(bytes)),
            Kind::Repeated { before, left, after, announced: true, .. } => {
                SizeHint::with_exact(length(before) + left + length(after))
            }
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Reply, Upstream};

    #[tokio::test]
    async fn bodies_arrive_as_they_were_announced() {
        let upstream = Upstream::answering(|request| Reply::text(&request.body.len().to_string())).await.unwrap();
        let client = Client::http(&upstream.url()).unwrap();
        let (multipart, kind) = Body::multipart("file", "a.bin", "xy", 70_001);
        for (body, length, announced) in [
            (Body::from("four"), 4, true),
            (Body::empty(), 0, false),
            (Body::repeated("abc", 100_000), 100_000, true),
            (Body::chunked("abc", 100_000), 100_000, false),
            (multipart, 70_001 + 183, true),
        ] {
            let mut answer = client.post("/").header("content-type", &kind).body(body).send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), length.to_string());
            let request = upstream.requests().pop().unwrap();
            assert_eq!(request.header("content-length").is_some(), announced, "{length}");
        }
    }

    #[tokio::test]
    async fn http2_requests_share_a_connection_and_keep_their_trailers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            // One connection is all it takes.
            let (stream, _) = listener.accept().await.unwrap();
            let answer = |request: http::Request<Incoming>| async move {
                let authority = request.uri().authority().map(|authority| authority.to_string());
                let (feed, body) = Body::fed();
                tokio::spawn(async move {
                    feed.send(authority.unwrap_or_default()).await.unwrap();
                    let sum = (HeaderName::from_static("x-sum"), HeaderValue::from_static("7"));
                    feed.trailers(HeaderMap::from_iter([sum])).await.unwrap();
                });
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            };
            let service = hyper::service::service_fn(answer);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            server.serve_connection(TokioIo::new(stream), service).await.unwrap();
        });
        let mut first = Client::http(&base).unwrap().http2().host("api.example.com").connect().await.unwrap();
        let mut second = first.share().unwrap();
        let (one, two) = tokio::join!(first.get("/1").send(), second.get("/2").send());
        for mut answer in [one.unwrap(), two.unwrap()] {
            assert_eq!(
                (answer.version(), answer.text().await.unwrap()),
                (Version::HTTP_2, "api.example.com".to_owned())
            );
            assert_eq!(answer.trailers().unwrap()["x-sum"], "7");
        }
    }

    #[tokio::test]
    async fn a_kept_connection_is_one_connection() {
        let upstream = Upstream::answering(|_| Reply::text("ok")).await.unwrap();
        let mut connection = Client::http(&upstream.url()).unwrap().connect().await.unwrap();
        for _ in 0..3 {
            assert_eq!(connection.get("/").send().await.unwrap().text().await.unwrap(), "ok");
        }
        assert_eq!((upstream.connections(), upstream.requests().len()), (1, 3));
    }
}
