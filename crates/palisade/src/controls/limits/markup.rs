//! How deep an XML body is, counted while it streams, as `depth.rs` does for JSON. What is not well-formed is the
//! application's to refuse; what is must not be deeper than it looks here.
//!
//! An internal subset of a document type may hold comments, entities and quotation marks that hide what follows from
//! whoever does not parse it: in such a document elements are only counted, never taken back.
//! Sources: XML 1.0 §2, §4.3.3 (UTF-16 begins with a mark, or is recognised by its first characters).

use super::names;

/// A counter of elements that lie in each other.
#[derive(Debug, Clone)]
pub(super) struct Markup {
    most: u32,
    depth: u32,
    state: State,
    wide: Wide,
    /// An internal subset was seen.
    loose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    /// Behind `<`.
    Open,
    /// In a start tag: the quotation mark that is open, and whether the last character was `/`.
    Start(Option<u8>, bool),
    End,
    /// Behind `<?`: whether the last character was `?`.
    Instruction(bool),
    /// Behind `<!`, with so many characters of `--` or `[CDATA[`.
    Bang(u8, u8),
    /// With so many `-` at its end so far.
    Comment(u8),
    /// With so many `]` at its end so far.
    Data(u8),
    /// A document type or another declaration: the quotation mark that is open.
    Declaration(Option<u8>),
}

/// How characters are made of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wide {
    /// Nothing seen yet.
    Unknown,
    /// The first byte of two that may say it.
    First(u8),
    /// ASCII is ASCII.
    No,
    /// UTF-16, which end first, and the first byte of a character whose second is still to come.
    Two { big: bool, half: Option<u8> },
}

const CDATA: &[u8] = b"[CDATA[";

impl Markup {
    /// A counter for a body of a media type; none where it is not XML.
    pub(super) fn of(kind: &str, most: u32) -> Option<Self> {
        let new = Self { most, depth: 0, state: State::Text, wide: Wide::Unknown, loose: false };
        names(kind, "xml").then_some(new)
    }

    /// Counts on. False: deeper than it may be.
    pub(super) fn feed(&mut self, piece: &[u8]) -> bool {
        piece.iter().all(|byte| self.byte(*byte))
    }

    fn byte(&mut self, byte: u8) -> bool {
        match self.wide {
            Wide::No => self.character(byte),
            Wide::Unknown => {
                self.wide = Wide::First(byte);
                true
            }
            Wide::First(first) => {
                let (wide, mark) = match (first, byte) {
                    (0xfe, 0xff) => (Wide::Two { big: true, half: None }, true),
                    (0xff, 0xfe) => (Wide::Two { big: false, half: None }, true),
                    (0, _) => (Wide::Two { big: true, half: None }, false),
                    (_, 0) => (Wide::Two { big: false, half: None }, false),
                    _ => (Wide::No, false),
                };
                self.wide = wide;
                mark || (self.byte(first) && self.byte(byte))
            }
            Wide::Two { big, half: None } => {
                self.wide = Wide::Two { big, half: Some(byte) };
                true
            }
            Wide::Two { big, half: Some(first) } => {
                self.wide = Wide::Two { big, half: None };
                let (high, low) = if big { (first, byte) } else { (byte, first) };
                // Markup is ASCII; every other character is one of a text or a name.
                self.character(if high == 0 { low } else { b'x' })
            }
        }
    }

    fn character(&mut self, byte: u8) -> bool {
        self.state = match (self.state, byte) {
            (State::Text, b'<') => State::Open,
            (State::Text, _) => State::Text,
            (State::Open, b'/') => State::End,
            (State::Open, b'?') => State::Instruction(false),
            (State::Open, b'!') => State::Bang(0, 0),
            (State::Open, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b':' | 0x80..) => State::Start(None, false),
            (State::Open, b'<') => State::Open,
            (State::Open, _) => State::Text,
            (State::Start(None, empty), b'>') => {
                if self.loose || !empty {
                    self.depth += 1;
                }
                if self.depth > self.most {
                    return false;
                }
                State::Text
            }
            (State::Start(None, _), b'"' | b'\'') => State::Start(Some(byte), false),
            (State::Start(None, _), other) => State::Start(None, other == b'/'),
            (State::Start(Some(quote), _), other) => State::Start((other != quote).then_some(quote), false),
            (State::End, b'>') => {
                if !self.loose {
                    self.depth = self.depth.saturating_sub(1);
                }
                State::Text
            }
            (State::End, _) => State::End,
            (State::Instruction(true), b'>') => State::Text,
            (State::Instruction(_), other) => State::Instruction(other == b'?'),
            (State::Bang(0, 1), b'-') => State::Comment(0),
            (State::Bang(0, 0), b'-') => State::Bang(0, 1),
            (State::Bang(data, 0), other) if CDATA.get(usize::from(data)) == Some(&other) => {
                if usize::from(data) + 1 == CDATA.len() { State::Data(0) } else { State::Bang(data + 1, 0) }
            }
            (State::Bang(..), b'>') => State::Text,
            (State::Bang(..), other) => self.declaration(None, other),
            (State::Comment(2..), b'>') => State::Text,
            (State::Comment(dashes), b'-') => State::Comment(dashes.saturating_add(1)),
            (State::Comment(_), _) => State::Comment(0),
            (State::Data(2..), b'>') => State::Text,
            (State::Data(brackets), b']') => State::Data(brackets.saturating_add(1)),
            (State::Data(_), _) => State::Data(0),
            (State::Declaration(quote), other) => self.declaration(quote, other),
        };
        true
    }

