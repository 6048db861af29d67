//! The Core Rule Set's own regression tests, in process.

use std::path::Path;

use palisade_seclang::Transaction;
use serde_json::Value;

use crate::support;

/// What the tests assume about the engine, from the README of the tests.
const BEFORE: &str = r#"
SecRuleEngine DetectionOnly
SecRequestBodyAccess On
SecAction "id:900005,phase:1,nolog,pass,setvar:tx.paranoia_level=4,setvar:tx.executing_paranoia_level=4,setvar:tx.crs_validate_utf8_encoding=1,setvar:tx.arg_name_length=100,setvar:tx.arg_length=400"
"#;

/// Tests that cannot pass without the server around the engine, and why.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "920181-1",
    "expects that the server drops `Content-Length` beside `Transfer-Encoding` before the rules see it; the gateway refuses such requests",
)];

/// One stage of a test.
pub(crate) struct Case {
    pub title: String,
    pub raw: Vec<u8>,
    pub wanted: Vec<u64>,
    pub unwanted: Vec<u64>,
    /// What only a server can show: a status or a closed connection.
    pub server: bool,
}

#[test]
fn regression_tests_of_crs_3_3() {
    let (Some(root), Some(tests)) = (support::crs_root(), support::shared("crs-tests/3.3")) else { return };
    let rules = support::crs(&root, BEFORE, true);
    let mut transaction = Transaction::new(&rules);
    let (mut ran, mut server, mut failed) = (0, 0, Vec::new());
    for case in cases(&tests) {
        ran += 1;
        server += usize::from(case.server && case.wanted.is_empty() && case.unwanted.is_empty());
        transaction.reset(&rules);
        support::run(&mut transaction, &case.raw);
        let found: Vec<u64> = transaction.matches().iter().map(|m| m.rule).collect();
        let good =
            case.wanted.iter().all(|id| found.contains(id)) && !case.unwanted.iter().any(|id| found.contains(id));
        if !good {
            failed.push((case.title, case.wanted, case.unwanted, found));
        }
    }
    let unexpected: Vec<_> = failed.iter().filter(|f| !EXCEPTIONS.iter().any(|(t, _)| *t == f.0)).collect();
    let healed: Vec<_> = EXCEPTIONS.iter().filter(|(t, _)| !failed.iter().any(|f| f.0 == *t)).collect();
    println!(
        "CRS 3.3: {} of {ran} pass ({server} of them ask only for a status, which a server must show)",
        ran - failed.len()
    );
    for (title, wanted, unwanted, found) in &unexpected {
        println!("  {title}: wanted {wanted:?}, unwanted {unwanted:?}, found {found:?}");
    }
    assert!(ran >= 2396, "only {ran} tests were found");
    assert!(unexpected.is_empty(), "{} tests fail", unexpected.len());
    assert!(healed.is_empty(), "these pass now, remove them from the exceptions: {healed:?}");
}

/// All stages of all enabled files.
pub(crate) fn cases(folder: &Path) -> Vec<Case> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|e| std::fs::read_dir(e.unwrap().path()).ok())
        .flatten()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut out = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let document: Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        if document["meta"]["enabled"] == false {
            continue;
        }
        for test in document["tests"].as_array().unwrap() {
            for stage in test["stages"].as_array().unwrap() {
                let (input, output) = (&stage["stage"]["input"], &stage["stage"]["output"]);
                out.push(Case {
                    title: string(&test["test_title"]),
                    raw: request(input),
                    wanted: ids(&output["log_contains"]),
                    unwanted: ids(&output["no_log_contains"]),
                    server: output.get("status").is_some() || output.get("expect_error").is_some(),
                });
            }
        }
    }
    out
}

fn ids(expectation: &Value) -> Vec<u64> {
    let text = string(expectation);
    let digits = |t: &str| t.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
    text.split("id \"").skip(1).filter_map(|t| digits(t.split('"').next().unwrap_or(""))).collect()
}

fn string(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The bytes that go over the wire, by the rules of the tests' README.
fn request(input: &Value) -> Vec<u8> {
    if let Some(encoded) = input.get("encoded_request").filter(|e| !string(e).is_empty()) {
        let compact: String = string(encoded).split_whitespace().collect();
        return data_encoding::BASE64.decode(compact.as_bytes()).unwrap();
    }
    if let Some(raw) = input.get("raw_request").filter(|e| !string(e).is_empty()) {
        return string(raw).into_bytes();
    }
    let or = |key: &str, default: &str| input.get(key).map_or_else(|| default.to_owned(), string);
    let mut data = match &input["data"] {
        Value::Array(lines) => lines.iter().map(string).collect::<Vec<_>>().join("\r\n"),
        other => string(other),
    };
    let stop_magic = input.get("stop_magic").is_some_and(|s| s == true || s == "true");
    let mut headers: Vec<(String, String)> = input["headers"]
        .as_object()
        .map(|o| o.iter().map(|(k, v)| (k.clone(), string(v))).collect())
        .unwrap_or_default();
    let find = |headers: &[(String, String)], name: &str| {
        headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
    };
    if !stop_magic {
        if !data.is_empty() {
            if find(&headers, "Content-Type").is_none() {
                headers.push(("Content-Type".into(), "application/x-www-form-urlencoded".into()));
            }
            if find(&headers, "Content-Type").as_deref() == Some("application/x-www-form-urlencoded") {
                data = encode_form(data);
            }
            if find(&headers, "Content-Length").is_none() {
                headers.push(("Content-Length".into(), data.len().to_string()));
            }
        }
        if find(&headers, "Connection").is_none() {
            headers.push(("Connection".into(), "close".into()));
        }
    }
    let mut raw = format!("{} {} {}\r\n", or("method", "GET"), or("uri", "/"), or("version", "HTTP/1.1")).into_bytes();
    for (name, value) in headers {
        raw.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    raw.extend_from_slice(b"\r\n");
    raw.extend_from_slice(data.as_bytes());
    raw
}

/// A form that is not encoded is encoded, as the tests' first runner did.
fn encode_form(data: String) -> String {
    let bytes = data.as_bytes();
    let escaped = (0..bytes.len())
        .any(|i| bytes[i] == b'%' && bytes.get(i + 1..i + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit)));
    if escaped {
        return data;
    }
    let quote = |text: &str| {
        let mut out = String::new();
        for b in text.replace('+', " ").bytes() {
            match b {
                b' ' => out.push('+'),
                b if b.is_ascii_alphanumeric() || b"_.-~".contains(&b) => out.push(b as char),
                b => out.push_str(&format!("%{b:02X}")),
            }
        }
        out
    };
    let pairs: Vec<String> = data
        .split('&')
        .filter_map(|p| p.split_once('='))
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| format!("{}={}", quote(k), quote(v)))
        .collect();
    if pairs.is_empty() { data } else { pairs.join("&") }
}
