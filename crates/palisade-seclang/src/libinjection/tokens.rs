//! libinjection's SQL tokeniser.
//!
//! Written after `libinjection_sqli.c` (Copyright 2012-2016 Nick Galbreath, BSD-3-Clause), whose corner cases are the
//! point: fingerprints were collected with them.

use super::words::lookup;

/// Bytes of a token's value that are kept.
pub(super) const KEPT: usize = 31;

/// Types of tokens, as fingerprints spell them.
pub(super) mod kind {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const KEYWORD: u8 = b'k';
    pub(crate) const UNION: u8 = b'U';
    pub(crate) const GROUP: u8 = b'B';
    pub(crate) const EXPRESSION: u8 = b'E';
    pub(crate) const SQL_TYPE: u8 = b't';
    pub(crate) const FUNCTION: u8 = b'f';
    pub(crate) const BAREWORD: u8 = b'n';
    pub(crate) const NUMBER: u8 = b'1';
    pub(crate) const VARIABLE: u8 = b'v';
    pub(crate) const STRING: u8 = b's';
    pub(crate) const OPERATOR: u8 = b'o';
    pub(crate) const LOGIC: u8 = b'&';
    pub(crate) const COMMENT: u8 = b'c';
    pub(crate) const COLLATE: u8 = b'A';
    pub(crate) const LEFT: u8 = b'(';
    pub(crate) const RIGHT: u8 = b')';
    pub(crate) const LEFT_BRACE: u8 = b'{';
    pub(crate) const RIGHT_BRACE: u8 = b'}';
    pub(crate) const DOT: u8 = b'.';
    pub(crate) const COMMA: u8 = b',';
    pub(crate) const COLON: u8 = b':';
    pub(crate) const SEMICOLON: u8 = b';';
    pub(crate) const TSQL: u8 = b'T';
    pub(crate) const UNKNOWN: u8 = b'?';
    pub(crate) const EVIL: u8 = b'X';
    pub(crate) const BACKSLASH: u8 = b'\\';
}

/// A token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: u8,
    /// The quote at its beginning; 0: none.
    pub(super) open: u8,
    pub(super) close: u8,
    /// `@` before a variable.
    #[cfg_attr(not(test), expect(dead_code, reason = "published tests print it"))]
    pub(super) count: u8,
    len: u8,
    value: [u8; KEPT],
}

impl Token {
    pub(super) const NONE: Token = Token { kind: kind::NONE, open: 0, close: 0, count: 0, len: 0, value: [0; KEPT] };

    pub(super) fn new(kind: u8, value: &[u8]) -> Token {
        let mut token = Token { kind, ..Token::NONE };
        token.set(value);
        token
    }

    pub(super) fn set(&mut self, value: &[u8]) {
        let len = value.len().min(KEPT);
        self.value[..len].copy_from_slice(&value[..len]);
        self.len = len as u8;
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.value[..usize::from(self.len)]
    }

    /// The first byte of the value, 0 if it is empty.
    pub(super) fn first(&self) -> u8 {
        self.value().first().copied().unwrap_or(0)
    }

    pub(super) fn is(&self, word: &str) -> bool {
        self.value().eq_ignore_ascii_case(word.as_bytes())
    }
}

/// Which SQL, and whether the input begins inside a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    /// `'` or `"` if the input begins inside of such a string, else 0.
    pub(super) quote: u8,
    pub(super) mysql: bool,
}

