//! The codes of identification, access and the endpoints under `/auth`.

use http::StatusCode;

use crate::refusal::Code;

macro_rules! codes {
    ($all:ident [$($more:tt)*]; $($(#[doc = $doc:literal])* $name:ident = $code:literal, $status:ident, $section:literal, $owasp:literal, $sentence:literal;)*) => {
        $($(#[doc = $doc])* pub static $name: Code =
            Code::client($code, StatusCode::$status, $section, $sentence).owasp($owasp);)*
        /// All of them.
        pub static $all: &[&Code] = &[$(&$name,)* $($more)*];
    };
}

codes! {
    CODES [&AWAY, &BUSY, &DOCUMENT, &NO_MAIL];
    /// The route needs a login, and the request brings none.
    REQUIRED = "auth.required", UNAUTHORIZED, 1, "authn_login_fail", "this needs a login";
    /// An access token that is none of ours, or no longer.
    TOKEN = "auth.token", UNAUTHORIZED, 1, "authn_token_reuse", "the access token is invalid or has expired";
    /// An API key that is none of ours, or no longer.
    KEY = "auth.key", UNAUTHORIZED, 1, "authn_token_reuse", "the API key is invalid or has ended";
    /// Name and password do not open an account. Says nothing about which of the reasons it is.
    FAILED = "auth.failed", UNAUTHORIZED, 1, "authn_login_fail", "the name or the password is wrong";
    /// Known, and not allowed.
    FORBIDDEN = "auth.forbidden", FORBIDDEN, 1, "authz_fail", "you may not do this";
    /// With `access = "openapi"`: neither a route nor the application's document names it.
    UNDECLARED = "auth.undeclared", FORBIDDEN, 1, "authz_fail", "this is not one of the operations that the application describes";
    /// Allowed after a fresh login of one's own only.
    STEP_UP = "auth.step_up", FORBIDDEN, 1, "authz_fail", "this needs a fresh login in a browser session";
    /// Two credentials that say different things.
    AMBIGUOUS = "auth.ambiguous", BAD_REQUEST, 1, "malicious_direct_reference", "a request may carry one credential";
    /// A cookie of Palisade's twice, or in another spelling.
    COOKIE = "auth.cookie", BAD_REQUEST, 10, "malicious_direct_reference", "the session cookie of this request is ambiguous";
    /// A key in a URL ends in logs, histories and `Referer`.
    IN_URL = "auth.in_url", BAD_REQUEST, 1, "malicious_direct_reference", "an API key does not belong into a URL";
    /// A page of another site caused it.
    CROSS_SITE = "auth.cross_site", FORBIDDEN, 5, "malicious_direct_reference", "this request comes from a page of another site";
    /// Nothing of Palisade's is there.
    NOT_FOUND = "auth.not_found", NOT_FOUND, 1, "malicious_direct_reference", "nothing is served under this path";
    /// The endpoint answers to other methods.
    METHOD = "auth.method", METHOD_NOT_ALLOWED, 1, "malicious_direct_reference", "this endpoint does not answer to this method";
    /// The body of a call is not what the endpoint reads.
    BODY = "auth.body", BAD_REQUEST, 1, "input_validation_fail", "the body of this request is malformed";
    /// The body of a call has another type.
    BODY_TYPE = "auth.body_type", UNSUPPORTED_MEDIA_TYPE, 1, "input_validation_fail", "the body of this request has another content type than this endpoint reads";
    /// The body of a call is too large.
    BODY_SIZE = "auth.body_size", PAYLOAD_TOO_LARGE, 1, "input_validation_fail", "the body of this request is too large";
    /// A field is missing, unknown or unfit.
    INVALID = "auth.invalid", UNPROCESSABLE_ENTITY, 1, "input_validation_fail", "a field of this request is missing, unknown or not acceptable";
    /// The name or address is taken.
    TAKEN = "auth.taken", CONFLICT, 1, "user_created", "this name or e-mail address is taken";
    /// Accounts are made by the operator.
    CLOSED = "auth.registration_closed", FORBIDDEN, 1, "authz_fail", "accounts are not made here";
    /// Too many attempts.
    ATTEMPTS = "auth.attempts", TOO_MANY_REQUESTS, 1, "authn_login_lock", "too many attempts; try again later";
    /// A one-time link that is unknown, used or too old.
    LINK = "auth.link", BAD_REQUEST, 1, "authn_token_reuse", "this link is invalid, was used, or has expired";
    /// More of something than one may have.
    FULL = "auth.full", CONFLICT, 1, "excess_rate_limit_exceeded", "there are as many of these as one may have";
    /// OAuth `invalid_request`.
    OAUTH_REQUEST = "auth.invalid_request", BAD_REQUEST, 1, "input_validation_fail", "the request lacks a parameter, or has one twice or malformed";
    /// OAuth `invalid_client`.
    OAUTH_CLIENT = "auth.invalid_client", UNAUTHORIZED, 1, "authn_login_fail", "the client is unknown or did not prove who it is";
    /// OAuth `invalid_grant`.
    OAUTH_GRANT = "auth.invalid_grant", BAD_REQUEST, 1, "authn_token_reuse", "the code, token or password is invalid, was used, or has expired";
    /// OAuth `unauthorized_client`.
    OAUTH_UNAUTHORIZED = "auth.unauthorized_client", BAD_REQUEST, 1, "authz_fail", "this client may not use this grant";
    /// OAuth `unsupported_grant_type`.
    OAUTH_GRANT_TYPE = "auth.unsupported_grant_type", BAD_REQUEST, 1, "input_validation_fail", "this grant is not served here";
    /// OAuth `invalid_scope`.
    OAUTH_SCOPE = "auth.invalid_scope", BAD_REQUEST, 1, "authz_fail", "a scope is unknown, or not this client's to ask for";
    /// OAuth `invalid_target` (RFC 8707).
    OAUTH_TARGET = "auth.invalid_target", BAD_REQUEST, 1, "authz_fail", "tokens for this resource are not made here";
}

/// The database does not answer.
pub static AWAY: Code = Code::operator(
    "auth.away",
    StatusCode::SERVICE_UNAVAILABLE,
    15,
    "logins cannot be checked just now; try again later",
);
/// With `access = "openapi"`: the application's document was never read.
pub static DOCUMENT: Code = Code::operator(
    "auth.document",
    StatusCode::SERVICE_UNAVAILABLE,
    1,
    "it is not known yet whom this is for; try again later",
);
/// A link would have to go by mail, and nothing sends any. The same for every address.
pub static NO_MAIL: Code =
    Code::operator("auth.no_mail", StatusCode::NOT_IMPLEMENTED, 1, "this service sends no mail; ask those who run it");
/// The pool of password hashes is full.
pub static BUSY: Code =
    Code::client("auth.busy", StatusCode::SERVICE_UNAVAILABLE, 4, "too many logins at once; try again in a moment")
        .owasp("excess_rate_limit_exceeded");

codes! {
    PASSWORDS [];
    /// Shorter than `password.min_length`.
    PASSWORD_SHORT = "password.short", UNPROCESSABLE_ENTITY, 4, "authn_password_change_fail", "the password is too short";
    /// Longer than is hashed.
    PASSWORD_LONG = "password.long", UNPROCESSABLE_ENTITY, 4, "authn_password_change_fail", "the password is too long";
    /// In the list of common and breached passwords.
    PASSWORD_COMMON = "password.common", UNPROCESSABLE_ENTITY, 4, "authn_password_change_fail", "the password is one of the most common ones";
    /// In the operator's list of breached passwords.
    PASSWORD_BREACHED = "password.breached", UNPROCESSABLE_ENTITY, 4, "authn_password_change_fail", "the password has been found in a breach";
    /// Control characters, which forms and terminals change or drop.
    PASSWORD_CONTROL = "password.control", UNPROCESSABLE_ENTITY, 4, "authn_password_change_fail", "the password holds control characters";
    /// Made of the user's or the service's names.
    PASSWORD_CONTEXT = "password.context", UNPROCESSABLE_ENTITY, 4, "authn_password_change_fail", "the password holds a name that belongs to you or to this service";
    /// Easily guessed.
    PASSWORD_WEAK = "password.weak", UNPROCESSABLE_ENTITY, 4, "authn_password_change_fail", "the password is easily guessed";
}
