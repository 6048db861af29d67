//! How deep a JSON body is, while it streams: `palisade_base::json` reads it, and nothing is kept but a number.
//!
//! Parsers that recurse run out of stack on a few kilobytes of `[` (CVE-2022-45688 and its like; Python's `json` raises
//! a `RecursionError`, a 500). Malformed JSON is the application's to refuse: behind the place where it shows, brackets are
//! counted wherever they are, for parsers that read on (comments, single quotes).

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use palisade_base::json::{Limits, Loose, Stop};

use super::names;

/// A counter of arrays and objects that lie in each other.
#[derive(Debug)]
pub(super) struct Depth {
    most: usize,
    state: State,
    /// The body has no type: it is JSON only as long as it reads like that.
    guess: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing read, so that no reader is needed yet.
    Unread,
    Reading {
        reader: Box<Loose>,
        /// Bytes so far.
        read: usize,
    },
    /// No JSON any more, but perhaps to a lenient parser: so deep at most.
    Counting(usize),
    /// Not JSON.
    Done,
}

impl Depth {
    /// A counter for a body with these headers and the media type that they say; none where it is not JSON. Without a type
    /// it may be: FastAPI reads it so.
    pub(super) fn of(kind: &str, headers: &HeaderMap, most: u32) -> Option<Self> {
        // Of two types nobody knows which one the application believes.
        let names_json =
            |value: &HeaderValue| value.as_bytes().to_ascii_lowercase().windows(4).any(|word| word == b"json");
        let json = names(kind, "json") || headers.get_all(CONTENT_TYPE).iter().skip(1).any(names_json);
        let guess = kind.is_empty() && !json;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        (guess || json).then_some(Self { most, state: State::Unread, guess })
    }

    /// How deep it may be.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Counts on. False: deeper than it may be.
    pub(super) fn feed(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        if let State::Unread = self.state {
            // Texts are skipped: none is kept, however long.
            let reader = Box::new(Loose::new(Limits { depth: self.most, text: 0 }));
            self.state = State::Reading { reader, read: 0 };
        }
        if let State::Reading { reader, read } = &mut self.state {
            match reader.feed(piece, &mut ()) {
                Ok(()) => {
                    *read = read.saturating_add(piece.len());
                    return true;
                }
                Err(Stop::TooDeep) => return false,
                Err(_) if self.guess => self.state = State::Done,
                Err(stop) => {
                    // In wide characters nothing says where in the piece it was: then all of it counts.
                    if let (Stop::Syntax { at }, false) = (stop, reader.is_wide()) {
                        rest = piece.get(at.saturating_sub(*read)..).unwrap_or_default();
                    }
                    self.state = State::Counting(reader.depth());
                }
            }
        }
        let State::Counting(depth) = &mut self.state else { return true };
        for byte in rest {
            match byte {
                b'{' | b'[' => *depth += 1,
                b'}' | b']' => *depth = depth.saturating_sub(1),
                _ => {}
            }
            if *depth > self.most {
                return false;
            }
        }
        true
    }
}

/// How many brackets open in a piece, those in strings included: an upper bound of its depth. `[` and `{` differ in one
/// bit, so that this is one comparison a byte; counted in bytes for as long as these cannot run over, it is many bytes
/// at once.
pub(super) fn openings(piece: &[u8]) -> usize {
    let count = |few: &[u8]| few.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    piece.chunks(128).map(|few| usize::from(count(few))).sum()
}

#[cfg(test)]
mod tests {
    use super::super::media_type;
    use super::*;
    use proptest::prelude::*;

