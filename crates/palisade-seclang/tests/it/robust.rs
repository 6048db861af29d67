//! Any bytes, anywhere: no panic, bounded work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use palisade_seclang::{Builder, Finding, RuleSet, Transaction};
use proptest::prelude::*;

use crate::support;

fn small_rules() -> Arc<RuleSet> {
    let mut builder = Builder::new();
    builder.text(
        "robust.conf",
        r#"
SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess On
SecRequestBodyLimit 100000
SecRule ARGS|ARGS_NAMES|REQUEST_HEADERS|REQUEST_COOKIES|XML:/*|XML://@*|FILES|MULTIPART_PART_HEADERS|REQUEST_BODY "@rx (?i)un(io)n.*select" "id:1,phase:2,pass,capture,t:none,t:urlDecodeUni,t:htmlEntityDecode,t:jsDecode,setvar:'tx.x_%{MATCHED_VAR_NAME}=%{tx.1}'"
SecRule ARGS "@detectSQLi" "id:2,phase:2,pass,multiMatch,t:none,t:utf8toUnicode,t:base64Decode,t:cssDecode"
SecRule ARGS "@detectXSS" "id:3,phase:2,pass,t:none,t:normalizePathWin,t:cmdLine,t:replaceComments"
SecRule &ARGS "@gt 2" "id:4,phase:2,pass,chain"
 SecRule MATCHED_VARS_NAMES|TX:/^x_/ "!@rx ^a" "setvar:tx.n=+1"
SecRule RESPONSE_BODY|RESPONSE_HEADERS "@pm error stack" "id:5,phase:4,pass"
"#,
    );
    Arc::new(builder.compile().unwrap())
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..120),
        r#"[{}\[\]":,\\a-e0-9 u.<>/!=&;%'-]{0,120}"#.prop_map(String::into_bytes),
        "(--b\r\n|--b--|Content-Disposition: form-data; name=\"a\"|; filename=\"x\"|\r\n|\r\n\r\n|\n|abc|:|;){0,14}"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_request(target in any_text(), name in any_text(), value in any_text(), body in any_text(), kind in 0..6usize, cut in 0..60usize) {
        thread_local!(static RULES: Arc<RuleSet> = small_rules());
        let rules = RULES.with(Arc::clone);
        let mut transaction = Transaction::new(&rules);
        transaction.request(&name, &target, &value);
        let types: [&[u8]; 6] = [
            b"application/json", b"multipart/form-data; boundary=b", b"text/xml", b"application/x-www-form-urlencoded", &value, b"",
        ];
        if !types[kind].is_empty() {
            transaction.header(b"Content-Type", types[kind]);
        }
        transaction.header(&name, &value);
        transaction.header(b"Cookie", &target);
        transaction.request_headers();
        // The pieces in which a body arrives make no difference.
        let (a, b) = body.split_at(cut.min(body.len()));
        transaction.body(a);
        transaction.body(b);
        transaction.request_body();
        transaction.response(200, &value);
        transaction.response_header(b"Content-Type", b"text/html");
        transaction.response_headers();
        transaction.response_chunk(&body);
        transaction.response_body();
        transaction.logging();
        let mut whole = Transaction::new(&rules);
        whole.request(&name, &target, &value);
        if !types[kind].is_empty() {
            whole.header(b"Content-Type", types[kind]);
        }
        whole.header(&name, &value);
        whole.header(b"Cookie", &target);
        whole.request_headers();
        whole.body(&body);
        whole.request_body();
        let phases_of_request = |t: &Transaction| t.matches().iter().filter(|m| m.phase <= 2).cloned().collect::<Vec<_>>();
        if types[kind] != b"" {
            prop_assert_eq!(phases_of_request(&whole), phases_of_request(&transaction));
            prop_assert_eq!(whole.findings(), transaction.findings());
        }
    }

    #[test]
    fn any_rules(text in r#"((SecRule|SecAction|SecMarker|Include|ARGS|TX:/a/|"@rx |"id:1,|phase:2|chain|t:none|setvar:tx.a=+1|ctl:ruleRemoveById=1|skipAfter:X|'|"|\\|\n| |,|:|%\{tx.a\}|[a-z]{1,4}|[!-~])){0,20}"#) {
        let mut builder = Builder::new();
        builder.text("any.conf", &text);
        let _ = builder.compile();
    }
}

/// The Core Rule Set at a paranoia level.
fn crs_at(root: &std::path::Path, paranoia: u8) -> Arc<RuleSet> {
    let level = format!(
        "SecRuleEngine DetectionOnly\nSecAction \"id:900005,phase:1,nolog,pass,setvar:tx.paranoia_level={paranoia},\
         setvar:tx.executing_paranoia_level={paranoia}\"\n"
    );
    support::crs(root, &level, false)
}

/// A request with a JSON body; how long it took.
fn post(rules: &Arc<RuleSet>, body: &serde_json::Value, budget: Option<Duration>) -> (Transaction, Duration) {
    let mut transaction = Transaction::new(rules);
    transaction.request(b"POST", b"/", b"HTTP/1.1");
    transaction.header(b"Host", b"example.com");
    transaction.header(b"Content-Type", b"application/json");
    transaction.request_headers();
    let begin = Instant::now();
    transaction.body(body.to_string().as_bytes());
    if let Some(budget) = budget {
        transaction.budget(budget);
    }
    transaction.request_body();
    (transaction, begin.elapsed())
}

/// The worst values known, with all of CRS: linear, whatever they are.
#[test]
fn hard_values_take_bounded_time() {
    let Some(root) = support::crs_root() else { return };
    for paranoia in 1..=4 {
        let rules = crs_at(&root, paranoia);
        for piece in [
            "<",
            "%25",
            "1=1 or ",
            "&lt;",
            "/*",
            "(",
            "\\u003c",
            "../",
            "a",
            " ",
            "'\"",
            "select union ",
            "a = b ",
            "a <> ",
        ] {
            let value = piece.repeat(32 << 10);
            let (transaction, took) = post(&rules, &serde_json::json!({ "a": value[..32 << 10] }), None);
            // Far above what it takes, far below what a backtracking engine takes: this build is hardly optimised.
            assert!(took < Duration::from_secs(20), "{paranoia} {piece}: {took:?}");
            assert_eq!(transaction.findings(), [], "{paranoia} {piece}");
        }
    }
}

/// A rule that is not linear (942130, from paranoia level 2 on) neither takes the square of a run of blanks nor gives up, and
/// nothing keeps a transaction from ending with its budget.
#[test]
fn blanks_before_a_comparison_take_as_long_as_others() {
    let Some(root) = support::crs_root() else { return };
    for paranoia in 2..=4 {
        let rules = crs_at(&root, paranoia);
        let blanks = |many: usize, word: &str| format!("{}a={word}", " ".repeat(many));
        for many in [980, 1010, 5000, 100_000] {
            for (word, found) in [("b", false), ("a", true)] {
                let (transaction, _) = post(&rules, &serde_json::json!([blanks(many, word)]), None);
                let matches = transaction.matches().iter().any(|m| m.rule == 942_130);
                assert_eq!((matches, transaction.findings()), (found, &[][..]), "{paranoia} {many} {word}");
            }
        }
        let all: Vec<String> = (0..1040).map(|_| blanks(980, "b")).collect();
        let (transaction, took) = post(&rules, &serde_json::json!(all), None);
        assert!(took < Duration::from_secs(60), "{paranoia}: {took:?}");
        assert_eq!(transaction.findings(), [], "{paranoia}");
        for budget in [Duration::from_millis(1), Duration::from_millis(50)] {
            let (transaction, took) = post(&rules, &serde_json::json!(all), Some(budget));
            println!("paranoia {paranoia}: {took:?} of {budget:?}, {:?}", transaction.findings());
            assert!(took < budget + Duration::from_millis(1500), "{paranoia}: {took:?}");
        }
        let mut transaction = Transaction::new(&rules);
        let query: Vec<String> = (0..4).map(|n| format!("p{n}={}", blanks(980, "b").replace(' ', "+"))).collect();
        transaction.request(b"GET", format!("/?{}", query.join("&")).as_bytes(), b"HTTP/1.1");
        transaction.header(b"Host", b"example.com");
        transaction.request_headers();
        transaction.request_body();
        assert_eq!(transaction.findings(), []);
    }
}

/// Rules are compiled, used and dropped as a reload does it: ModSecurity's memory grows with each (its issues 2848, 2381).
#[test]
fn a_thousand_reloads_leave_memory_where_it_was() {
    let every = include_str!("../rules/every.conf");
    let resident = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let reload = |most: u32| {
        for round in 0..most {
            let mut builder = Builder::new();
            builder.text("every.conf", every);
            // No two are alike, so that nothing can be shared between them.
            builder.text("own.conf", &format!("SecRule ARGS \"@rx own{round}[a-z]+\" \"id:4294000099,phase:2,deny\""));
            let rules = Arc::new(builder.compile().unwrap());
            let mut transaction = Transaction::new(&rules);
            let body = format!("a=own{round}x&b=%3Cscript%3Ealert(1)%3C/script%3E");
            support::run(
                &mut transaction,
                format!("POST /?q=1%20or%201=1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes(),
            );
            assert!(
                transaction.matches().iter().any(|found| found.rule == 4_294_000_099)
                    || transaction.verdict().is_some()
            );
        }
        resident()
    };
    let warm = reload(100);
    let after = reload(1000);
    println!("{warm} KiB after 100 reloads, {after} KiB after 1,100");
    // A thousandth of a rule set that stayed with each reload would be far more.
    assert!(after < warm + 4096, "{warm} KiB became {after} KiB");
}

#[test]
fn a_budget_ends_evaluation_and_says_so() {
    let rules = small_rules();
    let mut transaction = Transaction::new(&rules);
    transaction.budget(Duration::ZERO);
    transaction.request(b"GET", b"/?a=union+select&b=1&c=2", b"HTTP/1.1");
    transaction.request_headers();
    std::hint::black_box((0..10_000).sum::<u64>());
    transaction.request_body();
    assert!(transaction.findings().iter().any(|f| matches!(f, Finding::Budget { .. })), "{:?}", transaction.findings());
}
