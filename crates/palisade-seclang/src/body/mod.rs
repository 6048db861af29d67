//! Request bodies: form, JSON, multipart and XML, read into variables.
//!
//! A reader never decides what happens to a request. It fills the variables, and where two parsers could read the same
//! bytes differently it says so with a [`Finding`], so that the gateway can refuse what is ambiguous.

mod ending;
pub(crate) mod form;
pub(crate) mod json;
pub(crate) mod multipart;
pub(crate) mod xml;

use std::fmt;

use crate::settings::Settings;
use crate::store::{List, Span, Store};

/// Something about a request that rules alone cannot judge: a limit that was passed, or bytes with two readings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The body is longer than `SecRequestBodyLimit` or `SecRequestBodyNoFilesLimit`; the rest was not inspected.
    BodyTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// There are more arguments than `SecArgumentsLimit`; the rest were not inspected.
    TooManyArguments {
        /// The limit.
        limit: usize,
    },
    /// A value is longer than `value_bytes`, and than a body may be; only its beginning was inspected.
    ValueTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The names of all values of a JSON document, each with its path, are longer than this together.
    NamesTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Rules make more variables of what the request holds than there may be; they do not see the rest.
    TooManyVariables {
        /// The limit, of one collection.
        limit: usize,
    },
    /// A multipart body has more parts than are read; the rest were not inspected.
    TooManyParts {
        /// The limit.
        limit: usize,
    },
    /// The header of a part of a multipart body has more lines than are read, or a longer one; the rest of the body was not
    /// inspected.
    PartHeaderTooLong {
        /// Most lines.
        lines: usize,
        /// Most bytes of one.
        bytes: usize,
    },
    /// JSON or XML is nested more deeply than allowed.
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The body is not JSON from this byte on.
    JsonSyntax {
        /// Offset in the body.
        at: usize,
    },
    /// An object has a key twice: parsers differ in which one counts.
    JsonDuplicateKey {
        /// The key's path.
        name: String,
    },
    /// JSON that begins with a byte order mark.
    JsonBom,
    /// Half of a surrogate pair in an escape.
    JsonLoneSurrogate,
    /// A body or a name in it that is not UTF-8.
    NotUtf8,
    /// A `%` in a form that does not begin an escape.
    FormEscape,
    /// `_charset_` in a form: it asks the server to read the other fields differently.
    FormCharset,
    /// The multipart boundary is missing, too long or has characters that parsers read differently.
    MultipartBoundary,
    /// The multipart body ends before its last boundary, or has text before the first or after the last one.
    MultipartFraming(&'static str),
    /// A part's header that parsers read differently.
    MultipartHeader(&'static str),
    /// The body is not well-formed XML.
    XmlSyntax {
        /// Offset in the body.
        at: usize,
    },
    /// XML with a document type: entities and external files may hide behind it.
    XmlDoctype,
    /// XML with an entity other than the five of the standard.
    XmlEntity,
    /// `Content-Type` is missing on a body.
    NoContentType,
    /// Several `Content-Type` headers, or one with two values.
    SeveralContentTypes,
    /// A charset other than UTF-8 and US-ASCII.
    Charset(String),
    /// A rule gave up at its step limit; it neither matched nor failed to.
    StepLimit {
        /// The rule's number.
        rule: u64,
    },
    /// The transaction used up its time; rules after this one were not evaluated.
    Budget {
        /// The rule before which evaluation stopped.
        rule: u64,
    },
    /// The transaction holds more bytes than the engine keeps.
    OutOfMemory,
}

impl Finding {
    /// A short name that stays the same.
    pub fn code(&self) -> &'static str {
        match self {
            Finding::BodyTooLong { .. } => "body_too_long",
            Finding::TooManyArguments { .. } => "too_many_arguments",
            Finding::ValueTooLong { .. } => "value_too_long",
            Finding::NamesTooLong { .. } => "names_too_long",
            Finding::TooManyVariables { .. } => "too_many_variables",
            Finding::TooManyParts { .. } => "too_many_parts",
            Finding::PartHeaderTooLong { .. } => "part_header_too_long",
            Finding::TooDeep { .. } => "too_deep",
            Finding::JsonSyntax { .. } => "json_syntax",
            Finding::JsonDuplicateKey { .. } => "json_duplicate_key",
            Finding::JsonBom => "json_bom",
            Finding::JsonLoneSurrogate => "json_lone_surrogate",
            Finding::NotUtf8 => "not_utf8",
            Finding::FormEscape => "form_escape",
            Finding::FormCharset => "form_charset",
            Finding::MultipartBoundary => "multipart_boundary",
            Finding::MultipartFraming(_) => "multipart_framing",
            Finding::MultipartHeader(_) => "multipart_header",
            Finding::XmlSyntax { .. } => "xml_syntax",
            Finding::XmlDoctype => "xml_doctype",
            Finding::XmlEntity => "xml_entity",
            Finding::NoContentType => "no_content_type",
            Finding::SeveralContentTypes => "several_content_types",
            Finding::Charset(_) => "charset",
            Finding::StepLimit { .. } => "step_limit",
            Finding::Budget { .. } => "budget",
            Finding::OutOfMemory => "out_of_memory",
        }
    }

    /// Whether something was left uninspected because of a limit, so that `beyond_limit` decides.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Finding::BodyTooLong { .. }
                | Finding::TooManyArguments { .. }
                | Finding::ValueTooLong { .. }
                | Finding::NamesTooLong { .. }
                | Finding::TooManyVariables { .. }
                | Finding::TooManyParts { .. }
                | Finding::PartHeaderTooLong { .. }
                | Finding::TooDeep { .. }
                | Finding::StepLimit { .. }
                | Finding::Budget { .. }
                | Finding::OutOfMemory
        )
    }

    /// Whether two parsers may read these bytes differently, so that the request is refused as ambiguous.
    pub fn is_ambiguous(&self) -> bool {
        !self.is_limit()
    }

    /// Whether the body could not be read at all (`REQBODY_ERROR`).
    pub(crate) fn is_error(&self) -> bool {
        matches!(
            self,
            Finding::TooManyArguments { .. }
                | Finding::NamesTooLong { .. }
                | Finding::TooManyParts { .. }
                | Finding::PartHeaderTooLong { .. }
                | Finding::TooDeep { .. }
                | Finding::JsonSyntax { .. }
                | Finding::MultipartBoundary
                | Finding::MultipartFraming("ends before its last boundary")
                | Finding::XmlSyntax { .. }
                | Finding::XmlDoctype
                | Finding::XmlEntity
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::BodyTooLong { limit } => write!(f, "the body is longer than {limit} bytes"),
            Finding::TooManyArguments { limit } => {
                write!(
                    f,
                    "the request has more than {limit} arguments (array items count; `SecArgumentsLimit` sets the limit)"
                )
            }
            Finding::ValueTooLong { limit } => write!(f, "a value is longer than {limit} bytes"),
            Finding::NamesTooLong { limit } => {
                write!(f, "the names in the JSON are longer than {limit} bytes together")
            }
            Finding::TooManyVariables { limit } => {
                write!(
                    f,
                    "rules make more than {limit} variables of this request (`SecArgumentsLimit` sets a quarter of the limit)"
                )
            }
            Finding::TooManyParts { limit } => write!(f, "the multipart body has more than {limit} parts"),
            Finding::PartHeaderTooLong { lines, bytes } => {
                write!(f, "the header of a part is longer than {lines} lines of {bytes} bytes")
            }
            Finding::TooDeep { limit } => write!(f, "the body is nested more than {limit} deep"),
            Finding::JsonSyntax { at } => write!(f, "the body is not JSON at byte {at}"),
            Finding::JsonDuplicateKey { name } => write!(f, "the key `{name}` occurs twice"),
            Finding::JsonBom => f.write_str("the JSON begins with a byte order mark"),
            Finding::JsonLoneSurrogate => f.write_str("an escape is half of a surrogate pair"),
            Finding::NotUtf8 => f.write_str("the body is not UTF-8"),
            Finding::FormEscape => f.write_str("a `%` in the form does not begin an escape"),
            Finding::FormCharset => f.write_str("the form names a charset in `_charset_`"),
            Finding::MultipartBoundary => f.write_str("the multipart boundary is missing or not plain"),
            Finding::MultipartFraming(what) => write!(f, "the multipart body {what}"),
            Finding::MultipartHeader(what) => write!(f, "a part's header {what}"),
            Finding::XmlSyntax { at } => write!(f, "the body is not XML at byte {at}"),
            Finding::XmlDoctype => f.write_str("the XML has a document type"),
            Finding::XmlEntity => f.write_str("the XML uses an entity that is not predefined"),
            Finding::NoContentType => f.write_str("the body has no Content-Type"),
            Finding::SeveralContentTypes => f.write_str("there are several Content-Types"),
            Finding::Charset(name) => write!(f, "the charset `{name}` is not UTF-8"),
            Finding::StepLimit { rule } => write!(f, "rule {rule} reached its step limit"),
            Finding::Budget { rule } => write!(f, "the time for inspection ended before rule {rule}"),
            Finding::OutOfMemory => f.write_str("the transaction holds too many bytes"),
        }
    }
}

