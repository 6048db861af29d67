//! XML: the text of the document and the values of its attributes.
//!
//! No document type, no entity beyond the five predefined ones and numbers: nothing is ever looked up or expanded.

use super::{Finding, Output};
use crate::store::List;

/// Reads a document. What is not well-formed ends the reading with a finding.
pub(crate) fn read(input: &[u8], out: &mut Output<'_>) {
    let body = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
    if std::str::from_utf8(body).is_err() {
        out.find(Finding::NotUtf8);
    }
    let mut text = Vec::new();
    if let Err(stop) = document(body, &mut text, out) {
        out.find(match stop {
            Stop::Syntax(rest) => Finding::XmlSyntax { at: input.len().saturating_sub(rest) },
            Stop::Doctype => Finding::XmlDoctype,
            Stop::Entity => Finding::XmlEntity,
            Stop::Deep => Finding::TooDeep { limit: out.limits.depth },
        });
    }
    let value = out.value(&text);
    let name = out.store.push(b"");
    out.store.add(List::XmlText, name, value);
}

enum Stop {
    /// How many bytes were left.
    Syntax(usize),
    Doctype,
    Entity,
    Deep,
}

fn document(mut rest: &[u8], text: &mut Vec<u8>, out: &mut Output<'_>) -> Result<(), Stop> {
    let mut open: Vec<&[u8]> = Vec::new();
    let mut root_seen = false;
    let mut attributes = 0usize;
    loop {
        let Some(at) = memchr::memchr(b'<', rest) else {
            let good = open.is_empty() && root_seen && rest.iter().all(u8::is_ascii_whitespace);
            if !open.is_empty() {
                decode(rest, text)?;
            }
            return if good { Ok(()) } else { Err(Stop::Syntax(rest.len())) };
        };
        let run = &rest[..at];
        if open.is_empty() {
            if !run.iter().all(u8::is_ascii_whitespace) {
                return Err(Stop::Syntax(rest.len()));
            }
        } else {
            decode(run, text)?;
        }
        rest = &rest[at..];
        let syntax = Stop::Syntax(rest.len());
        if let Some(after) = rest.strip_prefix(b"<!--") {
            let end = memchr::memmem::find(after, b"-->").ok_or(syntax)?;
            rest = &after[end + 3..];
        } else if let Some(after) = rest.strip_prefix(b"<![CDATA[") {
            let end = memchr::memmem::find(after, b"]]>").ok_or(syntax)?;
            if open.is_empty() {
                return Err(Stop::Syntax(rest.len()));
            }
            text.extend_from_slice(&after[..end]);
            rest = &after[end + 3..];
        } else if rest.starts_with(b"<!") {
            return Err(if rest.get(2..9).is_some_and(|w| w.eq_ignore_ascii_case(b"DOCTYPE")) {
                Stop::Doctype
            } else {
                syntax
            });
        } else if let Some(after) = rest.strip_prefix(b"<?") {
            let end = memchr::memmem::find(after, b"?>").ok_or(syntax)?;
            if after.starts_with(b"xml") {
                out.charsets(&after[..end].to_ascii_lowercase(), b"encoding");
            }
            rest = &after[end + 2..];
        } else if let Some(after) = rest.strip_prefix(b"</") {
            let end = memchr::memchr(b'>', after).ok_or(Stop::Syntax(rest.len()))?;
            if open.pop() != Some(after[..end].trim_ascii_end()) {
                return Err(syntax);
            }
            rest = &after[end + 1..];
        } else {
            if open.is_empty() && root_seen {
                return Err(syntax);
            }
            root_seen = true;
            let after = &rest[1..];
            let end = after
                .iter()
                .position(|b| b.is_ascii_whitespace() || matches!(b, b'/' | b'>'))
                .ok_or(Stop::Syntax(rest.len()))?;
            let name = &after[..end];
            if name.is_empty() {
                return Err(syntax);
            }
            let mut tail = after[end..].trim_ascii_start();
            let empty = loop {
                if let Some(next) = tail.strip_prefix(b"/>") {
                    tail = next;
                    break true;
                }
                if let Some(next) = tail.strip_prefix(b">") {
                    tail = next;
                    break false;
                }
                let broken = Stop::Syntax(tail.len());
                let equals =
                    tail.iter().position(|b| matches!(b, b'=' | b'>' | b'<')).ok_or(Stop::Syntax(tail.len()))?;
                let key = tail[..equals].trim_ascii();
                let value = tail[equals..].strip_prefix(b"=").ok_or(Stop::Syntax(tail.len()))?.trim_ascii_start();
                let quote = *value.first().filter(|q| matches!(q, b'"' | b'\'')).ok_or(Stop::Syntax(tail.len()))?;
                let len = memchr::memchr(quote, &value[1..]).ok_or(broken)?;
                let raw = &value[1..1 + len];
                if memchr::memchr(b'<', raw).is_some() || key.is_empty() {
                    return Err(Stop::Syntax(tail.len()));
                }
                let mut decoded = Vec::new();
                decode(raw, &mut decoded)?;
                attributes += 1;
                if attributes > out.limits.arguments {
                    out.find(Finding::TooManyArguments { limit: out.limits.arguments });
                    return Ok(());
                }
                let key = out.store.push(key);
                let value_span = out.value(&decoded);
                out.store.add(List::XmlAttributes, key, value_span);
                tail = value[len + 2..].trim_ascii_start();
            };
            if !empty {
                if open.len() >= out.limits.depth {
                    return Err(Stop::Deep);
                }
                open.push(name);
            }
            rest = tail;
        }
    }
}

/// Appends text with its entities decoded.
fn decode(raw: &[u8], out: &mut Vec<u8>) -> Result<(), Stop> {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'&', rest) {
        out.extend_from_slice(&rest[..at]);
        let after = &rest[at + 1..];
        let end = memchr::memchr(b';', after).filter(|e| *e <= 10).ok_or(Stop::Entity)?;
        let byte = match &after[..end] {
            b"lt" => '<',
            b"gt" => '>',
            b"amp" => '&',
            b"quot" => '"',
            b"apos" => '\'',
            number => number
                .strip_prefix(b"#")
                .and_then(|n| std::str::from_utf8(n).ok())
                .and_then(|n| match n.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok(),
                    None => n.parse().ok(),
                })
                .and_then(char::from_u32)
                .ok_or(Stop::Entity)?,
        };
        let mut buffer = [0; 4];
        out.extend_from_slice(byte.encode_utf8(&mut buffer).as_bytes());
        rest = &after[end + 1..];
    }
    out.extend_from_slice(rest);
    Ok(())
}
