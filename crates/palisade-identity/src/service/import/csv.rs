//! Records of a CSV file (RFC 4180), one at a time, with the line where each begins.

use std::io::{self, BufRead};

/// The longest record, in bytes.
const MAX_RECORD: usize = 64 * 1024;
/// Fields of a record.
const MAX_FIELDS: usize = 200;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// Longer than 64 KiB, or more than 200 fields.
    #[error("the line is longer than 64 KiB, or has more than 200 fields")]
    Long,
    /// A quote inside a field without quotes, or something behind a closing quote.
    #[error("a quote stands where none may")]
    Quote,
    /// The file ends inside quotes.
    #[error("the file ends inside quotes")]
    Open,
    /// Not UTF-8.
    #[error("the text is not UTF-8")]
    Encoding,
}

/// Reads records.
pub(super) struct Records<R> {
    from: R,
    line: u64,
    bytes: u64,
}

/// A record, or what is wrong with it, and the line where it begins.
pub(super) type Record = (u64, Result<Vec<String>, BadRecord>);

impl<R: BufRead> Records<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, line: 0, bytes: 0 }
    }

    /// Bytes that were read so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next record; empty lines are none. `None`: the file is over.
    pub(super) fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            let mut text = Vec::new();
            let first = self.line + 1;
            loop {
                let (read, whole) = line(&mut self.from, &mut text, MAX_RECORD)?;
                self.bytes += read;
                if read == 0 {
                    if text.is_empty() {
                        return Ok(None);
                    }
                    return Ok(Some((first, Err(BadRecord::Open))));
                }
                self.line += 1;
                if !whole {
                    return Ok(Some((first, Err(BadRecord::Long))));
                }
                if !goes_on(&text) {
                    break;
                }
            }
            let text = text.strip_suffix(b"\n").unwrap_or(&text);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            let text = if first == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text };
            if text.is_empty() {
                continue;
            }
            let Ok(text) = std::str::from_utf8(text) else { return Ok(Some((first, Err(BadRecord::Encoding)))) };
            return Ok(Some((first, fields(text))));
        }
    }
}

/// Appends one line, newline included, and says how many bytes it had and whether it fits. One that does not fit is
/// read to its end and dropped.
pub(super) fn line(from: &mut impl BufRead, into: &mut Vec<u8>, most: usize) -> io::Result<(u64, bool)> {
    let (mut read, mut fits) = (0, true);
    loop {
        let buffer = match from.fill_buf() {
            Ok(buffer) => buffer,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(why) => return Err(why),
        };
        if buffer.is_empty() {
            return Ok((read, fits));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n').map(|place| place + 1);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        fits &= into.len() + part.len() <= most;
        if fits {
            into.extend_from_slice(part);
        }
        let length = part.len();
        from.consume(length);
        read += length as u64;
        if end.is_some() {
            return Ok((read, fits));
        }
    }
}

/// Whether a record ends inside of quotes, and so goes on in the next line. Quotes open at the beginning of a field only: one
/// that stands elsewhere is that line's mistake, and no other's.
fn goes_on(text: &[u8]) -> bool {
    let (mut inside, mut first) = (false, true);
    let mut bytes = text.iter().peekable();
    while let Some(byte) = bytes.next() {
        match (inside, byte) {
            (true, b'"') if bytes.peek() == Some(&&b'"') => drop(bytes.next()),
            (true, b'"') => inside = false,
            (true, _) => {}
            (false, b'"') => inside = first,
            (false, _) => {}
        }
        first = !inside && *byte == b',';
    }
    inside
}

fn fields(text: &str) -> Result<Vec<String>, BadRecord> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        if out.len() == MAX_FIELDS {
            return Err(BadRecord::Long);
        }
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if field.contains('"') {
                    return Err(BadRecord::Quote);
                }
                (field.to_owned(), after)
            }
        };
        out.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(out),
            None => return Err(BadRecord::Quote),
        }
    }
}

fn quoted_field(text: &str) -> Result<(String, &str), BadRecord> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').ok_or(BadRecord::Open)?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Ok((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<Record> {
        let mut records = Records::new(io::BufReader::with_capacity(3, text));
        std::iter::from_fn(|| records.next().expect("no error of a slice")).collect()
    }

    #[test]
    fn records() {
        let good = |line, fields: &[&str]| (line, Ok(fields.iter().map(|field| (*field).to_owned()).collect()));
        let text = b"\xef\xbb\xbfa,b\r\n\"x, y\",\"say \"\"hi\"\"\"\n\n\"two\nlines\",\nlast,";
        let expected = [
            good(1, &["a", "b"]),
            good(2, &["x, y", "say \"hi\""]),
            good(4, &["two\nlines", ""]),
            good(6, &["last", ""]),
        ];
        assert_eq!(read(text), expected);
        // A quote where none may stand costs its own line.
        let stray = b"7,O\"Neil,x\n8,ann,y\n9,\"b\"ob,z\n10,eve,\"w\"\n";
        let expected = [
            (1, Err(BadRecord::Quote)),
            good(2, &["8", "ann", "y"]),
            (3, Err(BadRecord::Quote)),
            good(4, &["10", "eve", "w"]),
        ];
        assert_eq!(read(stray), expected);
        assert_eq!(read(b""), []);
        assert_eq!(read(b"\n\n"), []);
    }

    #[test]
    fn what_is_no_record() {
        for (text, why) in [
            (&b"a\"b\"c"[..], BadRecord::Quote),
            (b"\"a\"b", BadRecord::Quote),
            (b"\"a", BadRecord::Open),
            (b"\"a\nb\nc", BadRecord::Open),
            (b"\xff", BadRecord::Encoding),
        ] {
            assert_eq!(read(text), [(1, Err(why))], "{text:?}");
        }
        assert_eq!(read(",".repeat(300).as_bytes()), [(1, Err(BadRecord::Long))]);
        let long = format!("{}\nnext", "x".repeat(MAX_RECORD + 1));
        assert_eq!(read(long.as_bytes()), [(1, Err(BadRecord::Long)), (2, Ok(vec!["next".into()]))], "and goes on");
    }
}
