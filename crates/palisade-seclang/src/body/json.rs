//! JSON: every leaf becomes an argument named by its path, `json.rows.array_0.title`, and so does an object or array that
//! is empty. The house's readers read it.

use std::ops::ControlFlow;

use palisade_base::json::{self, Event, Loose, Oddity, Stop};

use super::{Finding, Output};
use crate::store::List;
use crate::text::push_number;

/// A push parser of one document.
#[derive(Debug)]
pub(crate) struct Reader {
    reader: json::Reader,
    names: Names,
    /// Whether it was said already why reading stopped.
    told: bool,
}

/// The names of leaves.
#[derive(Debug)]
struct Names {
    frames: Vec<Frame>,
    /// `json.a.b`: the path of the value that comes next.
    path: Vec<u8>,
    /// Bytes of all names so far.
    total: usize,
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
    /// Nothing is in it yet.
    empty: bool,
}

fn limits(out: &Output<'_>) -> json::Limits {
    json::Limits { depth: out.limits.depth, text: out.limits.value }
}

impl Reader {
    pub(crate) fn new(out: &Output<'_>) -> Reader {
        Reader { reader: json::Reader::new(limits(out)), names: Names::new(), told: false }
    }

    pub(crate) fn feed(&mut self, chunk: &[u8], out: &mut Output<'_>) {
        let result = self.reader.feed(chunk, &mut Arguments { names: &mut self.names, out });
        if let Err(stop) = result
            && !std::mem::replace(&mut self.told, true)
        {
            tell(stop, out);
        }
    }

    pub(crate) fn finish(mut self, out: &mut Output<'_>) {
        let result = self.reader.finish(&mut Arguments { names: &mut self.names, out });
        if let Err(stop) = result
            && !self.told
        {
            tell(stop, out);
        }
    }
}

fn tell(stop: Stop, out: &mut Output<'_>) {
    match stop {
        Stop::Syntax { at } => out.find(Finding::JsonSyntax { at }),
        Stop::TooDeep => out.find(Finding::TooDeep { limit: out.limits.depth }),
        // What stopped it has said so.
        Stop::Sink => {}
    }
}

/// A reader of a body that need not be JSON, and says so itself: whoever asks for JSON may read it all the same.
///
/// What readers take in different ways is no finding here: each value of a key that is there twice is an argument, and what
/// stops them ends this reading too.
#[derive(Debug)]
pub(crate) struct Guess {
    reader: Loose,
    names: Names,
    over: bool,
}

impl Guess {
    pub(crate) fn new(out: &Output<'_>) -> Guess {
        Guess { reader: Loose::new(limits(out)), names: Names::new(), over: false }
    }

    /// Whether there is nothing more to read: it is no JSON, or not from here on.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn feed(&mut self, chunk: &[u8], out: &mut Output<'_>) {
        if self.over {
            return;
        }
        let result = self.reader.feed(chunk, &mut Values(Arguments { names: &mut self.names, out }));
        self.over = result.is_err();
        if result == Err(Stop::TooDeep) {
            tell(Stop::TooDeep, out);
        }
    }

    pub(crate) fn finish(mut self, out: &mut Output<'_>) {
        if self.over {
            return;
        }
        if let Err(Stop::TooDeep) = self.reader.finish(&mut Values(Arguments { names: &mut self.names, out })) {
            tell(Stop::TooDeep, out);
        }
    }
}

/// Makes arguments, and says nothing of what is odd but where a text is longer than is read.
struct Values<'a, 'o>(Arguments<'a, 'o>);

impl json::Sink for Values<'_, '_> {
    fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
        self.0.event(event)
    }

    fn oddity(&mut self, oddity: Oddity) {
        if oddity == Oddity::TextTooLong {
            self.0.oddity(oddity);
        }
    }
}

/// Makes arguments of values.
struct Arguments<'a, 'o> {
    names: &'a mut Names,
    out: &'a mut Output<'o>,
}

impl json::Sink for Arguments<'_, '_> {
    fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
        match event {
            Event::Key(key) => {
                if !self.names.key(key, self.out.limits.value) {
                    self.out.find(Finding::ValueTooLong { limit: self.out.limits.value });
                }
                ControlFlow::Continue(())
            }
            Event::BeginArray | Event::BeginObject => {
                self.names.value();
                let path = self.names.path.len();
                self.names.frames.push(Frame { array: event == Event::BeginArray, index: 0, path, empty: true });
                ControlFlow::Continue(())
            }
            Event::EndArray | Event::EndObject => {
                let Some(frame) = self.names.frames.pop() else { return ControlFlow::Continue(()) };
                self.names.path.truncate(frame.path);
                // Of the keys above nothing there is no other argument. Above the outermost one there are none.
                match frame.empty && !self.names.frames.is_empty() {
                    true => self.argument(b""),
                    false => ControlFlow::Continue(()),
                }
            }
            Event::String(text) | Event::Number(text) => self.leaf(text),
            Event::Bool(true) => self.leaf(b"true"),
            Event::Bool(false) => self.leaf(b"false"),
            Event::Null => self.leaf(b""),
        }
    }

    fn oddity(&mut self, oddity: Oddity) {
        let finding = match oddity {
            Oddity::ByteOrderMark => Finding::JsonBom,
            Oddity::DuplicateKey => Finding::JsonDuplicateKey {
                name: String::from_utf8_lossy(&self.names.path).chars().take(200).collect(),
            },
            Oddity::LoneSurrogate => Finding::JsonLoneSurrogate,
            Oddity::NotUtf8 => Finding::NotUtf8,
            Oddity::TextTooLong => Finding::ValueTooLong { limit: self.out.limits.value },
        };
        self.out.find(finding);
    }
}

impl Arguments<'_, '_> {
    /// A value that is no object and no array.
    fn leaf(&mut self, text: &[u8]) -> ControlFlow<()> {
        self.names.value();
        self.argument(text)
    }

    /// Adds an argument under the path.
    fn argument(&mut self, text: &[u8]) -> ControlFlow<()> {
        self.names.total += self.names.path.len();
        if self.names.total > NAMES {
            self.out.find(Finding::NamesTooLong { limit: NAMES });
            return ControlFlow::Break(());
        }
        let name = self.out.store.push(&self.names.path);
        let value = self.out.store.push(text);
        match self.out.argument(List::ArgsPost, name, value) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }
}

impl Names {
    fn new() -> Names {
        Names { frames: Vec::new(), path: b"json".to_vec(), total: 0 }
    }

    /// A key of the innermost object. False: the path is too long, and cut.
    fn key(&mut self, key: &[u8], most: usize) -> bool {
        let Some(frame) = self.frames.last() else { return true };
        self.path.truncate(frame.path);
        self.path.push(b'.');
        // A path as long as the nesting times the longest key would let a small body grow.
        let room = most.saturating_sub(self.path.len());
        self.path.extend_from_slice(&key[..key.len().min(room)]);
        key.len() <= room
    }

    /// A value begins: of an array it is the next element.
    fn value(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        frame.empty = false;
        if frame.array {
            self.path.truncate(frame.path);
            self.path.extend_from_slice(b".array_");
            push_number(&mut self.path, i64::from(frame.index));
            frame.index = frame.index.saturating_add(1);
        }
    }
}
