//! Methods that a parameter names: some applications run a `POST` as the `DELETE` that its `_method` says.
//!
//! Threats 8. Rules are chosen by the method that a request is sent with, so that a parameter which names another one goes
//! past them. As with the headers that say the same, it does not arrive: it is taken out of queries on forwarding, once the
//! WAF has seen them, and a form that has it is refused while it streams. Whether an application honours it, the policy
//! may say; where it does not, only what would be judged otherwise is touched, for the parameter is how pages of correct
//! applications delete. A JSON body is not read for it.

use std::fmt;
use std::str::FromStr;

use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use palisade_base::{BadValue, TextValue, text_value};

use super::METHOD_OVERRIDE;
use crate::context::Context;
use crate::control::Inspect;
use crate::controls::auth::tells_apart;
use crate::controls::csrf;
use crate::policy::{Found, USUAL};
use crate::refusal::Refusal;

/// What Rails, Laravel, Symfony and Express call it.
const USUAL_NAME: &str = "_method";
/// No method is longer.
const MAX_METHOD: usize = 16;
/// What is between two pairs: older libraries take `;` as well.
const SEPARATORS: [char; 2] = ['&', ';'];
/// What a line of a part's head may have, in bytes: names of files are in it.
const MAX_LINE: usize = 4096;
/// The header of a part that names its field.
const DISPOSITION: &[u8] = b"content-disposition";

/// The parameter by which an application lets a request be another method than it was sent as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MethodParameter {
    /// It honours none.
    Off,
    /// The one of this name.
    Named(Box<str>),
}

impl TextValue for MethodParameter {
    const FORMAT: &'static str = "method-parameter";
    const NOUN: &'static str = "the name of a parameter";
    const EXAMPLES: &'static [&'static str] = &["_method", "off"];
}

impl FromStr for MethodParameter {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        match text {
            "off" => Ok(Self::Off),
            _ if !text.is_empty() && text.len() <= 64 && text.bytes().all(plain) => Ok(Self::Named(text.into())),
            _ => Err(BadValue::new("it is a name of letters, digits, `_` and `-`, or `off`")),
        }
    }
}

impl fmt::Display for MethodParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

text_value!(MethodParameter);

/// What holds for a request.
#[derive(Clone, Copy)]
struct Wanted<'p> {
    name: &'p str,
    /// The policy says that the application honours it.
    honoured: bool,
}

impl<'p> Wanted<'p> {
    fn of(ctx: &'p Context) -> Option<Self> {
        let section = &ctx.policy.config().integrity.config.method_parameter;
        match ctx.rule().method_parameter.as_ref().or(section.as_ref()) {
            None => Some(Self { name: USUAL_NAME, honoured: false }),
            Some(MethodParameter::Off) => None,
            Some(MethodParameter::Named(name)) => Some(Self { name, honoured: true }),
        }
    }

    /// Whether a pair of a query does not arrive.
    fn ends(self, pair: &str, ctx: &Context) -> bool {
        let mut read = Pair::default();
        for byte in pair.bytes() {
            read.feed(byte, self.name.as_bytes());
            if read.name.other {
                return false;
            }
        }
        read.name.is(self.name.as_bytes())
            && (self.honoured || read.method().is_some_and(|named| is_apart(ctx, &named)))
    }
}

/// The target without the parameter; none where it has none that ends here.
pub(crate) fn without_method(ctx: &Context, target: &Uri) -> Option<Uri> {
    let query = target.query()?;
    let wanted = Wanted::of(ctx)?;
    let stays = |whole: &&str| !wanted.ends(whole.trim_end_matches(SEPARATORS), ctx);
    let pairs = || query.split_inclusive(SEPARATORS);
    if pairs().all(|whole| stays(&whole)) {
        return None;
    }
    let kept: String = pairs().filter(stays).collect();
    let kept = if query.ends_with(SEPARATORS) { kept.as_str() } else { kept.trim_end_matches(SEPARATORS) };
    let path = target.path();
    let text = if kept.is_empty() { path.to_owned() } else { format!("{path}?{kept}") };
    // As valid as it was with it.
    text.parse::<PathAndQuery>().ok().map(Uri::from)
}

/// Whether the policy may judge the request otherwise by this method than by its own.
fn is_apart(ctx: &Context, named: &Method) -> bool {
    let (rule, rules) = (ctx.rule(), ctx.policy.rules());
    if *named == ctx.method {
        return false;
    }
    if !rules.knows(named) {
        // No route is for it. An application's own parameter may have this name, and any word for a value.
        return !rule.methods().is_empty();
    }
    ctx.method.is_safe() && !named.is_safe() && csrf::blocks(ctx)
        || rule.when.is_some()
        || tells_apart(&ctx.policy, rule, ctx.path(), ctx.path())
        || rules.names_methods() && rules.find(ctx.host(), ctx.path(), named) != Found::Rule(rule.id)
}

