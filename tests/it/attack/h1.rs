//! HTTP/1.1: framing, connection headers, methods, expectations. Threats 8 and 23; RFC 9112.

use anyhow::Result;

use super::{Case, framing, passed, passed_by, refused, run, then_refused};

/// A second request, which must never be one where it stands in a body, and never pass where it is one.
const SMUGGLED: &str = "GET /admin/x HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn get(headers: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

fn post(headers: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

#[tokio::test]
async fn lengths_and_codings() -> Result<()> {
    let mut cases = Vec::new();
    for headers in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 3\r\ntransfer-encoding: identity\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\ncontent-length: 0\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 03\r\n",
        "Content-Length: 3.0\r\n",
        "Content-Length: 3 3\r\n",
        "Content-Length: 3;\r\n",
        "Content-Length: \"3\"\r\n",
        "Content-Length: 1_0\r\n",
        "Content-Length:\r\n",
        "Content-Length: \u{b}3\r\n",
        "Content-Length: 18446744073709551619\r\n",
        "Content-Length : 3\r\n",
        "Content-Length\t: 3\r\n",
        "Content-Length\r\n : 3\r\n",
        "X: y\r\n Content-Length: 3\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding:\r\n\tchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\n\u{0}: x\r\n",
        "Transfer-Encoding\u{0}: chunked\r\n",
        "Transfer-Encoding: chunked\r\nX: a\nTransfer-Encoding: x\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
    ] {
        cases.push(framing(post(headers, &format!("0\r\n\r\n{SMUGGLED}"))));
    }
    cases.push(framing(format!(
        "POST /x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"
    )));
    let as_body = |method: &str| {
        format!("{method} /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len())
    };
    for method in ["POST", "GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH"] {
        cases.push(passed(as_body(method), &[&format!("{method} /x {SMUGGLED}")]));
    }
    cases.extend([
        passed(post("Content-Length: \t 3 \t\r\n", "abc"), &["POST /x abc"]),
        passed(post("TRANSFER-ENCODING: CHUNKED\r\n", "3\r\nabc\r\n0\r\n\r\n"), &["POST /x abc"]),
        passed(post("Content-Length: 0\r\n", &get("")), &["POST /x", "GET /x"]),
        // A name with `_` frames nothing, and is not passed on.
        then_refused(
            post("Transfer_Encoding: chunked\r\n", &format!("0\r\n\r\n{SMUGGLED}")),
            &["POST /x"],
            400,
            "integrity.framing",
        ),
        passed(post("Content_Length: 9\r\nContent-Length: 3\r\n", "abc"), &["POST /x abc"]),
        // What follows a length is a request, or nothing.
        then_refused(post("Content-Length: 3\r\n", "abcdef\r\n"), &["POST /x abc"], 400, "integrity.framing"),
        then_refused(post("Content-Length: 3\r\n", &format!("abc{SMUGGLED}")), &["POST /x abc"], 403, "access.address"),
        then_refused(format!("{}{SMUGGLED}", get("")), &["GET /x"], 403, "access.address"),
    ]);
    run(&cases).await
}

#[tokio::test]
async fn chunks() -> Result<()> {
    let mut cases: Vec<Case> = [
        "3;a=b\r\nabc\r\n0\r\n\r\n",
        "3;a=\"\r\nabc\r\n0\r\n\r\n",
        "3 ;a\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "1_0\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabcX\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "2\r\nab\r\n\r\n0\r\n\r\n",
        "3\r\nabc\r\n0;x\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: evil.example\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\n\n",
    ]
    .iter()
    .map(|body| framing(chunked(&format!("{body}{SMUGGLED}"))))
    .collect();
    cases.extend([
        passed(chunked("3\r\nabc\r\n0\r\n\r\n"), &["POST /x abc"]),
        passed(chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), &["POST /x 01234567890123456789"]),
        // Trailers end here.
        passed(chunked("3\r\nabc\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\nAuthorization: x\r\n\r\n"), &["POST /x abc"]),
        // A request in a chunk is a body.
        passed(chunked(&format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())), &[&format!("POST /x {SMUGGLED}")]),
        then_refused(chunked(&format!("0\r\n\r\n{SMUGGLED}")), &["POST /x"], 403, "access.address"),
    ]);
    // An upstream may have got the head and a piece of a body whose later chunks are wrong; never the end.
    let (whole, cut): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| !matches!(case.want, super::Want::Refused(_, 400, _)));
    run(&whole).await?;
    run_cut(&cut).await
}

