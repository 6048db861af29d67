//! `@pm` and `@pmFromFile`: many phrases at once, in any case.

use std::path::{Path, PathBuf};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// A set of phrases.
#[derive(Debug, Clone)]
pub(crate) struct Phrases {
    automaton: AhoCorasick,
    pub(crate) words: Vec<Vec<u8>>,
}

impl Phrases {
    /// The words of an argument; `|41 42|` writes bytes in hexadecimal.
    pub(crate) fn from_words(argument: &str) -> Result<Phrases, String> {
        let mut bytes = Vec::new();
        let mut rest = argument;
        while let Some(open) = rest.find('|') {
            let Some(len) = rest[open + 1..].find('|') else { break };
            let inner = &rest[open + 1..open + 1 + len];
            let parsed: Option<Vec<u8>> =
                inner.split_whitespace().map(|h| u8::from_str_radix(h, 16).ok().filter(|_| h.len() == 2)).collect();
            match parsed.filter(|p| !p.is_empty()) {
                Some(parsed) => {
                    bytes.extend_from_slice(&rest.as_bytes()[..open]);
                    bytes.extend_from_slice(&parsed);
                    rest = &rest[open + len + 2..];
                }
                None => {
                    bytes.extend_from_slice(&rest.as_bytes()[..=open]);
                    rest = &rest[open + 1..];
                }
            }
        }
        bytes.extend_from_slice(rest.as_bytes());
        Phrases::new(bytes.split(|b| *b == b' ').filter(|w| !w.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// The lines of the files that the argument names, comments and empty lines left out.
    pub(crate) fn from_files(argument: &str, beside: Option<&Path>) -> Result<Phrases, (String, String)> {
        let mut words = Vec::new();
        for name in argument.split_whitespace() {
            let text = read_beside(name, beside)?;
            words.extend(
                text.split(|b| *b == b'\n')
                    .map(|l| l.trim_ascii())
                    .filter(|l| !l.is_empty() && !l.starts_with(b"#"))
                    .map(<[u8]>::to_vec),
            );
        }
        if words.is_empty() {
            return Err((
                format!("`{argument}` holds no phrases"),
                "a list without phrases never matches; remove the rule".to_owned(),
            ));
        }
        Phrases::new(words).map_err(|e| (e, String::new()))
    }

    fn new(words: Vec<Vec<u8>>) -> Result<Phrases, String> {
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&words)
            .map_err(|e| e.to_string())?;
        Ok(Phrases { automaton, words })
    }

    /// The first phrase found.
    pub(crate) fn find(&self, value: &[u8]) -> Option<(usize, usize)> {
        if self.words.is_empty() {
            return None;
        }
        self.automaton.find(value).map(|m| (m.start(), m.end()))
    }
}

/// Reads a data file that lies beside the rule file.
pub(super) fn read_beside(name: &str, beside: Option<&Path>) -> Result<Vec<u8>, (String, String)> {
    let path: PathBuf = match beside.and_then(Path::parent) {
        Some(folder) => folder.join(name),
        None => PathBuf::from(name),
    };
    std::fs::read(&path).map_err(|e| {
        (format!("cannot read `{}`: {e}", path.display()), "data files are looked for beside the rule file".to_owned())
    })
}
