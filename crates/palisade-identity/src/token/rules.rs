//! What a verifier demands of a token beyond its signature: kind, issuer, audience, time.

use std::time::Duration;

use palisade_base::Timestamp;
use serde_json::Value;

use super::Refused;
use super::claims::Claims;
use super::keys::Signed;

/// Kinds of tokens, as their `typ`. Each verifier takes one, so that no token can stand in for another.
pub mod kind {
    /// An access token (RFC 9068 section 2.1).
    pub const ACCESS: &str = "at+jwt";
    /// An ID token. OpenID Connect gives it no `typ` of its own.
    pub const ID: &str = "JWT";
    /// What the application gets with each request: who is asking, signed.
    pub const ASSERTION: &str = "palisade-assertion+jwt";
    /// A logout token (OpenID Connect back-channel logout).
    pub const LOGOUT: &str = "logout+jwt";
}

/// How much the clocks of two machines may differ.
const LEEWAY: Duration = Duration::from_secs(30);

/// What one verifier takes.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `None`: a token that names one is refused.
    issuer: Option<String>,
    audience: Vec<String>,
    kinds: Vec<String>,
    /// Claims that the operator has looked at: their values are judged elsewhere.
    known: Vec<String>,
    untyped: bool,
    own: bool,
    leeway: Duration,
    lifetime: Option<Duration>,
}

impl Rules {
    /// For our own access tokens: `at+jwt`, with all that RFC 9068 section 2.2 demands.
    pub fn access(issuer: &str, audience: impl IntoIterator<Item: Into<String>>) -> Self {
        Self::of_kind(kind::ACCESS, issuer, audience)
    }

    /// For our own tokens of one [`kind`]. They have `sub`, `iat` and `jti`.
    pub fn of_kind(kind: &str, issuer: &str, audience: impl IntoIterator<Item: Into<String>>) -> Self {
        Self {
            issuer: Some(issuer.into()),
            audience: audience.into_iter().map(Into::into).collect(),
            kinds: vec![kind.into()],
            known: Vec::new(),
            untyped: false,
            own: true,
            leeway: LEEWAY,
            lifetime: None,
        }
    }

    /// For access tokens of somebody else. Many issuers call everything `JWT` and some name no kind at all
    /// (`untyped`), so what shows itself to be an ID, refresh or logout token by its claims is refused as well.
    pub fn external(
        issuer: &str,
        audience: impl IntoIterator<Item: Into<String>>,
        kinds: impl IntoIterator<Item: Into<String>>,
        untyped: bool,
    ) -> Self {
        let kinds = kinds.into_iter().map(Into::into).collect();
        Self { kinds, untyped, own: false, ..Self::of_kind("", issuer, audience) }
    }

    /// For access tokens that an application made itself before it moved here. Few of these have a kind, an issuer or an
    /// audience; what is not expected must not be there (RFC 7519 section 4.1.3 for `aud`). `known`: claims whose value
    /// somebody else judges, so that they do not show a token to be of another kind.
    pub fn moved_in(
        issuer: Option<&str>,
        audience: impl IntoIterator<Item: Into<String>>,
        known: impl IntoIterator<Item: Into<String>>,
    ) -> Self {
        let known = known.into_iter().map(Into::into).collect();
        Self { issuer: issuer.map(Into::into), known, ..Self::external("", audience, [kind::ACCESS, "JWT"], true) }
    }