/// As [`run`], for bodies that turn out wrong: what reached the upstream is never a whole request.
async fn run_cut(cases: &[Case]) -> Result<()> {
    use crate::support::SOON;
    use anyhow::{Context as _, ensure};

    for field in super::Field::both(super::ROUTES).await? {
        let mut logged = Vec::new();
        for case in cases {
            for way in ["http", "https"] {
                let what = format!("{} {way} {:?}", field.mode, String::from_utf8_lossy(&case.bytes));
                let mut wire =
                    if way == "http" { field.gateway.wire_http().await? } else { field.gateway.wire().await? };
                let answer = wire.ask(&case.bytes).await.with_context(|| what.clone())?;
                ensure!(answer.status() == 400, "{what}: {} {}", answer.start, answer.text());
                ensure!(answer.json()?["code"] == "integrity.framing", "{what}: {}", answer.text());
                wire.closed(SOON).await.with_context(|| what.clone())?;
                let id = answer.header("x-request-id").unwrap_or_default().to_owned();
                logged.push(super::Logged { what, id, status: 400, code: Some("integrity.framing"), route: None });
            }
        }
        // Each of its own connections that carried a piece is closed, and none has the last chunk.
        let closed = async || field.upstream.open_connections() == 0;
        palisade_test::eventually(SOON, "connections with half a request are closed", closed).await?;
        for bytes in field.upstream.bytes() {
            let text = String::from_utf8_lossy(&bytes);
            ensure!(!text.contains("0\r\n\r\n") && !text.contains("/admin"), "{}: reached {text:?}", field.mode);
            ensure!(text.matches("HTTP/1.1").count() <= 1, "{}: two requests on {text:?}", field.mode);
        }
        field.check_log(&logged).await?;
    }
    Ok(())
}