/// Looks for the parameter in a form; none where the body is no form, or it makes no difference.
pub(super) fn inspect(ctx: &Context, headers: &HeaderMap) -> Option<Box<dyn Inspect>> {
    let wanted = Wanted::of(ctx).filter(|_| !ctx.rule().own)?;
    let form = Form::of(headers)?;
    (wanted.honoured || USUAL.iter().any(|method| is_apart(ctx, method)))
        .then(|| Box::new(Field { name: wanted.name.into(), honoured: wanted.honoured, form }) as Box<dyn Inspect>)
}

#[derive(Debug)]
struct Field {
    name: Box<str>,
    honoured: bool,
    form: Form,
}

impl Inspect for Field {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        if !self.form.has(piece, self.name.as_bytes()) {
            return Ok(());
        }
        // The application has seen neither this piece nor the end: there is no form that it could act upon.
        let why = if self.honoured {
            "a form has the parameter that `method_parameter` names"
        } else {
            "a form has `_method`, and the policy tells methods of this path apart"
        };
        Err(METHOD_OVERRIDE.refuse(why).close())
    }
}

/// A form that is being read. As much as is not known for certain is read in both ways.
#[derive(Debug)]
struct Form {
    urlencoded: Option<Pair>,
    parts: Option<Parts>,
}

impl Form {
    /// Of a request. Without a type Ruby's frameworks read a form; of several types nobody knows which one is meant.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let begins = |kind: &[u8], with: &[u8]| kind.get(..with.len()).is_some_and(|k| k.eq_ignore_ascii_case(with));
        let any =
            |with: &[u8]| headers.get_all(CONTENT_TYPE).iter().any(|kind| begins(kind.as_bytes().trim_ascii(), with));
        let urlencoded = any(b"application/x-www-form-urlencoded") || !headers.contains_key(CONTENT_TYPE);
        let parts = any(b"multipart/");
        (urlencoded || parts)
            .then(|| Self { urlencoded: urlencoded.then(Pair::default), parts: parts.then(Parts::default) })
    }

    /// Reads the next piece: whether the parameter is in it.
    fn has(&mut self, piece: &[u8], wanted: &[u8]) -> bool {
        self.urlencoded.as_mut().is_some_and(|pair| pair.is_in(piece, wanted))
            || self.parts.as_mut().is_some_and(|parts| parts.have(piece, wanted))
    }
}

/// A name while it is read, as PHP reads it too: blanks in front are none of it, `.` and a blank are `_`, and it ends
/// before `[` and NUL.
#[derive(Debug, Default)]
struct Name {
    matched: usize,
    /// It is another one, whatever follows.
    other: bool,
    ended: bool,
}

impl Name {
    fn push(&mut self, byte: u8, wanted: &[u8]) {
        let byte = match byte {
            _ if self.other || self.ended => return,
            b' ' if self.matched == 0 => return,
            0 | b'[' => {
                self.ended = true;
                return;
            }
            b' ' | b'.' => b'_',
            byte => byte,
        };
        match wanted.get(self.matched) {
            Some(next) if next.eq_ignore_ascii_case(&byte) => self.matched += 1,
            _ => self.other = true,
        }
    }

    fn is(&self, wanted: &[u8]) -> bool {
        !self.other && self.matched == wanted.len()
    }
}

/// A pair of a query or form while it is read, byte by byte.
#[derive(Debug, Default)]
struct Pair {
    name: Name,
    in_value: bool,
    /// Decoded, where the name is the one that is looked for.
    value: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Clone, Copy, Default)]
enum Escape {
    #[default]
    None,
    Begun,
    High(u32),
}

