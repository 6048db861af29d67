//! Access tokens of other issuers: those that an application made itself before it moved here.
//!
//! An issuer has one key of one algorithm, names the claim that says whose token it is, and ends on a day. Its tokens are
//! for accounts that the application brought along, and for no others: whoever has its old key is nobody who was made
//! here (threats 20, 22). Everything that holds for our own tokens holds for these: the account as it is now, its roles,
//! revocation.

use std::fmt;
use std::sync::Arc;

use palisade_base::Timestamp;
use palisade_store::{Uuid, users};
use serde_json::{Map, Value};

use super::Identity;
use super::accounts::{Account, UserId};
use super::caller::{Caller, Credential, NotValid, Unrecognised};
use super::names::{Email, Name};
use crate::opaque::hash;
use crate::token::{Algorithm, BadKey, Claims, Keys, Refused, Rules, Signed, VerifyingKey};

/// The most issuers: each may be asked about a stranger's token.
pub const MAX_ISSUERS: usize = 8;
/// How much the clocks of two machines may differ; what [`Rules`] grants.
const LEEWAY_MS: i64 = 30_000;

/// What the subject of an issuer's tokens is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The account's name.
    Username,
    /// The id that the application gave it.
    AppId,
    /// Its e-mail address.
    Email,
}

/// What is known of an issuer.
#[derive(Debug, Clone)]
pub struct NewIssuer<'a> {
    /// What it is called in logs.
    pub name: &'a str,
    /// `iss` of its tokens; `None`: they have none.
    pub issuer: Option<&'a str>,
    /// `aud` of its tokens, one of these; where empty, they have none.
    pub audience: &'a [String],
    /// The claim that says whose a token is.
    pub claim: &'a str,
    /// What that claim is.
    pub subject: Subject,
    /// Claims that a token must have, with these values.
    pub demanded: &'a [(String, String)],
    /// From then on its tokens are worth nothing.
    pub until: Timestamp,
}