    /// Another leeway than 30 s; at most 5 minutes.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway.min(Duration::from_secs(300));
        self
    }

    /// The longest life, from `iat` to `exp`, that is believed.
    #[must_use]
    pub const fn lifetime(mut self, longest: Duration) -> Self {
        self.lifetime = Some(longest);
        self
    }

    /// Judges a token whose signature was proved. Cheap: it is asked on every request, also for tokens out of a cache.
    ///
    /// # Errors
    /// [`Refused`], the first reason in the order kind, issuer, audience, presence, time.
    pub fn check<'a>(&self, token: &'a Signed, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        let claims = token.claims.as_ref().map_err(|why| *why)?;
        if !self.is_kind(token.kind.as_deref()) || (!self.own && self.is_something_else(claims)) {
            return Err(Refused::Kind);
        }
        if claims.issuer != self.issuer {
            return Err(Refused::Issuer);
        }
        let expected = if self.own || !self.audience.is_empty() {
            claims.audience.iter().any(|audience| self.audience.contains(audience))
        } else {
            claims.audience.is_empty()
        };
        if !expected {
            return Err(Refused::Audience);
        }
        let expires = claims.expires_at.ok_or(Refused::Missing)?;
        if claims.subject.is_none() || (self.own && (claims.issued_at.is_none() || claims.id.is_none())) {
            return Err(Refused::Missing);
        }
        let leeway = i64::try_from(self.leeway.as_millis()).unwrap_or(0);
        // RFC 7519 section 4.1.4: on or after `exp` it is not accepted.
        if now.0 >= expires.saturating_mul(1000).saturating_add(leeway) {
            return Err(Refused::Expired);
        }
        let latest_start = now.0.saturating_add(leeway);
        if [claims.not_before, claims.issued_at]
            .into_iter()
            .flatten()
            .any(|start| start.saturating_mul(1000) > latest_start)
        {
            return Err(Refused::NotYet);
        }
        if let Some(longest) = self.lifetime {
            let life = claims.issued_at.map(|start| expires.saturating_sub(start)).ok_or(Refused::Missing)?;
            if life > i64::try_from(longest.as_secs()).unwrap_or(i64::MAX) {
                return Err(Refused::TooLongLived);
            }
        }
        Ok(Accepted { claims })
    }

    /// Claims that only other kinds of tokens have: hashes of an ID token, a nonce, a logout's events, another kind.
    fn is_something_else(&self, claims: &Claims) -> bool {
        let other = |name: &str| claims.other.get(name).filter(|_| !self.known.iter().any(|known| known == name));
        ["at_hash", "c_hash", "s_hash", "nonce", "events"].iter().any(|name| other(name).is_some())
            || KINDS.iter().any(|name| other(name).is_some_and(|kind| !is_access(kind)))
    }

    /// RFC 7515 section 4.1.9: case does not matter, and `application/` may be left out.
    fn is_kind(&self, kind: Option<&str>) -> bool {
        let Some(kind) = kind else { return self.untyped };
        let short = match kind.split_at_checked(12) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
            _ => kind,
        };
        self.kinds.iter().any(|expected| expected.eq_ignore_ascii_case(short))
    }
}

/// Claims in which issuers say of what kind a token is: Keycloak, FastAPI's and Flask's JWT extensions, Cognito.
const KINDS: [&str; 5] = ["typ", "type", "token_type", "token_use", "purpose"];

/// Whether the value of such a claim is that of an access token.
fn is_access(kind: &Value) -> bool {
    kind.as_str().is_some_and(|kind| ["bearer", "access", "access_token"].iter().any(|a| kind.eq_ignore_ascii_case(a)))
}

/// A token that a verifier accepted, now. Not to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Accepted<'a> {
    claims: &'a Claims,
}

impl<'a> Accepted<'a> {
    /// What it says.
    pub const fn claims(&self) -> &'a Claims {
        self.claims
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{Algorithm, Keys, MAX_BYTES, SigningKey};

