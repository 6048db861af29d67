//! What directives set beside rules.

use crate::rule::{AuditMode, EngineMode};

/// What happens with a body beyond its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LimitAction {
    /// The transaction is refused with 413 (request) or 500 (response).
    #[default]
    Reject,
    /// What came before the limit is inspected.
    ProcessPartial,
}

/// The engine's settings, as the directives of a `modsecurity.conf` give them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// `SecRuleEngine`.
    pub engine: EngineMode,
    /// `SecRequestBodyAccess`.
    pub request_body: bool,
    /// `SecRequestBodyLimit`, in bytes.
    pub request_body_limit: usize,
    /// `SecRequestBodyNoFilesLimit`, in bytes.
    pub request_body_no_files_limit: usize,
    /// `SecRequestBodyLimitAction`.
    pub request_body_limit_action: LimitAction,
    /// `SecRequestBodyJsonDepthLimit`.
    pub json_depth: usize,
    /// `SecArgumentsLimit`: most arguments of one request.
    pub arguments: usize,
    /// Most bytes of one value that rules inspect; a longer one is an error of the body (`ValueTooLong`). Where a transaction
    /// may have a longer body ([`Transaction::limit_body`](crate::Transaction::limit_body)), so may a value be.
    pub value_bytes: usize,
    /// `SecResponseBodyAccess`.
    pub response_body: bool,
    /// `SecResponseBodyMimeType`, in lower case.
    pub response_types: Vec<String>,
    /// `SecResponseBodyLimit`, in bytes.
    pub response_body_limit: usize,
    /// `SecResponseBodyLimitAction`.
    pub response_body_limit_action: LimitAction,
    /// `SecArgumentSeparator`.
    pub argument_separator: u8,
    /// `SecCollectionTimeout`, in seconds.
    pub collection_timeout: u64,
    /// `SecAuditEngine`.
    pub audit: AuditMode,
    /// `SecAuditLogParts`.
    pub audit_parts: String,
    /// `SecAuditLogRelevantStatus`, a pattern.
    pub audit_status: Option<String>,
    /// `SecComponentSignature`.
    pub components: Vec<String>,
    /// `SecWebAppId`.
    pub web_app: String,
    /// Directives and actions that were read and have no effect in this engine, with place and reason.
    pub notes: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            engine: EngineMode::On,
            request_body: true,
            request_body_limit: 13_107_200,
            request_body_no_files_limit: 1_048_576,
            request_body_limit_action: LimitAction::Reject,
            json_depth: 512,
            arguments: 10_000,
            value_bytes: 1 << 20,
            response_body: false,
            response_types: vec!["text/plain".into(), "text/html".into(), "text/xml".into()],
            response_body_limit: 524_288,
            response_body_limit_action: LimitAction::ProcessPartial,
            argument_separator: b'&',
            collection_timeout: 3600,
            audit: AuditMode::Off,
            audit_parts: String::new(),
            audit_status: None,
            components: Vec::new(),
            web_app: String::new(),
            notes: Vec::new(),
        }
    }
}

/// The short cuts of evaluation, one by one: for measuring what each brings. All are taken unless
/// [`Builder::steps`](crate::Builder::steps) says otherwise; none changes what rules find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Rules that read configuration only are evaluated when rules are compiled.
    pub fold: bool,
    /// Every value is scanned once for the patterns of all rules; a rule without a hit is not evaluated.
    pub filter: bool,
    /// Values of letters, digits and little else are scanned for the patterns that such values can match.
    pub plain: bool,
    /// A transformation is left out where the value has nothing that it would change.
    pub triggers: bool,
    /// What a prefix of a chain of transformations makes of a value is kept for all chains that begin so, and texts that
    /// several chains make are scanned once.
    pub cache: bool,
    /// Of names and headers, which clients send again and again, is kept what they are candidates for.
    pub known: bool,
    /// A text that has none of the signs which patterns ask for is not scanned.
    pub needs: bool,
    /// Rules that the filter does not cover sleep until something of what they look at is there.
    pub wake: bool,
    /// Values that no SQL or script can be made of are not handed to libinjection's method.
    pub gates: bool,
}

impl Steps {
    /// All of them.
    pub const ALL: Steps = Steps {
        fold: true,
        filter: true,
        plain: true,
        triggers: true,
        cache: true,
        known: true,
        needs: true,
        wake: true,
        gates: true,
    };
}
