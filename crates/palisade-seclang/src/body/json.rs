//! JSON, read as it arrives: every leaf becomes an argument named by its path, `json.rows.array_0.title`.
//!
//! Strict RFC 8259: what is not JSON ends the reading with a finding. Memory is the nesting (limited) and one value.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use super::{Finding, Output};
use crate::store::List;
use crate::text::push_number;

/// A push parser of one document.
#[derive(Debug)]
pub(crate) struct Reader {
    state: State,
    frames: Vec<Frame>,
    /// `json.a.b`: the path of the value that comes next.
    path: Vec<u8>,
    /// The string or the number that is being read.
    text: Vec<u8>,
    /// Bytes fed before the present chunk.
    offset: usize,
    hasher: RandomState,
    /// Hashes of the keys of all open objects.
    keys: Vec<u64>,
    /// Bytes of all names so far.
    names: usize,
}

/// Most bytes of all names together: every leaf repeats the keys above it, and one long key above many leaves would
/// make gigabytes of a small body.
const NAMES: usize = 4 << 20;

#[derive(Debug)]
struct Frame {
    array: bool,
    /// The number of the element that comes next.
    index: u32,
    /// Length of the path without what this frame adds.
    path: usize,
    /// Where this object's keys begin in `keys`.
    keys: usize,
    /// The same once there are many.
    many: Option<HashSet<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Bom(u8),
    /// A value must come.
    Value,
    /// After `[`: a value or `]`.
    FirstElement,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After `,` in an object.
    Key,
    Colon,
    /// After a value inside of something: `,` or the end.
    Next,
    String {
        key: bool,
    },
    Escape {
        key: bool,
    },
    Unicode {
        key: bool,
        digits: u8,
        value: u16,
        high: u16,
    },
    /// After a high surrogate: `\` of the low one.
    Low {
        key: bool,
        high: u16,
    },
    LowU {
        key: bool,
        high: u16,
    },
    Number,
    Literal,
    End,
    Broken,
}

impl Reader {
    pub(crate) fn new() -> Reader {
        Reader {
            state: State::Start,
            frames: Vec::new(),
            path: b"json".to_vec(),
            text: Vec::new(),
            offset: 0,
            hasher: RandomState::new(),
            keys: Vec::new(),
            names: 0,
        }
    }

