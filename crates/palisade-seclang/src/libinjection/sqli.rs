//! Folding tokens to a fingerprint, and judging it.
//!
//! Written after `libinjection_sqli.c` (Copyright 2012-2016 Nick Galbreath, BSD-3-Clause).

use super::Fingerprint;
use super::tokens::{Context, KEPT, Token, Tokens, kind};
use super::words::{is_injection, lookup};

/// Tokens of a fingerprint.
const MOST: usize = 5;

/// The tokens that are left after folding.
#[derive(Debug)]
pub(super) struct Folded {
    tokens: [Token; MOST + 3],
    len: usize,
    /// Tokens read, before folding.
    read: usize,
    mysql_comments: u32,
}

impl Folded {
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens[..self.len]
    }
}

/// The fingerprint when the input is an injection in some context.
pub(super) fn detect(input: &[u8]) -> Option<Fingerprint> {
    if input.is_empty() {
        return None;
    }
    let single = memchr::memchr(b'\'', input).is_some();
    let double = memchr::memchr(b'"', input).is_some();
    for (quote, wanted) in [(0, true), (b'\'', single)] {
        if !wanted {
            continue;
        }
        let ansi = fold(input, Context { quote, mysql: false });
        if let Some(found) = judge(input, &ansi) {
            return Some(found);
        }
        if ansi.mysql_comments > 0
            && let Some(found) = judge(input, &fold(input, Context { quote, mysql: true }))
        {
            return Some(found);
        }
    }
    if double { judge(input, &fold(input, Context { quote: b'"', mysql: true })) } else { None }
}

fn is_unary(token: &Token) -> bool {
    token.kind == kind::OPERATOR
        && match token.value() {
            [one] => matches!(one, b'+' | b'-' | b'!' | b'~'),
            [b'!', b'!'] => true,
            value => value.eq_ignore_ascii_case(b"NOT"),
        }
}

fn is_arithmetic(token: &Token) -> bool {
    token.kind == kind::OPERATOR && matches!(token.value(), [b'*' | b'/' | b'-' | b'+' | b'%'])
}

fn is_one_of(kind: u8, kinds: &[u8]) -> bool {
    kinds.contains(&kind)
}

/// Two words that are a phrase of SQL become one token: `UNION ALL`, `GROUP BY`.
fn merge(a: &mut Token, b: &Token) -> bool {
    use kind::{BAREWORD, EXPRESSION, FUNCTION, KEYWORD, LOGIC, OPERATOR, SQL_TYPE, TSQL, UNION};
    const FIRST: [u8; 8] = [KEYWORD, BAREWORD, OPERATOR, UNION, FUNCTION, EXPRESSION, TSQL, SQL_TYPE];
    if !is_one_of(a.kind, &FIRST) || !(is_one_of(b.kind, &FIRST) || b.kind == LOGIC) {
        return false;
    }
    let (left, right) = (a.value(), b.value());
    let len = left.len() + right.len() + 1;
    if len > KEPT {
        return false;
    }
    let mut both = [b' '; KEPT];
    both[..left.len()].copy_from_slice(left);
    both[left.len() + 1..len].copy_from_slice(right);
    match lookup(&both[..len]) {
        Some(found) => {
            a.kind = found;
            a.set(&both[..len]);
            true
        }
        None => false,
    }
}

