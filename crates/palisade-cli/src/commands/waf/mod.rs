//! `palisade waf`: what the rules say of one request, and the regression tests of a rule set.

mod answer;
mod cases;
mod gateway;

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use self::gateway::Gateway;
use super::output::{json, print, table};
use crate::args::{CrsTest, Global, Waf, WafTest};
use crate::exit::{Done, Usage};

/// Runs the one or the other.
pub(crate) fn run(global: &Global, waf: &Waf) -> anyhow::Result<Done> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    match waf {
        Waf::Test(test) => runtime.block_on(one(global, test)),
        Waf::CrsTest(test) => runtime.block_on(all(global, test)),
    }
}

/// One request, as the policy's rules see it.
async fn one(global: &Global, test: &WafTest) -> anyhow::Result<Done> {
    let host = test.header.iter().any(|header| header.to_ascii_lowercase().starts_with("host:"));
    let method = test.method.clone().unwrap_or_else(|| if test.data.is_some() { "POST" } else { "GET" }.to_owned());
    let mut raw = format!("{method} {} HTTP/1.1\r\n", test.target);
    if !host {
        raw.push_str("Host: localhost\r\n");
    }
    for header in &test.header {
        if !header.contains(':') || header.contains(['\r', '\n']) {
            return Err(Usage(format!("`{header}` is no header: write `Name: value`")).into());
        }
        raw.push_str(&format!("{header}\r\n"));
    }
    let mut raw = raw.into_bytes();
    if let Some(data) = &test.data {
        let bytes = match data.strip_prefix('@') {
            Some(file) => std::fs::read(file)?,
            None => data.clone().into_bytes(),
        };
        raw.extend(format!("Content-Length: {}\r\n", bytes.len()).into_bytes());
        raw.extend(b"Connection: close\r\n\r\n");
        raw.extend(bytes);
    } else {
        raw.extend(b"Connection: close\r\n\r\n");
    }
    let gateway = Gateway::start(global, &[], None).await?;
    let answer = gateway.send(&raw, false).await?;
    let lines = gateway.lines().await?;
    let of_request = |line: &&Value| line["request_id"].as_str() == answer.id.as_deref();
    let matches: Vec<&Value> = lines.iter().filter(|line| line["event"] == "waf.match").filter(of_request).collect();
    let refusal = lines.iter().find(|line| line["event"] == "request.refused" && of_request(line));
    if global.json {
        json(&json!({ "matches": matches, "refusal": refusal }))?;
    } else {
        let cell = |value: &Value| super::output::text(value);
        let rows: Vec<Vec<String>> = matches
            .iter()
            .map(|line| ["ruleId", "target", "msg", "data"].map(|key| cell(&line[key])).to_vec())
            .collect();
        print(&table(&rows, 0));
        print(&match refusal {
            Some(line) => format!(
                "would be refused: `{}` ({}{})\n",
                cell(&line["code"]),
                cell(&line["why"]),
                line["score"].as_str().map(|score| format!(", score {score}")).unwrap_or_default()
            ),
            None if matches.is_empty() => "no rule matched\n".to_owned(),
            None => "passes\n".to_owned(),
        });
    }
    Ok(if refusal.is_some() { Done::Findings } else { Done::Ok })
}

/// Tests that run at once.
const AT_ONCE: usize = 8;

/// What the regression tests assume: everything is judged, nothing is refused.
const BEFORE: &str = "SecAction \"id:900005,phase:1,nolog,pass,setvar:tx.crs_validate_utf8_encoding=1,\
    setvar:tx.arg_name_length=100,setvar:tx.arg_length=400\"\n";
/// What those of version 4 assume beside it.
const BEFORE_FOUR: &str = "SecResponseBodyAccess On\nSecResponseBodyMimeType text/plain text/html text/xml application/json\n\
    SecAction \"id:900006,phase:1,nolog,pass,setvar:tx.max_num_args=255,setvar:tx.total_arg_length=6400,\
    setvar:tx.max_file_size=64100,setvar:tx.combined_file_sizes=65535\"\n";

