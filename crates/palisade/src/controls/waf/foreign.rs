//! Bodies of types that rules do not read, where they are JSON all the same.
//!
//! Threat 25: a handler that calls `request.json()` (Starlette, aiohttp, Express with `type: "*/*"`) asks no type, so that
//! JSON called `image/png` would come past every rule. Whether a body is JSON shows with its first byte that is not white
//! space: one that is not streams at once, as everything of such types does.

use std::sync::Arc;

use http::header::CONTENT_ENCODING;
use http::{Method, request};

use super::{Beyond, INLINE, Inspection, Shared};
use crate::context::Context;
use crate::control::Inspect;
use crate::refusal::Refusal;

/// Feeds a body to the rules if it turns out to be JSON.
#[derive(Debug)]
pub(super) struct Reader {
    waf: Arc<Shared>,
    /// Absent once it is no JSON.
    inspection: Option<Box<Inspection>>,
    beyond: Beyond,
    holds: usize,
    /// Its first byte was seen.
    is_json: bool,
}

impl Reader {
    /// A reader for a body that was not held back for rules; the head was judged already. `None`: there is nothing to read.
    pub(super) fn new(waf: Arc<Shared>, ctx: &Context, parts: &request::Parts) -> Option<Self> {
        let may_read = ctx.has_body && ctx.method != Method::CONNECT && !ctx.grpc;
        // What is compressed does not begin like JSON, and whoever undoes that looks at headers.
        if !may_read || parts.headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        let of = waf.of(ctx);
        let mut inspection = waf.begin(ctx, parts);
        waf.evaluate(&mut inspection, |transaction| {
            transaction.request_headers();
            transaction.every_reading();
            transaction.force_request_body();
        });
        // What matched in the head is known.
        inspection.logged = inspection.transaction.matches().len();
        inspection.found = inspection.transaction.findings().len();
        let refused = inspection.transaction.verdict().is_some();
        (!refused).then_some(Self {
            waf,
            inspection: Some(inspection),
            beyond: of.beyond,
            holds: of.body_limit,
            is_json: false,
        })
    }
}

/// Whether text that begins so may be JSON with texts in it; `None`: nothing but white space so far.
fn begins_json(piece: &[u8]) -> Option<bool> {
    // A byte order mark, and the zeros between the letters of wide characters, count as white space: Python reads both.
    let white = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0 | 0xef | 0xbb | 0xbf | 0xfe | 0xff);
    let first = piece.iter().find(|byte| !white(byte))?;
    Some(matches!(first, b'{' | b'[' | b'"'))
}

impl Inspect for Reader {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let Some(inspection) = &mut self.inspection else { return Ok(()) };
        match begins_json(piece).filter(|_| !self.is_json) {
            Some(false) => {
                if let Some(inspection) = self.inspection.take() {
                    self.waf.give_back(inspection);
                }
                return Ok(());
            }
            Some(true) => self.is_json = true,
            None => {}
        }
        self.waf.feed(inspection, self.beyond, piece)
    }

    fn holds(&self) -> Option<usize> {
        Some(self.holds)
    }

    fn lets_go(&self) -> bool {
        self.inspection.is_none()
    }

    fn finish(&mut self, ctx: &Context) -> Result<(), Refusal> {
        let Some(mut inspection) = self.inspection.take() else { return Ok(()) };
        if !self.is_json {
            self.waf.give_back(inspection);
            return Ok(());
        }
        self.waf.evaluate(&mut inspection, |transaction| {
            transaction.request_body();
        });
        inspection.requested = true;
        let judged = self.waf.judge(ctx, &inspection, false);
        self.waf.end(ctx, inspection);
        judged
    }

    fn is_slow(&self) -> bool {
        self.inspection.as_ref().is_some_and(|inspection| inspection.body > INLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells() {
        for (piece, wanted) in [
            (&b"{}"[..], Some(true)),
            (b" \r\n[", Some(true)),
            (b"\"a\"", Some(true)),
            (b"\xef\xbb\xbf{", Some(true)),
            (b"\xff\xfe{\0", Some(true)),
            (b"\0\0\0[", Some(true)),
            (b" \t", None),
            (b"", None),
            (b"\x89PNG{", Some(false)),
            (b"PK\x03\x04", Some(false)),
            (b"%PDF-1.7", Some(false)),
            (b"17", Some(false)),
        ] {
            assert_eq!(begins_json(piece), wanted, "{}", piece.escape_ascii());
        }
    }
}
