//! Conditions: a typed subset of CEL, the Common Expression Language.
//!
//! Guide section 1. A condition is compiled once against declared names ([`Environment`]): a name that does not exist, a
//! string compared with a number, a pattern that cannot be read is a [`Problem`] that points at the offending text. It is
//! evaluated for each request ([`Expression::passes`]), in bounded time, without I/O.
//!
//! ```
//! use palisade_cel::{Activation, Environment, Expression, Found, Type, Value};
//!
//! let names = Environment::new().with("path.user_id", Type::Text, 0).with("user.app_id", Type::Text, 1);
//! let own = Expression::compile("path.user_id == user.app_id", &names).unwrap();
//!
//! struct Request(Option<&'static str>);
//! impl Activation for Request {
//!     fn value(&self, key: u16) -> Found<'_> {
//!         match key {
//!             0 => Found::Value(Value::text("7")),
//!             _ => self.0.map(Value::text).into(),
//!         }
//!     }
//! }
//! assert!(own.passes(&Request(Some("7"))).is_ok());
//! assert!(own.passes(&Request(Some("8"))).is_err());
//! assert!(own.passes(&Request(None)).is_err(), "what is missing is equal to nothing");
//!
//! let wrong = Expression::compile("path.user_id == user.appid", &names).unwrap_err();
//! assert_eq!(wrong[0].to_string(), "`user` has no `appid` (at byte 21): did you mean `user.app_id`?");
//! ```
//!
//! # What is there
//! Strings (`'…'`, `"…"`, `r'…'`), whole numbers, `true`, `false`, lists of strings or of numbers; `==` `!=` `<` `<=` `>`
//! `>=` `in` `&&` `||` `!` `?:` `+` `-` `*` `/` `%`; members (`a.b`, `a['b']`) and items (`a[0]`); `has`, `size`,
//! `startsWith`, `endsWith`, `contains`, `matches`, `exists`, `all`, `exists_one`, `int`, `string`, `timestamp`,
//! `duration`, the parts of dates in UTC (`getHours` and so on), `lowerAscii`, and `inNetwork` for addresses.
//!
//! # Where it departs from CEL
//! A condition guards something, so it refuses when in doubt:
//! - `&&`, `||`, `exists` and `all` do not absorb errors. They stop, from left to right, as soon as the answer is known;
//!   an error before that is an error. In CEL, `user.claims.missing == 'x' || true` is true; here it refuses.
//! - A name of [`Type::Members`] that is mentioned anywhere in the expression and is there twice in the request refuses,
//!   whatever else holds.
//! - There is no `null`, no `dyn`, no floating point, no bytes and no maps. A claim that is `null`, a number, a boolean or
//!   a mixed list refuses in every question, `has` and `!=` among them.
//! - `int('007')` is an error: only the canonical spelling of a number is one.
//! - Patterns and networks are literals. Patterns take linear time (RE2's syntax) and are bounded in size.
//! - A literal string beside a time is one: `now < '2027-01-01T00:00:00Z'`.

mod check;
mod constants;
mod environment;
mod evaluate;
mod functions;
mod lexer;
mod node;
mod parse;
mod problem;
mod value;

pub use environment::{Environment, Type};
pub use evaluate::{Error, MAX_STEPS, Why};
pub use parse::{MAX_BYTES, MAX_DEPTH};
pub use problem::{Problem, Span};
pub use value::{Activation, Found, List, Members, Texts, Value};

use check::Checker;
use evaluate::Run;
use node::Node;

/// A condition that was checked.
#[derive(Debug, Clone)]
pub struct Expression {
    root: Node,
    text: Box<str>,
    mentioned: Box<[(u16, Box<str>)]>,
    asked: Box<[u16]>,
    warnings: Box<[Problem]>,
}

/// Why a request does not pass a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The condition is false.
    #[error("the condition is false")]
    False,
    /// It could not be decided.
    #[error(transparent)]
    Error(#[from] Error),
}

impl Expression {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// Every problem, or the first where the text cannot be read at all.
    pub fn compile(text: &str, environment: &Environment) -> Result<Self, Vec<Problem>> {
        let ast = parse::parse(text).map_err(|problem| vec![problem])?;
        let mut checker = Checker::new(environment);
        let root = checker.condition(&ast);
        let Checker { problems, warnings, mentioned, asked, .. } = checker;
        match root {
            Some(root) if problems.is_empty() => Ok(Self {
                root,
                text: text.into(),
                mentioned: mentioned.into(),
                asked: asked.into(),
                warnings: warnings.into(),
            }),
            _ => Err(problems),
        }
    }

    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What may not be meant as it is written.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The keys of the [`Environment`] that it asks for.
    pub fn keys(&self) -> &[u16] {
        &self.asked
    }

    /// The names in a [`Type::Members`] that it mentions, with its key.
    pub fn members(&self) -> impl Iterator<Item = (u16, &str)> {
        self.mentioned.iter().map(|(key, name)| (*key, &**name))
    }

    /// Whether a request passes: only if the condition is true.
    ///
    /// # Errors
    /// It is false, or could not be decided.
    pub fn passes(&self, activation: &dyn Activation) -> Result<(), Refused> {
        self.passes_within(activation, MAX_STEPS)
    }

    /// The same within so many steps.
    ///
    /// # Errors
    /// It is false, or could not be decided.
    pub fn passes_within(&self, activation: &dyn Activation, steps: u32) -> Result<(), Refused> {
        let mut run = Run::new(activation, steps);
        run.refuse_repeated(&self.mentioned)?;
        if run.bool(&self.root)? { Ok(()) } else { Err(Refused::False) }
    }
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_refusal;
