//! A condition: any text is read without panic, a problem points into it, and what compiles is decided within its steps,
//! whatever the request holds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_base::Timestamp;
use palisade_cel::{Activation, Environment, Error, Expression, Found, Members, Refused, Type, Value, Why};

#[derive(Debug)]
struct Request<'r> {
    text: &'r str,
    texts: Vec<&'r str>,
}

impl Members for Request<'_> {
    fn member(&self, name: &str) -> Found<'_> {
        match name {
            "a" => Found::Value(Value::text(self.text)),
            "b" => Found::Value(Value::texts(&self.texts)),
            "c" => Found::Value(Value::Other),
            "d" => Found::Repeated,
            "e" => Found::Value(Value::Members(self)),
            _ => Found::Missing,
        }
    }
}

impl Activation for Request<'_> {
    fn value(&self, key: u16) -> Found<'_> {
        match key {
            0 | 1 => Found::Value(Value::text(self.text)),
            2 => Found::Value(Value::texts(&self.texts)),
            3 | 4 => Found::Value(Value::Members(self)),
            5 => Found::Value(Value::Time(Timestamp(1_800_000_000_000))),
            _ => Found::Missing,
        }
    }
}

fuzz_target!(|input: (&str, &str)| {
    let (condition, text) = input;
    let names = Environment::new()
        .with("path.id", Type::Text, 0)
        .with("user.id", Type::Text, 1)
        .with("user.roles", Type::Texts, 2)
        .with("user.claims", Type::Claims, 3)
        .with("query", Type::Members, 4)
        .with("now", Type::Time, 5)
        .with("user.email", Type::Text, 6);
    match Expression::compile(condition, &names) {
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in problems {
                assert!(condition.get(problem.at.offset..problem.at.offset + problem.at.len).is_some(), "{problem}");
            }
        }
        Ok(expression) => {
            let request = Request { text, texts: text.split(',').collect() };
            let whole = expression.passes(&request);
            for steps in [0, 1, 10, 100] {
                let bounded = expression.passes_within(&request, steps);
                let cost = matches!(bounded, Err(Refused::Error(Error { why: Why::Cost, .. })));
                assert!(cost || bounded == whole, "{condition}");
            }
        }
    }
});
