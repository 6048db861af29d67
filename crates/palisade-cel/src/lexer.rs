//! Text into tokens.

use crate::problem::{Problem, Span};

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) at: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Name(String),
    Int(i64),
    Text(String),
    /// An operator or bracket, as written.
    Sign(&'static str),
    End,
}

/// Longer ones first, so that `<=` is not read as `<`.
const SIGNS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "?", ":", "(", ")", "[", "]", ",", ".", "+", "-", "*", "/", "%",
];

/// Reads all tokens; the last is [`Kind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, Problem> {
    let mut out = Vec::new();
    let mut rest = Rest { text, at: 0 };
    loop {
        rest.skip_blanks();
        let start = rest.at;
        let Some(next) = rest.peek() else {
            out.push(Token { kind: Kind::End, at: Span::new(text.len(), text.len()) });
            return Ok(out);
        };
        let kind = match next {
            '"' | '\'' => rest.string(false)?,
            'r' | 'R' if matches!(rest.after(1), Some('"' | '\'')) => {
                rest.skip(1);
                rest.string(true)?
            }
            'b' | 'B' if matches!(rest.after(1), Some('"' | '\'')) => {
                return Err(Problem::new(
                    Span::new(start, start + 1),
                    "there are no byte strings here",
                    "take the `b` away: values of a request are text",
                ));
            }
            '0'..='9' => rest.number()?,
            c if c.is_ascii_alphabetic() || c == '_' => rest.name(),
            _ => rest.sign()?,
        };
        out.push(Token { kind, at: Span::new(start, rest.at) });
    }
}

