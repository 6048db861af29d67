//! The regression tests of the Core Rule Set: YAML files of requests, and the rules that each must find or leave alone.
//!
//! Two formats: that of version 3 (`test_title`, `stage`, `log_contains`), and that of version 4 (`rule_id`, `test_id`,
//! `log: { expect_ids }`, answers of the server). Where the second is silent, what CRS's own runner does holds.

use std::path::Path;

use anyhow::{Context as _, bail};
use regex_automata::meta::Regex;
use serde_json::Value;

use super::answer::Reply;

/// One stage of a test.
pub(super) struct Case {
    pub(super) title: String,
    /// What goes over the wire.
    pub(super) raw: Vec<u8>,
    pub(super) wanted: Vec<u64>,
    pub(super) unwanted: Vec<u64>,
    /// Any of these, where a status is asked for.
    pub(super) statuses: Vec<u16>,
    /// Whether the connection may end without an answer.
    error: bool,
    /// Whether no other rule than the wanted one may match.
    isolated: bool,
    /// A text that the log must hold.
    pattern: Option<Regex>,
    /// A text that the log must not hold.
    other_pattern: Option<Regex>,
    /// A text that the answer must hold.
    contains: String,
    /// What the server answers; otherwise what it always does.
    pub(super) reply: Option<Reply>,
    /// Whether the status counts beside the rules, and not only where no rule is named.
    both: bool,
}

/// What became of a case.
pub(super) struct Seen<'a> {
    /// Rules that matched.
    pub(super) rules: &'a [u64],
    /// The matches as ModSecurity logs them.
    pub(super) log: &'a str,
    pub(super) status: Option<u16>,
    /// The answer, as far as it was read.
    pub(super) answer: &'a [u8],
}

impl Case {
    /// Whether it is in the format of version 4.
    pub(super) fn is_of_four(&self) -> bool {
        self.both
    }

    /// Whether the body of the answer is looked at.
    pub(super) fn reads(&self) -> bool {
        !self.contains.is_empty()
    }

    pub(super) fn passes(&self, seen: &Seen<'_>) -> bool {
        let named = !(self.wanted.is_empty() && self.unwanted.is_empty());
        let logged = self.pattern.is_some() || self.other_pattern.is_some();
        if !named && !logged && !self.both {
            // Only the server's own answer counts.
            return match seen.status {
                None => self.error || self.statuses.is_empty(),
                Some(status) => self.statuses.is_empty() || self.statuses.contains(&status) || self.error,
            };
        }
        if self.both {
            match seen.status {
                None if self.error => return true,
                Some(status) if self.statuses.is_empty() || self.statuses.contains(&status) => {}
                None if self.statuses.is_empty() => {}
                _ => return false,
            }
        }
        let found = |pattern: &Regex| pattern.is_match(seen.log);
        self.wanted.iter().all(|id| seen.rules.contains(id))
            && !self.unwanted.iter().any(|id| seen.rules.contains(id))
            && self.pattern.as_ref().is_none_or(found)
            && !self.other_pattern.as_ref().is_some_and(found)
            && (!self.isolated || seen.rules.iter().all(|id| self.wanted.contains(id)))
            && (self.contains.is_empty() || String::from_utf8_lossy(seen.answer).contains(&self.contains))
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
        read_file(&text, &mut cases).with_context(|| file.display().to_string())?;
    }
    Ok(cases)
}

fn read_file(text: &str, cases: &mut Vec<Case>) -> anyhow::Result<()> {
    let document: Value = serde_saphyr::from_str(text)?;
    // The later format has the rule's number, and leaves out nothing.
    let rule = document.get("rule_id");
    if rule.is_none() && document["meta"]["enabled"] == false {
        return Ok(());
    }
    for (place, test) in document["tests"].as_array().into_iter().flatten().enumerate() {
        let title = match (rule, test.get("test_title")) {
            (_, Some(title)) => string(title),
            (Some(rule), None) => {
                let number = test.get("test_id").map_or_else(|| (place + 1).to_string(), string);
                format!("{}-{number}", string(rule))
            }
            (None, None) => bail!("a test has neither `test_title` nor `rule_id`"),
        };
        for stage in test["stages"].as_array().into_iter().flatten() {
            let stage = stage.get("stage").unwrap_or(stage);
            cases.extend(of_stage(&title, rule.is_some(), stage).with_context(|| title.clone())?);
        }
    }
    Ok(())
}

/// One case, or one for each of `uris`, which stand in the place of `uri`: what is expected is expected of each.
fn of_stage(title: &str, later: bool, stage: &Value) -> anyhow::Result<Vec<Case>> {
    let uris = stage["input"]["uris"].as_array().filter(|uris| !uris.is_empty());
    let Some(uris) = uris else { return Ok(vec![case(title.to_owned(), later, stage)?]) };
    let with = |uri: &Value| {
        let mut stage = stage.clone();
        stage["input"]["uri"] = uri.clone();
        case(title.to_owned(), later, &stage)
    };
    uris.iter().map(with).collect()
}

