//! The token in a form: field `csrf_token`, URL-encoded or multipart.
//!
//! The beginning of the body is kept until the token was found; what does not have it there is refused. Reading is
//! lenient on purpose: a token cannot be guessed, so wherever it stands, whoever wrote the form has read it from an own
//! page. Nothing else is decided by what is read here.

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use super::token::LENGTH;

/// How far into a body the field is looked for, in bytes.
pub(super) const WITHIN: usize = 64 << 10;
const NAME: &[u8] = b"csrf_token";

/// How a form is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/x-www-form-urlencoded`.
    Urlencoded,
    /// `multipart/form-data`.
    Multipart,
}

impl Form {
    /// The kind of form that a request carries; none where it is no form.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/x-www-form-urlencoded" => Some(Self::Urlencoded),
            "multipart/form-data" => Some(Self::Multipart),
            _ => None,
        }
    }

    /// The token in what there is of a body so far, if all of it is there. `whole`: nothing follows.
    pub(super) fn token(self, body: &[u8], whole: bool) -> Option<&[u8]> {
        match self {
            Self::Urlencoded => urlencoded(body, whole),
            Self::Multipart => multipart(body, whole),
        }
    }
}

/// Tokens have no character that would be escaped, and names of fields are written as they are.
fn urlencoded(body: &[u8], whole: bool) -> Option<&[u8]> {
    let mut pairs = body.split(|b| *b == b'&').peekable();
    while let Some(pair) = pairs.next() {
        if let Some(value) = pair.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(b"=")) {
            return (whole || pairs.peek().is_some() || value.len() > LENGTH).then_some(value);
        }
    }
    None
}

fn multipart(body: &[u8], whole: bool) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        let at = find(rest, b"name=")?;
        let named = &rest[at + 5..];
        let quoted = named.strip_prefix(b"\"");
        let value = quoted.unwrap_or(named);
        rest = named;
        let Some(behind) = value.strip_prefix(NAME) else { continue };
        let behind = if quoted.is_some() { behind.strip_prefix(b"\"") } else { Some(behind) };
        // `filename="csrf_token"` ends in `name=` too; the head of the part ends with an empty line.
        let (Some(behind), false) = (behind, body[..body.len() - rest.len() - 5].ends_with(b"file")) else { continue };
        let head = find(behind, b"\r\n\r\n").filter(|head| *head < 1024)?;
        let value = &behind[head + 4..];
        let end = find(value, b"\r\n");
        return match end {
            Some(end) => value.get(..end),
            // Behind a token of this length may stand half of a line end.
            None => (whole || value.len() > LENGTH + 1).then_some(value),
        };
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE";

    fn part(disposition: &str, value: &str) -> String {
        format!("--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
    }

    #[test]
    fn the_field_is_found_wherever_it_stands() {
        for body in [
            format!("csrf_token={TOKEN}"),
            format!("csrf_token={TOKEN}&a=1"),
            format!("a=1&csrf_token={TOKEN}&b=csrf_token=x"),
        ] {
            assert_eq!(Form::Urlencoded.token(body.as_bytes(), true), Some(TOKEN.as_bytes()), "{body}");
        }
        for body in ["", "a=1", "xcsrf_token=a", "csrf_token", "csrf_tokens=1", "a=csrf_token=1"] {
            assert_eq!(Form::Urlencoded.token(body.as_bytes(), true), None, "{body}");
        }
        let field = part("name=\"csrf_token\"", TOKEN);
        for body in [
            format!("{field}--b--\r\n"),
            format!("{}{field}--b--\r\n", part("name=\"a\"", "1")),
            format!("{}{field}--b--\r\n", part("name=\"f\"; filename=\"csrf_token\"", "data\r\n\r\nmore")),
            format!("{}--b--\r\n", part("name=csrf_token", TOKEN)),
        ] {
            assert_eq!(Form::Multipart.token(body.as_bytes(), true), Some(TOKEN.as_bytes()), "{body}");
        }
        for body in [
            String::new(),
            part("name=\"a\"", TOKEN),
            part("name=\"csrf_token2\"", TOKEN),
            part("name=\"f\"; filename=\"csrf_token\"", TOKEN),
            "name=\"csrf_token\"".to_owned(),
        ] {
            assert_eq!(Form::Multipart.token(body.as_bytes(), true), None, "{body}");
        }
    }

    #[test]
    fn half_a_token_is_waited_for() {
        let form = format!("a=1&csrf_token={TOKEN}&b=2");
        let parts = format!("{}{}--b--\r\n", part("name=\"a\"", "1"), part("name=\"csrf_token\"", TOKEN));
        for (kind, body) in [(Form::Urlencoded, form), (Form::Multipart, parts)] {
            for cut in 0..body.len() {
                let found = kind.token(&body.as_bytes()[..cut], false);
                assert!(found.is_none_or(|token| token == TOKEN.as_bytes()), "{kind:?} at {cut}");
            }
            assert_eq!(kind.token(body.as_bytes(), false), Some(TOKEN.as_bytes()), "{kind:?}");
        }
    }

    #[test]
    fn kinds_of_forms() {
        let of = |kind: &'static str| {
            Form::of(&HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(kind))]))
        };
        assert_eq!(of("application/x-www-form-urlencoded; charset=utf-8"), Some(Form::Urlencoded));
        assert_eq!(of("Multipart/Form-Data; boundary=b"), Some(Form::Multipart));
        assert_eq!((of("application/json"), of("text/plain"), Form::of(&HeaderMap::new())), (None, None, None));
    }
}