/// Reads tokens and folds what says nothing, until five are left.
#[expect(clippy::collapsible_match, reason = "an arm that does nothing keeps later arms from being tried")]
pub(super) fn fold(input: &[u8], context: Context) -> Folded {
    use kind::{
        BACKSLASH, BAREWORD, COLLATE, COMMA, COMMENT, DOT, EVIL, EXPRESSION, FUNCTION, GROUP, KEYWORD, LEFT,
        LEFT_BRACE, LOGIC, NUMBER, OPERATOR, RIGHT, RIGHT_BRACE, SEMICOLON, SQL_TYPE, STRING, TSQL, VARIABLE,
    };
    let mut source = Tokens::new(input, context);
    let mut t = [Token::NONE; MOST + 3];
    let mut read = 0;
    let mut last_comment = Token::NONE;
    let mut more = false;
    // What opens nothing is skipped: comments, parentheses, casts, signs.
    while let Some(token) = source.next_token() {
        read += 1;
        t[0] = token;
        if !(is_one_of(token.kind, &[COMMENT, LEFT, SQL_TYPE]) || is_unary(&token)) {
            more = true;
            break;
        }
    }
    if !more {
        return Folded { tokens: t, len: 0, read, mysql_comments: source.mysql_comments };
    }
    let mut pos = 1;
    let mut left = 0;
    loop {
        if pos >= MOST {
            let kinds = [t[0].kind, t[1].kind, t[2].kind, t[3].kind, t[4].kind];
            let repeats = matches!(
                kinds,
                [NUMBER, OPERATOR | COMMA, LEFT, NUMBER, RIGHT]
                    | [BAREWORD, OPERATOR, LEFT, BAREWORD | NUMBER, RIGHT]
                    | [NUMBER, RIGHT, COMMA, LEFT, NUMBER]
                    | [BAREWORD, RIGHT, OPERATOR, LEFT, BAREWORD]
            );
            if repeats {
                if pos > MOST {
                    t[1] = t[MOST];
                    pos = 2;
                } else {
                    pos = 1;
                }
                left = 0;
            }
        }
        if !more || left >= MOST {
            left = pos;
            break;
        }
        let mut fill = |t: &mut [Token; MOST + 3], pos: &mut usize, more: &mut bool, wanted: usize| {
            while *more && *pos <= MOST && *pos - left < wanted {
                match source.next_token() {
                    Some(token) => {
                        read += 1;
                        if token.kind == COMMENT {
                            last_comment = token;
                        } else {
                            last_comment.kind = kind::NONE;
                            t[*pos] = token;
                            *pos += 1;
                        }
                    }
                    None => *more = false,
                }
            }
        };
        fill(&mut t, &mut pos, &mut more, 2);
        if pos - left < 2 {
            left = pos;
            continue;
        }
        let (a, b) = (t[left], t[left + 1]);
        match (a.kind, b.kind) {
            (STRING, STRING) | (SEMICOLON, SEMICOLON) => {
                pos -= 1;
                continue;
            }
            (OPERATOR | LOGIC, _) if is_unary(&b) || b.kind == SQL_TYPE => {
                pos -= 1;
                left = 0;
                continue;
            }
            (LEFT, _) if is_unary(&b) => {
                pos -= 1;
                left = left.saturating_sub(1);
                continue;
            }
            _ if merge(&mut t[left], &b) => {
                pos -= 1;
                left = left.saturating_sub(1);
                continue;
            }
            (SEMICOLON, FUNCTION) if b.value().get(..2).is_some_and(|v| v.eq_ignore_ascii_case(b"IF")) => {
                t[left + 1].kind = TSQL;
                continue;
            }
            (BAREWORD | VARIABLE, LEFT) if FUNCTIONS_WITHOUT_ARGUMENTS.iter().any(|name| a.is(name)) => {
                t[left].kind = FUNCTION;
                continue;
            }
            (KEYWORD, _) if a.is("IN") || a.is("NOT IN") => {
                t[left].kind = if b.kind == LEFT { OPERATOR } else { BAREWORD };
                continue;
            }
            (OPERATOR, _) if a.is("LIKE") || a.is("NOT LIKE") => {
                if b.kind == LEFT {
                    t[left].kind = FUNCTION;
                }
            }
            (SQL_TYPE, BAREWORD | NUMBER | SQL_TYPE | LEFT | FUNCTION | VARIABLE | STRING) => {
                t[left] = b;
                pos -= 1;
                left = 0;
                continue;
            }
            (COLLATE, BAREWORD) => {
                if b.value().contains(&b'_') {
                    t[left + 1].kind = SQL_TYPE;
                    left = 0;
                }
            }
            (BACKSLASH, _) => {
                if is_arithmetic(&b) {
                    t[left].kind = NUMBER;
                } else {
                    t[left] = b;
                    pos -= 1;
                }
                left = 0;
                continue;
            }
            (LEFT, LEFT) | (RIGHT, RIGHT) => {
                pos -= 1;
                left = 0;
                continue;
            }
            (LEFT_BRACE, BAREWORD) => {
                // MySQL reads `{``.``.id}` as a name.
                if b.value().is_empty() {
                    t[left + 1].kind = EVIL;
                    return Folded { tokens: t, len: left + 2, read, mysql_comments: source.mysql_comments };
                }
                left = 0;
                pos -= 2;
                continue;
            }
            (_, RIGHT_BRACE) => {
                pos -= 1;
                left = 0;
                continue;
            }
            _ => {}
        }
        let mut fill = |t: &mut [Token; MOST + 3], pos: &mut usize, more: &mut bool, wanted: usize| {
            while *more && *pos <= MOST && *pos - left < wanted {
                match source.next_token() {
                    Some(token) => {
                        read += 1;
                        if token.kind == COMMENT {
                            last_comment = token;
                        } else {
                            last_comment.kind = kind::NONE;
                            t[*pos] = token;
                            *pos += 1;
                        }
                    }
                    None => *more = false,
                }
            }
        };
        fill(&mut t, &mut pos, &mut more, 3);
        if pos - left < 3 {
            left = pos;
            continue;
        }
        let (a, b, c) = (t[left], t[left + 1], t[left + 2]);
        match (a.kind, b.kind, c.kind) {
            (NUMBER, OPERATOR, NUMBER) => (pos, left) = (pos - 2, 0),
            (OPERATOR, middle, OPERATOR) if middle != LEFT => (pos, left) = (pos - 2, 0),
            (LOGIC, _, LOGIC) => (pos, left) = (pos - 2, 0),
            (VARIABLE, OPERATOR, VARIABLE | NUMBER | BAREWORD) => (pos, left) = (pos - 2, 0),
            (BAREWORD | NUMBER, OPERATOR, NUMBER | BAREWORD) => (pos, left) = (pos - 2, 0),
            (BAREWORD | NUMBER | VARIABLE | STRING, OPERATOR, SQL_TYPE) if b.value() == b"::" => {
                (pos, left) = (pos - 2, 0)
            }
            (BAREWORD | NUMBER | STRING | VARIABLE, COMMA, NUMBER | BAREWORD | STRING | VARIABLE) => {
                (pos, left) = (pos - 2, 0)
            }
            (EXPRESSION | GROUP | COMMA, _, LEFT) if is_unary(&b) => {
                t[left + 1] = c;
                (pos, left) = (pos - 1, 0);
            }
            (KEYWORD | EXPRESSION | GROUP, _, NUMBER | BAREWORD | VARIABLE | STRING | FUNCTION) if is_unary(&b) => {
                t[left + 1] = c;
                (pos, left) = (pos - 1, 0);
            }
            (COMMA, _, NUMBER | BAREWORD | VARIABLE | STRING) if is_unary(&b) => {
                // The comma rule above is to see the token before the comma again.
                t[left + 1] = c;
                left = 0;
                pos = pos.saturating_sub(3);
            }
            (COMMA, _, FUNCTION) if is_unary(&b) => {
                t[left + 1] = c;
                (pos, left) = (pos - 1, 0);
            }
            (BAREWORD, DOT, BAREWORD) => (pos, left) = (pos - 2, 0),
            (EXPRESSION, DOT, BAREWORD) => {
                t[left + 1] = c;
                (pos, left) = (pos - 1, 0);
            }
            (FUNCTION, LEFT, last) => {
                if last != RIGHT && a.is("USER") {
                    t[left].kind = BAREWORD;
                }
                left += 1;
            }
            _ => left += 1,
        }
    }
    let mut len = left.min(MOST);
    if len < MOST && last_comment.kind == COMMENT {
        t[len] = last_comment;
        len += 1;
    }
    Folded { tokens: t, len, read, mysql_comments: source.mysql_comments }
}