/// An issuer whose tokens are accepted.
#[derive(Clone)]
pub struct Issuer {
    name: Arc<str>,
    keys: Keys,
    /// Of its key: what was proved under another one is proved no more.
    fingerprint: [u8; 32],
    rules: Rules,
    claim: String,
    subject: Subject,
    demanded: Vec<(String, String)>,
    until: Timestamp,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Issuer {
    /// One whose tokens are signed with a shared secret, by HS256 and nothing else.
    ///
    /// # Errors
    /// When the secret is shorter than 32 bytes, or longer than any key is.
    pub fn hs256(new: &NewIssuer<'_>, secret: &[u8]) -> Result<Self, BadKey> {
        let key = VerifyingKey::shared(Algorithm::Hs256, secret)?;
        let keys = Keys::new([key]).map_err(|_| BadKey::Malformed)?;
        Ok(Self {
            name: new.name.into(),
            keys,
            fingerprint: hash("palisade issuer key v1", &[secret]),
            rules: Rules::moved_in(new.issuer, new.audience, new.demanded.iter().map(|(name, _)| name.as_str())),
            claim: new.claim.into(),
            subject: new.subject,
            demanded: new.demanded.to_vec(),
            until: new.until,
        })
    }

    /// Judges what depends on nothing but the token and the time.
    fn judge(&self, signed: &Signed, id: Uuid, now: Timestamp) -> Result<Said, NotValid> {
        if now >= self.until {
            return Err(NotValid::Expired);
        }
        let claims = self.rules.check(signed, now)?.claims();
        let says = |(name, wanted): &(String, String)| text_of(claims, name).is_some_and(|said| said == *wanted);
        if !self.demanded.iter().all(says) {
            return Err(Refused::Kind.into());
        }
        let subject = text_of(claims, &self.claim).ok_or(Refused::Missing)?;
        let expires_at = claims.expires_at.ok_or(Refused::Missing)?.saturating_mul(1000);
        Ok(Said {
            id,
            subject,
            scopes: scopes_of(claims)?,
            issued_at: claims.issued_at.map(|second| second.saturating_mul(1000)),
            expires_at: Timestamp(expires_at),
        })
    }

    /// Whether an account is the one that a subject names, as it is now.
    fn names(&self, subject: &str, account: &Account) -> bool {
        account.app_id.as_deref().is_some_and(|app_id| match self.subject {
            Subject::AppId => app_id == subject,
            Subject::Username => {
                let key = |name: &str| Name::parse(name).ok().map(|name| name.key().to_owned());
                key(subject).is_some_and(|wanted| key(&account.name).as_deref() == Some(&wanted))
            }
            Subject::Email => {
                let key = |email: &str| Email::parse(email).ok().map(|email| email.key().to_owned());
                let own = account.email.as_deref().and_then(key);
                key(subject).is_some_and(|wanted| own.as_deref() == Some(&wanted))
            }
        })
    }
}

/// A token whose signature an issuer's key proved. What a cache may keep.
pub(super) struct Foreign {
    signed: Arc<Signed>,
    /// Of the key.
    fingerprint: [u8; 32],
    /// Its own name, out of the whole token: few applications give theirs one.
    id: Uuid,
}

/// What a token says, once it was judged.
struct Said {
    id: Uuid,
    subject: String,
    /// `None`: it is not limited.
    scopes: Option<Vec<String>>,
    /// In milliseconds.
    issued_at: Option<i64>,
    expires_at: Timestamp,
}

/// Whether an error of our own keys leaves it open that somebody else's token was meant.
pub(super) const fn may_be_foreign(why: &NotValid) -> bool {
    matches!(why, NotValid::Token(Refused::UnknownKey | Refused::Algorithm | Refused::Signature))
}

impl Identity {
    /// The token of an issuer. `None`: no issuer's key proves it.
    fn foreign(&self, text: &str) -> Option<(Arc<Foreign>, &Issuer)> {
        let issuers = &self.settings().issuers;
        if issuers.is_empty() || text.len() > crate::token::MAX_BYTES {
            return None;
        }
        let key = hash("palisade foreign token v1", &[text.as_bytes()]);
        if let Some(known) = self.shared.foreign.get(&key)
            && let Some(issuer) = issuers.iter().find(|issuer| issuer.fingerprint == known.fingerprint)
        {
            return Some((known, issuer));
        }
        issuers.iter().take(MAX_ISSUERS).find_map(|issuer| {
            let signed = Arc::new(issuer.keys.verify(text).ok()?);
            let id = Uuid::from_slice(&key[..16]).ok()?;
            let found = Arc::new(Foreign { signed, fingerprint: issuer.fingerprint, id });
            self.shared.foreign.insert(key, Arc::clone(&found));
            Some((found, issuer))
        })
    }

    /// As [`Identity::token_cached`], for the token of another issuer. `why`: what our own keys say of it.
    pub(super) fn foreign_cached(&self, text: &str, why: NotValid) -> Option<Result<Caller, NotValid>> {
        let Some((found, issuer)) = self.foreign(text) else { return Some(Err(why)) };
        let said = match self.judge_foreign(&found, issuer) {
            Ok(said) => said,
            Err(why) => return Some(Err(why)),
        };
        // Only a hint: whether the account is still meant is judged on what it is now.
        let user = self.shared.meant.get(&found.id)?;
        let account = self.shared.accounts.get(&user)?;
        if !issuer.names(&said.subject, &account) {
            return None;
        }
        Some(finish(issuer, &found, said, account))
    }

    /// As [`Identity::token`], for the token of another issuer.
    pub(super) async fn foreign_token(&self, text: &str, why: NotValid) -> Result<Caller, Unrecognised> {
        let (found, issuer) = self.foreign(text).ok_or(why)?;
        let said = self.judge_foreign(&found, issuer)?;
        let store = self.store();
        let row = match issuer.subject {
            Subject::AppId => users::by_app_id(store, &said.subject).await?,
            Subject::Username => match Name::parse(&said.subject) {
                Ok(name) => users::by_name(store, name.key()).await?,
                Err(_) => None,
            },
            Subject::Email => match Email::parse(&said.subject) {
                Ok(email) => users::by_email(store, email.key()).await?,
                Err(_) => None,
            },
        };
        let user = row.ok_or(NotValid::Unknown)?.id;
        let account = self.user(UserId(user)).await?.ok_or(NotValid::Unknown)?;
        if !issuer.names(&said.subject, &account) {
            return Err(NotValid::Unknown.into());
        }
        self.shared.meant.insert(found.id, user);
        Ok(finish(issuer, &found, said, account)?)
    }