struct Rest<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Rest<'t> {
    fn left(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.left().chars().next()
    }

    fn after(&self, bytes: usize) -> Option<char> {
        self.left().get(bytes..).and_then(|left| left.chars().next())
    }

    fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes).min(self.text.len());
    }

    fn take(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.skip(next.len_utf8());
        Some(next)
    }

    fn while_in(&mut self, fits: impl Fn(char) -> bool) -> &'t str {
        let left = self.left();
        let len = left.find(|c| !fits(c)).unwrap_or(left.len());
        self.skip(len);
        &left[..len]
    }

    fn skip_blanks(&mut self) {
        loop {
            self.while_in(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            if !self.left().starts_with("//") {
                return;
            }
            self.while_in(|c| c != '\n');
        }
    }

    fn name(&mut self) -> Kind {
        Kind::Name(self.while_in(|c| c.is_ascii_alphanumeric() || c == '_').to_owned())
    }

    fn number(&mut self) -> Result<Kind, Problem> {
        let start = self.at;
        let hex = self.left().starts_with("0x") || self.left().starts_with("0X");
        let digits = self.while_in(|c| c.is_ascii_alphanumeric());
        let at = Span::new(start, self.at);
        if self.peek() == Some('.') && self.after(1).is_some_and(|c| c.is_ascii_digit()) {
            return Err(Problem::new(at, "numbers are whole here", "write an integer"));
        }
        let value =
            if hex { i64::from_str_radix(digits.get(2..).unwrap_or_default(), 16) } else { digits.parse::<i64>() };
        value.map(Kind::Int).map_err(|_| {
            let unsigned = digits.ends_with(['u', 'U']);
            let fix = if unsigned { "take the `u` away" } else { "write an integer of at most 63 bits" };
            Problem::new(at, format!("`{digits}` is not a whole number"), fix)
        })
    }

    fn sign(&mut self) -> Result<Kind, Problem> {
        let left = self.left();
        if let Some(sign) = SIGNS.iter().find(|sign| left.starts_with(**sign)) {
            self.skip(sign.len());
            return Ok(Kind::Sign(sign));
        }
        let c = self.peek().unwrap_or_default();
        let at = Span::new(self.at, self.at.saturating_add(c.len_utf8()));
        Err(match c {
            '=' => Problem::new(at, "`=` is not a comparison", "write `==`"),
            '&' => Problem::new(at, "`&` is not an operator here", "write `&&`"),
            '|' => Problem::new(at, "`|` is not an operator here", "write `||`"),
            '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}' => {
                Problem::new(at, "these are typographic quotes", "write straight quotes: `'`")
            }
            '{' | '}' => Problem::new(at, "there are no maps and messages here", "write names as they are: `path.id`"),
            c if c.is_control() => Problem::new(at, "a control character does not belong here", "take it away"),
            c => Problem::new(at, format!("`{c}` does not belong here"), "take it away, or put text into quotes"),
        })
    }

    /// At the opening quote.
    fn string(&mut self, raw: bool) -> Result<Kind, Problem> {
        let start = self.at;
        let quote = self.take().unwrap_or_default();
        let mut out = String::new();
        if self.left().starts_with(quote) && self.after(1) == Some(quote) {
            let at = Span::new(start, self.at + 2);
            return Err(Problem::new(at, "there are no texts in triple quotes here", "write one quote on each side"));
        }
        loop {
            let here = self.at;
            match self.take() {
                None | Some('\n' | '\r') => {
                    let at = Span::new(start, here);
                    return Err(Problem::new(at, "this text does not end", format!("close it with `{quote}`")));
                }
                Some(c) if c == quote => return Ok(Kind::Text(out)),
                Some('\\') if !raw => out.push(self.escape(here)?),
                Some(c) => out.push(c),
            }
        }
    }

    /// Behind the backslash.
    fn escape(&mut self, start: usize) -> Result<char, Problem> {
        let next = self.take();
        let digits = match next {
            Some(c @ ('\\' | '"' | '\'' | '`' | '?')) => return Ok(c),
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('a') => return Ok('\x07'),
            Some('b') => return Ok('\x08'),
            Some('f') => return Ok('\x0c'),
            Some('v') => return Ok('\x0b'),
            Some('x' | 'X') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => 0,
        };
        let number = self.left().get(..digits).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = number.filter(|_| digits > 0).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.skip(if value.is_some() { digits } else { 0 });
        value.and_then(char::from_u32).ok_or_else(|| {
            let fix = "write `\\\\` for a backslash, or `r'…'` for a text without escapes";
            Problem::new(Span::new(start, self.at), "this is no escape", fix)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        tokens(text).unwrap().into_iter().map(|token| token.kind).collect()
    }

    #[test]
    fn tokens_of_all_kinds() {
        assert_eq!(
            kinds("a_1 <= 0x1F // what follows is a remark\n && r'\\d' != \"\\u00e9\\n\""),
            [
                Kind::Name("a_1".into()),
                Kind::Sign("<="),
                Kind::Int(31),
                Kind::Sign("&&"),
                Kind::Text("\\d".into()),
                Kind::Sign("!="),
                Kind::Text("é\n".into()),
                Kind::End,
            ]
        );
    }

    #[test]
    fn what_is_no_token_points_at_itself() {
        for (text, at, message) in [
            ("a = b", "=", "`=` is not a comparison"),
            ("a & b", "&", "`&` is not an operator here"),
            ("a | b", "|", "`|` is not an operator here"),
            ("x == 'abc", "'abc", "this text does not end"),
            ("x == 'a\\qc'", "\\q", "this is no escape"),
            ("x == '\\ud800'", "\\ud800", "this is no escape"),
            ("x == '\\u00e'", "\\u", "this is no escape"),
            ("1.5", "1", "numbers are whole here"),
            ("12u", "12u", "`12u` is not a whole number"),
            ("99999999999999999999", "99999999999999999999", "`99999999999999999999` is not a whole number"),
            ("x == b'a'", "b", "there are no byte strings here"),
            ("\u{201c}a\u{201d}", "\u{201c}", "these are typographic quotes"),
            ("a # b", "#", "`#` does not belong here"),
            ("é", "é", "`é` does not belong here"),
            ("'''a'''", "'''", "there are no texts in triple quotes here"),
        ] {
            let problem = tokens(text).unwrap_err();
            assert_eq!((problem.at.of(text), problem.message.as_str()), (at, message), "{text}");
        }
    }
}
