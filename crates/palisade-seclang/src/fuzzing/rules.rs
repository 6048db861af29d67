//! Rules, and whole transactions: what the short cuts find is what the plain evaluator finds.

use std::cell::RefCell;
use std::sync::Arc;

use crate::parse::Builder;
use crate::ruleset::RuleSet;
use crate::transaction::{Match, Transaction, Verdict};

/// A rule of every kind; the tests of the language use them too.
const RULES: &str = include_str!("../../tests/rules/every.conf");

/// A request that has something in every place.
const REQUEST: &[u8] = b"POST /a/../b.php?q=1%27+or+1%3D1--+&x=%3cscript%3e&e= HTTP/1.1\nHost: example.com\nUser-Agent: sqlmap/1.7\n\
    Cookie: a=union select; b=2\nContent-Type: application/json\n\n{\"a\":[\"<script>\",1,true],\"b\":\"../../etc/passwd\"}";

/// What two evaluations must agree in.
type Outcome = (Vec<Match>, Option<Verdict>, Option<Verdict>, Vec<&'static str>);

/// A file of rules: it compiles or says why not, and what compiles finds the same with and without short cuts.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Patterns of hundreds of thousands of states are not what is looked for here, and slow.
    let counts = text.split('{').skip(1).filter_map(|rest| rest.split(['}', ',']).next()?.parse::<u32>().ok());
    if counts.map(u64::from).sum::<u64>() > 100 {
        return;
    }
    let Ok(slow) = compile(text, true) else {
        assert!(compile(text, false).is_err(), "an error that comes and goes");
        return;
    };
    let fast = compile(text, false).unwrap_or_else(|problems| panic!("only the short cuts fail: {problems:?}"));
    let mut slow_one = Transaction::new(&slow);
    let mut fast_one = Transaction::new(&fast);
    // Half of the rules look at what the rules themselves hold.
    for raw in [REQUEST, data] {
        slow_one.reset(&slow);
        fast_one.reset(&fast);
        assert_eq!(run(&mut slow_one, raw), run(&mut fast_one, raw));
    }
}

fn compile(text: &str, reference: bool) -> Result<Arc<RuleSet>, Vec<crate::Problem>> {
    let mut builder = Builder::new();
    builder.texts_only().text("fuzz.conf", text);
    if reference {
        builder.reference();
    }
    builder.compile().map(Arc::new)
}

/// A request as text, under a rule of every kind: the same with and without short cuts.
pub fn transaction(data: &[u8]) {
    struct Both {
        slow: Arc<RuleSet>,
        fast: Arc<RuleSet>,
        slow_one: Transaction,
        fast_one: Transaction,
    }
    thread_local!(static BOTH: RefCell<Both> = {
        let slow = compile(RULES, true).unwrap_or_else(|problems| panic!("{problems:?}"));
        let fast = compile(RULES, false).unwrap_or_else(|problems| panic!("{problems:?}"));
        RefCell::new(Both { slow_one: Transaction::new(&slow), fast_one: Transaction::new(&fast), slow, fast })
    });
    BOTH.with_borrow_mut(|both| {
        both.slow_one.reset(&both.slow);
        both.fast_one.reset(&both.fast);
        assert_eq!(run(&mut both.slow_one, data), run(&mut both.fast_one, data));
    });
}

/// Lines of a head, an empty one, a body; the body is the answer's too.
fn run(transaction: &mut Transaction, raw: &[u8]) -> Outcome {
    let mut rest = raw;
    let mut line = || {
        let end = memchr::memchr(b'\n', rest);
        let (line, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail.get(1..).unwrap_or_default();
        (line, rest)
    };
    transaction.connection("192.0.2.7", 40000, "192.0.2.1", 443);
    transaction.unique_id("0123456789abcdef");
    let first = line().0;
    let mut words = first.splitn(3, |byte| *byte == b' ');
    let mut word = || words.next().unwrap_or_default();
    transaction.request(word(), word(), word());
    let mut body;
    loop {
        let (header, tail) = line();
        body = tail;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|byte| *byte == b':').unwrap_or(header.len());
        transaction.header(&header[..colon], header.get(colon + 1..).unwrap_or_default().trim_ascii());
    }
    transaction.request_headers();
    transaction.every_reading();
    let (one, two) = body.split_at(body.len() / 3);
    transaction.body(one);
    transaction.body(two);
    transaction.request_body();
    transaction.response(200, b"HTTP/1.1");
    transaction.response_header(b"Content-Type", b"text/html");
    transaction.response_headers();
    transaction.response_chunk(body);
    transaction.response_body();
    transaction.logging();
    let findings = transaction.findings().iter().map(crate::Finding::code).collect();
    (transaction.matches().to_vec(), transaction.verdict().cloned(), transaction.would_be().cloned(), findings)
}
