//! `multipart/form-data` (RFC 7578), and what else is read like it, as it arrives. Fields become arguments; of files only
//! names and sizes are kept.

use memchr::memmem::Finder;

use super::ending::Ending;
use super::{Finding, Output};
use crate::store::List;

/// Longest header line of a part.
const HEADER_LINE: usize = 8 << 10;
/// Most header lines of a part.
const HEADER_LINES: usize = 32;
/// Most parts.
const PARTS: usize = 1000;
/// Most bytes of line ends behind the last boundary: some clients write an empty line, and none writes a page of them.
const LINE_ENDS: usize = 4;

/// What ModSecurity's `MULTIPART_…` variables say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) error: bool,
    pub(crate) boundary_quoted: bool,
    pub(crate) boundary_whitespace: bool,
    pub(crate) data_before: bool,
    pub(crate) data_after: bool,
    pub(crate) header_folding: bool,
    pub(crate) invalid_header_folding: bool,
    pub(crate) lf_line: bool,
    pub(crate) crlf_line: bool,
    pub(crate) missing_semicolon: bool,
    pub(crate) invalid_quoting: bool,
    pub(crate) invalid_part: bool,
    pub(crate) unmatched_boundary: bool,
}

impl Flags {
    /// `MULTIPART_STRICT_ERROR`.
    pub(crate) fn strict_error(&self) -> bool {
        self.error
            || self.boundary_quoted
            || self.boundary_whitespace
            || self.data_before
            || self.data_after
            || self.header_folding
            || self.invalid_header_folding
            || self.lf_line
            || self.missing_semicolon
            || self.invalid_quoting
            || self.invalid_part
    }
}

/// A push parser of one body.
#[derive(Debug)]
pub(crate) struct Reader {
    /// `--` and the boundary.
    delimiter: Finder<'static>,
    state: State,
    /// The line that is being read, without its end.
    line: Vec<u8>,
    /// The end of the line before, which belongs to the boundary if one follows.
    held: &'static [u8],
    headers: Vec<Vec<u8>>,
    value: Vec<u8>,
    part: Part,
    parts: usize,
    files: usize,
    /// Bytes of fields so far, and of the names of files.
    fields: usize,
    /// The beginning of the line was handed on already: what is left of it is no boundary.
    continued: bool,
    ending: Ending,
    /// Bytes up to the end of the line that is read, or of what came.
    taken: usize,
    /// Bytes up to the delimiter behind the last part that is whole, that one included.
    completed: usize,
    /// Bytes behind the last boundary.
    behind: usize,
}

#[derive(Debug, Default)]
struct Part {
    name: Vec<u8>,
    filename: Option<Vec<u8>>,
    size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    Headers,
    Data,
    Epilogue,
    Broken,
}

/// Whether a transfer encoding changes nothing (RFC 2045 section 6.2).
fn is_identity(encoding: &[u8]) -> bool {
    [&b"7bit"[..], b"8bit", b"binary"].iter().any(|none| encoding.trim_ascii().eq_ignore_ascii_case(none))
}

/// The boundary of a `Content-Type`, and what is odd about it.
pub(crate) fn boundary(content_type: &[u8], flags: &mut Flags) -> Option<Vec<u8>> {
    let lower = content_type.to_ascii_lowercase();
    // A parameter, not a part of another one's value; two of them are two readings.
    let mut found = memchr::memmem::find_iter(&lower, b"boundary")
        .filter(|at| matches!(lower[..*at].trim_ascii_end().last(), Some(b';' | b',')));
    let at = found.next()?;
    if found.next().is_some() {
        return None;
    }
    let rest = &content_type[at + 8..];
    let trimmed = rest.trim_ascii_start();
    if trimmed.len() != rest.len() {
        flags.boundary_whitespace = true;
    }
    let value = trimmed.strip_prefix(b"=")?;
    let inner = value.trim_ascii_start();
    if inner.len() != value.len() {
        flags.boundary_whitespace = true;
    }
    let name = if let Some(quoted) = inner.strip_prefix(b"\"") {
        flags.boundary_quoted = true;
        let end = quoted.iter().position(|b| *b == b'"')?;
        &quoted[..end]
    } else {
        let end = inner.iter().position(|b| matches!(b, b';' | b',' | b' ' | b'\t')).unwrap_or(inner.len());
        &inner[..end]
    };
    // RFC 2046 5.1.1.
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(b);
    if name.is_empty() || name.len() > 70 || !name.iter().all(plain) || name.ends_with(b" ") {
        return None;
    }
    Some(name.to_vec())
}

