//! Heads of requests and answers: judged line by line, each line once, no matter in how many pieces they arrive.

use http::uri::{PathAndQuery, Scheme, Uri};

use crate::scan::{self, Line};
use crate::{Violation, wide};

/// Bounds of a head. All of them count before anything is allocated for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole head, or of a trailer section. Default 64 KiB.
    pub head_bytes: usize,
    /// Field lines. Default 256.
    pub headers: usize,
    /// Bytes of a request target. Default 16 KiB; the `http` crate cannot hold more than 65,534.
    pub target_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head_bytes: 64 * 1024, headers: 256, target_bytes: 16 * 1024 }
    }
}

/// How the end of a message's body is known from its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Neither `Content-Length` nor `Transfer-Encoding`: a request without body, an answer that ends with its connection.
    Unframed,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What a head says about its message: as much as framing and connection need, nothing for policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadFacts {
    /// Bytes of the head with its empty line (and the one before the request line, where there was one).
    pub len: usize,
    /// 0 or 1: the minor version.
    pub minor_version: u8,
    /// The body.
    pub framing: Framing,
    /// `Connection` names `close`.
    pub close: bool,
    /// `Connection` names `keep-alive`.
    pub keep_alive: bool,
    /// A request for a tunnel: an `Upgrade` field with `Connection: upgrade`, or the method CONNECT.
    pub upgrade: bool,
    /// There is an `Expect` field.
    pub expect: bool,
    /// Field lines.
    pub headers: usize,
}

impl HeadFacts {
    /// Whether the connection may carry another message after this one (RFC 9112 §9.3).
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        !self.close && (self.minor_version == 1 || self.keep_alive)
    }
}

/// Judges one whole request head.
///
/// # Errors
/// What is wrong with it; [`Violation::Incomplete`] when the empty line at its end is missing.
pub fn check(bytes: &[u8]) -> Result<HeadFacts, Violation> {
    RequestScan::new().advance(bytes, &Limits::default())?.ok_or(Violation::Incomplete)
}

/// The facts of the field lines, as far as they were read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fields {
    length: Option<u64>,
    coded: bool,
    close: bool,
    keep_alive: bool,
    upgrade_token: bool,
    upgrade_field: bool,
    expect: bool,
    /// `Connection` names something else.
    pub(crate) other_token: bool,
    count: usize,
}

