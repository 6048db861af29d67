//! gRPC: how its requests are known, how they are refused, and where its messages end.
//!
//! Guide section 21. gRPC passes on routes that say `grpc = true`, over HTTP/2 on both sides, and is never buffered.
//! Sources: "gRPC over HTTP2" (`PROTOCOL-HTTP2.md`), "gRPC status codes" (`statuscodes.md`).

use std::fmt::Write as _;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::body::ResponseBody;
use crate::refusal::Code;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a content type of these is gRPC's. `application/grpc-web` is another protocol, which is plain HTTP.
pub(crate) fn is_claimed(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| is_type(value.as_bytes()))
}

fn is_type(value: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    let Some((name, rest)) = value.split_at_checked(NAME.len()) else { return false };
    name.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// The number of gRPC's status for a refusal. What clients make of an HTTP status by themselves is coarser.
const fn number(status: StatusCode) -> u8 {
    match status.as_u16() {
        // INVALID_ARGUMENT
        400 | 414 | 417 | 422 | 431 => 3,
        // DEADLINE_EXCEEDED
        408 | 504 => 4,
        // PERMISSION_DENIED
        403 => 7,
        // RESOURCE_EXHAUSTED
        413 | 429 => 8,
        // UNIMPLEMENTED
        404 | 405 | 415 | 421 | 501 => 12,
        // INTERNAL
        500 => 13,
        // UNAVAILABLE
        502 | 503 => 14,
        // UNAUTHENTICATED
        401 => 16,
        // UNKNOWN
        _ => 2,
    }
}

/// A refusal as fields of an answer or its trailers: `grpc-status`, and the code with its sentence.
pub(crate) fn fields(code: &Code, status: StatusCode, headers: &mut HeaderMap) {
    headers.insert(STATUS, HeaderValue::from(u16::from(number(status))));
    let text = format!("{}: {}", code.name, code.sentence);
    let mut message = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            _ => drop(write!(message, "%{byte:02X}")),
        }
    }
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(MESSAGE, message);
    }
}

/// A refusal as an answer: 200 with trailers only, as gRPC has it.
pub(crate) fn answer(code: &Code, status: StatusCode) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::empty());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields(code, status, answer.headers_mut());
    answer
}

/// Where the messages of a stream begin and end: each has a byte of flags and its length before it.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// What is there of the next prefix.
    prefix: [u8; 5],
    filled: usize,
    /// What is missing of the message.
    left: u64,
}

impl Messages {
    /// Follows the next piece; the length of the first message that is longer than `most`.
    pub(crate) fn feed(&mut self, mut piece: &[u8], most: u64) -> Option<u64> {
        while !piece.is_empty() {
            let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
            self.left -= skip as u64;
            piece = piece.get(skip..).unwrap_or_default();
            let Some((byte, rest)) = piece.split_first() else { break };
            piece = rest;
            if let Some(place) = self.prefix.get_mut(self.filled) {
                *place = *byte;
            }
            self.filled += 1;
            if self.filled == self.prefix.len() {
                let [_, length @ ..] = self.prefix;
                self.filled = 0;
                self.left = u64::from(u32::from_be_bytes(length));
                if self.left > most {
                    return Some(self.left);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_grpc() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC+json", true),
            ("application/grpc; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_type(value.as_bytes()), expected, "{value}");
        }
        let mut two = HeaderMap::new();
        two.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        assert!(!is_claimed(&two));
        two.append(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        assert!(is_claimed(&two), "the second counts too");
    }

    #[test]
    fn a_refusal_is_a_status_and_a_message() {
        static CODE: Code = Code::client("a.b", StatusCode::TOO_MANY_REQUESTS, 8, "100 % of \u{e4}");
        let answer = answer(&CODE, CODE.status);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "8");
        assert_eq!(answer.headers()["grpc-message"], "a.b: 100 %25 of %C3%A4");
    }

    fn message(length: u32) -> Vec<u8> {
        [&[0][..], &length.to_be_bytes(), &vec![7; length as usize]].concat()
    }

    #[test]
    fn the_first_message_that_is_too_long_is_seen() {
        let stream = [message(0), message(10), message(3), message(11), message(12)].concat();
        for size in [1, 2, 3, 5, 7, 1000] {
            let seen = |most| {
                let mut messages = Messages::default();
                stream.chunks(size).find_map(|piece| messages.feed(piece, most))
            };
            assert_eq!((seen(9), seen(10), seen(11), seen(12)), (Some(10), Some(11), Some(12), None), "by {size}");
        }
        assert_eq!(Messages::default().feed(&[0, 0xff, 0xff, 0xff, 0xff], 1 << 20), Some(u64::from(u32::MAX)));
    }
}
