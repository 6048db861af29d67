//! A larger list of breached passwords, as a file of the operator's.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::digest;
use data_encoding::HEXUPPER;

/// The largest list of plain passwords that is held in memory, in bytes of its file.
const MAX_PLAIN_BYTES: u64 = 1 << 30;
/// The longest line of a sorted file of hashes: 40 digits, a colon, a count.
const MAX_LINE: usize = 64;

/// Breached passwords: a file in the format of Have I Been Pwned (SHA-1 in hexadecimal, sorted, with or without counts),
/// which is searched where it lies, or one of a password a line, of which eight bytes each are held in memory.
#[derive(Debug)]
pub struct Breached(List);

#[derive(Debug)]
enum List {
    Sorted { file: File, bytes: u64 },
    Plain(Vec<u64>),
}

impl Breached {
    /// Opens a list. Which of the two formats it has is seen from its first line.
    ///
    /// # Errors
    /// When the file cannot be read, is empty, or holds over 1 GiB of plain passwords.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let wrong = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        let mut first = [0; MAX_LINE];
        let read = file.read_at(&mut first, 0)?;
        let first = &first[..read];
        if first.trim_ascii().is_empty() {
            return wrong("the list of breached passwords is empty");
        }
        if is_hash_line(first) {
            return Ok(Self(List::Sorted { file, bytes }));
        }
        if bytes > MAX_PLAIN_BYTES {
            return wrong("a list of plain passwords over 1 GiB: use one of sorted SHA-1 hashes");
        }
        let mut marks = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if !line.is_empty() {
                marks.push(mark(line));
            }
        }
        marks.sort_unstable();
        marks.dedup();
        Ok(Self(List::Plain(marks)))
    }

    /// Whether a password is in the list, exactly as it is.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn contains(&self, password: &str) -> io::Result<bool> {
        match &self.0 {
            List::Plain(marks) => Ok(marks.binary_search(&mark(password.as_bytes())).is_ok()),
            List::Sorted { file, bytes } => {
                let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
                search(file, *bytes, HEXUPPER.encode(hash.as_ref()).as_bytes())
            }
        }
    }
}

fn is_hash_line(line: &[u8]) -> bool {
    let (hash, rest) = line.split_at_checked(40).unwrap_or_default();
    !hash.is_empty()
        && hash.iter().all(u8::is_ascii_hexdigit)
        && matches!(rest.first(), None | Some(b':' | b'\r' | b'\n'))
}

/// Half of half a hash: with a billion entries, one password in ten billion is taken for another.
fn mark(password: &[u8]) -> u64 {
    let hash = digest::digest(&digest::SHA256, password);
    hash.as_ref().iter().take(8).fold(0, |mark, &byte| mark << 8 | u64::from(byte))
}

/// Finds a line that begins with `wanted`, by halves.
fn search(file: &File, bytes: u64, wanted: &[u8]) -> io::Result<bool> {
    // Invariant: a line that matches begins in `low..high`.
    let (mut low, mut high) = (0, bytes);
    while low < high {
        let middle = low + (high - low) / 2;
        // The first line that begins at or after `middle`, looking back by one byte: that may be its line's end.
        let mut buffer = [0; 3 * MAX_LINE];
        let from = middle.saturating_sub(1);
        let read = read_full(file, &mut buffer, from)?;
        let skip = match middle {
            0 => Some(0),
            _ => buffer[..read].iter().position(|&byte| byte == b'\n').map(|end| end + 1),
        };
        let Some(line) = skip.and_then(|skip| buffer[..read].get(skip..)).filter(|line| line.len() >= 40) else {
            // No whole line from here on: it lies before, or this is not the format.
            high = middle;
            continue;
        };
        let mut found = [0; 40];
        found.copy_from_slice(&line[..40]);
        found.make_ascii_uppercase();
        match found.as_slice().cmp(wanted) {
            std::cmp::Ordering::Equal => return Ok(true),
            // The line begins after `low` in any case, so this ends.
            std::cmp::Ordering::Less => low = from + skip.unwrap_or(0) as u64 + 40,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Ok(false)
}

fn read_full(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn list(text: &str) -> io::Result<Breached> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("list");
        fs::write(&path, text)?;
        Breached::open(&path)
    }

    #[test]
    fn both_formats_and_both_line_ends() {
        let words: Vec<String> = (0..500).map(|n| format!("secret {n}")).collect();
        let mut hashes: Vec<String> = words
            .iter()
            .map(|word| HEXUPPER.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, word.as_bytes()).as_ref()))
            .collect();
        hashes.sort();
        let counted: Vec<String> = hashes.iter().enumerate().map(|(n, hash)| format!("{hash}:{}", n * n * n)).collect();
        for text in [
            words.join("\n"),
            words.join("\r\n") + "\r\n",
            hashes.join("\n"),
            hashes.join("\r\n") + "\r\n",
            counted.join("\n") + "\n",
            counted.join("\r\n"),
            counted.join("\n").to_lowercase(),
            hashes[..1].join(""),
            hashes[..2].join("\n"),
        ] {
            let list = list(&text).expect("a list");
            let found = words.iter().filter(|word| list.contains(word).expect("read")).count();
            let lines = text.lines().count();
            assert_eq!(found, lines, "{:.80}", text);
            for stranger in ["", "secret", "secret 500", "another", "secret 1 "] {
                assert!(!list.contains(stranger).expect("read"), "{stranger}");
            }
        }
        assert!(list("").is_err() && list("\n\n").is_err());
    }
}