impl Fields {
    /// Takes one line. Most names differ from the ones that matter in their length already.
    #[inline]
    pub(crate) fn note(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<(), Violation> {
        const LENGTHS: u32 = 1 << 6 | 1 << 7 | 1 << 10 | 1 << 14 | 1 << 17;
        self.count += 1;
        if self.count > limits.headers {
            return Err(Violation::TooManyHeaders);
        }
        if name.len() > 17 || LENGTHS >> name.len() & 1 == 0 {
            return Ok(());
        }
        self.note_known(name, value)
    }

    fn note_known(&mut self, name: &[u8], value: &[u8]) -> Result<(), Violation> {
        match name.len() {
            6 if wide::is(name, b"expect") => self.expect = true,
            7 if wide::is(name, b"upgrade") => self.upgrade_field = true,
            10 if wide::is(name, b"connection") => self.note_connection(value),
            14 if wide::is(name, b"content-length") => {
                if self.length.is_some() {
                    return Err(Violation::DuplicateContentLength);
                }
                self.length = Some(content_length(value)?);
            }
            17 if wide::is(name, b"transfer-encoding") => {
                // A second line makes a list of two codings; `chunked` must be applied once (RFC 9112 §7.1).
                if self.coded || !wide::is(value, b"chunked") {
                    return Err(Violation::UnknownTransferCoding);
                }
                self.coded = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        // What nearly every client and server says.
        if wide::is(value, b"keep-alive") {
            self.keep_alive = true;
            return;
        }
        for token in value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) {
            match token.len() {
                5 if wide::is(token, b"close") => self.close = true,
                7 if wide::is(token, b"upgrade") => self.upgrade_token = true,
                10 if wide::is(token, b"keep-alive") => self.keep_alive = true,
                _ => self.other_token = true,
            }
        }
    }

    fn facts(&self, len: usize, minor_version: u8, connect: bool) -> Result<HeadFacts, Violation> {
        let framing = match (self.length, self.coded) {
            (Some(_), true) => return Err(Violation::ClAndTe),
            (_, true) if minor_version == 0 => return Err(Violation::ChunkedInHttp10),
            (_, true) => Framing::Chunked,
            (Some(length), _) => Framing::Length(length),
            (None, _) => Framing::Unframed,
        };
        Ok(HeadFacts {
            len,
            minor_version,
            framing,
            close: self.close,
            keep_alive: self.keep_alive,
            upgrade: connect || (minor_version == 1 && self.upgrade_field && self.upgrade_token),
            expect: self.expect,
            headers: self.count,
        })
    }
}

/// One plain number. 18 digits are more than any body, and less than any integer type of any parser behind us.
fn content_length(value: &[u8]) -> Result<u64, Violation> {
    let plain = matches!(value.len(), 1..=18) && value.iter().all(u8::is_ascii_digit);
    // `010` is eight to some and ten to others.
    if !plain || (value.len() > 1 && value.first() == Some(&b'0')) {
        // `5, 5` is a list of two lengths (RFC 9110 §8.6 lets a recipient merge them; nobody has to).
        let list =
            value.iter().all(|&b| b.is_ascii_digit() || matches!(b, b',' | b' ' | b'\t')) && value.contains(&b',');
        return Err(if list { Violation::DuplicateContentLength } else { Violation::BadContentLength });
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// The fields that a trailer section may not have, because they would frame or route the message after the fact.
pub(crate) fn is_forbidden_trailer(name: &[u8]) -> bool {
    match name.len() {
        4 => wide::is(name, b"host"),
        10 => wide::is(name, b"connection"),
        14 => wide::is(name, b"content-length"),
        17 => wide::is(name, b"transfer-encoding"),
        _ => false,
    }
}

/// Decides when an incomplete line is looked at again: when it may have ended, or has grown twofold. A line in many pieces
/// costs no more than twice its length, and one that is wrong from its first bytes on is not waited for.
#[derive(Debug, Clone, Copy, Default)]
struct Gate {
    seen: usize,
    next: usize,
}

impl Gate {
    /// `also_at`: a length that is looked at in any case.
    fn opens(&mut self, bytes: &[u8], also_at: usize) -> bool {
        let before = std::mem::replace(&mut self.seen, bytes.len());
        let opens = bytes.len() >= self.next
            || (before < also_at && bytes.len() >= also_at)
            || bytes.get(before..).unwrap_or_default().contains(&b'\n');
        if opens {
            self.next = bytes.len().saturating_mul(2);
        }
        opens
    }
}

/// A request head that arrives in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestScan {
    /// Start of the first line that is not judged yet.
    at: usize,
    /// The first line is read.
    in_fields: bool,
    gate: Gate,
    minor_version: u8,
    connect: bool,
    fields: Fields,
}

impl RequestScan {
    pub(crate) fn new() -> Self {
        RequestScan {
            at: 0,
            in_fields: false,
            gate: Gate::default(),
            minor_version: 1,
            connect: false,
            fields: Fields::default(),
        }
    }

    /// Goes on with `bytes`, the head from its first byte on and whatever follows. `None`: more bytes are needed.
    pub(crate) fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<HeadFacts>, Violation> {
        let done = self.lines(bytes, limits)?;
        match done {
            Some(facts) if facts.len > limits.head_bytes => Err(Violation::HeadTooLarge),
            None if bytes.len() > limits.head_bytes => Err(Violation::HeadTooLarge),
            done => Ok(done),
        }
    }

    fn lines(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<HeadFacts>, Violation> {
        // Where a request line is certainly too long: 32 bytes of method, and what is around the target.
        let too_long = limits.target_bytes.saturating_add(40);
        if !self.gate.opens(bytes, if self.in_fields { 0 } else { too_long }) {
            return Ok(None);
        }
        if !self.in_fields {
            // RFC 9112 §2.2: old clients send an empty line after a body, and a server should ignore one.
            if self.at == 0 && bytes.starts_with(b"\r\n") {
                self.at = 2;
            }
            let Some(line) = request_line(bytes, self.at, limits)? else { return Ok(None) };
            self.minor_version = line.minor_version;
            self.connect = line.connect;
            self.at = line.next;
            self.in_fields = true;
        }
        loop {
            match scan::field_line(bytes, self.at)? {
                Line::Field { name, value, next } => {
                    self.fields.note(&bytes[name.0..name.1], &bytes[value.0..value.1], limits)?;
                    self.at = next;
                }
                Line::End { next } => return self.fields.facts(next, self.minor_version, self.connect).map(Some),
                Line::Partial => return Ok(None),
            }
        }
    }
}

struct RequestLine {
    minor_version: u8,
    connect: bool,
    next: usize,
}

/// `method SP target SP HTTP/1.x CRLF`, exactly one space each.
fn request_line(bytes: &[u8], at: usize, limits: &Limits) -> Result<Option<RequestLine>, Violation> {
    let method_end = scan::token_end(bytes, at);
    if method_end - at > 32 {
        return Err(Violation::BadMethod);
    }
    match bytes.get(method_end) {
        None => return Ok(None),
        Some(b' ') if method_end > at => {}
        // An empty line before the request is complete only with its LF.
        Some(b'\r') if method_end == at && bytes.len() == at + 1 && at == 0 => return Ok(None),
        Some(b'\n') => return Err(Violation::BareLf),
        Some(_) => return Err(Violation::BadMethod),
    }
    let target_at = method_end + 1;
    let (target_end, odd) = scan::target_end(bytes, target_at);
    if target_end - target_at > limits.target_bytes {
        return Err(Violation::TargetTooLong);
    }
    match bytes.get(target_end) {
        None => return Ok(None),
        Some(b' ') if target_end > target_at => {}
        Some(b'\r' | b'\n') if target_end > target_at => return Err(Violation::Http09),
        Some(_) => return Err(Violation::BadTarget),
    }
    let method = &bytes[at..method_end];
    let connect = method == b"CONNECT";
    if !target_form(&bytes[target_at..target_end], odd, method, connect) {
        return Err(Violation::BadTarget);
    }
    let Some((minor_version, end)) = version(bytes, target_end + 1)? else { return Ok(None) };
    Ok(line_end(bytes, end, Violation::BadVersion)?.map(|next| RequestLine { minor_version, connect, next }))
}

/// The four forms of RFC 9112 §3.2. Everything but a plain path is left to the parser that will read it next, so that it
/// cannot come to another verdict.
fn target_form(target: &[u8], odd: bool, method: &[u8], connect: bool) -> bool {
    match target.first() {
        _ if connect => {
            let uri = Uri::try_from(target);
            uri.is_ok_and(|uri| uri.authority().is_some() && uri.scheme().is_none() && uri.path_and_query().is_none())
        }
        Some(b'/') => !odd || PathAndQuery::try_from(target).is_ok(),
        Some(b'*') => target.len() == 1 && method == b"OPTIONS",
        _ => {
            let scheme = |uri: &Uri| uri.scheme().is_some_and(|it| *it == Scheme::HTTP || *it == Scheme::HTTPS);
            Uri::try_from(target).is_ok_and(|uri| scheme(&uri) && uri.authority().is_some())
        }
    }
}

/// `HTTP/1.0` or `HTTP/1.1` at `at`: the minor version, and where it ends.
fn version(bytes: &[u8], at: usize) -> Result<Option<(u8, usize)>, Violation> {
    const NAME: &[u8; 7] = b"HTTP/1.";
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(b"HTTP/1.1") => Ok(Some((1, at + 8))),
        Some(b"HTTP/1.0") => Ok(Some((0, at + 8))),
        Some(_) => Err(Violation::BadVersion),
        None if NAME.starts_with(rest) || rest == NAME => Ok(None),
        None => Err(Violation::BadVersion),
    }
}

fn line_end(bytes: &[u8], at: usize, otherwise: Violation) -> Result<Option<usize>, Violation> {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(Some(at + 2)),
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(_)) => Err(Violation::BareCr),
        (Some(b'\n'), _) => Err(Violation::BareLf),
        (Some(_), _) => Err(otherwise),
    }
}

/// Offsets of a field's name and value, kept until the head is complete. 32 bits: heads are bounded far below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) name: (u32, u32),
    pub(crate) value: (u32, u32),
}

