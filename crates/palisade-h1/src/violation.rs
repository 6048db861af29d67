//! What was wrong with a message, by a name that logs and metrics may rely on.

use std::fmt;

macro_rules! violations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $text:literal;)*) => {
        /// Why the framing of a message was refused.
        ///
        /// The name of each ([`Violation::name`]) is for ever: log lines, metrics and alert rules use it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Violation { $($(#[$doc])* $variant,)* }

        impl Violation {
            /// All of them, for tables and documentation.
            pub const ALL: &'static [Violation] = &[$(Violation::$variant,)*];

            /// The stable name, such as `bare_lf`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Violation::$variant => $name,)* }
            }

            /// A sentence for people, without any value of the message.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Violation::$variant => $text,)* }
            }
        }
    };
}

violations! {
    /// A line ends in LF without CR (RFC 9112 §2.2 lets a recipient accept it, which is how two come to disagree).
    BareLf = "bare_lf", "a line ends in a bare line feed";
    /// A CR that is not followed by LF.
    BareCr = "bare_cr", "a carriage return without its line feed";
    /// A field line that starts with white space (RFC 9112 §5.2), also the first one.
    ObsFold = "obs_fold", "a folded header line";
    /// White space between field name and colon (RFC 9112 §5.1).
    SpaceBeforeColon = "space_before_colon", "white space before a colon";
    /// An empty field name, one that is no token, or a line without a colon.
    BadHeaderName = "bad_header_name", "a header line without a valid name";
    /// NUL, DEL or another control character where none may be.
    ControlCharacter = "control_character", "a control character in the head";
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.1).
    ClAndTe = "cl_and_te", "both content-length and transfer-encoding";
    /// More than one `Content-Length`, also as a list and also when equal.
    DuplicateContentLength = "duplicate_content_length", "more than one content-length";
    /// A length that is no plain decimal number of at most 18 digits without leading zeros.
    BadContentLength = "bad_content_length", "a malformed content-length";
    /// A transfer coding other than a single `chunked`.
    UnknownTransferCoding = "unknown_transfer_coding", "a transfer coding other than chunked";
    /// `Transfer-Encoding` in a message of HTTP/1.0.
    ChunkedInHttp10 = "chunked_in_http_1_0", "transfer-encoding in http/1.0";
    /// A chunk size that is no hexadecimal number of 1 to 15 digits ended by CRLF.
    BadChunkSize = "bad_chunk_size", "a malformed chunk size";
    /// A chunk extension: nobody uses them, and parsers disagree about where they end.
    ChunkExtension = "chunk_extension", "a chunk extension";
    /// The data of a chunk is not followed by CRLF.
    BadChunkEnd = "bad_chunk_end", "chunk data that does not end where its size says";
    /// A trailer field that would frame or route the message (RFC 9110 §6.5.1).
    ForbiddenTrailer = "forbidden_trailer", "a trailer that only a head may have";
    /// A request line without version, or an answer without status line.
    Http09 = "http_0_9", "http/0.9";
    /// A version other than `HTTP/1.0` and `HTTP/1.1`.
    BadVersion = "bad_version", "an unknown http version";
    /// A method that is no token of at most 32 characters.
    BadMethod = "bad_method", "a malformed method";
    /// A request target that is in none of the four forms of RFC 9112 §3.2, or has bytes that no target may have.
    BadTarget = "bad_target", "a malformed request target";
    /// The target is longer than allowed.
    TargetTooLong = "target_too_long", "a request target that is too long";
    /// The head, or the trailer section, is longer than allowed.
    HeadTooLarge = "head_too_large", "a head that is too large";
    /// More field lines than allowed.
    TooManyHeaders = "too_many_headers", "too many header lines";
    /// A status line that is malformed, or a status below 100.
    BadStatus = "bad_status", "a malformed status line";
    /// More interim (1xx) answers than allowed.
    TooManyInterim = "too_many_interim", "too many interim answers";
    /// A 101 that the request did not ask for, or before it was sent.
    UnexpectedUpgrade = "unexpected_upgrade", "an upgrade that was not asked for";
    /// The head was not complete in time.
    HeadTimeout = "head_timeout", "a head that takes too long";
    /// The message ended before its head did.
    Incomplete = "incomplete", "a head that ends too early";
}

impl Violation {
    /// The status a server answers with: 414 for the target's length, 431 for too large heads, 408 for late ones, else 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Violation::HeadTimeout => 408,
            Violation::TargetTooLong => 414,
            Violation::HeadTooLarge | Violation::TooManyHeaders => 431,
            _ => 400,
        }
    }
}

impl Violation {
    /// The violation that an error of a request body goes back to: the guard reports a bad chunk through the server's read.
    #[must_use]
    pub fn in_error(error: &(dyn std::error::Error + 'static)) -> Option<Violation> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(violation) = error.downcast_ref::<Violation>() {
                return Some(*violation);
            }
            // An `io::Error` shows what it wraps through `get_ref`; its `source` is one step further.
            next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Violation {}
