//! Rules that sleep until something wakes them: on every request that can be put together, what matches is what matches
//! when all rules are evaluated.

use std::sync::Arc;

use palisade_seclang::{Builder, Match, MemoryCollections, RuleSet, Steps, Transaction, Verdict};

const RULES: &str = include_str!("../rules/asleep.conf");
/// A rule that reads what the one before it matched: then only first links let a rule sleep.
const STALE: &str = "SecAction \"id:90,phase:2,pass,log,logdata:'%{MATCHED_VAR} %{MATCHED_VAR_NAME} %{tx.0}'\"\n\
                     SecAction \"id:91,phase:5,pass,log,logdata:'%{MATCHED_VAR}'\"";
/// A rule that reads one of the variables that are made of the names of headers.
const NAMED: &str = "SecRule TX:dyn_x-wake \"@rx .\" \"id:34,phase:2,pass\"";
/// A variable of a collection whose name is read from one of `TX`, which a rule of configuration changes afterwards.
const COLLECTED: &str = "SecRule REQUEST_HEADERS:X-Set \"@rx .\" \"id:92,phase:1,pass,nolog,setvar:ip.by_%{tx.which}=1\"\n\
                         SecAction \"id:93,phase:1,pass,nolog,setvar:tx.which=later\"\n\
                         SecRule IP:by_later \"@eq 1\" \"id:94,phase:5,pass,log\"";
const HEADERS: [&[(&str, &str)]; 7] = [
    &[("X-Set", "1")],
    &[("x-set", "2"), ("X-SET", "")],
    &[("X-Other", "ok")],
    &[("X-Other", "")],
    &[("X-Early", "1")],
    &[("X-Wake", "a"), ("x-other", "|a|")],
    &[("Proxy", "x"), ("X-Wake", "b"), ("X-Wake", "c")],
];
const LINES: [(&str, &str, &str); 4] = [
    ("GET", "/a", "HTTP/1.1"),
    ("POST", "/b/c.bak?a=2", "HTTP/1.1"),
    ("GET", "/?a=1&b=%27", "HTTP/1.0"),
    ("POST", "/x.y", "HTTP/2.0"),
];
const BODIES: [(&str, &str); 4] = [
    ("", ""),
    ("application/x-www-form-urlencoded", "a=1"),
    ("application/json", "{\"a\":[1,\"b\"}"),
    (
        "multipart/form-data; boundary=x",
        "--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"b\"\r\n\r\nc\r\n--x--\r\n",
    ),
];

/// Variables that are asked for at the end; the rules set others that nobody reads.
const NAMES: [&str; 12] =
    ["score", "level", "flag", "limit", "answered", "total", "extension", "dyn_x-wake", "dyn_host", "0", "1", "2"];

fn compile(more: &str, steps: Option<Steps>) -> Arc<RuleSet> {
    let mut builder = Builder::new();
    builder.reads(&NAMES).texts_only().text("asleep.conf", RULES).text("more.conf", more);
    match steps {
        Some(steps) => builder.steps(steps),
        None => builder.reference(),
    };
    let rules =
        builder.compile().unwrap_or_else(|p| panic!("{}", p.iter().map(ToString::to_string).collect::<String>()));
    Arc::new(rules.with_collections(Arc::new(MemoryCollections::new(100))))
}

type Outcome = (Vec<Match>, Option<Verdict>, Vec<Option<Vec<u8>>>, Vec<String>);

fn run(transaction: &mut Transaction, rules: &Arc<RuleSet>, request: usize) -> Outcome {
    let (method, target, protocol) = LINES[request % LINES.len()];
    let (kind, body) = BODIES[request / LINES.len() % BODIES.len()];
    let headers = request / LINES.len() / BODIES.len();
    transaction.reset(rules);
    transaction.connection(["10.1.1.1", "192.0.2.1"][headers % 2], 1, "192.0.2.9", 443);
    transaction.request(method.as_bytes(), target.as_bytes(), protocol.as_bytes());
    transaction.header(b"Host", b"example.com");
    let chosen = HEADERS.iter().enumerate().filter(|(i, _)| headers >> i & 1 == 1).flat_map(|(_, some)| some.iter());
    for (name, value) in chosen {
        transaction.header(name.as_bytes(), value.as_bytes());
    }
    if !kind.is_empty() {
        transaction.header(b"Content-Type", kind.as_bytes());
    }
    transaction.request_headers();
    transaction.body(body.as_bytes());
    transaction.request_body();
    transaction.response([200, 404, 500][request % 3], b"HTTP/1.1");
    if headers.is_multiple_of(2) {
        transaction.response_header(b"X-Answer", b"1");
    }
    transaction.response_header(b"Content-Type", b"text/html");
    transaction.response_headers();
    if headers.is_multiple_of(3) {
        transaction.response_chunk(b"answer");
    }
    transaction.response_body();
    transaction.logging();
    let tx = NAMES.iter().map(|name| transaction.tx(name).map(<[u8]>::to_vec)).collect();
    let findings = transaction.findings().iter().map(ToString::to_string).collect();
    (transaction.matches().to_vec(), transaction.would_be().cloned(), tx, findings)
}

fn compare(more: &str, steps: Steps) {
    let (slow, fast) = (compile(more, None), compile(more, Some(steps)));
    let (mut slow_one, mut fast_one) = (Transaction::new(&slow), Transaction::new(&fast));
    let mut seen = std::collections::BTreeSet::new();
    for request in 0..(LINES.len() * BODIES.len()) << HEADERS.len() {
        let (want, is) = (run(&mut slow_one, &slow, request), run(&mut fast_one, &fast, request));
        assert!(want == is, "request {request}\n{want:#?}\n{is:#?}");
        seen.extend(want.0.iter().map(|found| found.rule));
    }
    // Each rule that can match did, so each was woken.
    let silent = [2, 3, 4, 5, 10, 14, 17, 19, 30, 40, 42, 57, 59, 60, 61, 70, 81, 83, 84, 85, 86];
    let all: Vec<u64> = RULES
        .split("id:")
        .skip(1)
        .filter_map(|rest| rest.split(',').next()?.parse().ok())
        .filter(|id| !silent.contains(id))
        .collect();
    let missing: Vec<&u64> = all.iter().filter(|id| !seen.contains(id)).collect();
    assert!(missing.is_empty(), "never matched: {missing:?}");
}

#[test]
fn rules_that_sleep_are_woken() {
    compare("", Steps::ALL);
}

#[test]
fn rules_that_sleep_are_woken_where_others_read_what_was_matched() {
    compare(STALE, Steps::ALL);
}

#[test]
fn rules_that_sleep_are_woken_by_names_that_rules_know() {
    compare(NAMED, Steps::ALL);
}

#[test]
fn what_names_a_variable_of_a_collection_is_read() {
    compare(COLLECTED, Steps::ALL);
}

#[test]
fn rules_that_sleep_are_woken_without_other_short_cuts() {
    compare("", Steps { known: false, ..Steps::ALL });
    compare("", Steps { filter: false, ..Steps::ALL });
    compare("", Steps { fold: false, needs: false, ..Steps::ALL });
}

#[test]
fn most_rules_sleep() {
    let rules = compile("", Some(Steps::ALL));
    let awake: Vec<u64> = (1..=5).flat_map(|phase| rules.always_evaluated(phase)).collect();
    println!("awake {awake:?}");
    assert!(awake.len() < 20, "{awake:?}");
}
