//! Text with macros: `%{tx.anomaly_score}`.

use crate::names::TxNames;
use crate::variable::{Kind, Var};

/// Text in which macros are replaced when a transaction needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Macro {
    pub(crate) parts: Vec<Part>,
}

/// A piece of a [`Macro`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(Box<[u8]>),
    /// A variable; the key is in lower case. A collection without one stands for its first value.
    Var(Var, Option<Box<str>>),
    /// A variable of `TX`, by its slot.
    Tx(u32),
}

impl Macro {
    /// Reads text with macros.
    ///
    /// # Errors
    /// A macro that names no variable, or a collection of rules and no variable in it.
    pub(crate) fn parse(text: &str) -> Result<Macro, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(open) = rest.find("%{") {
            let Some(len) = rest[open..].find('}') else { break };
            let inner = &rest[open + 2..open + len];
            let (name, key) = match inner.split_once(['.', ':']) {
                Some((name, key)) => (name, Some(key)),
                None => (inner, None),
            };
            let Some(var) = Var::find(name.trim()) else {
                return Err(format!("the macro `%{{{inner}}}` names no known variable"));
            };
            // As in ModSecurity: what rules write has no first value, and of a rule there is no value but by name.
            if key.is_none() && (var.kind() == Kind::Writable || var == Var::Rule) {
                return Err(format!("the macro `%{{{inner}}}` needs a name after a dot"));
            }
            literal.push_str(&rest[..open]);
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into_bytes().into()));
            }
            parts.push(Part::Var(var, key.map(|k| k.to_ascii_lowercase().into())));
            rest = &rest[open + len + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into_bytes().into()));
        }
        Ok(Macro { parts })
    }

    /// Whether there is nothing to replace.
    pub(crate) fn is_literal(&self) -> bool {
        self.parts.iter().all(|p| matches!(p, Part::Text(_)))
    }

    /// The text, when there is nothing to replace.
    pub(crate) fn literal(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Gives the variables of `TX` their slots.
    pub(crate) fn intern(&mut self, names: &mut TxNames) {
        for part in &mut self.parts {
            if let Part::Var(Var::Tx, Some(key)) = part {
                *part = Part::Tx(names.slot(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_are_found_and_unknown_ones_named() {
        let m = Macro::parse("a%{TX.Score}b%{MATCHED_VAR}").unwrap();
        assert_eq!(
            m.parts,
            [
                Part::Text(b"a"[..].into()),
                Part::Var(Var::Tx, Some("score".into())),
                Part::Text(b"b"[..].into()),
                Part::Var(Var::MatchedVar, None),
            ]
        );
        assert!(Macro::parse("%{nope}").is_err());
        assert!(Macro::parse("%{tx}").is_err() && Macro::parse("%{rule}").is_err());
        assert_eq!(Macro::parse("%{ARGS}").unwrap().parts, [Part::Var(Var::Args, None)]);
        assert_eq!(Macro::parse("100%{").unwrap().literal(), Some(&b"100%{"[..]));
    }
}
