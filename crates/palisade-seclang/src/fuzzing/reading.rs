//! The five readers of bodies: pieces make no difference, memory stays within a multiple of the body, and what is read
//! without a finding is what other readers read.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::Value;

use crate::body::Finding;
use crate::parse::Builder;
use crate::ruleset::RuleSet;
use crate::store::List;
use crate::transaction::Transaction;

/// What was read of a body.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    items: Vec<(List, Vec<u8>, Vec<u8>)>,
    findings: Vec<Finding>,
}

impl Reading {
    /// The arguments of the body, sorted.
    fn arguments(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let of_body = self.items.iter().filter(|(list, ..)| *list == List::ArgsPost);
        let mut arguments: Vec<_> = of_body.map(|(_, name, value)| (name.clone(), value.clone())).collect();
        arguments.sort();
        arguments
    }

    fn bytes(&self) -> usize {
        self.items.iter().map(|(_, name, value)| name.len() + value.len()).sum()
    }
}

fn rules() -> Arc<RuleSet> {
    thread_local!(static RULES: Arc<RuleSet> = {
        let mut builder = Builder::new();
        // As deep as the other reader of JSON goes.
        builder.text("reading.conf", "SecRequestBodyAccess On\nSecRequestBodyJsonDepthLimit 100\nSecAction \"id:1,phase:2,pass,nolog\"");
        Arc::new(builder.compile().expect("these rules are right"))
    });
    RULES.with(Arc::clone)
}

fn read_in(kind: Option<&[u8]>, pieces: &[&[u8]], every: bool) -> Reading {
    thread_local!(static SPARE: RefCell<Option<Transaction>> = const { RefCell::new(None) });
    let rules = rules();
    let mut transaction = SPARE.take().unwrap_or_else(|| Transaction::new(&rules));
    transaction.reset(&rules);
    transaction.request(b"POST", b"/", b"HTTP/1.1");
    if let Some(kind) = kind {
        transaction.header(b"Content-Type", kind);
    }
    transaction.request_headers();
    if every {
        transaction.every_reading();
        if !transaction.wants_request_body() {
            transaction.guess_json();
        }
    }
    for piece in pieces {
        transaction.body(piece);
    }
    transaction.request_body();
    let reading = Reading { items: transaction.items(), findings: transaction.findings().to_vec() };
    SPARE.set(Some(transaction));
    reading
}

/// Reads a body whole, and in pieces of a length that the body chooses; both must be the same.
fn read(kind: Option<&[u8]>, body: &[u8], every: bool) -> Reading {
    let whole = read_in(kind, &[body], every);
    let length = usize::from(body.last().copied().unwrap_or(0)) % 23 + 1;
    let pieces: Vec<&[u8]> = body.chunks(length).collect();
    assert_eq!(whole, read_in(kind, &pieces, every), "in pieces of {length}");
    whole
}

/// JSON: what is read without a finding is what `serde_json` reads, and what `serde_json` reads is no syntax error.
pub fn json(data: &[u8]) {
    let ours = read(Some(b"application/json"), data, false);
    match serde_json::from_slice::<Value>(data) {
        Ok(theirs) => {
            let syntax = ours.findings.iter().any(|f| matches!(f, Finding::JsonSyntax { .. } | Finding::NotUtf8));
            assert!(!syntax, "{:?}", ours.findings);
            if ours.findings.is_empty() {
                let mut wanted = Vec::new();
                flatten("json".to_owned(), &theirs, &mut wanted);
                wanted.sort();
                let arguments = ours.arguments();
                assert_eq!(arguments.len(), wanted.len());
                for ((name, value), (path, text)) in arguments.iter().zip(&wanted) {
                    assert!(name == path && text.as_ref().is_none_or(|text| text == value), "{arguments:?} {wanted:?}");
                }
            }
        }
        Err(error) => {
            // A number that does not fit is JSON all the same; nothing at all is no body.
            let text = error.to_string();
            assert!(!ours.findings.is_empty() || text.contains("out of range") || data.is_empty(), "{text}");
        }
    }
}

