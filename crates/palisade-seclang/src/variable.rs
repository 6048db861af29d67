//! The variables that rules may read.

macro_rules! variables {
    ($($name:ident $text:literal $kind:ident,)*) => {
        /// A variable of the rule language.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[expect(clippy::enum_variant_names, reason = "named as rules name them: MATCHED_VAR")]
        pub(crate) enum Var { $($name,)* }

        impl Var {
            pub(crate) const ALL: &'static [Var] = &[$(Var::$name,)*];

            /// As rules and logs spell it.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Var::$name => $text,)* }
            }

            pub(crate) fn kind(self) -> Kind {
                match self { $(Var::$name => Kind::$kind,)* }
            }
        }
    };
}

/// What a variable holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One value.
    Scalar,
    /// Named values that come from the request or the response.
    Collection,
    /// The names of a collection's values.
    Names,
    /// `TX`, `IP` and the like, written by rules.
    Writable,
    /// Values of the rule that is being evaluated.
    Match,
    /// XML by path.
    Xml,
}

variables! {
    Args "ARGS" Collection,
    ArgsGet "ARGS_GET" Collection,
    ArgsPost "ARGS_POST" Collection,
    ArgsNames "ARGS_NAMES" Names,
    ArgsGetNames "ARGS_GET_NAMES" Names,
    ArgsPostNames "ARGS_POST_NAMES" Names,
    RequestCookies "REQUEST_COOKIES" Collection,
    RequestCookiesNames "REQUEST_COOKIES_NAMES" Names,
    RequestHeaders "REQUEST_HEADERS" Collection,
    RequestHeadersNames "REQUEST_HEADERS_NAMES" Names,
    ResponseHeaders "RESPONSE_HEADERS" Collection,
    ResponseHeadersNames "RESPONSE_HEADERS_NAMES" Names,
    Files "FILES" Collection,
    FilesNames "FILES_NAMES" Collection,
    FilesSizes "FILES_SIZES" Collection,
    MultipartPartHeaders "MULTIPART_PART_HEADERS" Collection,
    Xml "XML" Xml,
    Tx "TX" Writable,
    Ip "IP" Writable,
    Global "GLOBAL" Writable,
    Session "SESSION" Writable,
    User "USER" Writable,
    Resource "RESOURCE" Writable,
    Geo "GEO" Collection,
    Rule "RULE" Match,
    MatchedVar "MATCHED_VAR" Scalar,
    MatchedVarName "MATCHED_VAR_NAME" Scalar,
    MatchedVars "MATCHED_VARS" Match,
    MatchedVarsNames "MATCHED_VARS_NAMES" Match,
    ArgsCombinedSize "ARGS_COMBINED_SIZE" Scalar,
    FilesCombinedSize "FILES_COMBINED_SIZE" Scalar,
    RequestBody "REQUEST_BODY" Scalar,
    RequestBodyLength "REQUEST_BODY_LENGTH" Scalar,
    RequestLine "REQUEST_LINE" Scalar,
    RequestMethod "REQUEST_METHOD" Scalar,
    RequestProtocol "REQUEST_PROTOCOL" Scalar,
    RequestUri "REQUEST_URI" Scalar,
    RequestUriRaw "REQUEST_URI_RAW" Scalar,
    RequestFilename "REQUEST_FILENAME" Scalar,
    RequestBasename "REQUEST_BASENAME" Scalar,
    QueryString "QUERY_STRING" Scalar,
    PathInfo "PATH_INFO" Scalar,
    RemoteAddr "REMOTE_ADDR" Scalar,
    RemoteHost "REMOTE_HOST" Scalar,
    RemotePort "REMOTE_PORT" Scalar,
    RemoteUser "REMOTE_USER" Scalar,
    AuthType "AUTH_TYPE" Scalar,
    ServerAddr "SERVER_ADDR" Scalar,
    ServerPort "SERVER_PORT" Scalar,
    ServerName "SERVER_NAME" Scalar,
    UniqueId "UNIQUE_ID" Scalar,
    Duration "DURATION" Scalar,
    ReqbodyProcessor "REQBODY_PROCESSOR" Scalar,
    ReqbodyError "REQBODY_ERROR" Scalar,
    ReqbodyErrorMsg "REQBODY_ERROR_MSG" Scalar,
    ReqbodyProcessorError "REQBODY_PROCESSOR_ERROR" Scalar,
    ReqbodyProcessorErrorMsg "REQBODY_PROCESSOR_ERROR_MSG" Scalar,
    UrlencodedError "URLENCODED_ERROR" Scalar,
    InboundDataError "INBOUND_DATA_ERROR" Scalar,
    OutboundDataError "OUTBOUND_DATA_ERROR" Scalar,
    MultipartStrictError "MULTIPART_STRICT_ERROR" Scalar,
    MultipartUnmatchedBoundary "MULTIPART_UNMATCHED_BOUNDARY" Scalar,
    MultipartBoundaryQuoted "MULTIPART_BOUNDARY_QUOTED" Scalar,
    MultipartBoundaryWhitespace "MULTIPART_BOUNDARY_WHITESPACE" Scalar,
    MultipartDataBefore "MULTIPART_DATA_BEFORE" Scalar,
    MultipartDataAfter "MULTIPART_DATA_AFTER" Scalar,
    MultipartHeaderFolding "MULTIPART_HEADER_FOLDING" Scalar,
    MultipartLfLine "MULTIPART_LF_LINE" Scalar,
    MultipartCrlfLfLines "MULTIPART_CRLF_LF_LINES" Scalar,
    MultipartMissingSemicolon "MULTIPART_MISSING_SEMICOLON" Scalar,
    MultipartInvalidQuoting "MULTIPART_INVALID_QUOTING" Scalar,
    MultipartInvalidPart "MULTIPART_INVALID_PART" Scalar,
    MultipartInvalidHeaderFolding "MULTIPART_INVALID_HEADER_FOLDING" Scalar,
    MultipartFileLimitExceeded "MULTIPART_FILE_LIMIT_EXCEEDED" Scalar,
    MultipartName "MULTIPART_NAME" Scalar,
    MultipartFilename "MULTIPART_FILENAME" Scalar,
    ResponseBody "RESPONSE_BODY" Scalar,
    ResponseStatus "RESPONSE_STATUS" Scalar,
    ResponseProtocol "RESPONSE_PROTOCOL" Scalar,
    ResponseContentType "RESPONSE_CONTENT_TYPE" Scalar,
    ResponseContentLength "RESPONSE_CONTENT_LENGTH" Scalar,
    StatusLine "STATUS_LINE" Scalar,
    HighestSeverity "HIGHEST_SEVERITY" Scalar,
    Webappid "WEBAPPID" Scalar,
    TimeEpoch "TIME_EPOCH" Scalar,
    Time "TIME" Scalar,
    TimeHour "TIME_HOUR" Scalar,
    TimeMin "TIME_MIN" Scalar,
    TimeSec "TIME_SEC" Scalar,
    TimeDay "TIME_DAY" Scalar,
    TimeMon "TIME_MON" Scalar,
    TimeWday "TIME_WDAY" Scalar,
    TimeYear "TIME_YEAR" Scalar,
}