impl Span {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "heads are bounded by `Limits::head_bytes`, a u32 is checked there"
    )]
    pub(crate) fn new(name: (usize, usize), value: (usize, usize)) -> Self {
        Span { name: (name.0 as u32, name.1 as u32), value: (value.0 as u32, value.1 as u32) }
    }
}

/// An answer's head that arrives in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerScan {
    at: usize,
    gate: Gate,
    status: u16,
    minor_version: u8,
    pub(crate) fields: Fields,
}

impl AnswerScan {
    pub(crate) fn new() -> Self {
        AnswerScan { at: 0, gate: Gate::default(), status: 0, minor_version: 1, fields: Fields::default() }
    }

    /// Goes on with `bytes`; where the fields are is added to `spans`. `None`: more bytes are needed.
    pub(crate) fn advance(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Option<(u16, HeadFacts)>, Violation> {
        let done = self.lines(bytes, limits, spans)?;
        match done {
            Some((_, facts)) if facts.len > limits.head_bytes => Err(Violation::HeadTooLarge),
            None if bytes.len() > limits.head_bytes => Err(Violation::HeadTooLarge),
            done => Ok(done),
        }
    }

    fn lines(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Option<(u16, HeadFacts)>, Violation> {
        if !self.gate.opens(bytes, 0) {
            return Ok(None);
        }
        if self.status == 0 {
            let Some((minor_version, status, next)) = status_line(bytes)? else { return Ok(None) };
            (self.minor_version, self.status, self.at) = (minor_version, status, next);
        }
        loop {
            match scan::field_line(bytes, self.at)? {
                Line::Field { name, value, next } => {
                    self.fields.note(&bytes[name.0..name.1], &bytes[value.0..value.1], limits)?;
                    spans.push(Span::new(name, value));
                    self.at = next;
                }
                Line::End { next } => {
                    let facts = self.fields.facts(next, self.minor_version, false)?;
                    return Ok(Some((self.status, facts)));
                }
                Line::Partial => return Ok(None),
            }
        }
    }
}

/// `HTTP/1.x SP 3DIGIT [SP reason] CRLF`. The space before an empty reason is missing in answers of correct apps.
fn status_line(bytes: &[u8]) -> Result<Option<(u8, u16, usize)>, Violation> {
    if bytes.first().is_some_and(|&b| b != b'H') {
        return Err(Violation::Http09);
    }
    let Some((minor_version, at)) = version(bytes, 0)? else { return Ok(None) };
    let Some(code) = bytes.get(at..at + 4) else {
        let so_far = bytes.get(at..).unwrap_or_default();
        let fits = so_far.iter().enumerate().all(|(i, b)| if i == 0 { *b == b' ' } else { b.is_ascii_digit() });
        return if fits { Ok(None) } else { Err(Violation::BadStatus) };
    };
    if code[0] != b' ' || !code[1..].iter().all(u8::is_ascii_digit) || code[1] == b'0' {
        return Err(Violation::BadStatus);
    }
    let status = code[1..].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let mut end = at + 4;
    if bytes.get(end) == Some(&b' ') {
        loop {
            end = scan::control_at(bytes, end);
            if bytes.get(end) != Some(&b'\t') {
                break;
            }
            end += 1;
        }
        if bytes.get(end).is_some_and(|b| !matches!(b, b'\r' | b'\n')) {
            return Err(Violation::ControlCharacter);
        }
    }
    Ok(line_end(bytes, end, Violation::BadStatus)?.map(|next| (minor_version, status, next)))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
