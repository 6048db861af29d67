use proptest::prelude::*;
use serde_json::{Map, Number, Value};

use super::*;

/// Builds the value that the events describe; of a key that is there twice the last counts.
#[derive(Default)]
struct Tree {
    open: Vec<(Option<String>, Value)>,
    key: Option<String>,
    done: Option<Value>,
    oddities: Vec<Oddity>,
    /// Values after which it wants no more.
    most: Option<usize>,
}

impl Tree {
    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.done = Some(value),
            Some((_, Value::Array(items))) => items.push(value),
            Some((_, Value::Object(members))) => {
                members.insert(self.key.take().unwrap(), value);
            }
            Some(_) => unreachable!("only arrays and objects are open"),
        }
    }
}

impl Sink for Tree {
    fn event(&mut self, event: Event<'_>) -> ControlFlow<()> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match event {
            Event::BeginObject => self.open.push((self.key.take(), Value::Object(Map::new()))),
            Event::BeginArray => self.open.push((self.key.take(), Value::Array(Vec::new()))),
            Event::EndObject | Event::EndArray => {
                let (key, value) = self.open.pop().unwrap();
                self.key = key;
                self.put(value);
            }
            Event::Key(key) => self.key = Some(text(key)),
            Event::String(value) => self.put(Value::String(text(value))),
            Event::Number(number) => {
                let number: Option<Number> = serde_json::from_slice(number).ok();
                self.put(number.map_or(Value::Null, Value::Number));
            }
            Event::Bool(value) => self.put(Value::Bool(value)),
            Event::Null => self.put(Value::Null),
        }
        match &mut self.most {
            Some(0) => ControlFlow::Break(()),
            Some(most) => {
                *most -= 1;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Continue(()),
        }
    }

    fn oddity(&mut self, oddity: Oddity) {
        self.oddities.push(oddity);
    }
}

const WIDE: Limits = Limits { depth: 100, text: 1 << 20 };

fn read_in(pieces: &[&[u8]], limits: Limits) -> (Result<(), Stop>, Tree) {
    let mut tree = Tree::default();
    let mut reader = Reader::new(limits);
    for piece in pieces {
        let fed = reader.feed(piece, &mut tree);
        if fed.is_err() {
            assert_eq!(reader.feed(b" ", &mut tree), fed, "it stays stopped");
            return (fed, tree);
        }
    }
    (reader.finish(&mut tree), tree)
}

fn read(text: &[u8]) -> (Result<(), Stop>, Tree) {
    read_in(&[text], WIDE)
}

#[test]
fn what_parsers_disagree_about_is_odd() {
    for (text, oddity) in [
        (&b"{\"a\":1,\"\\u0061\":2}"[..], Oddity::DuplicateKey),
        (b"\xef\xbb\xbf{}", Oddity::ByteOrderMark),
        (b"\"\\ud800\"", Oddity::LoneSurrogate),
        (b"\"\\udc00\\ud800x\"", Oddity::LoneSurrogate),
        (b"\"\\ud800\\n\"", Oddity::LoneSurrogate),
        (b"\"\xff\"", Oddity::NotUtf8),
        (b"\"\xed\xa0\x80\"", Oddity::NotUtf8),
    ] {
        let (result, tree) = read(text);
        assert_eq!(result, Ok(()), "{}", text.escape_ascii());
        assert!(tree.oddities.contains(&oddity), "{}: {:?}", text.escape_ascii(), tree.oddities);
    }
    let (result, tree) = read(b" {\"\\ud83d\\ude00\":[\"\\/\",1e-1,{}, [] ,null,true] , \"a\":{\"a\":false}} ");
    assert_eq!((result, tree.oddities.len()), (Ok(()), 0));
    let wanted = serde_json::json!({ "😀": ["/", 0.1, {}, [], null, true], "a": { "a": false } });
    assert_eq!(tree.done, Some(wanted));
}

