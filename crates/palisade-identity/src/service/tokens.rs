//! Access tokens (RFC 9068): made, recognised, revoked.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_base::{Secret, Timestamp};
use palisade_store::{Uuid, changes};
use serde_json::Value;

use super::accounts::{Account, UserId};
use super::caller::{Caller, Credential, NotValid, Unrecognised};
use super::clients::Client;
use super::error::Trouble;
use super::issuers::may_be_foreign;
use super::{Identity, made_at, new_id};
use crate::opaque::hash;
use crate::token::{Claims, Refused, Rules, Signed, kind};

/// `client_id` of tokens from a password login. No client can be registered under it.
pub const PASSWORD_CLIENT: &str = "palisade";
/// How much the clocks of two machines may differ; what [`Rules`] grants.
const LEEWAY_MS: i64 = 30_000;
/// How long a revocation is remembered at least.
const LEAST_MS: i64 = 3_600_000;

/// What an access token is to say.
#[derive(Debug, Clone)]
pub struct NewToken<'a> {
    /// The user; `None`: the client acts for itself.
    pub account: Option<&'a Account>,
    /// The client that gets it; `None`: a password login.
    pub client: Option<&'a str>,
    /// The family of refresh tokens or session that it comes from: ended with it.
    pub grant: Option<Uuid>,
    /// What it is limited to. Empty: for a password login all that its user may, for a client nothing.
    pub scopes: &'a [String],
    /// Whom it is for; empty: the API.
    pub audience: &'a [String],
    /// When the user proved who they are.
    pub authenticated_at: Option<Timestamp>,
}

/// A token that is active, as its introspection may show it.
#[derive(Debug, Clone)]
pub struct Introspected {
    /// Whose it is, and what it is good for now.
    pub caller: Caller,
    /// What it says.
    pub claims: Claims,
}

/// An access token that was made.
#[derive(Debug)]
pub struct AccessToken {
    /// Its text.
    pub text: Secret<String>,
    /// Its `jti`.
    pub id: Uuid,
    /// How long it lives.
    pub expires_in: Duration,
}

impl Identity {
    /// Makes an access token.
    ///
    /// # Errors
    /// [`Trouble`]: there is no key, or the cryptographic library failed.
    pub fn issue_token(&self, new: &NewToken<'_>) -> Result<AccessToken, Trouble> {
        let now = self.now();
        let settings = self.settings();
        let id = new_id(now);
        let subject = match new.account {
            Some(account) => account.id.to_string(),
            // RFC 9068 section 2.2. Ids of clients are never UUIDs, so none is the id of a user.
            None => new.client.unwrap_or(PASSWORD_CLIENT).to_owned(),
        };
        let audience = if new.audience.is_empty() { &settings.audience } else { new.audience };
        let mut claims = Claims::new(&settings.issuer, &subject, audience);
        let life = settings.lifetimes.access_token;
        claims.issued_at = Some(now.0 / 1000);
        claims.expires_at = Some(now.plus(life).0 / 1000);
        claims.id = Some(id.to_string());
        claims.client = Some(new.client.unwrap_or(PASSWORD_CLIENT).to_owned());
        claims.scope = new.scopes.to_vec();
        if let Some(account) = new.account.filter(|_| !is_narrow(new.client, new.scopes)) {
            claims.roles.clone_from(&account.roles);
        }
        if let Some(grant) = new.grant {
            claims.other.insert("sid".into(), grant.to_string().into());
        }
        if let Some(at) = new.authenticated_at {
            claims.other.insert("auth_time".into(), (at.0 / 1000).into());
        }
        let signer = self.shared.ring.load().ring.signer(now).ok_or(Trouble::NoSigningKey)?;
        Ok(AccessToken { text: signer.sign(kind::ACCESS, &claims)?, id, expires_in: life })
    }

    /// The keys that check our tokens, as a JWK set to publish.
    pub fn jwk_set(&self) -> Value {
        self.shared.ring.load().ring.jwk_set(self.now())
    }