impl Pair {
    /// The next byte of the same pair.
    fn feed(&mut self, raw: u8, wanted: &[u8]) {
        let digit = char::from(raw).to_digit(16);
        let byte = match (self.escape, digit) {
            (Escape::None, _) => match raw {
                b'%' => {
                    self.escape = Escape::Begun;
                    return;
                }
                b'=' if !self.in_value => {
                    self.in_value = true;
                    return;
                }
                b'+' => b' ',
                raw => raw,
            },
            (Escape::Begun, Some(high)) => {
                self.escape = Escape::High(high);
                return;
            }
            (Escape::High(high), Some(low)) => {
                self.escape = Escape::None;
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            // No escape: a `%` that stands for itself, which is in no name or method.
            (Escape::Begun | Escape::High(_), None) => {
                self.escape = Escape::None;
                b'%'
            }
        };
        if !self.in_value {
            self.name.push(byte, wanted);
        } else if self.value.len() <= MAX_METHOD {
            self.value.push(byte);
        }
    }

    /// The method that it names, if that could be one.
    fn method(&self) -> Option<Method> {
        let value = self.value.to_ascii_uppercase();
        (value.len() <= MAX_METHOD).then(|| Method::from_bytes(&value).ok()).flatten()
    }

    /// Whether a pair that ends in this piece of a form, or whose name does, is the one that is looked for.
    fn is_in(&mut self, piece: &[u8], wanted: &[u8]) -> bool {
        let is_end = |byte: &u8| matches!(byte, b'&' | b';');
        let mut rest = piece;
        loop {
            if self.name.other {
                let Some(end) = rest.iter().position(is_end) else { return false };
                rest = &rest[end..];
            }
            let Some((byte, more)) = rest.split_first() else { return false };
            rest = more;
            if is_end(byte) {
                *self = Self::default();
                continue;
            }
            self.feed(*byte, wanted);
            if self.in_value && self.name.is(wanted) {
                return true;
            }
            if self.in_value {
                self.name.other = true;
            }
        }
    }
}

/// The heads of parts while a multipart body is read. Whatever stands at the beginning of a line is taken for one, also
/// in a file: parsers do not agree about where a part begins, and no file has such a line by chance.
#[derive(Debug, Default)]
struct Parts {
    /// A line with the name of a field, as far as it was read, in lower case.
    line: Vec<u8>,
    /// The line is another one.
    other: bool,
    /// Line ends since: two of a kind are an empty line.
    returns: u8,
    feeds: u8,
}

impl Parts {
    fn have(&mut self, piece: &[u8], wanted: &[u8]) -> bool {
        let mut rest = piece;
        loop {
            if self.other {
                let Some(end) = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return false };
                rest = &rest[end..];
                self.other = false;
            }
            let Some((byte, more)) = rest.split_first() else { return false };
            rest = more;
            let ended = self.returns > 0 || self.feeds > 0;
            match byte {
                b'\r' | b'\n' => {
                    let ends = if *byte == b'\n' { &mut self.feeds } else { &mut self.returns };
                    *ends = ends.saturating_add(1);
                    if (self.returns > 1 || self.feeds > 1) && self.end_line(wanted) {
                        return true;
                    }
                    continue;
                }
                // A line that goes on in the next one, and blanks before a line.
                b' ' | b'\t' if ended && !self.line.is_empty() => {}
                b' ' | b'\t' if self.line.is_empty() => continue,
                _ if ended && self.end_line(wanted) => return true,
                _ => {}
            }
            (self.returns, self.feeds) = (0, 0);
            self.line.push(byte.to_ascii_lowercase());
            let begun = self.line.len().min(DISPOSITION.len());
            if self.line[..begun] != DISPOSITION[..begun] {
                self.line.clear();
                self.other = true;
            } else if self.line.len() > MAX_LINE {
                // Nobody has such a name for a file, and what follows could be anything.
                return true;
            }
        }
    }

    /// Whether the line that ends here names the field.
    fn end_line(&mut self, wanted: &[u8]) -> bool {
        let named = names(&self.line, wanted);
        self.line.clear();
        named
    }
}

/// Whether a line of a part's head names a field. Quotes, blanks and backslashes are read past: parsers do not agree about
/// them, and no name of a field has them.
fn names(line: &[u8], wanted: &[u8]) -> bool {
    let plain: Vec<u8> = line.iter().copied().filter(|byte| !b"\"'\\ \t".contains(byte)).collect();
    plain.split(|byte| matches!(byte, b';' | b':' | b',')).any(|parameter| {
        let Some(at) = parameter.iter().position(|byte| *byte == b'=') else { return false };
        let (key, value) = (&parameter[..at], decoded(&parameter[at + 1..]));
        let mut name = Name::default();
        for byte in &value {
            name.push(*byte, wanted);
        }
        // RFC 8187 puts a character set and a language in front of it, whose quotes are gone.
        let extended = || value.ends_with(&wanted.to_ascii_lowercase());
        key == b"name" && name.is(wanted) || key == b"name*" && extended()
    })
}

/// Without its escapes, in lower case as the line is.
fn decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, more)) = rest.split_first() {
        let digits = more.get(..2).filter(|_| *byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte.to_ascii_lowercase());
                rest = &more[2..];
            }
            None => {
                out.push(*byte);
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
#[path = "method_tests.rs"]
mod tests;
