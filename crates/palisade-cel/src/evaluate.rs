//! Evaluation: bounded, and refusing when in doubt.
//!
//! From left to right; `&&`, `||` and `?:` stop as soon as the answer is known. An error ends the evaluation: nothing
//! absorbs it, unlike in CEL, where `error || true` is true (threat 10).

use std::borrow::Cow;
use std::net::IpAddr;

use palisade_base::Timestamp;

use crate::constants;
use crate::node::{Arithmetic, DatePart, Does, Each, Node, Order, Where};
use crate::problem::Span;
use crate::value::{Activation, Found, List, Value};

/// What an evaluation may cost: a step for each part that is looked at, and one for every 16 bytes of text or, in
/// patterns, for every byte.
pub const MAX_STEPS: u32 = 20_000;

/// Why a condition was neither true nor false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The request has not what it asks about.
    #[error("a member is missing")]
    Missing,
    /// A name that it asks about is there more than once.
    #[error("a name is there more than once")]
    Repeated,
    /// A value is of another kind than it asks for.
    #[error("a value is of another type")]
    Type,
    /// A text is no number, time or address where it asks for one.
    #[error("a text cannot be converted")]
    Conversion,
    /// A list has no such place.
    #[error("a list is shorter")]
    Index,
    /// A number became too large, or was divided by zero.
    #[error("a number is out of bounds")]
    Overflow,
    /// It would have taken too long.
    #[error("the condition costs too much")]
    Cost,
}

/// A condition that could not be decided, which is a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Error {
    /// What was wrong.
    pub why: Why,
    /// The part of the expression.
    pub at: Span,
}

