//! JSON, read as it arrives: one reader for everything in the house that looks into bodies.
//!
//! Strict RFC 8259, so that what it reads is what every parser reads: where parsers differ (a key twice, a byte order mark,
//! half a surrogate pair, bytes that are not UTF-8) it goes on and says so with an [`Oddity`], and what is not JSON ends the
//! reading. Memory is the nesting, which is limited, one text, and eight bytes a key of the objects that are open.
//!
//! ```
//! use std::ops::ControlFlow;
//! use palisade_base::json::{Event, Limits, Oddity, Reader, Sink};
//!
//! #[derive(Default)]
//! struct Texts(Vec<String>, Vec<Oddity>);
//!
//! impl Sink for Texts {
//!     fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
//!         if let Event::String(text) = event {
//!             self.0.push(String::from_utf8_lossy(text).into_owned());
//!         }
//!         ControlFlow::Continue(())
//!     }
//!
//!     fn oddity(&mut self, oddity: Oddity) {
//!         self.1.push(oddity);
//!     }
//! }
//!
//! let mut texts = Texts::default();
//! let mut reader = Reader::new(Limits { depth: 32, text: 1000 });
//! for piece in [&br#"{"a":["x","#[..], br#""y"],"a":"z"}"#] {
//!     reader.feed(piece, &mut texts).expect("JSON");
//! }
//! reader.finish(&mut texts).expect("the end of it");
//! assert_eq!((texts.0, texts.1), (vec!["x".into(), "y".into(), "z".into()], vec![Oddity::DuplicateKey]));
//! ```

mod loose;
mod scalar;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::ControlFlow;

pub use loose::Loose;
use scalar::{hex, is_number};

/// What a reader meets, in the order of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// `{`.
    BeginObject,
    /// A key of the object that is open; its value comes next. Decoded.
    Key(&'a [u8]),
    /// `}`.
    EndObject,
    /// `[`.
    BeginArray,
    /// `]`.
    EndArray,
    /// A string, decoded; UTF-8 unless [`Oddity::NotUtf8`] said otherwise just before.
    String(&'a [u8]),
    /// A number, as written.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Something that other parsers may read otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// The text begins with a byte order mark.
    ByteOrderMark,
    /// The key whose event came just before is there twice.
    DuplicateKey,
    /// An escape is half of a surrogate pair; a replacement character stands for it.
    LoneSurrogate,
    /// The text whose event comes next is not UTF-8.
    NotUtf8,
    /// The text whose event comes next is longer than [`Limits::text`] and was cut there.
    TextTooLong,
}

/// Why a reader stopped. It reads nothing more after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// This is no JSON.
    Syntax {
        /// The offset of the byte at which that showed.
        at: usize,
    },
    /// It is nested more deeply than [`Limits::depth`].
    TooDeep,
    /// The sink wanted no more.
    Sink,
}

/// What one document may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects within each other.
    pub depth: usize,
    /// Bytes of one string, key or number, decoded. Longer ones are cut, and an oddity.
    pub text: usize,
}

