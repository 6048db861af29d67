//! The regression tests of the Core Rule Set: YAML files of requests, and the rules that each must find or leave alone.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// One stage of a test.
pub(super) struct Case {
    pub(super) title: String,
    /// What goes over the wire.
    pub(super) raw: Vec<u8>,
    pub(super) wanted: Vec<u64>,
    pub(super) unwanted: Vec<u64>,
    /// Any of these, where a status is asked for and no rule.
    pub(super) statuses: Vec<u16>,
    /// Whether the connection may end without an answer.
    error: bool,
}

impl Case {
    pub(super) fn passes(&self, found: &[u64], status: Option<u16>) -> bool {
        if self.wanted.is_empty() && self.unwanted.is_empty() {
            // No rule is named: only the server's own answer counts.
            return match status {
                None => self.error || self.statuses.is_empty(),
                Some(status) => self.statuses.is_empty() || self.statuses.contains(&status) || self.error,
            };
        }
        self.wanted.iter().all(|id| found.contains(id)) && !self.unwanted.iter().any(|id| found.contains(id))
    }
}

/// All stages of all enabled files below a folder, in the order of their names.
pub(super) fn read(folder: &Path) -> anyhow::Result<Vec<Case>> {
    let mut files = Vec::new();
    find(folder, &mut files, 0)?;
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let document: Value = serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        if document["meta"]["enabled"] == false {
            continue;
        }
        for test in document["tests"].as_array().into_iter().flatten() {
            for stage in test["stages"].as_array().into_iter().flatten() {
                let (input, output) = (&stage["stage"]["input"], &stage["stage"]["output"]);
                cases.push(Case {
                    title: string(&test["test_title"]),
                    raw: request(input).with_context(|| file.display().to_string())?,
                    wanted: ids(&output["log_contains"]),
                    unwanted: ids(&output["no_log_contains"]),
                    statuses: statuses(&output["status"]),
                    error: output["expect_error"] == true,
                });
            }
        }
    }
    Ok(cases)
}

/// The methods that are used, for a gateway that refuses what no route names.
pub(super) fn methods(cases: &[Case]) -> Vec<String> {
    let mut methods: Vec<String> = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(str::to_owned).to_vec();
    for case in cases {
        let word = case.raw.split(|byte| *byte == b' ').next().unwrap_or_default();
        let method = String::from_utf8_lossy(word).into_owned();
        let token = |byte: &u8| byte.is_ascii_uppercase() || b"!#$%&'*+-.^_`|~".contains(byte);
        let plain = (1..=24).contains(&word.len()) && word.iter().all(token);
        // `HEAD` comes with `GET`.
        if plain && method != "HEAD" && !methods.contains(&method) {
            methods.push(method);
        }
    }
    methods
}

fn find(folder: &Path, files: &mut Vec<std::path::PathBuf>, depth: usize) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && depth < 4 {
            find(&path, files, depth + 1)?;
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    Ok(())
}

fn statuses(value: &Value) -> Vec<u16> {
    let number = |value: &Value| value.as_u64().and_then(|status| status.try_into().ok());
    match value {
        Value::Array(list) => list.iter().filter_map(number).collect(),
        one => number(one).into_iter().collect(),
    }
}

fn ids(expectation: &Value) -> Vec<u64> {
    let text = string(expectation);
    let digits = |t: &str| t.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
    text.split("id \"").skip(1).filter_map(|t| digits(t.split('"').next().unwrap_or(""))).collect()
}

fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The bytes that go over the wire.
fn request(input: &Value) -> anyhow::Result<Vec<u8>> {
    if let Some(encoded) = input.get("encoded_request").map(string).filter(|text| !text.is_empty()) {
        let compact: String = encoded.split_whitespace().collect();
        return data_encoding::BASE64.decode(compact.as_bytes()).context("`encoded_request` is base64");
    }
    if let Some(raw) = input.get("raw_request").map(string).filter(|text| !text.is_empty()) {
        return Ok(raw.into_bytes());
    }
    let or = |key: &str, default: &str| input.get(key).map_or_else(|| default.to_owned(), string);
    let mut data = match &input["data"] {
        Value::Array(lines) => lines.iter().map(string).collect::<Vec<_>>().join("\r\n"),
        other => string(other),
    };
    let mut headers: Vec<(String, String)> = input["headers"]
        .as_object()
        .map(|named| named.iter().map(|(name, value)| (name.clone(), string(value))).collect())
        .unwrap_or_default();
    let find = |headers: &[(String, String)], name: &str| {
        headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    if !input.get("stop_magic").is_some_and(|stop| stop == true || stop == "true") {
        if !data.is_empty() {
            let form = "application/x-www-form-urlencoded";
            if find(&headers, "Content-Type").is_none() {
                headers.push(("Content-Type".into(), form.into()));
            }
            if find(&headers, "Content-Type").as_deref() == Some(form) {
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
    Ok(raw)
}

/// A form that is not encoded is encoded, as the tests' first runner did.
fn encode_form(data: String) -> String {
    let bytes = data.as_bytes();
    let is_escape = |at: usize| {
        bytes[at] == b'%' && bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    if (0..bytes.len()).any(is_escape) {
        return data;
    }
    let quote = |text: &str| {
        let mut out = String::new();
        for byte in text.replace('+', " ").bytes() {
            match byte {
                b' ' => out.push('+'),
                byte if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) => out.push(char::from(byte)),
                byte => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    };
    let pairs: Vec<String> = data
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{}={}", quote(name), quote(value)))
        .collect();
    if pairs.is_empty() { data } else { pairs.join("&") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_the_tests_say() {
        let input = serde_json::json!({ "uri": "/a", "method": "POST", "headers": { "Host": "h" }, "data": "a=b c" });
        let raw = String::from_utf8(request(&input).unwrap()).unwrap();
        assert!(raw.starts_with("POST /a HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n"));
        assert!(raw.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\na=b+c"), "{raw}");
        assert_eq!(request(&serde_json::json!({ "encoded_request": "R0VU\nIC8=" })).unwrap(), b"GET /");
        assert_eq!(ids(&serde_json::json!("id \"942100\"")), [942_100]);
    }
}
