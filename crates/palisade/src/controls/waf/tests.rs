//! The WAF in the stack, with small rules; the Core Rule Set itself runs end to end.

use std::net::SocketAddr;

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::body::RequestBody;
use crate::context::{Connection, Listener};
use crate::observe::decisions::Judged;
use crate::testing_local::{Answer, App, request};

/// The guide's own kind of rule, one a place that can be inspected.
const RULES: &str = r#"
SecRequestBodyAccess On
SecRule ARGS|XML:/* "@rx (?i)union\s+select" "id:1,phase:2,deny,status:403,t:none,t:urlDecodeUni,log,msg:'SQL injection',logdata:'%{MATCHED_VAR}',tag:'attack-sqli'"
SecRule REQUEST_HEADERS:User-Agent "@contains sqlmap" "id:2,phase:1,deny,status:403,log,msg:'Scanner',tag:'attack-scanner'"
SecRule REQUEST_BODY "@contains union select" "id:3,phase:2,deny,status:403,log,msg:'In a text'"
SecRule RESPONSE_HEADERS:X-App "@streq leaks" "id:4,phase:3,deny,status:502,log,msg:'Leak'"
SecRule REQUEST_URI "@endsWith /gone" "id:5,phase:1,deny,status:410,log,msg:'Gone'"
"#;

struct Walled {
    app: App,
    dir: tempfile::TempDir,
}

fn policy(dir: &tempfile::TempDir, waf: &str) -> String {
    std::fs::write(dir.path().join("local.conf"), RULES).unwrap();
    format!("[waf]\nrules = [\"{}/local.conf\"]\n{waf}", dir.path().display())
}

fn walled(waf: &str) -> Walled {
    with_rules(RULES, waf)
}

fn with_rules(rules: &str, waf: &str) -> Walled {
    let dir = tempfile::tempdir().unwrap();
    let text = policy(&dir, waf);
    std::fs::write(dir.path().join("local.conf"), rules).unwrap();
    Walled { app: App::start(&text), dir }
}

impl Walled {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Option<String>) {
        let answer = self.app.ask("203.0.113.1", "GET", path, headers).await;
        (answer.status, answer.code())
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.app.send("203.0.113.1", request("POST", path, headers, body.to_owned().into())).await
    }

    async fn pieces(&self, path: &str, kind: &str, pieces: Vec<String>) -> Answer {
        let pieces = pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::from(piece)));
        let body = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
        self.app.send("203.0.113.1", request("POST", path, &[("content-type", kind)], body)).await
    }
}

fn blocked() -> (u16, Option<String>) {
    (403, Some("waf.blocked".to_owned()))
}

const MULTIPART: &str = "multipart/form-data; boundary=b";
/// Of a form: a field, and the beginning of a file.
const FIELD: &str = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n";
const FILE: &str = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n";

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The body of a request as far as it has come.
fn body_of(request: &[u8]) -> Vec<u8> {
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return Vec::new() };
    let (head, mut rest) = request.split_at(end + 4);
    if !has(&head.to_ascii_lowercase(), b"chunked") {
        return rest.to_vec();
    }
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        let chunk = &rest[line + 2..];
        body.extend_from_slice(&chunk[..chunk.len().min(size)]);
        rest = chunk.get(size + 2..).unwrap_or_default();
    }
    body
}

/// What an application behind a socket got so far.
#[derive(Debug, Default)]
struct Got {
    bytes: Vec<u8>,
    /// Connections that have ended.
    ended: usize,
}

/// An application that stops reading a form at its last boundary, as most parsers do, whatever HTTP says of the body.
struct Parser {
    address: SocketAddr,
    got: watch::Receiver<Got>,
}

impl Parser {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, got) = watch::channel(Got::default());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut buffer, mut ran, begin) = (vec![0; 16 << 10], false, sender.borrow().bytes.len());
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    sender.send_modify(|got| got.bytes.extend_from_slice(&buffer[..read]));
                    let runs = !ran && has(&body_of(&sender.borrow().bytes[begin..]), b"--b--");
                    if runs {
                        ran = true;
                        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nran";
                        let _ = stream.write_all(answer).await;
                    }
                }
                sender.send_modify(|got| got.ended += 1);
            }
        });
        Self { address, got }
    }

    async fn until(&self, holds: impl FnMut(&Got) -> bool) {
        let mut got = self.got.clone();
        let waited = tokio::time::timeout(Duration::from_secs(20), got.wait_for(holds)).await;
        assert!(waited.is_ok_and(|got| got.is_ok()), "{}", self.got.borrow().bytes.escape_ascii());
    }

    /// A stack in front of it, for `/up`.
    fn walled(&self, waf: &str) -> Walled {
        let url = format!("http://{}", self.address);
        walled(&format!("[upstreams.app]\nurl = \"{url}\"\n[[route]]\npath = \"/up\"\nupstream = \"app\"\n{waf}"))
    }
}

type Frames = mpsc::UnboundedSender<std::io::Result<Frame<Bytes>>>;

/// A body whose frames are sent by hand.
fn by_hand() -> (Frames, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    (sender, Body::new(StreamBody::new(frames)))
}

fn data(bytes: &[u8]) -> std::io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::copy_from_slice(bytes)))
}

#[tokio::test]
async fn attacks_in_the_head_are_refused() {
    let walled = walled("");
    assert_eq!(walled.get("/echo?q=hello", &[]).await.0, 200);
    assert_eq!(walled.get("/echo?q=1%20union%20select%202", &[]).await, blocked());
    assert_eq!(walled.get("/echo", &[("user-agent", "sqlmap/1.7")]).await, blocked());
    assert_eq!(walled.get("/gone", &[]).await, (410, Some("waf.blocked".to_owned())), "the rule's own status");
    // What integrity drops on forwarding is seen first.
    assert_eq!(walled.get("/echo?q=1%20union%20select%202", &[("x_under", "1")]).await, blocked());
    let long = format!("/echo?q={}", "a".repeat(7000));
    assert_eq!(walled.get(&long, &[]).await.0, 200, "off the I/O threads");
    assert_eq!(walled.get(&format!("{long}+union+select"), &[]).await, blocked());
}

#[tokio::test]
async fn a_redirect_has_the_status_of_its_rule() {
    let rule =
        |id: u16, more: &str| format!("SecRule ARGS:q \"@streq {id}\" \"id:{id},phase:2,redirect:'/there'{more}\"\n");
    let rules: String = [301, 303, 307, 308, 403].map(|status| rule(status, &format!(",status:{status}"))).concat();
    let walled = with_rules(&format!("{rules}{}", rule(1, "")), "");
    for (asked, status) in [(301, 301), (303, 303), (307, 307), (308, 308), (403, 302), (1, 302)] {
        let answer = walled.app.get("203.0.113.1", &format!("/echo?q={asked}")).await;
        assert_eq!((answer.status, answer.header("location").as_deref()), (status, Some("/there")), "{asked}");
    }
}

#[tokio::test]
async fn detect_and_off_refuse_nothing() {
    for waf in ["mode = \"detect\"", "mode = \"off\"", "[[route]]\npath = \"/echo\"\nwaf = { mode = \"off\" }"] {
        let walled = walled(waf);
        assert_eq!(walled.get("/echo?q=union%20select", &[("user-agent", "sqlmap")]).await.0, 200, "{waf}");
        let answer = walled.post("/echo", &[("content-type", "application/json")], r#"{"a":"union select"}"#).await;
        assert_eq!((answer.status, &*answer.text), (200, r#"{"a":"union select"}"#), "{waf}");
        let two = r#"{"a":1,"a":2}"#;
        assert_eq!(walled.post("/echo", &[("content-type", "application/json")], two).await.status, 200, "{waf}");
    }
    let detect = walled("mode = \"detect\"");
    detect.post("/echo", &[("content-type", "application/json")], r#"{"a":"union select"}"#).await;
    let summary = detect.app.handle.live().policy.decisions().summary();
    assert!(summary.groups.keys().any(|group| group.code == "waf.blocked" && group.mode == "detect"));
}

#[tokio::test]
async fn without_rules_there_is_no_stage() {
    let app = App::start("");
    assert!(!app.handle.live().controls().contains(&"waf"));
    assert!(App::problems("[waf]\nparanoia = 2\n").contains("without `rules` the WAF is off"));
    assert!(App::problems("[waf]\nrules = \"builtin\"\n").contains("no rules of its own yet"));
    assert!(walled("").app.handle.live().controls().contains(&"waf"));
}

#[tokio::test]
async fn attacks_in_bodies_never_reach_the_application() {
    let walled = walled("");
    let multipart =
        |value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{value}\r\n--b--\r\n");
    for (kind, good, bad) in [
        ("application/json", r#"{"a":["hello"]}"#.to_owned(), r#"{"a":["union  select"]}"#.to_owned()),
        ("application/problem+json", r#""hello""#.to_owned(), r#""\u0075nion select""#.to_owned()),
        ("application/x-www-form-urlencoded", "a=hello".to_owned(), "a=union+select".to_owned()),
        ("multipart/form-data; boundary=b", multipart("hello"), multipart("union select")),
        ("application/xml", "<a>hello</a>".to_owned(), "<a>union select</a>".to_owned()),
        ("text/plain", "hello".to_owned(), "a union select b".to_owned()),
        ("application/graphql", "{ a }".to_owned(), "{ union select }".to_owned()),
    ] {
        let passed = walled.post("/echo", &[("content-type", kind)], &good).await;
        assert_eq!((passed.status, &*passed.text), (200, &*good), "{kind}");
        let refused = walled.post("/echo", &[("content-type", kind)], &bad).await;
        assert_eq!((refused.status, refused.code()), blocked(), "{kind}");
        let bytes = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let passed = walled.pieces("/echo", kind, bytes(&good)).await;
        assert_eq!((passed.status, &*passed.text), (200, &*good), "{kind} in pieces");
        let refused = walled.pieces("/echo", kind, bytes(&bad)).await;
        assert_eq!((refused.status, refused.code()), blocked(), "{kind} in pieces");
    }
}

#[tokio::test]
async fn padding_hides_nothing() {
    let walled = walled("[limits]\nbody = \"20MiB\"\n[[route]]\npath = \"/ignore\"\nwaf = { body_limit = \"4MiB\" }\n");
    for kib in [1, 8, 128, 1000] {
        let padding = " ".repeat(kib << 10);
        let json = format!("{padding}{{\"a\":\"union select\"}}");
        let answer = walled.pieces("/echo", "application/json", vec![json]).await;
        assert_eq!((answer.status, answer.code()), blocked(), "{kib}");
    }
    let long = || (0..40).map(|_| " ".repeat(64 << 10)).chain(["{\"a\":\"union select\"}".to_owned()]).collect();
    let answer = walled.pieces("/echo", "application/json", long()).await;
    assert_eq!((answer.status, answer.code().as_deref()), (413, Some("waf.limit")));
    let answer = walled.pieces("/ignore", "application/json", long()).await;
    assert_eq!((answer.status, answer.code()), blocked(), "a route that inspects more");
    // Files are no input of rules, and stream: the field behind one is, and ends the body before its end.
    let file = |field: &str| {
        let head = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n".to_owned();
        let file = (0..40).map(|_| "union select ".repeat(5000));
        let tail = format!("\r\n--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{field}\r\n--b--\r\n");
        std::iter::once(head).chain(file).chain([tail]).collect::<Vec<_>>()
    };
    let kind = "multipart/form-data; boundary=b";
    let passed = walled.pieces("/echo", kind, file("hello")).await;
    assert_eq!((passed.status, passed.text), (200, file("hello").concat()));
    let refused = walled.pieces("/echo", kind, file("union select")).await;
    assert_eq!((refused.status, refused.code()), blocked());
    // What is ambiguous in the beginning ends there: the attack behind it is not even looked at.
    let mut twice = file("union select");
    twice[0] = twice[0].replacen("filename=", "filename=\"e\"; filename=", 1);
    let refused = walled.pieces("/echo", kind, twice).await;
    assert_eq!((refused.status, refused.code().as_deref()), (415, Some("waf.ambiguous")));
    let octets = vec!["union select ".repeat(5000); 40];
    let passed = walled.pieces("/echo", "application/octet-stream", octets.clone()).await;
    assert_eq!((passed.status, passed.text), (200, octets.concat()));
}

#[tokio::test]
async fn the_application_never_gets_the_end_of_a_form_that_is_refused() {
    for piece in [1, 3, 100] {
        for end in ["the rest", "never", "trailers", "an empty frame"] {
            for (value, good) in [("union select", false), ("hello", true)] {
                let parser = Parser::start().await;
                let walled = parser.walled("");
                let form = format!("\r\n{FIELD}{value}\r\n--b--\r\n").into_bytes();
                let (start, file) = (FILE.as_bytes(), vec![b'a'; 14_000]);
                let length = (start.len() + 5 * file.len() + 3 + form.len()).to_string();
                let owed = if matches!(end, "the rest" | "never") { form.len() - 2 } else { form.len() };
                let headers = [("content-type", MULTIPART), ("content-length", &length)];
                let (frames, body) = by_hand();
                let sent = walled.app.send("203.0.113.1", request("POST", "/up", &headers, body));
                let sending = async {
                    let frames = frames;
                    let first = [start].into_iter().chain([&file[..]; 5]).chain([&b"END"[..]]);
                    for bytes in first.chain(form[..owed].chunks(piece)) {
                        frames.send(data(bytes)).unwrap();
                    }
                    // So much goes, and what could be the end does not.
                    parser.until(|got| has(&body_of(&got.bytes), b"END")).await;
                    let last = match end {
                        "the rest" => data(&form[owed..]),
                        "never" => Err(std::io::Error::other("gone")),
                        "trailers" => Ok(Frame::trailers(HeaderMap::new())),
                        _ => data(b""),
                    };
                    frames.send(last).unwrap();
                };
                let (answer, ()) = tokio::join!(sent, sending);
                let case = format!("{value} in pieces of {piece}, then {end}");
                let whole = good && end != "never";
                if whole {
                    assert_eq!((answer.status, &*answer.text), (200, "ran"), "{case}");
                } else if end != "never" {
                    assert_eq!((answer.status, answer.code()), blocked(), "{case}");
                }
                // Where it was refused, the connection has ended: nothing comes any more.
                parser.until(|got| if whole { has(&body_of(&got.bytes), b"--b--") } else { got.ended == 1 }).await;
                assert_eq!(has(&body_of(&parser.got.borrow().bytes), b"--b--"), whole, "{case}");
            }
        }
    }
}

/// What ends a stream without a byte is not its end. So long a body is judged aside, while the connection is written to.
#[tokio::test]
async fn the_last_byte_of_a_body_waits_for_its_judgement() {
    let parser = Parser::start().await;
    let walled = parser.walled("waf = { body_limit = \"1KiB\", beyond_limit = \"inspect_head\" }\n");
    for last in [Frame::trailers(HeaderMap::new()), Frame::data(Bytes::new())] {
        let (frames, body) = by_hand();
        for bytes in [&"union select ".repeat(400).into_bytes()[..], b"FIRST", b"LAST"] {
            frames.send(data(bytes)).unwrap();
        }
        let sent = walled.app.send("203.0.113.1", request("POST", "/up", &[("content-type", "text/plain")], body));
        let sending = async {
            let frames = frames;
            parser.until(|got| has(&got.bytes, b"FIRST")).await;
            frames.send(Ok(last)).unwrap();
        };
        let (answer, ()) = tokio::join!(sent, sending);
        assert_eq!((answer.status, answer.code()), blocked());
    }
    parser.until(|got| got.ended == 2).await;
    assert!(!has(&parser.got.borrow().bytes, b"LAST"));
}

/// Some applications act on a field as soon as it has come.
#[tokio::test]
async fn the_first_fields_of_a_form_are_judged_before_any_of_it_goes() {
    let file = "a".repeat(70_000);
    let form = |first: &str| format!("{FIELD}{first}\r\n{FILE}{file}\r\n--b--\r\n").into_bytes();
    for (first, good) in [("union select", false), ("hello", true)] {
        let parser = Parser::start().await;
        let walled = parser.walled("");
        let length = form(first).len().to_string();
        let headers = [("content-type", MULTIPART), ("content-length", &length)];
        for piece in [1000, 65_000, 100_000] {
            let (frames, body) = by_hand();
            form(first).chunks(piece).for_each(|bytes| frames.send(data(bytes)).unwrap());
            drop(frames);
            let answer = walled.app.send("203.0.113.1", request("POST", "/up", &headers, body)).await;
            match good {
                true => assert_eq!((answer.status, &*answer.text), (200, "ran"), "{piece}"),
                false => assert_eq!((answer.status, answer.code()), blocked(), "{piece}"),
            }
        }
        assert_eq!(parser.got.borrow().bytes.is_empty(), !good, "nothing at all of what is refused");
    }
    // What is too long to be held back until the end is refused before it.
    let walled = walled("[[route]]\npath = \"/echo\"\nwaf = { body_limit = \"100KiB\" }\n");
    let (frames, body) = by_hand();
    let long = [FIELD, "union select\r\n", FILE].concat().into_bytes();
    for bytes in [&long[..]].into_iter().chain([file.as_bytes(); 2]) {
        frames.send(data(bytes)).unwrap();
    }
    let headers = [("content-type", MULTIPART)];
    let answer = walled.app.send("203.0.113.1", request("POST", "/echo", &headers, body)).await;
    assert_eq!((answer.status, answer.code()), blocked());
    drop(frames);
}

#[tokio::test]
async fn what_is_yet_to_come_of_a_form_is_not_missing() {
    let rules = "SecRule &ARGS:token \"@eq 0\" \"id:1,phase:2,deny,status:403,log,msg:'no token'\"\n\
        SecAction \"id:2,phase:2,pass,nolog,setvar:tx.times=+1\"\n\
        SecRule TX:times \"@gt 1\" \"id:3,phase:2,deny,status:403,log,msg:'judged twice'\"\n";
    let walled = with_rules(rules, "");
    let token = FIELD.replace("\"a\"", "\"token\"");
    let form = |second: &str| format!("{FIELD}hello\r\n{FILE}{}\r\n{second}x\r\n--b--\r\n", "a".repeat(70_000));
    let whole = form(&token);
    let pieces = |form: &str| form.as_bytes().chunks(9000).map(|p| String::from_utf8_lossy(p).into_owned()).collect();
    let passed = walled.pieces("/echo", MULTIPART, pieces(&whole)).await;
    assert_eq!((passed.status, passed.text), (200, whole));
    let refused = walled.pieces("/echo", MULTIPART, pieces(&form(FIELD))).await;
    assert_eq!((refused.status, refused.code()), blocked());
}

#[tokio::test]
async fn text_behind_a_form_ends_it_before_its_end() {
    let parser = Parser::start().await;
    let walled = parser.walled("");
    let (frames, body) = by_hand();
    let form = format!("{FIELD}hello\r\n{FILE}{}\r\n--b--\r\n", "a".repeat(70_000));
    for bytes in [form.as_bytes(), &b"\r\n".repeat(40_000)] {
        frames.send(data(bytes)).unwrap();
    }
    // Though more of it could come.
    let answer = walled.app.send("203.0.113.1", request("POST", "/up", &[("content-type", MULTIPART)], body)).await;
    assert_eq!((answer.status, answer.code().as_deref()), (415, Some("waf.ambiguous")));
    assert!(!has(&body_of(&parser.got.borrow().bytes), b"--b--"));
    drop(frames);
}

#[tokio::test]
async fn json_by_another_name_is_read_and_other_octets_stream() {
    let walled =
        walled("[limits]\nbody = \"20MiB\"\n[[route]]\npath = \"/ignore\"\nwaf = { beyond_limit = \"pass\" }\n");
    let bad = r#"{"a":["\u0075nion select"]}"#;
    for kind in ["image/png", "application/octet-stream", "video/mp4", "application/pdf", "x/y"] {
        let good = r#"{"a":["hello"]}"#;
        let passed = walled.post("/echo", &[("content-type", kind)], good).await;
        assert_eq!((passed.status, &*passed.text), (200, good), "{kind}");
        for pieces in [vec![bad], vec![" \n", "\t", bad], bad.split("").collect()] {
            let pieces = pieces.into_iter().map(str::to_owned).collect();
            let refused = walled.pieces("/echo", kind, pieces).await;
            assert_eq!((refused.status, refused.code()), blocked(), "{kind}");
        }
        let other = format!("\u{89}PNG\r\n{bad}");
        let passed = walled.post("/echo", &[("content-type", kind)], &other).await;
        assert_eq!((passed.status, passed.text), (200, other), "{kind}");
        let white = walled.post("/echo", &[("content-type", kind)], " \n ").await;
        assert_eq!((white.status, &*white.text), (200, " \n "), "{kind}");
        // What is no JSON after all is nobody's reading.
        let broken = walled.post("/echo", &[("content-type", kind)], "[section]\nkey = 1\n").await;
        assert_eq!(broken.status, 200, "{kind}");
    }
    let long =
        |start: &str| [vec![start.to_owned()], vec![" ".repeat(64 << 10); 40], vec![bad[1..].to_owned()]].concat();
    let refused = walled.pieces("/echo", "image/png", long("{")).await;
    assert_eq!((refused.status, refused.code().as_deref()), (413, Some("waf.limit")));
    assert_eq!(walled.pieces("/echo", "image/png", long(" ")).await.status, 413, "white space alone");
    assert_eq!(walled.pieces("/ignore", "image/png", long("{")).await.status, 200, "the route says so");
}

#[tokio::test]
async fn what_a_rule_forces_is_judged_alike_in_all_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "SecRule REQBODY_PROCESSOR \"!@rx (?:URLENCODED|MULTIPART|XML|JSON)\" \"id:1,phase:1,pass,nolog,ctl:forceRequestBodyVariable=On\"\n\
        SecRule REQUEST_BODY \"@contains union select\" \"id:2,phase:2,deny,status:403,log\"\n";
    std::fs::write(dir.path().join("forced.conf"), rules).unwrap();
    let policy = format!("[limits]\nbody = \"20MiB\"\n[waf]\nrules = \"{}/forced.conf\"\n", dir.path().display());
    let walled = Walled { app: App::start(&policy), dir };
    let kind = "application/octet-stream";
    let whole = format!("x{}union select", "a".repeat(30_000));
    for piece in [1000, 4096, 20_000, 30_005, 40_000] {
        let pieces = whole.as_bytes().chunks(piece).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect();
        let refused = walled.pieces("/echo", kind, pieces).await;
        assert_eq!((refused.status, refused.code()), blocked(), "in pieces of {piece}");
    }
    // What is longer than rules are shown streams.
    let long = vec!["hello ".repeat(10_000); 80];
    let passed = walled.pieces("/echo", kind, long.clone()).await;
    assert_eq!((passed.status, passed.text), (200, long.concat()));
}

#[tokio::test]
async fn every_kind_of_multipart_is_a_form() {
    let walled = walled("");
    let part = |headers: &str, value: &str| format!("--b\r\n{headers}\r\n\r\n{value}\r\n--b--\r\n");
    let field = "Content-Disposition: form-data; name=\"a\"";
    for kind in ["multipart/related; boundary=b", "multipart/mixed; boundary=b", "Multipart/x; boundary=b"] {
        let headers = [("content-type", kind)];
        assert_eq!(walled.post("/echo", &headers, &part(field, "hello")).await.status, 200, "{kind}");
        let refused = walled.post("/echo", &headers, &part(field, "union select")).await;
        assert_eq!((refused.status, refused.code()), blocked(), "{kind}");
        let other = walled.post("/echo", &headers, &part("Content-Type: text/plain", "hello")).await;
        assert_eq!((other.status, other.code().as_deref()), (415, Some("waf.ambiguous")), "{kind}");
    }
}

#[tokio::test]
async fn what_passes_beyond_a_limit_is_no_parsed_body() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "SecArgumentsLimit 10\n\
        SecRule ARGS|REQUEST_COOKIES \"@contains union select\" \"id:1,phase:2,deny,status:403,log\"\n";
    std::fs::write(dir.path().join("few.conf"), rules).unwrap();
    let route = "[[route]]\npath = \"/ignore\"\nwaf = { beyond_limit = \"pass\" }\n";
    let app = App::start(&format!("[waf]\nrules = \"{}/few.conf\"\n{route}", dir.path().display()));
    let walled = Walled { app, dir };
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for body in ["a&".repeat(10) + "q=union+select", "q=union+select&".to_owned() + &"a&".repeat(10)] {
        for path in ["/echo", "/ignore"] {
            let refused = walled.post(path, &form, &body).await;
            assert!(matches!(refused.status, 403 | 413), "{path} {body}: {}", refused.status);
        }
        let query = walled.post(&format!("/ignore?{}", "a&".repeat(11)), &form, &body).await;
        assert!(matches!(query.status, 403 | 413), "a limit of the head hides none of the body: {}", query.status);
    }
    assert_eq!(walled.post("/ignore", &form, "a=hello").await.status, 200);
    let many = "a;".repeat(11);
    assert_eq!(walled.get("/ignore?q=union%20select", &[("cookie", many.as_str())]).await, blocked());
    assert_eq!(walled.get("/ignore?q=hello", &[("cookie", many.as_str())]).await.0, 200, "what was inspected decides");
    assert_eq!(walled.get("/echo?q=hello", &[("cookie", many.as_str())]).await, (413, Some("waf.limit".to_owned())));
}

#[tokio::test]
async fn two_readings_are_refused() {
    let walled = walled("");
    for (headers, body, code) in [
        (vec![("content-type", "application/json")], r#"{"a":1,"a":2}"#, "waf.ambiguous"),
        (vec![("content-type", "application/json")], r#"{"a":1"#, "waf.ambiguous"),
        (vec![("content-type", "application/json")], "\u{feff}{}", "waf.ambiguous"),
        (vec![("content-type", "application/json; charset=utf-7")], "{}", "waf.content_type"),
        (vec![("content-type", "application/json"), ("content-encoding", "gzip")], "{}", "waf.content_type"),
        (vec![("content-type", "application/x-www-form-urlencoded")], "_charset_=utf-7&a=1", "waf.ambiguous"),
        (vec![("content-type", "multipart/form-data; boundary=b")], "--b\r\n", "waf.ambiguous"),
        (vec![], "{}", "waf.content_type"),
    ] {
        let answer = walled.post("/echo", &headers, body).await;
        assert_eq!((answer.status, answer.code().as_deref()), (415, Some(code)), "{headers:?} {body}");
    }
}

#[tokio::test]
async fn exclusions_are_for_a_path_a_field_and_a_rule() {
    let walled = walled(
        "exclude = [{ path = \"/echo\", field = \"json.body\", rules = [\"sqli\"] }, { path = \"/ignore\", rules = [\"2\"] }]",
    );
    let json = [("content-type", "application/json")];
    assert_eq!(walled.post("/echo", &json, r#"{"body":"union select"}"#).await.status, 200);
    assert_eq!(walled.post("/echo", &json, r#"{"title":"union select"}"#).await.status, 403);
    assert_eq!(walled.post("/ignore", &json, r#"{"body":"union select"}"#).await.status, 403);
    assert_eq!(walled.get("/ignore", &[("user-agent", "sqlmap")]).await.0, 200);
    assert_eq!(walled.get("/echo", &[("user-agent", "sqlmap")]).await.0, 403);
    let dir = tempfile::tempdir().unwrap();
    let problems = App::problems(&policy(&dir, "exclude = [{ rules = [\"nosuch\"] }, { path = \"/a\" }]"));
    assert!(problems.contains("no rule has the number or tag `nosuch`"), "{problems}");
    assert!(problems.contains("this would leave out every rule"), "{problems}");
}

#[tokio::test]
async fn the_remedy_is_the_exclusion() {
    let walled = walled("exclude = [{ path = \"/old\", rules = [\"2\"] }]");
    let answer = walled.post("/echo", &[("content-type", "application/json")], r#"{"body":"union select"}"#).await;
    let id = answer.header("x-request-id").unwrap();
    let said = crate::operate::explain(&walled.app.handle, &id);
    let decision = &said["decisions"][0];
    assert_eq!(decision["fields"]["target"], "ARGS:json.body");
    assert_eq!(decision["fields"]["match"], "union select");
    let toml = decision["remedy"]["toml"].as_str().unwrap().to_owned();
    assert!(toml.contains("{ path = \"/old\", rules = [\"2\"] }"), "{toml}");
    assert!(toml.contains("{ path = \"/echo\", field = \"json.body\", rules = [\"1\"] }"), "{toml}");
}

#[tokio::test]
async fn the_remedy_of_a_limit_is_for_that_limit() {
    let walled = walled("");
    let remedy = |finding: &Finding, always: bool| {
        let live = walled.app.handle.live();
        let refusal = judge::limited(finding, always);
        let fields = refusal.fields().iter().map(|(name, value)| (*name, Box::from(&**value))).collect();
        let judged = &Judged { control: "waf", code: refusal.code(), mode: Mode::Block, why: "", fields };
        let (method, host, path, client) = (&Method::POST, "localhost", "/a", "203.0.113.1");
        let policy = &live.policy;
        let rule = policy.rule(policy.rules().find(host, path, method).id());
        let asked = Asked { judged, method, host, path, client, policy, rule };
        policy.controls().waf.control.as_ref().unwrap().remedy(&asked).unwrap()
    };
    let route = |text: &str| Remedy::Route(format!("waf = {{ {text} }}"));
    let decides = || route("beyond_limit = \"inspect_head\"");
    let limit = 512;
    for (finding, always, wanted) in [
        (Finding::BodyTooLong { limit }, true, route("body_limit = \"10MiB\"")),
        (Finding::BodyTooLong { limit }, false, route("body_limit = \"10MiB\"")),
        (Finding::TooManyArguments { limit }, false, decides()),
        (Finding::ValueTooLong { limit }, false, decides()),
        (Finding::NamesTooLong { limit }, false, decides()),
        (Finding::TooDeep { limit }, false, decides()),
        (Finding::OutOfMemory, false, decides()),
        (Finding::Budget { rule: 7 }, false, Remedy::Section("[waf]\nbudget = \"100ms\"".to_owned())),
        (
            Finding::StepLimit { rule: 7 },
            false,
            Remedy::Section("[waf]\nexclude = [\n  { path = \"/a\", rules = [\"7\"] },\n]".to_owned()),
        ),
    ] {
        assert!(finding.is_limit());
        assert_eq!(remedy(&finding, always), wanted, "{finding}");
    }
    for (finding, text) in [
        (Finding::TooManyArguments { limit }, "`SecArgumentsLimit 20000`"),
        (Finding::TooDeep { limit }, "`SecRequestBodyJsonDepthLimit 1024`"),
        (Finding::ValueTooLong { limit }, "the request has to change: a value is longer than 512 bytes"),
        (Finding::NamesTooLong { limit }, "the request has to change: the names in the JSON"),
        (Finding::OutOfMemory, "the request has to change: the transaction holds too many bytes"),
    ] {
        assert!(finding.is_limit());
        let Remedy::Elsewhere(said) = remedy(&finding, true) else { panic!("no policy lets this pass: {finding}") };
        assert!(said.contains(text), "{said}");
    }
}

/// What is proposed for a request, and whether that lets it pass.
#[tokio::test]
async fn the_remedy_of_a_limit_helps() {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let said = async |walled: &Walled, body: &str| {
        let answer = walled.post("/echo", &form, body).await;
        assert_eq!((answer.status, answer.code().as_deref()), (413, Some("waf.limit")));
        let said = crate::operate::explain(&walled.app.handle, &answer.header("x-request-id").unwrap());
        said["decisions"][0]["remedy"].clone()
    };
    let long = format!("a={}", "b".repeat(2000));
    let walled = with_rules(RULES, "body_limit = \"1KiB\"\n");
    let toml = said(&walled, &long).await["toml"].as_str().unwrap().to_owned();
    walled.app.reload(&format!("{}body_limit = \"1KiB\"\n{toml}\n", policy(&walled.dir, "")));
    assert_eq!(walled.post("/echo", &form, &long).await.status, 200, "{toml}");

    let rules = |limit: &str| format!("SecArgumentsLimit {limit}\nSecRule ARGS \"@streq bad\" \"id:1,phase:2,deny\"\n");
    let walled = with_rules(&rules("10"), "");
    let many = "a=1&".repeat(11);
    let text = said(&walled, &many).await["text"].as_str().unwrap().to_owned();
    assert!(text.contains("`SecArgumentsLimit 20`"), "{text}");
    std::fs::write(walled.dir.path().join("local.conf"), rules("20")).unwrap();
    walled.app.handle.reload().unwrap();
    assert_eq!(walled.post("/echo", &form, &many).await.status, 200);

    let walled = with_rules(&format!("SecRequestBodyNoFilesLimit 1000\n{}", rules("10")), "");
    let text = said(&walled, &long).await["text"].as_str().unwrap().to_owned();
    assert!(text.contains("1000 bytes: remove `SecRequestBodyLimit`"), "{text}");
    std::fs::write(walled.dir.path().join("local.conf"), rules("10")).unwrap();
    walled.app.handle.reload().unwrap();
    assert_eq!(walled.post("/echo", &form, &long).await.status, 200);
}

#[tokio::test]
async fn what_a_message_repeats_is_redacted() {
    let dir = tempfile::tempdir().unwrap();
    let text = policy(&dir, "");
    let rule = "SecRule ARGS \"@contains union\" \"id:1,phase:2,deny,status:403,log,msg:'Found %{MATCHED_VAR}'\"\n";
    std::fs::write(dir.path().join("local.conf"), rule).unwrap();
    let app = App::start(&text);
    let answer = app.ask("203.0.113.1", "GET", "/echo?q=union+password%3Dhunter2", &[]).await;
    assert_eq!((answer.status, answer.code()), blocked());
    let said = crate::operate::explain(&app.handle, &answer.header("x-request-id").unwrap());
    assert_eq!(said["decisions"][0]["fields"]["msg"], "Found union password=[redacted]");
    assert!(!said.to_string().contains("hunter2"), "{said}");
}

/// What a reload leaves behind of the rules before, other engines keep until memory is out (ModSecurity's issue 2848).
#[tokio::test]
async fn a_thousand_reloads_leave_one_rule_set() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(&policy(&dir, ""));
    let file = dir.path().join("local.conf");
    let mut old = Vec::new();
    for round in 0..1000 {
        let live = app.handle.live();
        old.push(Arc::downgrade(&live.policy.controls().waf.control.as_ref().unwrap().0.sets[0]));
        drop(live);
        std::fs::write(&file, format!("SecRule ARGS \"@streq bad{round}\" \"id:{},phase:2,deny\"\n", round + 1))
            .unwrap();
        app.handle.reload().unwrap();
        let status = app.ask("203.0.113.1", "GET", &format!("/echo?q=bad{round}"), &[]).await.status;
        assert_eq!(status, 403, "the rules of reload {round} are in force");
    }
    assert_eq!(old.iter().filter(|rules| rules.strong_count() > 0).count(), 0);
}

#[tokio::test]
async fn plugins_of_a_rule_set_are_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    };
    write("rules/REQUEST-942.conf", RULES);
    let app = App::start(&format!("[waf]\nrules = \"{}\"\n", dir.path().display()));
    let ask = async |word: &str| app.get("203.0.113.1", &format!("/echo?q={word}")).await.status;
    assert_eq!((ask("union+select").await, ask("after").await), (403, 200));
    write("plugins/mine-before.conf", "SecAction \"id:9,phase:1,pass,nolog,ctl:ruleRemoveById=1\"\n");
    write("plugins/mine-after.conf", "SecRule ARGS:q \"@streq after\" \"id:10,phase:2,deny,status:403\"\n");
    app.handle.reload().unwrap();
    assert_eq!((ask("union+select").await, ask("after").await), (200, 403), "a reload sees the new folder");
}

#[tokio::test]
async fn rules_that_never_match_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = |rules: &str| {
        let text = policy(&dir, "");
        std::fs::write(dir.path().join("local.conf"), rules).unwrap();
        App::problems(&text)
    };
    let asks = "SecRule REMOTE_ADDR \"@geoLookup\" \"id:7,phase:1,deny\"\nSecRule REMOTE_ADDR \"@rbl bl.example\" \"id:8,phase:1,deny\"\n";
    assert!(said(asks).contains("never match: 7, 8"), "{}", said(asks));
    let gated =
        "SecRule TX:countries \"!@rx ^$\" \"id:7,phase:1,deny,chain\"\nSecRule REMOTE_ADDR \"@geoLookup\" \"\"\n";
    assert!(!said(gated).contains("never match"), "configured away: {}", said(gated));
    assert!(said("SecGeoLookupDb x.dat\n").contains("no country database"));
}

#[tokio::test]
async fn an_encoding_is_undone_for_rules_and_application_alike() {
    use std::io::Write as _;
    let gzip = |text: &str| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    };
    let walled = walled("[limits]\nbody = \"20MiB\"\n[[route]]\npath = \"/echo\"\nwaf = { encodings = [\"gzip\"] }\n");
    let send = async |path: &str, kind: &str, encoding: &str, body: Vec<u8>, piece: usize| {
        let length = body.len().to_string();
        let headers = [("content-type", kind), ("content-encoding", encoding), ("content-length", &length)];
        let pieces: Vec<_> = body.chunks(piece).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        let body = axum::body::Body::from_stream(futures_util::stream::iter(pieces));
        walled.app.send("203.0.113.1", request("POST", path, &headers, body)).await
    };
    for kind in ["application/json", "text/plain", "image/png", "application/octet-stream"] {
        for (encoding, piece) in [("gzip", 1), ("x-gzip", 7), ("GZIP", 4096)] {
            let good = format!("{{\"a\":\"{}\"}}", "hello ".repeat(500));
            let passed = send("/echo", kind, encoding, gzip(&good), piece).await;
            assert_eq!((passed.status, passed.text), (200, good), "{kind} {encoding}");
            let refused = send("/echo", kind, encoding, gzip(r#"{"a":"\u0075nion select"}"#), piece).await;
            assert_eq!((refused.status, refused.code()), blocked(), "{kind} {encoding}");
        }
        // Where the route does not say so, only one side might undo it.
        let refused = send("/ignore", kind, "gzip", gzip("{}"), 4096).await;
        assert_eq!((refused.status, refused.code().as_deref()), (415, Some("waf.content_type")), "{kind}");
        for encoding in ["br", "gzip, gzip", "gzip,", "", "deflate"] {
            let refused = send("/echo", kind, encoding, gzip("{}"), 4096).await;
            assert_eq!((refused.status, refused.code().as_deref()), (415, Some("waf.content_type")), "{encoding}");
        }
        assert_eq!(send("/echo", kind, "identity", b"{}".to_vec(), 9).await.status, 200);
    }
    let two = [gzip(r#"{"a":"union "#), gzip(r#"select"}"#)].concat();
    assert_eq!(send("/echo", "application/json", "gzip", two, 9).await.code(), blocked().1, "two members");
    let mut cut = gzip("{}");
    cut.truncate(cut.len() - 1);
    let mut wrong = gzip("{}");
    wrong[12] ^= 0x55;
    for broken in [cut, wrong, b"{}".to_vec(), [gzip("{}"), b"more".to_vec()].concat()] {
        let refused = send("/echo", "image/png", "gzip", broken, 4096).await;
        assert_eq!((refused.status, refused.code().as_deref()), (415, Some("waf.ambiguous")));
    }
    // A thousand times as long: nobody is sent what becomes of it.
    for kind in ["application/json", "image/png"] {
        let refused = send("/echo", kind, "gzip", gzip(&" ".repeat(8 << 20)), 4096).await;
        assert_eq!((refused.status, refused.code().as_deref()), (413, Some("waf.limit")), "{kind}");
    }
    let refused = send("/echo", "image/png", "gzip", gzip(&format!("\u{89}PNG{}", "a".repeat(8 << 20))), 4096).await;
    assert_eq!((refused.status, refused.code().as_deref()), (413, Some("waf.limit")), "while it streams");
    let id = send("/ignore", "image/png", "gzip", gzip("{}"), 9).await.header("x-request-id").unwrap();
    let said = crate::operate::explain(&walled.app.handle, &id);
    let toml = said["decisions"][0]["remedy"]["toml"].as_str().unwrap();
    assert!(toml.contains("waf = { encodings = [\"gzip\"] }"), "{toml}");
}

#[tokio::test]
async fn wrong_rules_say_where_and_keep_the_old_policy() {
    let dir = tempfile::tempdir().unwrap();
    let text = policy(&dir, "");
    let app = App::start(&text);
    let file = dir.path().join("local.conf");
    std::fs::write(&file, "SecRule ARGZ \"@rx x\" \"id:1,deny\"\n\nSecRul ARGS \"@rx x\" \"id:2,deny\"\n").unwrap();
    let problems = app.handle.reload().unwrap_err().render(false);
    for part in ["local.conf:1", "did you mean `ARGS`?", "local.conf:3", "did you mean `SecRule`?"] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
    let attack = || app.ask("203.0.113.1", "GET", "/echo?q=union%20select", &[]);
    assert_eq!(attack().await.status, 403, "the old rules stay in force");
    // A switch is put over what is in force, whatever lies on disk.
    let waf = crate::controls::INFOS.iter().position(|info| info.name == "waf").unwrap();
    let until = palisade_base::Timestamp(app.clock.now().0 + 60_000);
    let over = crate::policy::Override {
        control: ControlId(u8::try_from(waf).unwrap()),
        mode: crate::control::Mode::Detect,
        route: None,
        until,
        reason: String::new(),
    };
    app.handle.switch(over).unwrap();
    assert_eq!(attack().await.status, 200);
    std::fs::write(&file, "SecRule ARGS \"@streq other\" \"id:9,phase:2,deny\"\n").unwrap();
    app.handle.unswitch(|_| true).unwrap();
    assert_eq!(attack().await.status, 403);
    app.handle.reload().unwrap();
    assert_eq!(attack().await.status, 200, "new rules");
}

#[tokio::test]
async fn answers_are_judged_where_rules_ask() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "SecRule RESPONSE_HEADERS:Access-Control-Allow-Origin \"@rx .\" \"id:1,phase:3,deny,status:502\"\n\
        SecResponseBodyAccess On\nSecResponseBodyMimeType text/plain\n\
        SecRule RESPONSE_BODY \"@contains not read\" \"id:2,phase:4,deny,status:500\"\n";
    std::fs::write(dir.path().join("answers.conf"), rules).unwrap();
    let app = App::start(&format!("[waf]\nrules = \"{}/*.conf\"\n", dir.path().display()));
    for (path, status) in [("/own-cors", 502), ("/ignore", 500), ("/echo", 200)] {
        assert_eq!(app.ask("203.0.113.1", "GET", path, &[]).await.status, status, "{path}");
    }
}

/// Off the I/O threads; what is not refused arrives as it was.
#[tokio::test]
async fn long_answers_are_judged_alike() {
    let rules = "SecResponseBodyAccess On\nSecResponseBodyMimeType application/octet-stream\n\
        SecRule RESPONSE_BODY \"@contains a trace\" \"id:1,phase:4,deny,status:500,log,msg:'Trace'\"\n";
    for (mode, status) in [("block", 500), ("detect", 200)] {
        let walled = with_rules(rules, &format!("mode = \"{mode}\"\n"));
        for bytes in [10, 10_000, 300_000] {
            let good = "b".repeat(bytes);
            let passed = walled.post("/echo", &[("content-type", "text/plain")], &good).await;
            assert_eq!(passed.header("content-type").as_deref(), Some("application/octet-stream"));
            assert_eq!((passed.status, passed.text), (200, good), "{mode} {bytes}");
            let bad = walled.post("/echo", &[("content-type", "text/plain")], &("b".repeat(bytes) + "a trace")).await;
            assert_eq!(bad.status, status, "{mode} {bytes}");
        }
    }
}

#[tokio::test]
async fn rules_say_which_answers_are_read() {
    let rules = |setting: &str, rule: &str| {
        format!(
            "SecResponseBodyAccess {setting}\nSecResponseBodyMimeType text/plain\n\
            SecRule REQUEST_URI \"@beginsWith /ignore?read\" \"id:1,phase:1,pass,nolog,ctl:responseBodyAccess={rule}\"\n\
            SecRule RESPONSE_BODY \"@contains not read\" \"id:2,phase:4,deny,status:500\"\n"
        )
    };
    for (setting, rule, without, with) in [("Off", "On", 200, 500), ("On", "Off", 500, 200), ("Off", "Off", 200, 200)] {
        let walled = with_rules(&rules(setting, rule), "");
        assert_eq!(walled.get("/ignore", &[]).await.0, without, "{setting} {rule}");
        assert_eq!(walled.get("/ignore?read", &[]).await.0, with, "{setting} {rule}");
    }
}

#[tokio::test]
async fn rules_know_both_ends_of_a_connection() {
    let rules = "SecRule REMOTE_ADDR \"@streq 203.0.113.1\" \"id:1,phase:1,deny,chain\"\n\
        SecRule REMOTE_PORT \"@eq 4242\" \"chain\"\n\
        SecRule SERVER_ADDR \"@streq 192.0.2.7\" \"chain\"\n\
        SecRule SERVER_PORT \"@eq 8443\" \"\"\n\
        SecRule SERVER_ADDR \"@rx ^0\" \"id:2,phase:1,deny\"\n";
    let walled = with_rules(rules, "");
    let peer = "203.0.113.1:4242".parse().unwrap();
    for (local, status) in [("192.0.2.7:8443", 403), ("[::ffff:192.0.2.7]:8443", 403), ("192.0.2.8:8443", 200)] {
        let connection = Connection::new(peer, local.parse().unwrap(), None, Listener::Embedded);
        let request = request("GET", "/echo", &[], Body::empty()).map(RequestBody::axum);
        let answer = walled.app.handle.live().serve(&Arc::new(connection), request).await;
        assert_eq!(answer.status(), status, "{local}");
    }
    assert_eq!(walled.get("/echo", &[]).await.0, 200, "an end that is not known has no address");
}

#[tokio::test]
async fn rules_see_the_target_of_the_request_line() {
    let rules = "SecRule REQUEST_URI_RAW \"@streq http://localhost/echo?a=1\" \"id:1,phase:1,deny,status:410,chain\"\n\
        SecRule REQUEST_LINE \"@streq GET http://localhost/echo?a=1 HTTP/1.1\" \"chain\"\n\
        SecRule REQUEST_URI \"@streq /echo?a=1\" \"chain\"\n\
        SecRule REQUEST_FILENAME \"@streq /echo\" \"\"\n\
        SecRule REQUEST_URI_RAW \"@streq /echo?a=1\" \"id:2,phase:1,deny,status:409\"\n";
    let walled = with_rules(rules, "");
    for (version, target, status) in [
        (Version::HTTP_11, "http://localhost/echo?a=1", 410),
        (Version::HTTP_11, "/echo?a=1", 409),
        (Version::HTTP_2, "http://localhost/echo?a=1", 409),
        (Version::HTTP_11, "http://localhost/echo?a=2", 200),
    ] {
        let mut request = request("GET", target, &[], Body::empty());
        *request.version_mut() = version;
        let answer = walled.app.send("203.0.113.1", request).await;
        assert_eq!(answer.status, status, "{version:?} {target}");
    }
}

#[tokio::test]
async fn what_rules_keep_outlives_requests_and_reloads() {
    let counts = "SecAction \"id:1,phase:1,pass,nolog,initcol:ip=%{REMOTE_ADDR},setvar:ip.x=+1\"\n\
        SecRule IP:X \"@gt 3\" \"id:2,phase:1,deny,status:429,log,msg:'Too often'\"\n";
    let answers = "SecRule RESPONSE_STATUS \"@eq 599\" \"id:3,phase:3,deny\"\n";
    for rules in [counts.to_owned(), format!("{counts}{answers}")] {
        let walled = with_rules(&rules, "");
        let ask = async |peer: &str| walled.app.get(peer, "/echo").await.status;
        for _ in 0..3 {
            assert_eq!(ask("203.0.113.1").await, 200);
        }
        let before = Arc::clone(&walled.app.handle.live().policy.controls().waf.control.as_ref().unwrap().0.sets[0]);
        std::fs::write(walled.dir.path().join("local.conf"), format!("{rules}# other rules\n")).unwrap();
        walled.app.handle.reload().unwrap();
        let live = walled.app.handle.live();
        assert!(!Arc::ptr_eq(&before, &live.policy.controls().waf.control.as_ref().unwrap().0.sets[0]));
        assert_eq!(ask("203.0.113.1").await, 429, "a reload forgets nothing");
        assert_eq!(ask("203.0.113.2").await, 200, "each address by itself");
        assert_eq!(ask("203.0.113.1").await, 429);
    }
    // An application that does not answer keeps nobody from being counted.
    let away = "[upstreams.app]\nurl = \"http://127.0.0.1:1\"\n[[route]]\npath = \"/up\"\nupstream = \"app\"\n";
    let walled = with_rules(&format!("{counts}{answers}"), away);
    for _ in 0..3 {
        let status = walled.get("/up", &[]).await.0;
        assert!(matches!(status, 502 | 503), "{status}");
    }
    assert_eq!(walled.get("/up", &[]).await.0, 429);
    let walled = self::walled("");
    assert_eq!(walled.get("/echo?q=hello", &[]).await.0, 200);
    let live = walled.app.handle.live();
    assert!(!live.policy.controls().waf.control.as_ref().unwrap().0.kept[0].is_used(), "rules that keep nothing");
}

#[tokio::test]
async fn no_time_left_is_beyond_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let many: String = (1..3000)
        .map(|id| format!("SecRule ARGS \"!@rx .\" \"id:{id},phase:2,deny,t:none,t:sha1,t:hexEncode\"\n"))
        .collect();
    std::fs::write(dir.path().join("slow.conf"), many).unwrap();
    let rules = format!("rules = \"{}/slow.conf\"\nbudget = \"1ms\"\n", dir.path().display());
    let route = "[[route]]\npath = \"/ignore\"\nwaf = { beyond_limit = \"pass\" }\n";
    let app = App::start(&format!("[limits]\nurl_bytes = \"64KiB\"\n[waf]\n{rules}{route}"));
    let query: Vec<String> = (0..1500).map(|n| format!("a{n}=abab{n}")).collect();
    let ask = |path: &str| format!("{path}?{}", query.join("&"));
    let answer = app.ask("203.0.113.1", "GET", &ask("/echo"), &[]).await;
    assert_eq!((answer.status, answer.code().as_deref()), (413, Some("waf.limit")));
    assert_eq!(app.ask("203.0.113.1", "GET", &ask("/ignore"), &[]).await.status, 200);
}
