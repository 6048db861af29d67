//! The table of request heads: each as a whole, and cut at every byte.

use super::*;
use crate::Violation::*;

/// The verdict on a head that comes byte by byte.
fn in_pieces(bytes: &[u8]) -> Result<HeadFacts, Violation> {
    let mut scan = RequestScan::new();
    for end in 1..=bytes.len() {
        if let Some(facts) = scan.advance(&bytes[..end], &Limits::default())? {
            return Ok(facts);
        }
    }
    Err(Incomplete)
}

/// A request line and fields around what is tried; `\n` stands for CRLF.
fn with(field: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\nX: y\r\n\r\n").into_bytes()
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a\r\n\r\n").into_bytes()
}

fn judge(bytes: &[u8], want: Result<Framing, Violation>) {
    let shown = String::from_utf8_lossy(bytes.get(..150).unwrap_or(bytes));
    let whole = check(bytes);
    assert_eq!(whole.map(|facts| facts.framing), want, "{shown:?}");
    assert_eq!(in_pieces(bytes), whole, "byte by byte: {shown:?}");
    if whole.is_ok() {
        let followed = [bytes, b"\0\0 anything"].concat();
        assert_eq!(check(&followed), whole, "what follows is not the head's business: {shown:?}");
    }
}

#[test]
fn good_heads() {
    let good: &[(&str, Framing)] = &[
        ("", Framing::Unframed),
        ("Content-Length: 0", Framing::Length(0)),
        ("Content-Length: 5", Framing::Length(5)),
        ("content-length:5", Framing::Length(5)),
        ("CONTENT-LENGTH: \t5 \t", Framing::Length(5)),
        ("Content-Length: 999999999999999999", Framing::Length(999_999_999_999_999_999)),
        ("Transfer-Encoding: chunked", Framing::Chunked),
        ("transfer-encoding: Chunked", Framing::Chunked),
        ("X:", Framing::Unframed),
        ("X: ", Framing::Unframed),
        ("X: a\tb", Framing::Unframed),
        ("X: \u{e9}\u{ff}", Framing::Unframed),
        ("X_y.z!#$%&'*+-^`|~: 1", Framing::Unframed),
        ("X-Content-Length: 5", Framing::Unframed),
        ("Content_Length: 5", Framing::Unframed),
        ("Content-Lengths: 5", Framing::Unframed),
        ("Transfer_Encoding: chunked", Framing::Unframed),
        ("X: \"a, b\"; c=d : e", Framing::Unframed),
    ];
    for (field, framing) in good {
        if field.is_empty() {
            judge(b"GET / HTTP/1.1\r\n\r\n", Ok(*framing));
        } else {
            judge(&with(field), Ok(*framing));
        }
    }
    for good in [
        "GET / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET /a/b?c=d&e=%20 HTTP/1.1",
        "GET /a?b?c`d{e}|f^g\\h HTTP/1.1",
        "GET /\"a\" HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /?\u{e9} HTTP/1.1",
        "GET //// HTTP/1.1",
        "GET /..;/ HTTP/1.1",
        "GET http://a HTTP/1.1",
        "GET HTTPS://a.example:8080/x?y HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT a.example:443 HTTP/1.1",
        "CONNECT [::1]:443 HTTP/1.1",
        "get / HTTP/1.1",
        "M-SEARCH / HTTP/1.1",
        "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDD / HTTP/1.1",
        "\r\nGET / HTTP/1.1",
    ] {
        judge(&line(good), Ok(Framing::Unframed));
    }
}

