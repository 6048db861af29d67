//! `@eq`, `@ge`, `@gt`, `@le`, `@lt`: as C's `atoi` reads both sides.

/// A comparison of the value with the argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Eq,
    Ge,
    Gt,
    Le,
    Lt,
}

impl Comparison {
    pub(crate) fn holds(self, value: i64, argument: i64) -> bool {
        match self {
            Comparison::Eq => value == argument,
            Comparison::Ge => value >= argument,
            Comparison::Gt => value > argument,
            Comparison::Le => value <= argument,
            Comparison::Lt => value < argument,
        }
    }
}
