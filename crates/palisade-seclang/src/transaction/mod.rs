//! One request and its answer on their way through the rules.

mod evaluate;
mod explain;
mod named;
mod otherwise;
mod replay;
mod scan;
mod values;
mod write;

use std::sync::Arc;
use std::time::Duration;

use crate::body::{Finding, Limits, Output, Reader, form, json, multipart};
use crate::clock::Deadline;
use crate::fast::candidates::Candidates;
use crate::leave_out::LeaveOut;
use crate::operator::Found;
use crate::regex::Allowance;
use crate::rule::{AuditMode, EngineMode, Exclusion, Processor};
use crate::ruleset::RuleSet;
use crate::settings::LimitAction;
use crate::store::{List, Span, Store};
use crate::transform::MAX_OUTPUT;
use crate::variable::Var;

pub use explain::Match;
use named::Named;
pub(crate) use replay::may_replay;
use values::Value;
pub(crate) use values::lists;

/// What rules see at most, in bytes, of a body that nobody parses, where a rule asks for it all the same
/// (`ctl:forceRequestBodyVariable`): as much whatever the pieces in which it comes, and little enough that an upload streams.
const FORCED: usize = 64 << 10;

/// Longest value that is inspected where a body may be as long: whatever a transformation makes of it is inspected whole.
const LONGEST_VALUE: usize = MAX_OUTPUT / 4;

/// What a rule wants done with the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answer with the status.
    Refuse,
    /// Close the connection.
    Drop,
    /// Redirect to [`Verdict::location`].
    Redirect,
}

/// A rule's decision to end the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The rule's number; 0 for a limit of the engine itself.
    pub rule: u64,
    /// The status to answer with.
    pub status: u16,
    /// What to do.
    pub outcome: Outcome,
    /// Where to redirect to.
    pub location: Option<String>,
}

/// A transaction. Feed it in the order of the methods, from the request line to [`Transaction::logging`].
///
/// Memory is bounded by the limits of the rule set's [`Settings`](crate::Settings) and freed (or reused, see
/// [`Transaction::reset`]) at the end.
#[derive(Debug)]
pub struct Transaction {
    rules: Arc<RuleSet>,
    store: Store,
    scalars: [Span; Var::ALL.len()],
    tx: Vec<Span>,
    tx_more: Named,
    /// `IP`, `GLOBAL`, `SESSION`, `USER`, `RESOURCE`.
    collections: [Named; 5],
    /// The keys under which `initcol` opened them.
    opened: [Option<Vec<u8>>; 5],
    /// When their variables end, in seconds since 1970.
    expiries: Vec<(usize, Vec<u8>, u64)>,
    matched: Value,
    matched_vars: Vec<Value>,
    /// Where in the last matched value the match lies.
    matched_range: Option<(usize, usize)>,
    /// The rule being evaluated, for `%{RULE.id}`.
    current: usize,
    engine: EngineMode,
    audit: AuditMode,
    request_body: bool,
    response_body: bool,
    force_body: bool,
    every_reading: bool,
    guess_json: bool,
    processor: Option<Processor>,
    readers: Vec<Reader>,
    raw_body: Option<Vec<u8>>,
    body_length: usize,
    content_type: Option<Vec<u8>>,
    content_types: usize,
    flags: multipart::Flags,
    response: Vec<u8>,
    response_length: usize,
    response_wanted: bool,
    findings: Vec<Finding>,
    removed: Vec<u64>,
    removed_targets: Vec<(u32, Arc<Exclusion>)>,
    left_out: Vec<LeaveOut>,
    body_limit: usize,
    allowed: Allowed,
    verdict: Option<Verdict>,
    /// What would have been done, had the engine been on.
    detected: Option<Verdict>,
    matches: Vec<Match>,
    highest_severity: u8,
    started: Duration,
    deadline: Option<Deadline>,
    /// The budget is used up.
    late: bool,
    /// Steps that patterns which are not linear may still take.
    steps: u64,
    scratch: Scratch,
    scan: Scan,
}

