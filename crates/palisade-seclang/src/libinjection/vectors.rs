//! libinjection's own tests, and a comparison with another port.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::sqli::fold;
use super::tokens::{Context, Token, Tokens, kind};

const ANSI: Context = Context { quote: 0, mysql: false };

/// Name, input and expectation of each file whose name begins so.
fn tests(prefix: &str) -> Option<Vec<(String, Vec<u8>, String)>> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/libinjection-vectors/tests");
    if !folder.exists() {
        println!("NOT RUN: {} is not there", folder.display());
        assert!(std::env::var_os("CI").is_none(), "CI must have {}", folder.display());
        return None;
    }
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with(prefix) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let find = |mark: &str| memchr::memmem::find(&bytes, mark.as_bytes()).unwrap();
        let input = bytes[find("--INPUT--") + 9..find("--EXPECTED--")].trim_ascii().to_vec();
        let expected = String::from_utf8_lossy(bytes[find("--EXPECTED--") + 12..].trim_ascii()).into_owned();
        out.push((name, input, expected));
    }
    out.sort();
    Some(out)
}

fn print(token: &Token) -> String {
    let text = String::from_utf8_lossy(token.value()).into_owned();
    let quote = |b: u8| if b == 0 { String::new() } else { char::from(b).to_string() };
    match token.kind {
        kind::STRING => format!("s {}{text}{}", quote(token.open), quote(token.close)),
        kind::VARIABLE => {
            format!("v {}{}{text}{}", "@".repeat(token.count.into()), quote(token.open), quote(token.close))
        }
        kind => format!("{} {text}", char::from(kind)),
    }
}

fn run(prefix: &str, least: usize, answer: impl Fn(&[u8]) -> String) {
    let Some(tests) = tests(prefix) else { return };
    let failed: Vec<String> = tests
        .iter()
        .filter_map(|(name, input, expected)| {
            let got = answer(input);
            (got.trim() != expected)
                .then(|| format!("{name}: {:?} gives {got:?}, wanted {expected:?}", String::from_utf8_lossy(input)))
        })
        .collect();
    println!("{prefix}: {} of {} pass", tests.len() - failed.len(), tests.len());
    assert!(tests.len() >= least, "only {} tests were found", tests.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn sql_tokens() {
    run("test-tokens", 230, |input| {
        let mut tokens = Tokens::new(input, ANSI);
        std::iter::from_fn(|| tokens.next_token()).map(|t| print(&t)).collect::<Vec<_>>().join("\n")
    });
}

#[test]
fn sql_folding() {
    run("test-folding", 118, |input| fold(input, ANSI).tokens().iter().map(print).collect::<Vec<_>>().join("\n"));
}

#[test]
fn sql_injections() {
    run("test-sqli", 50, |input| {
        super::sqli(input).map_or(String::new(), |f| String::from_utf8_lossy(f.as_bytes()).into_owned())
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_disturb_the_tokeniser(input in proptest::collection::vec(any::<u8>(), 0..80)) {
        super::sqli(&input);
    }

    /// The other port has a few known differences in strings with backslashes, so the alphabet leaves those out.
    #[test]
    fn agrees_with_another_port(input in prop_oneof![
        "([a-z]{1,5}|select|union|from|or|and|not|in|like|group by|--|#|/\\*|\\*/|'|\"|`|\\(|\\)|,|;|=|<|1|2.5|0x1f|@a|@@b|\\{|\\}| ){0,12}",
        "[ -\\[\\]-~]{0,40}",
    ]) {
        let other = libinjectionrs::detect_sqli(input.as_bytes());
        let own = super::sqli(input.as_bytes());
        prop_assert_eq!(own.is_some(), other.is_injection(), "{:?} {:?}", own, other);
    }
}
