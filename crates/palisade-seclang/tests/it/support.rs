//! What the tests share: where vectors and rules lie, and HTTP requests as bytes fed to a transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_seclang::{Builder, RuleSet, Transaction};

/// A folder of published test data, beside the workspace. `None`: it is not there, which only CI may not accept.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared").join(name);
    present(path)
}

/// The Core Rule Set of Debian's `modsecurity-crs`; `PALISADE_CRS_ROOT` names another root than `/`.
pub(crate) fn crs_root() -> Option<PathBuf> {
    let root = std::env::var_os("PALISADE_CRS_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    present(root.join("usr/share/modsecurity-crs/rules")).map(|_| root)
}

fn present(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    let line = format!("NOT RUN: {} is not there\n", path.display());
    assert!(std::env::var_os("CI").is_none(), "{line}");
    println!("{line}");
    // The run of all tests counts what did not run.
    if let Some(list) = std::env::var_os("PALISADE_NOT_RUN") {
        let list = std::fs::OpenOptions::new().append(true).create(true).open(list);
        list.and_then(|mut list| std::io::Write::write_all(&mut list, line.as_bytes())).unwrap();
    }
    None
}

/// The rule set with a text before it.
pub(crate) fn crs(root: &Path, before: &str, reference: bool) -> Arc<RuleSet> {
    let mut builder = Builder::new();
    builder.reads(&["anomaly_score", "inbound_anomaly_score", "outbound_anomaly_score"]);
    if reference {
        builder.reference();
    }
    builder.file(root.join("etc/modsecurity/crs/crs-setup.conf"));
    builder.text("before.conf", before);
    builder.file(root.join("usr/share/modsecurity-crs/rules/*.conf"));
    match builder.compile() {
        Ok(rules) => Arc::new(rules),
        Err(problems) => panic!("{}", problems.iter().map(|p| p.to_string()).collect::<Vec<_>>().join("\n")),
    }
}

/// Feeds the bytes of a request as a tolerant server would, and evaluates all phases.
pub(crate) fn run(transaction: &mut Transaction, raw: &[u8]) {
    transaction.connection("127.0.0.1", 40000, "127.0.0.1", 80);
    transaction.unique_id("0123456789");
    let (line, mut rest) = cut(raw);
    let leading = line.iter().take_while(|b| b.is_ascii_whitespace()).count();
    let first = line[leading..].iter().position(|b| *b == b' ').map_or(line.len(), |n| leading + n);
    let last = line.iter().rposition(|b| *b == b' ').filter(|at| line[at + 1..].starts_with(b"HTTP/") && *at > first);
    let target = line.get(first + 1..last.unwrap_or(line.len())).unwrap_or(b"");
    transaction.request(&line[..first], target, last.map_or(b"", |at| &line[at + 1..]));
    let mut chunked = false;
    loop {
        let (line, tail) = cut(rest);
        rest = tail;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or(b"").trim_ascii();
        chunked |= line[..colon].eq_ignore_ascii_case(b"transfer-encoding") && value.eq_ignore_ascii_case(b"chunked");
        transaction.header(&line[..colon], value);
    }
    transaction.request_headers();
    if chunked {
        while let (line, tail) = cut(rest)
            && let Some(size) = std::str::from_utf8(line).ok().and_then(|l| usize::from_str_radix(l.trim(), 16).ok())
            && size > 0
        {
            transaction.body(tail.get(..size).unwrap_or(tail));
            rest = tail.get(size + 2..).unwrap_or(b"");
        }
    } else {
        transaction.body(rest);
    }
    transaction.request_body();
    transaction.response(200, b"HTTP/1.1");
    transaction.response_header(b"Content-Type", b"text/html");
    transaction.response_headers();
    // An application that answers with what it was sent; seen only where rules ask for bodies of answers.
    transaction.response_chunk(raw);
    transaction.response_body();
    transaction.logging();
}

fn cut(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|b| *b == b'\n') {
        Some(at) => (bytes[..at].strip_suffix(b"\r").unwrap_or(&bytes[..at]), &bytes[at + 1..]),
        None => (bytes, b""),
    }
}
