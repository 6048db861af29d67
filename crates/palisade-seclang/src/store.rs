//! Where a transaction keeps its values: one buffer of bytes, and lists of spans into it.

/// A piece of the buffer. The highest bit of `start` says that it lies in the rule set's constants instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Span {
    pub(crate) const EMPTY: Span = Span { start: 0, len: 0 };
    /// No value at all, unlike an empty one.
    pub(crate) const NONE: Span = Span { start: u32::MAX, len: 0 };
    const CONSTANT: u32 = 1 << 31;

    pub(crate) fn is_none(self) -> bool {
        self.start == u32::MAX
    }

    /// The same piece of the constants.
    pub(crate) fn constant(self) -> Span {
        Span { start: self.start | Span::CONSTANT, len: self.len }
    }

    pub(crate) fn slice(self, from: usize, to: usize) -> Span {
        Span { start: self.start + from as u32, len: (to - from) as u32 }
    }
}

/// A named value from the request or the response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) name: Span,
    pub(crate) value: Span,
    /// Number of the value within the transaction; the name's is one more.
    pub(crate) id: u32,
}

/// The lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum List {
    ArgsGet,
    ArgsPost,
    Cookies,
    Headers,
    ResponseHeaders,
    Files,
    FilesNames,
    FilesSizes,
    PartHeaders,
    XmlText,
    XmlAttributes,
    Geo,
}

impl List {
    pub(crate) const COUNT: usize = 12;
}

/// Most bytes that one transaction may hold; beyond it values are cut and the store says so.
const CAPACITY: usize = 256 << 20;

/// Values of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lists: [Vec<Item>; List::COUNT],
    next_id: u32,
    pub(crate) full: bool,
}

/// Numbers below this belong to single values ([`crate::variable::Var`] as a number).
pub(crate) const FIRST_ITEM_ID: u32 = 128;

impl Store {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.lists.iter_mut().for_each(Vec::clear);
        self.next_id = FIRST_ITEM_ID;
        self.full = false;
    }

    pub(crate) fn new() -> Store {
        Store { next_id: FIRST_ITEM_ID, ..Store::default() }
    }

    /// How many numbers were given so far.
    pub(crate) fn ids(&self) -> usize {
        self.next_id as usize
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        let room = CAPACITY.saturating_sub(start);
        if bytes.len() > room {
            self.full = true;
        }
        let bytes = &bytes[..bytes.len().min(room)];
        self.bytes.extend_from_slice(bytes);
        Span { start: start as u32, len: bytes.len() as u32 }
    }

    /// Everything appended since `start`, which the caller took from `bytes.len()`.
    pub(crate) fn since(&self, start: usize) -> Span {
        Span { start: start as u32, len: (self.bytes.len() - start) as u32 }
    }

    pub(crate) fn add(&mut self, list: List, name: Span, value: Span) {
        let id = self.next_id;
        self.next_id += 2;
        self.lists[list as usize].push(Item { name, value, id });
    }

    pub(crate) fn add_bytes(&mut self, list: List, name: &[u8], value: &[u8]) {
        let name = self.push(name);
        let value = self.push(value);
        self.add(list, name, value);
    }

    pub(crate) fn list(&self, list: List) -> &[Item] {
        &self.lists[list as usize]
    }

    /// The bytes of a span that is not a constant.
    pub(crate) fn own(&self, span: Span) -> &[u8] {
        self.get(span, &[])
    }

    pub(crate) fn get<'a>(&'a self, span: Span, constants: &'a [u8]) -> &'a [u8] {
        let (source, start) = if span.start & Span::CONSTANT == 0 {
            (self.bytes.as_slice(), span.start as usize)
        } else {
            (constants, (span.start & !Span::CONSTANT) as usize)
        };
        source.get(start..start + span.len as usize).unwrap_or(&[])
    }
}