/// What the filter has seen so far, and what it said.
#[derive(Debug, Default)]
struct Scan {
    candidates: Candidates,
    /// Items of each list that were looked at.
    seen: [usize; List::COUNT],
    /// Single values that were looked at, as bits.
    scalars: u32,
    /// Those that were looked at as what is missing.
    missed: u32,
    /// How many values of lists there were.
    ids: usize,
    /// Classes of which there is a value.
    present: u64,
    /// By sleeping rule: its conditions that are met.
    rung: Vec<u8>,
    /// Positions of each phase's list to evaluate, as bits.
    visit: [Vec<u64>; 5],
    /// By value: the number of the evaluation for which it is a candidate.
    marks: Vec<u32>,
    evaluation: u32,
}

/// How far an `allow` reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Allowed {
    #[default]
    No,
    Request,
    All,
}

/// Buffers that evaluation reuses.
#[derive(Debug, Default)]
struct Scratch {
    values: Vec<Value>,
    out: Vec<u8>,
    spare: Vec<u8>,
    third: Vec<u8>,
    argument: Vec<u8>,
    found: Found,
    /// Of a variable that is set: name and value.
    name: Vec<u8>,
    text: Vec<u8>,
    /// Of all headers.
    names: Vec<u8>,
}

impl Transaction {
    /// A transaction that nothing is known about yet.
    pub fn new(rules: &Arc<RuleSet>) -> Transaction {
        let mut transaction = Transaction {
            rules: rules.clone(),
            store: Store::new(),
            scalars: [Span::NONE; Var::ALL.len()],
            tx: Vec::new(),
            tx_more: Named::default(),
            collections: Default::default(),
            opened: Default::default(),
            expiries: Vec::new(),
            matched: Value::NONE,
            matched_vars: Vec::new(),
            matched_range: None,
            current: 0,
            engine: EngineMode::On,
            audit: AuditMode::Off,
            request_body: true,
            response_body: false,
            force_body: false,
            every_reading: false,
            guess_json: false,
            processor: None,
            readers: Vec::new(),
            raw_body: None,
            body_length: 0,
            content_type: None,
            content_types: 0,
            flags: multipart::Flags::default(),
            response: Vec::new(),
            response_length: 0,
            response_wanted: false,
            findings: Vec::new(),
            removed: Vec::new(),
            removed_targets: Vec::new(),
            left_out: Vec::new(),
            body_limit: usize::MAX,
            allowed: Allowed::No,
            verdict: None,
            detected: None,
            matches: Vec::new(),
            highest_severity: 255,
            started: Duration::ZERO,
            deadline: None,
            late: false,
            steps: 0,
            scratch: Scratch::default(),
            scan: Scan::default(),
        };
        transaction.begin();
        transaction
    }

    /// Makes this transaction new again, for the same rules or others, and keeps its memory.
    pub fn reset(&mut self, rules: &Arc<RuleSet>) {
        if !Arc::ptr_eq(&self.rules, rules) {
            self.rules = rules.clone();
        }
        self.store.clear();
        self.scalars.fill(Span::NONE);
        self.tx_more.clear();
        self.collections.iter_mut().for_each(Named::clear);
        self.opened = Default::default();
        self.expiries.clear();
        self.matched = Value::NONE;
        self.matched_vars.clear();
        self.force_body = false;
        self.every_reading = false;
        self.guess_json = false;
        self.processor = None;
        self.readers.clear();
        self.raw_body = None;
        self.body_length = 0;
        self.content_type = None;
        self.content_types = 0;
        self.flags = multipart::Flags::default();
        self.response.clear();
        self.response_length = 0;
        self.response_wanted = false;
        self.findings.clear();
        self.removed.clear();
        self.removed_targets.clear();
        self.left_out.clear();
        self.body_limit = usize::MAX;
        self.allowed = Allowed::No;
        self.verdict = None;
        self.detected = None;
        self.matches.clear();
        self.highest_severity = 255;
        self.deadline = None;
        self.late = false;
        self.begin();
    }

    fn begin(&mut self) {
        let settings = &self.rules.settings;
        self.engine = settings.engine;
        self.audit = settings.audit;
        self.request_body = settings.request_body;
        self.response_body = settings.response_body;
        self.tx.clear();
        self.tx.extend_from_slice(&self.rules.initial_tx);
        self.started = self.rules.clock.monotonic();
        self.steps = Allowance::FIRST;
        if let Some(fast) = &self.rules.fast {
            self.scan.begin(fast, self.rules.rules.len());
        }
    }