    pub(crate) fn feed(&mut self, chunk: &[u8], out: &mut Output<'_>) {
        let mut i = 0;
        while let Some(&b) = chunk.get(i) {
            match self.state {
                State::Broken => return,
                // The hot loop: everything up to the next quote or backslash at once.
                State::String { key } => {
                    let rest = &chunk[i..];
                    let run = rest.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20).unwrap_or(rest.len());
                    self.take(&rest[..run], out);
                    i += run;
                    match chunk.get(i) {
                        None => {}
                        Some(b'"') => {
                            i += 1;
                            self.string_end(key, out);
                        }
                        Some(b'\\') => {
                            i += 1;
                            self.state = State::Escape { key };
                        }
                        Some(_) => self.broken(i, out),
                    }
                    continue;
                }
                State::Number => {
                    if matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') && self.text.len() < out.limits.value
                    {
                        self.text.push(b);
                        i += 1;
                    } else if is_number(&self.text) {
                        self.leaf(out);
                        self.state = self.after();
                    } else {
                        self.broken(i, out);
                    }
                    continue;
                }
                State::Literal => {
                    if b.is_ascii_alphabetic() && self.text.len() < 6 {
                        self.text.push(b);
                        i += 1;
                    } else {
                        self.literal(i, out);
                    }
                    continue;
                }
                _ => self.step(b, i, out),
            }
            i += 1;
        }
        self.offset += chunk.len();
    }

    pub(crate) fn finish(mut self, out: &mut Output<'_>) {
        match self.state {
            State::Number if is_number(&self.text) => {
                self.leaf(out);
                self.state = self.after();
            }
            State::Literal => self.literal(0, out),
            _ => {}
        }
        if !matches!(self.state, State::End | State::Broken) {
            self.broken(0, out);
        }
    }

    fn step(&mut self, b: u8, i: usize, out: &mut Output<'_>) {
        let white = matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match self.state {
            State::Start if b == 0xef => State::Bom(1),
            State::Bom(1) if b == 0xbb => State::Bom(2),
            State::Bom(2) if b == 0xbf => {
                out.find(Finding::JsonBom);
                State::Value
            }
            state @ (State::Start
            | State::Value
            | State::FirstElement
            | State::FirstKey
            | State::Key
            | State::Colon
            | State::Next
            | State::End)
                if white =>
            {
                state
            }
            State::FirstElement if b == b']' => {
                self.close();
                self.after()
            }
            State::Start | State::Value | State::FirstElement => match b {
                b'{' | b'[' => {
                    if self.frames.len() >= out.limits.depth {
                        out.find(Finding::TooDeep { limit: out.limits.depth });
                        State::Broken
                    } else {
                        let array = b == b'[';
                        self.frames.push(Frame {
                            array,
                            index: 0,
                            path: self.path.len(),
                            keys: self.keys.len(),
                            many: None,
                        });
                        if array {
                            self.element();
                            State::FirstElement
                        } else {
                            State::FirstKey
                        }
                    }
                }
                b'"' => {
                    self.text.clear();
                    State::String { key: false }
                }
                b'-' | b'0'..=b'9' => {
                    self.text.clear();
                    self.text.push(b);
                    State::Number
                }
                b't' | b'f' | b'n' => {
                    self.text.clear();
                    self.text.push(b);
                    State::Literal
                }
                _ => return self.broken(i, out),
            },
            State::FirstKey if b == b'}' => {
                self.close();
                self.after()
            }
            State::FirstKey | State::Key if b == b'"' => {
                self.text.clear();
                State::String { key: true }
            }
            State::Colon if b == b':' => State::Value,
            State::Next => match (b, self.frames.last().map(|f| f.array)) {
                (b',', Some(true)) => {
                    self.element();
                    State::Value
                }
                (b',', Some(false)) => State::Key,
                (b']', Some(true)) | (b'}', Some(false)) => {
                    self.close();
                    self.after()
                }
                _ => return self.broken(i, out),
            },
            State::Escape { key } => {
                let character = match b {
                    b'"' | b'\\' | b'/' => b,
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'u' => {
                        self.state = State::Unicode { key, digits: 0, value: 0, high: 0 };
                        return;
                    }
                    _ => return self.broken(i, out),
                };
                self.take(&[character], out);
                State::String { key }
            }
            State::Unicode { key, digits, value, high } => {
                let Some(digit) = crate::text::hex(b) else { return self.broken(i, out) };
                let value = value << 4 | u16::from(digit);
                if digits < 3 {
                    State::Unicode { key, digits: digits + 1, value, high }
                } else {
                    self.unicode(key, value, high, out)
                }
            }
            State::Low { key, high } if b == b'\\' => State::LowU { key, high },
            State::LowU { key, high } if b == b'u' => State::Unicode { key, digits: 0, value: 0, high },
            State::Low { key, .. } => {
                self.lone(out);
                self.state = State::String { key };
                // The byte belongs to the string; a quote here ends it.
                return self.string_byte(b, key, i, out);
            }
            State::LowU { key, .. } => {
                self.lone(out);
                self.state = State::Escape { key };
                return self.step(b, i, out);
            }
            _ => return self.broken(i, out),
        };
    }

    fn string_byte(&mut self, b: u8, key: bool, i: usize, out: &mut Output<'_>) {
        match b {
            b'"' => self.string_end(key, out),
            b'\\' => self.state = State::Escape { key },
            b if b < 0x20 => self.broken(i, out),
            b => self.take(&[b], out),
        }
    }

    fn unicode(&mut self, key: bool, value: u16, high: u16, out: &mut Output<'_>) -> State {
        let low = (0xdc00..0xe000).contains(&value);
        if high != 0 {
            if low {
                let code = 0x10000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(value) - 0xdc00);
                self.character(code, out);
                return State::String { key };
            }
            self.lone(out);
        } else if low {
            self.lone(out);
            return State::String { key };
        }
        if (0xd800..0xdc00).contains(&value) {
            return State::Low { key, high: value };
        }
        self.character(u32::from(value), out);
        State::String { key }
    }

    fn character(&mut self, code: u32, out: &mut Output<'_>) {
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        let mut buffer = [0; 4];
        let encoded = c.encode_utf8(&mut buffer).as_bytes().to_vec();
        self.take(&encoded, out);
    }

    fn lone(&mut self, out: &mut Output<'_>) {
        out.find(Finding::JsonLoneSurrogate);
        self.take("\u{fffd}".as_bytes(), out);
    }

    /// Adds to the string, up to the limit of a value.
    fn take(&mut self, bytes: &[u8], out: &mut Output<'_>) {
        let room = out.limits.value.saturating_sub(self.text.len());
        if bytes.len() > room {
            out.find(Finding::ValueTooLong { limit: out.limits.value });
        }
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn string_end(&mut self, key: bool, out: &mut Output<'_>) {
        if std::str::from_utf8(&self.text).is_err() && self.text.len() < out.limits.value {
            out.find(Finding::NotUtf8);
        }
        if !key {
            self.leaf(out);
            self.state = self.after();
            return;
        }
        let hash = self.hasher.hash_one(&self.text);
        if let Some(frame) = self.frames.last_mut() {
            self.path.truncate(frame.path);
            self.path.push(b'.');
            // A path as long as the nesting times the longest key would let a small body grow.
            let room = out.limits.value.saturating_sub(self.path.len());
            self.path.extend_from_slice(&self.text[..self.text.len().min(room)]);
            if !frame.insert(hash, &mut self.keys) {
                out.find(Finding::JsonDuplicateKey {
                    name: String::from_utf8_lossy(&self.path).chars().take(200).collect(),
                });
            }
        }
        self.state = State::Colon;
    }

    fn literal(&mut self, i: usize, out: &mut Output<'_>) {
        match self.text.as_slice() {
            b"true" | b"false" => self.leaf(out),
            b"null" => {
                self.text.clear();
                self.leaf(out);
            }
            _ => return self.broken(i, out),
        }
        self.state = self.after();
    }

    /// Adds the argument whose value is in `text`.
    fn leaf(&mut self, out: &mut Output<'_>) {
        self.names += self.path.len();
        if self.names > NAMES {
            out.find(Finding::NamesTooLong { limit: NAMES });
            self.state = State::Broken;
            return;
        }
        let name = out.store.push(&self.path);
        let value = out.store.push(&self.text);
        if !out.argument(List::ArgsPost, name, value) {
            self.state = State::Broken;
        }
    }

    fn element(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            self.path.truncate(frame.path);
            self.path.extend_from_slice(b".array_");
            push_number(&mut self.path, i64::from(frame.index));
            frame.index += 1;
        }
    }

    fn close(&mut self) {
        if let Some(frame) = self.frames.pop() {
            self.path.truncate(frame.path);
            self.keys.truncate(frame.keys);
        }
    }

    fn after(&self) -> State {
        match self.state {
            State::Broken => State::Broken,
            _ if self.frames.is_empty() => State::End,
            _ => State::Next,
        }
    }

    fn broken(&mut self, i: usize, out: &mut Output<'_>) {
        out.find(Finding::JsonSyntax { at: self.offset + i });
        self.state = State::Broken;
    }
}

impl Frame {
    /// Remembers a key's hash; false when the object has it already.
    fn insert(&mut self, hash: u64, keys: &mut Vec<u64>) -> bool {
        if let Some(many) = &mut self.many {
            return many.insert(hash);
        }
        let own = keys.get(self.keys..).unwrap_or(&[]);
        if own.contains(&hash) {
            return false;
        }
        if own.len() >= 24 {
            let mut many: HashSet<u64> = own.iter().copied().collect();
            many.insert(hash);
            self.many = Some(many);
        } else {
            keys.push(hash);
        }
        true
    }
}

/// The grammar of RFC 8259 section 6.
fn is_number(text: &[u8]) -> bool {
    let digits = |t: &[u8]| t.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let n = digits(rest);
    if n == 0 || (n > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[n..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let n = digits(fraction);
        if n == 0 {
            return false;
        }
        rest = &fraction[n..];
    }
    if let Some((b'e' | b'E', exponent)) = rest.split_first() {
        let exponent = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let n = digits(exponent);
        return n > 0 && n == exponent.len();
    }
    rest.is_empty()
}
