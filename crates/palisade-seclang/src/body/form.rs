//! `application/x-www-form-urlencoded`, in bodies and in query strings.

use super::{Finding, Output};
use crate::store::{List, Span};
use crate::text::hex2;

/// Reads `name=value&…` into arguments.
pub(crate) fn read(input: &[u8], list: List, out: &mut Output<'_>) {
    if input.is_empty() {
        return;
    }
    let separator = out.limits.separator;
    for pair in input.split(|b| *b == separator) {
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        if name.is_empty() && value.is_empty() && pair.is_empty() {
            continue;
        }
        let name = decoded(name, list, out);
        if list == List::ArgsPost && out.store.own(name).eq_ignore_ascii_case(b"_charset_") {
            out.find(Finding::FormCharset);
        }
        let value = decoded(value, list, out);
        if !out.argument(list, name, value) {
            return;
        }
    }
}

/// Decodes into the store; an invalid escape stays as it is.
fn decoded(input: &[u8], list: List, out: &mut Output<'_>) -> Span {
    let limit = out.limits.value;
    let mut too_long = false;
    let mut bad_escape = false;
    let bytes = &mut out.store.bytes;
    let start = bytes.len();
    let mut rest = input;
    while let Some(at) = memchr::memchr2(b'%', b'+', rest) {
        bytes.extend_from_slice(&rest[..at]);
        if rest[at] == b'+' {
            bytes.push(b' ');
            rest = &rest[at + 1..];
        } else if let Some(byte) = hex2(rest, at + 1) {
            bytes.push(byte);
            rest = &rest[at + 3..];
        } else {
            bytes.push(b'%');
            bad_escape = true;
            rest = &rest[at + 1..];
        }
    }
    bytes.extend_from_slice(rest);
    if bytes.len() - start > limit {
        bytes.truncate(start + limit);
        too_long = true;
    }
    let span = out.store.since(start);
    if bad_escape && list == List::ArgsPost {
        out.find(Finding::FormEscape);
    }
    if too_long {
        out.find(Finding::ValueTooLong { limit });
    }
    span
}