/// Regression tests, through a gateway, before a server of its own.
async fn all(global: &Global, test: &CrsTest) -> anyhow::Result<Done> {
    let cases = cases::read(&test.folder)?;
    if cases.is_empty() {
        return Err(Usage(format!("there are no tests below {}", test.folder.display())).into());
    }
    let folder = tempfile::tempdir()?;
    let before = folder.path().join("before.conf");
    let four = cases.iter().any(cases::Case::is_of_four);
    std::fs::write(&before, format!("{BEFORE}{}", if four { BEFORE_FOUR } else { "" }))?;
    let mut rules = vec![before.to_string_lossy().into_owned()];
    if test.rules.is_empty() {
        let read = palisade::live::read(&super::policy::sources(global)).map_err(palisade::Error::Policy)?;
        rules.extend_from_slice(read.config.waf.config.rules.paths());
    } else {
        let here = std::env::current_dir()?;
        rules.extend(test.rules.iter().map(|path| here.join(path).to_string_lossy().into_owned()));
    }
    if rules.len() == 1 {
        return Err(Usage("there are no rules: name them with `--rules`, or in `[waf]` of the policy".into()).into());
    }
    let flags = [
        ("waf.rules", serde_json::to_string(&rules)?),
        ("waf.paranoia", "4".to_owned()),
        ("waf.budget", "\"10s\"".to_owned()),
        ("limits.mode", "\"off\"".to_owned()),
        ("rate_limit.mode", "\"off\"".to_owned()),
        ("server.hosts", "[\"*\"]".to_owned()),
    ];
    let gateway = Gateway::start(global, &flags, Some(&cases::methods(&cases))).await?;
    // Some requests are never whole, and their answers are waited for in vain: others go on meanwhile.
    let plain = |case: &&cases::Case| case.reply.is_none();
    let sent = futures_util::stream::iter(cases.iter().filter(plain)).map(|case| gateway.send(&case.raw, case.reads()));
    let mut answers: std::collections::VecDeque<_> = sent.buffered(AT_ONCE).try_collect().await?;
    // Of those that say what the server answers, one at a time.
    let mut in_order = Vec::with_capacity(cases.len());
    for case in &cases {
        in_order.push(match &case.reply {
            None => answers.pop_front().unwrap_or_default(),
            Some(reply) => {
                gateway.answers(Some(reply.clone()));
                gateway.send(&case.raw, case.reads()).await?
            }
        });
    }
    gateway.answers(None);
    let answers = in_order;
    let mut lines: HashMap<String, Vec<Value>> = HashMap::new();
    for line in gateway.lines().await? {
        if let Some(id) = line["request_id"].as_str() {
            lines.entry(id.to_owned()).or_default().push(line);
        }
    }
    let mut failed = Vec::new();
    for (case, answer) in cases.iter().zip(&answers) {
        let lines = answer.id.as_ref().and_then(|id| lines.get(id)).map(Vec::as_slice).unwrap_or_default();
        let found: Vec<u64> = lines
            .iter()
            .filter(|line| line["event"] == "waf.match")
            .filter_map(|line| line["ruleId"].as_u64())
            .collect();
        let refused = |line: &&Value| line["event"] == "request.refused" && line["mode"] == "block";
        let refused = lines.iter().find(refused).and_then(|line| line["code"].as_str());
        let log: String = lines.iter().filter(|line| line["event"] == "waf.match").map(modsecurity).collect();
        let seen = cases::Seen { rules: &found, log: &log, status: answer.status, answer: &answer.bytes };
        if !case.passes(&seen) {
            failed.push(json!({
                "test": case.title, "wanted": case.wanted, "unwanted": case.unwanted, "statuses": case.statuses,
                "found": found, "status": answer.status, "refused": refused,
            }));
        }
    }
    let passed = cases.len() - failed.len();
    if global.json {
        json(&json!({ "tests": cases.len(), "passed": passed, "failed": failed }))?;
    } else {
        let cell = |value: &Value| super::output::text(value);
        let rows: Vec<Vec<String>> = failed
            .iter()
            .map(|row| {
                let why = match row["refused"].as_str() {
                    Some(code) => format!("refused before: `{code}`"),
                    None => format!("found {}", cell(&row["found"])),
                };
                vec![cell(&row["test"]), format!("wanted {}", cell(&row["wanted"])), why]
            })
            .collect();
        print(&table(&rows, 2));
        let percent = 100.0 * passed as f64 / cases.len() as f64;
        print(&format!("{passed} of {} tests pass ({percent:.2} %)\n", cases.len()));
    }
    Ok(if failed.is_empty() { Done::Ok } else { Done::Findings })
}

/// A match as ModSecurity logs it, for patterns over its log.
fn modsecurity(line: &Value) -> String {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let tags: String = line["tags"].as_array().into_iter().flatten().map(|tag| format!(" [tag {tag}]")).collect();
    format!("[id \"{}\"] [msg \"{}\"] [data \"{}\"]{tags}\n", line["ruleId"], text("msg"), text("data"))
}
