//! Readings that an application may choose beside the one that the type of a body asks for.

use super::Transaction;
use crate::body::{Finding, form, json};
use crate::rule::Processor;
use crate::store::{List, Span};

impl Transaction {
    /// Reads a text or a form in the other ways; `span` is where the body lies.
    pub(super) fn read_otherwise(&mut self, body: &[u8], span: Span) {
        match self.processor {
            Some(Processor::UrlEncoded) => self.read_semicolons(body),
            None if self.content_type.is_none() => self.read_semicolons(body),
            None => {
                let mut out = self.output();
                let name = out.store.push(b"text");
                let limit = out.limits.value;
                if body.len() > limit {
                    out.find(Finding::ValueTooLong { limit });
                }
                out.argument(List::ArgsPost, name, span.slice(0, body.len().min(limit)));
            }
            Some(_) => return,
        }
        let wide = body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff");
        if wide || body.iter().take(4).any(|byte| *byte == 0) {
            // Readers of JSON tell UTF-16 and UTF-32 by the first bytes (RFC 4627 §3).
            self.output().find(Finding::NotUtf8);
        } else {
            self.read_as_json(body);
        }
    }

    /// Some parsers of forms take `;` for `&`.
    fn read_semicolons(&mut self, body: &[u8]) {
        let mut out = self.output();
        out.limits.separator = b';';
        for pair in body.split(|byte| *byte == b'&') {
            if memchr::memchr(b';', pair).is_some() {
                form::read(pair, List::ArgsPost, &mut out);
            }
        }
    }

    /// What looks like JSON is read as JSON. What is no JSON is text, and nothing is wrong with that.
    pub(super) fn read_as_json(&mut self, body: &[u8]) {
        let mut out = self.output();
        let mut reader = json::Guess::new(&out);
        reader.feed(body, &mut out);
        reader.finish(&mut out);
    }
}
