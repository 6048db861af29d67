//! Request integrity, attacked with bytes that no client library sends.
//!
//! In each case what reached the upstream is compared with what the gateway decided on: status, code, and the route in the
//! access log. Every table runs twice, once under `--detect`, and the verdicts must be the same.

mod answers;
mod forged;
mod h1;
mod h2;
mod hosts;
mod paths;
mod proxy_protocol;

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use palisade_test::upstream::Reply;
use palisade_test::wire::Message;
use palisade_test::{Palisade, Upstream, Wire, eventually};
use serde_json::Value;

use crate::support::{SOON, written_policy};

/// Routes that a request could be smuggled past: `/admin/*` is for nobody who asks here.
const ROUTES: &str = r#"
[[route]]
path = "/admin/*"
address = ["10.0.0.0/8"]

[[route]]
path = "/get-only"
methods = ["GET"]

[[route]]
path = "/tenant/*"
host = "tenant.localhost"
address = ["10.0.0.0/8"]

[[route]]
path = "/users/{id:int}"

[[route]]
path = "/encoded/*"
encoded_slash = true
path_parameters = true

[[route]]
path = "/keep/*"
slashes = "keep"

[[route]]
path = "/strict/*"
slashes = "refuse"

[[route]]
path = "/*"
"#;

/// What must become of the bytes of a case.
#[derive(Debug, Clone)]
enum Want {
    /// These requests reach the upstream, in this order (`METHOD target body`), under these routes.
    Passed(Vec<(String, &'static str)>),
    /// These reach it first, and then this is the answer: status and code.
    Refused(Vec<(String, &'static str)>, u16, &'static str),
}

/// One case of a table.
#[derive(Debug, Clone)]
struct Case {
    bytes: Vec<u8>,
    want: Want,
}

fn refused(bytes: impl AsRef<[u8]>, status: u16, code: &'static str) -> Case {
    Case { bytes: bytes.as_ref().to_vec(), want: Want::Refused(Vec::new(), status, code) }
}

fn framing(bytes: impl AsRef<[u8]>) -> Case {
    refused(bytes, 400, "integrity.framing")
}

fn passed(bytes: impl AsRef<[u8]>, requests: &[&str]) -> Case {
    passed_by(bytes, requests, "/*")
}

fn passed_by(bytes: impl AsRef<[u8]>, requests: &[&str], route: &'static str) -> Case {
    let requests = requests.iter().map(|request| ((*request).to_owned(), route)).collect();
    Case { bytes: bytes.as_ref().to_vec(), want: Want::Passed(requests) }
}

fn then_refused(bytes: impl AsRef<[u8]>, requests: &[&str], status: u16, code: &'static str) -> Case {
    let requests = requests.iter().map(|request| ((*request).to_owned(), "/*")).collect();
    Case { bytes: bytes.as_ref().to_vec(), want: Want::Refused(requests, status, code) }
}

/// A gateway in front of an upstream that records everything, and answers with the target that it was asked for.
struct Field {
    mode: &'static str,
    upstream: Upstream,
    gateway: Palisade,
}

impl Field {
    /// The two gateways of every table: as it is, and under `--detect`.
    async fn both(policy: &str) -> Result<[Field; 2]> {
        Ok([Field::start("block", policy).await?, Field::start("detect", policy).await?])
    }

    async fn start(mode: &'static str, policy: &str) -> Result<Field> {
        let upstream = Upstream::answering(echo_target).await?;
        let setup = Palisade::serve().policy(&written_policy(&upstream.url(), policy));
        let setup = if mode == "detect" { setup.arg("--detect") } else { setup };
        Ok(Field { mode, gateway: setup.start().await?, upstream })
    }

    /// What has reached the upstream since the last time.
    fn reached(&self) -> Vec<Message> {
        let requests = self.upstream.requests();
        self.upstream.forget();
        requests
    }

    /// Compares the access log with what was answered.
    async fn check_log(&self, expected: &[Logged]) -> Result<()> {
        let Some(last) = expected.last() else { return Ok(()) };
        self.gateway.access(|line| line["request_id"] == *last.id).await?;
        let mut lines: HashMap<String, Value> = HashMap::new();
        let all_there = async || {
            let access = self.gateway.log().into_iter().filter(|line| line["event"] == "access");
            lines = access.map(|line| (line["request_id"].as_str().unwrap_or_default().to_owned(), line)).collect();
            expected.iter().all(|expected| lines.contains_key(&expected.id))
        };
        eventually(SOON, "every answer has its line", all_there).await?;
        for Logged { what, id, status, code, route } in expected {
            let line = &lines[id];
            ensure!(line["status"] == *status, "{what}: {line}");
            ensure!(line["code"].as_str() == *code, "{what}: {line}");
            ensure!(route.is_none_or(|route| line["route"] == route), "{what}: not under {route:?}: {line}");
        }
        Ok(())
    }
}

/// What the access log must say of one answer.
struct Logged {
    what: String,
    id: String,
    status: u16,
    code: Option<&'static str>,
    route: Option<&'static str>,
}

fn echo_target(request: &Message) -> Reply {
    let text = request.target();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len());
    Reply::raw(if request.method() == "HEAD" { head } else { head + text })
}

/// `METHOD target body`.
fn said(request: &Message) -> String {
    let mut said = format!("{} {}", request.method(), request.target());
    if !request.body.is_empty() {
        said = format!("{said} {}", request.text());
    }
    said
}

const CANARY: &str = "GET /canary HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Runs a table on both gateways, over plain HTTP and TLS.
async fn run(cases: &[Case]) -> Result<()> {
    let fields = Field::both(ROUTES).await?;
    let (block, detect) = tokio::join!(run_on(&fields[0], cases), run_on(&fields[1], cases));
    let (block, detect) = (block?, detect?);
    ensure!(block.len() == cases.len() * 2, "every case was run");
    for (one, other) in block.iter().zip(&detect) {
        ensure!(one == other, "`--detect` changes the verdict: {one:?}, {other:?}");
    }
    Ok(())
}

type Verdict = (String, Vec<u16>, Option<String>, Vec<String>);

async fn run_on(field: &Field, cases: &[Case]) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    let mut logged = Vec::new();
    let mut wrong = Vec::new();
    for case in cases {
        for way in ["http", "https"] {
            let shown = String::from_utf8_lossy(&case.bytes[..case.bytes.len().min(300)]).into_owned();
            let what = format!("{} {way} {shown:?}", field.mode);
            let mut wire = if way == "http" { field.gateway.wire_http().await? } else { field.gateway.wire().await? };
            match one(field, &mut wire, case, &what, &mut logged).await {
                Ok((statuses, code, reached)) => verdicts.push((format!("{way} {shown:?}"), statuses, code, reached)),
                Err(error) => wrong.push(format!("{what}: {error:#}")),
            }
            field.reached();
        }
    }
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    field.check_log(&logged).await?;
    Ok(verdicts)
}

async fn one(
    field: &Field,
    wire: &mut Wire,
    case: &Case,
    what: &str,
    logged: &mut Vec<Logged>,
) -> Result<(Vec<u16>, Option<String>, Vec<String>)> {
    wire.send(&case.bytes).await?;
    let (requests, refusal) = match &case.want {
        Want::Passed(requests) => (requests, None),
        Want::Refused(requests, status, code) => (requests, Some((*status, *code))),
    };
    let mut log = |answer: &Message, status, code, route| -> Result<()> {
        let id = answer.header("x-request-id").context("no request id")?.to_owned();
        logged.push(Logged { what: what.to_owned(), id, status, code, route });
        Ok(())
    };
    let mut statuses = Vec::new();
    for (request, route) in requests {
        let head = request.starts_with("HEAD ");
        let answer = if head { wire.answer_to_head().await } else { wire.answer().await };
        let answer = answer.with_context(|| format!("the answer to {request:?}"))?;
        ensure!(answer.status() == 200, "{request:?} got {} {}", answer.start, answer.text());
        let target = request.split(' ').nth(1).unwrap_or_default();
        ensure!(head || answer.text() == target, "{request:?} got the answer of {}", answer.text());
        statuses.push(answer.status());
        log(&answer, 200, None, Some(*route))?;
    }
    let mut code = None;
    let mut open = true;
    if let Some((status, expected)) = refusal {
        let answer = wire.answer().await.context("the refusal")?;
        ensure!(answer.status() == status, "got {} {}", answer.start, answer.text());
        let document = answer.json()?;
        ensure!(document["code"] == expected, "{document}");
        ensure!(answer.header("x-content-type-options").is_some() || field.mode == "detect", "{:?}", answer.headers);
        code = Some(expected.to_owned());
        statuses.push(status);
        log(&answer, status, Some(expected), None)?;
        open = answer.header("connection") != Some("close");
        ensure!(!open || expected != "integrity.framing", "the connection stays open after bad framing");
    }
    if open {
        let answer = wire.ask(CANARY).await.context("the canary")?;
        ensure!(answer.text() == "/canary", "the canary got {} {}", answer.start, answer.text());
    }
    wire.closed(SOON).await?;
    let reached: Vec<String> = field.reached().iter().map(said).filter(|said| said != "GET /canary").collect();
    let expected: Vec<&String> = requests.iter().map(|(request, _)| request).collect();
    ensure!(reached.iter().collect::<Vec<_>>() == expected, "reached the upstream: {reached:?}, not {expected:?}");
    Ok((statuses, code, reached))
}