impl Var {
    /// Finds a variable by the name that a rule uses, in any case.
    pub(crate) fn find(name: &str) -> Option<Var> {
        // ModSecurity 3 renamed two; rules of either age are in use.
        let name = match name.to_ascii_uppercase().as_str() {
            "MULTIPART_DATA_BEFORE_BOUNDARY" => "MULTIPART_DATA_BEFORE".to_owned(),
            "SCRIPT_BASENAME" => "REQUEST_BASENAME".to_owned(),
            other => other.to_owned(),
        };
        Var::ALL.iter().copied().find(|v| v.name() == name)
    }

    /// The writable collection's number, for storage.
    pub(crate) fn persistent_slot(self) -> Option<usize> {
        match self {
            Var::Ip => Some(0),
            Var::Global => Some(1),
            Var::Session => Some(2),
            Var::User => Some(3),
            Var::Resource => Some(4),
            _ => None,
        }
    }

    /// For a `…_NAMES` variable the one whose names it gives.
    pub(crate) fn base(self) -> Var {
        match self {
            Var::ArgsNames => Var::Args,
            Var::ArgsGetNames => Var::ArgsGet,
            Var::ArgsPostNames => Var::ArgsPost,
            Var::RequestCookiesNames => Var::RequestCookies,
            Var::RequestHeadersNames => Var::RequestHeaders,
            Var::ResponseHeadersNames => Var::ResponseHeaders,
            other => other,
        }
    }
}