/// The leaves of a value by path, sorted as text; numbers without their text, which is not kept.
fn flatten(path: String, value: &Value, out: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    // An empty one is an argument without a value, but for the outermost, which has no name.
    let empty = match value {
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        _ if empty && path == "json" => {}
        _ if empty => out.push((path.into_bytes(), Some(Vec::new()))),
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| flatten(format!("{path}.{key}"), value, out));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| flatten(format!("{path}.array_{at}"), value, out));
        }
        Value::String(text) => out.push((path.into_bytes(), Some(text.clone().into_bytes()))),
        Value::Number(_) => out.push((path.into_bytes(), None)),
        Value::Bool(value) => out.push((path.into_bytes(), Some(value.to_string().into_bytes()))),
        Value::Null => out.push((path.into_bytes(), Some(Vec::new()))),
    }
}

/// A form, and a query: what a plain reading of WHATWG's algorithm gives.
pub fn form(data: &[u8]) {
    let ours = read(Some(b"application/x-www-form-urlencoded"), data, false);
    let decoded = |text: &[u8]| {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some((&byte, tail)) = rest.split_first() {
            let digits = tail.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            rest = match (byte, digits.and_then(|digits| std::str::from_utf8(digits).ok())) {
                (b'%', Some(digits)) => {
                    out.push(u8::from_str_radix(digits, 16).expect("two digits"));
                    &tail[2..]
                }
                (byte, _) => {
                    out.push(if byte == b'+' { b' ' } else { byte });
                    tail
                }
            };
        }
        out
    };
    let mut wanted: Vec<(Vec<u8>, Vec<u8>)> = data
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            (decoded(halves.next().unwrap_or_default()), decoded(halves.next().unwrap_or_default()))
        })
        .collect();
    wanted.sort();
    let all = !ours.findings.iter().any(Finding::is_limit);
    assert!(!all || ours.arguments() == wanted, "{ours:?} {wanted:?}");
}

/// A multipart body, whose boundary is the first line: no more than was sent, and a part for each line that begins one.
pub fn multipart(data: &[u8]) {
    let (first, body) = match memchr::memchr(b'\n', data) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (&b"b"[..], data),
    };
    let kind = [b"multipart/form-data; boundary=", first].concat();
    let ours = read(Some(&kind), body, false);
    // A file is known by three items, and each header by the name of its part.
    assert!(ours.bytes() <= 40 * body.len() + 64, "{} of {}", ours.bytes(), body.len());
    let boundary = crate::body::multipart::boundary(&kind, &mut Default::default());
    if let Some(boundary) = boundary.filter(|_| ours.findings.is_empty() && !body.is_empty()) {
        let delimiter = [b"--", &*boundary].concat();
        let begins = body
            .split(|byte| *byte == b'\n')
            .filter(|line| line.strip_suffix(b"\r").unwrap_or(line) == delimiter)
            .count();
        let parts = ours.items.iter().filter(|(list, ..)| matches!(list, List::ArgsPost | List::Files)).count();
        assert_eq!(parts, begins, "{ours:?}");
    }
}

/// XML: text and attributes are no longer than the document, and nothing is ever expanded.
pub fn xml(data: &[u8]) {
    let ours = read(Some(b"application/xml"), data, false);
    assert!(ours.bytes() <= data.len(), "{} of {}", ours.bytes(), data.len());
    let whole = ours.items.iter().filter(|(list, ..)| *list == List::XmlText).count();
    assert_eq!(whole, usize::from(!data.is_empty()));
}

/// Any other body, of a type that the first byte chooses, in every reading that an application may have of it: what holds
/// of the text is found in one of them.
pub fn text(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let kinds: [Option<&[u8]>; 6] = [
        None,
        Some(b"text/plain"),
        Some(b"text/csv; charset=utf-8"),
        Some(b"application/x-www-form-urlencoded"),
        Some(b"text/plain; charset=utf-7"),
        Some(b"image/png"),
    ];
    let kind = kinds[usize::from(first) % kinds.len()];
    let ours = read(kind, body, true);
    // The text, the form, the form with semicolons, and JSON, of which each leaf has a path.
    assert!(ours.findings.iter().any(Finding::is_limit) || ours.bytes() <= 4 * body.len() + 8 * body.len() * 100);
    if kind == Some(b"text/plain") && !body.is_empty() {
        assert!(ours.arguments().contains(&(b"text".to_vec(), body.to_vec())));
    }
    // What is JSON to an application is read as JSON, whatever its type says.
    if let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(body)
        && !ours.findings.iter().any(Finding::is_limit)
    {
        for (key, value) in &members {
            if let Value::String(text) = value {
                let wanted = (format!("json.{key}").into_bytes(), text.clone().into_bytes());
                assert!(ours.arguments().contains(&wanted), "{wanted:?} {ours:?}");
            }
        }
    }
}