impl Reader {
    pub(crate) fn new(boundary: Option<Vec<u8>>, out: &mut Output<'_>) -> Reader {
        let state = if boundary.is_some() { State::Preamble } else { State::Broken };
        if boundary.is_none() {
            out.flags.error = true;
            out.find(Finding::MultipartBoundary);
        }
        let mut delimiter = b"--".to_vec();
        delimiter.extend_from_slice(&boundary.unwrap_or_default());
        Reader {
            delimiter: Finder::new(&delimiter).into_owned(),
            state,
            line: Vec::new(),
            held: b"",
            headers: Vec::new(),
            value: Vec::new(),
            part: Part::default(),
            parts: 0,
            files: 0,
            fields: 0,
            continued: false,
            ending: Ending::new(&delimiter),
            taken: 0,
            completed: 0,
            behind: 0,
        }
    }

    /// How many bytes at the end of what came are the last delimiter, may become it, or lie behind it.
    pub(crate) fn undecided(&self) -> usize {
        self.ending.undecided()
    }

    /// How many bytes from the beginning on are whole parts and the delimiter behind them.
    pub(crate) fn completed(&self) -> usize {
        self.completed
    }

    pub(crate) fn feed(&mut self, chunk: &[u8], out: &mut Output<'_>) {
        self.ending.feed(chunk);
        let mut rest = chunk;
        while !rest.is_empty() && self.state != State::Broken {
            if self.state == State::Epilogue {
                return self.epilogue(rest, out);
            }
            match memchr::memchr(b'\n', rest) {
                Some(at) => {
                    self.line.extend_from_slice(&rest[..at]);
                    rest = &rest[at + 1..];
                    self.taken = self.taken.saturating_add(at + 1);
                    let ending: &'static [u8] = if self.line.last() == Some(&b'\r') {
                        self.line.pop();
                        out.flags.crlf_line = true;
                        b"\r\n"
                    } else {
                        b"\n"
                    };
                    let line = std::mem::take(&mut self.line);
                    self.line(&line, ending, out);
                    self.line = line;
                    self.line.clear();
                }
                None => {
                    self.line.extend_from_slice(rest);
                    self.taken = self.taken.saturating_add(rest.len());
                    rest = &[];
                    // A boundary is short; what is longer can be handed on before its line ends. As much as a boundary
                    // stays, so that none is cut in two; the last byte may be the CR of the line's end.
                    if self.line.len() > HEADER_LINE {
                        match self.state {
                            State::Data => {
                                let mut line = std::mem::take(&mut self.line);
                                self.look_alike(&line, out);
                                let cut = line.len().saturating_sub(self.delimiter.needle().len());
                                self.data(&line[..cut], b"", out);
                                line.drain(..cut);
                                self.line = line;
                                self.continued = true;
                            }
                            State::Headers => self.too_long(out),
                            // No boundary is as long, so it need not end first.
                            State::Preamble => {
                                self.preamble(out);
                                self.line.truncate(HEADER_LINE);
                            }
                            State::Epilogue | State::Broken => {}
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn finish(mut self, out: &mut Output<'_>) {
        if !self.line.is_empty() && self.state != State::Broken {
            let line = std::mem::take(&mut self.line);
            self.line(&line, b"", out);
        }
        match self.state {
            State::Epilogue => {}
            State::Broken => out.flags.error = true,
            _ => {
                if self.state == State::Data {
                    self.end_part(out);
                }
                out.flags.error = true;
                out.find(Finding::MultipartFraming("ends before its last boundary"));
            }
        }
    }

    fn line(&mut self, line: &[u8], ending: &'static [u8], out: &mut Output<'_>) {
        if self.continued && self.state == State::Data {
            self.look_alike(line, out);
            self.continued = false;
            self.data(line, ending, out);
            return;
        }
        self.continued = false;
        if let Some(tail) = line.strip_prefix(self.delimiter.needle()) {
            match tail {
                b"" | b"--" => {
                    if ending == b"\n" {
                        out.flags.lf_line = true;
                        out.find(Finding::MultipartFraming("has lines that end in LF alone"));
                    }
                    if self.state == State::Data {
                        self.end_part(out);
                        if tail.is_empty() {
                            self.completed = self.taken.saturating_sub(ending.len());
                        }
                    } else if self.state == State::Headers {
                        out.flags.invalid_part = true;
                        out.find(Finding::MultipartFraming("has a part without content"));
                    }
                    if self.state != State::Broken {
                        self.state = if tail.is_empty() { State::Headers } else { State::Epilogue };
                    }
                    self.headers.clear();
                    return;
                }
                _ => {
                    // Some parsers take a prefix of the line for the boundary.
                    if self.state != State::Preamble || !tail.iter().all(u8::is_ascii_alphanumeric) {
                        out.flags.unmatched_boundary = true;
                    }
                    out.find(Finding::MultipartFraming("has a line that begins like the boundary"));
                }
            }
        } else {
            self.look_alike(line, out);
        }
        match self.state {
            State::Preamble => self.preamble(out),
            State::Headers => self.header(line, ending, out),
            State::Data => self.data(line, ending, out),
            State::Epilogue | State::Broken => {}
        }
    }

    fn preamble(&self, out: &mut Output<'_>) {
        out.flags.data_before = true;
        out.find(Finding::MultipartFraming("has text before its first boundary"));
    }

    /// Behind the last boundary there is the end of a line, if anything. What else comes is said with its first byte, not
    /// with the end of its line: whoever waits for the end of the body would wait for that.
    fn epilogue(&mut self, rest: &[u8], out: &mut Output<'_>) {
        self.behind = self.behind.saturating_add(rest.len());
        if self.behind > LINE_ENDS || rest.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            out.flags.data_after = true;
            out.find(Finding::MultipartFraming("has text after its last boundary"));
        }
    }

    /// Notes what is no boundary here, and one to somebody else: some parsers look for it anywhere, some take a CR for the
    /// end of a line. `line` may be a piece of one.
    fn look_alike(&self, line: &[u8], out: &mut Output<'_>) {
        if !matches!(self.state, State::Headers | State::Data) {
            return;
        }
        if self.delimiter.find(line).is_some() {
            out.flags.unmatched_boundary = true;
            out.find(Finding::MultipartFraming("has its boundary inside a line"));
        } else if self.state == State::Data
            && !self.continued
            && line.starts_with(b"--")
            && line.get(2).is_some_and(|byte| *byte != b'-')
        {
            // As ModSecurity: it looks like another boundary.
            out.flags.unmatched_boundary = true;
        }
    }

    fn header(&mut self, line: &[u8], ending: &'static [u8], out: &mut Output<'_>) {
        if ending == b"\n" {
            out.flags.lf_line = true;
            out.find(Finding::MultipartFraming("has lines that end in LF alone"));
        }
        // To some parsers a CR alone ends a line, to some a form feed does, and to others a NUL ends the text.
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            out.find(Finding::MultipartHeader("has a control character"));
        }
        if line.is_empty() {
            self.begin_part(out);
        } else if matches!(line[0], b' ' | b'\t') {
            out.flags.header_folding = true;
            out.find(Finding::MultipartHeader("is folded over two lines"));
            match self.headers.last_mut() {
                Some(last) if last.len() + line.len() <= HEADER_LINE => last.extend_from_slice(line),
                _ => {
                    out.flags.invalid_header_folding = true;
                    self.broken("has a header that begins with a space", out);
                }
            }
        } else if self.headers.len() >= HEADER_LINES || line.len() > HEADER_LINE {
            self.too_long(out);
        } else {
            self.headers.push(line.to_vec());
        }
    }

    fn begin_part(&mut self, out: &mut Output<'_>) {
        self.parts += 1;
        if self.parts > PARTS {
            out.flags.error = true;
            out.find(Finding::TooManyParts { limit: PARTS });
            self.state = State::Broken;
            return;
        }
        self.part = Part::default();
        self.value.clear();
        self.held = b"";
        self.state = State::Data;
        let headers = std::mem::take(&mut self.headers);
        let mut disposition = None;
        for header in &headers {
            let Some(colon) = header.iter().position(|b| *b == b':') else {
                out.flags.invalid_part = true;
                out.find(Finding::MultipartHeader("has no colon"));
                continue;
            };
            let name = header[..colon].trim_ascii_end();
            if name.len() != colon || name.is_empty() {
                out.find(Finding::MultipartHeader("has a space before its colon"));
            }
            match name.to_ascii_lowercase().as_slice() {
                b"content-disposition" => {
                    if disposition.is_some() {
                        out.find(Finding::MultipartHeader("is there twice"));
                    }
                    disposition = Some(&header[colon + 1..]);
                }
                // Old clients say so of what they send as it is.
                b"content-transfer-encoding" if is_identity(&header[colon + 1..]) => {}
                b"content-transfer-encoding" => out.find(Finding::MultipartHeader("asks for a transfer encoding")),
                b"content-type" => {
                    let lower = header.to_ascii_lowercase();
                    if memchr::memmem::find(&lower, b"multipart/").is_some() {
                        out.find(Finding::MultipartHeader("holds another multipart body"));
                    }
                    out.charsets(&lower, b"charset");
                }
                _ => {}
            }
        }
        match disposition {
            Some(text) => self.disposition(text, out),
            None => {
                out.flags.invalid_part = true;
                out.find(Finding::MultipartHeader("`Content-Disposition` is missing"));
            }
        }
        // One name for all of them: copies would make of a long name and many short lines thirty times the body.
        let name = out.store.push(&self.part.name);
        for header in &headers {
            let header = out.store.push(header);
            out.store.add(List::PartHeaders, name, header);
        }
        self.headers = headers;
    }

    /// `form-data; name="a"; filename="b"`.
    fn disposition(&mut self, text: &[u8], out: &mut Output<'_>) {
        let text = text.trim_ascii();
        let end = text.iter().position(|b| matches!(b, b';' | b' ' | b'\t')).unwrap_or(text.len());
        if !text[..end].eq_ignore_ascii_case(b"form-data") {
            out.flags.invalid_part = true;
            out.find(Finding::MultipartHeader("is not `form-data`"));
        }
        let mut rest = text[end..].trim_ascii_start();
        let (mut names, mut extended) = (0, None::<Vec<u8>>);
        while !rest.is_empty() {
            match rest.strip_prefix(b";") {
                Some(after) => rest = after.trim_ascii_start(),
                None => {
                    out.flags.missing_semicolon = true;
                    out.find(Finding::MultipartHeader("lacks a semicolon"));
                }
            }
            if rest.is_empty() {
                break;
            }
            let stop = rest.iter().position(|b| matches!(b, b'=' | b';' | b' ' | b'\t')).unwrap_or(rest.len());
            let key = rest[..stop].to_ascii_lowercase();
            let after = rest[stop..].trim_ascii_start();
            let Some(value) = after.strip_prefix(b"=") else {
                out.flags.invalid_part = true;
                out.find(Finding::MultipartHeader("has a parameter without a value"));
                rest = if after.len() < rest.len() { after } else { &rest[1..] };
                continue;
            };
            let (value, tail) = parameter(value.trim_ascii_start(), out);
            rest = tail.trim_ascii_start();
            match key.as_slice() {
                b"name" => {
                    names += 1;
                    if names > 1 {
                        out.flags.invalid_part = true;
                        out.find(Finding::MultipartHeader("has two names"));
                    }
                    self.part.name = value;
                }
                b"filename" => {
                    if self.part.filename.is_some() {
                        out.flags.invalid_part = true;
                        out.find(Finding::MultipartHeader("has two file names"));
                    }
                    self.part.filename = Some(value);
                }
                // RFC 2231: in another charset (`filename*`), or in pieces (`filename*0`), which some parsers put together
                // and others do not know.
                key if key.contains(&b'*') => {
                    out.find(Finding::MultipartHeader("has an extended parameter"));
                    if key.starts_with(b"filename*") {
                        extended.get_or_insert_default().extend_from_slice(&value);
                    }
                }
                _ => {}
            }
        }
        if self.part.filename.is_none() {
            self.part.filename = extended;
        }
        if names == 0 {
            out.flags.invalid_part = true;
            out.find(Finding::MultipartHeader("gives the part no name"));
        }
        if std::str::from_utf8(&self.part.name).is_err()
            || self.part.filename.as_ref().is_some_and(|f| std::str::from_utf8(f).is_err())
        {
            out.find(Finding::NotUtf8);
        }
        if self.part.name.eq_ignore_ascii_case(b"_charset_") {
            out.find(Finding::FormCharset);
        }
    }

    fn data(&mut self, line: &[u8], ending: &'static [u8], out: &mut Output<'_>) {
        let held = std::mem::replace(&mut self.held, ending);
        self.part.size += held.len() + line.len();
        if self.part.filename.is_none() {
            let room = out.limits.value.saturating_sub(self.value.len());
            if held.len() + line.len() > room {
                out.find(Finding::ValueTooLong { limit: out.limits.value });
            }
            self.value.extend(held.iter().chain(line).take(room));
        }
    }

    fn end_part(&mut self, out: &mut Output<'_>) {
        if self.held == b"\n" {
            out.flags.lf_line = true;
            out.find(Finding::MultipartFraming("has lines that end in LF alone"));
        }
        self.held = b"";
        let part = std::mem::take(&mut self.part);
        // A part takes its names and some room of ours, however little is in it.
        let names = part.name.len() + part.filename.as_ref().map_or(0, Vec::len) + 64;
        self.fields = self.fields.saturating_add(self.value.len() + names);
        if self.fields > out.limits.fields {
            out.find(Finding::BodyTooLong { limit: out.limits.fields });
            self.state = State::Broken;
            return;
        }
        match part.filename {
            Some(filename) => {
                if filename.is_empty() && part.size > 0 {
                    // Browsers send this for a file that nobody chose, without content: some parsers call it a field.
                    out.find(Finding::MultipartHeader("names no file, and has content"));
                }
                self.files += 1;
                out.store.add_bytes(List::Files, &part.name, &filename);
                out.store.add_bytes(List::FilesNames, &filename, &part.name);
                out.store.add_bytes(List::FilesSizes, &part.name, part.size.to_string().as_bytes());
            }
            None => {
                let name = out.store.push(&part.name);
                let value = out.value(&self.value);
                if !out.argument(List::ArgsPost, name, value) {
                    self.state = State::Broken;
                }
            }
        }
        self.value.clear();
    }

    fn too_long(&mut self, out: &mut Output<'_>) {
        out.flags.error = true;
        out.find(Finding::PartHeaderTooLong { lines: HEADER_LINES, bytes: HEADER_LINE });
        self.state = State::Broken;
    }

    fn broken(&mut self, what: &'static str, out: &mut Output<'_>) {
        out.flags.error = true;
        out.flags.invalid_part = true;
        out.find(Finding::MultipartFraming(what));
        self.state = State::Broken;
    }
}

/// A quoted or bare parameter value and what follows it.
fn parameter<'a>(text: &'a [u8], out: &mut Output<'_>) -> (Vec<u8>, &'a [u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        if text.starts_with(b"'") {
            out.flags.invalid_quoting = true;
            out.find(Finding::MultipartHeader("is quoted in a way that parsers read differently"));
        }
        let end = text.iter().position(|b| matches!(b, b';' | b' ' | b'\t')).unwrap_or(text.len());
        return (text[..end].to_vec(), &text[end..]);
    };
    let mut value = Vec::new();
    let mut i = 0;
    while let Some(&b) = quoted.get(i) {
        match b {
            b'"' => return (value, &quoted[i + 1..]),
            // Browsers write `%22`; a backslash before anything but a quote or itself is part of a Windows path.
            b'\\' if matches!(quoted.get(i + 1), Some(b'"' | b'\\')) => {
                out.find(Finding::MultipartHeader("is quoted in a way that parsers read differently"));
                value.push(quoted[i + 1]);
                i += 1;
            }
            b => value.push(b),
        }
        i += 1;
    }
    out.flags.invalid_quoting = true;
    out.find(Finding::MultipartHeader("has a quote that does not end"));
    (value, &[])
}