    /// Recognises an access token from memory. `None`: ask [`token`](Self::token). A token that was never seen is
    /// verified here too; only its account may be missing.
    ///
    /// `audience`: whom the route takes tokens for; the API's own where empty.
    pub fn token_cached(&self, text: &str, audience: &[String]) -> Option<Result<Caller, NotValid>> {
        let (signed, parts) = match self.judge_token(text, audience) {
            Ok(judged) => judged,
            Err(why) if may_be_foreign(&why) => return self.foreign_cached(text, why),
            Err(why) => return Some(Err(why)),
        };
        let account = match parts.user {
            None => None,
            Some(user) => Some(self.shared.accounts.get(&user.0)?),
        };
        let client = match &parts.client {
            None => None,
            Some(client) => Some(self.client_cached(client)?),
        };
        Some(finish(&signed, parts, account, client.as_deref()))
    }

    /// Recognises an access token.
    ///
    /// # Errors
    /// [`Unrecognised`].
    pub async fn token(&self, text: &str, audience: &[String]) -> Result<Caller, Unrecognised> {
        let (signed, parts) = match self.judge_token(text, audience) {
            Ok(judged) => judged,
            Err(why) if may_be_foreign(&why) => return self.foreign_token(text, why).await,
            Err(why) => return Err(why.into()),
        };
        let account = match parts.user {
            None => None,
            Some(user) => {
                let mark = self.shared.accounts.mark();
                Some(self.account_marked(user.0, mark).await?.ok_or(NotValid::Unknown)?)
            }
        };
        let client = match &parts.client {
            None => None,
            Some(client) => Some(self.client(client).await?.ok_or(NotValid::Revoked)?),
        };
        Ok(finish(&signed, parts, account, client.as_deref())?)
    }

    /// What a token is good for, for whom it may be shown to (RFC 7662): a client that was recognised, and only tokens
    /// for one of `audience`. `None`: it is not active, and nothing else is said.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn introspect(&self, text: &str, audience: &[String]) -> Result<Option<Introspected>, Trouble> {
        let caller = match self.token(text, audience).await {
            Ok(caller) => caller,
            Err(Unrecognised::NotValid(_)) => return Ok(None),
            Err(Unrecognised::Trouble(why)) => return Err(why),
        };
        let claims = self.signed(text).ok().and_then(|signed| signed.claims().cloned());
        Ok(claims.map(|claims| Introspected { caller, claims }))
    }

    /// All that is judged without the account: signature (remembered), then kind, issuer, audience, time and
    /// revocation, on every request.
    fn judge_token(&self, text: &str, audience: &[String]) -> Result<(Arc<Signed>, Parts), NotValid> {
        let signed = self.signed(text)?;
        let settings = self.settings();
        let audience = if audience.is_empty() { &settings.audience } else { audience };
        let rules = Rules::access(&settings.issuer, audience);
        let now = self.now();
        let parts = Parts::read(rules.check(&signed, now)?.claims())?;
        if self.shared.revoked.has(parts.id, parts.grant, Timestamp(parts.expires_at.0.saturating_add(LEEWAY_MS))) {
            return Err(NotValid::Revoked);
        }
        Ok((signed, parts))
    }

    /// The signature: the one thing about a token that cannot change, as long as its key is ours.
    fn signed(&self, text: &str) -> Result<Arc<Signed>, NotValid> {
        if text.len() > crate::token::MAX_BYTES {
            return Err(Refused::TooLong.into());
        }
        let key = hash("palisade token cache v1", &[text.as_bytes()]);
        let ring = self.shared.ring.load();
        if let Some(signed) = self.shared.signed.get(&key)
            && ring.keys.iter().any(|known| known.id() == signed.key_id())
        {
            return Ok(signed);
        }
        let signed = Arc::new(ring.keys.verify(text)?);
        self.shared.signed.insert(key, signed.clone());
        Ok(signed)
    }

    /// Revokes one access token, by what it says of itself once its signature was checked (RFC 7009). A token that is
    /// not ours or over is no error: it is worth nothing already. `client`: a token that a client obtained is revoked by
    /// that client; one that no client obtained, by whoever holds it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn revoke_token(&self, text: &str, client: Option<&str>) -> Result<bool, Trouble> {
        let Ok(signed) = self.signed(text) else {
            // One of another issuer is no client's.
            return match self.foreign_id(text).filter(|_| client.is_none()) {
                Some((id, until)) => self.announce_revoked(id, until).await,
                None => Ok(false),
            };
        };
        let now = self.now();
        // For whomever it is: revoking needs no audience.
        let rules = |audience: Vec<String>| Rules::access(&self.settings().issuer, audience);
        let Some(claims) = signed.claims() else { return Ok(false) };
        let rules = rules(claims.audience.clone());
        let Ok(accepted) = rules.check(&signed, now) else { return Ok(false) };
        let Ok(parts) = Parts::read(accepted.claims()) else { return Ok(false) };
        if parts.client.as_deref() != client {
            return Ok(false);
        }
        self.announce_revoked(parts.id, parts.expires_at.0.saturating_add(LEEWAY_MS)).await
    }

    /// Nothing is written where nothing changes: whoever holds a token could fill the feed with it.
    async fn announce_revoked(&self, id: Uuid, until: i64) -> Result<bool, Trouble> {
        if until <= self.now().0 || self.shared.revoked.has(id, None, Timestamp(until)) {
            return Ok(false);
        }
        let tx = self.store().begin().await?;
        tx.announce(changes::New { kind: changes::Kind::Token, subject: id.to_string(), at: self.now().0, until });
        self.apply(tx.commit().await?);
        Ok(true)
    }

    /// When the last access token that was issued until now is over.
    pub(super) fn tokens_end(&self, now: Timestamp) -> i64 {
        // Also of those from before a reload that made their lives shorter, here or (within reason) elsewhere.
        let life = self.shared.longest_token_ms.load(Ordering::Relaxed).max(LEAST_MS);
        now.0.saturating_add(life).saturating_add(LEEWAY_MS + 1000)
    }
}