const FUNCTIONS_WITHOUT_ARGUMENTS: [&str; 11] = [
    "USER_ID",
    "USER_NAME",
    "DATABASE",
    "PASSWORD",
    "USER",
    "CURRENT_USER",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "LOCALTIME",
    "LOCALTIMESTAMP",
];

/// The fingerprint, if it is an injection's.
fn judge(input: &[u8], folded: &Folded) -> Option<Fingerprint> {
    let mut bytes = [0; 8];
    let tokens = folded.tokens();
    for (slot, token) in bytes.iter_mut().zip(tokens) {
        *slot = token.kind;
    }
    // A back-quote that opens a name without end is a comment to PHP's MySQL.
    if let [.., last] = tokens
        && tokens.len() > 2
        && last.kind == kind::BAREWORD
        && last.open == b'`'
        && last.value().is_empty()
        && last.close == 0
    {
        bytes[tokens.len() - 1] = kind::COMMENT;
    }
    let len = tokens.len();
    if bytes[..len].contains(&kind::EVIL) {
        return is_injection(b"X").then_some(Fingerprint { bytes: [b'X', 0, 0, 0, 0, 0, 0, 0], len: 1 });
    }
    let print = &bytes[..len];
    (len > 0 && is_injection(print) && !is_known_text(input, folded, print))
        .then_some(Fingerprint { bytes, len: len as u8 })
}

/// Short fingerprints that ordinary text has too.
fn is_known_text(input: &[u8], folded: &Folded, print: &[u8]) -> bool {
    let t = folded.tokens();
    // `sp_password` in a comment hides a statement from SQL Server's log.
    if print.len() > 1 && print.last() == Some(&kind::COMMENT) && memchr::memmem::find(input, b"sp_password").is_some()
    {
        return false;
    }
    match print {
        [_, kind::UNION] => folded.read == 2,
        [first, second] => {
            let comment = *second == kind::COMMENT;
            if t[1].first() == b'#' || *first == kind::BAREWORD && comment && t[1].first() != b'/' {
                return true;
            }
            if *first == kind::NUMBER && comment {
                if t[1].first() == b'/' || folded.read > 2 {
                    return false;
                }
                // Right behind the number: white space (also bytes that are negative in C), or the comment itself.
                let rest = input.get(t[0].value().len()..).unwrap_or(&[]);
                return !matches!(rest.first(), Some(b) if *b <= 32 || *b >= 0x80)
                    && !rest.starts_with(b"/*")
                    && !rest.starts_with(b"--");
            }
            t[1].value().len() > 2 && t[1].first() == b'-'
        }
        b"sos" | b"s&s" => !(t[0].open == 0 && t[2].close == 0 && t[0].close == t[2].open),
        b"s&n" | b"n&1" | b"1&1" | b"1&v" | b"1&s" => folded.read == 3,
        [_, kind::KEYWORD, _] => {
            let value = t[1].value();
            value.len() < 5 || !value[..4].eq_ignore_ascii_case(b"INTO")
        }
        _ => false,
    }
}