    /// Ends evaluation, with a [`Finding::Budget`], when this thread has used so much CPU time from now (or, where the clock
    /// cannot tell, when so much time has passed). Whoever waits between phases, or goes on in another thread, says anew
    /// what is left.
    pub fn budget(&mut self, budget: Duration) {
        let little = self.store.bytes.len() <= evaluate::LITTLE && self.body_length <= evaluate::LITTLE;
        self.deadline = Some(Deadline::new(&*self.rules.clock, budget, little));
        self.late = false;
    }

    /// What was used of the last [`Transaction::budget`]; nothing where none was set. To be asked by the thread that set it.
    pub fn used(&self) -> Duration {
        self.deadline.map_or(Duration::ZERO, |deadline| deadline.used(&*self.rules.clock))
    }

    /// Leaves rules out of this transaction, or variables out of them.
    pub fn leave_out(&mut self, what: &LeaveOut) {
        if what.0.variables.is_empty() {
            self.removed.resize(self.rules.rules.len().div_ceil(64), 0);
            for (removed, left) in self.removed.iter_mut().zip(&what.0.rules) {
                *removed |= left;
            }
        } else {
            self.left_out.push(what.clone());
        }
    }

    /// Inspects no more than this of the body, and of the fields of a multipart body, in bytes; the limits of the rule
    /// set hold beside it. A single value may be as long as the body, up to 4 MiB.
    pub fn limit_body(&mut self, bytes: usize) {
        self.body_limit = bytes;
    }

    /// Whether a body of this request, whose head is known, would be read at all. If not, it need not be fed.
    pub fn wants_request_body(&self) -> bool {
        if !self.request_body || self.engine == EngineMode::Off {
            return false;
        }
        let text = |kind: &Vec<u8>| kind.get(..5).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/"));
        self.processor.is_some() || self.content_type.as_ref().is_none_or(text)
    }

    /// Reads a body of a type that is none of those as one text.
    pub fn force_request_body(&mut self) {
        self.force_body = true;
    }

    /// Reads a body in every way that an application may, whatever its type says: what looks like JSON also as JSON, a
    /// text as an argument named `text`, a form also with `;` between its fields. Rules written for the type alone never
    /// see an attack that the application finds this way.
    ///
    /// To be said after phase 1, whose rules are told of the processor that goes with the type. Some frameworks read every
    /// kind of multipart body as a form.
    pub fn every_reading(&mut self) {
        self.every_reading = true;
        let multipart = |kind: &Vec<u8>| kind.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"));
        if self.processor.is_none() && self.content_type.as_ref().is_some_and(multipart) {
            self.processor = Some(Processor::Multipart);
            // It is read now: files are no input of rules, as in every form.
            self.force_body = false;
        }
    }

    /// Reads a body whose type no reader knows as JSON, as long as it is that: a handler that asks for JSON takes it under any
    /// name. False: bodies are not read.
    pub fn guess_json(&mut self) -> bool {
        self.guess_json = self.request_body && self.engine != EngineMode::Off;
        self.guess_json
    }

    /// Whether the rest of the body would not be read, because the beginning shows that it is no JSON, though it was fed only
    /// to find that out ([`Transaction::guess_json`]). Where a rule asks for the body, there is also as much of it as rules
    /// are shown.
    pub fn has_read_enough(&self) -> bool {
        let shown = FORCED.min(self.body_limit());
        self.is_no_json() && self.raw_body.as_ref().is_none_or(|raw| raw.len() >= shown)
    }

    /// Whether the body was fed to find out if it is JSON, and is none.
    fn is_no_json(&self) -> bool {
        self.guess_json
            && !self.readers.is_empty()
            && self.readers.iter().all(|reader| matches!(reader, Reader::Guess(guess) if guess.is_over()))
    }

    /// Most bytes of the body that are read.
    fn body_limit(&self) -> usize {
        let settings = &self.rules.settings;
        match self.processor {
            Some(Processor::Multipart) => settings.request_body_limit,
            _ => self.kept_limit(),
        }
    }

    /// Most bytes of the body that are kept as they came: without those of files.
    fn kept_limit(&self) -> usize {
        let settings = &self.rules.settings;
        settings.request_body_limit.min(settings.request_body_no_files_limit).min(self.body_limit)
    }