/// Reads tokens one by one.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    input: &'a [u8],
    context: Context,
    pos: usize,
    /// Comments that MySQL would read otherwise: `--x` and `#`.
    pub(super) mysql_comments: u32,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(input: &'a [u8], context: Context) -> Tokens<'a> {
        Tokens { input, context, pos: 0, mysql_comments: 0 }
    }

    pub(super) fn next_token(&mut self) -> Option<Token> {
        if self.pos == 0 && self.context.quote != 0 && !self.input.is_empty() {
            let (token, next) = self.string(0, self.context.quote, 0, 0);
            self.pos = next;
            return Some(Token { open: 0, ..token });
        }
        while let Some(&b) = self.input.get(self.pos) {
            let (token, next) = self.dispatch(b);
            self.pos = next;
            if token.kind != kind::NONE {
                return Some(token);
            }
        }
        None
    }

    fn at(&self, pos: usize) -> u8 {
        self.input.get(pos).copied().unwrap_or(0)
    }

    fn rest(&self, pos: usize) -> &'a [u8] {
        self.input.get(pos..).unwrap_or(&[])
    }

    fn take(&self, kind: u8, len: usize) -> (Token, usize) {
        let end = (self.pos + len).min(self.input.len());
        (Token::new(kind, &self.input[self.pos..end]), end)
    }

    fn dispatch(&mut self, b: u8) -> (Token, usize) {
        match b {
            0..=32 | 127 | 160 => (Token::NONE, self.pos + 1),
            b'!' | b'&' | b'*' | b':' | b'<' | b'=' | b'>' | b'|' => self.operator2(),
            b'"' | b'\'' => self.string(self.pos, b, 1, b),
            b'#' => {
                self.mysql_comments += 1;
                if self.context.mysql { self.comment_to_end() } else { self.take(kind::OPERATOR, 1) }
            }
            b'$' => self.money(),
            b'%' | b'^' | b'+' | b'~' => self.take(kind::OPERATOR, 1),
            b'(' | b')' | b',' | b';' | b'{' | b'}' => self.take(b, 1),
            b'-' => self.dash(),
            b'.' | b'0'..=b'9' => self.number(),
            b'/' => self.slash(),
            b'?' | b']' => self.take(kind::UNKNOWN, 1),
            b'@' => self.variable(),
            b'B' | b'b' => self.digits_string(|b| matches!(b, b'0' | b'1')),
            b'X' | b'x' => self.digits_string(|b| b.is_ascii_hexdigit()),
            b'E' | b'e' => self.e_string(),
            b'N' | b'n' => {
                if self.input.len() > self.pos + 2 && self.at(self.pos + 1) == b'\'' {
                    self.e_string()
                } else {
                    self.q_string(1)
                }
            }
            b'Q' | b'q' => self.q_string(0),
            b'U' | b'u' => self.u_string(),
            b'[' => {
                let rest = self.rest(self.pos);
                let len = memchr::memchr(b']', rest).map_or(rest.len(), |n| n + 1);
                self.take(kind::BAREWORD, len)
            }
            b'\\' => {
                if self.at(self.pos + 1) == b'N' {
                    self.take(kind::NUMBER, 2)
                } else {
                    self.take(kind::BACKSLASH, 1)
                }
            }
            b'`' => self.tick(self.pos),
            _ => self.word(),
        }
    }

    fn operator2(&self) -> (Token, usize) {
        let rest = self.rest(self.pos);
        if rest.starts_with(b"<=>") {
            return self.take(kind::OPERATOR, 3);
        }
        if let Some(found) = rest.get(..2).and_then(lookup) {
            return self.take(found, 2);
        }
        // The last byte of the input is an operator, even a colon.
        self.take(if rest.len() > 1 && rest[0] == b':' { kind::COLON } else { kind::OPERATOR }, 1)
    }

    fn comment_to_end(&self) -> (Token, usize) {
        let rest = self.rest(self.pos);
        match memchr::memchr(b'\n', rest) {
            Some(len) => (Token::new(kind::COMMENT, &rest[..len]), self.pos + len + 1),
            None => self.take(kind::COMMENT, rest.len()),
        }
    }

    fn dash(&mut self) -> (Token, usize) {
        // `--` and white space is a comment everywhere, `--x` only where it is not MySQL.
        if self.at(self.pos + 1) == b'-' && self.pos + 1 < self.input.len() {
            match self.input.get(self.pos + 2) {
                None => return self.comment_to_end(),
                Some(b) if is_white(*b) => return self.comment_to_end(),
                Some(_) => {
                    self.mysql_comments += 1;
                    if !self.context.mysql {
                        return self.comment_to_end();
                    }
                }
            }
        }
        self.take(kind::OPERATOR, 1)
    }

    fn slash(&self) -> (Token, usize) {
        let rest = self.rest(self.pos);
        let Some(inner) = rest.strip_prefix(b"/*") else { return self.take(kind::OPERATOR, 1) };
        let (len, nested) = match memchr::memmem::find(inner, b"*/") {
            // One byte beyond the end belongs to the region in which a nested comment is looked for.
            Some(end) => (end + 4, memchr::memmem::find(&inner[..end + 1], b"/*").is_some()),
            None => (rest.len(), false),
        };
        // Comments inside of comments, and MySQL's `/*!`, mean different things to different servers.
        let evil = nested || rest.get(2) == Some(&b'!');
        self.take(if evil { kind::EVIL } else { kind::COMMENT }, len)
    }

    /// A string whose content begins `offset` after `pos`. Backslashes and doubled quotes do not end it.
    fn string(&self, pos: usize, quote: u8, offset: usize, open: u8) -> (Token, usize) {
        let start = (pos + offset).min(self.input.len());
        let mut from = start;
        while let Some(found) = memchr::memchr(quote, self.rest(from)) {
            let end = from + found;
            let backslashes = self.input[start..end].iter().rev().take_while(|b| **b == b'\\').count();
            if backslashes % 2 == 1 {
                from = end + 1;
            } else if self.input.get(end + 1) == Some(&quote) {
                from = end + 2;
            } else {
                let token = Token::new(kind::STRING, &self.input[start..end]);
                return (Token { open, close: quote, ..token }, end + 1);
            }
        }
        let token = Token::new(kind::STRING, &self.input[start..]);
        (Token { open, ..token }, self.input.len())
    }

    fn e_string(&self) -> (Token, usize) {
        if self.pos + 2 >= self.input.len() || self.at(self.pos + 1) != b'\'' {
            return self.word();
        }
        self.string(self.pos, b'\'', 2, b'\'')
    }

    fn u_string(&self) -> (Token, usize) {
        if self.pos + 2 < self.input.len() && self.at(self.pos + 1) == b'&' && self.at(self.pos + 2) == b'\'' {
            let (mut token, next) = self.string(self.pos + 2, b'\'', 1, b'u');
            if token.close == b'\'' {
                token.close = b'u';
            }
            return (token, next);
        }
        self.word()
    }

    /// Oracle's `q'(…)'`.
    fn q_string(&self, offset: usize) -> (Token, usize) {
        let pos = self.pos + offset;
        if !matches!(self.at(pos), b'q' | b'Q') || pos + 2 >= self.input.len() || self.at(pos + 1) != b'\'' {
            return self.word();
        }
        let delimiter = self.at(pos + 2);
        // The comparison is signed in C: high bytes do not delimit.
        if !(33..0x80).contains(&delimiter) {
            return self.word();
        }
        let close = match delimiter {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            b'<' => b'>',
            other => other,
        };
        let content = self.rest(pos + 3);
        let (len, closed) = match memchr::memmem::find(content, &[close, b'\'']) {
            Some(end) => (end, true),
            None => (content.len(), false),
        };
        let token = Token::new(kind::STRING, &content[..len]);
        let next = if closed { pos + 3 + len + 2 } else { self.input.len() };
        (Token { open: b'q', close: if closed { b'q' } else { 0 }, ..token }, next)
    }

    /// `b'01'` and `x'0f'`.
    fn digits_string(&self, digit: fn(u8) -> bool) -> (Token, usize) {
        if self.pos + 2 >= self.input.len() || self.at(self.pos + 1) != b'\'' {
            return self.word();
        }
        let digits = self.rest(self.pos + 2).iter().take_while(|b| digit(**b)).count();
        if self.input.get(self.pos + 2 + digits) != Some(&b'\'') {
            return self.word();
        }
        self.take(kind::NUMBER, digits + 3)
    }

    fn word(&self) -> (Token, usize) {
        let rest = self.rest(self.pos);
        let len = rest.iter().position(|b| ends_word(*b)).unwrap_or(rest.len());
        let word = &rest[..len];
        let kept = &word[..len.min(KEPT)];
        for (i, _) in kept.iter().enumerate().filter(|(_, b)| matches!(b, b'.' | b'`')) {
            // `SELECT.1` and ``SELECT`column` ``.
            if let Some(found) = lookup(&word[..i]).filter(|k| *k != kind::BAREWORD) {
                return (Token::new(found, &word[..i]), self.pos + i);
            }
        }
        let found = if len <= KEPT { lookup(word) } else { None };
        (Token::new(found.unwrap_or(kind::BAREWORD), word), self.pos + len)
    }

    fn tick(&self, pos: usize) -> (Token, usize) {
        let (mut token, next) = self.string(pos, b'`', 1, b'`');
        let function = lookup(token.value()) == Some(kind::FUNCTION);
        token.kind = if function { kind::FUNCTION } else { kind::BAREWORD };
        (token, next)
    }

    fn variable(&self) -> (Token, usize) {
        let double = self.at(self.pos + 1) == b'@';
        let pos = self.pos + if double { 2 } else { 1 };
        let count = if double { 2 } else { 1 };
        let (token, next) = match self.input.get(pos) {
            Some(b'`') => self.tick(pos),
            Some(quote @ (b'\'' | b'"')) => self.string(pos, *quote, 1, *quote),
            _ => {
                let rest = self.rest(pos);
                let len = rest.iter().position(|b| ends_variable(*b)).unwrap_or(rest.len());
                (Token::new(kind::VARIABLE, &rest[..len]), pos + len)
            }
        };
        (Token { kind: kind::VARIABLE, count, ..token }, next)
    }

    fn money(&self) -> (Token, usize) {
        let rest = self.rest(self.pos);
        let tail = &rest[1..];
        let digits = tail.iter().take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b',')).count();
        if digits > 0 {
            // `$.` begins a word.
            if digits == 1 && tail[0] == b'.' {
                return self.word();
            }
            return self.take(kind::NUMBER, digits + 1);
        }
        if tail.first() == Some(&b'$') {
            return self.dollar(2, b"$$");
        }
        let letters = tail.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        if letters > 0 && tail.get(letters) == Some(&b'$') {
            return self.dollar(letters + 2, &rest[..letters + 2]);
        }
        self.take(kind::BAREWORD, 1)
    }

    /// PostgreSQL's `$tag$…$tag$`.
    fn dollar(&self, offset: usize, tag: &[u8]) -> (Token, usize) {
        let content = self.rest(self.pos + offset);
        let (len, closed) = match memchr::memmem::find(content, tag) {
            Some(end) => (end, true),
            None => (content.len(), false),
        };
        let token = Token::new(kind::STRING, &content[..len]);
        let next = if closed { self.pos + offset + len + tag.len() } else { self.input.len() };
        (Token { open: b'$', close: if closed { b'$' } else { 0 }, ..token }, next)
    }

    fn number(&self) -> (Token, usize) {
        let rest = self.rest(self.pos);
        let count = |from: usize, digit: fn(&u8) -> bool| {
            rest.get(from..).map_or(0, |r| r.iter().take_while(|b| digit(b)).count())
        };
        let radix: Option<fn(&u8) -> bool> = match (rest[0], rest.get(1)) {
            (b'0', Some(b'x' | b'X')) => Some(u8::is_ascii_hexdigit),
            (b'0', Some(b'b' | b'B')) => Some(|b| matches!(b, b'0' | b'1')),
            _ => None,
        };
        if let Some(digit) = radix {
            let digits = count(2, digit);
            return self.take(if digits == 0 { kind::BAREWORD } else { kind::NUMBER }, 2 + digits);
        }
        let mut len = count(0, u8::is_ascii_digit);
        if rest.get(len) == Some(&b'.') {
            len += 1;
            len += count(len, u8::is_ascii_digit);
            if len == 1 {
                return self.take(kind::DOT, 1);
            }
        }
        let mut exponent = false;
        let mut digits = 0;
        if matches!(rest.get(len), Some(b'e' | b'E')) {
            exponent = true;
            len += 1;
            if matches!(rest.get(len), Some(b'+' | b'-')) {
                len += 1;
            }
            digits = count(len, u8::is_ascii_digit);
            len += digits;
        }
        // Oracle's suffixes of floating point numbers.
        if matches!(rest.get(len), Some(b'd' | b'D' | b'f' | b'F')) {
            match rest.get(len + 1) {
                None | Some(b';' | b'u' | b'U') => len += 1,
                Some(b) if is_white(*b) => len += 1,
                _ => {}
            }
        }
        self.take(if exponent && digits == 0 { kind::BAREWORD } else { kind::NUMBER }, len)
    }
}

fn is_white(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0xa0 | 0)
}

fn ends_word(b: u8) -> bool {
    is_white(b)
        || matches!(
            b,
            b'[' | b']'
                | b'{'
                | b'}'
                | b'<'
                | b'>'
                | b':'
                | b'\\'
                | b'?'
                | b'='
                | b'@'
                | b'!'
                | b'#'
                | b'~'
                | b'+'
                | b'-'
                | b'*'
                | b'/'
                | b'&'
                | b'|'
                | b'^'
                | b'%'
                | b'('
                | b')'
                | b','
                | b'\''
                | b';'
                | b'"'
        )
}

fn ends_variable(b: u8) -> bool {
    matches!(
        b,
        b' ' | b'<'
            | b'>'
            | b':'
            | b'\\'
            | b'?'
            | b'='
            | b'@'
            | b'!'
            | b'#'
            | b'~'
            | b'+'
            | b'-'
            | b'*'
            | b'/'
            | b'&'
            | b'|'
            | b'^'
            | b'%'
            | b'('
            | b')'
            | b','
            | b';'
            | b'\''
            | b'\t'
            | b'\n'
            | 0x0b
            | 0x0c
            | b'\r'
            | b'`'
            | b'"'
    )
}
