//! One attack in the wrappings that bodies have: refused, or not what the application reads.
//!
//! The rule of these tests looks at values only, never at raw bytes: it finds the attack where the body was read as the
//! application reads it, and nowhere else.

use anyhow::{Context as _, Result, ensure};
use palisade_test::python::App;
use palisade_test::upstream::Step;
use palisade_test::{Body, Client, Palisade, Upstream, eventually};
use serde_json::Value;

use crate::support::{SOON, written_policy};

const RULE: &str = r#"SecRequestBodyAccess On
SecRule ARGS|ARGS_NAMES|FILES|FILES_NAMES|XML:/*|XML://@* "@rx (?i)union select" "id:1,phase:2,deny,status:403,log,msg:'an attack',logdata:'%{MATCHED_VAR}'"
"#;
const ATTACK: &str = "union select";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=b";

struct Wrapped {
    name: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

/// A body of one type.
fn typed(name: &'static str, kind: &'static str, body: impl Into<Vec<u8>>) -> Wrapped {
    Wrapped { name, headers: vec![("content-type", kind)], body: body.into() }
}

/// The same with another header.
fn with(name: &'static str, kind: &'static str, header: (&'static str, &'static str), body: &str) -> Wrapped {
    Wrapped { name, headers: vec![("content-type", kind), header], body: body.into() }
}

fn wide(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(order).collect()
}

/// A multipart body of one part with these headers.
fn part(headers: &str, value: &str) -> String {
    format!("--b\r\n{headers}\r\n\r\n{value}\r\n--b--\r\n")
}

const FIELD: &str = "Content-Disposition: form-data; name=\"a\"";
const OBJECT: &str = r#"{"a":"union select"}"#;
/// The same where nobody sees it who does not read JSON.
const ESCAPED: &str = r#"{"a":"\u0075nion \u0073elect"}"#;
const FIELDS: &str = "a=%75nion+%73elect";

fn json() -> Vec<Wrapped> {
    vec![
        typed("JSON", JSON, OBJECT),
        typed("escapes", JSON, ESCAPED),
        typed("a key", JSON, r#"{"\u0075nion select":1}"#),
        typed("deep", JSON, r#"{"a":[{"b":[["union select"]]}]}"#),
        typed("a string alone", JSON, r#""union select""#),
        typed("a key twice, first", JSON, r#"{"a":"union select","a":"x"}"#),
        typed("a key twice, last", JSON, r#"{"a":"x","\u0061":"union select"}"#),
        typed("a byte order mark", JSON, format!("\u{feff}{OBJECT}")),
        typed("UTF-16LE", JSON, wide(OBJECT, u16::to_le_bytes)),
        typed("UTF-16BE", JSON, wide(OBJECT, u16::to_be_bytes)),
        typed("UTF-16 with a mark", JSON, wide(&format!("\u{feff}{OBJECT}"), u16::to_le_bytes)),
        typed("UTF-32", JSON, OBJECT.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect::<Vec<u8>>()),
        typed("charset=utf-7", "application/json; charset=utf-7", r#"{"a":"+AHU-nion select"}"#),
        typed("charset=utf-16", "application/json; charset=utf-16", wide(OBJECT, u16::to_le_bytes)),
        typed("charset in quotes", "application/json; charset=\"utf-8\"", ESCAPED),
        typed("two charsets", "application/json; charset=utf-8; charset=utf-7", r#"{"a":"+AHU-nion select"}"#),
        typed("a charset by another name", "application/json; xcharset=utf-8; charset=utf-7", r#"{"a":"+AHU-n"}"#),
        typed("NaN before", JSON, r#"{"b":NaN,"a":"union select"}"#),
        typed("Infinity before", JSON, r#"{"b":-Infinity,"a":"union select"}"#),
        typed("a comma behind", JSON, r#"{"a":"union select",}"#),
        typed("a comment", JSON, r#"{/* */"a":"union select"}"#),
        typed("half a surrogate pair", JSON, r#"{"a":"union select\ud800"}"#),
        typed("not UTF-8", JSON, [&b"{\"a\":\"\xffunion select\"}"[..]].concat()),
        typed("two documents", JSON, format!("{{}}{OBJECT}")),
        typed("application/x+json", "application/x+json", ESCAPED),
        typed("application/vnd.api+json", "application/vnd.api+json", ESCAPED),
        typed("text/json", "text/json", ESCAPED),
        typed("upper case", "APPLICATION/JSON", ESCAPED),
        typed("an empty parameter", "application/json;", ESCAPED),
        typed("an image", "image/png", ESCAPED),
        typed("octets", "application/octet-stream", ESCAPED),
        typed("octets behind white space", "application/octet-stream", format!(" \r\n\t{ESCAPED}")),
        typed("wide octets", "application/octet-stream", wide(ESCAPED, u16::to_le_bytes)),
        typed("a mixed multipart", "multipart/mixed; boundary=b", ESCAPED),
        typed("a type that is none", "json", ESCAPED),
        typed("a type with a blank", "application /json", ESCAPED),
        typed("a type of three words", "application/json/x", ESCAPED),
        typed("any type", "*/*", ESCAPED),
        typed("a type behind another", "image/png; application/json", ESCAPED),
        typed("two types in one", "application/json, text/plain", ESCAPED),
        typed("text/plain", "text/plain", OBJECT),
        typed("text/plain, escapes", "text/plain", ESCAPED),
        typed("text/plain, UTF-16", "text/plain", wide(ESCAPED, u16::to_le_bytes)),
        typed("text/plain, NaN before", "text/plain", r#"{"b":NaN,"a":"\u0075nion select"}"#),
        typed("text/plain, a mark", "text/plain", format!("\u{feff}{ESCAPED}")),
        typed("text/csv", "text/csv", "a\r\nunion select\r\n"),
        typed("application/yaml", "application/yaml", "a: union select"),
        typed("application/graphql", "application/graphql", "{ union select }"),
        typed("application/javascript", "application/javascript", ESCAPED),
        typed("a form that is JSON", FORM, ESCAPED),
        typed("a form that is wide JSON", FORM, wide(ESCAPED, u16::to_le_bytes)),
        Wrapped { name: "no type, JSON", headers: vec![], body: ESCAPED.into() },
        Wrapped { name: "no type, a form", headers: vec![], body: FIELDS.into() },
        typed("an empty type", "", ESCAPED),
        with("two types", JSON, ("content-type", "text/plain"), ESCAPED),
        with("two types, the other first", "text/plain", ("content-type", JSON), ESCAPED),
        with("gzip", JSON, ("content-encoding", "gzip"), OBJECT),
        with("gzip twice", JSON, ("content-encoding", "gzip, gzip"), OBJECT),
        with("deflate", JSON, ("content-encoding", "deflate"), OBJECT),
        with("br", JSON, ("content-encoding", "br"), OBJECT),
        with("identity", JSON, ("content-encoding", "identity"), ESCAPED),
        with("an unknown encoding", JSON, ("content-encoding", "x"), ESCAPED),
        with("an empty encoding", JSON, ("content-encoding", ""), ESCAPED),
        with("octets with an encoding", "application/octet-stream", ("content-encoding", "deflate"), ESCAPED),
        with("an image with two encodings", "image/png", ("content-encoding", "br, identity"), ESCAPED),
        typed("charset=ibm037", "application/json; charset=ibm037", ESCAPED),
        typed("an image in another charset", "image/png; charset=utf-16", wide(ESCAPED, u16::to_be_bytes)),
        typed(
            "octets in UTF-32",
            "application/octet-stream",
            ESCAPED.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect::<Vec<u8>>(),
        ),
        typed("octets with a mark", "application/octet-stream", format!("\u{feff}{ESCAPED}")),
        typed("octets, NaN before", "application/octet-stream", r#"[NaN,-Infinity,{"a":"\u0075nion select"}]"#),
        typed("octets, a key twice", "application/octet-stream", r#"{"a":"x","a":"\u0075nion select"}"#),
        typed("an image behind a comment", "image/png", format!("/**/{ESCAPED}")),
        typed("an image behind a line of comment", "image/png", format!("// x\n{ESCAPED}")),
        typed("an image in single quotes", "image/png", r"{'a':'\u0075nion select'}"),
        typed("an image with a bare key", "image/png", r#"{a:"\u0075nion select"}"#),
        typed("lines of JSON", "application/x-ndjson", format!("{{}}\n{ESCAPED}\n")),
    ]
}

fn forms() -> Vec<Wrapped> {
    vec![
        typed("a form", FORM, "a=union+select"),
        typed("escapes in a form", FORM, FIELDS),
        typed("a name", FORM, "%75nion+select=1"),
        typed("a name without a value", FORM, "b=1&union%20select"),
        typed("semicolons", FORM, "b=1;a=%75nion+select"),
        typed("semicolons and ampersands", FORM, "c=1&b=1;%75nion+select"),
        typed("_charset_", FORM, "_charset_=utf-7&a=union+select"),
        typed("a broken escape", FORM, "b=%zz&a=%75nion+select"),
        typed("a form in ibm037", "application/x-www-form-urlencoded; charset=ibm037", FIELDS),
        typed("a form in latin-1", "application/x-www-form-urlencoded; charset=iso-8859-1", FIELDS),
        with("a form, gzip", FORM, ("content-encoding", "gzip"), FIELDS),
    ]
}

fn multipart() -> Vec<Wrapped> {
    let field = part(FIELD, ATTACK);
    let two = |first: &str, second: &str| format!("--b\r\n{first}\r\n\r\nx\r\n{}", part(second, ATTACK));
    vec![
        typed("multipart", MULTIPART, field.clone()),
        typed("a name without quotes", MULTIPART, part("Content-Disposition: form-data; name=a", ATTACK)),
        typed("two names", MULTIPART, part("Content-Disposition: form-data; name=x; name=\"a\"", ATTACK)),
        typed("a name with an escape", MULTIPART, part("Content-Disposition: form-data; name=\"a\\\"b\"", ATTACK)),
        typed("name*", MULTIPART, part("Content-Disposition: form-data; name*=utf-8''a", ATTACK)),
        typed("filename*", MULTIPART, part(&format!("{FIELD}; filename*=utf-8''f"), ATTACK)),
        typed("filename*0", MULTIPART, part(&format!("{FIELD}; filename*0=\"sh\"; filename*1=\".php\""), ATTACK)),
        typed("filename*0*", MULTIPART, part(&format!("{FIELD}; filename*0*=utf-8''sh; filename*1=.php"), ATTACK)),
        typed("name*0", MULTIPART, part(&format!("{FIELD}; name*0=\"b\""), ATTACK)),
        typed(
            "both file names",
            MULTIPART,
            part(&format!("{FIELD}; filename=f; filename*=utf-8''union%20select"), "x"),
        ),
        typed("a file without a name", MULTIPART, part(&format!("{FIELD}; filename=\"\""), ATTACK)),
        typed("in a file's name", MULTIPART, part(&format!("{FIELD}; filename=\"union select\""), "x")),
        typed("in a file's name, semicolon", MULTIPART, part(&format!("{FIELD}; filename=\"a;union select\""), "x")),
        typed("two dispositions", MULTIPART, part(&format!("{FIELD}; filename=f\r\n{FIELD}"), ATTACK)),
        typed("before the first boundary", MULTIPART, format!("x\r\n{field}")),
        typed("behind the last boundary", MULTIPART, format!("{}{field}", part(FIELD, "x"))),
        typed("line feeds", MULTIPART, field.replace("\r\n", "\n")),
        typed("line feeds between headers", MULTIPART, part(FIELD, ATTACK).replacen("\r\n", "\n", 1)),
        typed("a folded header", MULTIPART, part("Content-Disposition: form-data;\r\n name=\"a\"", ATTACK)),
        typed("base64", MULTIPART, part(&format!("{FIELD}\r\nContent-Transfer-Encoding: base64"), "dW5pb24gc2VsZWN0")),
        typed(
            "quoted-printable",
            MULTIPART,
            part(&format!("{FIELD}\r\nContent-Transfer-Encoding: quoted-printable"), "=75nion select"),
        ),
        typed(
            "a part in UTF-7",
            MULTIPART,
            part(&format!("{FIELD}\r\nContent-Type: text/plain; charset=utf-7"), "+AHU-"),
        ),
        typed(
            "nested",
            MULTIPART,
            part(
                &format!("{FIELD}\r\nContent-Type: multipart/mixed; boundary=c"),
                &format!("--c\r\n{FIELD}\r\n\r\nunion select\r\n--c--"),
            ),
        ),
        typed("no end", MULTIPART, field.replace("--b--\r\n", "")),
        typed(
            "a shorter boundary",
            "multipart/form-data; boundary=bb",
            field.replace("--b", "--bb").replacen("--bb", "--b", 1),
        ),
        typed("two boundaries", "multipart/form-data; boundary=c; boundary=b", field.clone()),
        typed("boundary*", "multipart/form-data; boundary*=utf-8''b", field.clone()),
        typed("no boundary", "multipart/form-data", field.clone()),
        typed("a boundary in quotes", "multipart/form-data; boundary=\"b\"", field.clone()),
        typed("a boundary with a blank", "multipart/form-data; boundary=\"b c\"", field.replace("--b", "--b c")),
        typed("spaces behind a boundary", MULTIPART, field.replacen("--b\r\n", "--b  \r\n", 1)),
        typed("a field behind a file", MULTIPART, two(&format!("{FIELD}; filename=f"), FIELD)),
        typed("one name for a field and a file", MULTIPART, two(FIELD, FIELD)),
        typed("multipart/form-data in capitals", "Multipart/Form-Data; Boundary=b", field),
    ]
}

fn xml() -> Vec<Wrapped> {
    const XML: &str = "application/xml";
    vec![
        typed("XML", XML, "<a>union select</a>"),
        typed("an attribute", XML, "<a b=\"union select\"/>"),
        typed("CDATA", XML, "<a><![CDATA[union select]]></a>"),
        typed("a reference", XML, "<a>&#117;nion select</a>"),
        typed("an entity", XML, "<!DOCTYPE a [<!ENTITY e \"union select\">]><a>&e;</a>"),
        typed("XML in UTF-16", XML, wide("<a>union select</a>", u16::to_le_bytes)),
        typed("XML in UTF-7", XML, "<?xml version=\"1.0\" encoding=\"utf-7\"?><a>+AHU-nion select</a>"),
        typed("text/xml", "text/xml", "<a>&#x75;nion select</a>"),
        typed("application/soap+xml", "application/soap+xml", "<a>&#x75;nion select</a>"),
    ]
}

/// What comes to the application without being refused, because no parser finds the attack there.
const HARMLESS: &[&str] = &[];

/// Sends a wrapping, as it is.
async fn send(client: &Client, path: &str, wrapped: &Wrapped) -> Result<(u16, String, Value)> {
    let mut request = client.post(path).body(wrapped.body.clone());
    for (name, value) in &wrapped.headers {
        request = request.header(name, value);
    }
    let mut answer = request.send().await.with_context(|| wrapped.name)?;
    let id = answer.header("x-request-id").unwrap_or_default().to_owned();
    let status = answer.status();
    let body = answer.bytes().await?;
    Ok((status, id, serde_json::from_slice(&body).unwrap_or_default()))
}

async fn gateway(app: &App, mode: &str) -> Result<Palisade> {
    let policy = written_policy(&app.url(), &format!("[waf]\nrules = \"rule.conf\"\nmode = \"{mode}\"\n"));
    Palisade::serve().policy(&policy).file("rule.conf", RULE).start().await
}

fn texts(answer: &Value) -> Vec<&str> {
    answer["texts"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn one_attack_in_every_wrapping_is_refused_or_not_read() -> Result<()> {
    let app = App::uvicorn("bodies", &[]).await?;
    let (block, detect) = (gateway(&app, "block").await?, gateway(&app, "detect").await?);
    let (blocking, detecting) = (block.http()?, detect.http()?);
    let all: Vec<Wrapped> = [json(), forms(), multipart(), xml()].into_iter().flatten().collect();
    ensure!(all.len() >= 100, "{} wrappings", all.len());
    let (mut refused, mut read, mut wrong) = (0, 0, Vec::new());
    for wrapped in &all {
        for path in ["/declared", "/asked"] {
            let name = wrapped.name;
            let (status, _, answer) = send(&blocking, path, wrapped).await?;
            let code = answer["code"].as_str().unwrap_or_default();
            let by_waf = matches!(status, 403 | 413 | 415) && code.starts_with("waf.");
            refused += usize::from(by_waf);
            if !by_waf && !HARMLESS.contains(&name) {
                wrong.push(format!("{name}: {status} {answer}"));
            }
            // In `detect` the application reads it: what it finds was found by the rules too, and is the same text.
            let (_, id, seen) = send(&detecting, path, wrapped).await?;
            let seen = texts(&seen);
            let attacked = seen.iter().any(|text| text.contains(ATTACK));
            read += usize::from(attacked);
            if !attacked && !by_waf {
                continue;
            }
            let of_request = |line: &Value| line["request_id"] == id.as_str() && line["event"] != "access";
            detect.access(|line| line["request_id"] == id.as_str()).await?;
            let lines: Vec<Value> = detect.log().into_iter().filter(of_request).collect();
            let found = lines.iter().find(|line| line["event"] == "waf.match");
            let other = |code: &str| code.starts_with("waf.") && code != "waf.blocked";
            let unclear = lines.iter().any(|line| line["code"].as_str().is_some_and(other));
            if found.is_none() && !unclear {
                wrong.push(format!("{name}: the application read {seen:?}, rules nothing: {lines:?}"));
            }
            if let Some(data) = found.and_then(|line| line["data"].as_str())
                && attacked
                && !unclear
                && !seen.iter().any(|text| text.contains(ATTACK) && (text.contains(data) || data.contains(text)))
            {
                wrong.push(format!("{name}: rules read {data:?}, the application {seen:?}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    ensure!(refused >= 200 && read >= 40, "{refused} refused, {read} read by the application");
    Ok(())
}

/// An application that reads everything, and a gateway in front of it.
async fn reading() -> Result<(Upstream, Palisade)> {
    let upstream = Upstream::script([Step::ReadHead, Step::Hold]).await?;
    let policy = written_policy(&upstream.url(), "[waf]\nrules = \"rule.conf\"\n");
    let gateway = Palisade::serve().policy(&policy).file("rule.conf", RULE).start().await?;
    Ok((upstream, gateway))
}

fn got(upstream: &Upstream, what: &[u8]) -> bool {
    upstream.bytes().iter().any(|bytes| bytes.windows(what.len()).any(|part| part == what))
}

/// Parsers stop at the last boundary, so a form is over for them when HTTP still waits for the end of a line, or for the
/// frame that ends a stream.
#[tokio::test]
async fn no_application_gets_the_last_boundary_of_a_form_before_it_was_judged() -> Result<()> {
    let file = format!("--b\r\n{FIELD}; filename=\"f\"\r\n\r\nBEGIN{}", "x".repeat(900_000));
    let rest = format!("\r\n--b\r\n{FIELD}\r\n\r\n{ATTACK}\r\n--b--\r\n");
    for way in ["http", "https"] {
        let (upstream, gateway) = reading().await?;
        let mut wire = if way == "http" { gateway.wire_http().await? } else { gateway.wire().await? };
        let length = file.len() + rest.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\nContent-Length: {length}\r\n\r\n"
        );
        wire.send(head + &file).await?;
        wire.send(&rest[..rest.len() - 2]).await?;
        eventually(SOON, "the beginning is there", async || got(&upstream, b"BEGIN")).await?;
        // The two bytes never come.
        drop(wire);
        eventually(SOON, "the request is given up", async || upstream.open_connections() == 0).await?;
        ensure!(!got(&upstream, b"--b--"), "{way}: the last boundary arrived");
    }
    for (way, trailers) in [("h2", false), ("h2", true), ("https", false)] {
        let (upstream, gateway) = reading().await?;
        let client = if way == "h2" { gateway.https()?.http2() } else { gateway.https()? };
        let (feed, body) = Body::fed();
        let sent = client.post("/").header("content-type", MULTIPART).body(body).send();
        let (answer, fed) = tokio::join!(sent, async {
            feed.send(file.clone()).await?;
            feed.send(rest.clone()).await?;
            eventually(SOON, "the beginning is there", async || got(&upstream, b"BEGIN")).await?;
            if trailers { feed.trailers(http::HeaderMap::new()).await } else { Ok(()) }
        });
        fed?;
        let mut answer = answer?;
        ensure!(answer.status() == 403 && answer.json().await?["code"] == "waf.blocked", "{way}: {}", answer.status());
        eventually(SOON, "the request is given up", async || upstream.open_connections() == 0).await?;
        ensure!(!got(&upstream, b"--b--"), "{way}: the last boundary arrived");
    }
    Ok(())
}

/// An application that acts on fields as they come gets none of a form that begins with the attack.
#[tokio::test]
async fn a_form_that_begins_with_an_attack_never_begins() -> Result<()> {
    let (upstream, gateway) = reading().await?;
    for client in [gateway.http()?, gateway.https()?, gateway.https()?.http2()] {
        let file = "x".repeat(70_000);
        let form =
            format!("--b\r\n{FIELD}\r\n\r\n{ATTACK}\r\n--b\r\n{FIELD}; filename=\"f\"\r\n\r\n{file}\r\n--b--\r\n");
        let mut answer = client.post("/").header("content-type", MULTIPART).body(form).send().await?;
        ensure!(answer.status() == 403 && answer.json().await?["code"] == "waf.blocked", "{}", answer.status());
    }
    ensure!(upstream.bytes().iter().all(Vec::is_empty), "something of it arrived");
    Ok(())
}