#[test]
fn what_is_no_json_stops() {
    for (text, at) in [
        ("", 0),
        ("[1,]", 3),
        ("{\"a\":1,}", 7),
        ("{\"a\":NaN}", 5),
        ("[01]", 3),
        ("[1.]", 3),
        ("[-]", 2),
        ("'a'", 0),
        ("\"a\nb\"", 2),
        ("{\"a\" 1}", 5),
        ("[1 2]", 3),
        ("{} {}", 3),
        ("tru", 3),
        ("truex", 5),
        ("nulll", 5),
        ("[+1]", 1),
        ("\"\\x\"", 2),
        ("\"\\u12g4\"", 5),
        ("\u{feff}", 3),
        ("]", 0),
        ("{1:2}", 1),
        ("[1}", 2),
        ("\"a", 2),
    ] {
        assert_eq!(read(text.as_bytes()).0, Err(Stop::Syntax { at }), "{text}");
    }
    assert_eq!(read_in(&[b"[[", b"["], Limits { depth: 2, text: 9 }).0, Err(Stop::TooDeep));
    assert_eq!(read_in(&[b"[[1],[2]]"], Limits { depth: 2, text: 9 }).0, Ok(()));
    let mut tree = Tree { most: Some(2), ..Tree::default() };
    assert_eq!(Reader::new(WIDE).feed(b"[1,2,3]", &mut tree), Err(Stop::Sink));
}

#[test]
fn long_texts_are_cut() {
    let limits = Limits { depth: 9, text: 4 };
    for text in ["\"abcdefg\"", "123456", "{\"abcdefg\":1}"] {
        let (result, tree) = read_in(&[text.as_bytes()], limits);
        assert_eq!(result, Ok(()), "{text}");
        assert!(tree.oddities.contains(&Oddity::TextTooLong), "{text}");
        assert!(!tree.done.unwrap().to_string().contains("abcde"), "{text}");
    }
    assert!(read_in(&[b"\"abcd\""], limits).1.oddities.is_empty());
}

#[test]
fn of_many_keys_each_is_known() {
    for many in [2, 24, 25, 26, 1000] {
        let keys: Vec<String> = (0..many).map(|n| format!("\"k{n}\":{n}")).collect();
        let text = format!("{{{}}}", keys.join(","));
        assert_eq!(read(text.as_bytes()).1.oddities, []);
        for again in [0, many / 2, many - 1] {
            let text = format!("{{{},\"k{again}\":0}}", keys.join(","));
            assert_eq!(read(text.as_bytes()).1.oddities, [Oddity::DuplicateKey], "{many} {again}");
        }
        let nested = format!("{{\"k0\":{text},\"k1\":{text}}}");
        assert_eq!(read(nested.as_bytes()).1.oddities, []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Without an oddity, everything that is read is what another parser reads, and nothing else is.
    #[test]
    fn equals_another_parser(text in prop_oneof![
        r#"[\[\]{}",:\\a0-9eE.+ -]{0,30}"#,
        r#"([\[\]{},:]|"[a-c]?"|"\\[u"n/x]"|"\\ud8[0-9]{2}"|"\\udc00"|-?[0-9]{1,3}|1\.5|1e[0-9]|true|false|null| ){0,20}"#,
    ]) {
        let (result, tree) = read(text.as_bytes());
        match serde_json::from_str::<Value>(&text) {
            Ok(value) => {
                prop_assert_eq!(result, Ok(()));
                prop_assert_eq!(tree.done, Some(value));
            }
            // The other parser keeps numbers as `f64`: one that is too large for it is JSON all the same.
            Err(why) if why.to_string().starts_with("number out of range") => {}
            Err(_) => prop_assert!(result.is_err() || tree.oddities.contains(&Oddity::LoneSurrogate), "{}", text),
        }
    }

    #[test]
    fn pieces_make_no_difference(text in r#"[\[\]{}",:\\au0-9d ]{0,30}"#, cuts in prop::collection::vec(0usize..31, 0..6)) {
        let bytes = text.as_bytes();
        let whole = read(bytes);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let parts = read_in(&pieces, WIDE);
        prop_assert_eq!((whole.0, whole.1.done, whole.1.oddities), (parts.0, parts.1.done, parts.1.oddities));
    }
}