    const NOW: i64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims {
            expires_at: Some(NOW + 900),
            issued_at: Some(NOW),
            id: Some("1".into()),
            ..Claims::new("https://i", "7", ["https://api"])
        }
    }

    fn judge(kind: &str, claims: &Claims, rules: &Rules, seconds: i64) -> Result<(), Refused> {
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let token = key.sign(kind, claims).expect("signed");
        let signed = Keys::new([key.verifying_key()]).expect("one").verify(token.expose()).expect("ours");
        rules.check(&signed, Timestamp(seconds * 1000)).map(|_| ())
    }

    #[test]
    fn verdicts() {
        let change = |change: fn(&mut Claims)| {
            let mut claims = claims();
            change(&mut claims);
            claims
        };
        let cases = [
            ("at+jwt", claims(), NOW, Ok(())),
            ("AT+JWT", claims(), NOW, Ok(())),
            ("application/at+jwt", claims(), NOW, Ok(())),
            ("JWT", claims(), NOW, Err(Refused::Kind)),
            ("", claims(), NOW, Err(Refused::Kind)),
            ("at+jwt ", claims(), NOW, Err(Refused::Kind)),
            ("palisade-assertion+jwt", claims(), NOW, Err(Refused::Kind)),
            ("at+jwt", change(|c| c.issuer = Some("https://i/".into())), NOW, Err(Refused::Issuer)),
            ("at+jwt", change(|c| c.issuer = None), NOW, Err(Refused::Issuer)),
            ("at+jwt", change(|c| c.audience = vec!["https://other".into()]), NOW, Err(Refused::Audience)),
            ("at+jwt", change(|c| c.audience.clear()), NOW, Err(Refused::Audience)),
            ("at+jwt", change(|c| c.audience.insert(0, "https://other".into())), NOW, Ok(())),
            ("at+jwt", change(|c| c.subject = None), NOW, Err(Refused::Missing)),
            ("at+jwt", change(|c| c.issued_at = None), NOW, Err(Refused::Missing)),
            ("at+jwt", change(|c| c.id = None), NOW, Err(Refused::Missing)),
            ("at+jwt", claims(), NOW + 929, Ok(())),
            ("at+jwt", claims(), NOW + 930, Err(Refused::Expired)),
            ("at+jwt", claims(), NOW - 30, Ok(())),
            ("at+jwt", claims(), NOW - 31, Err(Refused::NotYet)),
            ("at+jwt", change(|c| c.not_before = Some(NOW + 31)), NOW, Err(Refused::NotYet)),
            ("at+jwt", change(|c| c.expires_at = Some(NOW + 90_000)), NOW, Err(Refused::TooLongLived)),
        ];
        let rules = Rules::access("https://i", ["https://api", "urn:api"]).lifetime(Duration::from_secs(86_400));
        for (kind, claims, seconds, verdict) in cases {
            assert_eq!(judge(kind, &claims, &rules, seconds), verdict, "{kind} {claims:?} at {seconds}");
        }
    }

    #[test]
    fn each_kind_has_one_verifier() {
        let kinds = [kind::ACCESS, kind::ID, kind::ASSERTION, kind::LOGOUT];
        for token in kinds {
            for verifier in kinds {
                let rules = Rules::of_kind(verifier, "https://i", ["https://api"]);
                let verdict = judge(token, &claims(), &rules, NOW);
                assert_eq!(verdict, if token == verifier { Ok(()) } else { Err(Refused::Kind) }, "{token} {verifier}");
            }
        }
    }

    #[test]
    fn what_others_call_jwt_is_looked_at() {
        let rules = Rules::external("https://i", ["https://api"], ["at+jwt", "JWT"], false);
        let bare = Claims { issued_at: None, id: None, ..claims() };
        assert_eq!(judge("JWT", &bare, &rules, NOW), Ok(()));
        assert_eq!(judge("", &bare, &rules, NOW), Err(Refused::Kind));
        let lax = Rules::external("https://i", ["https://api"], ["JWT"], true);
        assert_eq!(judge("", &bare, &lax, NOW), Ok(()));
        for (name, value) in [("at_hash", "x"), ("nonce", "n"), ("typ", "ID"), ("typ", "Refresh"), ("events", "e")] {
            let mut claims = bare.clone();
            claims.other.insert(name.into(), value.into());
            assert_eq!(judge("JWT", &claims, &rules, NOW), Err(Refused::Kind), "{name}");
        }
        let mut claims = bare;
        claims.other.insert("typ".into(), "Bearer".into());
        assert_eq!(judge("JWT", &claims, &rules, NOW), Ok(()));
    }

    #[test]
    fn hostile_headers() {
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let id = key.verifying_key().id().expect("its thumbprint").to_owned();
        let keys = Keys::new([key.verifying_key()]).expect("one");
        let verdict = |header: &str| {
            let token = key.sign_raw(header.as_bytes(), b"{}");
            keys.verify(&token).map(|_| ())
        };
        assert_eq!(verdict(r#"{"alg":"EdDSA"}"#), Ok(()));
        assert_eq!(verdict(r#"{"alg":"Ed25519"}"#), Ok(()));
        assert_eq!(verdict(&format!(r#"{{"alg":"EdDSA","kid":"{id}","x5t":"abc","cty":"x"}}"#)), Ok(()));
        let cases = [
            (r#"{"alg":"none"}"#, Refused::Algorithm),
            (r#"{"alg":"None"}"#, Refused::Algorithm),
            (r#"{"alg":"eddsa"}"#, Refused::Algorithm),
            (r#"{"alg":"HS256"}"#, Refused::Algorithm),
            (r#"{"alg":"ES256"}"#, Refused::Algorithm),
            (r#"{"alg":"EdDSA","kid":"../../etc/passwd"}"#, Refused::UnknownKey),
            (r#"{"alg":"EdDSA","kid":"' OR 1=1 --"}"#, Refused::UnknownKey),
            (r#"{"alg":"EdDSA","kid":7}"#, Refused::Header),
            (r#"{"alg":"EdDSA","typ":["at+jwt"]}"#, Refused::Header),
            (r#"{"alg":["EdDSA"]}"#, Refused::Header),
            (r#"{"alg":null}"#, Refused::Header),
            ("{}", Refused::Header),
            (r#"{"alg":"EdDSA","alg":"EdDSA"}"#, Refused::Header),
            (r#"{"alg":"EdDSA","jku":"https://evil"}"#, Refused::BringsKey),
            (r#"{"alg":"EdDSA","x5u":"https://evil"}"#, Refused::BringsKey),
            (r#"{"alg":"EdDSA","x5c":[]}"#, Refused::BringsKey),
            (r#"{"alg":"EdDSA","jwk":{}}"#, Refused::BringsKey),
            (r#"{"alg":"EdDSA","crit":["exp"],"exp":1}"#, Refused::Extension),
            (r#"{"alg":"EdDSA","crit":[]}"#, Refused::Extension),
            (r#"{"alg":"EdDSA","b64":false,"crit":["b64"]}"#, Refused::Extension),
            (r#"{"alg":"EdDSA","b64":true}"#, Refused::Extension),
            (r#"{"alg":"EdDSA","enc":"A256GCM"}"#, Refused::Extension),
            (r#"{"alg":"EdDSA","zip":"DEF"}"#, Refused::Extension),
            ("", Refused::Header),
        ];
        for (header, why) in cases {
            assert_eq!(verdict(header), Err(why), "{header}");
        }
    }

    #[test]
    fn hostile_forms() {
        let key = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let keys = Keys::new([key.verifying_key()]).expect("one");
        let token = key.sign_raw(br#"{"alg":"EdDSA"}"#, b"{}");
        let cases = [
            (format!("{token}."), Refused::Form),
            (format!(".{token}"), Refused::Form),
            (format!("{token}="), Refused::Form),
            (format!("{token}\n"), Refused::Form),
            (format!(" {token}"), Refused::Form),
            (token.replacen('.', "..", 1), Refused::Form),
            (String::new(), Refused::Form),
            ("..".into(), Refused::Header),
            ("....".into(), Refused::Form),
            (token.rsplit_once('.').map(|(rest, _)| format!("{rest}.")).unwrap_or_default(), Refused::Signature),
            ("a".repeat(MAX_BYTES + 1), Refused::TooLong),
            ("é".into(), Refused::Form),
        ];
        for (token, why) in cases {
            assert_eq!(keys.verify(&token).map(|_| ()), Err(why), "{token:.60}");
        }
        assert_eq!(Keys::default().verify(&token).map(|_| ()), Err(Refused::UnknownKey));
    }

    #[test]
    fn sets() {
        let sign = |algorithm| SigningKey::generate(algorithm).expect("a key");
        let (one, two, ec) = (sign(Algorithm::EdDsa), sign(Algorithm::EdDsa), sign(Algorithm::Es256));
        let keys = Keys::new([&one, &two, &ec].map(SigningKey::verifying_key)).expect("three");
        for key in [&one, &two, &ec] {
            let token = key.sign(kind::ACCESS, &claims()).expect("signed");
            assert_eq!(keys.verify(token.expose()).expect("by its kid").key_id(), key.verifying_key().id());
        }
        // Without `kid`, the algorithm has to leave one.
        assert!(keys.verify(&ec.sign_raw(br#"{"alg":"ES256"}"#, b"{}")).is_ok());
        let vague = keys.verify(&one.sign_raw(br#"{"alg":"EdDSA"}"#, b"{}"));
        assert_eq!(vague.map(|_| ()), Err(Refused::UnknownKey));
    }
}