#[test]
fn bad_fields() {
    let bad: &[(&str, Violation)] = &[
        // lengths
        ("Content-Length: 5\r\nContent-Length: 5", DuplicateContentLength),
        ("Content-Length: 5\r\ncontent-length: 6", DuplicateContentLength),
        ("Content-Length: 5\r\nY: z\r\nCONTENT-LENGTH: 5", DuplicateContentLength),
        ("Content-Length: 5, 5", DuplicateContentLength),
        ("Content-Length: 5,6", DuplicateContentLength),
        ("Content-Length: 5,", DuplicateContentLength),
        ("Content-Length:", BadContentLength),
        ("Content-Length: ", BadContentLength),
        ("Content-Length: -1", BadContentLength),
        ("Content-Length: +1", BadContentLength),
        ("Content-Length: 1.0", BadContentLength),
        ("Content-Length: 1e3", BadContentLength),
        ("Content-Length: 0x10", BadContentLength),
        ("Content-Length: 010", BadContentLength),
        ("Content-Length: 00", BadContentLength),
        ("Content-Length: 1_000", BadContentLength),
        ("Content-Length: 1 0", BadContentLength),
        ("Content-Length: \"5\"", BadContentLength),
        ("Content-Length: five", BadContentLength),
        ("Content-Length: \u{665}", BadContentLength),
        ("Content-Length: 5;", BadContentLength),
        ("Content-Length: 1000000000000000000", BadContentLength),
        ("Content-Length: 18446744073709551621", BadContentLength),
        // codings
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", ClAndTe),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", ClAndTe),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", ClAndTe),
        ("Transfer-Encoding:", UnknownTransferCoding),
        ("Transfer-Encoding: identity", UnknownTransferCoding),
        ("Transfer-Encoding: gzip", UnknownTransferCoding),
        ("Transfer-Encoding: gzip, chunked", UnknownTransferCoding),
        ("Transfer-Encoding: chunked, gzip", UnknownTransferCoding),
        ("Transfer-Encoding: chunked, chunked", UnknownTransferCoding),
        ("Transfer-Encoding: chunked,", UnknownTransferCoding),
        ("Transfer-Encoding: ,chunked", UnknownTransferCoding),
        ("Transfer-Encoding: chunked;q=1", UnknownTransferCoding),
        ("Transfer-Encoding: \"chunked\"", UnknownTransferCoding),
        ("Transfer-Encoding: xchunked", UnknownTransferCoding),
        ("Transfer-Encoding: chunke", UnknownTransferCoding),
        ("Transfer-Encoding: chunked chunked", UnknownTransferCoding),
        ("Transfer-Encoding: chun\u{212a}ed", UnknownTransferCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", UnknownTransferCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", UnknownTransferCoding),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", UnknownTransferCoding),
        ("Transfer-Encoding: \x0bchunked", ControlCharacter),
        // white space and line ends
        ("Content-Length : 5", SpaceBeforeColon),
        ("Transfer-Encoding\t: chunked", SpaceBeforeColon),
        ("X y: z", SpaceBeforeColon),
        (" X: y", ObsFold),
        ("\tX: y", ObsFold),
        ("X: y\r\n z", ObsFold),
        ("X: y\r\n\tz", ObsFold),
        ("X: y\r\n ", ObsFold),
        ("Transfer-Encoding:\r\n chunked", UnknownTransferCoding),
        ("X:\r\n y", ObsFold),
        ("X: y\nZ: a", BareLf),
        ("X: y\n", BareLf),
        ("\n", BareLf),
        ("X\n: y", BareLf),
        ("X: y\n\r\n", BareLf),
        ("X: y\rZ: a", BareCr),
        ("X: y\r", BareCr),
        ("X\r: y", BareCr),
        ("X: y\r\rZ: a", BareCr),
        // names and values
        (": y", BadHeaderName),
        ("X", BadHeaderName),
        ("X(y): z", BadHeaderName),
        ("X\u{e9}: z", BadHeaderName),
        ("X@: z", BadHeaderName),
        ("\"X\": z", BadHeaderName),
        ("X;: z", BadHeaderName),
        ("X/y: z", BadHeaderName),
        ("X\0: z", ControlCharacter),
        ("\0X: z", ControlCharacter),
        ("X\x7f: z", ControlCharacter),
        ("X: a\0b", ControlCharacter),
        ("X: a\x01b", ControlCharacter),
        ("X: a\x08", ControlCharacter),
        ("X: a\x0bb", ControlCharacter),
        ("X: a\x0cb", ControlCharacter),
        ("X: a\x1bb", ControlCharacter),
        ("X: a\x7fb", ControlCharacter),
        ("Content-Length: 5\0", ControlCharacter),
    ];
    for (field, violation) in bad {
        judge(&with(field), Err(*violation));
    }
}

