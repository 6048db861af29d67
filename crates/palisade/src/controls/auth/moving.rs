//! Moving in: tokens that the application made itself are accepted until a day, and endpoints answer under the addresses
//! that its clients know.
//!
//! Guide section 1; threats 20 and 22. A key of such an issuer proves tokens of one algorithm, for accounts that came with
//! the application, and ends on a day that is written down.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use palisade_base::{BadValue, SecretRef, TextValue, Timestamp, text_value};
use palisade_identity::service::{Issuer, MAX_ISSUERS, NewIssuer, Subject};
use palisade_policy::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::config::Config;
use crate::policy::Env;
use crate::policy::secrets::weakness;
use crate::policy::values::PathPrefix;

/// `[[auth.issuers]]`: whose access tokens are accepted besides Palisade's own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct External {
    /// What it is called in logs.
    pub name: String,
    /// The secret that it signs with, by HS256: `{ secret = "old-jwt-key" }`. At least 32 bytes.
    pub hs256: SecretRef,
    /// Whose a token is: what `claim` says is the `username` of an account, its `email`, or the `app_id` that it was
    /// imported with. Only accounts that were imported with an id are meant.
    pub subject: SubjectIs,
    /// The claim that says it.
    #[serde(default = "sub")]
    pub claim: String,
    /// `iss` of its tokens. Default: they have none.
    pub issuer: Option<String>,
    /// `aud` of its tokens, one of these. Default: they have none.
    #[serde(default)]
    pub audience: Vec<String>,
    /// Claims that a token must have, with these values: `{ type = "access" }` where the application signs others with the
    /// same key.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
    /// The last day on which its tokens are accepted, in UTC, such as `2027-03-31`; or the moment at which that ends.
    pub until: Until,
}

fn sub() -> String {
    "sub".into()
}

/// What the subject of a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectIs {
    /// The name of an account.
    Username,
    /// The id that the application gave it.
    AppId,
    /// Its e-mail address.
    Email,
}

impl From<SubjectIs> for Subject {
    fn from(subject: SubjectIs) -> Self {
        match subject {
            SubjectIs::Username => Self::Username,
            SubjectIs::AppId => Self::AppId,
            SubjectIs::Email => Self::Email,
        }
    }
}

/// A day, which is meant to its end, or a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Until {
    text: Box<str>,
    /// The first moment at which it is over.
    end: Timestamp,
}

impl Until {
    /// The first moment at which it is over.
    pub fn end(&self) -> Timestamp {
        self.end
    }
}

impl TextValue for Until {
    const FORMAT: &'static str = "timestamp";
    const NOUN: &'static str = "a day or a moment";
    const EXAMPLES: &'static [&'static str] = &["2027-03-31", "2027-03-31T12:00:00Z"];
}

impl FromStr for Until {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let seconds = match Date::parse(text, format_description!("[year]-[month]-[day]")) {
            Ok(day) => day.next_day().map(|day| day.midnight().assume_utc().unix_timestamp()),
            Err(_) => OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp),
        };
        let seconds = seconds
            .ok_or_else(|| BadValue::new("a date, or a date and a time with `Z` or an offset from UTC behind it"))?;
        Ok(Self { text: text.into(), end: Timestamp(seconds.saturating_mul(1000)) })
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_value!(Until);

/// `auth.paths`: further addresses of endpoints, each besides the one under `path`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "AuthPaths")]
pub struct Paths {
    /// Of `POST token`: what the application's `tokenUrl` names.
    pub token: Option<PathPrefix>,
    /// Of `POST revoke`.
    pub revoke: Option<PathPrefix>,
    /// Of `POST introspect`.
    pub introspect: Option<PathPrefix>,
    /// Of `authorize`.
    pub authorize: Option<PathPrefix>,
    /// Of `register`.
    pub register: Option<PathPrefix>,
    /// Of `login`.
    pub login: Option<PathPrefix>,
    /// Of `POST logout`.
    pub logout: Option<PathPrefix>,
    /// Of `me`.
    pub me: Option<PathPrefix>,
    /// Of `GET csrf`.
    pub csrf: Option<PathPrefix>,
    /// Of `POST password`.
    pub password: Option<PathPrefix>,
    /// Of `GET jwks.json`.
    pub jwks: Option<PathPrefix>,
}

