//! What may be JSON to somebody, though its type or its bytes say otherwise.

use super::{Limits, Reader, Sink, Stop};

/// A reader of what parsers of the field take for JSON beside JSON, so that nothing hides behind one of them.
///
/// Text in UTF-8, UTF-16 and UTF-32, with and without a mark (told apart by the first four bytes, as Python's `json.loads` and
/// Jackson do: RFC 4627 §3); `NaN` and `Infinity`; one document behind another. White space alone is no error.
///
/// As Newtonsoft.Json, Gson and JSON5 read by default: comments (`/*…*/`, `//…`, `#…`), strings in single quotes, any character
/// behind a backslash, commas with nothing behind them, and within an object or an array line breaks and other control
/// characters in strings, words without quotes, `;` for a comma and `=` or `=>` for a colon. Around them these are what other
/// texts and files are made of.
///
/// ```
/// use palisade_base::json::{Limits, Loose, Stop};
///
/// let wide: Vec<u8> = "[NaN] [[1]]".encode_utf16().flat_map(u16::to_le_bytes).collect();
/// assert_eq!(Loose::new(Limits { depth: 2, text: 9 }).feed(&wide, &mut ()), Ok(()));
/// assert_eq!(Loose::new(Limits { depth: 1, text: 9 }).feed(&wide, &mut ()), Err(Stop::TooDeep));
/// ```
#[derive(Debug)]
pub struct Loose {
    reader: Reader,
    width: Width,
    /// Bytes whose character is not complete, or from which the width is not known yet.
    rest: Vec<u8>,
    /// The first half of a surrogate pair.
    high: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Unknown,
    One,
    Two { big: bool },
    Four { big: bool },
}

impl Width {
    /// As Python tells it from what begins so.
    fn of(head: &[u8]) -> Self {
        match head {
            [0xff, 0xfe, 0, 0] => Self::Four { big: false },
            [0, 0, 0xfe, 0xff] => Self::Four { big: true },
            [0xff, 0xfe, ..] => Self::Two { big: false },
            [0xfe, 0xff, ..] => Self::Two { big: true },
            [0, 0, _, _] => Self::Four { big: true },
            [0, _, _, _] | [0, _] => Self::Two { big: true },
            [_, 0, 0, 0] => Self::Four { big: false },
            [_, 0, _, _] | [_, 0] => Self::Two { big: false },
            _ => Self::One,
        }
    }
}