    /// Whether the application will parse the body, as far as its type says: anything but one text.
    pub fn is_parsed(&self) -> bool {
        self.processor.is_some() || self.content_type.is_none()
    }

    /// Whether the body is read as it comes, file by file: a multipart body, whose files are no input of rules.
    pub fn is_multipart(&self) -> bool {
        self.processor == Some(Processor::Multipart)
    }

    /// How many bytes at the end of what was fed of a multipart body are its last delimiter, may become it, or lie behind
    /// it. Whoever is handed them may take the body for whole: many parsers stop there.
    pub fn undecided_bytes(&self) -> usize {
        self.multipart().map_or(0, multipart::Reader::undecided)
    }

    /// How many bytes of a multipart body, from its beginning on, are whole parts and the delimiter behind them; 0 while no
    /// part is whole. With `--` and a line's end behind it, that is a body of these parts.
    pub fn completed_bytes(&self) -> usize {
        self.multipart().map_or(0, multipart::Reader::completed)
    }

    fn multipart(&self) -> Option<&multipart::Reader> {
        self.readers.iter().find_map(|reader| match reader {
            Reader::Multipart(reader) => Some(&**reader),
            _ => None,
        })
    }

    /// The connection's addresses, as text.
    pub fn connection(&mut self, client: &str, client_port: u16, server: &str, server_port: u16) {
        self.set(Var::RemoteAddr, client.as_bytes());
        self.set(Var::RemoteHost, client.as_bytes());
        self.set(Var::RemotePort, client_port.to_string().as_bytes());
        self.set(Var::ServerAddr, server.as_bytes());
        self.set(Var::ServerPort, server_port.to_string().as_bytes());
    }

    /// The request's id, for `UNIQUE_ID`.
    pub fn unique_id(&mut self, id: &str) {
        self.set(Var::UniqueId, id.as_bytes());
    }

    /// The request line. The target is as the client sent it; for HTTP/2 and 3 it is built from the pseudo-headers.
    pub fn request(&mut self, method: &[u8], target: &[u8], protocol: &[u8]) {
        let start = self.store.bytes.len();
        for (i, part) in [method, target, protocol].into_iter().enumerate() {
            if i > 0 && !part.is_empty() {
                self.store.bytes.push(b' ');
            }
            self.store.bytes.extend_from_slice(part);
        }
        let line = self.store.since(start);
        self.scalars[Var::RequestLine as usize] = line;
        self.scalars[Var::RequestMethod as usize] = line.slice(0, method.len());
        let raw =
            if target.is_empty() { Span::EMPTY } else { line.slice(method.len() + 1, method.len() + 1 + target.len()) };
        self.scalars[Var::RequestUriRaw as usize] = raw;
        self.scalars[Var::RequestProtocol as usize] = if protocol.is_empty() {
            Span::EMPTY
        } else {
            line.slice(line.len as usize - protocol.len(), line.len as usize)
        };
        // The absolute form's scheme and authority are not part of REQUEST_URI.
        let skip = match memchr::memmem::find(target, b"://") {
            Some(at) if target[..at].iter().all(u8::is_ascii_alphanumeric) && at > 0 => {
                target[at + 3..].iter().position(|b| matches!(b, b'/' | b'?')).map_or(target.len(), |n| at + 3 + n)
            }
            _ => 0,
        };
        let uri = &target[skip..];
        self.scalars[Var::RequestUri as usize] = raw.slice(skip, target.len());
        let (path, query) = match memchr::memchr(b'?', uri) {
            Some(at) => (&uri[..at], Some(at + 1)),
            None => (uri, None),
        };
        self.scalars[Var::QueryString as usize] = query.map_or(Span::EMPTY, |at| raw.slice(skip + at, target.len()));
        let filename = if memchr::memchr(b'%', path).is_some() {
            let start = self.store.bytes.len();
            let mut i = 0;
            while let Some(&b) = path.get(i) {
                match crate::text::hex2(path, i + 1).filter(|_| b == b'%') {
                    Some(byte) => {
                        self.store.bytes.push(byte);
                        i += 3;
                    }
                    None => {
                        self.store.bytes.push(b);
                        i += 1;
                    }
                }
            }
            self.store.since(start)
        } else {
            raw.slice(skip, skip + path.len())
        };
        self.scalars[Var::RequestFilename as usize] = filename;
        let base = self.store.own(filename).iter().rposition(|b| matches!(b, b'/' | b'\\')).map_or(0, |at| at + 1);
        self.scalars[Var::RequestBasename as usize] = filename.slice(base, filename.len as usize);
        if let Some(at) = query {
            form::read(&uri[at..], List::ArgsGet, &mut self.output());
        }
    }

