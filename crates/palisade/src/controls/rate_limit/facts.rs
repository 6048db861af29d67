//! How a client stands, as the answer says it.

use http::HeaderValue;

use super::NANOS;
use super::gcra::Outcome;

/// How much is left to a client: of the limit that has least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub(super) limit: u8,
    /// Units left.
    pub left: u64,
    /// Nanoseconds until there is one more.
    pub wait: u64,
}

impl Facts {
    pub(super) fn new(limit: u8, outcome: Outcome) -> Self {
        // Of a refused request with a cost of more than one there may be units left, but not for it.
        let left = if outcome.store.is_some() { outcome.left } else { 0 };
        Self { limit, left, wait: outcome.wait }
    }

    /// `"5/minute";r=4;t=12`, written without formatting: it is on every answer.
    pub(super) fn header(&self, head: &str) -> HeaderValue {
        // Two numbers of up to twenty digits, and what is between; names of headers may be long.
        let mut text = [0u8; 192];
        let mut end = 0;
        let mut put = |bytes: &[u8]| match text.get_mut(end..end + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                end += bytes.len();
                true
            }
            None => false,
        };
        let fits = put(head.as_bytes())
            && put(Digits::of(self.left).as_bytes())
            && put(b";t=")
            && put(Digits::of(self.wait.div_ceil(NANOS)).as_bytes());
        let value = match fits {
            true => HeaderValue::from_bytes(&text[..end]),
            false => HeaderValue::try_from(format!("{head}{};t={}", self.left, self.wait.div_ceil(NANOS))),
        };
        let mut value = value.unwrap_or(HeaderValue::from_static(""));
        // Seldom the same twice: in the table of HTTP/2's compression it would push out what is (RFC 7541 §7.1.3).
        value.set_sensitive(true);
        value
    }
}

/// A number as text, on the stack.
struct Digits {
    text: [u8; 20],
    start: usize,
}

impl Digits {
    fn of(mut number: u64) -> Self {
        let mut digits = Self { text: [b'0'; 20], start: 20 };
        loop {
            digits.start -= 1;
            digits.text[digits.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}
