//! A SecLang (ModSecurity rule language) engine: rules in, transactions fed phase by phase, verdicts out.
//!
//! Guide section 21. The engine runs the OWASP Core Rule Set unchanged. It knows nothing of servers: whoever has a
//! request hands its parts to a [`Transaction`] and asks after each phase whether a rule wants to refuse it.
//!
//! ```
//! use std::sync::Arc;
//! use palisade_seclang::{Builder, Transaction};
//!
//! let mut builder = Builder::new();
//! builder.text("local.conf", r#"SecRule ARGS "@rx (union.*select|insert.*into)" "id:1,deny,status:403""#);
//! let rules = Arc::new(builder.compile().expect("the rule is right"));
//!
//! let mut transaction = Transaction::new(&rules);
//! transaction.request(b"GET", b"/?q=1+union+all+select+2", b"HTTP/1.1");
//! transaction.header(b"Host", b"example.com");
//! assert!(transaction.request_headers().is_none());
//! let verdict = transaction.request_body().expect("the rule refuses");
//! assert_eq!((verdict.rule, verdict.status), (1, 403));
//! ```
//!
//! # How it is built
//! [`Builder`] reads files into rules and reports every mistake. The evaluator in `transaction` is the meaning of the
//! language: it walks the rules of a phase in the order of the files. Everything that makes it fast only decides which
//! of these evaluations may be left out, and a test compares both on every request it can find.
//!
//! # What it costs
//! Work is linear in the bytes of a request: patterns never backtrack, but for those with look-around or back-references (three
//! of CRS 3.3). They are tried only where a linear pattern says that one may begin, and within steps that a transaction has
//! for all of them, so many a byte. The slowest value known, `/*` repeated, takes about a tenth of a microsecond a
//! byte with CRS at paranoia 1; `examples/five.rs` measures this and five ordinary requests. What one transaction may
//! hold is limited by [`Settings`]: bytes of a body and of a value, arguments, nesting. A time for the whole is set by
//! [`Transaction::budget`]; what could not be inspected within it is a [`Finding`].

mod body;
mod clock;
mod collections;
mod expand;
mod fast;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod leave_out;
mod libinjection;
mod names;
mod operator;
mod parse;
mod problem;
mod regex;
mod rule;
mod ruleset;
mod settings;
mod store;
mod text;
mod transaction;
mod transform;
mod variable;
#[cfg(test)]
mod vectors;

pub use body::Finding;
pub use clock::{Clock, SystemClock};
pub use collections::{Collections, Entry, MemoryCollections};
pub use leave_out::LeaveOut;
pub use operator::Lookups;
pub use parse::{Builder, matching};
pub use problem::{Place, Problem};
pub use rule::{AuditMode, EngineMode, Processor};
pub use ruleset::RuleSet;
pub use settings::{LimitAction, Settings, Steps};
pub use transaction::{Match, Outcome, Transaction, Verdict};