#[test]
fn bad_request_lines() {
    let bad: &[(&str, Violation)] = &[
        ("GET /", Http09),
        ("GET / ", BadVersion),
        ("GET  / HTTP/1.1", BadTarget),
        ("GET /  HTTP/1.1", BadVersion),
        ("GET / HTTP/1.1 ", BadVersion),
        ("GET / x HTTP/1.1", BadVersion),
        ("GET\t/ HTTP/1.1", BadMethod),
        ("GET /\tHTTP/1.1", BadTarget),
        (" GET / HTTP/1.1", BadMethod),
        ("GET", BadMethod),
        ("GET ", BadTarget),
        ("/ HTTP/1.1", BadMethod),
        ("G\u{c9}T / HTTP/1.1", BadMethod),
        ("G\0T / HTTP/1.1", BadMethod),
        ("GET: / HTTP/1.1", BadMethod),
        ("AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDD / HTTP/1.1", BadMethod),
        ("\x16\x03\x01\x02", BadMethod),
        ("GET / HTTP/0.9", BadVersion),
        ("GET / HTTP/1.2", BadVersion),
        ("GET / HTTP/2.0", BadVersion),
        ("GET / HTTP/1", BadVersion),
        ("GET / HTTP/1.10", BadVersion),
        ("GET / HTTP/01.1", BadVersion),
        ("GET / http/1.1", BadVersion),
        ("GET / HTTP/1,1", BadVersion),
        ("GET / HTTPS/1.1", BadVersion),
        ("GET / HTTP /1.1", BadVersion),
        ("GET a HTTP/1.1", BadTarget),
        ("GET ?a HTTP/1.1", BadTarget),
        ("GET * HTTP/1.1", BadTarget),
        ("GET ** HTTP/1.1", BadTarget),
        ("OPTIONS ** HTTP/1.1", BadTarget),
        ("GET /a#b HTTP/1.1", BadTarget),
        ("GET /#b HTTP/1.1", BadTarget),
        ("GET /<a> HTTP/1.1", BadTarget),
        ("GET /a`b HTTP/1.1", BadTarget),
        ("GET /?\" HTTP/1.1", BadTarget),
        ("GET /a\0b HTTP/1.1", BadTarget),
        ("GET /a\x7fb HTTP/1.1", BadTarget),
        ("GET ftp://a/ HTTP/1.1", BadTarget),
        ("GET http:/a HTTP/1.1", BadTarget),
        ("GET http:// HTTP/1.1", BadTarget),
        ("GET a.example:80 HTTP/1.1", BadTarget),
        ("GET //a@b\r HTTP/1.1", Http09),
        ("CONNECT / HTTP/1.1", BadTarget),
        ("CONNECT http://a/ HTTP/1.1", BadTarget),
        ("CONNECT a:1/x HTTP/1.1", BadTarget),
        ("\r\n\r\nGET / HTTP/1.1", BadMethod),
        ("\nGET / HTTP/1.1", BareLf),
        ("\r\n\nGET / HTTP/1.1", BareLf),
        ("\rGET / HTTP/1.1", BadMethod),
    ];
    for (request_line, violation) in bad {
        judge(&line(request_line), Err(*violation));
    }
    judge(b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(BareLf));
    judge(b"GET / HTTP/1.1\rHost: a\r\n\r\n", Err(BareCr));
    judge(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(ChunkedInHttp10));
    judge(b"GET /\xff HTTP/1.1\r\n\r\n", Err(BadTarget));
    judge(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(BadTarget));
    for cut in
        ["", "G", "GET /", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nX: y\r\n", "GET / HTTP/1.1\r\nX: y\r\n\r", "\r"]
    {
        judge(cut.as_bytes(), Err(Incomplete));
    }
}

#[test]
fn bounds_hold_to_the_byte() {
    let padded = |len: usize| {
        let start = "GET / HTTP/1.1\r\nX: ";
        format!("{start}{}\r\n\r\n", "y".repeat(len - start.len() - 4)).into_bytes()
    };
    let max = Limits::default().head_bytes;
    assert_eq!(check(&padded(max)).unwrap().len, max);
    assert_eq!(check(&padded(max + 1)), Err(HeadTooLarge));
    assert_eq!(check(&padded(max + 2)[..max + 1]), Err(HeadTooLarge), "also without its end");
    assert_eq!(check(&padded(max + 2)[..max]), Err(Incomplete));

    let fields = |count: usize| ("GET / HTTP/1.1\r\n".to_owned() + &"x: y\r\n".repeat(count) + "\r\n").into_bytes();
    assert_eq!(check(&fields(256)).unwrap().headers, 256);
    assert_eq!(check(&fields(257)), Err(TooManyHeaders));

    let target = |len: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(len - 1)).into_bytes();
    let max = Limits::default().target_bytes;
    assert!(check(&target(max)).is_ok());
    assert_eq!(check(&target(max + 1)), Err(TargetTooLong));
    assert_eq!(check(&target(max + 2)[..max + 6]), Err(TargetTooLong), "also without its end");
}

#[test]
fn what_a_head_says_about_its_connection() {
    // version, fields, persistent, upgrade
    for (version, fields, persistent, upgrade) in [
        ("1.1", "", true, false),
        ("1.0", "", false, false),
        ("1.1", "Connection: close\r\n", false, false),
        ("1.1", "Connection: CLOSE\r\n", false, false),
        ("1.1", "Connection: x, close\r\n", false, false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false, false),
        ("1.1", "Connection: closed\r\n", true, false),
        ("1.0", "Connection: Keep-Alive\r\n", true, false),
        ("1.0", "Connection: keep-alive, close\r\n", false, false),
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", true, true),
        ("1.1", "Connection: keep-alive,upgrade\r\nUpgrade: websocket\r\n", true, true),
        ("1.1", "Upgrade: websocket\r\n", true, false),
        ("1.1", "Connection: Upgrade\r\n", true, false),
        ("1.0", "Connection: Upgrade\r\nUpgrade: websocket\r\n", false, false),
    ] {
        let facts = check(format!("GET / HTTP/{version}\r\n{fields}\r\n").as_bytes()).unwrap();
        assert_eq!((facts.is_persistent(), facts.upgrade), (persistent, upgrade), "{version} {fields}");
    }
    assert!(check(b"CONNECT a:1 HTTP/1.1\r\n\r\n").unwrap().upgrade);
    assert!(check(b"GET / HTTP/1.1\r\nExpect: x\r\n\r\n").unwrap().expect);
}

#[test]
fn names_are_stable_and_distinct() {
    let mut names: Vec<_> = Violation::ALL.iter().map(|violation| violation.name()).collect();
    assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Violation::ALL.len());
}