pub(crate) struct Run<'a> {
    activation: &'a dyn Activation,
    left: u32,
    /// The variables of loops, outermost first.
    variables: Vec<Value<'a>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(activation: &'a dyn Activation, steps: u32) -> Self {
        Self { activation, left: steps, variables: Vec::new() }
    }

    fn spend(&mut self, steps: usize, at: Span) -> Result<(), Error> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.left.checked_sub(steps));
        self.left = left.ok_or(Error { why: Why::Cost, at })?;
        Ok(())
    }

    /// Refuses where a name is there more than once that the expression speaks of anywhere: which of its values
    /// another program would believe is not known (threat 10).
    pub(crate) fn refuse_repeated(&mut self, mentioned: &[(u16, Box<str>)]) -> Result<(), Error> {
        for (key, name) in mentioned {
            self.spend(1, Span::default())?;
            if let Found::Value(Value::Members(members)) = self.activation.value(*key)
                && matches!(members.member(name), Found::Repeated)
            {
                return Err(Error { why: Why::Repeated, at: Span::default() });
            }
        }
        Ok(())
    }

    pub(crate) fn bool(&mut self, node: &'a Node) -> Result<bool, Error> {
        match self.value(node)? {
            Value::Bool(value) => Ok(value),
            _ => Err(Error { why: Why::Type, at: node.at }),
        }
    }

    fn text(&mut self, node: &'a Node) -> Result<Cow<'a, str>, Error> {
        match self.value(node)? {
            Value::Text(text) => {
                self.spend(text.len() / 16, node.at)?;
                Ok(text)
            }
            _ => Err(Error { why: Why::Type, at: node.at }),
        }
    }

    fn list(&mut self, node: &'a Node) -> Result<List<'a>, Error> {
        match self.value(node)? {
            Value::List(list) => Ok(list),
            _ => Err(Error { why: Why::Type, at: node.at }),
        }
    }

    /// What is there, which may be nothing.
    fn found(&mut self, node: &'a Node) -> Result<Found<'a>, Error> {
        match &node.does {
            Does::Ask(key) => Ok(self.activation.value(*key)),
            Does::Member { of, name } => {
                let of = self.value(of)?;
                let name = self.text(name)?;
                match of {
                    // The name may be made for this evaluation; what is found lies in the request.
                    Value::Members(members) => Ok(members.member(&name)),
                    _ => Err(Error { why: Why::Type, at: node.at }),
                }
            }
            _ => self.value(node).map(Found::Value),
        }
    }

    fn value(&mut self, node: &'a Node) -> Result<Value<'a>, Error> {
        let at = node.at;
        self.spend(1, at)?;
        let fails = |why: Why| Err(Error { why, at });
        Ok(match &node.does {
            Does::Bool(value) => Value::Bool(*value),
            Does::Int(value) => Value::Int(*value),
            Does::Text(text) => Value::text(&**text),
            Does::Time(time) => Value::Time(*time),
            Does::Span(length) => Value::Span(*length),
            Does::List(nodes) => {
                let values: Result<Vec<_>, Error> = nodes.iter().map(|node| self.value(node)).collect();
                Value::List(List::Written(values?))
            }
            Does::Ask(_) | Does::Member { .. } => match self.found(node)? {
                Found::Value(Value::Other) => return fails(Why::Type),
                Found::Value(value) => value,
                Found::Missing => return fails(Why::Missing),
                Found::Repeated => return fails(Why::Repeated),
            },
            Does::Variable(place) => match self.variables.get(*place) {
                Some(value) => value.clone(),
                None => return fails(Why::Missing),
            },
            Does::Item { of, place } => {
                let list = self.list(of)?;
                let place = match self.value(place)? {
                    Value::Int(place) => usize::try_from(place).map_err(|_| Error { why: Why::Index, at })?,
                    _ => return fails(Why::Type),
                };
                match list.get(place) {
                    Some(value) => value,
                    None => return fails(Why::Index),
                }
            }
            Does::Has(inner) => match self.found(inner)? {
                // `null` is not there, and a number is not what is asked for: in doubt neither is an answer.
                Found::Value(Value::Other) => return fails(Why::Type),
                Found::Value(_) => Value::Bool(true),
                Found::Missing => Value::Bool(false),
                Found::Repeated => return fails(Why::Repeated),
            },
            Does::Not(inner) => Value::Bool(!self.bool(inner)?),
            Does::And(parts) => {
                for part in parts {
                    if !self.bool(part)? {
                        return Ok(Value::Bool(false));
                    }
                }
                Value::Bool(true)
            }
            Does::Or(parts) => {
                for part in parts {
                    if self.bool(part)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Value::Bool(false)
            }
            Does::If(parts) => {
                let [when, then, otherwise] = &**parts;
                let chosen = if self.bool(when)? { then } else { otherwise };
                self.value(chosen)?
            }
            Does::Equal { negated, sides } => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                Value::Bool(self.equal(&left, &right, at)? != *negated)
            }
            Does::Compare { how, sides } => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                let order = match (&left, &right) {
                    (Value::Text(a), Value::Text(b)) => {
                        self.spend(a.len().min(b.len()) / 16, at)?;
                        a.cmp(b)
                    }
                    (Value::Int(a), Value::Int(b)) | (Value::Span(a), Value::Span(b)) => a.cmp(b),
                    (Value::Time(a), Value::Time(b)) => a.cmp(b),
                    _ => return fails(Why::Type),
                };
                Value::Bool(match how {
                    Order::Less => order.is_lt(),
                    Order::LessOrEqual => order.is_le(),
                    Order::Greater => order.is_gt(),
                    Order::GreaterOrEqual => order.is_ge(),
                })
            }
            Does::In(sides) => {
                let [item, list] = &**sides;
                let item = self.value(item)?;
                Value::Bool(self.is_in(&item, list)?)
            }
            Does::Compute { how, sides } => {
                let [left, right] = &**sides;
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.compute(*how, left, right, at)?
            }
            Does::Negative(inner) => match self.value(inner)? {
                Value::Int(value) => Value::Int(value.checked_neg().ok_or(Error { why: Why::Overflow, at })?),
                Value::Span(value) => Value::Span(value.checked_neg().ok_or(Error { why: Why::Overflow, at })?),
                _ => return fails(Why::Type),
            },
            Does::Find { how, sides } => {
                let [text, wanted] = &**sides;
                let (text, wanted) = (self.text(text)?, self.text(wanted)?);
                Value::Bool(match how {
                    Where::Start => text.starts_with(&*wanted),
                    Where::End => text.ends_with(&*wanted),
                    Where::Anywhere => text.contains(&*wanted),
                })
            }
            Does::Matches { text, pattern } => {
                let text = self.text(text)?;
                self.spend(text.len(), at)?;
                Value::Bool(pattern.is_match(&*text))
            }
            Does::InNetwork { text, network } => {
                let text = self.text(text)?;
                let address: IpAddr = text.parse().map_err(|_| Error { why: Why::Conversion, at })?;
                Value::Bool(network.contains(address))
            }
            Does::Lower(text) => match self.text(text)? {
                Cow::Borrowed(text) if !text.bytes().any(|b| b.is_ascii_uppercase()) => Value::text(text),
                text => Value::text(text.to_ascii_lowercase()),
            },
            Does::Size(inner) => {
                let size = match self.value(inner)? {
                    Value::Text(text) => {
                        self.spend(text.len() / 16, at)?;
                        text.chars().count()
                    }
                    Value::List(list) => list.len(),
                    _ => return fails(Why::Type),
                };
                Value::Int(i64::try_from(size).unwrap_or(i64::MAX))
            }
            Does::ToInt(inner) => match self.value(inner)? {
                Value::Time(time) => Value::Int(time.0.div_euclid(1000)),
                // Not `+7`, ` 7` or `007`: another spelling is another text (threat 6).
                Value::Text(text) => match text.parse::<i64>() {
                    Ok(number) if number.to_string() == *text => Value::Int(number),
                    _ => return fails(Why::Conversion),
                },
                _ => return fails(Why::Type),
            },
            Does::ToText(inner) => match self.value(inner)? {
                Value::Text(text) => Value::Text(text),
                Value::Int(number) => Value::text(number.to_string()),
                Value::Bool(value) => Value::text(if value { "true" } else { "false" }),
                _ => return fails(Why::Type),
            },
            Does::ToTime(inner) => {
                let text = self.text(inner)?;
                Value::Time(constants::time(&text).ok_or(Error { why: Why::Conversion, at })?)
            }
            Does::ToSpan(inner) => {
                let text = self.text(inner)?;
                Value::Span(constants::length(&text).ok_or(Error { why: Why::Conversion, at })?)
            }
            Does::Date { part, of } => match self.value(of)? {
                Value::Time(time) => Value::Int(date(*part, time)),
                _ => return fails(Why::Type),
            },
            Does::Each { how, over, variable, body } => Value::Bool(self.each(*how, over, *variable, body)?),
        })
    }

    fn equal(&mut self, left: &Value<'a>, right: &Value<'a>, at: Span) -> Result<bool, Error> {
        Ok(match (left, right) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Int(a), Value::Int(b)) | (Value::Span(a), Value::Span(b)) => a == b,
            (Value::Time(a), Value::Time(b)) => a == b,
            (Value::Text(a), Value::Text(b)) => {
                self.spend(a.len().min(b.len()) / 16, at)?;
                a == b
            }
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for place in 0..a.len() {
                    self.spend(1, at)?;
                    let (Some(a), Some(b)) = (a.get(place), b.get(place)) else {
                        return Err(Error { why: Why::Type, at });
                    };
                    if !self.equal(&a, &b, at)? {
                        return Ok(false);
                    }
                }
                true
            }
            // A claim may be a list where a string was expected, and the other way round.
            _ => return Err(Error { why: Why::Type, at }),
        })
    }

    fn is_in(&mut self, item: &Value<'a>, list: &'a Node) -> Result<bool, Error> {
        // With an empty list, no comparison would show that a claim is a list itself.
        if !matches!(item, Value::Text(_) | Value::Int(_)) {
            return Err(Error { why: Why::Type, at: list.at });
        }
        // What is written out is compared item by item, without making a list of it.
        if let Does::List(nodes) = &list.does {
            for node in nodes {
                let value = self.value(node)?;
                if self.equal(item, &value, node.at)? {
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        let at = list.at;
        let list = match (self.value(list)?, item) {
            (Value::List(list), _) => list,
            (Value::Members(members), Value::Text(name)) => {
                return match members.member(name) {
                    Found::Value(Value::Other) => Err(Error { why: Why::Type, at }),
                    Found::Value(_) => Ok(true),
                    Found::Missing => Ok(false),
                    Found::Repeated => Err(Error { why: Why::Repeated, at }),
                };
            }
            _ => return Err(Error { why: Why::Type, at }),
        };
        for place in 0..list.len() {
            self.spend(1, at)?;
            let value = list.get(place).ok_or(Error { why: Why::Type, at })?;
            if self.equal(item, &value, at)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn compute(&mut self, how: Arithmetic, left: Value<'a>, right: Value<'a>, at: Span) -> Result<Value<'a>, Error> {
        let number = |a: i64, b: i64| {
            let value = match how {
                Arithmetic::Add => a.checked_add(b),
                Arithmetic::Subtract => a.checked_sub(b),
                Arithmetic::Multiply => a.checked_mul(b),
                Arithmetic::Divide => a.checked_div(b),
                Arithmetic::Remainder => a.checked_rem(b),
            };
            value.ok_or(Error { why: Why::Overflow, at })
        };
        Ok(match (left, right) {
            (Value::Int(a), Value::Int(b)) => Value::Int(number(a, b)?),
            (Value::Span(a), Value::Span(b)) => Value::Span(number(a, b)?),
            (Value::Time(a), Value::Time(b)) => Value::Span(number(a.0, b.0)?),
            (Value::Time(a), Value::Span(b)) | (Value::Span(b), Value::Time(a)) => {
                Value::Time(Timestamp(number(a.0, b)?))
            }
            (Value::Text(a), Value::Text(b)) => {
                self.spend(a.len().saturating_add(b.len()) / 16, at)?;
                Value::text(format!("{a}{b}"))
            }
            _ => return Err(Error { why: Why::Type, at }),
        })
    }

    fn each(&mut self, how: Each, over: &'a Node, variable: usize, body: &'a Node) -> Result<bool, Error> {
        let list = self.list(over)?;
        let mut times = 0_u32;
        for place in 0..list.len() {
            self.spend(1, over.at)?;
            let item = list.get(place).ok_or(Error { why: Why::Type, at: over.at })?;
            self.variables.truncate(variable);
            self.variables.push(item);
            let holds = self.bool(body)?;
            self.variables.truncate(variable);
            match (how, holds) {
                (Each::Exists, true) => return Ok(true),
                (Each::All, false) => return Ok(false),
                (_, holds) => times = times.saturating_add(u32::from(holds)),
            }
        }
        Ok(match how {
            Each::Exists => false,
            Each::All => true,
            Each::ExistsOne => times == 1,
        })
    }
}

fn date(part: DatePart, time: Timestamp) -> i64 {
    let date = time.date();
    match part {
        DatePart::Year => i64::from(date.year()),
        DatePart::Month => i64::from(u8::from(date.month())) - 1,
        DatePart::Date => i64::from(date.day()),
        DatePart::DayOfMonth => i64::from(date.day()) - 1,
        DatePart::DayOfWeek => i64::from(date.weekday().number_days_from_sunday()),
        DatePart::DayOfYear => i64::from(date.ordinal()) - 1,
        DatePart::Hours => i64::from(date.hour()),
        DatePart::Minutes => i64::from(date.minute()),
        DatePart::Seconds => i64::from(date.second()),
    }
}