/// What is needed of a token's claims.
struct Parts {
    id: Uuid,
    issued_at: i64,
    expires_at: Timestamp,
    user: Option<UserId>,
    client: Option<String>,
    grant: Option<Uuid>,
}

impl Parts {
    fn read(claims: &Claims) -> Result<Self, NotValid> {
        let malformed = NotValid::Token(Refused::Claims);
        let id = claims.id.as_deref().and_then(|id| Uuid::parse_str(id).ok()).ok_or(malformed)?;
        let issued_at = made_at(id).ok_or(malformed)?;
        let expires_at = claims.expires_at.ok_or(malformed)?.saturating_mul(1000);
        let client = claims.client.clone().ok_or(malformed)?;
        let user = claims.subject.as_deref().and_then(UserId::parse);
        if user.is_none() && claims.subject.as_deref() != Some(client.as_str()) {
            return Err(malformed);
        }
        let grant = match claims.other.get("sid") {
            None => None,
            Some(grant) => Some(grant.as_str().and_then(|id| Uuid::parse_str(id).ok()).ok_or(malformed)?),
        };
        let client = Some(client).filter(|client| client != PASSWORD_CLIENT);
        Ok(Self { id, issued_at, expires_at: Timestamp(expires_at), user, client, grant })
    }
}

/// What depends on the account as it is now.
fn finish(
    signed: &Signed,
    parts: Parts,
    account: Option<Arc<Account>>,
    client: Option<&Client>,
) -> Result<Caller, NotValid> {
    let granted = signed.claims().map(|claims| claims.scope.as_slice()).ok_or(NotValid::Malformed)?;
    if let Some(account) = &account {
        if !account.is_enabled() {
            return Err(NotValid::Disabled);
        }
        if parts.issued_at <= account.tokens_from {
            return Err(NotValid::Revoked);
        }
    }
    let narrow = is_narrow(parts.client.as_deref(), granted);
    // What was taken from the client is taken from its tokens.
    let scopes = granted.iter().filter(|scope| client.is_none_or(|client| client.scopes.contains(scope)));
    Ok(Caller {
        account,
        scopes: scopes.cloned().collect(),
        narrow,
        claims: None,
        credential: Credential::Token {
            id: parts.id,
            grant: parts.grant,
            client: parts.client,
            expires_at: parts.expires_at,
        },
    })
}

/// Only a password login that asked for nothing less carries all that its user may.
fn is_narrow(client: Option<&str>, scopes: &[String]) -> bool {
    client.is_some() || !scopes.is_empty()
}