impl Paths {
    /// Each with its key, and the endpoint that it stands for as it is called behind `path`.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, &PathPrefix)> {
        [
            ("token", "/token", &self.token),
            ("revoke", "/revoke", &self.revoke),
            ("introspect", "/introspect", &self.introspect),
            ("authorize", "/authorize", &self.authorize),
            ("register", "/register", &self.register),
            ("login", "/login", &self.login),
            ("logout", "/logout", &self.logout),
            ("me", "/me", &self.me),
            ("csrf", "/csrf", &self.csrf),
            ("password", "/password", &self.password),
            ("jwks", "/jwks.json", &self.jwks),
        ]
        .into_iter()
        .filter_map(|(key, endpoint, path)| Some((key, endpoint, path.as_ref()?)))
    }

    /// The endpoint that a path stands for.
    pub(crate) fn find(&self, path: &str) -> Option<&'static str> {
        let path = path.strip_suffix('/').unwrap_or(path);
        self.all().find(|(_, _, own)| own.as_str() == path).map(|(_, endpoint, _)| endpoint)
    }
}

/// What of `auth.paths` cannot be meant.
pub(super) fn check_paths(section: &Config, problems: &mut Problems) {
    let all: Vec<_> = section.paths.all().collect();
    for (place, (key, _, path)) in all.iter().enumerate() {
        let at = format!("auth.paths.{key}");
        let other = all[..place].iter().find(|(_, _, other)| other == path);
        if let Some((other, _, _)) = other {
            let message = format!("`{path}` is the address of `{other}` too");
            problems.error(&at, message, "give each endpoint an address of its own");
        }
        let reserved = [section.path.as_str(), "/.palisade", "/.well-known"];
        let taken = reserved.iter().find(|taken| {
            path.as_str().strip_prefix(**taken).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if let Some(taken) = taken {
            let message = format!("what lies under `{taken}` is Palisade's own already");
            problems.error(&at, message, "write the address that the application had, such as `\"/token\"`");
        } else if path.as_str().split('/').any(|segment| segment.starts_with('.')) {
            problems.error(&at, "paths with a leading dot are not served", "choose another address");
        }
    }
}

/// The issuers, ready; what is wrong with one is reported.
pub(super) fn compile(section: &Config, env: &Env, problems: &mut Problems) -> Vec<Issuer> {
    if let Some(extra) = section.issuers.get(MAX_ISSUERS) {
        let message = format!("more than {MAX_ISSUERS} issuers; `{}` is one too many", extra.name);
        problems.error(&format!("auth.issuers[{MAX_ISSUERS}]"), message, "each may be asked about a stranger's token");
    }
    let mut ready = Vec::new();
    for (place, said) in section.issuers.iter().take(MAX_ISSUERS).enumerate() {
        let at = |key: &str| format!("auth.issuers[{place}].{key}");
        let is_name = |name: &str| (1..=64).contains(&name.len()) && !name.chars().any(char::is_control);
        if !is_name(&said.name) {
            problems.error(&at("name"), "a name has 1 to 64 bytes, without control characters", "write `\"old-app\"`");
        }
        if section.issuers[..place].iter().any(|other| other.name == said.name) {
            let message = format!("there is another issuer `{}`", said.name);
            problems.error(&at("name"), message, "logs tell them apart by it: choose another name");
        }
        if said.claim.is_empty() || said.claim.len() > 64 {
            problems.error(&at("claim"), "a claim has a name of 1 to 64 bytes", "leave the line out for `sub`");
        }
        if said.issuer.as_deref() == Some("")
            || said
                .issuer
                .as_deref()
                .is_some_and(|named| section.issuer.as_ref().is_some_and(|own| own.as_str() == named))
        {
            let fix = "write the `iss` of the application's tokens, or leave the line out where they have none";
            problems.error(&at("issuer"), "an issuer of its own is meant, not empty and not this gateway's", fix);
        }
        if said.until.end() <= env.clock.now() {
            let fix = "take the issuer out; or write a later day, if its tokens are still to be accepted";
            problems.warn(&at("until"), "this day is over: no token of this issuer is accepted", fix);
        }
        let secret = match env.secrets.get(&said.hs256.secret) {
            Ok(secret) => secret,
            Err(why) => {
                problems.error(&at("hs256"), why.to_string(), "store the key with which the application signed");
                continue;
            }
        };
        let text = secret.expose().trim_end();
        if text.bytes().all(|byte| text.as_bytes().first() == Some(&byte)) {
            problems.error(
                &at("hs256"),
                "this secret is one character, repeated",
                "it proves nothing: leave the issuer out",
            );
            continue;
        }
        if !env.is_development()
            && let Some(why) = weakness(text)
        {
            let fix = "who knows or guesses it makes tokens of every imported account: leave the issuer out, and let people \
                       log in again";
            problems.error(&at("hs256"), format!("this secret {why}"), fix);
            continue;
        }
        let demanded: Vec<(String, String)> = said.claims.clone().into_iter().collect();
        let new = NewIssuer {
            name: &said.name,
            issuer: said.issuer.as_deref(),
            audience: &said.audience,
            claim: &said.claim,
            subject: said.subject.into(),
            demanded: &demanded,
            until: said.until.end(),
        };
        match Issuer::hs256(&new, text.as_bytes()) {
            Ok(issuer) => ready.push(issuer),
            Err(why) => {
                let fix = "a key for HS256 has at least 32 bytes: who can guess it makes tokens of every imported account. \
                           Leave the issuer out, and let people log in again";
                problems.error(&at("hs256"), why.to_string(), fix);
            }
        }
    }
    ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_meant_to_its_end() {
        let end = |text: &str| text.parse::<Until>().map(|until| until.end().0 / 1000).ok();
        assert_eq!(end("2027-03-31"), Some(1_806_537_600));
        assert_eq!(end("2027-04-01T00:00:00Z"), Some(1_806_537_600));
        assert_eq!(end("2027-04-01T02:00:00+02:00"), Some(1_806_537_600));
        for bad in ["", "2027-02-30", "31.03.2027", "2027-03-31T12:00:00", "12:00:00", "soon"] {
            assert_eq!(end(bad), None, "{bad}");
        }
        assert_eq!("2027-03-31".parse::<Until>().unwrap().to_string(), "2027-03-31");
    }

    #[test]
    fn production_accepts_no_key_that_everybody_knows() {
        let dir = tempfile::tempdir().unwrap();
        let said = |mode: &str, key: &str| {
            std::fs::write(dir.path().join("old-jwt-key"), key).unwrap();
            crate::testing_local::App::problems(&format!(
                "[server]\nmode = \"{mode}\"\n[secrets]\nprovider = \"dir:{}\"\n[auth]\n[[auth.issuers]]\nname = \"old-app\"\n\
                 hs256 = {{ secret = \"old-jwt-key\" }}\nsubject = \"app_id\"\nuntil = 2999-12-31\n",
                dir.path().display()
            ))
        };
        let simple = "secret".repeat(8);
        let tutorial = "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7";
        for (key, why) in
            [(&*simple, "this secret is too simple"), (tutorial, "this secret is printed in FastAPI's tutorial")]
        {
            let problems = said("production", key);
            assert!(problems.contains(why) && problems.contains("leave the issuer out"), "{problems}");
            assert!(!problems.contains(key), "the secret is printed: {problems}");
            assert!(!said("development", key).contains(why));
        }
        let random = "aa4ecc94847df139d6cbcae5195e0412e92a0603e9a5ecd9b69830f773a2392f";
        assert!(!said("production", random).contains("this secret"));
    }

    #[test]
    fn another_address_is_that_of_one_endpoint() {
        let paths = Paths { token: "/token".parse().ok(), jwks: "/keys".parse().ok(), ..Paths::default() };
        for (path, endpoint) in [
            ("/token", Some("/token")),
            ("/token/", Some("/token")),
            ("/keys", Some("/jwks.json")),
            ("/tokens", None),
            ("/token/x", None),
            ("/Token", None),
            ("/", None),
        ] {
            assert_eq!(paths.find(path), endpoint, "{path}");
        }
    }
}