/// What the readers write to.
pub(crate) struct Output<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) findings: &'a mut Vec<Finding>,
    pub(crate) flags: &'a mut multipart::Flags,
    pub(crate) limits: Limits,
}

/// Limits of the readers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) arguments: usize,
    pub(crate) value: usize,
    pub(crate) depth: usize,
    pub(crate) separator: u8,
    /// Bytes of all fields of a multipart body together, and of the names of its files.
    pub(crate) fields: usize,
}

impl Limits {
    pub(crate) fn of(settings: &Settings) -> Limits {
        Limits {
            arguments: settings.arguments,
            value: settings.value_bytes,
            depth: settings.json_depth,
            separator: settings.argument_separator,
            fields: settings.request_body_no_files_limit,
        }
    }
}

impl Output<'_> {
    /// Notes something once.
    pub(crate) fn find(&mut self, finding: Finding) {
        if self.findings.len() < 64 && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Notes each charset that a text in lower case names behind `word`, but for UTF-8 and its part. Each of them, whatever
    /// stands before it: which one counts differs between parsers.
    pub(crate) fn charsets(&mut self, lower: &[u8], word: &[u8]) {
        for at in memchr::memmem::find_iter(lower, word) {
            let value = lower[at + word.len()..].trim_ascii_start();
            let Some(value) = value.strip_prefix(b"=").or_else(|| value.strip_prefix(b"*")) else { continue };
            let value = value.trim_ascii_start();
            let quote = value.first().filter(|byte| matches!(byte, b'"' | b'\''));
            let name = match quote {
                Some(quote) => value[1..].split(|byte| byte == quote).next().unwrap_or(b""),
                None => value.split(|byte| matches!(byte, b';' | b',' | b' ')).next().unwrap_or(b""),
            };
            if !matches!(name, b"utf-8" | b"utf8" | b"us-ascii" | b"ascii") {
                self.find(Finding::Charset(String::from_utf8_lossy(name).chars().take(40).collect()));
            }
        }
    }

    /// Adds an argument; false when there are too many.
    pub(crate) fn argument(&mut self, list: List, name: Span, value: Span) -> bool {
        let total = self.store.list(List::ArgsGet).len() + self.store.list(List::ArgsPost).len();
        if total >= self.limits.arguments {
            self.find(Finding::TooManyArguments { limit: self.limits.arguments });
            return false;
        }
        self.store.add(list, name, value);
        true
    }

    /// Puts a value into the store, cut at the limit.
    pub(crate) fn value(&mut self, bytes: &[u8]) -> Span {
        if bytes.len() > self.limits.value {
            self.find(Finding::ValueTooLong { limit: self.limits.value });
        }
        self.store.push(&bytes[..bytes.len().min(self.limits.value)])
    }
}

/// The reader of the body at hand.
#[derive(Debug)]
pub(crate) enum Reader {
    Form(Vec<u8>),
    Json(Box<json::Reader>),
    Guess(Box<json::Guess>),
    Multipart(Box<multipart::Reader>),
    Xml(Vec<u8>),
}

impl Reader {
    pub(crate) fn feed(&mut self, chunk: &[u8], out: &mut Output<'_>) {
        match self {
            Reader::Form(buffer) | Reader::Xml(buffer) => buffer.extend_from_slice(chunk),
            Reader::Json(reader) => reader.feed(chunk, out),
            Reader::Guess(reader) => reader.feed(chunk, out),
            Reader::Multipart(reader) => reader.feed(chunk, out),
        }
    }

    pub(crate) fn finish(self, out: &mut Output<'_>) {
        match self {
            Reader::Form(buffer) => form::read(&buffer, List::ArgsPost, out),
            Reader::Xml(buffer) => xml::read(&buffer, out),
            Reader::Json(reader) => reader.finish(out),
            Reader::Guess(reader) => reader.finish(out),
            Reader::Multipart(reader) => reader.finish(out),
        }
    }
}