impl Loose {
    /// A reader that has read nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self { reader: Reader::lenient(limits), width: Width::Unknown, rest: Vec::new(), high: None }
    }

    /// Reads the next piece. Where pieces end makes no difference. The offset of a [`Stop`] counts characters as UTF-8.
    ///
    /// # Errors
    /// Why reading stopped, now or before.
    pub fn feed(&mut self, piece: &[u8], sink: &mut impl Sink) -> Result<(), Stop> {
        match self.width {
            Width::One => self.reader.feed(piece, sink),
            Width::Unknown if self.rest.is_empty() && piece.len() >= 4 => {
                self.width = Width::of(&piece[..4]);
                self.feed(piece, sink)
            }
            Width::Unknown => {
                let (head, tail) = piece.split_at(piece.len().min(4 - self.rest.len()));
                self.rest.extend_from_slice(head);
                if self.rest.len() < 4 {
                    return Ok(());
                }
                self.width = Width::of(&self.rest);
                let head = std::mem::take(&mut self.rest);
                self.feed(&head, sink)?;
                self.feed(tail, sink)
            }
            Width::Two { big } => self.wide::<2>(big, piece, sink),
            Width::Four { big } => self.wide::<4>(big, piece, sink),
        }
    }

    /// There is no more.
    ///
    /// # Errors
    /// Why reading stopped, now or before; a document that is not whole is a syntax error at its end.
    pub fn finish(mut self, sink: &mut impl Sink) -> Result<(), Stop> {
        if self.width == Width::Unknown {
            self.width = Width::of(&self.rest);
            let head = std::mem::take(&mut self.rest);
            self.feed(&head, sink)?;
        }
        // Half a character, or half a pair, is none.
        if !self.rest.is_empty() || self.high.is_some() {
            self.reader.feed("\u{fffd}".as_bytes(), sink)?;
        }
        self.reader.finish(sink)
    }

    /// How many arrays and objects are open.
    pub fn depth(&self) -> usize {
        self.reader.frames.len()
    }

    /// Whether its characters take two or four bytes, as far as it was read.
    pub fn is_wide(&self) -> bool {
        matches!(self.width, Width::Two { .. } | Width::Four { .. })
    }

    /// Reads characters of two or four bytes.
    fn wide<const N: usize>(&mut self, big: bool, piece: &[u8], sink: &mut impl Sink) -> Result<(), Stop> {
        let mut text = String::with_capacity(piece.len());
        for &byte in piece {
            self.rest.push(byte);
            if self.rest.len() < N {
                continue;
            }
            let code = |code: u32, byte: &u8| code << 8 | u32::from(*byte);
            let code = if big { self.rest.iter().fold(0, code) } else { self.rest.iter().rev().fold(0, code) };
            self.rest.clear();
            match (self.high.take(), code) {
                (None, 0xd800..0xdc00) if N == 2 => self.high = Some(code),
                (Some(high), 0xdc00..0xe000) => {
                    text.extend(char::from_u32(0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00)));
                }
                (high, code) => {
                    text.extend(high.map(|_| char::REPLACEMENT_CHARACTER));
                    text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
        }
        self.reader.feed(text.as_bytes(), sink)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Event, Oddity};
    use std::ops::ControlFlow;

    #[derive(Debug, Default)]
    struct Seen(Vec<String>);

    impl Sink for Seen {
        fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
            if let Event::String(text) | Event::Number(text) = event {
                self.0.push(String::from_utf8_lossy(text).into_owned());
            }
            ControlFlow::Continue(())
        }

        fn oddity(&mut self, _: Oddity) {}
    }

    fn read_in<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Result<(), Stop>, Vec<String>) {
        let (mut seen, mut reader) = (Seen::default(), Loose::new(Limits { depth: 8, text: 100 }));
        for piece in pieces {
            if let Err(stop) = reader.feed(piece, &mut seen) {
                return (Err(stop), seen.0);
            }
        }
        (reader.finish(&mut seen), seen.0)
    }

    fn encodings(text: &str) -> Vec<Vec<u8>> {
        let four = |order: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| order(c.into())).collect();
        let two = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect();
        vec![text.into(), two(u16::to_le_bytes), two(u16::to_be_bytes), four(u32::to_le_bytes), four(u32::to_be_bytes)]
    }

    #[test]
    fn every_encoding_is_read_alike() {
        for mark in ["", "\u{feff}"] {
            let text = format!("{mark}{{\"a\":[\"\u{2200}\u{1f600}[\",NaN,-Infinity,-1]}} [\"b\"] \"c\"\n");
            for body in encodings(&text) {
                let wanted =
                    (Ok(()), ["\u{2200}\u{1f600}[", "NaN", "-Infinity", "-1", "b", "c"].map(String::from).to_vec());
                assert_eq!(read_in([&*body]), wanted, "{body:?}");
                for cut in [1, 2, 3, 5, 7] {
                    assert_eq!(read_in(body.chunks(cut)), wanted, "{cut} {body:?}");
                }
            }
        }
    }

    #[test]
    fn what_lenient_parsers_take_is_read() {
        for (text, wanted) in [
            (r#"/**/{"q":"1\u0027 or 1=1-- "}"#, &["1' or 1=1-- "][..]),
            (r#"{'q':'a\'b"c'}"#, &["a'b\"c"]),
            ("// x\r\n{q: \"v\" /* ,\"no\":1 **/, # \"no\"\n r:'w',}//end", &["v", "w"]),
            ("#!x\r[1,,'a',]", &["1", "a"]),
            ("{a=1;b=>'2';$c_9 : x}", &["1", "2", "x"]),
            ("{q:1'||sleep(5)||'}", &["1'||sleep(5)||'"]),
            (
                "[0x1F,+1,.5,01,tru,-Infinity,nulls,true,a-word-of-many-letters]",
                &["0x1F", "+1", ".5", "01", "tru", "-Infinity", "nulls", "a-word-of-many-letters"],
            ),
            ("['a\\x27b\\q\\\nc\nd\te']", &["a'bq\nc\nd\te"]),
            ("{}/* */'x'", &["x"]),
            ("/*/ */['*/']//", &["*/"]),
        ] {
            let wanted = (Ok(()), wanted.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
            for body in encodings(text) {
                assert_eq!(read_in([&*body]), wanted, "{text}");
                for cut in [1, 2, 3, 5, 7] {
                    assert_eq!(read_in(body.chunks(cut)), wanted, "{cut} {text}");
                }
            }
        }
    }

    /// Nothing of it is taken where JSON is asked for.
    #[test]
    fn strict_readers_stay_strict() {
        for text in
            ["/**/1", "'a'", "{a:1}", "[1,]", "{\"a\":1,}", "[a]", "[1;2]", "{\"a\"=1}", "\"a\nb\"", "\"\\'\"", "[,1]"]
        {
            let mut reader = Reader::new(Limits { depth: 8, text: 100 });
            let read = reader.feed(text.as_bytes(), &mut ()).and_then(|()| reader.finish(&mut ()));
            assert!(matches!(read, Err(Stop::Syntax { .. })), "{text}");
        }
    }

    #[test]
    fn short_texts_and_none() {
        for text in ["", " ", "\n\n\n\n", "1", "{}", "\"a\"", "[1]"] {
            for body in encodings(text) {
                assert_eq!(read_in([&*body]).0, Ok(()), "{body:?}");
            }
        }
    }

    #[test]
    fn everything_else_stops_at_once() {
        for body in [
            &b"\x89PNG\r\n[[["[..],
            b"\xff\xd8\xff\xe0\0\x10JFIF",
            b"\0\0\0\x18ftypmp42",
            b"PK\x03\x04",
            b"%PDF-1.7",
            // A frame of a streaming protocol: a flag, and a length that looks like a quotation mark.
            b"\0\0\0\0\"{}",
            b"[section]\nkey = 1",
            b"{\\rtf1}",
            b"\"a\",\"b\"\n",
            b"-Inf",
            b"Nan",
            b"NaNN",
            b"[1",
            b"GIF89a\x01\0\x01\0",
            b"RIFF\x24\0\0\0WEBPVP8 ",
            b"II*\0\x08\0\0\0",
            b"\x1f\x8b\x08\0",
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            b"Hello, world",
            b"infinite",
            b"/usr/bin/env",
            b"# A title\n\nand a text",
            b"// a source\nint main() {}",
            b"/* a licence */ #include <stdio.h>\nint main() {}",
            b"a,b\n1,2\n",
            b"key = value",
            b"{{ template }}",
            b"/* no end",
            b"'no end",
            b"'a\x01b'",
            b"\"a\nb\"",
            b"\x27\0\0\0\0\0\0\0\x27\0\0\0",
            b"{a",
            b"{'a' 'b'}",
            b"\xff\xfe[\0\"",
            b"\xff\xfe\"\0\x3d\xd8",
        ] {
            assert!(matches!(read_in([body]).0, Err(Stop::Syntax { .. })), "{}", body.escape_ascii());
        }
    }
}
