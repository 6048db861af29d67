//! `when`: a condition of a route over the request and its caller.
//!
//! Guide section 1, threats 6 and 10: "this object is mine" said at the gateway. Compiled when the policy is read, with the
//! names of the route's own path; judged behind everything else that the route asks for. Whatever cannot be decided
//! refuses.

use std::borrow::Cow;

use palisade_cel::{Activation, Environment, Expression, Found, List, Members, Refused, Type, Value};
use palisade_policy::Problems;

use super::caller::Caller;
use super::codes;
use crate::context::Context;
use crate::policy::values::PathPattern;
use crate::refusal::Refusal;

/// A route's condition.
#[derive(Debug)]
pub struct When {
    expression: Expression,
    /// The named segments of the path, in order.
    segments: Vec<Box<str>>,
}

/// What a condition may ask about, besides the segments of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Query,
    Method,
    Host,
    Address,
    Now,
    Id,
    AppId,
    CalledAs,
    Email,
    Roles,
    Permissions,
    Claims,
    Scopes,
}

/// In the order of the documentation.
const NAMES: [(&str, Type, Name); 13] = [
    ("query", Type::Members, Name::Query),
    ("method", Type::Text, Name::Method),
    ("host", Type::Text, Name::Host),
    ("address", Type::Text, Name::Address),
    ("now", Type::Time, Name::Now),
    ("user.id", Type::Text, Name::Id),
    ("user.app_id", Type::Text, Name::AppId),
    ("user.name", Type::Text, Name::CalledAs),
    ("user.email", Type::Text, Name::Email),
    ("user.roles", Type::Texts, Name::Roles),
    ("user.permissions", Type::Texts, Name::Permissions),
    ("user.claims", Type::Claims, Name::Claims),
    ("token.scopes", Type::Texts, Name::Scopes),
];

/// The key of the first segment.
const SEGMENTS: u16 = 1000;

impl When {
    /// Reads a condition; `at` is its key in the policy.
    pub(crate) fn compile(text: &str, pattern: &PathPattern, at: &str, problems: &mut Problems) -> Option<Self> {
        let mut segments: Vec<Box<str>> = pattern.segment_names().map(Into::into).collect();
        segments.truncate(64);
        let mut names = Environment::new();
        for (segment, key) in segments.iter().zip(SEGMENTS..) {
            names = names.with(format!("path.{segment}"), Type::Text, key);
        }
        for ((name, kind, _), key) in NAMES.iter().zip(0..) {
            names = names.with(*name, *kind, key);
        }
        match Expression::compile(text, &names) {
            Ok(expression) => {
                for warning in expression.warnings() {
                    let piece = warning.at.offset..warning.at.offset + warning.at.len;
                    problems.warn_within(at, piece, &warning.message, &warning.fix);
                }
                Some(Self { expression, segments })
            }
            Err(wrong) => {
                for problem in wrong {
                    let piece = problem.at.offset..problem.at.offset + problem.at.len;
                    problems.error_within(at, piece, &problem.message, &problem.fix);
                }
                None
            }
        }
    }

    /// Judges a request of a caller.
    ///
    /// # Errors
    /// [`codes::FORBIDDEN`]: the condition is not true.
    pub(crate) fn judge(&self, ctx: &Context, caller: &Caller) -> Result<(), Refusal> {
        let asked = Asked {
            ctx,
            caller,
            segments: &self.segments,
            query: Query(ctx.target.query().unwrap_or_default()),
            scopes: caller.scopes(),
            claims: caller.claims().map(Claims),
        };
        match self.expression.passes(&asked) {
            Ok(()) => Ok(()),
            Err(Refused::False) => Err(codes::FORBIDDEN.refuse("the route's `when` is false")),
            Err(Refused::Error(error)) => {
                // Both are the policy's own text.
                let part = error.at.of(self.expression.text()).to_owned();
                let refusal = codes::FORBIDDEN.refuse("the route's `when` could not be decided");
                Err(refusal.with("reason", error.why.to_string()).with("part", part))
            }
        }
    }
}

/// A request as its condition sees it.
struct Asked<'a> {
    ctx: &'a Context,
    caller: &'a Caller,
    segments: &'a [Box<str>],
    query: Query<'a>,
    scopes: Option<&'a [String]>,
    claims: Option<Claims<'a>>,
}

impl Asked<'_> {
    fn segment(&self, place: usize) -> Found<'_> {
        let Some(name) = self.segments.get(place) else { return Found::Missing };
        match self.ctx.rule().path().value(self.ctx.path(), name) {
            None | Some("") => Found::Missing,
            // As the application reads it.
            Some(value) => {
                decoded(value, false).map_or(Found::Value(Value::Other), |value| Found::Value(Value::text(value)))
            }
        }
    }
}