#[tokio::test]
async fn lines() -> Result<()> {
    let mut cases: Vec<Case> = [
        "GET /x\r\n\r\n",
        "GET /x HTTP/0.9\r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/1.2\r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/2.0\r\nHost: localhost\r\n\r\n",
        "GET /x http/1.1\r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/1.1 \r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/1.1x\r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/01.1\r\nHost: localhost\r\n\r\n",
        "GET  /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /x  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET\t/x\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /x y HTTP/1.1\r\nHost: localhost\r\n\r\n",
        " GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\n\r\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\nGET /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /x HTTP/1.1\nHost: localhost\n\n",
        "GET /x HTTP/1.1\r\nHost: localhost\n\r\n",
        "GET /x HTTP/1.1\r\nHost: localhost\r\n\n",
        "GET /x HTTP/1.1\rHost: localhost\r\n\r\n",
        "GET /x\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /x#y HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET http:/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET ftp://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "G(T /x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ": x\r\n\r\n",
    ]
    .iter()
    .map(framing)
    .collect();
    for header in [
        "X\r\n",
        ": y\r\n",
        "X : y\r\n",
        "X\t: y\r\n",
        "X(Y): z\r\n",
        "X@: y\r\n",
        "X: a\0b\r\n",
        "X: a\rb\r\n",
        "X: a\u{7f}\r\n",
        "X: a\r\n b\r\n",
        "\u{e9}: y\r\n",
        "X Y: z\r\n",
    ] {
        cases.push(framing(get(header)));
    }
    cases.extend([
        passed(format!("\r\n{}", get("")), &["GET /x"]),
        passed(get("X-Empty:\r\nX-Long: a  b\r\n"), &["GET /x"]),
        passed("GET /x HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n", &["GET /x"]),
    ]);
    run(&cases).await
}

#[tokio::test]
async fn connection_expect_upgrade() -> Result<()> {
    let mut cases = Vec::new();
    for named in [
        "Authorization",
        "Cookie",
        "Origin",
        "Content-Type",
        "Host",
        "X-Forwarded-For",
        "Content-Length",
        "Transfer-Encoding",
        "close, X-Y",
        "keep-alive;x",
        "upgrade, HTTP2-Settings",
        "close close",
        "\"close\"",
    ] {
        cases.push(refused(get(&format!("Connection: {named}\r\n")), 400, "integrity.header"));
    }
    cases.push(refused(get("Connection: keep-alive\r\nConnection: Cookie\r\n"), 400, "integrity.header"));
    for expect in ["x", "", "100-continue, x", "100 continue", "100-continue;x", "200-ok"] {
        cases.push(refused(get(&format!("Expect: {expect}\r\n")), 417, "integrity.expect"));
    }
    cases.push(refused(get("Expect: 100-continue\r\nExpect: 100-continue\r\n"), 417, "integrity.expect"));
    cases.push(framing(get("Expect : 100-continue\r\n")));
    cases.push(framing(get("Expect\r\n: 100-continue\r\n")));
    for upgrade in ["h2c", "websocket, h2c", "TLS/1.0", "websocket/13", "", "HTTP/2.0"] {
        cases.push(refused(get(&format!("Connection: upgrade\r\nUpgrade: {upgrade}\r\n")), 400, "integrity.header"));
    }
    cases.push(refused(get("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"), 400, "integrity.header"));
    for fine in ["keep-alive", "Keep-Alive, TE", "te", ",keep-alive,,"] {
        cases.push(passed(get(&format!("Connection: {fine}\r\n")), &["GET /x"]));
    }
    cases.extend([
        // Not insisted on: it ends here.
        passed(get("Upgrade: h2c\r\n"), &["GET /x"]),
        passed(get("Connection: upgrade\r\n"), &["GET /x"]),
        // No handshake: an ordinary request, and what follows is another.
        then_refused(
            format!("{}{SMUGGLED}", post("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n", "abc")),
            &["POST /x abc"],
            403,
            "access.address",
        ),
        // A handshake that the application does not take: what was sent ahead is a request, and judged.
        then_refused(
            format!("{}{SMUGGLED}", get("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")),
            &["GET /x"],
            403,
            "access.address",
        ),
    ]);
    run(&cases).await
}

#[tokio::test]
async fn methods_and_routes() -> Result<()> {
    let line = |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut cases = Vec::new();
    for method in ["TRACE", "get", "Get", "FOO", "PROPFIND", "MKCOL", "LOCK", "PRI", "M-SEARCH", "GETX"] {
        cases.push(refused(line(method, "/x"), 400, "integrity.method"));
        cases.push(refused(line(method, "/get-only"), 400, "integrity.method"));
    }
    cases.push(refused("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", 400, "integrity.method"));
    cases.push(framing("CONNECT /x HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        cases.push(refused(line(method, "/get-only"), 405, "access.method"));
        cases.push(refused(line(method, "/get-only/"), 405, "access.method"));
        cases.push(refused(line(method, "//get-only"), 405, "access.method"));
        cases.push(refused(line(method, "/%67et-only"), 405, "access.method"));
    }
    for header in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let request = format!("GET /get-only HTTP/1.1\r\nHost: localhost\r\n{header}: DELETE\r\n\r\n");
        cases.push(passed_by(request, &["GET /get-only"], "/get-only"));
    }
    cases.push(passed_by(line("HEAD", "/get-only"), &["HEAD /get-only"], "/get-only"));
    cases.push(passed(line("OPTIONS", "/x"), &["OPTIONS /x"]));
    cases.push(passed_by(line("OPTIONS", "*"), &["OPTIONS *"], "default"));
    cases.push(framing(line("OPTIONS", "*?x")));
    // A preflight is asked on behalf of another method; without `[cors]` it is the application's to answer.
    let preflight = |asked: &str| {
        format!(
            "OPTIONS /get-only HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: {asked}\r\n\r\n"
        )
    };
    cases.push(passed_by(preflight("GET"), &["OPTIONS /get-only"], "/get-only"));
    for path in
        ["/admin", "/admin/", "/admin//", "//admin", "/./admin", "/x/../admin", "/%61dmin", "/admin/x?y", "/%2e/admin"]
    {
        cases.push(refused(line("GET", path), 403, "access.address"));
    }
    for target in ["/keep/a//b", "/keep//a", "/keep/a/./b//c"] {
        let reached = format!("GET {}", target.replace("/./", "/"));
        cases.push(passed_by(line("GET", target), &[&reached], "/keep/*"));
    }
    // Where repeated slashes are kept, dots behind them are read in two ways.
    for target in ["/keep/a//../b", "/admin//../keep/x", "/keep//../keep/x", "/keep/x//%2e%2e"] {
        cases.push(refused(line("GET", target), 400, "integrity.path"));
    }
    cases.push(refused(line("GET", "/strict//x"), 400, "integrity.path"));
    cases.push(passed(line("GET", "/admin//../x"), &["GET /x"]));
    cases.push(refused(line("GET", "/x//../admin"), 403, "access.address"));
    run(&cases).await
}