    fn declaration(&mut self, quote: Option<u8>, byte: u8) -> State {
        match (quote, byte) {
            (None, b'>') => State::Text,
            (None, b'"' | b'\'') => State::Declaration(Some(byte)),
            (None, b'[') => {
                self.loose = true;
                State::Text
            }
            (None, _) => State::Declaration(None),
            (Some(quote), other) => State::Declaration((other != quote).then_some(quote)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counter(most: u32) -> Markup {
        Markup::of("application/soap+xml", most).unwrap()
    }

    /// In all pieces alike.
    fn fits(bytes: &[u8], most: u32) -> bool {
        let whole = counter(most).feed(bytes);
        let mut split = counter(most);
        assert_eq!(bytes.chunks(1).all(|piece| split.feed(piece)), whole, "{:?}", String::from_utf8_lossy(bytes));
        whole
    }

    #[test]
    fn elements_count_where_they_are_elements() {
        for (text, depth) in [
            ("<a/>", 0),
            ("<a></a>", 1),
            ("<?xml version=\"1.0\"?><a><b c='<d><d>'/><e>x</e></a>", 2),
            ("<a><!-- <b><b> -- <b> --><c/></a>", 1),
            ("<a><![CDATA[<b><b>]]]><b>]]><c></c></a>", 3),
            ("<a x=\"/\"><b x='/'></b></a>", 2),
            ("<a><b/></a><!-- --><?x <y><y>?>", 1),
            ("<!DOCTYPE plist PUBLIC \"-//A//DTD '>\" \"http://x/<y>\"><plist><dict></dict><dict></dict></plist>", 2),
            ("<\u{e9}><\u{e9}></\u{e9}></\u{e9}>", 2),
            ("a < b <a>", 1),
        ] {
            assert!(fits(text.as_bytes(), depth), "{text}");
            assert!(depth == 0 || !fits(text.as_bytes(), depth - 1), "{text}");
            for big in [true, false] {
                let wide: Vec<u8> = format!("\u{feff}{text}")
                    .encode_utf16()
                    .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                    .collect();
                for body in [&wide[..], &wide[2..]] {
                    assert!(fits(body, depth) && (depth == 0 || !fits(body, depth - 1)), "{text} {big}");
                }
            }
        }
        assert!(fits(b"\xef\xbb\xbf<a></a>", 1) && fits(b"", 0) && fits(b"<", 0));
    }

    #[test]
    fn nothing_hides_elements() {
        let deep = "<a>".repeat(200);
        for start in [
            "",
            "<!DOCTYPE a [<!-- ' -->]>",
            "<!DOCTYPE a [<!ENTITY b \"'>\">]>",
            "<!DOCTYPE a SYSTEM \"x\" [ <?x ' ?> ]>",
            "<!DOCTYPE a ['",
            "<!-->-->",
            "<!---->",
            "<![CDATA[]]>",
            "<??>",
            "<b c=\"'\">",
        ] {
            assert!(!fits(format!("{start}{deep}").as_bytes(), 128), "{start}");
        }
        // Half of `∀` is a quotation mark, half of `㰀` a bracket.
        let wide: Vec<u8> =
            format!("\u{feff}<b c='\u{2200}'>\u{3c00}{deep}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(!fits(&wide, 128));
        // What would take elements back does not where an internal subset may hide it.
        assert!(!fits(format!("<!DOCTYPE a [ ]>{}", "<a><!--</a>-->".repeat(200)).as_bytes(), 128));
        assert!(!fits("<a><!--</a>-->".repeat(200).as_bytes(), 128));
        assert!(!fits("<a b='/>'>".repeat(200).as_bytes(), 128));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200), most in 0u32..9) {
            fits(&bytes, most);
        }

        #[test]
        fn equals_the_depth_of_what_was_built(shape in prop::collection::vec(0u8..4, 0..60)) {
            let (mut text, mut open, mut deepest) = (String::new(), 0_u32, 0);
            for step in shape {
                match step {
                    0 | 1 => {
                        text.push_str("<n a=\"/>'\">");
                        open += 1;
                        deepest = deepest.max(open);
                    }
                    2 if open > 0 => {
                        text.push_str("</n>");
                        open -= 1;
                    }
                    _ => text.push_str("<e/><!-- <n> --><![CDATA[<n>]]>t"),
                }
            }
            prop_assert!(fits(text.as_bytes(), deepest));
            prop_assert!(deepest == 0 || !fits(text.as_bytes(), deepest - 1));
        }
    }
}