/// Who is told.
pub trait Sink {
    /// Takes the next event; `Break` ends the reading with [`Stop::Sink`].
    fn event(&mut self, event: Event<'_>) -> ControlFlow<()>;

    /// Takes note of something odd. An oddity never ends the reading.
    fn oddity(&mut self, oddity: Oddity);
}

/// Nobody is told: a reader then says only where it stopped.
impl Sink for () {
    fn event(&mut self, _: Event<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn oddity(&mut self, _: Oddity) {}
}

/// A push parser of one document.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    /// Reads on where some parsers do ([`Loose`]).
    lenient: bool,
    state: State,
    /// Where reading goes on behind a comment.
    behind: State,
    /// What ends the string that is being read.
    quote: u8,
    frames: Vec<Frame>,
    /// The string or the number that is being read.
    text: Vec<u8>,
    /// Bytes fed before the present piece.
    offset: usize,
    hasher: RandomState,
    /// Hashes of the keys of all open objects.
    keys: Vec<u64>,
}

#[derive(Debug)]
struct Frame {
    array: bool,
    /// Where this object's keys begin in `keys`.
    keys: usize,
    /// The same once there are many.
    many: Option<HashSet<u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    /// Bytes of a byte order mark so far.
    Mark(u8),
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
    /// A word without quotes, within something.
    Bare {
        key: bool,
    },
    /// After `=` for a colon: perhaps `>`.
    Arrow,
    /// After `/`, where a comment may begin.
    Slash,
    BlockComment {
        star: bool,
    },
    LineComment,
    End,
    Stopped(Stop),
}

impl State {
    /// Whether white space may stand here, and what some take for it.
    fn is_between(self) -> bool {
        matches!(
            self,
            Self::Start
                | Self::Value
                | Self::FirstElement
                | Self::FirstKey
                | Self::Key
                | Self::Colon
                | Self::Next
                | Self::End
        )
    }
}

/// Whether a byte ends a word without quotes, as in Gson.
fn ends_bare(byte: u8) -> bool {
    byte <= b' ' || b"{}[]:,;=#/\\".contains(&byte)
}

impl Reader {
    /// A reader that has read nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            lenient: false,
            state: State::Start,
            behind: State::Start,
            quote: b'"',
            frames: Vec::new(),
            text: Vec::new(),
            offset: 0,
            hasher: RandomState::new(),
            keys: Vec::new(),
        }
    }

    /// A reader that takes what lenient parsers take beside JSON, as [`Loose`] says.
    fn lenient(limits: Limits) -> Self {
        Self { lenient: true, ..Self::new(limits) }
    }

    /// Reads the next piece. Where pieces end makes no difference.
    ///
    /// # Errors
    /// Why reading stopped, now or before.
    pub fn feed(&mut self, piece: &[u8], sink: &mut impl Sink) -> Result<(), Stop> {
        let mut i = 0;
        while let Some(&b) = piece.get(i) {
            match self.state {
                State::Stopped(stop) => return Err(stop),
                // The hot loop: everything up to the next quote or backslash at once.
                State::String { key } => {
                    let rest = &piece[i..];
                    let (quote, least) = (self.quote, if self.is_within() { 0 } else { 0x20 });
                    let ends = |b: &u8| *b == quote || *b == b'\\' || *b < least;
                    let run = rest.iter().position(ends).unwrap_or(rest.len());
                    self.take(&rest[..run], sink);
                    i += run;
                    match piece.get(i) {
                        None => {}
                        Some(b) if *b == quote => {
                            i += 1;
                            self.string_end(key, sink);
                        }
                        Some(b'\\') => {
                            i += 1;
                            self.state = State::Escape { key };
                        }
                        Some(_) => self.wrong(i),
                    }
                    continue;
                }
                State::Number => {
                    if matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
                        self.take(&[b], sink);
                        i += 1;
                    } else if self.lenient && b == b'I' && self.text == b"-" {
                        self.state = State::Literal;
                    } else if self.is_within() && !ends_bare(b) {
                        self.state = State::Bare { key: false };
                    } else {
                        self.number(i, sink);
                    }
                    continue;
                }
                State::Literal => {
                    if b.is_ascii_alphabetic() && self.text.len() < 10 {
                        self.text.push(b);
                        i += 1;
                    } else if self.is_within() && !ends_bare(b) {
                        self.state = State::Bare { key: false };
                    } else {
                        self.literal(i, sink);
                    }
                    continue;
                }
                State::Bare { key } => {
                    let rest = &piece[i..];
                    let run = rest.iter().position(|b| ends_bare(*b)).unwrap_or(rest.len());
                    self.take(&rest[..run], sink);
                    i += run;
                    if i < piece.len() {
                        self.string_end(key, sink);
                    }
                    continue;
                }
                _ => self.step(b, i, sink),
            }
            i += 1;
        }
        self.offset += piece.len();
        self.stopped()
    }

    /// There is no more.
    ///
    /// # Errors
    /// Why reading stopped, now or before; a document that is not whole is a syntax error at its end.
    pub fn finish(mut self, sink: &mut impl Sink) -> Result<(), Stop> {
        match self.state {
            State::Number => self.number(0, sink),
            State::Literal => self.literal(0, sink),
            // The end of the text is the end of a line.
            State::LineComment => self.state = self.behind,
            _ => {}
        }
        let blank = self.lenient && self.state == State::Start;
        if !blank && !matches!(self.state, State::End | State::Stopped(_)) {
            self.wrong(0);
        }
        self.stopped()
    }

    fn stopped(&self) -> Result<(), Stop> {
        match self.state {
            State::Stopped(stop) => Err(stop),
            _ => Ok(()),
        }
    }

    fn step(&mut self, b: u8, i: usize, sink: &mut impl Sink) {
        let white = matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match self.state {
            State::Start if b == 0xef => State::Mark(1),
            State::Mark(1) if b == 0xbb => State::Mark(2),
            State::Mark(2) if b == 0xbf => {
                sink.oddity(Oddity::ByteOrderMark);
                State::Value
            }
            state if white && state.is_between() => state,
            state if self.lenient && matches!(b, b'/' | b'#') && state.is_between() => {
                self.behind = state;
                if b == b'/' { State::Slash } else { State::LineComment }
            }
            State::Slash if b == b'*' => State::BlockComment { star: false },
            State::Slash if b == b'/' => State::LineComment,
            State::BlockComment { star: true } if b == b'/' => self.behind,
            State::BlockComment { .. } => State::BlockComment { star: b == b'*' },
            State::LineComment if matches!(b, b'\n' | b'\r') => self.behind,
            State::LineComment => State::LineComment,
            State::FirstElement if b == b']' => return self.close(Event::EndArray, sink),
            // A comma with nothing behind it, or before it.
            State::Value if b == b']' && self.lenient && self.is_in_array() => {
                return self.close(Event::EndArray, sink);
            }
            State::Value | State::FirstElement if b == b',' && self.lenient && self.is_in_array() => {
                self.state = State::Value;
                return self.tell(Event::Null, sink);
            }
            State::Start | State::Value | State::FirstElement => match b {
                b'{' | b'[' => {
                    if self.frames.len() >= self.limits.depth {
                        State::Stopped(Stop::TooDeep)
                    } else {
                        let array = b == b'[';
                        self.frames.push(Frame { array, keys: self.keys.len(), many: None });
                        self.state = if array { State::FirstElement } else { State::FirstKey };
                        return self.tell(if array { Event::BeginArray } else { Event::BeginObject }, sink);
                    }
                }
                b'"' => self.string(b, false),
                b'\'' if self.lenient => self.string(b, false),
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
                b'N' | b'I' if self.lenient => {
                    self.text.clear();
                    self.text.push(b);
                    State::Literal
                }
                _ if self.is_within() && !ends_bare(b) => self.bare(b, false, sink),
                _ => return self.wrong(i),
            },
            State::FirstKey if b == b'}' => return self.close(Event::EndObject, sink),
            State::Key if b == b'}' && self.lenient => return self.close(Event::EndObject, sink),
            State::FirstKey | State::Key if b == b'"' || b == b'\'' && self.lenient => self.string(b, true),
            State::FirstKey | State::Key if self.lenient && !ends_bare(b) => self.bare(b, true, sink),
            State::Colon if b == b':' => State::Value,
            State::Colon if b == b'=' && self.lenient => State::Arrow,
            State::Arrow if b == b'>' => State::Value,
            State::Arrow => {
                self.state = State::Value;
                return self.step(b, i, sink);
            }
            State::Next => match (b, self.frames.last().map(|f| f.array)) {
                (b',', Some(true)) => State::Value,
                (b',', Some(false)) => State::Key,
                (b';', Some(array)) if self.lenient => {
                    if array {
                        State::Value
                    } else {
                        State::Key
                    }
                }
                (b']', Some(true)) => return self.close(Event::EndArray, sink),
                (b'}', Some(false)) => return self.close(Event::EndObject, sink),
                _ => return self.wrong(i),
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
                    // JSON5; others take a character behind a backslash for itself.
                    b'x' if self.lenient => {
                        self.state = State::Unicode { key, digits: 2, value: 0, high: 0 };
                        return;
                    }
                    _ if self.lenient => b,
                    _ => return self.wrong(i),
                };
                self.take(&[character], sink);
                State::String { key }
            }
            State::Unicode { key, digits, value, high } => {
                let Some(digit) = hex(b) else { return self.wrong(i) };
                let value = value << 4 | u16::from(digit);
                if digits < 3 {
                    State::Unicode { key, digits: digits + 1, value, high }
                } else {
                    self.unicode(key, value, high, sink)
                }
            }
            State::Low { key, high } if b == b'\\' => State::LowU { key, high },
            State::LowU { key, high } if b == b'u' => State::Unicode { key, digits: 0, value: 0, high },
            State::Low { key, .. } => {
                self.lone(sink);
                self.state = State::String { key };
                // The byte belongs to the string; a quote here ends it.
                return self.string_byte(b, key, i, sink);
            }
            State::LowU { key, .. } => {
                self.lone(sink);
                self.state = State::Escape { key };
                return self.step(b, i, sink);
            }
            State::End if self.lenient => {
                self.state = State::Value;
                return self.step(b, i, sink);
            }
            _ => return self.wrong(i),
        };
    }

    /// Whether something is open that is read leniently. Outside, words without quotes and control characters in strings are
    /// what other files are made of.
    fn is_within(&self) -> bool {
        self.lenient && !self.frames.is_empty()
    }

    fn is_in_array(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.array)
    }

    /// Begins a string.
    fn string(&mut self, quote: u8, key: bool) -> State {
        self.text.clear();
        self.quote = quote;
        State::String { key }
    }

    /// Begins a word without quotes.
    fn bare(&mut self, first: u8, key: bool, sink: &mut impl Sink) -> State {
        self.text.clear();
        self.take(&[first], sink);
        State::Bare { key }
    }

    fn string_byte(&mut self, b: u8, key: bool, i: usize, sink: &mut impl Sink) {
        match b {
            b if b == self.quote => self.string_end(key, sink),
            b'\\' => self.state = State::Escape { key },
            b if b < 0x20 && !self.is_within() => self.wrong(i),
            b => self.take(&[b], sink),
        }
    }

    fn unicode(&mut self, key: bool, value: u16, high: u16, sink: &mut impl Sink) -> State {
        let low = (0xdc00..0xe000).contains(&value);
        if high != 0 {
            if low {
                let code = 0x10000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(value) - 0xdc00);
                self.character(code, sink);
                return State::String { key };
            }
            self.lone(sink);
        } else if low {
            self.lone(sink);
            return State::String { key };
        }
        if (0xd800..0xdc00).contains(&value) {
            return State::Low { key, high: value };
        }
        self.character(u32::from(value), sink);
        State::String { key }
    }

    fn character(&mut self, code: u32, sink: &mut impl Sink) {
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.take(c.encode_utf8(&mut [0; 4]).as_bytes(), sink);
    }

    fn lone(&mut self, sink: &mut impl Sink) {
        sink.oddity(Oddity::LoneSurrogate);
        self.take("\u{fffd}".as_bytes(), sink);
    }

    /// Adds to the text, up to its limit.
    fn take(&mut self, bytes: &[u8], sink: &mut impl Sink) {
        let room = self.limits.text.saturating_sub(self.text.len());
        if bytes.len() > room {
            sink.oddity(Oddity::TextTooLong);
        }
        self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn string_end(&mut self, key: bool, sink: &mut impl Sink) {
        // One that was cut may have been cut within a character.
        if std::str::from_utf8(&self.text).is_err() && self.text.len() < self.limits.text {
            sink.oddity(Oddity::NotUtf8);
        }
        if !key {
            return self.leaf(|text| Event::String(text), sink);
        }
        let hash = self.hasher.hash_one(&self.text);
        let known = self.frames.last_mut().is_some_and(|frame| !frame.insert(hash, &mut self.keys));
        self.state = State::Colon;
        let text = std::mem::take(&mut self.text);
        self.tell(Event::Key(&text), sink);
        self.text = text;
        if known {
            sink.oddity(Oddity::DuplicateKey);
        }
    }

    fn number(&mut self, i: usize, sink: &mut impl Sink) {
        // Of one that was cut nobody knows whether it is a number.
        match is_number(&self.text) || self.text.len() >= self.limits.text {
            true => self.leaf(|text| Event::Number(text), sink),
            false if self.is_within() => self.string_end(false, sink),
            false => self.wrong(i),
        }
    }

    fn literal(&mut self, i: usize, sink: &mut impl Sink) {
        let event = match self.text.as_slice() {
            b"true" => Event::Bool(true),
            b"false" => Event::Bool(false),
            b"null" => Event::Null,
            b"NaN" | b"Infinity" | b"-Infinity" if self.lenient => {
                return self.leaf(|text| Event::Number(text), sink);
            }
            _ if self.is_within() => return self.string_end(false, sink),
            _ => return self.wrong(i),
        };
        self.state = self.after();
        self.tell(event, sink);
    }

    /// A value that holds no others, whose text was read.
    fn leaf(&mut self, event: fn(&[u8]) -> Event<'_>, sink: &mut impl Sink) {
        self.state = self.after();
        let text = std::mem::take(&mut self.text);
        self.tell(event(&text), sink);
        self.text = text;
    }

    fn close(&mut self, event: Event<'_>, sink: &mut impl Sink) {
        if let Some(frame) = self.frames.pop() {
            self.keys.truncate(frame.keys);
        }
        self.state = self.after();
        self.tell(event, sink);
    }

    fn tell(&mut self, event: Event<'_>, sink: &mut impl Sink) {
        if sink.event(event).is_break() {
            self.state = State::Stopped(Stop::Sink);
        }
    }

    fn after(&self) -> State {
        if self.frames.is_empty() { State::End } else { State::Next }
    }

    fn wrong(&mut self, i: usize) {
        self.state = State::Stopped(Stop::Syntax { at: self.offset + i });
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

#[cfg(test)]
mod tests;