    /// A request header, in the order of arrival.
    pub fn header(&mut self, name: &[u8], value: &[u8]) {
        self.store.add_bytes(List::Headers, name, value);
        match name.len() {
            6 if name.eq_ignore_ascii_case(b"cookie") => self.cookies(value),
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                self.content_types += 1;
                // One that says nothing is none: some applications guess then.
                if self.content_type.is_none() && !kind_part(value).trim_ascii().is_empty() {
                    self.content_type = Some(value.to_vec());
                }
            }
            _ => {}
        }
    }

    fn cookies(&mut self, header: &[u8]) {
        let limit = self.rules.settings.arguments;
        for pair in header.split(|b| *b == b';') {
            let pair = pair.trim_ascii();
            if pair.is_empty() {
                continue;
            }
            if self.store.list(List::Cookies).len() >= limit {
                self.output().find(Finding::TooManyArguments { limit });
                return;
            }
            let (name, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &b""[..]),
            };
            let (name, value) = (name.trim_ascii_end(), value.trim_ascii_start());
            self.store.add_bytes(List::Cookies, name, value);
            // Some applications read what is in quotes with its escapes undone, others as it stands.
            if let Some(text) = unquoted(value) {
                self.store.add_bytes(List::Cookies, name, &text);
            }
        }
    }

    /// The head is complete: chooses how the body will be read, and evaluates phase 1.
    pub fn request_headers(&mut self) -> Option<&Verdict> {
        self.choose_processor();
        self.phase(1);
        self.verdict.as_ref()
    }

    fn choose_processor(&mut self) {
        let Some(content_type) = self.content_type.clone() else { return };
        let lower = content_type.to_ascii_lowercase();
        let kind = lower.split(|b| matches!(b, b';' | b',' | b' ')).next().unwrap_or(b"").trim_ascii();
        self.processor = match kind {
            b"application/x-www-form-urlencoded" => Some(Processor::UrlEncoded),
            b"multipart/form-data" => Some(Processor::Multipart),
            b"application/json" | b"text/json" => Some(Processor::Json),
            b"application/xml" | b"text/xml" => Some(Processor::Xml),
            kind if kind.ends_with(b"+json") => Some(Processor::Json),
            kind if kind.ends_with(b"+xml") => Some(Processor::Xml),
            _ => None,
        };
        let mut out = self.output();
        out.charsets(&lower, b"charset");
        if self.content_types > 1 || memchr::memchr(b',', kind_part(&lower)).is_some() {
            self.output().find(Finding::SeveralContentTypes);
        }
    }

    /// Readers are made with the first byte of a body, after phase 1, whose rules may choose them. Without a body there
    /// is nothing to be wrong with it.
    fn start_body(&mut self) {
        if !self.request_body || self.engine == EngineMode::Off {
            return;
        }
        match self.processor {
            Some(Processor::UrlEncoded) => {
                self.readers.push(Reader::Form(Vec::new()));
                self.raw_body = Some(Vec::new());
            }
            Some(Processor::Json) => {
                let reader = json::Reader::new(&self.output());
                self.readers.push(Reader::Json(Box::new(reader)));
            }
            Some(Processor::Xml) => self.readers.push(Reader::Xml(Vec::new())),
            Some(Processor::Multipart) => {
                let content_type = self.content_type.clone().unwrap_or_default();
                let boundary = multipart::boundary(&content_type, &mut self.flags);
                let reader = multipart::Reader::new(boundary, &mut self.output());
                self.readers.push(Reader::Multipart(Box::new(reader)));
            }
            // Text is one value.
            None if self
                .content_type
                .as_ref()
                .is_none_or(|t| t.get(..5).is_some_and(|k| k.eq_ignore_ascii_case(b"text/"))) =>
            {
                self.raw_body = Some(Vec::new());
            }
            None if self.guess_json => {
                let reader = json::Guess::new(&self.output());
                self.readers.push(Reader::Guess(Box::new(reader)));
            }
            None => {}
        }
        if self.force_body && self.raw_body.is_none() {
            self.raw_body = Some(Vec::new());
        }
    }

    /// The next piece of the request body.
    pub fn body(&mut self, chunk: &[u8]) {
        if chunk.is_empty() {
            return;
        }
        if self.body_length == 0 {
            self.start_body();
        }
        if self.body_length == 0 && self.content_type.is_none() && self.request_body && self.engine != EngineMode::Off {
            // Some frameworks read such a body as JSON, others as a form: it is inspected as both, as JSON once it is whole.
            self.output().find(Finding::NoContentType);
            if self.readers.is_empty() {
                self.readers.push(Reader::Form(Vec::new()));
            }
        }
        let (limit, kept) = (self.body_limit(), self.kept_limit());
        let before = self.body_length;
        self.body_length = before.saturating_add(chunk.len());
        let room = limit.saturating_sub(before);
        let too_long = chunk.len() > room;
        let chunk = &chunk[..chunk.len().min(room)];
        if let Some(raw) = &mut self.raw_body {
            let room = kept.saturating_sub(raw.len());
            raw.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        let mut readers = std::mem::take(&mut self.readers);
        for reader in &mut readers {
            reader.feed(chunk, &mut self.output());
        }
        self.readers = readers;
        // What would not have been read is not too long, in whatever pieces it comes.
        if too_long && !self.has_read_enough() {
            self.scalars[Var::InboundDataError as usize] = self.store.push(b"1");
            self.output().find(Finding::BodyTooLong { limit });
        }
    }

    /// The request is complete: evaluates phase 2.
    pub fn request_body(&mut self) -> Option<&Verdict> {
        // How much more there is depends on the pieces in which it came.
        let shown = if self.is_no_json() { FORCED } else { usize::MAX };
        for reader in std::mem::take(&mut self.readers) {
            reader.finish(&mut self.output());
        }
        if let Some(raw) = self.raw_body.take().filter(|b| !b.is_empty()) {
            let limit = self.rules.settings.request_body_limit;
            let raw = &raw[..raw.len().min(limit).min(shown)];
            let span = self.store.push(raw);
            self.scalars[Var::RequestBody as usize] = span;
            // What was only looked at, to find out whether it is JSON, is an argument in no reading: a picture is no text.
            if self.every_reading && !self.guess_json {
                self.read_otherwise(raw, span);
            } else if self.content_type.is_none() {
                self.read_as_json(raw);
            }
        }
        let too_long = self.findings.iter().any(|f| matches!(f, Finding::BodyTooLong { .. }));
        if too_long && self.rules.settings.request_body_limit_action == LimitAction::Reject {
            self.limit_verdict(413);
        }
        self.phase(2);
        self.verdict.as_ref()
    }

    fn limit_verdict(&mut self, status: u16) {
        let verdict = Verdict { rule: 0, status, outcome: Outcome::Refuse, location: None };
        match self.engine {
            EngineMode::On if self.verdict.is_none() => self.verdict = Some(verdict),
            EngineMode::DetectionOnly if self.detected.is_none() => self.detected = Some(verdict),
            _ => {}
        }
    }

    /// The answer's status line.
    pub fn response(&mut self, status: u16, protocol: &[u8]) {
        self.set(Var::ResponseStatus, status.to_string().as_bytes());
        self.set(Var::ResponseProtocol, protocol);
    }

    /// A response header.
    pub fn response_header(&mut self, name: &[u8], value: &[u8]) {
        self.store.add_bytes(List::ResponseHeaders, name, value);
        if name.eq_ignore_ascii_case(b"content-type") {
            let kind = value.split(|b| matches!(b, b';' | b' ')).next().unwrap_or(b"").to_ascii_lowercase();
            self.response_wanted = self.rules.settings.response_types.iter().any(|t| t.as_bytes() == kind);
            self.set(Var::ResponseContentType, value);
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.set(Var::ResponseContentLength, value);
        }
    }

    /// The answer's head is complete: evaluates phase 3.
    pub fn response_headers(&mut self) -> Option<&Verdict> {
        self.phase(3);
        self.verdict.as_ref()
    }

    /// Whether the rules want to see the answer's body at all. If not, it need not be buffered.
    pub fn wants_response_body(&self) -> bool {
        self.response_body && self.response_wanted && self.engine != EngineMode::Off
    }

    /// The next piece of the answer's body.
    pub fn response_chunk(&mut self, chunk: &[u8]) {
        if !self.wants_response_body() {
            return;
        }
        let limit = self.rules.settings.response_body_limit;
        self.response_length = self.response_length.saturating_add(chunk.len());
        let room = limit.saturating_sub(self.response.len());
        if chunk.len() > room {
            self.scalars[Var::OutboundDataError as usize] = self.store.push(b"1");
        }
        self.response.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }

    /// The answer is complete: evaluates phase 4.
    pub fn response_body(&mut self) -> Option<&Verdict> {
        if !self.response.is_empty() {
            let body = std::mem::take(&mut self.response);
            self.set(Var::ResponseBody, &body);
            self.response = body;
        }
        let settings = &self.rules.settings;
        if self.response_length > settings.response_body_limit
            && settings.response_body_limit_action == LimitAction::Reject
        {
            self.limit_verdict(500);
        }
        self.phase(4);
        self.verdict.as_ref()
    }

    /// Evaluates phase 5. Rules of this phase only record.
    pub fn logging(&mut self) {
        self.phase(5);
        self.save_collections();
    }

    /// The verdict, once a rule has refused.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// What the first refusing rule would have done, where the engine only detects.
    pub fn would_be(&self) -> Option<&Verdict> {
        self.detected.as_ref()
    }

    /// Rules that matched and log, in order.
    pub fn matches(&self) -> &[Match] {
        &self.matches
    }

    /// What else was noticed: limits and ambiguities.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What the rules want written to an audit log.
    pub fn audit(&self) -> AuditMode {
        self.audit
    }

    /// Everything that was read of the request: the list, the name and the value of each item.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn items(&self) -> Vec<(List, Vec<u8>, Vec<u8>)> {
        let own = |span: Span| self.store.own(span).to_vec();
        let lists = [List::ArgsGet, List::ArgsPost, List::Cookies, List::Files, List::FilesNames, List::FilesSizes];
        let lists = lists.into_iter().chain([List::PartHeaders, List::XmlText, List::XmlAttributes]);
        lists
            .flat_map(|list| self.store.list(list).iter().map(move |item| (list, own(item.name), own(item.value))))
            .collect()
    }

    /// A variable of `TX`, such as `anomaly_score`.
    pub fn tx(&self, name: &str) -> Option<&[u8]> {
        let span = self.find_tx(name.to_ascii_lowercase().as_bytes())?;
        Some(self.bytes(span))
    }

    /// A variable of `TX` by its slot.
    pub(crate) fn tx_slot(&self, slot: usize) -> Option<&[u8]> {
        self.tx.get(slot).filter(|s| !s.is_none()).map(|s| self.bytes(*s))
    }

    fn set(&mut self, var: Var, value: &[u8]) {
        self.scalars[var as usize] = self.store.push(value);
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.store.get(span, &self.rules.constants)
    }

    fn output(&mut self) -> Output<'_> {
        Output {
            limits: {
                let limits = Limits::of(&self.rules.settings);
                let value = if self.body_limit == usize::MAX { 0 } else { self.body_limit.min(LONGEST_VALUE) };
                Limits { fields: limits.fields.min(self.body_limit), value: limits.value.max(value), ..limits }
            },
            store: &mut self.store,
            findings: &mut self.findings,
            flags: &mut self.flags,
        }
    }
}

/// A cookie's value in quotes, as Python's `http.cookies` reads it: `\"`, `\\`, and bytes in octal. `None`: it is no other.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    memchr::memchr(b'\\', inner)?;
    let mut out = Vec::with_capacity(inner.len());
    let mut i = 0;
    while let Some(&b) = inner.get(i) {
        let octal = inner.get(i + 1..i + 4).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match (b, octal, inner.get(i + 1)) {
            (b'\\', Some(digits), _) => {
                out.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                i += 4;
            }
            (b'\\', None, Some(&next)) => {
                out.push(next);
                i += 2;
            }
            _ => {
                out.push(b);
                i += 1;
            }
        }
    }
    Some(out)
}

/// The part of a Content-Type before its parameters.
fn kind_part(lower: &[u8]) -> &[u8] {
    lower.split(|b| *b == b';').next().unwrap_or(b"")
}

#[cfg(test)]
mod tests;
