//! An expression that was checked: every name is resolved, every operation known, every constant computed.

use palisade_base::{Cidr, Timestamp};
use regex_automata::meta::Regex;

use crate::problem::Span;

/// A checked part of an expression.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Span,
    pub(crate) does: Does,
}

#[derive(Debug, Clone)]
pub(crate) enum Does {
    Bool(bool),
    Int(i64),
    Text(Box<str>),
    Time(Timestamp),
    Span(i64),
    List(Box<[Node]>),
    /// A value of the request.
    Ask(u16),
    /// A variable of `exists` or `all`, counted from the outermost.
    Variable(usize),
    Member {
        of: Box<Node>,
        name: Box<Node>,
    },
    Item {
        of: Box<Node>,
        place: Box<Node>,
    },
    Has(Box<Node>),
    Not(Box<Node>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    If(Box<[Node; 3]>),
    Equal {
        negated: bool,
        sides: Box<[Node; 2]>,
    },
    Compare {
        how: Order,
        sides: Box<[Node; 2]>,
    },
    In(Box<[Node; 2]>),
    Compute {
        how: Arithmetic,
        sides: Box<[Node; 2]>,
    },
    Negative(Box<Node>),
    /// Whether one text stands in another.
    Find {
        how: Where,
        sides: Box<[Node; 2]>,
    },
    Matches {
        text: Box<Node>,
        pattern: Box<Regex>,
    },
    InNetwork {
        text: Box<Node>,
        network: Cidr,
    },
    Lower(Box<Node>),
    Size(Box<Node>),
    ToInt(Box<Node>),
    ToText(Box<Node>),
    ToTime(Box<Node>),
    ToSpan(Box<Node>),
    Date {
        part: DatePart,
        of: Box<Node>,
    },
    /// A loop over a list.
    Each {
        how: Each,
        over: Box<Node>,
        variable: usize,
        body: Box<Node>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    Start,
    End,
    Anywhere,
}

/// Parts of a date, in UTC, counted as the language definition counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatePart {
    Year,
    /// From 0.
    Month,
    /// From 1.
    Date,
    /// From 0.
    DayOfMonth,
    /// From 0, Sunday.
    DayOfWeek,
    /// From 0.
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Each {
    /// True for one at least.
    Exists,
    /// True for every one.
    All,
    /// True for exactly one.
    ExistsOne,
}
