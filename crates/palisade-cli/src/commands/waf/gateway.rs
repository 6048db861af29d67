//! A gateway in this process, under the policy's rules in `detect`, before a server that answers everything.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use palisade::Palisade;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::answer::{self, Asked, Reply};
use crate::args::Global;

/// How long an answer may take; a request that is not whole has none.
const ANSWER: Duration = Duration::from_secs(10);
/// Most of an answer that is read.
const ANSWER_BYTES: usize = 1 << 20;
/// How long the log may lag behind.
const LOG: Duration = Duration::from_secs(20);

/// The gateway. Its threads end with the process.
pub(super) struct Gateway {
    address: SocketAddr,
    log: PathBuf,
    asked: Asked,
    _running: palisade::server::Running,
    _folder: tempfile::TempDir,
}

/// What a request was answered with.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: Option<u16>,
    pub(super) id: Option<String>,
    /// As far as it was read.
    pub(super) bytes: Vec<u8>,
}

impl Gateway {
    /// Starts it. `methods`: those that a route names, beside what the policy says.
    pub(super) async fn start(
        global: &Global,
        more: &[(&str, String)],
        methods: Option<&[String]>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let upstream = format!("\"http://{}\"", listener.local_addr()?);
        let asked = Asked::default();
        let router = answer::router(Arc::clone(&asked));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut sources = super::super::policy::sources(global);
        if let Some(methods) = methods {
            let file = folder.path().join("methods.toml");
            let methods = serde_json::to_string(methods)?;
            std::fs::write(&file, format!("[[route]]\npath = \"/*\"\nmethods = {methods}\n"))?;
            sources = sources.file(file);
        }
        let text = |path: &std::path::Path| serde_json::to_string(path);
        let flags = [
            ("server.mode", "\"development\"".to_owned()),
            ("server.http", "\"127.0.0.1:0\"".to_owned()),
            ("server.https", "\"off\"".to_owned()),
            ("server.admin", "\"off\"".to_owned()),
            ("server.probes", "\"off\"".to_owned()),
            ("server.plaintext", "true".to_owned()),
            ("server.state", text(folder.path())?),
            ("upstream.url", upstream),
            ("log.access", text(&log)?),
            ("log.security", text(&log)?),
            ("waf.mode", "\"detect\"".to_owned()),
        ];
        for (key, value) in flags.iter().map(|(key, value)| (*key, value)).chain(more.iter().map(|(k, v)| (*k, v))) {
            sources = sources.flag("palisade waf", key, value.clone());
        }
        let (running, _) = Palisade::from_sources(sources).start()?;
        anyhow::ensure!(
            running.handle.live().controls().contains(&"waf"),
            "there are no rules: name some in `[waf]` of the policy, such as `rules = \"/usr/share/modsecurity-crs\"`"
        );
        let _workers = running.start_workers()?;
        running.ready();
        let bound = running.bound.iter().find(|bound| bound.name() == "http");
        let address = bound.context("the gateway listens")?.address();
        Ok(Self { address, log, asked, _running: running, _folder: folder })
    }

    /// Until it is told otherwise, the server behind answers everything so.
    pub(super) fn answers(&self, reply: Option<Reply>) {
        *self.asked.lock() = reply;
    }

    /// Sends bytes over a connection of their own.
    ///
    /// `whole`: reads the body of the answer too, which has to end the connection.
    pub(super) async fn send(&self, raw: &[u8], whole: bool) -> anyhow::Result<Answer> {
        let mut stream = TcpStream::connect(self.address).await?;
        // What is refused early is not read to its end.
        let _ = stream.write_all(raw).await;
        let mut head = Vec::new();
        let read = async {
            while (whole && head.len() < ANSWER_BYTES || !head.windows(4).any(|end| end == b"\r\n\r\n"))
                && stream.read_buf(&mut head).await? > 0
            {}
            std::io::Result::Ok(())
        };
        let _late = tokio::time::timeout(ANSWER, read).await;
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let id = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("x-request-id").then(|| value.trim().to_owned())
        });
        Ok(Answer { status, id, bytes: head })
    }

    /// Every line of the log, once all that was sent is in it.
    pub(super) async fn lines(&self) -> anyhow::Result<Vec<Value>> {
        let last =
            self.send(b"GET /.palisade-end HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", false).await?;
        let id = last.id.context("the gateway answers")?;
        wait(&self.log, |lines| lines.iter().any(|line| line["request_id"] == id.as_str())).await
    }
}

/// Reads the log until something is in it.
async fn wait(log: &std::path::Path, is_there: impl Fn(&[Value]) -> bool) -> anyhow::Result<Vec<Value>> {
    let deadline = Instant::now() + LOG;
    loop {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if is_there(&lines) {
            return Ok(lines);
        }
        anyhow::ensure!(Instant::now() < deadline, "the gateway's log lags behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