fn case(title: String, later: bool, stage: &Value) -> anyhow::Result<Case> {
    let (input, output) = (&stage["input"], &stage["output"]);
    if input["follow_redirect"] == true {
        bail!("`follow_redirect` is not supported");
    }
    let log = &output["log"];
    let mut wanted = ids(&output["log_contains"]);
    let mut unwanted = ids(&output["no_log_contains"]);
    wanted.extend(numbers(&log["expect_ids"]));
    unwanted.extend(numbers(&log["no_expect_ids"]));
    let pattern = |value: &Value| match value.as_str().filter(|text| !text.is_empty()) {
        Some(text) => Regex::new(text).map(Some).context("a pattern of `log`"),
        None => Ok(None),
    };
    Ok(Case {
        title,
        raw: request(input, later)?,
        wanted,
        unwanted,
        statuses: statuses(&output["status"]),
        error: output["expect_error"] == true,
        isolated: output["isolated"] == true,
        pattern: pattern(&log["match_regex"])?,
        other_pattern: pattern(&log["no_match_regex"])?,
        contains: string(&output["response_contains"]),
        reply: input.get("response").map(Reply::read).transpose()?,
        both: later,
    })
}

fn numbers(value: &Value) -> impl Iterator<Item = u64> + '_ {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64)
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
fn request(input: &Value, later: bool) -> anyhow::Result<Vec<u8>> {
    let base64 = |text: &str, what: &'static str| {
        let compact: String = text.split_whitespace().collect();
        data_encoding::BASE64.decode(compact.as_bytes()).context(what)
    };
    let text = |key: &str| input.get(key).map(string).filter(|text| !text.is_empty());
    if let Some(encoded) = text("encoded_request") {
        return base64(&encoded, "`encoded_request` is base64");
    }
    if let Some(raw) = text("raw_request") {
        return Ok(raw.into_bytes());
    }
    let or = |key: &str, default: &str| input.get(key).map_or_else(|| default.to_owned(), string);
    let mut data = match &input["data"] {
        Value::Array(lines) => lines.iter().map(string).collect::<Vec<_>>().join("\r\n").into_bytes(),
        other => string(other).into_bytes(),
    };
    if let Some(encoded) = text("encoded_data") {
        data = base64(&encoded, "`encoded_data` is base64")?;
    }
    let mut headers: Vec<(String, String)> = input["headers"]
        .as_object()
        .map(|named| named.iter().map(|(name, value)| (name.clone(), string(value))).collect())
        .unwrap_or_default();
    let ordered = input["ordered_headers"].as_array().into_iter().flatten();
    headers.extend(ordered.map(|header| (string(&header["name"]), string(&header["value"]))));
    let find = |headers: &[(String, String)], name: &str| {
        headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    let is =
        |key: &str, wanted: bool| input.get(key).is_some_and(|is| *is == wanted || string(is) == wanted.to_string());
    let completes = !is("stop_magic", true) && !is("autocomplete_headers", false);
    let method = or("method", "GET");
    if completes && !data.is_empty() {
        let form = "application/x-www-form-urlencoded";
        if find(&headers, "Content-Type").is_none() {
            headers.push(("Content-Type".into(), form.into()));
        }
        if find(&headers, "Content-Type").as_deref() == Some(form) {
            data = if later { encode_words(data) } else { encode_form(data) };
        }
    }
    if later && find(&headers, "Content-Type").is_some_and(|kind| kind.starts_with("multipart/form-data;")) {
        data = crlf(&data);
    }
    if completes {
        let has_body = !data.is_empty() || later && ["POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str());
        if has_body && find(&headers, "Content-Length").is_none() {
            headers.push(("Content-Length".into(), data.len().to_string()));
        }
        if find(&headers, "Connection").is_none() {
            headers.push(("Connection".into(), "close".into()));
        }
    }
    let mut raw = format!("{method} {} {}\r\n", or("uri", "/"), or("version", "HTTP/1.1")).into_bytes();
    for (name, value) in headers {
        raw.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    raw.extend_from_slice(b"\r\n");
    raw.extend_from_slice(&data);
    Ok(raw)
}

/// Lines of a multipart body end in CR LF, whatever ends them in YAML.
fn crlf(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + data.len() / 16);
    for &byte in data {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

fn quote(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A form in which nothing is encoded is encoded name by name and value by value, as the runner of version 4 does.
fn encode_words(data: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&data) else { return data };
    let bytes = text.as_bytes();
    let is_escape = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    // A `%` that begins no escape is an error to that runner; it is left as it is.
    if bytes.contains(&b'+') || (0..bytes.len()).any(|at| bytes[at] == b'%' && (is_escape(at) || bytes.len() < at + 3))
    {
        return data;
    }
    let word = |pair: &str| match pair.split_once('=') {
        Some((name, value)) => format!("{}={}", quote(name), quote(value)),
        None => quote(pair),
    };
    text.split('&').map(word).collect::<Vec<_>>().join("&").into_bytes()
}

/// A form that is not encoded is encoded, as the tests' first runner did.
fn encode_form(data: Vec<u8>) -> Vec<u8> {
    let is_escape = |at: usize| {
        data[at] == b'%' && data.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    };
    if (0..data.len()).any(is_escape) {
        return data;
    }
    let text = String::from_utf8_lossy(&data).replace('+', " ");
    let pairs: Vec<String> = text
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{}={}", quote(name), quote(value)))
        .collect();
    if pairs.is_empty() { data } else { pairs.join("&").into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn raw(input: &Value, later: bool) -> String {
        String::from_utf8(request(input, later).unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_written_as_the_tests_say() {
        let input = json!({ "uri": "/a", "method": "POST", "headers": { "Host": "h" }, "data": "a=b c" });
        let written = raw(&input, false);
        assert!(
            written.starts_with("POST /a HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n")
        );
        assert!(written.ends_with("Content-Length: 5\r\nConnection: close\r\n\r\na=b+c"), "{written}");
        assert_eq!(request(&json!({ "encoded_request": "R0VU\nIC8=" }), false).unwrap(), b"GET /");
        assert_eq!(ids(&json!("id \"942100\"")), [942_100]);
    }

    #[test]
    fn a_request_of_version_4_too() {
        let body = |input: &Value| raw(input, true).split_once("\r\n\r\n").unwrap().1.to_owned();
        assert_eq!(body(&json!({ "data": "a=<b>&c" })), "a=%3Cb%3E&c");
        assert_eq!(body(&json!({ "data": "a=%3Cb>" })), "a=%3Cb>");
        assert_eq!(body(&json!({ "encoded_data": "YT1i" })), "a=b");
        let multipart = json!({ "headers": { "Content-Type": "multipart/form-data; boundary=b" }, "data": "--b\nx\n" });
        assert_eq!(body(&multipart), "--b\r\nx\r\n");
        let bare = raw(
            &json!({ "autocomplete_headers": false, "data": "x", "ordered_headers": [{ "name": "A", "value": 1 }] }),
            true,
        );
        assert_eq!(bare, "GET / HTTP/1.1\r\nA: 1\r\n\r\nx");
        assert!(raw(&json!({ "method": "POST" }), true).contains("Content-Length: 0\r\n"));
    }

    #[test]
    fn both_formats_are_read_and_judged() {
        let three = r#"
meta: { enabled: true }
tests:
  - test_title: 942100-1
    stages:
      - stage:
          input: { uri: "/?a=1" }
          output: { log_contains: 'id "942100"' }
"#;
        let four = r#"
meta: { author: somebody }
rule_id: 951240
tests:
  - test_id: 7
    stages:
      - input:
          method: POST
          uri: /reflect
          data: '{"body": "x"}'
          response: { status: 502, headers: { X-A: b }, encoded_body: eA== }
        output:
          status: 200
          log: { expect_ids: [951240, 951241], no_expect_ids: [1], match_regex: 'msg "S[QL]+"' }
  - stages:
      - input: { uri: / }
        output: { log: { expect_ids: [5] }, isolated: true }
      - input: { uri: / }
        output: { expect_error: true }
"#;
        let mut cases = Vec::new();
        read_file(three, &mut cases).unwrap();
        read_file(four, &mut cases).unwrap();
        read_file("meta: { enabled: false }\ntests: [{ stages: [] }]", &mut cases).unwrap();
        let titles: Vec<&str> = cases.iter().map(|case| case.title.as_str()).collect();
        assert_eq!(titles, ["942100-1", "951240-7", "951240-2", "951240-2"]);
        let passes = |case: &Case, rules: &[u64], log: &str, status: Option<u16>| {
            case.passes(&Seen { rules, log, status, answer: b"" })
        };
        assert!(passes(&cases[0], &[942_100, 3], "", Some(400)) && !passes(&cases[0], &[3], "", Some(200)));
        let both = [951_240, 951_241];
        assert!(passes(&cases[1], &both, "msg \"SQL\"", Some(200)));
        for (rules, log, status) in [
            (&both[..1], "msg \"SQL\"", Some(200)),
            (&both, "", Some(200)),
            (&both, "msg \"SQL\"", Some(403)),
            (&[951_240, 951_241, 1], "msg \"SQL\"", Some(200)),
        ] {
            assert!(!passes(&cases[1], rules, log, status), "{rules:?} {log} {status:?}");
        }
        assert_eq!(cases[1].reply.as_ref().map(Reply::status), Some(502));
        assert!(passes(&cases[2], &[5], "", Some(200)) && !passes(&cases[2], &[5, 6], "", Some(200)));
        assert!(passes(&cases[3], &[], "", None));
        cases.clear();
        read_file("rule_id: 1\ntests: [{ stages: [{ input: { uri: /x, uris: [/a, '/b?c'] } }] }]", &mut cases).unwrap();
        let lines: Vec<_> = cases.iter().filter_map(|case| case.raw.split(|byte| *byte == b'\r').next()).collect();
        assert_eq!(lines, [&b"GET /a HTTP/1.1"[..], b"GET /b?c HTTP/1.1"], "a request for each");
        assert!(read_file("tests: [{ stages: [] }]", &mut cases).is_err(), "a test without a name");
        let follows = "rule_id: 1\ntests: [{ stages: [{ input: { follow_redirect: true } }] }]";
        assert!(read_file(follows, &mut cases).is_err());
    }
}