    fn counter(kind: Option<&'static str>, most: u32) -> Option<Depth> {
        let headers: HeaderMap = kind.map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))).into_iter().collect();
        Depth::of(&media_type(&headers), &headers, most)
    }

    fn depth_of(value: &serde_json::Value) -> u32 {
        match value {
            serde_json::Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
            serde_json::Value::Object(members) => 1 + members.values().map(depth_of).max().unwrap_or(0),
            _ => 0,
        }
    }

    #[test]
    fn every_opening_counts_however_many_there_are() {
        for length in [0, 1, 127, 128, 129, 1000, 70_000] {
            assert_eq!(openings(&vec![b'['; length]), length);
            assert_eq!(openings(&vec![b'{'; length]), length);
            assert_eq!(openings(&vec![b']'; length]), 0);
        }
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let cases = [
            (r#"{"a":[1,{"b":2}]}"#, 3),
            (r#""[[[[[[""#, 0),
            (r#"{"a":"[[[\"[[[","b":"\\","c":[]}"#, 2),
            (r#"{"a\\\"":"\\\\\"{{{"}"#, 1),
            ("[[],[],[[]]]", 3),
            ("  \n[1]", 1),
            ("]]]][[", 2),
            ("[[\n]]\n[[[\n]]]\n", 3),
            ("\u{feff}[[1]]", 2),
            // Taken by some: the rest is counted, strings and all.
            ("[NaN,[-Infinity]]", 2),
            ("{'a':[[1]],/* [ */\"b\":\"]\"}", 3),
            ("[\"[[[[[[\",\"[[[\",]", 1),
            ("[[1],'[',]", 2),
        ];
        for (text, depth) in cases {
            assert!(counter(Some("application/json"), depth.max(1)).unwrap().feed(text.as_bytes()), "{text}");
            if depth > 1 {
                assert!(!counter(Some("application/json"), depth - 1).unwrap().feed(text.as_bytes()), "{text}");
            }
            for cut in 0..=text.len() {
                let mut split = counter(Some("application/problem+json"), depth.max(1)).unwrap();
                assert!(split.feed(&text.as_bytes()[..cut]) && split.feed(&text.as_bytes()[cut..]), "{text} {cut}");
            }
        }
    }

    /// Python's `json.loads` takes UTF-16 and UTF-32, with and without a mark.
    #[test]
    fn wide_characters_hide_no_bracket() {
        let wide = |text: &str, bytes: usize, big: bool| -> Vec<u8> {
            let mut out = Vec::new();
            for character in text.chars() {
                let code = u32::from(character).to_be_bytes();
                let mut code = code[4 - bytes..].to_vec();
                if !big {
                    code.reverse();
                }
                out.extend(code);
            }
            out
        };
        // `∀` is 22 00: a quotation mark to who reads bytes.
        let deep = format!("[\"\u{2200}\",{}1{}]", "[".repeat(40), "]".repeat(40));
        for mark in ["", "\u{feff}"] {
            for (bytes, big) in [(2, false), (2, true), (4, false), (4, true)] {
                let body = wide(&format!("{mark}{deep}"), bytes, big);
                let flat = wide(&format!("{mark}[\"\u{2200}\",[1],[2],{{\"a\":[3]}}]"), bytes, big);
                for kind in [Some("application/json"), None] {
                    assert!(!counter(kind, 32).unwrap().feed(&body), "{kind:?} {mark:?} {bytes} {big}");
                    assert!(counter(kind, 32).unwrap().feed(&flat), "{kind:?} {mark:?} {bytes} {big}");
                    let mut split = counter(kind, 32).unwrap();
                    assert!(!body.chunks(1).all(|piece| split.feed(piece)), "{kind:?} {mark:?} {bytes} {big}");
                }
            }
        }
        for file in [&b"\xff\xd8\xff\xe0[[[[[["[..], b"\0\0\0\x18ftyp[[[[[[", b"\0[", b"\xff"] {
            assert!(counter(None, 4).unwrap().feed(file), "{file:?}");
        }
    }

    #[test]
    fn of_two_types_one_is_enough() {
        for kinds in [["text/plain", "application/json"], ["application/json", "text/plain"], ["", "Application/JSON"]]
        {
            let headers: HeaderMap =
                kinds.into_iter().map(|kind| (CONTENT_TYPE, HeaderValue::from_static(kind))).collect();
            assert!(
                !Depth::of(&media_type(&headers), &headers, 32).unwrap().feed("[".repeat(40).as_bytes()),
                "{kinds:?}"
            );
        }
    }

    #[test]
    fn without_a_type_the_first_byte_decides() {
        let deep = "[".repeat(40);
        assert!(!counter(None, 32).unwrap().feed(deep.as_bytes()));
        assert!(!counter(None, 32).unwrap().feed(format!("\u{feff} {deep}").as_bytes()));
        assert!(counter(None, 32).unwrap().feed(format!("\u{1f}\u{8b}{deep}").as_bytes()), "a file");
        assert!(!counter(None, 32).unwrap().feed(format!("{{}}{deep}").as_bytes()), "a second document");
        assert!(counter(None, 32).unwrap().feed(format!("{{}}PK{deep}").as_bytes()), "a file behind it");
        assert!(
            counter(Some("text/plain"), 32).is_none() && counter(Some("multipart/form-data; a=json"), 32).is_none()
        );
    }

    proptest! {
        #[test]
        fn equals_a_parser(text in r#"[\[\]{}",:\\a1 ]{0,40}"#, most in 1u32..6) {
            // Whatever a parser takes is judged by its depth.
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                let depth = depth_of(&value);
                prop_assert_eq!(counter(Some("application/json"), most).unwrap().feed(text.as_bytes()), depth <= most);
                prop_assert!(openings(text.as_bytes()) >= depth as usize);
            }
        }

        #[test]
        fn equals_the_depth_of_what_serde_writes(texts in prop::collection::vec(any::<String>(), 1..6), lists in prop::collection::vec(any::<bool>(), 0..12)) {
            let mut value = serde_json::json!(texts);
            for list in lists {
                value = if list { serde_json::json!([value, "]"]) } else { serde_json::json!({ "}[\"\\": value }) };
            }
            let (text, depth) = (value.to_string(), depth_of(&value));
            prop_assert!(counter(Some("application/json"), depth).unwrap().feed(text.as_bytes()));
            prop_assert!(depth == 1 || !counter(Some("application/json"), depth - 1).unwrap().feed(text.as_bytes()));
        }
    }
}