impl Activation for Asked<'_> {
    fn value(&self, key: u16) -> Found<'_> {
        if let Some(place) = key.checked_sub(SEGMENTS) {
            return self.segment(usize::from(place));
        }
        let Some((_, _, name)) = NAMES.get(usize::from(key)) else { return Found::Missing };
        let account = self.caller.account();
        match name {
            Name::Query => Some(Value::Members(&self.query)),
            // Threats 8: HEAD is judged as GET.
            Name::Method if self.ctx.method == http::Method::HEAD => Some(Value::text("GET")),
            Name::Method => Some(Value::text(self.ctx.method.as_str())),
            Name::Host => Some(Value::text(self.ctx.host())),
            Name::Address => Some(Value::text(&**self.ctx.client_text())),
            Name::Now => Some(Value::Time(self.ctx.policy.clock().now())),
            Name::Id => account.map(|account| Value::text(account.id.to_string())),
            Name::AppId => account.and_then(|account| account.app_id.as_deref()).map(Value::text),
            Name::CalledAs => account.map(|account| Value::text(account.name.as_str())),
            // Threats 20: what anybody can claim proves nothing.
            Name::Email => account.and_then(|account| account.verified_email()).map(Value::text),
            Name::Roles => account.map(|account| Value::texts(&account.roles)),
            Name::Permissions => account.map(|account| Value::texts(&account.permissions)),
            // Accounts have none; they come with tokens of other issuers.
            Name::Claims => self.claims.as_ref().map(|claims| Value::Members(claims)),
            Name::Scopes => self.scopes.as_ref().map(|scopes| Value::texts(scopes)),
        }
        .into()
    }
}

/// The claims of a token of another issuer.
#[derive(Debug)]
struct Claims<'c>(&'c serde_json::Map<String, serde_json::Value>);

impl Members for Claims<'_> {
    fn member(&self, name: &str) -> Found<'_> {
        match self.0.get(name) {
            None => Found::Missing,
            Some(serde_json::Value::String(text)) => Found::Value(Value::text(text.as_str())),
            // A list of anything but texts is no list of texts: what is asked about it refuses.
            Some(serde_json::Value::Array(items)) if items.iter().all(serde_json::Value::is_string) => {
                let texts = items.iter().filter_map(serde_json::Value::as_str).map(Value::text);
                Found::Value(Value::List(List::Written(texts.collect())))
            }
            Some(_) => Found::Value(Value::Other),
        }
    }
}

/// A query string, read when it is asked for.
#[derive(Debug)]
struct Query<'q>(&'q str);

impl Members for Query<'_> {
    fn member(&self, name: &str) -> Found<'_> {
        let pairs = self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        // Names are compared as they are read: another spelling of a name is that name.
        let mut values =
            pairs.filter(|(own, _)| decoded(own, true).is_some_and(|own| own == name)).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Found::Missing,
            (Some(value), None) => {
                decoded(value, true).map_or(Found::Value(Value::Other), |value| Found::Value(Value::text(value)))
            }
            (Some(_), Some(_)) => Found::Repeated,
        }
    }
}

/// Percent-decoded once, as applications do it; none where the bytes are no text. `form`: `+` is a blank.
fn decoded(text: &str, form: bool) -> Option<Cow<'_, str>> {
    if !(text.contains('%') || form && text.contains('+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let hex = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, hex(0).zip(hex(1))) {
            (b'%', Some((high, low))) => {
                out.push(u8::try_from(high * 16 + low).ok()?);
                rest = behind.get(2..)?;
            }
            (b'+', _) if form => {
                out.push(b' ');
                rest = behind;
            }
            (byte, _) => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_applications_read_it() {
        let query = Query("a=1&b=x%20y+z&c&d=%ff&%65=5&f=1&%66=2&g=%zz&h=a%3D%26b&&=x");
        let text = |name: &str| match query.member(name) {
            Found::Value(Value::Text(text)) => text.into_owned(),
            other => format!("{other:?}"),
        };
        for (name, expected) in [
            ("a", "1"),
            ("b", "x y z"),
            ("c", ""),
            ("d", "Value(Other)"),
            ("e", "5"),
            ("f", "Repeated"),
            ("g", "%zz"),
            ("h", "a=&b"),
            ("A", "Missing"),
            ("%65", "Missing"),
        ] {
            assert_eq!(text(name), expected, "{name}");
        }
    }
}
