//! The fast path against the plain evaluator: same requests, same matches.

use std::sync::Arc;

use palisade_seclang::{Match, RuleSet, Transaction};
use proptest::prelude::*;

use crate::{crs, support};

fn before(paranoia: u8) -> String {
    format!(
        "SecRuleEngine DetectionOnly\nSecRequestBodyAccess On\nSecResponseBodyAccess On\n\
         SecAction \"id:900005,phase:1,nolog,pass,setvar:tx.paranoia_level={paranoia},setvar:tx.executing_paranoia_level={paranoia},\
         setvar:tx.crs_validate_utf8_encoding=1,setvar:tx.arg_name_length=100,setvar:tx.arg_length=400\"\n"
    )
}

/// What a transaction must agree in.
fn summary(rules: &Arc<RuleSet>, transaction: &mut Transaction, raw: &[u8]) -> (Vec<Match>, Vec<u8>, Option<u64>) {
    transaction.reset(rules);
    support::run(transaction, raw);
    let score = transaction.tx("anomaly_score").unwrap_or(b"").to_vec();
    (transaction.matches().to_vec(), score, transaction.would_be().map(|v| v.rule))
}

struct Pair {
    slow: Arc<RuleSet>,
    fast: Arc<RuleSet>,
    slow_transaction: Transaction,
    fast_transaction: Transaction,
}

impl Pair {
    fn new(paranoia: u8) -> Option<Pair> {
        let root = support::crs_root()?;
        let slow = support::crs(&root, &before(paranoia), true);
        let fast = support::crs(&root, &before(paranoia), false);
        Some(Pair { slow_transaction: Transaction::new(&slow), fast_transaction: Transaction::new(&fast), slow, fast })
    }

    fn compare(&mut self, title: &str, raw: &[u8]) -> Result<(), String> {
        let slow = summary(&self.slow, &mut self.slow_transaction, raw);
        let fast = summary(&self.fast, &mut self.fast_transaction, raw);
        if slow == fast {
            return Ok(());
        }
        let short = |m: &[Match]| {
            let line =
                |m: &Match| format!("{} {} {:?} {:?}", m.rule, m.target, m.range, m.context.escape_ascii().to_string());
            m.iter().map(line).collect::<Vec<_>>().join("\n    ")
        };
        Err(format!(
            "{title}\n  slow {:?} {:?}\n    {}\n  fast {:?} {:?}\n    {}",
            slow.1,
            slow.2,
            short(&slow.0),
            fast.1,
            fast.2,
            short(&fast.0)
        ))
    }
}

#[test]
fn the_fast_path_finds_the_same_on_all_requests_of_crs() {
    let Some(tests) = support::shared("crs-tests/3.3") else { return };
    for paranoia in [1, 4] {
        let Some(mut pair) = Pair::new(paranoia) else { return };
        let (mut ran, mut wrong) = (0, Vec::new());
        for case in crs::cases(&tests) {
            ran += 1;
            wrong.extend(pair.compare(&case.title, &case.raw).err());
        }
        assert!(ran >= 2396);
        assert!(
            wrong.is_empty(),
            "paranoia {paranoia}: {} of {ran} differ\n{}",
            wrong.len(),
            wrong[..wrong.len().min(5)].join("\n")
        );
    }
}

/// Pieces that rules look for, escaped in the ways that transformations undo.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-zA-Z0-9 ._/-]{0,12}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
        4 => proptest::sample::select(vec![
            "<script", "alert(1)", "union select", "' or 1=1--", "/etc/passwd", "../..", "..\\", "; cat ", "$(id)", "%3C", "%253c", "&lt;",
            "&#x3c;", "\\u003c", "\\x3c", "%u003c", "\\74", "onload=", "javascript:", "/*x*/", "<?php", "${jndi:", "{{7*7}}", "\u{ff1c}",
            "%00", "\0", "java.lang.Runtime", "phpinfo()", "base64_decode(", "%0d%0aSet-Cookie:", "  ", "\t", "CmQ.eXe", "wget  http://a/b",
            "PHNjcmlwdD4=", "sleep(5)", "@import", "//x", "./", "EXEC ", "ＳＥＬＥＣＴ", "<!--", "-->", "__proto__", "constructor", "ORA-00933: x", "PHP Warning: x on line 3", "ODBC Microsoft Access Driver", "<%@ page", "`id`", "0x41",
        ]).prop_map(|s| s.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 1..5).prop_map(|p| p.concat())
}

#[test]
fn the_fast_path_finds_the_same_on_generated_values() {
    let (Some(one), Some(four)) = (Pair::new(1), Pair::new(4)) else { return };
    let pairs = std::cell::RefCell::new([one, four]);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(250),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let strategy = (value(), value(), value(), 0..4u8);
    runner
        .run(&strategy, |(a, b, c, place)| {
            let clean = |v: &[u8]| -> Vec<u8> { v.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect() };
            let (a, b) = (clean(&a), clean(&b));
            let mut raw = Vec::new();
            let mut put = |parts: &[&[u8]]| parts.iter().for_each(|p| raw.extend_from_slice(p));
            let head: &[u8] = b"Host: example.com\r\nAccept: */*\r\nUser-Agent: x\r\n";
            match place {
                0 => put(&[b"GET /x?q=", &a, b"&", &b, b"=1 HTTP/1.1\r\n", head, b"\r\n"]),
                1 => put(&[b"GET /", &a, b" HTTP/1.1\r\n", head, b"Cookie: a=", &b, b"\r\nReferer: ", &a, b"\r\nX-Any: ", &b, b"\r\n\r\n"]),
                2 => put(&[b"POST /f HTTP/1.1\r\n", head, b"Content-Type: application/x-www-form-urlencoded\r\n\r\nq=", &a, b"&r=", &b, b"&s=", &c]),
                _ => {
                    let text = String::from_utf8_lossy(&c).into_owned();
                    let json = serde_json::json!({ "a": text, String::from_utf8_lossy(&b): [1, true, String::from_utf8_lossy(&a)] }).to_string();
                    put(&[b"POST /j HTTP/1.1\r\n", head, b"Content-Type: application/json\r\n\r\n", json.as_bytes()]);
                }
            }
            for pair in pairs.borrow_mut().iter_mut() {
                if let Err(what) = pair.compare(&String::from_utf8_lossy(&raw), &raw) {
                    return Err(TestCaseError::fail(what));
                }
            }
            Ok(())
        })
        .unwrap();
}