    fn judge_foreign(&self, found: &Foreign, issuer: &Issuer) -> Result<Said, NotValid> {
        let said = issuer.judge(&found.signed, found.id, self.now())?;
        if self.shared.revoked.has(said.id, None, Timestamp(said.expires_at.0.saturating_add(LEEWAY_MS))) {
            return Err(NotValid::Revoked);
        }
        Ok(said)
    }

    /// What the feed calls the token of another issuer, and until when that matters.
    pub(super) fn foreign_id(&self, text: &str) -> Option<(Uuid, i64)> {
        let (found, _) = self.foreign(text)?;
        let until = found.signed.claims()?.expires_at?.saturating_mul(1000).saturating_add(LEEWAY_MS);
        Some((found.id, until))
    }
}

/// What depends on the account as it is now.
fn finish(issuer: &Issuer, found: &Foreign, said: Said, account: Arc<Account>) -> Result<Caller, NotValid> {
    if !account.is_enabled() {
        return Err(NotValid::Disabled);
    }
    if is_before(said.issued_at, &account) {
        return Err(NotValid::Revoked);
    }
    let narrow = said.scopes.is_some();
    Ok(Caller {
        account: Some(account),
        scopes: said.scopes.unwrap_or_default().into(),
        narrow,
        claims: Some(Arc::clone(&found.signed)),
        credential: Credential::Issued {
            issuer: Arc::clone(&issuer.name),
            id: said.id,
            issued_at: said.issued_at,
            expires_at: said.expires_at.min(issuer.until),
        },
    })
}

/// Whether a token is from before its account's tokens were ended: a changed password, a lost device. One that does not
/// say when it was made may be.
pub(super) fn is_before(issued_at: Option<i64>, account: &Account) -> bool {
    match issued_at {
        Some(at) => at <= account.tokens_from,
        None => account.tokens_from > 0,
    }
}

/// A claim as a text: a whole number is one in its only spelling.
fn text_of(claims: &Claims, name: &str) -> Option<String> {
    let registered = match name {
        "sub" => claims.subject.as_ref(),
        "iss" => claims.issuer.as_ref(),
        "jti" => claims.id.as_ref(),
        "client_id" => claims.client.as_ref(),
        _ => None,
    };
    let text = match (registered, claims.other.get(name)) {
        (Some(text), _) | (None, Some(Value::String(text))) => text.clone(),
        (None, Some(Value::Number(number))) => number.as_i64()?.to_string(),
        _ => return None,
    };
    (!text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control)).then_some(text)
}

/// The scopes of a token: `scope` as a text (RFC 8693), or `scopes` as a list, as FastAPI's own documentation writes them.
/// Where one is there, the token is limited to it, also to nothing. In any other shape nobody knows what was meant.
fn scopes_of(claims: &Claims) -> Result<Option<Vec<String>>, NotValid> {
    if claims.other.contains_key("scope") {
        return Err(Refused::Claims.into());
    }
    match claims.other.get("scopes") {
        None => Ok((!claims.scope.is_empty()).then(|| claims.scope.clone())),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            let listed = list.iter().filter_map(Value::as_str).map(str::to_owned);
            Ok(Some(listed.chain(claims.scope.iter().cloned()).collect()))
        }
        Some(_) => Err(Refused::Claims.into()),
    }
}

impl Caller {
    /// The claims of the token of another issuer, without those that every token has.
    pub fn claims(&self) -> Option<&Map<String, Value>> {
        Some(&self.claims.as_ref()?.claims()?.other)
    }

    /// The issuer of a token that is not ours, as the policy calls it.
    pub fn issuer(&self) -> Option<&str> {
        match &self.credential {
            Credential::Issued { issuer, .. } => Some(issuer),
            _ => None,
        }
    }
}
